//! Activation memory, owned by the caller.

/// 64-byte alignment for any value, e.g. an embedded model.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);

/// `N` bytes of activation memory: `static mut`-free firmware puts it in `.bss`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Arena<const N: usize>(pub [u8; N]);

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Arena<N> {
    /// Zeroed.
    pub const fn new() -> Self {
        Self([0; N])
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
