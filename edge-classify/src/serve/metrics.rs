//! What the service counts, in the text format of Prometheus.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the histograms in milliseconds; what took longer is in the last one, `+Inf`.
const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 30_000];

#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let bucket = BOUNDS_MS.iter().take_while(|&&ms| us > ms * 1000).count();
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        let mut count = 0;
        for (index, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = BOUNDS_MS.get(index).map(|&ms| (ms as f64 / 1e3).to_string());
            let bound = bound.as_deref().unwrap_or("+Inf");
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = self.sum_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {count}");
    }
}

/// Counters.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By status.
    requests: Mutex<BTreeMap<u16, u64>>,
    request_time: Histogram,
    /// Pictures that were classified, and those that were refused.
    pictures: [AtomicU64; 2],
    picture_time: Histogram,
    /// New models that were taken, and those that were not.
    swaps: [AtomicU64; 2],
    unwritten: AtomicU64,
    #[cfg(feature = "mqtt")]
    pub(super) unpublished: AtomicU64,
}

/// What the service is at.
pub(super) struct Now {
    pub(super) queue: usize,
    pub(super) connections: usize,
    pub(super) threads: usize,
    /// Of models that tell unknown pictures.
    pub(super) drift: Option<f32>,
}

impl Metrics {
    pub(super) fn request(&self, status: u16, time: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(status).or_default() += 1;
        drop(requests);
        self.request_time.add(time);
    }

    pub(super) fn picture(&self, is_answered: bool, time: Duration) {
        self.pictures[usize::from(!is_answered)].fetch_add(1, Relaxed);
        self.picture_time.add(time);
    }

    pub(super) fn swap(&self, is_taken: bool) {
        self.swaps[usize::from(!is_taken)].fetch_add(1, Relaxed);
    }

    /// Counts a result that could not be written; whether it is the first.
    pub(super) fn unwritten(&self) -> bool {
        self.unwritten.fetch_add(1, Relaxed) == 0
    }

    /// All of it as text.
    pub(super) fn text(&self, now: &Now) -> String {
        let mut out = String::new();
        let name = "edge_classify_requests_total";
        head(&mut out, name, "counter", "Requests that were answered.");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (status, count) in requests {
            let _ = writeln!(out, "{name}{{status=\"{status}\"}} {count}");
        }
        let name = "edge_classify_request_seconds";
        self.request_time.write(&mut out, name, "Time from a request's head to its answer.");
        let name = "edge_classify_pictures_total";
        head(&mut out, name, "counter", "Pictures that a thread has looked at.");
        for (outcome, count) in ["classified", "refused"].iter().zip(&self.pictures) {
            let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {}", count.load(Relaxed));
        }
        let name = "edge_classify_picture_seconds";
        self.picture_time.write(&mut out, name, "Time to decode, prepare and classify a picture.");
        let [taken, refused] = &self.swaps;
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        };
        one("edge_classify_queue_length", "gauge", "Pictures that wait.", now.queue as u64);
        one("edge_classify_connections", "gauge", "Open connections.", now.connections as u64);
        one("edge_classify_threads", "gauge", "Threads that classify.", now.threads as u64);
        let help = "New models that were taken.";
        one("edge_classify_model_swaps_total", "counter", help, taken.load(Relaxed));
        let help = "New model files that cannot be used.";
        one("edge_classify_model_refusals_total", "counter", help, refused.load(Relaxed));
        let help = "Rows that could not be written to --results.";
        let unwritten = self.unwritten.load(Relaxed);
        one("edge_classify_results_unwritten_total", "counter", help, unwritten);
        #[cfg(feature = "mqtt")]
        one(
            "edge_classify_mqtt_unpublished_total",
            "counter",
            "Answers that were not published since the broker was away or too slow.",
            self.unpublished.load(Relaxed),
        );
        if let Some(bytes) = resident_bytes() {
            one("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
        }
        if let Some(drift) = now.drift {
            let name = "edge_classify_drift_ratio";
            let help = "Running mean of pictures' distances from what the model knows, 1 as usual.";
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{name} {drift}");
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_within() {
        let metrics = Metrics::default();
        for us in [1000, 1001, 31_000_000] {
            metrics.picture(true, Duration::from_micros(us));
        }
        let text = metrics.text(&Now { queue: 0, connections: 0, threads: 1, drift: None });
        for line in ["{le=\"0.001\"} 1", "{le=\"0.002\"} 2", "{le=\"30\"} 2", "{le=\"+Inf\"} 3"] {
            let line = format!("edge_classify_picture_seconds_bucket{line}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(text.contains("edge_classify_picture_seconds_sum 31.002001\n"), "{text}");
    }
}
