//! Writes `.edge` files.

use crate::header::{CHECKSUM_AT, HEADER_LEN, LEAST_VERSION, SIGNATURE_LEN, checksum};
use crate::layout::{align_up, has_columns};
use crate::winograd_i8::{MAX_SUM, largest_sums};
use crate::{Artifact, ArtifactError, Conv2d, Dtype, Header, Known, Meta, Op, Span};
use alloc::vec::Vec;

/// The version that has [`Known`], and all else.
const KNOWN_VERSION: u16 = 9;

/// Collects weight ranges, each aligned, in the order in which operators use them.
#[derive(Debug, Default)]
pub struct Blob {
    bytes: Vec<u8>,
}

impl Blob {
    /// An empty blob.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes and returns where they lie; `None` where the blob would leave `u32`.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Span> {
        let span = Span {
            offset: u32::try_from(self.bytes.len()).ok()?,
            len: u32::try_from(bytes.len()).ok()?,
        };
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align_up(self.bytes.len()), 0);
        Some(span)
    }
}

/// Everything that goes into a file; `meta.label_count` is set from `labels`.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Number format.
    pub dtype: Dtype,
    /// Panel width NR, 4 or 16.
    pub nr: usize,
    /// Bytes of activation memory.
    pub arena_len: usize,
    /// Metadata.
    pub meta: Meta<'a>,
    /// Class names in index order.
    pub labels: &'a [&'a str],
    /// Operators in execution order.
    pub ops: &'a [Op],
    /// Weights.
    pub blob: Blob,
}

/// The file's bytes.
///
/// # Errors
/// What [`Artifact::parse`] says of the result: nothing unreadable is ever written.
pub fn write(contents: Contents<'_>) -> Result<Vec<u8>, ArtifactError> {
    let meta = Meta { label_count: contents.labels.len() as u32, ..contents.meta };
    let mut records = postcard::to_allocvec(&meta).map_err(|_| ArtifactError::Meta)?;
    for (index, label) in contents.labels.iter().enumerate() {
        let bytes = postcard::to_allocvec(label).map_err(|_| ArtifactError::Labels { index })?;
        records.extend(bytes);
    }
    for (op, record) in contents.ops.iter().enumerate() {
        records.extend(postcard::to_allocvec(record).map_err(|_| ArtifactError::Record { op })?);
    }
    let header = Header {
        version: version(contents.ops, contents.dtype, contents.nr, &contents.blob.bytes),
        dtype: contents.dtype,
        nr: contents.nr,
        records_len: records.len(),
        op_count: contents.ops.len(),
        blob_len: contents.blob.bytes.len(),
        arena_len: contents.arena_len,
        is_signed: false,
        has_floats: contents.dtype == Dtype::I8
            && contents.ops.iter().any(|op| op.output().quant.is_float()),
        has_known: false,
    };
    assemble(header, &records, &contents.blob.bytes)
}

/// A file of its parts.
fn assemble(header: Header, records: &[u8], blob: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let mut file = Vec::with_capacity(header.file_len());
    file.extend_from_slice(&header.to_bytes());
    file.extend_from_slice(records);
    file.resize(header.blob_offset(), 0);
    file.extend_from_slice(blob);
    seal(&mut file);
    Artifact::parse(&file)?;
    Ok(file)
}

/// What a file is given to tell unknown pictures by, see [`Known`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Mean features, `[rows, c]`.
    pub means: Vec<i8>,
    /// Inverse variances, `[c]`.
    pub weights: Vec<u8>,
    /// The largest distance of what is known.
    pub threshold: u64,
    /// Mean distance.
    pub usual: u64,
}

/// A file that can tell unknown pictures, without a signature.
///
/// # Errors
/// A file that [`Artifact::parse`] refuses; [`ArtifactError::Known`] where it has statistics already, or the last
/// operator reads something else.
pub fn with_known(file: &[u8], statistics: &Statistics) -> Result<Vec<u8>, ArtifactError> {
    let Statistics { means, weights, threshold, usual } = statistics;
    let artifact = Artifact::parse(file)?;
    let old = *artifact.header();
    let last = artifact.ops().last().filter(|_| !old.has_known).ok_or(ArtifactError::Known)?;
    let mut blob = Blob { bytes: file[old.blob_offset()..old.content_len()].to_vec() };
    let means_at = blob.push(&means.iter().map(|m| m.cast_unsigned()).collect::<Vec<u8>>());
    let (Some(means_at), Some(weights_at)) = (means_at, blob.push(weights)) else {
        return Err(ArtifactError::Known);
    };
    let rows =
        u16::try_from(means.len() / weights.len().max(1)).map_err(|_| ArtifactError::Known)?;
    let known = Known {
        features: last.input(),
        rows,
        means: means_at,
        weights: weights_at,
        threshold: *threshold,
        usual: *usual,
    };
    let known = postcard::to_allocvec(&known).map_err(|_| ArtifactError::Known)?;
    let (before, ops) = artifact.split_records(file);
    let records = [before, &known, ops].concat();
    let header = Header {
        version: KNOWN_VERSION,
        records_len: records.len(),
        blob_len: blob.bytes.len(),
        is_signed: false,
        has_known: true,
        ..old
    };
    assemble(header, &records, &blob.bytes)
}

/// The version that files of these operators are written in.
fn version(ops: &[Op], dtype: Dtype, nr: usize, blob: &[u8]) -> u16 {
    let needs = |op: &Op| match op.conv() {
        // The weights alone show it.
        Some(o) if has_large_sums(o, dtype, nr, blob) => 8,
        _ => op.version(dtype, nr),
    };
    ops.iter().map(needs).fold(LEAST_VERSION, u16::max)
}

/// Whether older readers would refuse a convolution's scratch for the sums of its weights.
fn has_large_sums(o: &Conv2d, dtype: Dtype, nr: usize, blob: &[u8]) -> bool {
    let start = o.weights.offset as usize;
    let weights = blob.get(start..).and_then(|b| b.get(..o.weights.len as usize));
    let dtype = o.output.dtype(dtype);
    let panel_len = o.filter_layout(1, nr, dtype).panel_len();
    let is_winograd = dtype == Dtype::I8 && !has_columns(dtype, nr) && o.scratch.is_some();
    is_winograd && weights.is_some_and(|w| largest_sums(w, panel_len).all > MAX_SUM)
}

/// A file in the version that it would be written in today, with the signature that `sign` makes of all its bytes, or without
/// one. What it had is replaced.
///
/// # Errors
/// A file that [`Artifact::parse`] refuses.
pub fn rewrite(
    file: &[u8],
    sign: Option<impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN]>,
) -> Result<Vec<u8>, ArtifactError> {
    let artifact = Artifact::parse(file)?;
    let old = *artifact.header();
    let ops: Vec<Op> = artifact.ops().collect();
    let header = Header {
        version: match old.has_known {
            true => KNOWN_VERSION,
            false => version(&ops, old.dtype, old.nr, &file[old.blob_offset()..]),
        },
        is_signed: sign.is_some(),
        ..old
    };
    let mut new = file[..old.content_len()].to_vec();
    new[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    seal(&mut new);
    if let Some(sign) = sign {
        let signature = sign(&new);
        new.extend_from_slice(&signature);
    }
    Artifact::parse(&new)?;
    Ok(new)
}

/// Recomputes the checksum of an unsigned file whose bytes were changed; files shorter than a header
/// are left alone.
pub fn seal(file: &mut [u8]) {
    if file.len() >= HEADER_LEN {
        let sum = checksum(file).to_le_bytes();
        file[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum);
    }
}
