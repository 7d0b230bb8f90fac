//! Python pickles of state dicts, without Python: data only, nothing is ever called.
//!
//! A pickle is a program for a stack machine that makes objects. Here each is an entry of one table,
//! and what refers to it is its place there: an object that is shared, or that is changed after it
//! was kept, is one object here, too, and nothing is copied. Of its calls those are carried out that
//! PyTorch's `state_dict` needs; what any other would return is an [`Object::Call`], of which only
//! the name is known.
//!
//! Source: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>

use artifact::text::AsPlain;
use std::borrow::Cow;
use std::collections::HashMap;

/// Most opcodes: a ResNet-200 has some 50 thousand, with an optimizer's state some more.
const MAX_STEPS: usize = 4_000_000;
/// Objects that are allocated at once.
const CHUNK: usize = 4096;

/// An object's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u32);

/// None, booleans and all else that no weight is made of.
const OTHER: Id = Id(0);

/// What an object is.
#[derive(Debug, Clone)]
pub enum Object<'a> {
    /// None, booleans, floats, bytes, sets: nothing that a weight is made of.
    Other,
    /// A whole number.
    Int(i64),
    /// A string.
    Text(&'a [u8]),
    /// A tuple or a list.
    Sequence(Vec<Id>),
    /// Keys and values by turns, in order of insertion.
    Dict(Vec<Id>),
    /// A module's name and that of something in it.
    Global(Id, Id),
    /// Numbers that lie elsewhere in the file: their type, their name there, and how many they are.
    Storage {
        /// PyTorch's name of the type.
        dtype: Id,
        /// Names the numbers in the file.
        key: Id,
        /// How many they are.
        len: Id,
    },
    /// A strided view of a storage.
    Tensor {
        /// The numbers.
        storage: Id,
        /// Of the first one.
        offset: Id,
        /// Dimensions.
        shape: Id,
        /// Numbers from one to the next along each dimension.
        stride: Id,
    },
    /// What a call would return that is not carried out; `state` is what was set of it afterwards.
    Call {
        /// What is called.
        function: Id,
        /// What was set.
        state: Id,
    },
}

/// Numbers that lie elsewhere in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// PyTorch's name of the type, e.g. `FloatStorage`.
    pub dtype: String,
    /// Names the numbers in the file.
    pub key: String,
    /// How many they are.
    pub len: usize,
}

/// A strided view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorView {
    /// The numbers.
    pub storage: Storage,
    /// Of the first one.
    pub offset: usize,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Numbers from one to the next along each dimension.
    pub stride: Vec<usize>,
}

/// What a pickle has made.
#[derive(Debug)]
pub struct Pickle<'a> {
    objects: Objects<'a>,
    /// What it returns.
    pub root: Id,
    /// Bytes that it takes.
    pub len: usize,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle at the start of `bytes`.
    ///
    /// # Errors
    /// Damaged pickles, and those that take too many steps.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut objects = Objects { chunks: Vec::new() };
        objects.add(Object::Other);
        let mut machine = Machine {
            bytes,
            at: 0,
            objects,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        for _ in 0..MAX_STEPS {
            if machine.step()? {
                let root = machine.pop()?;
                return Ok(Self { objects: machine.objects, root, len: machine.at });
            }
        }
        Err(format!("a pickle of more than {MAX_STEPS} steps"))
    }

    /// What lies at `id`.
    pub fn object(&self, id: Id) -> &Object<'a> {
        self.objects.get(id)
    }

    /// The string at `id`, where there is one.
    pub fn text(&self, id: Id) -> Option<Cow<'a, str>> {
        self.objects.text(id).map(String::from_utf8_lossy)
    }

    /// Keys and values of a dict.
    pub fn pairs(&self, id: Id) -> impl Iterator<Item = (Id, Id)> {
        let items = match self.object(id) {
            Object::Dict(items) => items.as_slice(),
            _ => &[],
        };
        items.chunks_exact(2).map(|pair| (pair[0], pair[1]))
    }

    /// `module.name` of what a call calls.
    pub fn function(&self, id: Id) -> String {
        match *self.object(id) {
            Object::Global(module, name) => {
                let text = |id| self.text(id).unwrap_or_default();
                format!("{}.{}", text(module), text(name)).plain().to_string()
            }
            _ => "what another call returns".into(),
        }
    }

    /// A tensor's description; `None` where it is none, or lacks something.
    pub fn view(&self, id: Id) -> Option<TensorView> {
        let Object::Tensor { storage, offset, shape, stride } = *self.object(id) else {
            return None;
        };
        Some(TensorView {
            storage: self.storage(storage)?,
            offset: self.size(offset)?,
            shape: self.sizes(shape)?,
            stride: self.sizes(stride)?,
        })
    }

    /// All storages that the pickle refers to.
    pub fn storages(&self) -> impl Iterator<Item = Storage> {
        let all = self.objects.chunks.iter().flatten();
        all.filter_map(|object| self.storage_of(object))
    }

    fn storage(&self, id: Id) -> Option<Storage> {
        self.storage_of(self.object(id))
    }

    fn storage_of(&self, object: &Object<'_>) -> Option<Storage> {
        let Object::Storage { dtype, key, len } = *object else { return None };
        let Object::Global(_, dtype) = *self.object(dtype) else { return None };
        Some(Storage {
            dtype: self.text(dtype)?.into_owned(),
            key: self.text(key)?.into_owned(),
            len: self.size(len)?,
        })
    }

    fn size(&self, id: Id) -> Option<usize> {
        match *self.object(id) {
            Object::Int(i) => usize::try_from(i).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.objects.sequence(id)?.iter().map(|id| self.size(*id)).collect()
    }

    /// The texts of a list, `None` where it has others.
    pub fn texts(&self, id: Id) -> Option<Vec<Cow<'a, str>>> {
        self.objects.sequence(id)?.iter().map(|id| self.text(*id)).collect()
    }
}

/// The table, in pieces that never move.
#[derive(Debug)]
struct Objects<'a> {
    chunks: Vec<Vec<Object<'a>>>,
}

impl<'a> Objects<'a> {
    /// At most one for each step, so that 32 bits count them.
    fn add(&mut self, object: Object<'a>) -> Id {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first few of a small pickle need no whole piece.
            let capacity = if self.chunks.is_empty() { 64 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { return OTHER };
        chunk.push(object);
        Id((before + chunk.len() - 1) as u32)
    }

    fn get(&self, Id(at): Id) -> &Object<'a> {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn get_mut(&mut self, Id(at): Id) -> &mut Object<'a> {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn text(&self, id: Id) -> Option<&'a [u8]> {
        match *self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// Whether `id` is the global `module.name`.
    fn is(&self, id: Id, module: &str, name: &str) -> bool {
        match *self.get(id) {
            Object::Global(m, n) => {
                self.text(m) == Some(module.as_bytes()) && self.text(n) == Some(name.as_bytes())
            }
            _ => false,
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Objects<'a>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// One opcode; true at the end.
    fn step(&mut self) -> Result<bool, String> {
        let [op] = self.take()?;
        match op {
            b'.' => return Ok(true),
            0x80 => drop(self.take::<1>()?), // protocol
            0x95 => drop(self.take::<8>()?), // frame
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => self.stack.push(*self.stack.last().ok_or("a pickle of an empty stack")?),
            // None, True, False, a set, a buffer from elsewhere.
            b'N' | 0x88 | 0x89 | 0x8f | 0x97 => self.stack.push(OTHER),
            0x98 => {} // the buffer is read-only
            b'G' => self.skip(8)?,
            b'F' => {
                self.line()?;
                self.stack.push(OTHER);
            }
            // Classes that a registry has numbered.
            0x82 => self.skip(1)?,
            0x83 => self.skip(2)?,
            0x84 => self.skip(4)?,
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Object::Int(value.into()));
            }
            b'K' => {
                let [value] = self.take()?;
                self.push(Object::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Object::Int(value.into()));
            }
            b'I' | b'L' => {
                let line = str::from_utf8(self.line()?).unwrap_or_default();
                let value = line.trim_end_matches('L').parse().map_or(Object::Other, Object::Int);
                self.push(value);
            }
            0x8a => {
                let [len] = self.take()?;
                self.long(len.into())?;
            }
            0x8b => {
                let len = self.length::<4>()?;
                self.long(len)?;
            }
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
            b')' | b']' => self.push(Object::Sequence(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Object::Sequence(items));
            }
            0x85..=0x87 => {
                let count = usize::from(op - 0x84);
                let from =
                    self.stack.len().checked_sub(count).ok_or("a pickle of an empty stack")?;
                let items = self.stack.split_off(from);
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
            b'q' => {
                let [index] = self.take()?;
                self.memoize(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.take()?);
                self.memoize(index)?;
            }
            b'p' => {
                let index = self.index()?;
                self.memoize(index)?;
            }
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'h' => {
                let [index] = self.take()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.take()?);
                self.recall(index)?;
            }
            b'g' => {
                let index = self.index()?;
                self.recall(index)?;
            }
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
            // A call of a function, or of a class.
            b'R' | 0x81 => {
                let (args, function) = (self.pop()?, self.pop()?);
                self.call(function, args);
            }
            0x92 => {
                self.pop()?; // arguments with names
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
            _ => {
                return Err(format!(
                    "the pickle wants opcode {op:#04x}, which no state dict needs; save the model's \
                     state_dict() alone"
                ));
            }
        }
        Ok(false)
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
    fn long(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.slice(len)?;
        if bytes.len() > 8 {
            self.stack.push(OTHER);
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|b| *b >= 0x80);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(all)));
        Ok(())
    }

    fn push(&mut self, object: Object<'a>) {
        let id = self.objects.add(object);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| "a pickle of an empty stack".into())
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "a pickle of an empty stack".into())
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

    fn memoize(&mut self, index: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let id = self.memo.get(&index).ok_or("a pickle that recalls what it never kept")?;
        self.stack.push(*id);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_data_is_read() {
        // pickle.dumps({"a": (1, 300, -2), "b": [None, 1.5]}, protocol=2)
        let bytes = b"\x80\x02}q\0(X\x01\0\0\0aq\x01K\x01M,\x01J\xfe\xff\xff\xff\x87q\x02X\x01\0\0\0bq\x03]q\x04(NG?\xf8\0\0\0\0\0\0eu.";
        let pickle = Pickle::parse(bytes).unwrap();
        assert_eq!(pickle.len, bytes.len());
        let [(a, sizes), (b, list)] = pickle.pairs(pickle.root).collect::<Vec<_>>()[..] else {
            panic!("{pickle:?}")
        };
        assert_eq!((&*pickle.text(a).unwrap(), &*pickle.text(b).unwrap()), ("a", "b"));
        let sizes = pickle.objects.sequence(sizes).unwrap().iter().map(|id| pickle.size(*id));
        assert_eq!(sizes.collect::<Vec<_>>(), [Some(1), Some(300), None]);
        assert_eq!(pickle.objects.sequence(list).unwrap().len(), 2);
        for cut in 0..bytes.len() {
            assert!(Pickle::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn nothing_is_called() {
        // What `pickle.dumps` makes of an object whose `__reduce__` is (os.system, ("id",)); INST
        // and OBJ call, too.
        for bytes in [
            &b"\x80\x02cposix\nsystem\nq\0X\x02\0\0\0idq\x01\x85q\x02Rq\x03."[..],
            b"\x80\x04\x95\0\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
            b"(S'id'\niposix\nsystem\n.",
            b"(cposix\nsystem\nS'id'\no.",
        ] {
            let pickle = Pickle::parse(bytes).unwrap();
            let Object::Call { function, .. } = *pickle.object(pickle.root) else {
                panic!("{pickle:?}")
            };
            assert_eq!(pickle.function(function), "posix.system");
        }
    }

    #[test]
    fn a_dict_that_is_kept_while_empty_is_the_same_later() {
        // d = {"k": 1}; {"best": d, "last": d}
        let bytes = b"}(X\x04\0\0\0best}q\x01X\x01\0\0\0kK\x01sX\x04\0\0\0lasth\x01u.";
        let pickle = Pickle::parse(bytes).unwrap();
        let [(_, best), (_, last)] = pickle.pairs(pickle.root).collect::<Vec<_>>()[..] else {
            panic!("{pickle:?}")
        };
        assert_eq!(best, last);
        assert_eq!(pickle.pairs(last).count(), 1);
    }

    #[test]
    fn bombs_end_early() {
        // Deep, and ten times ten times …: shared, not copied.
        let mut deep = vec![b')'];
        deep.extend([0x85; 1000]);
        deep.push(b'.');
        Pickle::parse(&deep).unwrap();
        let mut laughs = b")q\0".to_vec();
        for _ in 0..100 {
            laughs.push(b'(');
            laughs.extend(b"h\0".repeat(10));
            laughs.extend(b"tq\0");
        }
        laughs.push(b'.');
        Pickle::parse(&laughs).unwrap();
        // A dict in itself.
        Pickle::parse(b"}q\0X\x01\0\0\0ah\0s.").unwrap();
        assert!(Pickle::parse(&[b'N'; MAX_STEPS + 1]).unwrap_err().contains("steps"));
        assert!(Pickle::parse(b"X\xff\xff\xff\xff").unwrap_err().contains("cut short"));
        assert!(size_of::<Object<'_>>() <= 32);
    }
}
