//! Activation memory, owned by the caller.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicBool;
#[cfg(target_has_atomic = "8")]
use core::sync::atomic::Ordering;

/// 64-byte alignment for any value, e.g. an embedded model.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);

/// `N` bytes of activation memory.
///
/// A microcontroller's lies in `.bss`, and is lent out once:
///
/// ```
/// use runtime::{Arena, Model, Session, arena_len, include_artifact};
///
/// static MODEL: &[u8] = include_artifact!("../../models/resnet_8_cifar10.cortex-m.edge");
/// static ARENA: Arena<{ arena_len(MODEL) }> = Arena::new();
///
/// let model = Model::new(MODEL).expect("a model that was checked");
/// let arena = ARENA.take().expect("taken once");
/// let mut session = Session::new(&model, arena).expect("an arena as long as the model wants");
/// session.input_mut().set_pixel(0, [0.5, 0.5, 0.5]);
/// let best = session.run().iter().fold(f32::MIN, f32::max);
/// assert!(best.is_finite() && ARENA.take().is_none());
/// ```
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Arena<const N: usize> {
    bytes: UnsafeCell<[u8; N]>,
    is_taken: AtomicBool,
}

// SAFETY: only `take` gives away what is inside of a shared arena, and that once.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Arena<N> {
    /// Zeroed.
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; N]), is_taken: AtomicBool::new(false) }
    }

    /// The bytes of an arena with one owner.
    pub const fn get_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut()
    }

    /// The bytes of a `static` arena; `None` where they were taken before.
    ///
    /// Cores without atomic swaps, such as the Cortex-M0, lack it: there
    /// `cortex_m::singleton!(: Arena<N> = Arena::new())` or `static_cell` lends the arena.
    #[cfg(target_has_atomic = "8")]
    #[expect(clippy::mut_from_ref, reason = "lent once, as a flag makes sure")]
    pub fn take(&'static self) -> Option<&'static mut [u8]> {
        if self.is_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: only the first caller gets here, and nothing else makes a reference: `get_mut`
        // wants the arena for itself, which nobody has of what is borrowed forever.
        Some(unsafe { &mut *self.bytes.get() })
    }
}

/// Bytes on the heap that start at a 64-byte boundary.
#[cfg(feature = "alloc")]
#[derive(Debug)]
pub struct AlignedBuf {
    // Longer than `len`, so that an aligned window of `len` bytes lies somewhere in it.
    bytes: alloc::vec::Vec<u8>,
    start: usize,
    len: usize,
}

#[cfg(feature = "alloc")]
impl AlignedBuf {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let bytes = alloc::vec![0; len + artifact::layout::ALIGN - 1];
        let start = bytes.as_ptr().addr().wrapping_neg() % artifact::layout::ALIGN;
        Self { bytes, start, len }
    }

    /// A copy of `bytes`.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }
}

#[cfg(feature = "alloc")]
impl core::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(feature = "alloc")]
impl core::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
