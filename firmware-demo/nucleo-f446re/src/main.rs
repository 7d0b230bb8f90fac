//! Classifies what a camera sees: a Nucleo-F446RE with an OV7670, which gives 160×120 pixels of 16
//! bits. Text goes to the debugger's serial port (USART2, 115200 baud).
//!
//! Without a camera it classifies the embedded pictures, and tells what that took in cycles.
//!
//! | camera | SIOC | SIOD | XCLK | PCLK | VSYNC | HREF | D0 … D7 |
//! |---|---|---|---|---|---|---|---|
//! | board | PB10 | PC12 | PA8 | PA6 | PB7 | PA4 | PC6, PC7, PC8, PC9, PC11, PB6, PB8, PB9 |
//!
//! SIOC and SIOD want pull-up resistors of 4.7 kΩ to 3.3 V; RESET goes to 3.3 V, PWDN to ground.
#![no_std]
#![no_main]

mod ov7670;

use core::convert::Infallible;
use cortex_m::peripheral::DWT;
use cortex_m_rt::entry;
use embassy_futures::block_on;
use embassy_stm32::dcmi::{self, Dcmi};
use embassy_stm32::i2c::{self, I2c};
use embassy_stm32::mode::Blocking;
use embassy_stm32::rcc::{self, Mco, Mco1Source, McoConfig};
use embassy_stm32::usart::{self, UartTx};
use embassy_stm32::{bind_interrupts, dma, peripherals};
use runtime::preprocess::{PixelFormat, RgbView};
use runtime::{Arena, Model, Session, arena_len, include_artifact};

static MODEL: &[u8] = include_artifact!(concat!(env!("OUT_DIR"), "/model.edge"));
static ARENA: Arena<{ arena_len(MODEL) }> = Arena::new();

const WIDTH: usize = 160;
const HEIGHT: usize = 120;
/// Bytes of a row.
const STRIDE: usize = 2 * WIDTH;

bind_interrupts!(struct Interrupts {
    DCMI => dcmi::InterruptHandler<peripherals::DCMI>;
    DMA2_STREAM1 => dma::InterruptHandler<peripherals::DMA2_CH1>;
});

struct Nucleo {
    serial: UartTx<'static, Blocking>,
}

impl demo::Board for Nucleo {
    fn write(&mut self, text: &str) {
        let _ = self.serial.blocking_write(text.as_bytes());
    }

    /// Cycles.
    fn instructions(&mut self) -> Option<u32> {
        Some(DWT::cycle_count())
    }

    fn stack(&mut self) -> Option<usize> {
        None
    }
}

#[entry]
fn main() -> ! {
    let p = embassy_stm32::init(clocks());
    if let Some(mut core) = cortex_m::Peripherals::take() {
        core.DCB.enable_trace();
        core.DWT.enable_cycle_counter();
    }
    let serial = UartTx::new_blocking(p.USART2, p.PA2, usart::Config::default());
    let (Ok(serial), Some(arena), Some(frame)) = (
        serial,
        ARENA.take(),
        cortex_m::singleton!(FRAME: [u32; STRIDE * HEIGHT / 4] = [0; STRIDE * HEIGHT / 4]),
    ) else {
        stop()
    };
    let mut board = Nucleo { serial };

    let watch = || -> Result<Infallible, &'static str> {
        demo::run(&mut board, MODEL, arena)?;
        // The camera's clock: 16 MHz.
        let _clock = Mco::new(p.MCO1, p.PA8, Mco1Source::HSI, McoConfig::default());
        let mut bus = I2c::new_blocking(p.I2C2, p.PB10, p.PC12, i2c::Config::default());
        ov7670::start(&mut bus)?;
        let mut camera = Dcmi::new_8bit(
            p.DCMI,
            p.DMA2_CH1,
            Interrupts,
            p.PC6,
            p.PC7,
            p.PC8,
            p.PC9,
            p.PC11,
            p.PB6,
            p.PB8,
            p.PB9,
            p.PB7,
            p.PA4,
            p.PA6,
            dcmi::Config::default(),
        );
        let model = Model::new_trusted(MODEL).map_err(|_| "the embedded model is refused")?;
        let mut session = Session::new(&model, arena).map_err(|_| "the arena does not fit")?;
        loop {
            block_on(camera.capture(frame)).map_err(|_| "the camera is faster than memory")?;
            let bytes = bytemuck::cast_slice(frame);
            let format = PixelFormat::Rgb565BigEndian;
            let view = RgbView::with_format(bytes, format, WIDTH, HEIGHT, STRIDE)
                .map_err(|_| "the frame is no picture")?;
            demo::classify(&mut board, &model, &mut session, "camera", view);
        }
    };
    let Err(what) = watch();
    ["error: ", what, "\n"].iter().for_each(|part| demo::Board::write(&mut board, part));
    stop()
}

/// 168 MHz, the most without over-drive; the buses a quarter and half of that.
fn clocks() -> embassy_stm32::Config {
    let mut config = embassy_stm32::Config::default();
    config.rcc.pll_src = rcc::PllSource::HSI;
    config.rcc.pll = Some(rcc::Pll {
        prediv: rcc::PllPreDiv::DIV16,
        mul: rcc::PllMul::MUL336,
        divp: Some(rcc::PllPDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.sys = rcc::Sysclk::PLL1_P;
    config.rcc.apb1_pre = rcc::APBPrescaler::DIV4;
    config.rcc.apb2_pre = rcc::APBPrescaler::DIV2;
    config
}

fn stop() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    stop()
}
