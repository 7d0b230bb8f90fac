//! Ranges of activations, measured on real pictures with the float model.
//!
//! The pictures run twice: the first pass finds the extremes of each activation, the second
//! fills a histogram between them. [`Method::Mse`] then clips the range where rounding and
//! clipping together cost least.

use artifact::{ArtifactError, Quant};
use runtime::{Model, Session, SessionError};

use super::quant_of_range;

/// How a range is chosen from what was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// Smallest to largest value seen.
    MinMax,
    /// The range with the smallest mean squared error after rounding and clipping.
    #[default]
    Mse,
}

/// Why calibration cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The float model is not readable.
    #[error("float model for calibration: {0}")]
    Artifact(#[from] ArtifactError),
    /// The float model does not run.
    #[error("float model for calibration: {0}")]
    Session(#[from] SessionError),
    /// Nothing to measure on.
    #[error(
        "no calibration pictures; pass --calibration DIR with a few dozen photos like those it will see"
    )]
    NoPictures,
    /// An activation is not finite on some picture.
    #[error(
        "value {value} is not finite on calibration picture {picture}; the weights are damaged or training diverged"
    )]
    NotFinite {
        /// Index of the value.
        value: usize,
        /// Index of the picture.
        picture: usize,
    },
}

/// Values of one activation in equal bins between its extremes.
#[derive(Debug, Clone)]
pub struct Histogram {
    low: f32,
    high: f32,
    bins: Vec<u64>,
}

const BINS: usize = 1024;

impl Histogram {
    /// An empty histogram of `low..=high`.
    pub fn new(low: f32, high: f32) -> Self {
        Self { low, high, bins: vec![0; BINS] }
    }

    /// Counts a value; values outside fall into the outermost bins.
    pub fn add(&mut self, value: f32) {
        let width = (self.high - self.low) / BINS as f32;
        let bin = ((value - self.low) / width) as usize; // NaN and negatives become 0
        self.bins[bin.min(BINS - 1)] += 1;
    }

    /// Mean squared error of quantizing the counted values with `quant`.
    fn error(&self, quant: Quant) -> f64 {
        let width = (self.high - self.low) / BINS as f32;
        let scale = f64::from(quant.scale);
        let (bottom, top) = (quant.dequantize(-128), quant.dequantize(127));
        let mut sum = 0.0;
        let mut count = 0u64;
        for (i, &n) in self.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            let x = self.low + (i as f32 + 0.5) * width;
            let clipped = f64::from((bottom - x).max(x - top).max(0.0));
            // Rounding to a uniform grid costs step²/12 on average.
            sum += n as f64 * (clipped * clipped + scale * scale / 12.0);
            count += n;
        }
        sum / count.max(1) as f64
    }

    /// The quantization that `method` chooses.
    pub fn quant(&self, method: Method) -> Quant {
        let full = quant_of_range(self.low, self.high);
        match method {
            Method::MinMax => full,
            Method::Mse => (20..=100)
                .map(|percent| {
                    let share = percent as f32 / 100.0;
                    quant_of_range(self.low * share, self.high * share)
                })
                .chain([full])
                .map(|q| (self.error(q), q))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .map_or(full, |(_, q)| q),
        }
    }
}

/// Measures every value of a float model, in operator order (0 is the input).
///
/// `pictures` are inputs, NHWC, normalized. `progress` is called after each one with the
/// number done and the total.
///
/// # Errors
/// No pictures, an unusable model, or activations that are not finite.
pub fn calibrate(
    float_model: &[u8],
    pictures: &[Vec<f32>],
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Histogram>, CalibrationError> {
    if pictures.is_empty() {
        return Err(CalibrationError::NoPictures);
    }
    let file = runtime::AlignedBuf::from_slice(float_model);
    let model = Model::new(&file)?;
    let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena)?;
    let values = model.ops().count() + 1;
    let mut ranges = vec![(0.0f32, 0.0f32); values];
    let total = pictures.len() * 2;
    for (done, picture) in pictures.iter().enumerate() {
        let mut broken = None;
        set_input(&mut session, picture);
        session.run_observed(|seen| {
            let (mut low, mut high) = ranges[seen.index];
            let mut finite = true;
            for v in seen.iter() {
                finite &= v.is_finite();
                low = low.min(v);
                high = high.max(v);
            }
            ranges[seen.index] = (low, high);
            if !finite && broken.is_none() {
                broken = Some(seen.index);
            }
        });
        if let Some(value) = broken {
            return Err(CalibrationError::NotFinite { value, picture: done });
        }
        progress(done + 1, total);
    }
    let mut histograms: Vec<Histogram> =
        ranges.into_iter().map(|(low, high)| Histogram::new(low, high)).collect();
    for (done, picture) in pictures.iter().enumerate() {
        set_input(&mut session, picture);
        session.run_observed(|seen| {
            let histogram = &mut histograms[seen.index];
            seen.iter().for_each(|v| histogram.add(v));
        });
        progress(pictures.len() + done + 1, total);
    }
    Ok(histograms)
}

/// Copies a normalized picture into a session.
pub(crate) fn set_input(session: &mut Session<'_>, picture: &[f32]) {
    let mut input = session.input_mut();
    for (i, v) in picture.iter().enumerate() {
        input.set(i, *v);
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
    fn mse_keeps_a_uniform_range() {
        let mut h = Histogram::new(-1.0, 1.0);
        (0..10_000).for_each(|i| h.add(i as f32 / 5_000.0 - 1.0));
        let kept = h.quant(Method::Mse).scale / h.quant(Method::MinMax).scale;
        assert!(kept > 0.97, "{kept}");
    }
}
