//! Memory of feature maps and large tensors, used again.
//!
//! A training step makes and frees hundreds of megabytes. From the system they would come as
//! pages that must be cleared first, each step anew, and the system's allocator would keep what is
//! freed without filling it again. Here they are cut out of a few slabs, each from the smallest gap
//! that is large enough, so that gaps are filled and pages that were never touched are touched last;
//! gaps side by side become one. Weights and their gradients, which outlive maps, have slabs of their
//! own: among maps they would part gaps. Slabs are kept until the process ends. Lines of a map lie in
//! one cache line each.
#![expect(unsafe_code, reason = "parts of a slab that are lent are told apart by numbers alone")]

use burn::tensor::Bytes;
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use bytemuck::{Pod, Zeroable};
use core::marker::PhantomData;
use core::mem::{MaybeUninit, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Block([u32; 16]);

/// Least length of a slab in blocks: 256 MiB, of which the system gives only what is touched.
const SLAB: usize = (256 << 20) / size_of::<Block>();

/// All memory of one kind; lengths are numbers of blocks.
#[derive(Debug)]
struct Pool {
    slabs: Vec<Slab>,
    /// Lengths of gaps by slab and place; no two of them touch.
    gaps: BTreeMap<(usize, usize), usize>,
}

/// Where a slab begins; it is never freed.
#[derive(Debug, Clone, Copy)]
struct Slab(NonNull<Block>);

// SAFETY: it only says where memory is; who may use what of it, the gaps of the pool tell.
unsafe impl Send for Slab {}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Map,
    Parameter,
}

static MAPS: Mutex<Pool> = Mutex::new(Pool::new());
static PARAMETERS: Mutex<Pool> = Mutex::new(Pool::new());

impl Kind {
    fn pool(self) -> MutexGuard<'static, Pool> {
        let pool = match self {
            Self::Map => &MAPS,
            Self::Parameter => &PARAMETERS,
        };
        pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbers<E: Pod>(self, len: usize) -> Numbers<E> {
        // At least one, so that places of what is lent differ.
        let blocks = (len * size_of::<E>()).div_ceil(size_of::<Block>()).max(1);
        let place = self.pool().take(blocks);
        Numbers { blocks: Blocks { place, kind: self }, len, element: PhantomData }
    }
}

impl Pool {
    const fn new() -> Self {
        Self { slabs: Vec::new(), gaps: BTreeMap::new() }
    }

    /// Blocks of any content that nobody else has.
    fn take(&mut self, len: usize) -> Place {
        let fits = self.gaps.iter().filter(|(_, gap)| **gap >= len);
        let best = fits.min_by_key(|(_, gap)| **gap).map(|(place, gap)| (*place, *gap));
        let ((slab, first), gap) = best.unwrap_or_else(|| self.grow(len));
        self.gaps.remove(&(slab, first));
        if gap > len {
            self.gaps.insert((slab, first + len), gap - len);
        }
        // SAFETY: the gap, and so its first block, is in the slab.
        let start = unsafe { self.slabs[slab].0.add(first) };
        Place { slab, first, start, len }
    }

    /// The gap that a new slab is, of at least `len` blocks.
    fn grow(&mut self, len: usize) -> ((usize, usize), usize) {
        // Memory of this alignment comes as pages that are cleared when they are touched.
        let pages = vec![0_u128; (len.max(SLAB) + 1) * size_of::<Block>() / size_of::<u128>()];
        let (_, blocks, _) = bytemuck::pod_align_to_mut::<u128, Block>(pages.leak());
        let (len, place) = (blocks.len(), (self.slabs.len(), 0));
        self.slabs.push(Slab(NonNull::from(blocks).cast()));
        (place, len)
    }

    fn give_back(&mut self, place: Place) {
        let Place { slab, mut first, mut len, .. } = place;
        if let Some(after) = self.gaps.remove(&(slab, first + len)) {
            len += after;
        }
        let before = self.gaps.range(..(slab, first)).next_back();
        if let Some((&(own, start), &gap)) = before
            && (own, start + gap) == (slab, first)
        {
            (first, len) = (start, len + gap);
        }
        self.gaps.insert((slab, first), len);
    }
}

/// Blocks of a slab.
#[derive(Debug, Clone, Copy)]
struct Place {
    slab: usize,
    first: usize,
    start: NonNull<Block>,
    len: usize,
}

/// A part of a slab that nobody else has.
#[derive(Debug)]
struct Blocks {
    place: Place,
    kind: Kind,
}

// SAFETY: it is as good as a `Box<[Block]>`: the memory is its own.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

impl Deref for Blocks {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        // SAFETY: these blocks of a slab, which was cleared, are this value's alone.
        unsafe { core::slice::from_raw_parts(self.place.start.as_ptr(), self.place.len) }
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [Block] {
        // SAFETY: these blocks of a slab, which was cleared, are this value's alone.
        unsafe { core::slice::from_raw_parts_mut(self.place.start.as_ptr(), self.place.len) }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.kind.pool().give_back(self.place);
    }
}

/// Numbers of a map that is being computed.
#[derive(Debug)]
pub(super) struct Numbers<E> {
    blocks: Blocks,
    len: usize,
    element: PhantomData<E>,
}

/// Room for `len` numbers, with any content: whoever takes it overwrites all of it.
pub(super) fn take<E: Pod>(len: usize) -> Numbers<E> {
    Kind::Map.numbers(len)
}

/// The same for weights and their gradients.
pub(super) fn take_parameters(len: usize) -> Numbers<f32> {
    Kind::Parameter.numbers(len)
}

impl<E: Pod> Deref for Numbers<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &bytemuck::cast_slice(&self.blocks)[..self.len]
    }
}

impl<E: Pod> DerefMut for Numbers<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.len]
    }
}

impl<E: Pod> Numbers<E> {
    /// As the memory of a tensor.
    pub(super) fn into_bytes(self) -> Bytes {
        let len = self.len * size_of::<E>();
        let memory = Memory { blocks: self.blocks };
        // SAFETY: the controller's memory is initialized and at least `len` bytes long.
        unsafe { Bytes::from_controller(Box::new(memory), len) }
    }
}

/// Memory of a tensor.
#[derive(Debug)]
struct Memory {
    blocks: Blocks,
}

impl AllocationController for Memory {
    fn alloc_align(&self) -> usize {
        align_of::<Block>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.blocks);
        // SAFETY: the same bytes; the caller promises to write initialized ones only.
        Ok(unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.blocks);
        // SAFETY: the same bytes; initialized ones are among those that may not be.
        Ok(unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_meet_and_gaps_are_joined() {
        let mut pool = Pool::new();
        let lent = [1, 7, 64, 3, SLAB - 1, 2, SLAB + 5, 100].map(|len| pool.take(len));
        let bytes = lent.map(|place| {
            let start = place.start.as_ptr().addr();
            assert!(start.is_multiple_of(64));
            start..start + place.len * 64
        });
        for (i, one) in bytes.iter().enumerate() {
            for other in &bytes[..i] {
                assert!(one.end <= other.start || other.end <= one.start, "{bytes:?}");
            }
        }
        // What was given back is taken first where it fits best.
        pool.give_back(lent[1]);
        let again = pool.take(6);
        assert_eq!((again.slab, again.first), (lent[1].slab, lent[1].first));
        pool.give_back(again);
        for i in [3, 0, 2, 6, 4, 5, 7] {
            pool.give_back(lent[i]);
        }
        assert_eq!(pool.gaps.len(), pool.slabs.len(), "{:?}", pool.gaps);
    }
}
