//! Python pickles of state dicts, without Python: data only, nothing is ever called.
//!
//! A pickle is a program for a stack machine that makes objects. Here each is an entry of one table,
//! and what refers to it is its place there: an object that is shared, or that is changed after it
//! was kept, is one object here, too, and nothing is copied. Of its calls those are carried out that
//! PyTorch's `state_dict` needs; what any other would return is an [`Object::Call`], of which only
//! the name is known.

mod machine;
mod objects;

use artifact::text::AsPlain;
use machine::Machine;
use objects::Objects;
pub use objects::{Id, Object};
use std::borrow::Cow;

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
        let (objects, root, len) = Machine::new(bytes).run()?;
        Ok(Self { objects, root, len })
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
        let all = self.objects.iter();
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

#[cfg(test)]
mod tests {
    use super::machine::MAX_STEPS;
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
