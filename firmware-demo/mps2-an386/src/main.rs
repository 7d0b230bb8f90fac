//! Classifies embedded pictures on a Cortex-M4: no operating system, no heap.
//!
//! `cargo run --release` builds it, starts QEMU and prints classes, the instructions that they took
//! and logits, which are the same bytes as on a PC (`../host`).
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use mps2::Mps2;
use runtime::{Arena, arena_len, include_artifact};

static MODEL: &[u8] = include_artifact!(concat!(env!("OUT_DIR"), "/model.edge"));
#[cfg(target_has_atomic = "8")]
static ARENA: Arena<{ arena_len(MODEL) }> = Arena::new();

#[cfg(target_has_atomic = "8")]
fn arena() -> Option<&'static mut [u8]> {
    ARENA.take()
}

/// Armv6-M swaps nothing atomically.
#[cfg(not(target_has_atomic = "8"))]
fn arena() -> Option<&'static mut [u8]> {
    let arena = cortex_m::singleton!(ARENA: Arena<{ arena_len(MODEL) }> = Arena::new());
    arena.map(|arena| arena.get_mut())
}

#[entry]
fn main() -> ! {
    // SAFETY: TIMER0 of the AN386 image, at 25 MHz; nothing else uses it.
    let mut board = unsafe { Mps2::new(0x4000_0000, 40) };
    let result = match arena() {
        Some(arena) => demo::run(&mut board, MODEL, arena),
        None => Err("the arena is taken"),
    };
    board.exit(result)
}
