//! Measuring after each epoch, the validation pictures shared by all processes.

use super::evaluate;
use crate::data::{DataError, Pictures};
use crate::distributed;
use crate::net::Network;
use artifact::Preprocess;
use burn::tensor::Device;
use std::sync::Arc;

/// This process's part of the validation pictures.
#[derive(Debug)]
pub(super) struct Validation {
    part: Arc<Pictures>,
    /// Pictures of all processes.
    count: usize,
}

/// Figures over all validation pictures; see [`Evaluation`](super::Evaluation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) loss: f64,
    pub(super) accuracy: f64,
    pub(super) top_k_accuracy: f64,
}

impl Validation {
    /// Keeps this process's part of `pictures`.
    pub(super) fn new(pictures: Pictures) -> Self {
        let count = pictures.len();
        let share = distributed::share();
        if share.processes == 1 {
            return Self { part: Arc::new(pictures), count };
        }
        let bound = |rank| rank * count / share.processes;
        let own: Vec<usize> = (bound(share.rank)..bound(share.rank + 1)).collect();
        Self { part: Arc::new(pictures.select(&own)), count }
    }

    /// What `net`, on the plain `device`, makes of all pictures; `None` where there are none.
    /// `options` are pictures per step and the `k` of top-k.
    ///
    /// # Errors
    /// Pictures that cannot be read again.
    pub(super) fn measure(
        &self,
        net: &Network,
        p: &Preprocess,
        classes: usize,
        options: (usize, usize),
        device: &Device,
    ) -> Result<Option<Measured>, DataError> {
        if self.count == 0 {
            return Ok(None);
        }
        let m = evaluate(net, &self.part, p, classes, options, device)?;
        let (loss, accuracy, top_k_accuracy) = (m.loss, m.accuracy, m.top_k_accuracy);
        if accel::processes::others().is_none() {
            return Ok(Some(Measured { loss, accuracy, top_k_accuracy }));
        }
        let own = m.pictures as f64;
        // Shares of pictures back to their numbers, which add up without rounding.
        let mut sums = [loss * own, (accuracy * own).round(), (top_k_accuracy * own).round()];
        distributed::world().sum(&mut sums);
        let [loss, accuracy, top_k_accuracy] = sums.map(|sum| sum / self.count as f64);
        Ok(Some(Measured { loss, accuracy, top_k_accuracy }))
    }
}
