//! Where a picture is stored, and how its bytes become pixels of the model's input size.

use super::fit::fit;
use super::record;
use artifact::Preprocess;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// A picture on disk.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// A picture file.
    File(Arc<Path>),
    /// A record of one of CIFAR-10's files, counted from 0.
    Record(Arc<Path>, u64),
}

impl Stored {
    /// The file that it is in.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Record(path, _) => path,
        }
    }

    /// Its bytes as stored: the whole file, or the pixels of a record.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        let path = self.path();
        // Opening a pipe could block forever.
        let meta = std::fs::metadata(path).map_err(|e| e.to_string())?;
        if !meta.is_file() {
            return Err("no regular file".into());
        }
        match self {
            Self::File(_) if meta.len() > picture::MAX_BYTES => {
                Err(picture::PictureError::TooLong.to_string())
            }
            Self::File(_) => std::fs::read(path).map_err(|e| e.to_string()),
            Self::Record(_, number) => {
                if meta.len() < record::offset(number + 1) - 1 {
                    return Err(format!("it has only {} bytes", meta.len()));
                }
                let mut planes = vec![0; record::PLANES];
                let mut read = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(record::offset(*number)))?;
                    file.read_exact(&mut planes)
                };
                read().map_err(|e| e.to_string())?;
                Ok(planes)
            }
        }
    }

    /// Pixels `[p.height, p.width, p.channels()]` of those bytes, and the width and height that they had.
    pub(super) fn decode(
        &self,
        bytes: &[u8],
        p: &Preprocess,
    ) -> Result<(Vec<u8>, [u32; 2]), String> {
        match self {
            Self::File(_) => {
                let picture = picture::decode(bytes).map_err(|e| e.to_string())?;
                let view = picture.view().map_err(|e| e.to_string())?;
                let size = [view.width(), view.height()].map(|side| side as u32);
                Ok((fit(view, p).map_err(|e| e.to_string())?, size))
            }
            Self::Record(..) => {
                let pixels = record::decode(bytes, p).map_err(|e| e.to_string())?;
                Ok((pixels, [record::SIDE as u32; 2]))
            }
        }
    }
}
