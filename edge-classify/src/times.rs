//! Times of runs, and what they come to.

use anyhow::Result;
use core::time::Duration;
use std::time::Instant;

const WARM_UP: Duration = Duration::from_millis(100);

/// Warms up, then times runs; the fastest, the median and what 99 of 100 do not exceed.
pub(crate) fn time_runs(
    runs: usize,
    mut run: impl FnMut() -> Result<Duration>,
) -> Result<[f64; 3]> {
    let start = Instant::now();
    for i in 0.. {
        if i >= 3 && start.elapsed() >= WARM_UP {
            break;
        }
        run()?;
    }
    let ms: Result<Vec<f64>> = (0..runs).map(|_| Ok(to_ms(run()?))).collect();
    let ms = sorted(ms?);
    Ok([0.0, 0.5, 0.99].map(|share| quantile(&ms, share)))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value that a share of the sorted ones do not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

/// `None` of nothing.
pub(crate) fn median(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| quantile(&sorted(values), 0.5))
}

pub(crate) fn to_ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}
