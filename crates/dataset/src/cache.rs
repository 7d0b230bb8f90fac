//! How much memory decoded pictures may take.

use super::memory;
use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};

/// The memory of [`CacheSize::Auto`] where the system does not tell what is free.
const UNKNOWN: u64 = 1 << 30;

/// Memory for decoded pictures, as on the command line: `auto`, `all`, `0`, `512M`, `2G`, or a
/// plain number of MB (of 2²⁰ bytes).
///
/// It decides how fast a data set is gone through, never what its pixels are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheSize {
    /// A quarter of the memory that is free when the data set is read.
    #[default]
    Auto,
    /// As many bytes.
    Bytes(u64),
    /// Whatever the data set needs.
    All,
}

/// Text that is no [`CacheSize`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of memory; pass one such as 512M or 2G, all, 0 or auto")]
pub struct CacheSizeError(String);

impl FromStr for CacheSize {
    type Err = CacheSizeError;

    fn from_str(text: &str) -> Result<Self, CacheSizeError> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "auto" => return Ok(Self::Auto),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let shift = match unit {
            "k" | "kb" | "kib" => 10,
            "" | "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(CacheSizeError(text.into())),
        };
        let number: Option<u64> = number.parse().ok();
        let bytes = number.and_then(|n| n.checked_mul(1 << shift));
        bytes.map(Self::Bytes).ok_or_else(|| CacheSizeError(text.into()))
    }
}

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match *self {
            Self::Auto => return f.write_str("auto"),
            Self::All => return f.write_str("all"),
            Self::Bytes(0) => return f.write_str("0"),
            Self::Bytes(bytes) => bytes,
        };
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        match units.iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift) {
            Some((shift, unit)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes} bytes"),
        }
    }
}

/// What is left of a [`CacheSize`] while a data set is read, by several threads.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    pub(super) fn new(size: CacheSize) -> Self {
        Self(AtomicU64::new(match size {
            CacheSize::Auto => memory::available().map_or(UNKNOWN, |free| free / 4),
            CacheSize::Bytes(bytes) => bytes,
            CacheSize::All => u64::MAX,
        }))
    }

    /// Takes `bytes` out of it, if there are as many.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let rest = |left: u64| left.checked_sub(bytes as u64);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, size) in [
            ("auto", CacheSize::Auto),
            ("ALL", CacheSize::All),
            ("0", CacheSize::Bytes(0)),
            ("512", CacheSize::Bytes(512 << 20)),
            ("512M", CacheSize::Bytes(512 << 20)),
            ("64kb", CacheSize::Bytes(64 << 10)),
            ("2GiB", CacheSize::Bytes(2 << 30)),
            ("1t", CacheSize::Bytes(1 << 40)),
        ] {
            assert_eq!(text.parse(), Ok(size), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
        for text in ["", "M", "-1", "1.5G", "2 G", "512X", "none", "1e3", "99999999999T", "２G"] {
            let error = text.parse::<CacheSize>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("512M"), "{error}");
        }
    }

    #[test]
    fn a_budget_ends() {
        let budget = Budget::new(CacheSize::Bytes(10));
        assert_eq!([6, 6, 4, 1].map(|bytes| budget.take(bytes)), [true, false, true, false]);
        let all = Budget::new(CacheSize::All);
        assert!(all.take(usize::MAX / 2));
        assert!(Budget::new(CacheSize::Auto).take(1 << 20), "less than 4 MiB free");
    }
}
