//! The device file `.edge`: what `convert` writes and `runtime` runs.
//!
//! A file is a fixed little-endian [`header`], a postcard section ([`meta`], perhaps what is [`known`], and one
//! [`op`] record per operator, in execution order) and a blob of weights, already in
//! the layout the kernels read ([`layout`]). Reading is a checked parse: nothing is
//! copied, repacked or allocated, and after [`Artifact::new_checked`] no accessor fails.
//!
//! ```
//! let err = artifact::Artifact::new_checked(b"not a model").unwrap_err();
//! assert!(matches!(err, artifact::ArtifactError::Truncated { .. }));
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `alloc` | [`writer`] and owned metadata |
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod error;
pub mod head;
pub mod header;
pub mod known;
pub mod layout;
pub mod meta;
pub mod op;
pub mod params;
pub mod patch;
pub mod quant;
mod reader;
pub mod scale;
pub mod shape;
pub mod stripes;
pub mod text;
pub mod winograd;
pub mod winograd_i8;
#[cfg(feature = "alloc")]
pub mod writer;

pub use error::ArtifactError;
pub use head::Head;
pub use header::{HEADER_LEN, Header, arena_len, file_len};
pub use known::Known;
pub use layout::{Dtype, KR_I8};
pub use meta::{Fit, Interpolation, Meta, Preprocess};
pub use op::{
    Affine, Cast, Clamp, Conv2d, Curve, Gate, Grouped, Lookup, Op, Place, Pool2d, PoolKind,
    Residual, Span,
};
pub use quant::{Quant, Requant};
pub use reader::{Artifact, Labels, MAX_OPS, MAX_RESIDUAL_FACTOR, Ops};
pub use shape::{Padding, Shape, output_len};
