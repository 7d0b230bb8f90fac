//! OmniVision's OV7670 at 160×120 pixels of RGB565.

use embassy_stm32::i2c::{I2c, Master};
use embassy_stm32::mode::Blocking;

/// Its address on the bus.
const ADDRESS: u8 = 0x21;

/// Registers by the names of the data sheet (version 1.4), and what differs from their defaults.
const SETTINGS: [[u8; 2]; 20] = [
    [0x11, 0x01], // CLKRC: half of the clock
    [0x12, 0x04], // COM7: RGB
    [0x40, 0xd0], // COM15: all of 0 to 255, RGB565
    [0x8c, 0x00], // RGB444: off
    [0x13, 0xe7], // COM8: automatic gain, exposure, white balance
    [0x0c, 0x04], // COM3: scaling
    [0x3e, 0x1a], // COM14: pixel clock divided by four
    [0x70, 0x3a], // SCALING_XSC
    [0x71, 0x35], // SCALING_YSC
    [0x72, 0x22], // SCALING_DCWCTR: a quarter of both sides
    [0x73, 0xf2], // SCALING_PCLK_DIV: by four
    [0xa2, 0x02], // SCALING_PCLK_DELAY
    [0x17, 0x16], // HSTART
    [0x18, 0x04], // HSTOP
    [0x32, 0xa4], // HREF: lower bits of both
    [0x19, 0x02], // VSTART
    [0x1a, 0x7a], // VSTOP
    [0x03, 0x0a], // VREF: lower bits of both
    [0x15, 0x00], // COM10: VSYNC is high between frames
    [0xb0, 0x84], // reserved; colors are wrong without
];

/// Resets and sets up the camera on `bus`; an error where none answers.
pub fn start(bus: &mut I2c<'_, Blocking, Master>) -> Result<(), &'static str> {
    let mut write = |register: [u8; 2]| {
        bus.blocking_write(ADDRESS, &register).map_err(|_| "no camera answers (OV7670 at 0x21)")
    };
    // COM7: all registers to their defaults, which takes a millisecond.
    write([0x12, 0x80])?;
    cortex_m::asm::delay(168_000 * 2);
    SETTINGS.into_iter().try_for_each(write)
}
