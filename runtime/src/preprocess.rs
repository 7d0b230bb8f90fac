//! From a picture to the model's input: luma of each pixel where the input is grey, fit, resize,
//! round to 8 bits, scale and offset.
//!
//! One function for training, the command line and firmware. The resize is separable:
//! output pixel `(x, y)` is `Σᵢ wx(i) · (Σⱼ wy(j) · p(i, j))`, columns first, each sum
//! in ascending order with single-precision multiplications and additions, so that
//! every target computes the same bits. The filter's taps are found in integers: with
//! `n` source and `m` target pixels, source pixel `j` lies
//!
//! ```text
//! ((2i + 1) · n − m − 2m · j) / 2m
//! ```
//!
//! source pixels away from the centre of target pixel `i` (half-pixel centers), and a
//! filter that is widened for antialiasing divides this by `n / m` once more. Taps outside
//! the picture are dropped, and the weights of the others divided by their sum.
//!
//! There is no heap: the picture is taken in stripes of `STRIPE` target columns, and of
//! each stripe `CHUNK` source columns at a time are summed vertically on the stack
//! (about 1.5 KiB in all). Neither number changes the result, because the order of
//! additions within a sum does not depend on them. Luma goes the same way, as all three channels: a
//! second form of the resize would take firmware more flash than it saves it time.

use artifact::{Fit, Interpolation, Preprocess};
use core::fmt;

/// Target columns whose taps are held at once.
const STRIPE: usize = 16;
/// Source columns (and rows' weights) held at once.
const CHUNK: usize = 64;
/// Channels of a picture.
const RGB: usize = 3;

/// Longest side of a picture in pixels: keeps the tap arithmetic within its integers.
pub const MAX_SIDE: usize = 65_535;

/// Why a frame cannot be viewed or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// Width or height is zero.
    Empty,
    /// Width or height is more than [`MAX_SIDE`].
    TooLarge {
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// Rows are longer than the distance between them.
    Stride {
        /// Bytes of one row's pixels.
        row_bytes: usize,
        /// Bytes from one row to the next.
        stride_bytes: usize,
    },
    /// Pixels come in pairs, which rows of [`PixelFormat::Yuyv`] would cut.
    Paired {
        /// Pixels per row.
        width: usize,
        /// Bytes from one row to the next.
        stride_bytes: usize,
    },
    /// The buffer ends before the frame does.
    Short {
        /// Bytes wanted.
        needed: usize,
        /// Bytes present.
        have: usize,
    },
    /// The output has not one byte for each channel of each pixel of the model's input.
    Output {
        /// Bytes wanted.
        needed: usize,
        /// Bytes present.
        have: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => write!(f, "frame has no pixels"),
            Self::TooLarge { width, height } => {
                write!(f, "frame of {width}x{height} pixels, at most {MAX_SIDE} a side are taken")
            }
            Self::Stride { row_bytes, stride_bytes } => {
                write!(f, "rows of {row_bytes} bytes overlap at a stride of {stride_bytes}")
            }
            Self::Paired { width, stride_bytes } => write!(
                f,
                "rows of {width} pixels at a stride of {stride_bytes} bytes cut pairs of YUYV: both want even \
                 numbers, the stride multiples of 4"
            ),
            Self::Short { needed, have } => {
                write!(f, "frame has {have} bytes where its size needs {needed}")
            }
            Self::Output { needed, have } => {
                write!(f, "output has {have} bytes where the model's size needs {needed}")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// How a pixel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Bytes of red, green, blue.
    Rgb888,
    /// 16 bits, from the highest: 5 of red, 6 of green, 5 of blue; the high byte first, as cameras
    /// send it.
    Rgb565BigEndian,
    /// The same with the low byte first, as displays of little-endian processors keep it.
    Rgb565LittleEndian,
    /// A byte of luma, as grey cameras send it.
    Grey8,
    /// Bytes of blue, green, red, as OpenCV and Windows have them.
    Bgr888,
    /// Two pixels in four bytes, as USB cameras send them: the first one's luma, blue difference, the second one's
    /// luma, red difference (BT.601, luma from 16 to 235). Rows have an even number of pixels and start at
    /// multiples of four bytes.
    Yuyv,
}

impl PixelFormat {
    /// Bytes of a pixel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Rgb888 | Self::Bgr888 => RGB,
            Self::Rgb565BigEndian | Self::Rgb565LittleEndian | Self::Yuyv => 2,
            Self::Grey8 => 1,
        }
    }

    /// The pixel at byte `at` of a picture, 8 bits a channel.
    ///
    /// 5 and 6 bits become 8 by repeating their highest ones, as STM32's DMA2D and libyuv do.
    #[inline(always)]
    fn read(self, data: &[u8], at: usize) -> [u8; RGB] {
        let bytes = &data[at..at + self.bytes()];
        let pixel = match self {
            Self::Grey8 => return [bytes[0]; RGB],
            Self::Rgb888 => return [bytes[0], bytes[1], bytes[2]],
            Self::Bgr888 => return [bytes[2], bytes[1], bytes[0]],
            Self::Yuyv => return from_yuv([bytes[0], data[at & !3 | 1], data[at | 3]]),
            Self::Rgb565BigEndian => u16::from_be_bytes([bytes[0], bytes[1]]),
            Self::Rgb565LittleEndian => u16::from_le_bytes([bytes[0], bytes[1]]),
        };
        let [red, green, blue] = [pixel >> 11, pixel >> 5 & 63, pixel & 31];
        [red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2].map(|v| v as u8)
    }
}

/// Red, green and blue of luma and differences of BT.601, in 8 bits behind the point, rounded, as Microsoft's
/// documentation of the format has it.
fn from_yuv([y, u, v]: [u8; 3]) -> [u8; RGB] {
    let [y, u, v] = [(y, 16), (u, 128), (v, 128)].map(|(value, zero)| i32::from(value) - zero);
    let light = 298 * y + 128;
    [light + 409 * v, light - 100 * u - 208 * v, light + 516 * u]
        .map(|c| (c >> 8).clamp(0, 255) as u8)
}

/// Luma of ITU-R BT.601 in 16 bits behind the point, rounded, as Pillow's `convert("L")` has it.
#[inline(always)]
fn luma(rgb: [u8; RGB]) -> u8 {
    let [red, green, blue] = rgb.map(u32::from);
    ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
}

/// A borrowed picture of red, green and blue, or grey.
///
/// Turning and mirroring a view moves no pixel; it only changes the order they are read in.
#[derive(Debug, Clone, Copy)]
pub struct RgbView<'a> {
    data: &'a [u8],
    format: PixelFormat,
    width: usize,
    height: usize,
    /// Byte offset of pixel (0, 0).
    origin: usize,
    /// Bytes to the next pixel of a row.
    dx: isize,
    /// Bytes to the next row.
    dy: isize,
}

impl<'a> RgbView<'a> {
    /// A picture of `height` rows of `width` pixels of three bytes, rows `stride_bytes` apart.
    ///
    /// `data: [height, stride_bytes]`; the last row may end after its pixels.
    ///
    /// # Errors
    /// Where the sizes are zero, too large, or do not fit `data`.
    pub fn new(
        data: &'a [u8],
        width: usize,
        height: usize,
        stride_bytes: usize,
    ) -> Result<Self, FrameError> {
        Self::with_format(data, PixelFormat::Rgb888, width, height, stride_bytes)
    }

    /// As [`Self::new`], of pixels as a camera or a display has them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_format(
        data: &'a [u8],
        format: PixelFormat,
        width: usize,
        height: usize,
        stride_bytes: usize,
    ) -> Result<Self, FrameError> {
        if width == 0 || height == 0 {
            return Err(FrameError::Empty);
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(FrameError::TooLarge { width, height });
        }
        let row_bytes = width * format.bytes();
        if stride_bytes < row_bytes {
            return Err(FrameError::Stride { row_bytes, stride_bytes });
        }
        if format == PixelFormat::Yuyv
            && !(width.is_multiple_of(2) && stride_bytes.is_multiple_of(4))
        {
            return Err(FrameError::Paired { width, stride_bytes });
        }
        let needed = (height - 1).saturating_mul(stride_bytes).saturating_add(row_bytes);
        if data.len() < needed {
            return Err(FrameError::Short { needed, have: data.len() });
        }
        // Of one row the stride is never used; it could be any number.
        let dy = if height == 1 { row_bytes } else { stride_bytes };
        let [dx, dy] = [format.bytes(), dy].map(|bytes| bytes as isize);
        Ok(Self { data, format, width, height, origin: 0, dx, dy })
    }

    /// Pixels per row.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub const fn height(&self) -> usize {
        self.height
    }

    /// Upright view of a picture with this EXIF orientation tag; other values than 2 to 8
    /// leave it as it is.
    #[must_use]
    pub const fn oriented(self, exif: u8) -> Self {
        match exif {
            2 => self.flipped_horizontally(),
            3 => self.flipped_horizontally().flipped_vertically(),
            4 => self.flipped_vertically(),
            5 => self.transposed(),
            6 => self.transposed().flipped_horizontally(),
            7 => self.transposed().flipped_horizontally().flipped_vertically(),
            8 => self.transposed().flipped_vertically(),
            _ => self,
        }
    }

    /// Left and right exchanged.
    #[must_use]
    pub const fn flipped_horizontally(mut self) -> Self {
        self.origin = self.offset(self.width - 1, 0);
        self.dx = -self.dx;
        self
    }

    /// Top and bottom exchanged.
    #[must_use]
    pub const fn flipped_vertically(mut self) -> Self {
        self.origin = self.offset(0, self.height - 1);
        self.dy = -self.dy;
        self
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub const fn transposed(self) -> Self {
        Self { width: self.height, height: self.width, dx: self.dy, dy: self.dx, ..self }
    }

    /// The pixel in column `x` of row `y`; `None` outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; RGB]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        Some(self.format.read(self.data, self.offset(x, y)))
    }

    /// Byte offset of a pixel inside the view.
    const fn offset(&self, x: usize, y: usize) -> usize {
        self.origin.wrapping_add_signed(x as isize * self.dx + y as isize * self.dy)
    }

    /// Bytes of `count` pixels from `(x, y)` on where three bytes of each lie side by side.
    fn run(&self, x: usize, y: usize, count: usize) -> &'a [u8] {
        let at = self.offset(x, y);
        &self.data[at..at + count * RGB]
    }
}

/// Calls `sink(y · width + x, rgb)` once for each pixel of the model's input, in no
/// particular order; `rgb` is `v · scale + offset` of the 8-bit value that [`resize_rgb8`]
/// gives, of luma in all three where the input is grey.
pub fn for_each_pixel(p: &Preprocess, view: RgbView<'_>, mut sink: impl FnMut(usize, [f32; 3])) {
    resize(p, view, &mut |index, rgb| sink(index, p.normalize(rgb.map(f32::from))));
}

/// The fitted and resized picture before scale and offset, rounded (ties to even) and
/// clamped to 0..=255. `out: [p.height, p.width, p.channels()]`.
///
/// # Errors
/// [`FrameError::Output`] where `out` has another length.
pub fn resize_rgb8(p: &Preprocess, view: RgbView<'_>, out: &mut [u8]) -> Result<(), FrameError> {
    let channels = p.channels();
    let needed = usize::from(p.height) * usize::from(p.width) * channels;
    if out.len() != needed {
        return Err(FrameError::Output { needed, have: out.len() });
    }
    resize(p, view, &mut |index, rgb| {
        out[index * channels..][..channels].copy_from_slice(&rgb[..channels]);
    });
    Ok(())
}

/// What is sampled along one axis: pixels of the source with a border on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// First source pixel.
    start: usize,
    /// Source pixels.
    len: usize,
    /// Pixels of border before them, and after.
    pad: usize,
}

impl Window {
    /// Border included.
    const fn padded(self) -> usize {
        self.len + 2 * self.pad
    }

    /// Those of the pixels `start..end` that are no border.
    fn inside(self, start: usize, end: usize) -> (usize, usize) {
        let from = start.max(self.pad).min(end);
        (from, end.min(self.pad + self.len).max(from))
    }
}

/// Rows, then columns, that are sampled.
fn windows(p: &Preprocess, [h, w]: [usize; 2]) -> [Window; 2] {
    // In 64 bits: 65535 · 65535 leaves the 32 bits of a small target.
    let scaled = |from: usize, to: u16, by: u16| from as u64 * u64::from(to) / u64::from(by);
    let (fitting_h, fitting_w) = (scaled(w, p.height, p.width), scaled(h, p.width, p.height));
    let axis = |len: usize, fitting: u64| match p.fit {
        Fit::Stretch => Window { start: 0, len, pad: 0 },
        Fit::Crop => {
            let part = fitting.clamp(1, len as u64) as usize;
            Window { start: (len - part) / 2, len: part, pad: 0 }
        }
        Fit::Pad(_) => {
            // As wide on both sides, so that an odd pixel is missing. Bounded, for the integers
            // of the taps: a line of pixels becomes no square.
            let whole = fitting.clamp(len as u64, (MAX_SIDE as u64).max(len as u64)) as usize;
            Window { start: 0, len, pad: (whole - len) / 2 }
        }
    };
    [axis(h, fitting_h), axis(w, fitting_w)]
}

/// What a model sees of a picture of `[height, width]` pixels: where its rows and then its columns start, and how
/// long they are, as parts of the picture. With borders, they start before it.
pub fn seen(p: &Preprocess, sides: [usize; 2]) -> [[f32; 2]; 2] {
    let windows = windows(p, sides);
    core::array::from_fn(|axis| {
        let (Window { start, pad, .. }, side) = (windows[axis], sides[axis].max(1) as f32);
        [(start as f32 - pad as f32) / side, windows[axis].padded() as f32 / side]
    })
}

/// Fits and resizes, handing over each 8-bit pixel with its index. One function for all callers.
fn resize(p: &Preprocess, view: RgbView<'_>, sink: &mut dyn FnMut(usize, [u8; RGB])) {
    let (height, width) = (usize::from(p.height), usize::from(p.width));
    if height == 0 || width == 0 {
        return;
    }
    let [rows, columns] = windows(p, [view.height, view.width]);
    let border = match p.fit {
        Fit::Pad(value) => f32::from(value),
        Fit::Crop | Fit::Stretch => 0.0,
    };
    let source = Source { view, grey: p.grey, rows, border };
    let down = Axis::new(p, rows.padded(), height);
    let across = Axis::new(p, columns.padded(), width);
    for x0 in (0..width).step_by(STRIPE) {
        let stripe_len = STRIPE.min(width - x0);
        let mut stripe = [Taps::default(); STRIPE];
        for (i, taps) in stripe[..stripe_len].iter_mut().enumerate() {
            *taps = across.taps(x0 + i);
        }
        let stripe = &stripe[..stripe_len];
        // Centers ascend, and with them both ends of the taps.
        let (first, end) = (stripe[0].start, stripe[stripe_len - 1].end);
        for y in 0..height {
            let row_taps = down.taps(y);
            let mut sums = [[0.0f32; RGB]; STRIPE];
            let mut start = first;
            while start < end {
                let len = CHUNK.min(end - start);
                let mut chunk = [0.0f32; CHUNK * RGB];
                let chunk = &mut chunk[..len * RGB];
                let (from, to) = columns.inside(start, start + len);
                for (i, value) in chunk.iter_mut().enumerate() {
                    let column = start + i / RGB;
                    *value = if (from..to).contains(&column) { 0.0 } else { border };
                }
                if from < to {
                    let part = &mut chunk[(from - start) * RGB..(to - start) * RGB];
                    source.sum_rows(columns.start + from - columns.pad, &down, row_taps, part);
                }
                for (taps, sum) in stripe.iter().zip(&mut sums) {
                    let from = taps.start.max(start);
                    let to = taps.end.min(start + len);
                    for j in from..to {
                        let weight = across.weight(taps, j);
                        let pixel = &chunk[(j - start) * RGB..][..RGB];
                        for (s, v) in sum.iter_mut().zip(pixel) {
                            *s += weight * v;
                        }
                    }
                }
                start += len;
            }
            for (i, sum) in sums[..stripe_len].iter().enumerate() {
                sink(y * width + x0 + i, sum.map(round_to_u8));
            }
        }
    }
}

/// The rows that are sampled.
struct Source<'a> {
    view: RgbView<'a>,
    /// Whether luma is taken of each pixel.
    grey: bool,
    rows: Window,
    /// Value of the border.
    border: f32,
}

impl Source<'_> {
    /// `chunk[i] = Σⱼ weight(j) · p(x + i, j)`, `chunk: [columns, 3]`, from zeros.
    fn sum_rows(&self, x: usize, down: &Axis, taps: Taps, chunk: &mut [f32]) {
        let (view, columns) = (&self.view, chunk.len() / RGB);
        let side_by_side =
            view.format == PixelFormat::Rgb888 && view.dx == RGB as isize && !self.grey;
        let mut start = taps.start;
        while start < taps.end {
            let len = CHUNK.min(taps.end - start);
            let mut weights = [0.0f32; CHUNK];
            for (i, weight) in weights[..len].iter_mut().enumerate() {
                *weight = down.weight(&taps, start + i);
            }
            let (from, to) = self.rows.inside(start, start + len);
            let above = &weights[..from - start];
            let weights_inside = &weights[from - start..to - start];
            let below = &weights[to - start..len];
            let top = self.rows.start + from - self.rows.pad.min(from);
            // Whichever loop is outside, a sum takes its rows in ascending order.
            if side_by_side {
                self.add_border(above, chunk);
                for (j, &weight) in weights_inside.iter().enumerate() {
                    let bytes = view.run(x, top + j, columns);
                    for (sum, &byte) in chunk.iter_mut().zip(bytes) {
                        *sum += weight * f32::from(byte);
                    }
                }
                self.add_border(below, chunk);
            } else {
                // Along the view's columns, which in a turned one are memory's rows.
                for (i, sum) in chunk.as_chunks_mut::<RGB>().0.iter_mut().enumerate() {
                    self.add_border(above, sum);
                    let mut at = view.offset(x + i, top);
                    for &weight in weights_inside {
                        let pixel = view.format.read(view.data, at);
                        let pixel = if self.grey { [luma(pixel); RGB] } else { pixel };
                        for (s, byte) in sum.iter_mut().zip(pixel) {
                            *s += weight * f32::from(byte);
                        }
                        at = at.wrapping_add_signed(view.dy);
                    }
                    self.add_border(below, sum);
                }
            }
            start += len;
        }
    }

    fn add_border(&self, weights: &[f32], sums: &mut [f32]) {
        for weight in weights {
            sums.iter_mut().for_each(|sum| *sum += weight * self.border);
        }
    }
}

/// Resampling of one axis.
#[derive(Clone, Copy)]
struct Axis {
    /// Source pixels.
    source: i64,
    /// Target pixels.
    target: i64,
    interpolation: Interpolation,
    /// `1 / (distance units per filter unit)`.
    unit: f32,
    /// Half-width of the filter in distance units (each 1/2m of a source pixel).
    reach: i64,
}

/// Source pixels `start..end` that one target pixel samples.
#[derive(Clone, Copy, Default)]
struct Taps {
    start: usize,
    end: usize,
    /// Distance of the center from source pixel 0, in 1/2m of a source pixel.
    center: i64,
    /// `1 / Σ weights`.
    norm: f32,
}

impl Axis {
    fn new(p: &Preprocess, source: usize, target: usize) -> Self {
        let (source, target) = (source as i64, target as i64);
        let per_unit = 2 * if p.antialias { source.max(target) } else { target };
        let support = match p.interpolation {
            Interpolation::Nearest => 0,
            Interpolation::Bilinear => 1,
            Interpolation::Bicubic => 2,
            Interpolation::Lanczos3 => 3,
            Interpolation::Lanczos5 => 5,
        };
        Self {
            source,
            target,
            interpolation: p.interpolation,
            unit: 1.0 / per_unit as f32,
            reach: support * per_unit,
        }
    }

    fn taps(&self, i: usize) -> Taps {
        let odd = (2 * i as i64 + 1) * self.source;
        let step = 2 * self.target;
        if matches!(self.interpolation, Interpolation::Nearest) {
            let j = (odd / step) as usize;
            return Taps { start: j, end: j + 1, center: 0, norm: 1.0 };
        }
        let center = odd - self.target;
        // The open interval (center − reach, center + reach), in source pixels.
        let start = ((center - self.reach).div_euclid(step) + 1).clamp(0, self.source - 1);
        let end = -(-(center + self.reach)).div_euclid(step);
        let end = end.clamp(start + 1, self.source);
        let mut taps = Taps { start: start as usize, end: end as usize, center, norm: 1.0 };
        let mut sum = 0.0;
        for j in taps.start..taps.end {
            sum += self.weight(&taps, j);
        }
        // The nearest pixel is at most half a pixel away, so the sum is well above zero.
        taps.norm = 1.0 / sum;
        taps
    }

    /// The share of source pixel `j` in the target pixel of `taps`.
    #[inline]
    fn weight(&self, taps: &Taps, j: usize) -> f32 {
        // Below 2^19 within the filter's reach: exact in f32.
        let distance = (taps.center - 2 * self.target * j as i64).unsigned_abs() as u32;
        let d = distance as f32 * self.unit;
        let weight = match self.interpolation {
            Interpolation::Nearest => 1.0,
            Interpolation::Bilinear => 1.0 - d,
            Interpolation::Bicubic if d < 1.0 => (1.5 * d - 2.5) * d * d + 1.0,
            Interpolation::Bicubic => ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0,
            Interpolation::Lanczos3 => lanczos(d, 3.0),
            Interpolation::Lanczos5 => lanczos(d, 5.0),
        };
        weight * taps.norm
    }
}

/// `sinc(d) · sinc(d / radius)` for `d` in `0..=radius`.
fn lanczos(d: f32, radius: f32) -> f32 {
    let angle = core::f32::consts::PI * d;
    if d < 1e-3 {
        return 1.0;
    }
    radius * sin_pi(d) * sin_pi(d / radius) / (angle * angle)
}

/// `sin(π·x)` for `x` of at least 0, within 1e-6: its Taylor series on a quarter turn.
fn sin_pi(x: f32) -> f32 {
    let half_turns = x as u32;
    let rest = x - half_turns as f32;
    let angle = core::f32::consts::PI * if rest > 0.5 { 1.0 - rest } else { rest };
    let t = angle * angle;
    let mut sum = 1.0;
    // 1 − t/(2·3)·(1 − t/(4·5)·(1 − …))
    for n in [110.0, 72.0, 42.0, 20.0, 6.0] {
        sum = 1.0 - t / n * sum;
    }
    if half_turns.is_multiple_of(2) { angle * sum } else { -angle * sum }
}

/// Nearest integer, ties to even, clamped to 0..=255 (`f32::round_ties_even` needs std).
fn round_to_u8(value: f32) -> u8 {
    let value = value.clamp(0.0, 255.0);
    let whole = value as u32;
    let rest = value - whole as f32;
    let up = rest > 0.5 || (rest == 0.5 && whole % 2 == 1);
    (whole + u32::from(up)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding() {
        for (value, want) in [
            (-3.0, 0),
            (0.49, 0),
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (2.51, 3),
            (254.5, 254),
            (254.6, 255),
            (300.0, 255),
            (f32::NAN, 0),
        ] {
            assert_eq!(round_to_u8(value), want, "{value}");
        }
    }

    #[test]
    fn views_refuse_what_does_not_fit() {
        let data = [0u8; 30];
        assert_eq!(RgbView::new(&data, 0, 1, 0).unwrap_err(), FrameError::Empty);
        assert_eq!(
            RgbView::new(&data, 2, 2, 5).unwrap_err(),
            FrameError::Stride { row_bytes: 6, stride_bytes: 5 }
        );
        assert_eq!(
            RgbView::new(&data, 2, 3, 13).unwrap_err(),
            FrameError::Short { needed: 32, have: 30 }
        );
        assert!(RgbView::new(&data, 2, 3, 12).is_ok());
        assert!(matches!(
            RgbView::new(&data, MAX_SIDE, 3, usize::MAX).unwrap_err(),
            FrameError::Short { .. }
        ));
        assert!(matches!(
            RgbView::new(&data, MAX_SIDE + 1, 1, usize::MAX).unwrap_err(),
            FrameError::TooLarge { .. }
        ));
    }

    /// Expected values from Keras' `Resizing` with `crop_to_aspect_ratio`.
    #[test]
    fn crop_boxes() {
        static DATA: [u8; 3 * 1024 * 683] = [0; 3 * 1024 * 683];
        for ([h, w], [to_h, to_w], crop) in [
            ([300, 451], [224, 224], [(0, 300), (75, 300)]),
            ([300, 451], [64, 48], [(0, 300), (113, 225)]),
            ([451, 300], [64, 48], [(25, 400), (0, 300)]),
            ([37, 53], [64, 48], [(0, 37), (13, 27)]),
            ([53, 37], [64, 48], [(2, 49), (0, 37)]),
            ([1, 1], [64, 48], [(0, 1), (0, 1)]),
            ([1, 500], [64, 48], [(0, 1), (249, 1)]),
            ([101, 100], [64, 48], [(0, 101), (12, 75)]),
            ([683, 1024], [201, 201], [(0, 683), (170, 683)]),
        ] {
            let view = RgbView::new(&DATA, w, h, w * 3).unwrap();
            let p = Preprocess::normalized(to_h, to_w, [0.5; 3], [0.5; 3]);
            let sampled =
                |p| windows(p, [view.height, view.width]).map(|w| (w.start, w.len, w.pad));
            assert_eq!(sampled(&p), crop.map(|(start, len)| (start, len, 0)), "{h}x{w}");
            let whole = [(0, h, 0), (0, w, 0)];
            assert_eq!(sampled(&Preprocess { fit: Fit::Stretch, ..p }), whole);
        }
    }

    #[test]
    fn orientations() {
        // 3 wide, 2 high; red counts pixels: 0 1 2 / 3 4 5
        let data: [u8; 18] = core::array::from_fn(|i| (i / 3) as u8);
        let view = RgbView::new(&data, 3, 2, 9).unwrap();
        let wanted: [(u8, &[&[u8]]); 9] = [
            (0, &[&[0, 1, 2], &[3, 4, 5]]),
            (1, &[&[0, 1, 2], &[3, 4, 5]]),
            (2, &[&[2, 1, 0], &[5, 4, 3]]),
            (3, &[&[5, 4, 3], &[2, 1, 0]]),
            (4, &[&[3, 4, 5], &[0, 1, 2]]),
            (5, &[&[0, 3], &[1, 4], &[2, 5]]),
            (6, &[&[3, 0], &[4, 1], &[5, 2]]),
            (7, &[&[5, 2], &[4, 1], &[3, 0]]),
            (8, &[&[2, 5], &[1, 4], &[0, 3]]),
        ];
        for (exif, rows) in wanted {
            let turned = view.oriented(exif);
            assert_eq!((turned.height(), turned.width()), (rows.len(), rows[0].len()));
            for (y, row) in rows.iter().enumerate() {
                for (x, &red) in row.iter().enumerate() {
                    assert_eq!(turned.pixel(x, y), Some([red; 3]), "{exif}");
                }
            }
            assert_eq!(turned.pixel(rows[0].len(), 0), None);
        }
    }
}
