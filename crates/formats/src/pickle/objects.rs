//! The objects that a pickle makes.

/// Objects that are allocated at once.
const CHUNK: usize = 4096;

/// An object's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u32);

/// None, booleans and all else that no weight is made of.
pub(super) const OTHER: Id = Id(0);

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

/// The table, in pieces that never move.
#[derive(Debug)]
pub(super) struct Objects<'a> {
    chunks: Vec<Vec<Object<'a>>>,
}

impl<'a> Objects<'a> {
    pub(super) fn new() -> Self {
        let mut objects = Self { chunks: Vec::new() };
        objects.add(Object::Other);
        objects
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Object<'a>> {
        self.chunks.iter().flatten()
    }

    /// At most one for each step, so that 32 bits count them.
    pub(super) fn add(&mut self, object: Object<'a>) -> Id {
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

    pub(super) fn get(&self, Id(at): Id) -> &Object<'a> {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    pub(super) fn get_mut(&mut self, Id(at): Id) -> &mut Object<'a> {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a [u8]> {
        match *self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// Whether `id` is the global `module.name`.
    pub(super) fn is(&self, id: Id, module: &str, name: &str) -> bool {
        match *self.get(id) {
            Object::Global(m, n) => {
                self.text(m) == Some(module.as_bytes()) && self.text(n) == Some(name.as_bytes())
            }
            _ => false,
        }
    }
}
