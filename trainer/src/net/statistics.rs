//! What batch-norms read, channel by channel, of pictures that a network is only used on.

use super::map::Map;
use network::restate::Statistics;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Sums of a channel: of numbers, and of squares.
type Sums = Vec<[f64; 2]>;

/// Sums over all pixels that were seen, by batch-norm.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    sums: Mutex<BTreeMap<String, (usize, Sums)>>,
}

impl Watch {
    /// Adds the map that batch-norm `name` reads, and gives it back.
    pub(super) fn see(&self, name: &str, x: Map) -> Map {
        let (x, seen) = x.fork();
        let planar = seen.into_planar();
        let [n, channels, height, width] = planar.dims();
        // A channel is a row, picture by picture.
        let rows = planar.swap_dims(0, 1).reshape([channels, n * height * width]);
        let numbers = |sum: burn::tensor::Tensor<2>| -> Vec<f64> {
            sum.into_data().iter::<f32>().map(f64::from).collect()
        };
        let means = numbers(rows.clone().mean_dim(1));
        let squares = numbers(rows.powi_scalar(2).mean_dim(1));
        let count = n * height * width;
        let mut all = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, sums) = all.entry(name.into()).or_insert((0, vec![[0.0; 2]; channels]));
        *total += count;
        for (sum, (mean, square)) in sums.iter_mut().zip(means.into_iter().zip(squares)) {
            sum[0] += mean * count as f64;
            sum[1] += square * count as f64;
        }
        x
    }

    /// Means and variances.
    pub(crate) fn statistics(self) -> BTreeMap<String, Statistics> {
        let sums = self.sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of = |(count, sums): (usize, Sums)| {
            let count = count.max(1) as f64;
            let mean = |sum: &[f64; 2]| sum[0] / count;
            Statistics {
                mean: sums.iter().map(|sum| mean(sum) as f32).collect(),
                variance: sums
                    .iter()
                    .map(|sum| (sum[1] / count - mean(sum).powi(2)).max(0.0) as f32)
                    .collect(),
            }
        };
        sums.into_iter().map(|(name, sums)| (name, of(sums))).collect()
    }
}
