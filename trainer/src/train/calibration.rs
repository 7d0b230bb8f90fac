//! Whether a network is as sure as it is right.
//!
//! The answers are sorted by the probability that the network gives them into [`BINS`] bins of
//! equal width. In a calibrated network, 80 % of the answers given with probability 0.8 are
//! right. `ECE = Σ (nᵦ/N)·|accuracyᵦ − confidenceᵦ|` is the mean distance from that, weighted by
//! pictures: the expected calibration error of Guo et al., *On Calibration of Modern Neural
//! Networks*, 2017, with their number of bins.

use super::Answer;

/// Number of bins.
pub const BINS: usize = 15;

/// The answers whose probability lies in one bin, `[i/BINS, (i + 1)/BINS)`; the last has 1, too.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// Pictures answered.
    pub pictures: usize,
    /// Mean probability of the answers, 0..=1.
    pub confidence: f64,
    /// Share right, 0..=1.
    pub accuracy: f64,
}

/// Sorts the answers into bins.
pub fn calibration(answers: &[Answer]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for answer in answers {
        let probability = f64::from(answer.probability);
        let bin = &mut bins[((probability * BINS as f64) as usize).min(BINS - 1)];
        bin.pictures += 1;
        bin.confidence += probability;
        bin.accuracy += f64::from(u8::from(answer.is_right()));
    }
    for bin in &mut bins {
        let n = bin.pictures.max(1) as f64;
        bin.confidence /= n;
        bin.accuracy /= n;
    }
    bins
}

/// Expected calibration error, 0..=1; 0 without pictures.
pub fn ece(bins: &[Bin]) -> f64 {
    let n: usize = bins.iter().map(|b| b.pictures).sum();
    let gap = |b: &Bin| b.pictures as f64 * (b.accuracy - b.confidence).abs();
    bins.iter().map(gap).sum::<f64>() / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(probability: f32, right: bool) -> Answer {
        Answer { label: 0, class: u32::from(!right), probability }
    }

    #[test]
    fn equals_the_hand_computed_error() {
        // Bin 7, [0.467, 0.533): one of two right at 0.5, a gap of 0.
        // Bin 13, [0.867, 0.933): one of two right at 0.9, a gap of 0.4.
        // Bin 14, [0.933, 1]: wrong at 1, a gap of 1.
        let answers = [
            answer(0.5, true),
            answer(0.5, false),
            answer(0.9, true),
            answer(0.9, false),
            answer(1.0, false),
        ];
        let bins = calibration(&answers);
        assert_eq!(bins.map(|b| b.pictures), [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 1]);
        let want = (2.0 * 0.0 + 2.0 * 0.4 + 1.0) / 5.0;
        assert!((ece(&bins) - want).abs() < 1e-6, "{}", ece(&bins));
    }

    #[test]
    fn no_answers_have_no_error() {
        assert_eq!(ece(&calibration(&[])), 0.0);
    }
}
