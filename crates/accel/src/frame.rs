//! The padded copy of a part of a picture that convolutions read.
//!
//! A frame holds some rows of every block, padding included, so that a filter tap lies at a fixed
//! distance from an output pixel. A stride `s > 1` splits it into `s × s` phases, one for each
//! remainder of row and column, after which neighboring outputs read neighboring cells. Pixels are
//! normalized and activated while they are copied, which spares the normalized map its place in
//! memory.

use crate::activation::Activation;
use crate::dispatch::{Kernel, Simd};
use crate::element::{Element, LANES, Line};

/// Size of one picture of a feature map: `[blocks, height, width, LANES]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planes {
    pub(super) blocks: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Planes {
    /// Pixels of a block.
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Lines of a picture.
    pub(super) fn lines(&self) -> usize {
        self.blocks * self.pixels()
    }
}

/// `scale·(x − center) + shift` of one block.
///
/// The center is taken off first: where it is large beside the spread, `scale·x + shift'` would
/// cancel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) center: Line,
    pub(super) scale: Line,
    pub(super) shift: Line,
}

impl Affine {
    #[inline(always)]
    pub(super) fn apply<S: Simd>(&self, simd: S, x: S::Vector) -> S::Vector {
        let centered = simd.sub(x, simd.load(&self.center));
        simd.fma(centered, simd.load(&self.scale), simd.load(&self.shift))
    }
}

/// What values become on their way into a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transform<'a> {
    /// Of every block.
    pub(super) affine: &'a [Affine],
    /// Afterwards.
    pub(super) activation: Activation,
}

/// How a frame is laid out: `[blocks, phases, phases, rows, pitch]` lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) stride: usize,
    /// Rows and columns of zeros before the first pixel.
    pub(super) pad: [usize; 2],
    /// Phases in each direction.
    pub(super) phases: usize,
    pub(super) rows: usize,
    /// Cells of a row.
    pub(super) pitch: usize,
}

impl Frame {
    fn plane(&self) -> usize {
        self.rows * self.pitch
    }

    /// Lines of a block.
    pub(super) fn block(&self) -> usize {
        self.phases * self.phases * self.plane()
    }

    /// Distance of tap `(row, col)` of a filter from its output's cell.
    pub(super) fn tap(&self, row: usize, col: usize) -> usize {
        let phase = row % self.stride * self.phases + col % self.stride;
        phase * self.plane() + row / self.stride * self.pitch + col / self.stride
    }
}

/// Copies rows of a picture from row `first` of cells on.
pub(super) struct Fill<'a, E: Element> {
    pub(super) frame: &'a Frame,
    pub(super) planes: Planes,
    pub(super) picture: &'a [Line<E>],
    pub(super) first: usize,
    pub(super) transform: Option<Transform<'a>>,
    pub(super) out: &'a mut [Line<E>],
}

impl<E: Element> Kernel for Fill<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { frame, planes, picture, first, transform, out } = self;
        let Frame { stride, pad, phases, rows, pitch } = *frame;
        let cells = out.chunks_exact_mut(pitch).take(planes.blocks * phases * phases * rows);
        for (i, out) in cells.enumerate() {
            let (plane, row) = (i / rows, i % rows);
            let (block, phase) = (plane / (phases * phases), plane % (phases * phases));
            let (down, across) = (phase / phases, phase % phases);
            let Some(row) = ((first + row) * stride + down)
                .checked_sub(pad[0])
                .filter(|row| *row < planes.height)
            else {
                out.fill([E::default(); LANES]);
                continue;
            };
            let start = pad[1].saturating_sub(across).div_ceil(stride).min(pitch);
            let col = (start * stride + across).saturating_sub(pad[1]).min(planes.width);
            let source =
                &picture[(block * planes.height + row) * planes.width..][col..planes.width];
            let count = source.len().div_ceil(stride).min(pitch - start);
            out[..start].fill([E::default(); LANES]);
            out[start + count..].fill([E::default(); LANES]);
            let out = &mut out[start..][..count];
            match transform {
                None => {
                    for (out, x) in out.iter_mut().zip(source.iter().step_by(stride)) {
                        *out = *x;
                    }
                }
                Some(Transform { affine, activation }) => {
                    let affine = &affine[block];
                    for (out, x) in out.iter_mut().zip(source.iter().step_by(stride)) {
                        let y = affine.apply(simd, E::load(simd, x));
                        *out = E::store(simd, activation.apply(simd, y));
                    }
                }
            }
        }
    }
}

/// Windows of a picture `[channels, height, width]` as blocks of a 1×1 convolution: what a filter
/// of `[channels, filter, filter]` weights multiplies, for rows of output pixels from `first` on.
pub(super) struct FillWindows<'a, E: Element> {
    pub(super) frame: &'a Frame,
    /// Pixels per output pixel.
    pub(super) stride: usize,
    /// Zeros before the first pixel.
    pub(super) pad: [usize; 2],
    pub(super) filter: usize,
    /// Channels, height and width.
    pub(super) size: [usize; 3],
    pub(super) picture: &'a [f32],
    pub(super) first: usize,
    pub(super) out: &'a mut [Line<E>],
}

/// Numbers that are copied at once: a filter's row, and what follows it, which the next row
/// overwrites.
const COPIED: usize = 8;
/// Windows that are put together at a time.
const TOGETHER: usize = 16;

impl<E: Element> Kernel for FillWindows<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { frame, stride, pad, filter, size, picture, first, out } = self;
        let [channels, height, width] = size;
        let taps = channels * filter * filter;
        let blocks = taps.div_ceil(LANES);
        // The rows that are read, with their padding: a filter's row is a run of each.
        let rows = (frame.rows - 1) * stride + filter;
        let pitch = pad[1].max((frame.pitch - 1) * stride + filter) + COPIED;
        let mut padded = vec![E::default(); channels * rows * pitch];
        for (i, padded) in padded.chunks_exact_mut(pitch).enumerate() {
            let (channel, row) = (i / rows, i % rows);
            let row = (first * stride + row).checked_sub(pad[0]).filter(|row| *row < height);
            if let Some(row) = row {
                let source = &picture[(channel * height + row) * width..][..width];
                for (padded, value) in padded[pad[1]..].iter_mut().zip(source) {
                    *padded = E::number(*value);
                }
            }
        }
        // A line more than a window has, for what is copied beyond its end.
        let whole = (blocks + 1) * LANES;
        let mut windows = vec![E::default(); TOGETHER * whole];
        for row in 0..frame.rows {
            for start in (0..frame.pitch).step_by(TOGETHER) {
                let count = TOGETHER.min(frame.pitch - start);
                let mut to = 0;
                for channel in 0..channels {
                    for down in 0..filter {
                        let line = channel * rows + row * stride + down;
                        let source = &padded[line * pitch + start * stride..];
                        for part in (0..filter).step_by(COPIED) {
                            let to = &mut windows[to + part..];
                            copy_runs(&source[part..], to, count, [stride, whole]);
                        }
                        to += filter;
                    }
                }
                for window in windows.chunks_exact_mut(whole).take(count) {
                    window[taps..].fill(E::default());
                }
                let lines: &[Line<E>] = windows.as_chunks().0;
                for block in 0..blocks {
                    let out = &mut out[block * frame.block() + row * frame.pitch + start..];
                    for (out, lines) in
                        out.iter_mut().zip(lines.chunks_exact(blocks + 1)).take(count)
                    {
                        *out = lines[block];
                    }
                }
            }
        }
    }
}

/// Copies `count` runs of [`COPIED`] numbers; `steps` lie from one run to the next.
#[inline(always)]
fn copy_runs<E: Element>(from: &[E], to: &mut [E], count: usize, steps: [usize; 2]) {
    let sources = from.windows(COPIED).step_by(steps[0]);
    for (from, to) in sources.zip(to.chunks_mut(steps[1])).take(count) {
        if let (Some(from), Some(to)) = (from.first_chunk(), to.first_chunk_mut::<COPIED>()) {
            *to = *from;
        }
    }
}
