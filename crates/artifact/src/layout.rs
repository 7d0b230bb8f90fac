//! Packed layouts: activations with their pad pixel, weights in panels.
//!
//! **Activation**: `h·w·c` elements, NHWC, then one *pad pixel* of `c` elements rounded
//! up to [`KR_I8`], plus [`KR_I8`] of slack. A convolution tap outside the map reads the
//! pad pixel (the zero point, or 0.0), so no kernel branches on borders and a narrow
//! pixel may be read in whole [`KR_I8`] groups. Int8 maps of microcontrollers have neither,
//! see [`has_columns`].
//!
//! **Weights**: `[panel][filter row][filter column][channel group][NR][KR]`: the order in
//! which a kernel that owns NR output channels consumes them. KR is 4 for int8 (VPDPBUSD,
//! SDOT and SMLAD all multiply four neighbours), 2 for bf16 (VDPBF16PS) and 1 for f32 and f16.
//! Where channels would leave groups partly empty, as a picture's three do, the taps of a filter
//! row are packed as one tap, see [`FilterLayout::packs_rows`]: they lie side by side in the map.
//! Channels and outputs that do not exist are zero. Int8 weights are −127..=127.
//!
//! Of grouped convolutions, see [`Groups`]; of depthwise ones, [`DepthwiseLayout`].
//!
//! Microcontrollers multiply two outputs at a time, so their int8 panels of four are two halves,
//! each `[filter row][filter column][channel group][2][2][2]`: channels 0 and 2 of two outputs,
//! then channels 1 and 3, as SXTB16 takes a word apart.
//!
//! **Per-channel parameters** follow as planes of i32 (or f32) per panel, see [`ConvPlane`], or in a
//! shorter form, see [`crate::params`].

use crate::{Padding, Shape};
use serde::{Deserialize, Serialize};

/// Alignment in bytes of the blob, of each range in it and of each activation.
pub const ALIGN: usize = 64;
/// Input channels that one int8 dot-product instruction takes.
pub const KR_I8: usize = 4;
/// Input channels that one bf16 dot-product instruction takes.
pub const KR_BF16: usize = 2;

/// Number format of activations and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Dtype {
    /// f32 activations and weights.
    F32 = 0,
    /// int8 activations and weights.
    I8 = 1,
    /// f32 activations, f16 weights.
    F16 = 2,
    /// f32 activations, bf16 weights.
    Bf16 = 3,
}

impl Dtype {
    /// From the header's byte.
    pub const fn from_byte(b: u8) -> Option<Self> {
        match b {
            0 => Some(Self::F32),
            1 => Some(Self::I8),
            2 => Some(Self::F16),
            3 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Bytes of one activation element.
    pub const fn activation_bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::F32 | Self::F16 | Self::Bf16 => 4,
        }
    }

    /// Bytes of one weight.
    pub const fn weight_bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Input channels per weight group (KR).
    pub const fn kr(self) -> usize {
        match self {
            Self::I8 => KR_I8,
            Self::Bf16 => KR_BF16,
            Self::F32 | Self::F16 => 1,
        }
    }
}

/// `n` rounded up to a multiple of [`ALIGN`].
pub const fn align_up(n: usize) -> usize {
    n.div_ceil(ALIGN) * ALIGN
}

/// Whether convolutions copy their windows into *columns*, as on microcontrollers in int8:
/// [`WINDOWS`] at a time, widened to 16 bits, into scratch of [`FilterLayout::column_bytes`].
pub const fn has_columns(dtype: Dtype, nr: usize) -> bool {
    matches!(dtype, Dtype::I8) && nr == 4
}

/// Windows of a column.
pub const WINDOWS: usize = 3;

/// Elements of an activation with its pad pixel and slack, where it has them.
pub const fn padded_len(shape: Shape, dtype: Dtype, nr: usize) -> usize {
    if has_columns(dtype, nr) {
        shape.len()
    } else {
        shape.len() + (shape.c as usize).div_ceil(KR_I8) * KR_I8 + KR_I8
    }
}

/// Bytes that an activation takes in the arena, a multiple of [`ALIGN`].
/// `None` where it leaves `u32`.
pub const fn activation_bytes(shape: Shape, dtype: Dtype, nr: usize) -> Option<usize> {
    match shape.checked_len() {
        Some(_) => {
            let elements = shape.h as u64 * shape.w as u64 * shape.c as u64 + shape.c as u64 + 8;
            let bytes = elements * dtype.activation_bytes() as u64;
            if bytes > (u32::MAX / 2) as u64 {
                return None;
            }
            Some(align_up(padded_len(shape, dtype, nr) * dtype.activation_bytes()))
        }
        None => None,
    }
}

/// Most elements of a filter row that is packed as one tap; kernels keep that many of windows
/// that reach over the border.
pub const MAX_PACKED_ROW: usize = 64;

/// Size of a convolution, as its packed weights see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterLayout {
    /// Filter rows.
    pub kh: usize,
    /// Filter columns.
    pub kw: usize,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Panel width NR.
    pub nr: usize,
    /// Number format.
    pub dtype: Dtype,
}

impl FilterLayout {
    /// Panels of NR output channels, the last one maybe partial.
    pub const fn panels(self) -> usize {
        self.c_out.div_ceil(self.nr)
    }

    /// Whether the taps of a filter row are packed as one tap of `kw · c_in` channels.
    pub const fn packs_rows(self) -> bool {
        !self.c_in.is_multiple_of(self.dtype.kr()) && self.kw * self.c_in <= MAX_PACKED_ROW
    }

    /// Taps of a filter row as they are packed, and channels of each.
    pub const fn taps(self) -> (usize, usize) {
        if self.packs_rows() { (1, self.kw * self.c_in) } else { (self.kw, self.c_in) }
    }

    /// Groups of KR input channels of one tap.
    pub const fn groups(self) -> usize {
        self.taps().1.div_ceil(self.dtype.kr())
    }

    /// Weights of one panel.
    pub const fn panel_len(self) -> usize {
        self.kh * self.taps().0 * self.groups() * self.nr * self.dtype.kr()
    }

    /// All weights.
    pub const fn len(self) -> usize {
        self.panels() * self.panel_len()
    }

    /// True where there are no weights.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Bytes of a column of windows, see [`has_columns`].
    pub const fn column_bytes(self) -> usize {
        self.kh * self.taps().0 * self.groups() * KR_I8 * WINDOWS * size_of::<i16>()
    }

    /// Whether packed weights of int8 are zero for channels that do not exist. What lies there in a
    /// map, and whether it is read, depends on the kernel.
    pub(crate) fn spares_padding(self, weights: &[u8]) -> bool {
        let (last, columns) = (self.taps().1 % KR_I8, has_columns(self.dtype, self.nr));
        let mask: u64 = match (last, columns) {
            (0, _) => return true,
            // Channels 0 and 2 of two outputs, then 1 and 3.
            (1, true) => 0xffff_ffff_ffff_0000,
            (2, true) => 0xffff_0000_ffff_0000,
            (_, true) => 0xffff_0000_0000_0000,
            // Those of two outputs.
            (_, false) => u64::from(u32::MAX << (8 * last)) * 0x1_0000_0001,
        };
        let step = if columns { 2 * KR_I8 } else { self.nr * KR_I8 };
        tails_are_zero(weights, self.groups() * step, step, mask)
    }

    /// Where weight (output `o`, filter row `y`, column `x`, input `c`) lies.
    pub const fn index(self, o: usize, y: usize, x: usize, c: usize) -> usize {
        let kr = self.dtype.kr();
        let (x, c) = if self.packs_rows() { (0, x * self.c_in + c) } else { (x, c) };
        if has_columns(self.dtype, self.nr) {
            let half = (o / 2) * (self.panel_len() / 2);
            let group = (y * self.taps().0 + x) * self.groups() + c / kr;
            return half + group * 2 * kr + c % 2 * 4 + c % kr / 2 * 2 + o % 2;
        }
        let group = ((o / self.nr * self.kh + y) * self.taps().0 + x) * self.groups() + c / kr;
        (group * self.nr + o % self.nr) * kr + c % kr
    }
}

/// Which input channels the panels of a convolution read whose channels fall into groups.
///
/// A panel has outputs of one group or of several; it reads the channels of all of them, as many
/// as the panel that reads most, with weights of zero for those that an output does not see. Filters are
/// packed as those of [`FilterLayout`] with so many inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Groups, which divide both.
    pub count: usize,
    /// Panel width NR.
    pub nr: usize,
    /// Number format.
    pub dtype: Dtype,
}

impl Groups {
    /// Input channels that each panel reads.
    pub const fn span(self) -> usize {
        if self.count == 1 {
            return self.c_in;
        }
        let (inputs, outputs) = (self.c_in / self.count, self.c_out / self.count);
        // Where the ends of groups and panels meet, as where each channel is by itself, all read alike.
        let most = if self.nr.is_multiple_of(outputs) {
            self.nr / outputs * inputs
        } else if outputs.is_multiple_of(self.nr) {
            inputs
        } else {
            self.most_seen()
        };
        let kr = self.dtype.kr();
        let whole = most.div_ceil(kr) * kr;
        if whole < self.c_in { whole } else { self.c_in }
    }

    /// Input channels of the panel that sees most.
    const fn most_seen(self) -> usize {
        let (mut most, mut panel) = (0, 0);
        while panel * self.nr < self.c_out {
            let [first, last] = self.seen_by(panel);
            most = if last - first > most { last - first } else { most };
            panel += 1;
        }
        most
    }

    /// The first input channel that a panel reads, whatever [`Self::span`] is.
    pub const fn first(self, panel: usize, span: usize) -> usize {
        let [first, _] = self.seen_by(panel);
        if first + span <= self.c_in { first } else { self.c_in - span }
    }

    /// The first input channel that an output sees, and how many.
    pub const fn inputs_of(self, output: usize) -> [usize; 2] {
        let (inputs, outputs) = (self.c_in / self.count, self.c_out / self.count);
        [output / outputs * inputs, inputs]
    }

    /// Where the input channels begin that a panel's outputs see, and where they end.
    const fn seen_by(self, panel: usize) -> [usize; 2] {
        let end = (panel + 1) * self.nr;
        let last = if end < self.c_out { end } else { self.c_out } - 1;
        let [start, inputs] = self.inputs_of(last);
        [self.inputs_of(panel * self.nr)[0], start + inputs]
    }
}

/// Rows of a depthwise filter that one int8 step takes.
pub const DEPTHWISE_ROWS: usize = 4;
/// Most rows and columns of a filter that is packed as [`DepthwiseLayout`].
pub const MAX_DEPTHWISE: usize = 7;
/// Channels that a microcontroller copies at a time for a depthwise convolution.
pub const DEPTHWISE_CHANNELS: usize = 4;
/// Output rows that a microcontroller copies the windows of at a time.
const DEPTHWISE_BAND: usize = 8;

/// Weights of a depthwise convolution: `[panel][rows / 4][column][NR][4 rows]` of int8, rows that do not
/// exist being zero, and `[panel][row][column][NR]` of f32 in all files of floats; on microcontrollers, in
/// int8, `[channel][row][column]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthwiseLayout {
    /// Filter rows.
    pub kh: usize,
    /// Filter columns.
    pub kw: usize,
    /// Channels.
    pub channels: usize,
    /// Panel width NR.
    pub nr: usize,
    /// Number format.
    pub dtype: Dtype,
}

impl DepthwiseLayout {
    /// Whether a filter is packed so; larger ones are grouped convolutions.
    pub const fn fits(kh: usize, kw: usize) -> bool {
        kh <= MAX_DEPTHWISE && kw <= MAX_DEPTHWISE
    }

    /// Panels of NR channels, the last one maybe partial.
    pub const fn panels(self) -> usize {
        self.channels.div_ceil(self.nr)
    }

    /// Filter rows of one step.
    const fn rows(self) -> usize {
        if matches!(self.dtype, Dtype::I8) { DEPTHWISE_ROWS } else { 1 }
    }

    /// Weights of one panel; where [`has_columns`], of a channel.
    pub const fn panel_len(self) -> usize {
        if has_columns(self.dtype, self.nr) {
            return self.kh * self.kw;
        }
        self.kh.div_ceil(self.rows()) * self.rows() * self.kw * self.nr
    }

    /// All weights.
    pub const fn len(self) -> usize {
        let columns = has_columns(self.dtype, self.nr);
        self.panel_len() * if columns { self.channels } else { self.panels() }
    }

    /// True where there are no weights.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Bytes of all weights.
    pub const fn bytes(self) -> usize {
        self.len() * if matches!(self.dtype, Dtype::I8) { 1 } else { 4 }
    }

    /// Whether packed weights of int8 are zero for rows that do not exist, of which kernels read any.
    pub(crate) fn spares_padding(self, weights: &[u8]) -> bool {
        let last = self.kh % DEPTHWISE_ROWS;
        if last == 0 || has_columns(self.dtype, self.nr) {
            return true;
        }
        // Those of two channels.
        let mask = u64::from(u32::MAX << (8 * last)) * 0x1_0000_0001;
        let step = self.kw * self.nr * DEPTHWISE_ROWS;
        tails_are_zero(weights, self.panel_len(), step, mask)
    }

    /// Where weight (channel `c`, filter row `y`, column `x`) lies.
    pub const fn index(self, c: usize, y: usize, x: usize) -> usize {
        if has_columns(self.dtype, self.nr) {
            return (c * self.kh + y) * self.kw + x;
        }
        let rows = self.rows();
        let step = (c / self.nr * self.kh.div_ceil(rows) + y / rows) * self.kw + x;
        (step * self.nr + c % self.nr) * rows + y % rows
    }
}

/// Where a microcontroller copies the windows of a depthwise convolution: a plane for each of
/// [`DEPTHWISE_CHANNELS`], with padding, widened to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthwisePlanes {
    /// Columns of a plane, an even number; more than windows need, so that those of two outputs may be
    /// read from any.
    pub columns: usize,
    /// Rows of a plane.
    pub rows: usize,
    /// Output rows whose windows are copied at a time.
    pub band: usize,
}

impl DepthwisePlanes {
    /// Of a filter that slides over an output of `h` rows and `w` columns.
    pub const fn new(filter: [u16; 2], stride: [u16; 2], [h, w]: [u16; 2]) -> Self {
        let columns = (w as usize - 1) * stride[1] as usize + filter[1] as usize;
        let band = if (h as usize) < DEPTHWISE_BAND { h as usize } else { DEPTHWISE_BAND };
        let rows = (band - 1) * stride[0] as usize + filter[0] as usize;
        Self { columns: columns.div_ceil(2) * 2 + 2, rows, band }
    }

    /// Bytes of all.
    pub const fn bytes(self) -> usize {
        // Of a hostile file, more than there is memory.
        let numbers = self.columns.saturating_mul(self.rows).saturating_mul(DEPTHWISE_CHANNELS);
        numbers.saturating_mul(size_of::<i16>())
    }
}

/// Whether no two neighbouring packed weights (bytes of i8) are together larger than
/// [`MAX_PAIR`].
///
/// Then `x₀·w₀ + x₁·w₁` of unsigned bytes `x` fits into 16 bits, `255 · 128 < 2¹⁵`, and
/// instructions that saturate there (VPMADDUBSW) are exact.
pub fn pairs_fit(weights: &[u8]) -> bool {
    let mut survey = Survey::default();
    survey.add(weights);
    survey.largest_pair() <= MAX_PAIR
}

/// Pairs that are looked at together: half a row of a panel of sixteen.
const PAIRS: usize = 16;

/// What a reader wants to know of packed weights of int8.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Survey {
    smallest: [i16; PAIRS],
    /// The smallest and the largest sums of two neighbours.
    pairs: [[i16; PAIRS]; 2],
}

impl Survey {
    /// Looks at more weights; of a panel of sixteen, what those of each output sum up to.
    pub(crate) fn add(&mut self, weights: &[u8]) -> [i32; 16] {
        // As many rows as 16 bits can sum up.
        const ROWS: usize = i16::MAX as usize / 256;
        let mut outputs = [0; 16];
        // Copies, which stay in registers.
        let Self { mut smallest, pairs: [mut low, mut high] } = *self;
        let (rows, rest) = weights.as_chunks::<{ 4 * PAIRS }>();
        for rows in rows.chunks(ROWS) {
            let mut sums = [[0i16; PAIRS]; 2];
            for row in rows {
                // A pair is a 16-bit lane, so that compilers can use vectors.
                let (halves, _) = row.as_chunks::<{ 2 * PAIRS }>();
                for (sums, half) in sums.iter_mut().zip(halves) {
                    for (l, pair) in half.as_chunks::<2>().0.iter().enumerate() {
                        let [first, second] = both(*pair);
                        let sum = first + second;
                        smallest[l] = smallest[l].min(first).min(second);
                        low[l] = low[l].min(sum);
                        high[l] = high[l].max(sum);
                        sums[l] += sum;
                    }
                }
            }
            for (output, pairs) in outputs.iter_mut().zip(sums.as_flattened().chunks_exact(2)) {
                *output += i32::from(pairs[0]) + i32::from(pairs[1]);
            }
        }
        // Of other panels, which may end within a row, and with half a pair.
        for pair in rest.chunks(2) {
            let [first, second] = both([pair[0], pair.get(1).copied().unwrap_or(0)]);
            smallest[0] = smallest[0].min(first).min(second);
            low[0] = low[0].min(first + second);
            high[0] = high[0].max(first + second);
        }
        *self = Self { smallest, pairs: [low, high] };
        outputs
    }

    /// The smallest weight, or 0.
    pub(crate) fn smallest(&self) -> i16 {
        self.smallest.into_iter().fold(0, i16::min)
    }

    /// The largest sum of two neighbours, without its sign.
    pub(crate) fn largest_pair(&self) -> i16 {
        self.pairs.as_flattened().iter().fold(0, |largest, sum| largest.max(sum.abs()))
    }
}

/// Two weights, from one load.
#[inline(always)]
const fn both(pair: [u8; 2]) -> [i16; 2] {
    let both = i16::from_le_bytes(pair);
    [(both << 8) >> 8, both >> 8]
}

/// Whether the last `tail` bytes of each `chunk` are zero where `mask` says so.
fn tails_are_zero(weights: &[u8], chunk: usize, tail: usize, mask: u64) -> bool {
    weights.chunks_exact(chunk).all(|chunk| {
        let (words, _) = chunk[chunk.len() - tail..].as_chunks::<8>();
        words.iter().fold(0, |all, word| all | u64::from_le_bytes(*word)) & mask == 0
    })
}

/// See [`pairs_fit`].
pub const MAX_PAIR: i16 = 128;

/// Planes of NR i32 in the per-channel parameters of one panel of an int8 convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvPlane {
    /// Bias with the input's zero point folded in: `b − zero_point · Σ w`.
    Bias = 0,
    /// [`crate::Requant::multiplier`].
    Multiplier = 1,
    /// [`crate::Requant::shift`].
    Shift = 2,
    /// Fixed-point factor that lifts the residual into the accumulator's scale.
    Residual = 3,
    /// `Σ w`, for instruction sets that want unsigned activations; microcontrollers do not.
    WeightSum = 4,
}

/// Planes of NR numbers of 32 bits in the parameters of one panel of an int8 convolution whose sums are
/// requantized in floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalePlane {
    /// See [`ConvPlane::Bias`].
    Bias = 0,
    /// What a sum is multiplied with, in f32, see [`crate::scale`].
    Scale = 1,
    /// See [`ConvPlane::WeightSum`].
    WeightSum = 2,
}

/// How many [`ScalePlane`]s there are.
pub const SCALE_PLANES: usize = 3;

/// Planes per panel of a convolution unless they are [`ScalePlane`]s: 5 for int8, 4 where [`has_columns`], 1 (the bias) otherwise.
pub const fn conv_planes(dtype: Dtype, nr: usize) -> usize {
    match dtype {
        Dtype::I8 if has_columns(dtype, nr) => ConvPlane::WeightSum as usize,
        Dtype::I8 => ConvPlane::WeightSum as usize + 1,
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => 1,
    }
}

/// Planes of a per-channel affine: factor, addend.
pub const AFFINE_PLANES: usize = 2;

/// Where one window of an output pixel starts in the padded input; may be negative.
#[inline(always)]
pub const fn window_start(out: usize, stride: u16, before: u8) -> isize {
    (out * stride as usize) as isize - before as isize
}

/// Padding of [`Padding`]'s type that leaves room for a filter: each side smaller than the filter.
pub const fn padding_fits(p: Padding, kh: u16, kw: u16) -> bool {
    (p.top as u16) < kh && (p.bottom as u16) < kh && (p.left as u16) < kw && (p.right as u16) < kw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_one_place() {
        let kinds = [(Dtype::I8, 16), (Dtype::I8, 4), (Dtype::F32, 16), (Dtype::Bf16, 16)];
        for (dtype, nr) in kinds {
            let l = FilterLayout { kh: 3, kw: 2, c_in: 5, c_out: 18, nr, dtype };
            let mut seen = [false; 4096];
            for o in 0..18 {
                for y in 0..3 {
                    for x in 0..2 {
                        for c in 0..5 {
                            let i = l.index(o, y, x, c);
                            assert!(i < l.len() && !seen[i]);
                            seen[i] = true;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_depthwise_weight_has_one_place() {
        for (dtype, nr) in [(Dtype::I8, 16), (Dtype::I8, 4), (Dtype::F32, 16), (Dtype::F16, 4)] {
            for [kh, kw] in [[3, 3], [5, 2], [1, 7]] {
                let l = DepthwiseLayout { kh, kw, channels: 18, nr, dtype };
                let mut seen = [false; 2048];
                for (c, y, x) in (0..18 * kh * kw).map(|i| (i / (kh * kw), i / kw % kh, i % kw)) {
                    let i = l.index(c, y, x);
                    assert!(i < l.len() && !seen[i]);
                    seen[i] = true;
                }
            }
        }
    }

    #[test]
    fn nothing_but_padding_is_spared() {
        // What has a place is any number, what has none is zero.
        let check = |places: &[usize], len: usize, spares: &dyn Fn(&[u8]) -> bool| {
            let mut weights = [0; 4096];
            places.iter().for_each(|at| weights[*at] = 1);
            assert!(spares(&weights[..len]));
            let mut refused = 0;
            for at in (0..len).filter(|at| !places.contains(at)) {
                weights[at] = 0x80;
                refused += usize::from(!spares(&weights[..len]));
                weights[at] = 0;
            }
            // All outputs of the panels exist.
            assert_eq!(refused, len - places.len());
        };
        for nr in [4, 16] {
            for (kw, c_in) in [(1, 1), (1, 2), (3, 1), (2, 3), (1, 8), (1, 65), (1, 66), (1, 67)] {
                let l = FilterLayout { kh: 2, kw, c_in, c_out: nr, nr, dtype: Dtype::I8 };
                let mut places = alloc::vec::Vec::new();
                for (o, y) in (0..nr).flat_map(|o| [(o, 0), (o, 1)]) {
                    places.extend((0..kw * c_in).map(|i| l.index(o, y, i / c_in, i % c_in)));
                }
                check(&places, l.len(), &|weights| l.spares_padding(weights));
            }
            for (kh, kw) in [(1, 1), (2, 3), (3, 3), (4, 2), (5, 5), (7, 2)] {
                let l = DepthwiseLayout { kh, kw, channels: 16, nr, dtype: Dtype::I8 };
                let each = (0..16 * kh * kw).map(|i| l.index(i / (kh * kw), i / kw % kh, i % kw));
                let places: alloc::vec::Vec<_> = each.collect();
                check(&places, l.len(), &|weights| l.spares_padding(weights));
            }
        }
    }

    #[test]
    fn surveys_see_every_weight() {
        let weights: [u8; 9 * 64] = core::array::from_fn(|i| (i * 37 % 97) as u8);
        for at in 0..weights.len() {
            for len in [at + 1, weights.len()] {
                let mut weights = weights;
                weights[at] = 0x80;
                let mut survey = Survey::default();
                survey.add(&weights[..len]);
                assert_eq!(survey.smallest(), -128);
                weights[at] = 127;
                let mut survey = Survey::default();
                let sums = survey.add(&weights[..len]);
                let other = if at ^ 1 < len { weights[at ^ 1].cast_signed() } else { 0 };
                assert!(survey.largest_pair() >= 127 + i16::from(other));
                for (o, sum) in sums.into_iter().enumerate().filter(|_| len == weights.len()) {
                    let its = weights.iter().enumerate().filter(|(i, _)| i % 64 / 4 == o);
                    assert_eq!(sum, its.map(|(_, w)| i32::from(w.cast_signed())).sum::<i32>());
                }
            }
        }
        // More rows than 16 bits can sum up.
        let mut survey = Survey::default();
        assert_eq!(survey.add(&[0x81; 64 * 300]), [-127 * 4 * 300; 16]);
        assert_eq!((survey.smallest(), survey.largest_pair()), (-127, 254));
    }

    #[test]
    fn panels_read_the_channels_of_their_groups() {
        for (c_in, c_out, count) in
            [(128, 128, 32), (40, 40, 5), (12, 60, 3), (48, 48, 2), (8, 24, 8)]
        {
            for (nr, dtype) in
                [(16, Dtype::I8), (4, Dtype::I8), (16, Dtype::Bf16), (16, Dtype::F32)]
            {
                let groups = Groups { c_in, c_out, count, nr, dtype };
                let span = groups.span();
                let least = groups.most_seen().next_multiple_of(dtype.kr()).min(c_in);
                assert_eq!(span, least);
                for output in 0..c_out {
                    let first = groups.first(output / nr, span);
                    let [start, inputs] = groups.inputs_of(output);
                    assert!(
                        first <= start && start + inputs <= first + span && first + span <= c_in
                    );
                }
            }
        }
        let dense = Groups { c_in: 7, c_out: 20, count: 1, nr: 16, dtype: Dtype::I8 };
        assert_eq!((dense.span(), dense.first(1, 7)), (7, 0));
        let narrow = Groups { c_in: 64, c_out: 64, count: 8, nr: 16, dtype: Dtype::I8 };
        assert_eq!((narrow.span(), narrow.first(1, 16)), (16, 16));
    }

    #[test]
    fn huge_activations_are_refused() {
        assert_eq!(activation_bytes(Shape::new(u16::MAX, u16::MAX, 1), Dtype::I8, 16), None);
        assert_eq!(activation_bytes(Shape::new(1, 1, 10), Dtype::I8, 16), Some(64));
    }
}
