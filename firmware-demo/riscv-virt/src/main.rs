//! Classifies embedded pictures on a 32-bit RISC-V core: no operating system, no heap.
//!
//! `cargo run --release` builds it, starts QEMU and prints classes, the instructions that they took
//! and logits, which are the same bytes as on a PC (`../host`).
#![no_std]
#![no_main]

use riscv_rt::entry;
use runtime::{Arena, arena_len, include_artifact};

static MODEL: &[u8] = include_artifact!(concat!(env!("OUT_DIR"), "/model.edge"));
static ARENA: Arena<{ arena_len(MODEL) }> = Arena::new();

/// QEMU's `virt` machine.
struct Virt;

/// Where the serial port takes a byte.
const SERIAL: usize = 0x1000_0000;
/// Ends the emulator: with success, or with status 1.
const FINISHER: usize = 0x0010_0000;
const PASS: u32 = 0x5555;
const FAIL: u32 = 0x1_3333;

impl demo::Board for Virt {
    fn write(&mut self, text: &str) {
        for byte in text.bytes() {
            // SAFETY: the serial port is there, and its data register is one byte.
            unsafe { core::ptr::with_exposed_provenance_mut::<u8>(SERIAL).write_volatile(byte) };
        }
    }

    fn instructions(&mut self) -> Option<u32> {
        Some(riscv::register::minstret::read() as u32)
    }

    fn stack(&mut self) -> Option<usize> {
        None
    }
}

fn exit(code: u32) -> ! {
    // SAFETY: the finisher is there, and ends the emulator.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(FINISHER).write_volatile(code) };
    loop {
        riscv::asm::wfi();
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    demo::Board::write(&mut Virt, "error: panic\n");
    exit(FAIL)
}

#[entry]
fn main() -> ! {
    let result = match ARENA.take() {
        Some(arena) => demo::run(&mut Virt, MODEL, arena),
        None => Err("the arena is taken"),
    };
    match result {
        Ok(()) => exit(PASS),
        Err(what) => {
            for part in ["error: ", what, "\n"] {
                demo::Board::write(&mut Virt, part);
            }
            exit(FAIL)
        }
    }
}
