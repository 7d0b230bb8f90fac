//! From the values that an activation takes to the range that int8 represents.

use artifact::Quant;
use network::int8::quant_of_range;

/// How a range is chosen from what was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// For each activation the one of the others that changes the logits least.
    #[default]
    Auto,
    /// Smallest to largest value seen.
    MinMax,
    /// All but the outermost 0.01 % of the values.
    Percentile,
    /// The range whose steps tell most of the distribution (the least Kullback–Leibler divergence).
    Entropy,
    /// The range with the smallest mean squared error after rounding and clipping.
    Mse,
}

impl Method {
    /// Those that choose from one histogram, without the network.
    pub const LOCAL: [Self; 4] = [Self::Mse, Self::MinMax, Self::Percentile, Self::Entropy];

    /// What it begins with: itself, or where it tries all, the first.
    pub(crate) const fn first(self) -> Self {
        match self {
            Self::Auto => Self::LOCAL[0],
            other => other,
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::MinMax => "min-max",
            Self::Percentile => "percentile",
            Self::Entropy => "entropy",
            Self::Mse => "mse",
        }
    }
}

/// Share of the values that [`Method::Percentile`] leaves out at both ends together.
const CLIPPED: f64 = 1e-4;

/// Values of one activation in equal bins between its extremes.
#[derive(Debug, Clone)]
pub struct Histogram {
    low: f32,
    high: f32,
    bins: Vec<u64>,
}

const BINS: usize = 2048;

impl Histogram {
    /// An empty histogram of `low..=high`.
    pub fn new(low: f32, high: f32) -> Self {
        Self { low, high, bins: vec![0; BINS] }
    }

    fn width(&self) -> f32 {
        (self.high - self.low) / BINS as f32
    }

    /// Counts a value; values outside fall into the outermost bins.
    pub fn add(&mut self, value: f32) {
        let bin = ((value - self.low) / self.width()) as usize; // NaN and negatives become 0
        self.bins[bin.min(BINS - 1)] += 1;
    }

    /// Middle of bin `i`.
    fn middle(&self, i: usize) -> f32 {
        self.low + (i as f32 + 0.5) * self.width()
    }

    /// Mean squared error of quantizing the counted values with `quant`.
    fn error(&self, quant: Quant) -> f64 {
        let scale = f64::from(quant.scale);
        let (bottom, top) = (quant.dequantize(-128), quant.dequantize(127));
        let mut sum = 0.0;
        let mut count = 0u64;
        for (i, &n) in self.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            let x = self.middle(i);
            let clipped = f64::from((bottom - x).max(x - top).max(0.0));
            // Rounding to a uniform grid costs step²/12 on average.
            sum += n as f64 * (clipped * clipped + scale * scale / 12.0);
            count += n;
        }
        sum / count.max(1) as f64
    }

    /// Kullback–Leibler divergence of the counted values from what is left of them in 256 steps:
    /// each step spreads its count over the bins that it covers and that hold something.
    fn divergence(&self, quant: Quant) -> f64 {
        let mut kept = vec![0u64; BINS];
        let mut steps = [(0u64, 0u64); 256];
        let [first, last] = [-128, 127].map(|q| {
            let bin = (quant.dequantize(q) - self.low) / self.width();
            (bin as usize).min(BINS - 1)
        });
        let step_of =
            |i: usize| usize::from(quant.quantize(self.middle(i)).wrapping_sub(-128) as u8);
        for (i, &n) in self.bins.iter().enumerate() {
            // What is clipped is counted at the ends.
            kept[i.clamp(first, last)] += n;
            let step = &mut steps[step_of(i)];
            // Without what is clipped: that the ends hold more is what the divergence is to see.
            if (first..=last).contains(&i) && n > 0 {
                *step = (step.0 + n, step.1 + 1);
            }
        }
        let total = kept.iter().sum::<u64>().max(1) as f64;
        let inside = steps.iter().map(|s| s.0).sum::<u64>().max(1) as f64;
        let term = |(i, &p): (usize, &u64)| {
            let (count, bins) = steps[step_of(i)];
            let (p, q) = (p as f64 / total, count as f64 / bins.max(1) as f64 / inside);
            p * (p / q.max(1e-12)).ln()
        };
        kept.iter().enumerate().filter(|(_, n)| **n > 0).map(term).sum()
    }

    /// The range without the outermost values.
    fn percentile(&self) -> Quant {
        let total: u64 = self.bins.iter().sum();
        let mut left = (total as f64 * CLIPPED) as u64;
        let (mut first, mut last) = (0, BINS - 1);
        // From the end that is farther from zero, as long as what is there may go.
        while first < last {
            let mut ends = [last, first];
            ends.sort_by(|a, b| self.middle(*b).abs().total_cmp(&self.middle(*a).abs()));
            let Some(end) = ends.into_iter().find(|&end| self.bins[end] <= left) else { break };
            left -= self.bins[end];
            if end == last { last -= 1 } else { first += 1 }
        }
        let (low, high) =
            (self.low + first as f32 * self.width(), self.low + (last + 1) as f32 * self.width());
        quant_of_range(low.max(self.low), high.min(self.high))
    }

    /// The quantization that `method` chooses; [`Method::Auto`] begins with that of
    /// [`Method::Mse`].
    pub fn quant(&self, method: Method) -> Quant {
        let full = quant_of_range(self.low, self.high);
        let best = |cost: &dyn Fn(Quant) -> f64| {
            (20..=100)
                .map(|percent| {
                    let share = percent as f32 / 100.0;
                    quant_of_range(self.low * share, self.high * share)
                })
                .chain([full])
                .map(|q| (cost(q), q))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .map_or(full, |(_, q)| q)
        };
        match method {
            Method::MinMax => full,
            Method::Percentile => self.percentile(),
            Method::Entropy => best(&|q| self.divergence(q)),
            Method::Mse | Method::Auto => best(&|q| self.error(q)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million values up to 1 and one of 100: keeping a share `s` of the range costs
    /// `(100·(1 − s))²/n` by clipping and `(100·s/255)²/12` by rounding, least at
    /// `s = a/(a + b)` with `a = 1/n` and `b = 1/(12·255²)`.
    #[test]
    fn mse_clips_an_outlier() {
        let n = 1_000_000;
        let mut h = Histogram::new(0.0, 100.0);
        (0..n).for_each(|i| h.add(i as f32 / n as f32));
        h.add(100.0);
        let full = h.quant(Method::MinMax).scale;
        assert_eq!(full, 100.0 / 255.0);
        let (a, b) = (1.0 / n as f32, 1.0 / (12.0 * 255.0 * 255.0));
        let kept = h.quant(Method::Mse).scale / full;
        assert!((kept - a / (a + b)).abs() < 0.02, "{kept}");
    }

    #[test]
    fn a_uniform_range_is_kept() {
        let mut h = Histogram::new(-1.0, 1.0);
        (0..100_000).for_each(|i| h.add(i as f32 / 50_000.0 - 1.0));
        for method in Method::LOCAL {
            let kept = h.quant(method).scale / h.quant(Method::MinMax).scale;
            assert!(kept > 0.97, "{method:?} {kept}");
        }
    }

    #[test]
    fn percentiles_leave_out_what_is_rare() {
        let mut h = Histogram::new(-10.0, 100.0);
        (0..100_000).for_each(|i| h.add(i as f32 / 100_000.0));
        // 10 of 100,010 may go: the farthest nine, and the one below.
        (0..9).for_each(|i| h.add(60.0 + i as f32));
        h.add(-10.0);
        let range = h.quant(Method::Percentile);
        assert!((range.scale * 255.0 - 1.0).abs() < 0.11, "{range:?}");
        // With one more, the nearest stays.
        h.add(50.0);
        let range = h.quant(Method::Percentile);
        assert!((range.scale * 255.0 - 11.0).abs() < 0.11, "{range:?}");
    }

    #[test]
    fn entropy_clips_a_long_tail() {
        // An exponential distribution: its last tenth of the range holds almost nothing.
        let mut h = Histogram::new(0.0, 20.0);
        let n = 200_000;
        (0..n).for_each(|i| h.add(-((i as f32 + 0.5) / n as f32).ln()));
        h.add(20.0);
        let kept = h.quant(Method::Entropy).scale * 255.0;
        assert!((4.0..18.0).contains(&kept), "{kept}");
    }
}
