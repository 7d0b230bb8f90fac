//! The stack machine: which opcode does what.
//!
//! Source: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>

use super::objects::{Id, OTHER, Object, Objects};
use std::collections::HashMap;

/// Most opcodes: a ResNet-200 has some 50 thousand, with an optimizer's state some more.
pub(super) const MAX_STEPS: usize = 4_000_000;
/// An error's text.
const EMPTY: &str = "a pickle of an empty stack";

/// Makes objects.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Objects<'a>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let objects = Objects::new();
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        Self { bytes, at: 0, objects, stack, marks, memo }
    }

    /// Runs to the end, and gives what was made, with the place behind it.
    pub(super) fn run(mut self) -> Result<(Objects<'a>, Id, usize), String> {
        for _ in 0..MAX_STEPS {
            if self.step()? {
                let root = self.pop()?;
                return Ok((self.objects, root, self.at));
            }
        }
        Err(format!("a pickle of more than {MAX_STEPS} steps"))
    }

    /// One opcode; true at the end.
    fn step(&mut self) -> Result<bool, String> {
        let [op] = self.take()?;
        if op == b'.' {
            return Ok(true);
        }
        let is_known = self.plain(op)?
            || self.number(op)?
            || self.string(op)?
            || self.collection(op)?
            || self.kept(op)?
            || self.object(op)?;
        if !is_known {
            return Err(format!(
                "the pickle wants opcode {op:#04x}, which no state dict needs; save the model's \
                 state_dict() alone"
            ));
        }
        Ok(false)
    }

    /// Opcodes of the stack alone, and those of what is of no use; false of all others.
    fn plain(&mut self, op: u8) -> Result<bool, String> {
        match op {
            0x80 => drop(self.take::<1>()?), // protocol
            0x95 => drop(self.take::<8>()?), // frame
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => self.stack.push(self.top()?),
            // None, True, False, a set, a buffer from elsewhere.
            b'N' | 0x88 | 0x89 | 0x8f | 0x97 => self.stack.push(OTHER),
            0x98 => {} // the buffer is read-only
            // Classes that a registry has numbered.
            0x82 => self.skip(1)?,
            0x83 => self.skip(2)?,
            0x84 => self.skip(4)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes of numbers.
    fn number(&mut self, op: u8) -> Result<bool, String> {
        let value = match op {
            b'G' => return self.skip(8).map(|()| true),
            b'F' => self.line().map(|_| Object::Other)?,
            b'J' => Object::Int(i32::from_le_bytes(self.take()?).into()),
            b'K' => Object::Int(self.length::<1>()? as i64),
            b'M' => Object::Int(self.length::<2>()? as i64),
            b'I' | b'L' => {
                let line = str::from_utf8(self.line()?).unwrap_or_default();
                line.trim_end_matches('L').parse().map_or(Object::Other, Object::Int)
            }
            0x8a => {
                let len = self.length::<1>()?;
                self.long(len)?
            }
            0x8b => {
                let len = self.length::<4>()?;
                self.long(len)?
            }
            _ => return Ok(false),
        };
        self.push(value);
        Ok(true)
    }

    /// Opcodes of texts and bytes.
    fn string(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b'U' | 0x8c => self.text::<1>()?,
            b'T' | b'X' => self.text::<4>()?,
            0x8d => self.text::<8>()?,
            b'S' => {
                let line = self.line()?;
                let inner = line.get(1..line.len().saturating_sub(1)).unwrap_or_default();
                self.push(Object::Text(inner));
            }
            b'V' => {
                let line = self.line()?;
                self.push(Object::Text(line));
            }
            b'C' => self.bytes::<1>()?,
            b'B' => self.bytes::<4>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes of tuples, lists, dicts and sets.
    fn collection(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b')' | b']' => self.push(Object::Sequence(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Object::Sequence(items));
            }
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(op - 0x84));
                let items = self.stack.split_off(from.ok_or(EMPTY)?);
                self.push(Object::Sequence(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            // A frozen set.
            0x91 => {
                self.since_mark()?;
                self.stack.push(OTHER);
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.since_mark()?;
                self.push(Object::Dict(Vec::new()));
                self.insert(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.insert(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes that keep what is on top, or push what was kept.
    fn kept(&mut self, op: u8) -> Result<bool, String> {
        let index = match op {
            b'q' | b'h' => self.length::<1>()? as u32,
            b'r' | b'j' => self.length::<4>()? as u32,
            b'p' | b'g' => self.index()?,
            0x94 => self.memo.len() as u32,
            _ => return Ok(false),
        };
        if matches!(op, b'h' | b'j' | b'g') {
            let id = self.memo.get(&index).ok_or("a pickle that recalls what it never kept")?;
            self.stack.push(*id);
        } else {
            self.memo.insert(index, self.top()?);
        }
        Ok(true)
    }

    /// Opcodes of classes, of calls of functions and classes, and of what lies elsewhere.
    fn object(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b'c' => {
                let class = self.global()?;
                self.stack.push(class);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                if self.objects.text(name).is_none() || self.objects.text(module).is_none() {
                    return Err("a pickle whose class has no name".into());
                }
                self.push(Object::Global(module, name));
            }
            b'R' | 0x81 | 0x92 => {
                if op == 0x92 {
                    self.pop()?; // arguments with names
                }
                let (args, function) = (self.pop()?, self.pop()?);
                self.call(function, args);
            }
            b'i' => {
                let class = self.global()?;
                let args = self.since_mark()?;
                let args = self.objects.add(Object::Sequence(args));
                self.call(class, args);
            }
            b'o' => {
                let mut args = self.since_mark()?.into_iter();
                let class = args.next().ok_or("a pickle that calls nothing")?;
                let args = self.objects.add(Object::Sequence(args.collect()));
                self.call(class, args);
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => self.persistent()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("the pickle is cut short")?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let slice = self.slice(N)?;
        slice.try_into().map_err(|_| "the pickle is cut short".into())
    }

    /// A length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let mut all = [0; 8];
        all[..N].copy_from_slice(self.slice(N)?);
        usize::try_from(u64::from_le_bytes(all)).map_err(|_| "the pickle is cut short".into())
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or("the pickle is cut short")?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    fn index(&mut self) -> Result<u32, String> {
        let line = str::from_utf8(self.line()?).ok();
        line.and_then(|l| l.parse().ok()).ok_or_else(|| "a pickle that keeps nowhere".into())
    }

    fn global(&mut self) -> Result<Id, String> {
        let (module, name) = (self.line()?, self.line()?);
        let [module, name] = [module, name].map(|text| self.objects.add(Object::Text(text)));
        Ok(self.objects.add(Object::Global(module, name)))
    }

    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let len = self.length::<N>()?;
        let text = self.slice(len)?;
        self.push(Object::Text(text));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<(), String> {
        let len = self.length::<N>()?;
        self.skip(len)
    }

    /// An object of `len` bytes that is of no use.
    fn skip(&mut self, len: usize) -> Result<(), String> {
        self.slice(len)?;
        self.stack.push(OTHER);
        Ok(())
    }

    /// A little-endian integer of any length; one beyond 64 bits is no size.
    fn long(&mut self, len: usize) -> Result<Object<'a>, String> {
        let bytes = self.slice(len)?;
        if bytes.len() > 8 {
            return Ok(Object::Other);
        }
        let negative = bytes.last().is_some_and(|b| *b >= 0x80);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        Ok(Object::Int(i64::from_le_bytes(all)))
    }

    fn push(&mut self, object: Object<'a>) {
        let id = self.objects.add(object);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| EMPTY.into())
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("a pickle without a mark")?))
    }

    /// Appends to what is on top, where it is a list.
    fn append(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        if let Object::Sequence(list) = self.objects.get_mut(top) {
            list.extend(items);
        }
        Ok(())
    }

    /// Inserts into what is on top: a dict, or an object of a class that is like one.
    fn insert(&mut self, items: &[Id]) -> Result<(), String> {
        let mut top = self.top()?;
        if let Object::Call { function, state } = *self.objects.get(top) {
            let dict = match state {
                OTHER => self.objects.add(Object::Dict(Vec::new())),
                dict => dict,
            };
            *self.objects.get_mut(top) = Object::Call { function, state: dict };
            top = dict;
        }
        if let Object::Dict(dict) = self.objects.get_mut(top) {
            dict.extend(&items[..items.len() / 2 * 2]);
        }
        Ok(())
    }

    /// Sets what an object of an unknown class is made of. Dicts and tensors have attributes that
    /// are of no use.
    fn build(&mut self, state: Id) -> Result<(), String> {
        let top = self.top()?;
        // With slots, a state has two parts.
        let state = match self.objects.sequence(state) {
            Some(&[attributes, _]) => attributes,
            _ => state,
        };
        if let Object::Call { state: old, .. } = self.objects.get_mut(top)
            && *old == OTHER
        {
            *old = state;
        }
        Ok(())
    }

    /// `('storage', torch.FloatStorage, key, location, length, …)`, or what is no storage.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let id = match self.objects.sequence(id) {
            Some(&[tag, dtype, key, _, len, ..]) if self.objects.text(tag) == Some(b"storage") => {
                self.objects.add(Object::Storage { dtype, key, len })
            }
            // A class, with its source code.
            Some(&[tag, class, ..]) if self.objects.text(tag) == Some(b"module") => class,
            _ => OTHER,
        };
        self.stack.push(id);
        Ok(())
    }

    /// A call; only these are carried out.
    fn call(&mut self, function: Id, args: Id) {
        let objects = &self.objects;
        let args = objects.sequence(args).unwrap_or_default();
        let is = |module, name| objects.is(function, module, name);
        let is_dict = is("collections", "OrderedDict") || is("collections", "defaultdict");
        let id = match *args {
            // Python 2 gives a list of pairs.
            [pairs] if is("collections", "OrderedDict") => {
                let pairs = objects.sequence(pairs).unwrap_or_default();
                let pairs = pairs.iter().filter_map(|pair| objects.sequence(*pair));
                let items = pairs.filter(|pair| pair.len() == 2).flatten().copied().collect();
                self.objects.add(Object::Dict(items))
            }
            _ if is_dict => self.objects.add(Object::Dict(Vec::new())),
            [parameter, ..] if is("torch._utils", "_rebuild_parameter") => parameter,
            [tensor, ..] if is("torch._utils", "_rebuild_parameter_with_state") => tensor,
            // A tensor with attributes, or of a class of its own.
            [rebuild, _, args, _] if is("torch._tensor", "_rebuild_from_type_v2") => {
                let args = objects.sequence(args).unwrap_or_default();
                let object = rebuilt(objects, rebuild, args);
                self.objects.add(object)
            }
            // An object without its constructor.
            [class, ..] if is("copy_reg", "_reconstructor") || is("copyreg", "_reconstructor") => {
                self.objects.add(Object::Call { function: class, state: OTHER })
            }
            _ => {
                let object = rebuilt(objects, function, args);
                self.objects.add(object)
            }
        };
        self.stack.push(id);
    }
}

/// The tensor that a call would return, or the call.
fn rebuilt<'a>(objects: &Objects<'a>, function: Id, args: &[Id]) -> Object<'a> {
    let names = ["_rebuild_tensor", "_rebuild_tensor_v2"];
    let rebuilds = names.iter().any(|name| objects.is(function, "torch._utils", name));
    match *args {
        [storage, offset, shape, stride, ..] if rebuilds => {
            Object::Tensor { storage, offset, shape, stride }
        }
        _ => Object::Call { function, state: OTHER },
    }
}
