//! How much memory the process has needed.

/// The most memory that the process has had resident so far, in MiB to one decimal: Linux'
/// `VmHWM`. None on other systems.
pub(crate) fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn touched_pages_count_and_freed_ones_stay() {
        const MIB: usize = 64;
        drop(core::hint::black_box(vec![1u8; MIB << 20]));
        let peak = peak_mb().unwrap();
        assert!((MIB as f64..1e6).contains(&peak), "{peak} MiB");
    }
}
