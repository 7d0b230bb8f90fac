//! What Arm's MPS2 boards have in common: a timer, and a debugger's console.
#![no_std]

use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use cortex_m_semihosting::hio;

/// A board; its timer stands in for a counter of instructions.
///
/// QEMU with `-icount shift=6` lets 64 ns pass for an instruction. On a real board, ticks are time.
#[derive(Debug)]
pub struct Mps2 {
    timer: *mut u32,
    tick_ns: u32,
}

/// Nanoseconds of an instruction in QEMU, as the runner asks for.
const INSTRUCTION_NS: u32 = 64;
const CTRL: usize = 0;
const VALUE: usize = 1;
const RELOAD: usize = 2;

impl Mps2 {
    /// Starts the CMSDK timer at address `timer`, which counts down every `tick_ns`.
    ///
    /// # Safety
    /// The timer is there, and nobody else's.
    pub unsafe fn new(timer: usize, tick_ns: u32) -> Self {
        let timer = core::ptr::with_exposed_provenance_mut::<u32>(timer);
        // SAFETY: the caller's promise; the registers are documented in DDI 0479.
        unsafe {
            timer.add(RELOAD).write_volatile(u32::MAX);
            timer.add(VALUE).write_volatile(u32::MAX);
            timer.add(CTRL).write_volatile(1);
        }
        Self { timer, tick_ns }
    }

    /// Reports how it ended, and stops.
    pub fn exit(mut self, result: Result<(), &'static str>) -> ! {
        use demo::Board;
        match result {
            Ok(()) => debug::exit(EXIT_SUCCESS),
            Err(what) => {
                for part in ["error: ", what, "\n"] {
                    self.write(part);
                }
                debug::exit(EXIT_FAILURE);
            }
        }
        // A real board without a debugger's consent.
        loop {
            cortex_m::asm::wfi();
        }
    }
}

impl demo::Board for Mps2 {
    fn write(&mut self, text: &str) {
        if let Ok(mut out) = hio::hstdout() {
            let _ = out.write_all(text.as_bytes());
        }
    }

    fn instructions(&mut self) -> Option<u32> {
        // SAFETY: the timer is there, as `new` was promised.
        let value = unsafe { self.timer.add(VALUE).read_volatile() };
        // Divided first, for 32 bits are few; wraps around after minutes.
        Some((u32::MAX - value) / (INSTRUCTION_NS / 2) * (self.tick_ns / 2))
    }

    fn stack(&mut self) -> Option<usize> {
        // What `paint-stack` of cortex-m-rt wrote before `main`.
        const PAINT: u32 = 0xcccc_cccc;
        unsafe extern "C" {
            static _stack_start: u32;
            static _stack_end: u32;
        }
        let (end, start) = (&raw const _stack_end, &raw const _stack_start);
        let mut lowest = end;
        // SAFETY: the linker's symbols enclose the stack, which this is still a part of.
        while lowest < start && unsafe { lowest.read_volatile() } == PAINT {
            lowest = lowest.wrapping_add(1);
        }
        Some(start.addr() - lowest.addr())
    }
}

/// A panic has no message, so that no formatting is linked.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    if let Ok(mut out) = hio::hstdout() {
        let _ = out.write_all(b"error: panic\n");
    }
    debug::exit(EXIT_FAILURE);
    loop {
        cortex_m::asm::wfi();
    }
}

/// The table of interrupts, none of which is used.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [usize; 1] = [0];
