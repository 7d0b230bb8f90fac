//! Python pickles of state dicts, without Python: data only, nothing is ever called.
//!
//! A pickle is a program for a stack machine. Of its opcodes this one knows those that build
//! numbers, texts, tuples, lists and dicts; of its calls the four that PyTorch's `state_dict`
//! needs, which it carries out itself. Everything else is refused by name.
//!
//! Source: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>

use std::collections::HashMap;
use std::rc::Rc;

/// Deepest nesting of values.
const MAX_DEPTH: u16 = 32;
/// Most opcodes: a ResNet-200 has some 50 thousand.
const MAX_STEPS: usize = 4_000_000;

/// A value on the stack.
#[derive(Debug, Clone)]
pub(super) struct Value {
    kind: Rc<Kind>,
    depth: u16,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// None, booleans, floats, bytes: nothing that a weight is made of.
    Other,
    Int(i64),
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    /// In order of insertion.
    Dict(Vec<(Value, Value)>),
    /// `module.name`
    Global(String),
    Storage(Storage),
    Tensor(TensorView),
}

/// Numbers that lie elsewhere in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// PyTorch's name of the type, e.g. `FloatStorage`.
    pub(super) dtype: String,
    /// Names the numbers in the file.
    pub(super) key: String,
    /// How many they are.
    pub(super) len: usize,
}

/// A strided view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorView {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

impl Value {
    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self.kind() {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    fn tuple(&self) -> Option<&[Self]> {
        match self.kind() {
            Kind::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn size(&self) -> Option<usize> {
        match self.kind() {
            Kind::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }

    fn sizes(&self) -> Option<Vec<usize>> {
        self.tuple()?.iter().map(Self::size).collect()
    }
}

/// Runs the pickle at the start of `bytes`; returns its value and how long it is.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, usize), String> {
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    for _ in 0..MAX_STEPS {
        if machine.step()? {
            let value = machine.pop()?;
            return Ok((value, machine.at));
        }
    }
    Err(format!("a pickle of more than {MAX_STEPS} steps"))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
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
            b'N' | 0x88 | 0x89 => self.push(Kind::Other)?,
            b'G' => {
                self.take::<8>()?;
                self.push(Kind::Other)?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Kind::Int(value.into()))?;
            }
            b'K' => {
                let [value] = self.take()?;
                self.push(Kind::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Kind::Int(value.into()))?;
            }
            0x8a => self.long()?,
            b'X' => {
                let len = u32::from_le_bytes(self.take()?);
                self.text(len as usize)?;
            }
            0x8c | b'U' => {
                let [len] = self.take()?;
                self.text(len.into())?;
            }
            b'T' => {
                let len = u32::from_le_bytes(self.take()?);
                self.text(len as usize)?;
            }
            b'B' => {
                let len = u32::from_le_bytes(self.take()?);
                self.slice(len as usize)?;
                self.push(Kind::Other)?;
            }
            b'C' => {
                let [len] = self.take()?;
                self.slice(len.into())?;
                self.push(Kind::Other)?;
            }
            b')' => self.push(Kind::Tuple(Vec::new()))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Kind::Tuple(items))?;
            }
            0x85..=0x87 => {
                let count = usize::from(op - 0x84);
                let from =
                    self.stack.len().checked_sub(count).ok_or("a pickle of an empty stack")?;
                let items = self.stack.split_off(from);
                self.push(Kind::Tuple(items))?;
            }
            b']' => self.push(Kind::List(Vec::new()))?,
            b'l' => {
                let items = self.since_mark()?;
                self.push(Kind::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Kind::Dict(Vec::new()))?,
            b'd' => {
                let items = self.since_mark()?;
                self.push(Kind::Dict(Vec::new()))?;
                self.insert(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.insert(items)?;
            }
            b'q' => {
                let [index] = self.take()?;
                self.memoize(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.take()?);
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
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Kind::Global(format!("{module}.{name}")))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(name), Some(module)) = (name.text(), module.text()) else {
                    return Err("a pickle whose class has no name".into());
                };
                let global = format!("{module}.{name}");
                self.push(Kind::Global(global))?;
            }
            // A call of a function, or of a class.
            b'R' | 0x81 => self.reduce()?,
            // State of an OrderedDict: its `_metadata`, which is of no use here.
            b'b' => drop(self.pop()?),
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

    fn slice(&mut self, len: usize) -> Result<&[u8], String> {
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

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or("the pickle is cut short")?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn text(&mut self, len: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.slice(len)?).into_owned();
        self.push(Kind::Text(text))
    }

    /// A little-endian integer of any length; one beyond 64 bits is no size.
    fn long(&mut self) -> Result<(), String> {
        let [len] = self.take()?;
        let bytes = self.slice(len.into())?;
        let kind = if bytes.len() > 8 {
            Kind::Other
        } else {
            let negative = bytes.last().is_some_and(|b| *b >= 0x80);
            let mut all = [if negative { 0xff } else { 0 }; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            Kind::Int(i64::from_le_bytes(all))
        };
        self.push(kind)
    }

    fn push(&mut self, kind: Kind) -> Result<(), String> {
        let inner = match &kind {
            Kind::Tuple(items) | Kind::List(items) => items.iter().map(|v| v.depth).max(),
            _ => None,
        };
        let depth = inner.map_or(0, |d| d + 1);
        if depth > MAX_DEPTH {
            return Err(format!("values nested deeper than {MAX_DEPTH}"));
        }
        self.stack.push(Value { kind: Rc::new(kind), depth });
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "a pickle of an empty stack".into())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("a pickle without a mark")?))
    }

    /// Changes the list or dict on top of the stack.
    fn change(
        &mut self,
        inner: Option<u16>,
        change: impl FnOnce(&mut Kind) -> Result<(), String>,
    ) -> Result<(), String> {
        let top = self.stack.last_mut().ok_or("a pickle of an empty stack")?;
        top.depth = top.depth.max(inner.map_or(0, |d| d + 1));
        if top.depth > MAX_DEPTH {
            return Err(format!("values nested deeper than {MAX_DEPTH}"));
        }
        change(Rc::make_mut(&mut top.kind))
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        let inner = items.iter().map(|v| v.depth).max();
        self.change(inner, |kind| match kind {
            Kind::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err("a pickle that appends to what is no list".into()),
        })
    }

    fn insert(&mut self, items: Vec<Value>) -> Result<(), String> {
        let inner = items.iter().map(|v| v.depth).max();
        self.change(inner, |kind| match kind {
            Kind::Dict(dict) => {
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    dict.push((key, value));
                }
                Ok(())
            }
            _ => Err("a pickle that inserts into what is no dict".into()),
        })
    }

    fn memoize(&mut self, index: u32) -> Result<(), String> {
        let top = self.stack.last().ok_or("a pickle of an empty stack")?.clone();
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let value = self.memo.get(&index).ok_or("a pickle that recalls what it never kept")?;
        self.stack.push(value.clone());
        Ok(())
    }

    /// `('storage', torch.FloatStorage, key, location, length, …)`.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = match id.tuple() {
            Some([tag, dtype, key, _, len, ..]) if tag.text() == Some("storage") => {
                match (dtype.kind(), key.text(), len.size()) {
                    (Kind::Global(dtype), Some(key), Some(len)) => {
                        let dtype = dtype.rsplit('.').next().unwrap_or_default().to_owned();
                        Some(Storage { dtype, key: key.to_owned(), len })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        self.push(Kind::Storage(storage.ok_or("a pickle with an unknown kind of reference")?))
    }

    /// A call, of which only these are carried out.
    fn reduce(&mut self) -> Result<(), String> {
        let (args, function) = (self.pop()?, self.pop()?);
        let Kind::Global(name) = function.kind() else {
            return Err("a pickle that calls what is no function".into());
        };
        let args = args.tuple().ok_or("a pickle that calls without arguments")?;
        let tensor = match (name.as_str(), args) {
            ("collections.OrderedDict", []) => return self.push(Kind::Dict(Vec::new())),
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [storage, offset, shape, stride, ..],
            ) => match (storage.kind(), offset.size(), shape.sizes(), stride.sizes()) {
                (Kind::Storage(storage), Some(offset), Some(shape), Some(stride)) => {
                    Kind::Tensor(TensorView { storage: storage.clone(), offset, shape, stride })
                }
                _ => return Err("a tensor without storage, shape or strides".into()),
            },
            ("torch._utils._rebuild_parameter", [tensor, ..]) => tensor.kind().clone(),
            _ => {
                return Err(format!(
                    "the pickle calls `{}`, which is refused: a state dict needs no such call; \
                     save the model's state_dict() alone",
                    name.escape_debug()
                ));
            }
        };
        self.push(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_data_is_read() {
        // pickle.dumps({"a": (1, 300, -2), "b": [None, 1.5]}, protocol=2)
        let bytes = b"\x80\x02}q\0(X\x01\0\0\0aq\x01K\x01M,\x01J\xfe\xff\xff\xff\x87q\x02X\x01\0\0\0bq\x03]q\x04(NG?\xf8\0\0\0\0\0\0eu.";
        let (value, len) = parse(bytes).unwrap();
        assert_eq!(len, bytes.len());
        let Kind::Dict(items) = value.kind() else { panic!("{value:?}") };
        assert_eq!(items[0].0.text(), Some("a"));
        let sizes: Vec<Option<usize>> =
            items[0].1.tuple().unwrap().iter().map(Value::size).collect();
        assert_eq!(sizes, [Some(1), Some(300), None]);
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn calls_are_refused_by_name() {
        // What `pickle.dumps` makes of an object whose `__reduce__` is (os.system, ("id",)).
        for bytes in [
            &b"\x80\x02cposix\nsystem\nq\0X\x02\0\0\0idq\x01\x85q\x02Rq\x03."[..],
            b"\x80\x04\x95\0\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        ] {
            let error = parse(bytes).unwrap_err();
            assert!(error.contains("`posix.system`"), "{error}");
        }
        // INST and OBJ call, too.
        for bytes in [&b"(iposix\nsystem\n."[..], b"(cposix\nsystem\no."] {
            assert!(parse(bytes).unwrap_err().contains("opcode"));
        }
    }

    #[test]
    fn bombs_end_early() {
        let mut deep = vec![b')'];
        deep.extend([0x85; 1000]);
        deep.push(b'.');
        assert!(parse(&deep).unwrap_err().contains("nested"));
        // Ten copies of ten copies of …: shared, not copied.
        let mut laughs = b")q\0".to_vec();
        for _ in 0..MAX_DEPTH - 1 {
            laughs.push(b'(');
            laughs.extend(b"h\0".repeat(10));
            laughs.extend(b"tq\0");
        }
        laughs.push(b'.');
        assert!(parse(&laughs).is_ok());
        assert!(parse(&[b'N'; MAX_STEPS + 1]).unwrap_err().contains("steps"));
        assert!(parse(b"X\xff\xff\xff\xff").unwrap_err().contains("cut short"));
    }
}
