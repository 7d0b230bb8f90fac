//! Memory of feature maps and large tensors, used again.
//!
//! A training step makes and frees hundreds of megabytes. From the system they would come as
//! pages that must be cleared first, each step anew; instead freed maps are kept for the next ones
//! of about their size. Lines of a map lie in one cache line each.
#![expect(unsafe_code, reason = "Burn takes foreign memory through an unsafe trait")]

use burn::tensor::Bytes;
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use bytemuck::{Pod, Zeroable};
use core::marker::PhantomData;
use core::mem::{MaybeUninit, size_of, take as take_out};
use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Block([u32; 16]);

/// All memory of maps; lengths are numbers of blocks.
#[derive(Debug)]
struct Pool {
    /// Blocks nobody uses, the first ones unused for longest.
    free: Vec<Vec<Block>>,
    free_len: usize,
    used: usize,
    /// The most that was ever used.
    most_used: usize,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: Vec::new(), free_len: 0, used: 0, most_used: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Free memory of about this length, if there is some.
    fn find(&mut self, wanted: usize) -> Option<Vec<Block>> {
        let fits = |blocks: &Vec<Block>| (wanted..=wanted + wanted / 4).contains(&blocks.len());
        let best = self.free.iter().enumerate().filter(|(_, b)| fits(b));
        let (index, _) = best.min_by_key(|(_, blocks)| blocks.len())?;
        let blocks = self.free.remove(index);
        self.free_len -= blocks.len();
        Some(blocks)
    }

    /// Gives back what has been unused for longest where all memory is more than a fourth above
    /// what is needed at a time: the maps of a step are not all of one size.
    fn trim(&mut self) -> Vec<Vec<Block>> {
        let most = self.most_used + self.most_used / 2;
        let mut count = 0;
        while self.used + self.free_len > most && count < self.free.len() {
            self.free_len -= self.free[count].len();
            count += 1;
        }
        self.free.drain(..count).collect()
    }
}

/// Blocks for `bytes` bytes, of any content.
fn reserve(bytes: usize) -> Vec<Block> {
    let wanted = bytes.div_ceil(size_of::<Block>());
    let mut pool = pool();
    let found = pool.find(wanted);
    pool.used += found.as_ref().map_or(wanted, Vec::len);
    pool.most_used = pool.most_used.max(pool.used);
    let superfluous = pool.trim();
    drop(pool);
    drop(superfluous);
    found.unwrap_or_else(|| bytemuck::zeroed_vec(wanted))
}

fn give_back(blocks: Vec<Block>) {
    if !blocks.is_empty() {
        let mut pool = pool();
        pool.used -= blocks.len();
        pool.free_len += blocks.len();
        pool.free.push(blocks);
    }
}

/// Numbers of a map that is being computed.
#[derive(Debug)]
pub(super) struct Numbers<E> {
    blocks: Vec<Block>,
    len: usize,
    element: PhantomData<E>,
}

/// Room for `len` numbers, with any content: whoever takes it overwrites all of it.
pub(super) fn take<E: Pod>(len: usize) -> Numbers<E> {
    Numbers { blocks: reserve(len * size_of::<E>()), len, element: PhantomData }
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

impl<E> Drop for Numbers<E> {
    fn drop(&mut self) {
        give_back(take_out(&mut self.blocks));
    }
}

impl<E: Pod> Numbers<E> {
    /// As the memory of a tensor.
    pub(super) fn into_bytes(mut self) -> Bytes {
        let len = self.len * size_of::<E>();
        let memory = Memory { blocks: take_out(&mut self.blocks) };
        // SAFETY: the controller's memory is initialized and at least `len` bytes long.
        unsafe { Bytes::from_controller(Box::new(memory), len) }
    }
}

/// Memory of a tensor.
#[derive(Debug)]
struct Memory {
    blocks: Vec<Block>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        give_back(take_out(&mut self.blocks));
    }
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
