//! Zip archives whose members are stored, not compressed: those of `torch.save` and of Keras.

use std::io::{Cursor, Read};
use zip::{CompressionMethod, ZipArchive};

/// What every zip archive starts with.
pub const MAGIC: &[u8] = b"PK\x03\x04";

/// An archive in memory.
#[derive(Debug)]
pub struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// Bytes that members may still have: stored ones are together no larger than the archive, whatever
    /// its directory says.
    left: u64,
}

impl<'a> Archive<'a> {
    /// Reads the directory of members.
    ///
    /// # Errors
    /// Damaged archives.
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
        Ok(Self { zip, left: bytes.len() as u64 })
    }

    /// The members' names.
    pub fn names(&self) -> Vec<String> {
        self.zip.file_names().flatten().map(|name| name.into_owned()).collect()
    }

    /// A member's bytes, each of which is read once.
    ///
    /// # Errors
    /// Members that are missing, compressed or damaged, or that lie upon others.
    pub fn member(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let bad = |what: String| format!("`{name}`: {what}");
        let entry = self.zip.by_name(name).map_err(|e| bad(e.to_string()))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(bad("compressed, but Keras and PyTorch store what they save".into()));
        }
        let mut out = Vec::new();
        entry.take(self.left + 1).read_to_end(&mut out).map_err(|e| bad(e.to_string()))?;
        let left = self.left.checked_sub(out.len() as u64);
        self.left = left.ok_or_else(|| bad("it and others lie upon each other".into()))?;
        Ok(out)
    }
}
