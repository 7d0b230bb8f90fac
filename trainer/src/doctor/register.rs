//! One small grey picture laid over another: which frame of it is shown there, and how well the two
//! agree then.
//!
//! Gauss and Newton's steps (Lucas and Kanade 1981) find scale and shift along both axes together with
//! brightness and contrast: `a(x) ≈ gain · b(scale · x + shift) + offset`. What is white in one of the two
//! may have been brighter, and does not count.

/// Scales and shifts beyond these are other pictures: `1 / 1.18 … 1.18`, and this share of the side.
const SCALES: [f64; 2] = [0.85, 1.18];
const MOST_SHIFT: f64 = 0.12;
/// From this value on, pixels are white.
const WHITE: f32 = 250.0;
/// Share of all pixels that must count.
const LEAST_COUNTED: f64 = 0.4;
/// Share of the deviation of all pixels below which a difference between neighbors is faint.
const FAINT: f64 = 0.45;
/// Deviations of the blurs that are tried on either picture, in pixels: the other one may have been
/// enlarged or compressed.
const BLURS: [f64; 2] = [0.6, 1.0];

/// A square grey picture, `[side, side]`, 0..=255.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grey {
    pub(super) side: usize,
    pub(super) pixels: Vec<f32>,
}

/// Which part of `b` lies over `a`, in pixels from the middles of both: `scale · x + shift`; rows, then
/// columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    pub(super) scale: [f64; 2],
    pub(super) shift: [f64; 2],
}

/// How well two pictures agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Agreement {
    /// Normalized correlation of pixels, -1..=1.
    pub(super) pixels: f32,
    /// The same of the differences between neighbors, which see what a blurred look does not.
    pub(super) edges: f32,
    /// The same of faint ones alone, which know nothing of an outline.
    pub(super) texture: f32,
}

impl Grey {
    pub(super) fn new(side: usize, pixels: &[u8]) -> Self {
        Self { side, pixels: pixels.iter().map(|p| f32::from(*p)).collect() }
    }

    /// Half as wide and high.
    pub(super) fn halved(&self) -> Self {
        let side = self.side / 2;
        let at = |y: usize, x: usize| self.pixels[y * self.side + x];
        let mean = |i: usize| {
            let (y, x) = (i / side * 2, i % side * 2);
            (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1)) / 4.0
        };
        Self { side, pixels: (0..side * side).map(mean).collect() }
    }

    /// Left and right exchanged.
    pub(super) fn mirrored(&self) -> Self {
        let rows = self.pixels.chunks_exact(self.side);
        Self { side: self.side, pixels: rows.flat_map(|row| row.iter().rev()).copied().collect() }
    }

    /// Blurred by a Gaussian of that deviation; beyond the border, the border goes on.
    fn blurred(&self, deviation: f64) -> Self {
        let reach = (2.5 * deviation).ceil() as isize;
        let weight = |i: isize| (-0.5 * (i as f64 / deviation).powi(2)).exp();
        let total: f64 = (-reach..=reach).map(weight).sum();
        let weights: Vec<(isize, f32)> =
            (-reach..=reach).map(|i| (i, (weight(i) / total) as f32)).collect();
        let (side, last) = (self.side, self.side as isize - 1);
        let pass = |from: &[f32], rows: bool| -> Vec<f32> {
            let value = |i: usize| {
                let (y, x) = ((i / side) as isize, (i % side) as isize);
                let at = |by: isize| {
                    let (y, x) = if rows { (y + by, x) } else { (y, x + by) };
                    from[(y.clamp(0, last) * side as isize + x.clamp(0, last)) as usize]
                };
                weights.iter().map(|(by, weight)| weight * at(*by)).sum()
            };
            (0..side * side).map(value).collect()
        };
        Self { side, pixels: pass(&pass(&self.pixels, true), false) }
    }

    /// Between pixels; beyond the border, the border goes on.
    fn at(&self, [y, x]: [f64; 2]) -> f32 {
        let last = (self.side - 1) as f64;
        let (y, x) = (y.clamp(0.0, last), x.clamp(0.0, last));
        let (top, left) = ((y as usize).min(self.side - 2), (x as usize).min(self.side - 2));
        let (down, right) = ((y - top as f64) as f32, (x - left as f64) as f32);
        let row = |y: usize| {
            let pair = &self.pixels[y * self.side + left..][..2];
            pair[0] + right * (pair[1] - pair[0])
        };
        let (above, below) = (row(top), row(top + 1));
        above + down * (below - above)
    }
}

impl Pose {
    /// One over the other as they are.
    pub(super) const SAME: Self = Self { scale: [1.0; 2], shift: [0.0; 2] };

    /// The same for pictures that are `times` as large.
    pub(super) fn enlarged(self, times: f64) -> Self {
        Self { shift: self.shift.map(|shift| shift * times), ..self }
    }

    /// Where the pixel at `y` and `x` of a picture of this side lies in the other.
    fn of(&self, y: usize, x: usize, side: usize) -> [f64; 2] {
        let middle = (side - 1) as f64 / 2.0;
        let place = |axis: usize, at: usize| {
            self.scale[axis] * (at as f64 - middle) + self.shift[axis] + middle
        };
        [place(0, y), place(1, x)]
    }

    /// How far the frame of either picture reaches beyond the other's, whichever reaches less, as a share of
    /// the side: none where one is a part of the other.
    pub(super) fn excess(&self, side: usize) -> f64 {
        let half = (side - 1) as f64 / 2.0;
        let reach = |f: &dyn Fn(f64, f64) -> f64| {
            let axes = self.scale.iter().zip(&self.shift);
            axes.map(|(scale, shift)| f(*scale, shift.abs())).fold(f64::MIN, f64::max)
        };
        let inside = reach(&|scale, shift| shift + half * scale - half);
        let around = reach(&|scale, shift| (half + shift) / scale - half);
        inside.min(around) / (2.0 * half)
    }
}

/// What of `b` lies over `a`.
struct Overlay {
    over: Grey,
    /// Where it counts.
    counts: Vec<bool>,
}

impl Overlay {
    fn new(a: &Grey, b: &Grey, pose: &Pose) -> Self {
        let side = a.side;
        let places = (0..side * side).map(|i| pose.of(i / side, i % side, side));
        let last = (side - 1) as f64;
        let is_inside = |place: [f64; 2]| place.iter().all(|at| (0.0..=last).contains(at));
        let (pixels, inside): (Vec<f32>, Vec<bool>) =
            places.map(|place| (b.at(place), is_inside(place))).unzip();
        let white = a.pixels.iter().zip(&pixels).map(|(a, b)| *a >= WHITE || *b >= WHITE);
        let dark: Vec<bool> = inside.iter().zip(white).map(|(inside, w)| *inside && !w).collect();
        let is_enough = |counts: &[bool]| {
            counts.iter().filter(|counts| **counts).count() as f64
                >= LEAST_COUNTED * (side * side) as f64
        };
        let counts = if is_enough(&dark) { dark } else { inside };
        Self { over: Grey { side, pixels }, counts }
    }
}

/// Improves `pose` by up to so many steps.
pub(super) fn register(a: &Grey, b: &Grey, mut pose: Pose, steps: usize) -> Pose {
    let side = a.side;
    let middle = (side - 1) as f64 / 2.0;
    for _ in 0..steps {
        let Overlay { over, counts } = Overlay::new(a, b, &pose);
        let (mut normal, mut right) = ([[0.0f64; 6]; 6], [0.0f64; 6]);
        let values = over.pixels.iter().zip(&counts).enumerate();
        for (i, (value, _)) in values.filter(|(_, (_, counts))| **counts) {
            let [y, x] = pose.of(i / side, i % side, side);
            let slope = |dy, dx| f64::from(b.at([y + dy, x + dx]) - b.at([y - dy, x - dx]));
            let (down, across) = (slope(0.5, 0.0), slope(0.0, 0.5));
            let (y, x) = ((i / side) as f64 - middle, (i % side) as f64 - middle);
            let row = [down * y, across * x, down, across, f64::from(*value), 1.0];
            for (j, left) in row.iter().enumerate() {
                for (k, other) in row.iter().enumerate() {
                    normal[j][k] += left * other;
                }
                right[j] += left * f64::from(a.pixels[i]);
            }
        }
        (0..6).for_each(|j| normal[j][j] += 1e-3);
        let Some(found) = solve(normal, right).filter(|found| found[4] > 0.01) else { break };
        let mut moved = 0.0f64;
        for axis in 0..2 {
            let scale = (found[axis] / found[4]).clamp(-0.05, 0.05);
            let shift = (found[2 + axis] / found[4]).clamp(-1.5, 1.5);
            let most = MOST_SHIFT * side as f64;
            pose.scale[axis] = (pose.scale[axis] + scale).clamp(SCALES[0], SCALES[1]);
            pose.shift[axis] = (pose.shift[axis] + shift).clamp(-most, most);
            moved = moved.max(shift.abs()).max(scale.abs() * middle);
        }
        if moved < 0.01 {
            break;
        }
    }
    pose
}

/// The solution of `matrix · x = right`; `None` where it has no one.
fn solve(mut matrix: [[f64; 6]; 6], mut right: [f64; 6]) -> Option<[f64; 6]> {
    for column in 0..6 {
        let size = |row: &usize| matrix[*row][column].abs();
        let pivot = (column..6).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let top = matrix[column];
        if top[column].abs() < 1e-12 {
            return None;
        }
        for row in column + 1..6 {
            let factor = matrix[row][column] / top[column];
            for (value, above) in matrix[row].iter_mut().zip(top) {
                *value -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    for row in (0..6).rev() {
        let known: f64 = (row + 1..6).map(|k| matrix[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right.iter().all(|value| value.is_finite()).then_some(right)
}

/// Normalized correlation of the pixels where `b` lies over `a`.
pub(super) fn correlation(a: &Grey, b: &Grey, pose: &Pose) -> f32 {
    let Overlay { over, counts } = Overlay::new(a, b, pose);
    correlated(pixels(a, &over, &counts), true)
}

/// Pairs of pixels that count.
fn pixels<'a>(
    a: &'a Grey,
    b: &'a Grey,
    counts: &'a [bool],
) -> impl Iterator<Item = (f32, f32)> + 'a {
    let pairs = a.pixels.iter().copied().zip(b.pixels.iter().copied()).zip(counts);
    pairs.filter(|(_, counts)| **counts).map(|(pair, _)| pair)
}

/// Correlation about the means or about 0.
fn correlated(pairs: impl Iterator<Item = (f32, f32)>, centered: bool) -> f32 {
    let (mut n, mut sums, mut squares, mut product) = (0.0f64, [0.0f64; 2], [0.0f64; 2], 0.0);
    for (a, b) in pairs {
        let (a, b) = (f64::from(a), f64::from(b));
        n += 1.0;
        sums = [sums[0] + a, sums[1] + b];
        squares = [squares[0] + a * a, squares[1] + b * b];
        product += a * b;
    }
    if centered {
        let n = n.max(1.0);
        squares = [0, 1].map(|i| squares[i] - sums[i] * sums[i] / n);
        product -= sums[0] * sums[1] / n;
    }
    // One color everywhere is like nothing.
    (product / (squares[0] * squares[1]).max(0.0).sqrt().max(1.0)) as f32
}

/// How well they agree, the sharper one blurred as much as is best.
pub(super) fn agreement(a: &Grey, b: &Grey, pose: &Pose) -> Agreement {
    let Overlay { over, counts } = Overlay::new(a, b, pose);
    let measure = |a: &Grey, b: &Grey| Agreement {
        pixels: correlated(pixels(a, b, &counts), true),
        edges: correlated(differences(a, b, &counts), false),
        texture: {
            let faint = deviations(pixels(a, b, &counts)).map(|deviation| FAINT * deviation);
            let is_faint =
                |d: &(f32, f32)| f64::from(d.0.abs()) < faint[0] && f64::from(d.1.abs()) < faint[1];
            correlated(differences(a, b, &counts).filter(is_faint), false)
        },
    };
    let blurred = BLURS.into_iter().flat_map(|deviation| {
        [measure(&a.blurred(deviation), &over), measure(a, &over.blurred(deviation))]
    });
    let better =
        |best: Agreement, next: Agreement| if next.pixels > best.pixels { next } else { best };
    blurred.fold(measure(a, &over), better)
}

/// The differences to the pixels to the right and below.
fn differences<'a>(
    a: &'a Grey,
    b: &'a Grey,
    counts: &'a [bool],
) -> impl Iterator<Item = (f32, f32)> + 'a {
    let side = a.side;
    let inner = (0..side * (side - 1)).filter(move |i| i % side != side - 1);
    let known = inner.filter(move |i| counts[*i] && counts[i + 1] && counts[i + side]);
    known.flat_map(move |i| {
        let by = |of: &Grey, step: usize| of.pixels[i + step] - of.pixels[i];
        [1, side].map(|step| (by(a, step), by(b, step)))
    })
}

/// Standard deviations of both.
fn deviations(pairs: impl Iterator<Item = (f32, f32)>) -> [f64; 2] {
    let (mut n, mut sums, mut squares) = (0.0f64, [0.0f64; 2], [0.0f64; 2]);
    for (a, b) in pairs {
        n += 1.0;
        for (i, v) in [a, b].into_iter().map(f64::from).enumerate() {
            sums[i] += v;
            squares[i] += v * v;
        }
    }
    let n = n.max(1.0);
    [0, 1].map(|i| (squares[i] / n - (sums[i] / n).powi(2)).max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::random::Rng;

    const SIDE: usize = 32;

    /// Smooth noise, a window of which is seen from `from` on, `scale` times as large.
    fn noise(seed: u64, scale: f64, from: [f64; 2]) -> Grey {
        let mut rng = Rng::keyed(&[seed]);
        let waves: Vec<[f64; 4]> = (0..40)
            .map(|_| [rng.normal(), 0.3 * rng.normal(), 0.3 * rng.normal(), rng.unit() * 7.0])
            .collect();
        let value = |i: usize| {
            let (y, x) = (scale * (i / SIDE) as f64 + from[0], scale * (i % SIDE) as f64 + from[1]);
            let sum: f64 =
                waves.iter().map(|[a, u, v, phase]| a * (u * y + v * x + phase).sin()).sum();
            (120.0 + 12.0 * sum) as f32
        };
        Grey { side: SIDE, pixels: (0..SIDE * SIDE).map(value).collect() }
    }

    #[test]
    fn parts_are_found_and_others_are_not() {
        let whole = noise(1, 1.0, [0.0, 0.0]);
        for (name, part, contained) in [
            ("the same", whole.clone(), true),
            ("a part", noise(1, 0.9, [0.5, 2.0]), true),
            ("moved on", noise(1, 1.0, [0.0, 2.5]), false),
        ] {
            let pose = register(&whole, &part, Pose::SAME, 12);
            let found = agreement(&whole, &part, &pose);
            assert!(found.pixels > 0.99 && found.edges > 0.95, "{name}: {found:?} {pose:?}");
            assert_eq!(pose.excess(SIDE) < 0.015, contained, "{name}: {pose:?}");
        }
        let bright: Vec<f32> = whole.pixels.iter().map(|p| (1.4 * p + 20.0).min(255.0)).collect();
        let bright = Grey { side: SIDE, pixels: bright };
        let pose = register(&whole, &bright, Pose::SAME, 12);
        assert!(agreement(&whole, &bright, &pose).pixels > 0.99, "{pose:?}");
        let other = noise(2, 1.0, [0.0, 0.0]);
        let pose = register(&whole, &other, Pose::SAME, 12);
        assert!(agreement(&whole, &other, &pose).pixels < 0.8, "{pose:?}");
        assert_eq!(whole.mirrored().mirrored(), whole);
        let plain = Grey { side: SIDE, pixels: vec![9.0; SIDE * SIDE] };
        let pose = register(&plain, &plain, Pose::SAME, 12);
        assert_eq!(agreement(&plain, &plain, &pose).pixels, 0.0);
    }
}
