//! Whether pictures are on the whole farther from what the model knows than they were: a camera that was moved,
//! a lamp, a season.
//!
//! `d ← d + (min(distance / usual, 4) − d) / 50`, from 1 on: no picture alone moves the mean far, about 50 do.

use runtime::Distance;

/// Pictures that the mean remembers.
const MEMORY: f32 = 50.0;
/// Most that a picture counts, so that one beyond all measure is no drift.
const MOST: f32 = 4.0;
/// Above this, it is said.
const FAR: f32 = 1.5;
/// Below this, it is said that it is over.
const NEAR: f32 = 1.25;

/// A running mean of distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drift {
    mean: f32,
    is_far: bool,
}

impl Default for Drift {
    fn default() -> Self {
        Self { mean: 1.0, is_far: false }
    }
}

impl Drift {
    /// The mean in units of the usual distance.
    #[cfg(feature = "serve")]
    pub(crate) fn mean(&self) -> f32 {
        self.mean
    }

    /// Counts a picture; a line where that makes it drift, or ends that.
    pub(crate) fn add(&mut self, distance: &Distance) -> Option<String> {
        let share = distance.value as f32 / distance.usual as f32;
        self.mean += (share.min(MOST) - self.mean) / MEMORY;
        let is_far = if self.is_far { self.mean > NEAR } else { self.mean > FAR };
        if is_far == self.is_far {
            return None;
        }
        self.is_far = is_far;
        let mean = self.mean;
        Some(match is_far {
            true => format!(
                "drift: pictures are {mean:.2} times as far from what the model knows as those that it was \
                 calibrated on; look at the camera, or train with what it sees now"
            ),
            false => format!("drift is over: {mean:.2} times the usual distance"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pictures_drift_and_one_does_not() {
        let mut drift = Drift::default();
        let mut said = |value, count: usize| -> Vec<String> {
            let distance = Distance { value, threshold: 3000, usual: 1000 };
            (0..count).filter_map(|_| drift.add(&distance)).collect()
        };
        assert!(said(1000, 1000).is_empty());
        assert!(said(u64::MAX, 8).is_empty(), "a few beyond all measure");
        assert!(said(1000, 200).is_empty());
        let lines = said(2000, 50);
        assert!(lines.len() == 1 && lines[0].starts_with("drift: pictures are 1.5"), "{lines:?}");
        // Neither said again, nor taken back at once.
        assert!(said(1400, 1000).is_empty());
        let lines = said(1000, 100);
        assert!(lines.len() == 1 && lines[0].starts_with("drift is over: 1.2"), "{lines:?}");
    }
}
