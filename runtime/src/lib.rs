//! Runs `.edge` models: networks in int8, f16 weights or f32, without a heap.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! use runtime::{AlignedBuf, Model, Session};
//! let file = AlignedBuf::from_slice(&std::fs::read("model.edge")?);
//! let model = Model::new(&file)?;
//! let mut arena = AlignedBuf::zeroed(model.arena_len());
//! let mut session = Session::new(&model, &mut arena)?;
//! session.input_mut().set_pixel(0, [0.5, 0.5, 0.5]);
//! let logits = session.run();
//! println!("{:?}", logits.iter().collect::<Vec<f32>>());
//! # Ok(()) }
//! ```
//!
//! After [`Session::new`], inference cannot fail, allocate or panic. Int8 results are the
//! same bytes on every instruction set, thread count and device; layers of floats in models for
//! PCs differ in the last bits.
//!
//! | feature | adds |
//! |---|---|
//! | `alloc` | [`AlignedBuf`] |
//! | `float` | layers of floats in models for microcontrollers |
//! | `host` (default) | models for PCs: those of floats, and panels of 16 outputs; microcontrollers save the space |
//! | `signature` | [`Model::new_signed`], patches that are signed |
//! | `std` (default) | detection of instruction sets, [`workers::Threads`] |
#![no_std]
#![cfg_attr(not(feature = "host"), allow(dead_code, reason = "kernels of other models"))]

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian and used in place; big-endian targets are not supported");

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[expect(unsafe_code, reason = "a static arena is lent as a whole")]
mod arena;
pub mod classify;
pub mod heat;
mod isa;
mod kernels;
mod model;
mod ops;
pub mod preprocess;
mod session;
#[cfg(feature = "signature")]
mod signature;
pub mod teach;
pub mod workers;

#[cfg(feature = "alloc")]
pub use arena::AlignedBuf;
pub use arena::{Aligned, Arena};
pub use artifact::text;
pub use artifact::{ArtifactError, Dtype, Fit, Meta, Op, Preprocess, Quant, Shape, arena_len};
pub use artifact::{HEADER_LEN, file_len};
pub use isa::{Isa, UnknownIsa};
pub use model::Model;
#[doc(hidden)]
pub use model::{assert_runs, refusal};
pub use session::{Distance, InputMut, Logits, Observation, Session, SessionError};
#[cfg(feature = "signature")]
pub use signature::{PrivateKey, PublicKey};

/// Embeds a model, aligned as the reader wants it:
///
/// ```
/// static MODEL: &[u8] = runtime::include_artifact!("../../models/resnet_8_cifar10.cortex-m.edge");
/// const LEN: usize = runtime::arena_len(MODEL); // RAM, known at compile time
/// assert!(LEN < 24 << 10);
/// ```
///
/// What this build cannot run does not compile, such as a model for PCs in firmware:
///
/// ```compile_fail
/// static MODEL: &[u8] = runtime::include_artifact!("../../models/resnet_8_cifar10.mpk");
/// ```
#[macro_export]
macro_rules! include_artifact {
    ($path:expr) => {{
        static ALIGNED: &$crate::Aligned<[u8]> = &$crate::Aligned(*include_bytes!($path));
        const _: () = $crate::assert_runs(&ALIGNED.0);
        &ALIGNED.0
    }};
}

/// The snippets of the README and of `docs/devices.md`.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../../docs/devices.md")]
struct Documents;
