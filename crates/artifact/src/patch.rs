//! Classes that a model was taught after it was made, by the device that runs it: a file of some kilobytes beside
//! the model's, which stays as it is.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..10 | version |
//! | 10 | 1 where a signature ends the file, else 0 |
//! | 11 | classes, at most [`MAX_CLASSES`] |
//! | 12..16 | bytes of the classes, one postcard record each ([`Class`]), which start at 32 |
//! | 16..24 | [`Artifact::identity`](crate::Artifact::identity) of the model |
//! | 24..32 | checksum of everything else but the signature |
//!
//! The classes are followed by nothing, or by [`SIGNATURE_LEN`] bytes: the Ed25519 signature of all bytes before it. All
//! numbers are little-endian.

use crate::header::{SIGNATURE_LEN, sums_of};
use crate::meta::MAX_LABEL_BYTES;
use core::fmt;
use serde::{Deserialize, Serialize};

/// First eight bytes, as those of [`crate::header::MAGIC`].
pub const MAGIC: [u8; 8] = *b"\x8fTEACH\r\n";
/// The version that is written, and the only one that is read.
pub const VERSION: u16 = 1;
/// Bytes before the classes.
pub const PATCH_HEADER_LEN: usize = 32;
/// Most classes of a patch.
pub const MAX_CLASSES: usize = 16;
/// Offset of the flag that tells of a signature.
const SIGNED_AT: usize = 10;
/// Offset of the checksum.
const CHECKSUM_AT: usize = 24;

/// Why bytes are no usable patch, or why none can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchError {
    /// Fewer bytes than the header or its lengths ask for.
    Truncated {
        /// Bytes wanted.
        needed: usize,
        /// Bytes present.
        have: usize,
    },
    /// More bytes than the header announces.
    TrailingBytes {
        /// Bytes after the end.
        extra: usize,
    },
    /// The first eight bytes are not those of a patch.
    BadMagic,
    /// Written by a newer version.
    UnsupportedVersion {
        /// Version in the file.
        found: u16,
    },
    /// The checksum does not match the contents.
    Checksum,
    /// The patch has no signature, where one is asked for.
    Unsigned,
    /// The signature is not by the key's owner, or not of these bytes.
    Signature,
    /// A header field is out of range.
    Header {
        /// Byte offset of the field.
        field: usize,
    },
    /// A class cannot be decoded, its label is empty or too long, it is of no frames, has another number of features
    /// than the others, or replaces what another one replaces.
    Class {
        /// Index of the class in the patch.
        index: usize,
    },
    /// There are [`MAX_CLASSES`] already.
    Full,
    /// The memory for a new patch is too short.
    NoRoom {
        /// Bytes given.
        have: usize,
    },
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { needed, have } => {
                write!(f, "truncated: {have} bytes of {needed}; copy the file again")
            }
            Self::TrailingBytes { extra } => write!(f, "{extra} bytes follow the end of the patch"),
            Self::BadMagic => {
                write!(f, "not a patch; `edge-classify teach` and devices that learn make them")
            }
            Self::UnsupportedVersion { found } => write!(
                f,
                "a patch of version {found}, this build reads {VERSION}; use a newer one, or teach again"
            ),
            Self::Checksum => write!(f, "checksum mismatch: the patch is damaged; copy it again"),
            Self::Unsigned => write!(f, "the patch is not signed; sign it with `convert sign`"),
            Self::Signature => {
                write!(f, "the signature is not that of the key for this patch; use the key's own")
            }
            Self::Header { field } => {
                write!(f, "header field at byte {field} of the patch is out of range")
            }
            Self::Class { index } => write!(f, "class {index} of the patch is malformed"),
            Self::Full => write!(f, "a patch has at most {MAX_CLASSES} classes; fine-tune instead"),
            Self::NoRoom { have } => {
                write!(f, "{have} bytes are too few for the patch")
            }
        }
    }
}

impl core::error::Error for PatchError {}

/// A class that was taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class<'a> {
    /// Its name, 1 to [`MAX_LABEL_BYTES`] bytes.
    pub label: &'a str,
    /// The class of the model that it stands for; `None` of an added one.
    pub replaces: Option<u16>,
    /// Pictures that it was learned from; not 0.
    pub frames: u16,
    /// Mean of their features, i8 `[c]`.
    pub prototype: &'a [u8],
}

impl Class<'_> {
    fn is_valid(&self) -> bool {
        (1..=MAX_LABEL_BYTES).contains(&self.label.len())
            && self.frames > 0
            && !self.prototype.is_empty()
    }

    /// Whether both may stand in one patch.
    fn goes_with(&self, other: &Class<'_>) -> bool {
        self.prototype.len() == other.prototype.len()
            && (self.replaces.is_none() || self.replaces != other.replaces)
    }
}

/// A patch that passed every check that needs no model; borrows the file's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Patch<'a> {
    content: &'a [u8],
    signature: Option<&'a [u8; SIGNATURE_LEN]>,
}

impl<'a> Patch<'a> {
    /// Checks a whole file, at any address; nothing is copied.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PatchError> {
        let have = bytes.len();
        let Some(header) = bytes.first_chunk::<PATCH_HEADER_LEN>() else {
            return Err(PatchError::Truncated { needed: PATCH_HEADER_LEN, have });
        };
        if !header.starts_with(&MAGIC) {
            return Err(PatchError::BadMagic);
        }
        let found = u16::from_le_bytes([header[8], header[9]]);
        if found != VERSION {
            return Err(PatchError::UnsupportedVersion { found });
        }
        let is_signed = match header[SIGNED_AT] {
            0 => false,
            1 => true,
            _ => return Err(PatchError::Header { field: SIGNED_AT }),
        };
        if !(1..=MAX_CLASSES).contains(&header[11].into()) {
            return Err(PatchError::Header { field: 11 });
        }
        let len = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        // The sums below cannot wrap, even on 32-bit devices.
        if len > (u32::MAX / 4) as usize {
            return Err(PatchError::Header { field: 12 });
        }
        let end = PATCH_HEADER_LEN + len;
        let needed = end + if is_signed { SIGNATURE_LEN } else { 0 };
        if have != needed {
            return Err(match have.checked_sub(needed) {
                None => PatchError::Truncated { needed, have },
                Some(extra) => PatchError::TrailingBytes { extra },
            });
        }
        let (content, signature) = bytes.split_at(end);
        let patch = Self { content, signature: signature.first_chunk() };
        if checksum(content) != patch.u64_at(CHECKSUM_AT) {
            return Err(PatchError::Checksum);
        }
        patch.check()?;
        Ok(patch)
    }

    fn check(&self) -> Result<(), PatchError> {
        let mut rest = &self.content[PATCH_HEADER_LEN..];
        for index in 0..self.len() {
            let bad = PatchError::Class { index };
            let (class, tail) = postcard::take_from_bytes::<Class<'a>>(rest).map_err(|_| bad)?;
            if !class.is_valid() || !self.classes().take(index).all(|c| c.goes_with(&class)) {
                return Err(bad);
            }
            rest = tail;
        }
        match rest {
            [] => Ok(()),
            _ => Err(PatchError::Header { field: 12 }),
        }
    }

    fn u64_at(&self, at: usize) -> u64 {
        let bytes = self.content.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// [`Artifact::identity`](crate::Artifact::identity) of the model that it belongs to.
    pub fn model(&self) -> u64 {
        self.u64_at(16)
    }

    /// Number of classes, 1 to [`MAX_CLASSES`].
    pub fn len(&self) -> usize {
        self.content[11].into()
    }

    /// True without classes, which no checked patch is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes, decoded as they come.
    pub fn classes(&self) -> impl Iterator<Item = Class<'a>> + use<'a> {
        let mut rest = &self.content[PATCH_HEADER_LEN..];
        (0..self.len()).map_while(move |_| {
            let (class, tail) = postcard::take_from_bytes::<Class<'a>>(rest).ok()?;
            rest = tail;
            Some(class)
        })
    }

    /// What a signature is of, and the signature where there is one.
    pub const fn signed(&self) -> (&'a [u8], Option<&'a [u8; SIGNATURE_LEN]>) {
        (self.content, self.signature)
    }
}

fn checksum(content: &[u8]) -> u64 {
    sums_of([&content[..CHECKSUM_AT], &content[CHECKSUM_AT + 8..]])
}

/// Writes a patch into memory that is the caller's.
#[derive(Debug)]
pub struct PatchWriter<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> PatchWriter<'b> {
    /// Begins a patch of the model of this [`Artifact::identity`](crate::Artifact::identity).
    ///
    /// # Errors
    /// [`PatchError::NoRoom`].
    pub fn new(model: u64, bytes: &'b mut [u8]) -> Result<Self, PatchError> {
        let have = bytes.len();
        let header = bytes.first_chunk_mut::<PATCH_HEADER_LEN>();
        let header = header.ok_or(PatchError::NoRoom { have })?;
        *header = [0; PATCH_HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&model.to_le_bytes());
        Ok(Self { bytes, len: PATCH_HEADER_LEN })
    }

    /// Adds a class.
    ///
    /// # Errors
    /// [`PatchError::Full`], [`PatchError::NoRoom`], and [`PatchError::Class`] of what a reader would refuse.
    pub fn push(&mut self, class: &Class<'_>) -> Result<(), PatchError> {
        let index = usize::from(self.bytes[11]);
        if index == MAX_CLASSES {
            return Err(PatchError::Full);
        }
        let before = Patch { content: &self.bytes[..self.len], signature: None };
        if !class.is_valid() || !before.classes().all(|other| other.goes_with(class)) {
            return Err(PatchError::Class { index });
        }
        let have = self.bytes.len();
        let written = postcard::to_slice(class, &mut self.bytes[self.len..]);
        self.len += written.map_err(|_| PatchError::NoRoom { have })?.len();
        self.bytes[11] += 1;
        Ok(())
    }

    /// The patch, without a signature.
    ///
    /// # Errors
    /// [`PatchError::Header`] without a class.
    pub fn finish(self) -> Result<&'b [u8], PatchError> {
        let len = self.len;
        Ok(&self.seal(0)?[..len])
    }

    /// The patch with the signature that `sign` makes of all its bytes.
    ///
    /// # Errors
    /// [`PatchError::NoRoom`], and as of [`Self::finish`].
    pub fn finish_signed(
        self,
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
    ) -> Result<&'b [u8], PatchError> {
        let (len, have) = (self.len, self.bytes.len());
        if have - len < SIGNATURE_LEN {
            return Err(PatchError::NoRoom { have });
        }
        let bytes = self.seal(1)?;
        let signature = sign(&bytes[..len]);
        bytes[len..len + SIGNATURE_LEN].copy_from_slice(&signature);
        Ok(&bytes[..len + SIGNATURE_LEN])
    }

    fn seal(self, signed: u8) -> Result<&'b mut [u8], PatchError> {
        let Self { bytes, len } = self;
        if bytes[11] == 0 {
            return Err(PatchError::Header { field: 11 });
        }
        bytes[SIGNED_AT] = signed;
        bytes[12..16].copy_from_slice(&((len - PATCH_HEADER_LEN) as u32).to_le_bytes());
        let sum = checksum(&bytes[..len]).to_le_bytes();
        bytes[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum);
        Ok(bytes)
    }
}

/// A patch with the signature that `sign` makes of all its bytes; what it had is replaced.
///
/// # Errors
/// A file that [`Patch::parse`] refuses.
#[cfg(feature = "alloc")]
pub fn resign(
    file: &[u8],
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> Result<alloc::vec::Vec<u8>, PatchError> {
    let patch = Patch::parse(file)?;
    let mut bytes = alloc::vec![0; patch.content.len() + SIGNATURE_LEN];
    let mut writer = PatchWriter::new(patch.model(), &mut bytes)?;
    for class in patch.classes() {
        writer.push(&class)?;
    }
    let len = writer.finish_signed(sign)?.len();
    bytes.truncate(len);
    Ok(bytes)
}

/// Recomputes the checksum of a patch whose bytes were changed; what is shorter than a header is left alone.
#[cfg(feature = "alloc")]
pub fn seal(file: &mut [u8]) {
    let signature = if file.get(SIGNED_AT) == Some(&1) { SIGNATURE_LEN } else { 0 };
    let Some(end) = file.len().checked_sub(signature).filter(|end| *end >= PATCH_HEADER_LEN) else {
        return;
    };
    let sum = checksum(&file[..end]).to_le_bytes();
    file[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [Class<'_>; 2] = [
        Class { label: "crow", replaces: Some(1), frames: 8, prototype: &[1, 2, 0x80] },
        Class { label: "magpie", replaces: None, frames: 65_535, prototype: &[0x7f, 0, 0xff] },
    ];

    fn written(buffer: &mut [u8], is_signed: bool) -> Result<&[u8], PatchError> {
        let mut writer = PatchWriter::new(77, buffer)?;
        CLASSES.iter().try_for_each(|class| writer.push(class))?;
        if is_signed { writer.finish_signed(|_| [9; SIGNATURE_LEN]) } else { writer.finish() }
    }

    #[test]
    fn what_was_written_is_read() {
        for (is_signed, len) in [(false, 59), (true, 123)] {
            let mut buffer = [0xaa; 123];
            let file = written(&mut buffer, is_signed).unwrap();
            assert_eq!(file.len(), len);
            let patch = Patch::parse(file).unwrap();
            assert!(patch.classes().eq(CLASSES));
            assert_eq!((patch.model(), patch.len()), (77, 2));
            let signature = is_signed.then_some(&[9; SIGNATURE_LEN]);
            assert_eq!(patch.signed(), (&file[..59], signature));
            for have in 0..len {
                let mut short = [0; 123];
                let result = written(&mut short[..have], is_signed);
                assert_eq!(result, Err(PatchError::NoRoom { have }));
            }
        }
    }

    #[test]
    fn writers_refuse_what_readers_would() {
        let mut buffer = [0; 4096];
        let mut writer = PatchWriter::new(0, &mut buffer).unwrap();
        let class = CLASSES[0];
        writer.push(&class).unwrap();
        let long = [b'x'; MAX_LABEL_BYTES + 1];
        let long = core::str::from_utf8(&long).unwrap();
        for bad in [
            Class { label: "", ..class },
            Class { label: long, replaces: None, ..class },
            Class { frames: 0, replaces: None, ..class },
            Class { prototype: &[], replaces: None, ..class },
            Class { prototype: &[1], replaces: None, ..class },
            class,
        ] {
            assert_eq!(writer.push(&bad), Err(PatchError::Class { index: 1 }));
        }
        for i in 1..MAX_CLASSES {
            writer.push(&Class { replaces: (i % 2 > 0).then_some(i as u16 + 1), ..class }).unwrap();
        }
        assert_eq!(writer.push(&Class { replaces: None, ..class }), Err(PatchError::Full));
        assert_eq!(Patch::parse(writer.finish().unwrap()).unwrap().len(), MAX_CLASSES);
        let empty = PatchWriter::new(0, &mut buffer).unwrap().finish();
        assert_eq!(empty, Err(PatchError::Header { field: 11 }));
    }
}
