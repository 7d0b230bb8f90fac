//! Learning rate over the steps: warm-up, hold, cosine.

use core::f64::consts::PI;

/// `lr(t)`: a straight line from 0 to `target`, then `target`, then half a cosine to 0.
///
/// KerasHub's guide schedule: step 0 has rate 0 where there is a warm-up, and every step
/// after `total` has rate 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub target: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps at `target` after the warm-up.
    pub hold: u64,
    /// All steps.
    pub total: u64,
}

impl Schedule {
    /// A schedule whose `[warmup, hold, total]` are epochs of `steps` steps.
    pub fn over_epochs(target: f64, epochs: [f64; 3], steps: usize) -> Self {
        let [warmup, hold, total] = epochs.map(|e| (e * steps as f64).round() as u64);
        Self { target, warmup, hold, total }
    }

    /// Rate of step `t`, from 0.
    pub fn at(&self, t: u64) -> f64 {
        let flat = self.warmup.saturating_add(self.hold);
        if t > self.total {
            return 0.0;
        }
        if t < self.warmup {
            return self.target * t as f64 / self.warmup as f64;
        }
        if (self.hold > 0 && t <= flat) || self.total <= flat {
            // Without steps left for the cosine its formula would divide by zero.
            return self.target;
        }
        let progress = (t - flat) as f64 / (self.total - flat) as f64;
        0.5 * self.target * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide's numbers: 281 steps, 28 of warm-up, 126 held.
    const GUIDE: Schedule = Schedule { target: 0.1, warmup: 28, hold: 126, total: 281 };

    #[test]
    fn follows_the_guide() {
        for (t, want) in
            [(0, 0.0), (14, 0.05), (28, 0.1), (100, 0.1), (154, 0.1), (281, 0.0), (282, 0.0)]
        {
            assert!((GUIDE.at(t) - want).abs() < 1e-12, "step {t}: {}", GUIDE.at(t));
        }
        // Halfway through the cosine, 154 + 63.5, lies half the rate.
        assert!((GUIDE.at(217) + GUIDE.at(218) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn short_runs_stay_finite() {
        for warmup in 0..4 {
            for hold in 0..4 {
                for total in 0..6 {
                    let schedule = Schedule { target: 1.0, warmup, hold, total };
                    for t in 0..8 {
                        let rate = schedule.at(t);
                        assert!((0.0..=1.0).contains(&rate), "{schedule:?} at {t}: {rate}");
                    }
                }
            }
        }
    }
}
