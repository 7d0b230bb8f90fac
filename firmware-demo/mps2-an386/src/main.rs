//! Classifies an embedded picture with the built-in model: no operating system, no heap.
//!
//! `cargo run --release` builds it, starts QEMU and prints the class and the logits, which
//! are the same bytes as on a PC.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use runtime::preprocess::{RgbView, for_each_pixel};
use runtime::{Arena, Model, Session, arena_len, classify, include_artifact};

static MODEL: &[u8] = include_artifact!("../../../models/resnet_8_cifar10.cortex-m.edge");
/// 64×64 RGB pixels of samples/pictures/chelsea.png.
static PICTURE: &[u8] = include_bytes!("../../pictures/chelsea-64x64.rgb");
const SIDE: usize = 64;
const ARENA_LEN: usize =
    arena_len(include_bytes!("../../../models/resnet_8_cifar10.cortex-m.edge"));

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    stop(debug::EXIT_FAILURE)
}

/// Ends the emulator; on a real board, where nobody listens, waits.
fn stop(status: debug::ExitStatus) -> ! {
    debug::exit(status);
    loop {
        cortex_m::asm::wfi();
    }
}

#[entry]
fn main() -> ! {
    match run() {
        Ok(()) => stop(debug::EXIT_SUCCESS),
        Err(what) => {
            hprintln!("error: {}", what);
            stop(debug::EXIT_FAILURE)
        }
    }
}

fn run() -> Result<(), &'static str> {
    let model = Model::new(MODEL).map_err(|e| {
        hprintln!("{}", e);
        "the embedded model is refused"
    })?;
    let arena =
        cortex_m::singleton!(ARENA: Arena<ARENA_LEN> = Arena::new()).ok_or("the arena is taken")?;
    let mut session = Session::new(&model, &mut arena.0).map_err(|_| "the arena does not fit")?;
    let picture =
        RgbView::new(PICTURE, SIDE, SIDE, SIDE * 3).map_err(|_| "the picture does not fit")?;
    let mut input = session.input_mut();
    for_each_pixel(&model.meta().preprocess, picture, |i, rgb| input.set_pixel(i, rgb));
    let logits = session.run();
    hprintln!("arena {} bytes, model {} bytes", ARENA_LEN, MODEL.len());
    for score in classify::top_k::<3>(logits.iter(), 3) {
        // Semihosting has no float formatting worth its flash: print tenths of a percent.
        let permille = (score.probability * 1000.0 + 0.5) as u32;
        hprintln!("{:3}.{} % {}", permille / 10, permille % 10, model.label(score.index));
    }
    for (class, logit) in logits.iter().enumerate() {
        hprintln!("logit {} {}", class, logit);
    }
    Ok(())
}
