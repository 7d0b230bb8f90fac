//! The fixed header, 64 bytes, little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..10 | version |
//! | 10 | dtype |
//! | 11 | panel width NR, 4 or 16 |
//! | 12..16 | bytes of the postcard section, which starts at 64 |
//! | 16..20 | operators |
//! | 20..24 | bytes of the blob, which starts at the next multiple of 64 and ends the file |
//! | 24..28 | bytes of the arena |
//! | 28..36 | checksum of everything else but the signature |
//! | 36 | 1 where a signature ends the file, else 0; since version 5 |
//! | 37 | 1 where an int8 model has layers of floats, else 0; since version 6 |
//! | 38 | 1 where [`crate::Known`] stands between labels and operators, else 0; since version 9 |
//! | 39..64 | zero |
//!
//! The blob is followed by nothing, or by [`SIGNATURE_LEN`] bytes: the Ed25519 signature of all
//! bytes before it.
//!
//! Versions before 4 were never released. Version 4 is 5 without signatures, 5 is 6 without
//! [`crate::Cast`] and [`crate::Quant::FLOAT`], 6 is 7 without [`crate::Gate`], [`crate::Grouped`],
//! [`crate::Lookup`], [`crate::Clamp::Bounds`] and short [`crate::params`], 7 is 8 without
//! [`crate::params::ParamsForm::Scales`] and sums of all weights beyond [`crate::winograd_i8::MAX_SUM`],
//! 8 is 9 without [`crate::Known`]. A file is written in the oldest version from [`LEAST_VERSION`] on that has all that is in it, so that
//! older runtimes read what they can run.

use crate::ArtifactError;
use crate::layout::{Dtype, align_up};

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// First eight bytes: a high bit and a line ending, so that text transfers show as damage.
pub const MAGIC: [u8; 8] = *b"\x8fEDGE\r\n\x1a";
/// Newest version.
pub const VERSION: u16 = 9;
/// Oldest version written.
pub const LEAST_VERSION: u16 = 6;
/// Oldest version read.
pub const OLDEST_VERSION: u16 = 4;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;
/// Offset of the flag that tells of a signature.
const SIGNED_AT: usize = 36;
/// Offset of the flag that tells of layers of floats.
pub(crate) const FLOATS_AT: usize = 37;
/// Offset of the flag that tells of what is known.
const KNOWN_AT: usize = 38;
/// Offset of the checksum.
pub(crate) const CHECKSUM_AT: usize = 28;

/// The decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the records.
    pub version: u16,
    /// Number format of the model.
    pub dtype: Dtype,
    /// Panel width NR of the packed weights.
    pub nr: usize,
    /// Bytes of the postcard section.
    pub records_len: usize,
    /// Operators.
    pub op_count: usize,
    /// Bytes of the weight blob.
    pub blob_len: usize,
    /// Bytes of activation memory.
    pub arena_len: usize,
    /// Whether a signature ends the file.
    pub is_signed: bool,
    /// Whether some layers of an int8 model are computed in floats, see [`crate::Place::dtype`].
    pub has_floats: bool,
    /// Whether it can tell unknown pictures, see [`crate::Known`].
    pub has_known: bool,
}

const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Header {
    /// Where the blob starts.
    pub const fn blob_offset(&self) -> usize {
        align_up(HEADER_LEN + self.records_len)
    }

    /// Length of the file in bytes, without its signature.
    pub const fn content_len(&self) -> usize {
        self.blob_offset() + self.blob_len
    }

    /// Length of the whole file in bytes.
    pub const fn file_len(&self) -> usize {
        self.content_len() + if self.is_signed { SIGNATURE_LEN } else { 0 }
    }

    /// Reads and checks the header; the checksum is [`crate::Artifact::new_checked`]'s.
    ///
    /// # Errors
    /// Truncated bytes, foreign magic, newer version, or a field out of range.
    pub const fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        if bytes.len() < HEADER_LEN {
            return Err(ArtifactError::Truncated { needed: HEADER_LEN, have: bytes.len() });
        }
        let mut i = 0;
        while i < MAGIC.len() {
            if bytes[i] != MAGIC[i] {
                return Err(ArtifactError::BadMagic);
            }
            i += 1;
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version < OLDEST_VERSION || version > VERSION {
            return Err(ArtifactError::UnsupportedVersion { found: version, supported: VERSION });
        }
        let Some(dtype) = Dtype::from_byte(bytes[10]) else {
            return Err(ArtifactError::Header { field: 10 });
        };
        if bytes[11] != 4 && bytes[11] != 16 {
            return Err(ArtifactError::Header { field: 11 });
        }
        let header = Self {
            version,
            dtype,
            nr: bytes[11] as usize,
            records_len: u32_at(bytes, 12) as usize,
            op_count: u32_at(bytes, 16) as usize,
            blob_len: u32_at(bytes, 20) as usize,
            arena_len: u32_at(bytes, 24) as usize,
            is_signed: bytes[SIGNED_AT] == 1 && version > 4,
            has_floats: bytes[FLOATS_AT] == 1 && version > 5,
            has_known: bytes[KNOWN_AT] == 1 && version > 8,
        };
        // A quarter of the address space each: no sum below can wrap, even on 32-bit devices.
        let limit = (u32::MAX / 4) as usize;
        if header.records_len > limit {
            return Err(ArtifactError::Header { field: 12 });
        }
        // A record is at least one byte.
        if header.op_count > header.records_len {
            return Err(ArtifactError::Header { field: 16 });
        }
        if header.blob_len > limit * 2 {
            return Err(ArtifactError::Header { field: 20 });
        }
        if header.arena_len > limit * 2 {
            return Err(ArtifactError::Header { field: 24 });
        }
        if header.has_floats && !matches!(header.dtype, Dtype::I8) {
            return Err(ArtifactError::Header { field: FLOATS_AT });
        }
        if header.has_known && !matches!(header.dtype, Dtype::I8) {
            return Err(ArtifactError::Header { field: KNOWN_AT });
        }
        i = SIGNED_AT;
        while i < HEADER_LEN {
            let is_read = match i {
                SIGNED_AT => header.is_signed,
                FLOATS_AT => header.has_floats,
                KNOWN_AT => header.has_known,
                _ => false,
            };
            if bytes[i] != 0 && !is_read {
                return Err(ArtifactError::Header { field: i });
            }
            i += 1;
        }
        let (needed, have) = (header.file_len(), bytes.len());
        if have < needed {
            return Err(ArtifactError::Truncated { needed, have });
        }
        if have > needed {
            return Err(ArtifactError::TrailingBytes { extra: have - needed });
        }
        Ok(header)
    }

    /// The header's bytes, with a checksum field of zero.
    #[cfg(feature = "alloc")]
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version.to_le_bytes());
        out[10] = self.dtype as u8;
        out[11] = self.nr as u8;
        out[SIGNED_AT] = self.is_signed.into();
        out[FLOATS_AT] = self.has_floats.into();
        out[KNOWN_AT] = self.has_known.into();
        for (at, v) in
            [(12, self.records_len), (16, self.op_count), (20, self.blob_len), (24, self.arena_len)]
        {
            out[at..at + 4].copy_from_slice(&(v as u32).to_le_bytes());
        }
        out
    }
}

/// Bytes of the whole file that begins with these, at least [`HEADER_LEN`] of them.
///
/// # Errors
/// As of [`crate::Artifact::new_checked`], of the header's fields.
pub fn file_len(start: &[u8]) -> Result<usize, ArtifactError> {
    match Header::parse(start) {
        Ok(header) => Ok(header.file_len()),
        Err(ArtifactError::Truncated { needed, .. }) if start.len() >= HEADER_LEN => Ok(needed),
        Err(ArtifactError::TrailingBytes { extra }) => Ok(start.len() - extra),
        Err(e) => Err(e),
    }
}

/// Bytes of activation memory that a model needs: `static ARENA: Arena<{ arena_len(MODEL) }>`, as
/// the runtime's `Arena` shows.
///
/// # Panics
/// At compile time, where the bytes are not a model.
pub const fn arena_len(model: &[u8]) -> usize {
    match Header::parse(model) {
        Ok(header) => header.arena_len,
        Err(_) => panic!("not an .edge model"),
    }
}

/// Fletcher sums over little-endian u32 words (mod 2^32), the checksum field left out.
///
/// It finds every change within one word and swapped words, needs no table in flash and
/// runs at memory speed. It guards against damage, not against forgery.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    sums_of([&bytes[..CHECKSUM_AT], &bytes[CHECKSUM_AT + 8..]])
}

/// The sums of [`checksum`], of any parts.
pub(crate) fn sums_of(parts: [&[u8]; 2]) -> u64 {
    let mut sums = Sums { sum: 1, sum_of_sums: 0 };
    parts.into_iter().for_each(|part| sums.add(part));
    u64::from(sums.sum_of_sums) << 32 | u64::from(sums.sum)
}

struct Sums {
    sum: u32,
    sum_of_sums: u32,
}

impl Sums {
    /// Adds the words of `part`, the last filled up with zeros.
    fn add(&mut self, part: &[u8]) {
        const LANES: usize = 16;
        let (words, rest) = part.as_chunks::<4>();
        let (rows, last) = words.as_chunks::<LANES>();
        // Each lane adds every sixteenth word, so that compilers can use vectors. Lane l's word
        // of row j is counted by as many sums as words follow: n − LANES·j − l.
        let (mut sum, mut falling) = ([0u32; LANES], [0u32; LANES]);
        for row in rows {
            for l in 0..LANES {
                sum[l] = sum[l].wrapping_add(u32::from_le_bytes(row[l]));
                falling[l] = falling[l].wrapping_add(sum[l]);
            }
        }
        // falling = Σ (rows − j) · word
        let (n, rows) = ((rows.len() * LANES) as u32, rows.len() as u32);
        self.sum_of_sums = self.sum_of_sums.wrapping_add(self.sum.wrapping_mul(n));
        for (l, (sum, falling)) in sum.into_iter().zip(falling).enumerate() {
            let by_row = rows.wrapping_mul(sum).wrapping_sub(falling);
            let weighted = n.wrapping_sub(l as u32).wrapping_mul(sum);
            let weighted = weighted.wrapping_sub(by_row.wrapping_mul(LANES as u32));
            self.sum_of_sums = self.sum_of_sums.wrapping_add(weighted);
            self.sum = self.sum.wrapping_add(sum);
        }
        for word in last {
            self.add_word(*word);
        }
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.add_word(word);
        }
    }

    fn add_word(&mut self, word: [u8; 4]) {
        self.sum = self.sum.wrapping_add(u32::from_le_bytes(word));
        self.sum_of_sums = self.sum_of_sums.wrapping_add(self.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up_as_one_word_after_the_other() {
        let mut bytes = [0u8; 700];
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = (i * i * 31 + i / 7) as u8 | 0x80;
        }
        for len in [0, 1, 3, 4, 63, 64, 65, 128, 200, 511, 640, 700] {
            let (mut got, mut want) = (
                Sums { sum: 5, sum_of_sums: u32::MAX - 3 },
                Sums { sum: 5, sum_of_sums: u32::MAX - 3 },
            );
            got.add(&bytes[..len]);
            for part in bytes[..len].chunks(4) {
                let mut word = [0; 4];
                word[..part.len()].copy_from_slice(part);
                want.add_word(word);
            }
            assert_eq!((got.sum, got.sum_of_sums), (want.sum, want.sum_of_sums), "{len}");
        }
    }
}
