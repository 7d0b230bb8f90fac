//! What can be wrong with a file.

use crate::header::OLDEST_VERSION;
use core::fmt;

/// Why bytes are not a usable `.edge` model. Small and `Copy`: a device can send it over a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArtifactError {
    /// Fewer bytes than the header or the header's lengths ask for.
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
    /// The first eight bytes are not the format's.
    BadMagic,
    /// Written by a newer (or unknown) version of the format.
    UnsupportedVersion {
        /// Version in the file.
        found: u16,
        /// Newest version this build reads.
        supported: u16,
    },
    /// A model for PCs, where only those for microcontrollers are built in.
    HostModel,
    /// A model with layers of floats, where kernels for them are not built in.
    FloatLayers,
    /// The checksum does not match the contents.
    Checksum,
    /// The file has no signature, where one is asked for.
    Unsigned,
    /// The signature is not by the key's owner, or not of these bytes.
    Signature,
    /// The file's bytes start at an address that is not a multiple of [`crate::layout::ALIGN`].
    Misaligned {
        /// Address modulo the alignment.
        offset: usize,
    },
    /// A header field is out of range.
    Header {
        /// Byte offset of the field in the header.
        field: usize,
    },
    /// The metadata record cannot be decoded or is out of range.
    Meta,
    /// A label is empty, too long, or its number differs from the model's classes.
    Labels {
        /// Index of the label.
        index: usize,
    },
    /// An operator record cannot be decoded.
    Record {
        /// Index of the operator.
        op: usize,
    },
    /// Shapes, strides, padding or channels of an operator do not fit together.
    Geometry {
        /// Index of the operator.
        op: usize,
    },
    /// An operand leaves the arena, overlaps another, or is read before it is written.
    Operand {
        /// Index of the operator.
        op: usize,
    },
    /// A scale, zero point, multiplier, shift or weight is out of range, a sum could leave 32 bits or is not
    /// that of the weights, or number formats are mixed without a [`crate::Cast`].
    Quantization {
        /// Index of the operator.
        op: usize,
    },
    /// A weight range leaves the blob, overlaps another, leaves a hole or has the wrong length.
    Weights {
        /// Index of the operator.
        op: usize,
    },
    /// What tells unknown pictures cannot be decoded, or does not fit the last operator.
    Known,
    /// The model has no operators, or the last one does not write the output.
    NoOutput,
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { needed, have } => {
                write!(f, "truncated: {have} bytes where {needed} are needed; copy the file again")
            }
            Self::TrailingBytes { extra } => {
                write!(f, "{extra} bytes after the end of the model; copy the file again")
            }
            Self::BadMagic => write!(f, "not an .edge model; make one with `convert`"),
            Self::UnsupportedVersion { found, supported } => write!(
                f,
                "format version {found}, but this build reads {OLDEST_VERSION} to {supported}; {}",
                if found < supported { "convert the model again" } else { "update this program" }
            ),
            Self::HostModel => write!(
                f,
                "a model for PCs, but this build only has kernels for `convert --target cortex-m`; convert it for that, or build with the feature `host`"
            ),
            Self::FloatLayers => write!(
                f,
                "some layers of the model are floats, for which this build has no kernels; build with the feature `float`"
            ),
            Self::Checksum => write!(f, "checksum mismatch: the file is damaged; copy it again"),
            Self::Unsigned => write!(f, "the model is not signed; sign it with `convert sign`"),
            Self::Signature => {
                write!(
                    f,
                    "the signature is not that of the key for this file; use the key's own model"
                )
            }
            Self::Misaligned { offset } => write!(
                f,
                "model bytes start {offset} bytes off a 64-byte boundary; use include_artifact! or an aligned buffer"
            ),
            Self::Header { field } => write!(f, "header field at byte {field} is out of range"),
            Self::Meta => write!(f, "metadata is malformed"),
            Self::Labels { index } => write!(f, "label {index} is missing, empty or too long"),
            Self::Record { op } => write!(f, "operator {op} cannot be decoded"),
            Self::Geometry { op } => write!(f, "operator {op} has shapes that do not fit together"),
            Self::Operand { op } => {
                write!(f, "operator {op} reads or writes activation memory that is not its own")
            }
            Self::Quantization { op } => {
                write!(
                    f,
                    "operator {op} has weights or quantization parameters out of range, or sums of other weights; convert the model again"
                )
            }
            Self::Weights { op } => {
                write!(f, "operator {op} has weights of the wrong place or length")
            }
            Self::Known => write!(f, "the statistics of known pictures do not fit the model"),
            Self::NoOutput => write!(f, "the model has no output"),
        }
    }
}

impl core::error::Error for ArtifactError {}
