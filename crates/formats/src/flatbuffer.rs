//! Tables of a FlatBuffers file, read field by field without generated code.
//!
//! A table is a list of optional fields with numbers; a field is a number, or the distance to
//! another table, a text or an array. The `flatbuffers` crate's verifier finds each field and checks
//! that it lies in the file, so that nothing is read that is not there.

use flatbuffers::{InvalidFlatbuffer, Verifier, VerifierOptions};

/// Why a field cannot be read.
type Result<T> = core::result::Result<T, InvalidFlatbuffer>;

/// Most tables in one array.
const MAX_TABLES: usize = 1 << 20;

/// A table of a file.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Table<'a> {
    /// The outermost table.
    pub fn root(file: &'a [u8]) -> Result<Self> {
        let at = follow(file, 0)?;
        Ok(Self { file, at })
    }

    /// Where field `number` lies; `None` where it is left out.
    fn field(self, number: u16) -> Result<Option<usize>> {
        let options = VerifierOptions::default();
        let mut verifier = Verifier::new(&options, self.file);
        // The first two places of the list are its own and the table's length.
        verifier.visit_table(self.at)?.deref((number + 2) * 2)
    }

    /// A number of `N` bytes.
    pub fn number<T, const N: usize>(
        self,
        field: u16,
        read: fn([u8; N]) -> T,
        default: T,
    ) -> Result<T> {
        let Some(at) = self.field(field)? else { return Ok(default) };
        let bytes = part(self.file, at, N)?;
        Ok(bytes.first_chunk().map_or(default, |bytes| read(*bytes)))
    }

    /// Another table.
    pub fn table(self, field: u16) -> Result<Option<Self>> {
        let at = self.field(field)?.map(|at| follow(self.file, at)).transpose()?;
        Ok(at.map(|at| Self { at, ..self }))
    }

    /// An array of tables.
    pub fn tables(self, field: u16) -> Result<Vec<Self>> {
        let Some((at, len)) = self.array(field, 4)? else { return Ok(Vec::new()) };
        if len > MAX_TABLES {
            return Err(InvalidFlatbuffer::TooManyTables);
        }
        let table = |i| Ok(Self { at: follow(self.file, at + i * 4)?, ..self });
        (0..len).map(table).collect()
    }

    /// An array of numbers of `N` bytes.
    pub fn numbers<T, const N: usize>(self, field: u16, read: fn([u8; N]) -> T) -> Result<Vec<T>> {
        let Some((at, len)) = self.array(field, N)? else { return Ok(Vec::new()) };
        let bytes = part(self.file, at, len.saturating_mul(N))?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect())
    }

    /// An array of bytes, also the letters of a text.
    pub fn bytes(self, field: u16) -> Result<&'a [u8]> {
        let Some((at, len)) = self.array(field, 1)? else { return Ok(&[]) };
        part(self.file, at, len)
    }

    /// Where an array begins that is wholly in the file, and its length.
    fn array(self, field: u16, element_bytes: usize) -> Result<Option<(usize, usize)>> {
        let Some(at) = self.field(field)? else { return Ok(None) };
        let at = follow(self.file, at)?;
        let len = offset(self.file, at)?;
        part(self.file, at + 4, len.saturating_mul(element_bytes))?;
        Ok(Some((at + 4, len)))
    }
}

/// The unsigned number at `at`.
fn offset(file: &[u8], at: usize) -> Result<usize> {
    let options = VerifierOptions::default();
    Ok(Verifier::new(&options, file).get_uoffset(at)? as usize)
}

/// The place that the distance at `at` leads to.
fn follow(file: &[u8], at: usize) -> Result<usize> {
    Ok(at.saturating_add(offset(file, at)?))
}

/// `len` bytes from `at` on.
pub fn part(file: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    let range = at..at.saturating_add(len);
    file.get(range.clone())
        .ok_or(InvalidFlatbuffer::RangeOutOfBounds { range, error_trace: Default::default() })
}
