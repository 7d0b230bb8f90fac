//! Results that are kept: a row of CSV or a line of JSON for each picture.

use super::queue::Outcome;
use crate::csv::cell;
use crate::print;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is kept of a picture; its likeliest class, or why it has none.
#[derive(Debug, Serialize)]
pub(super) struct Record<'a> {
    /// UTC, RFC 3339.
    time: String,
    file: &'a str,
    label: Option<&'a str>,
    probability: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<bool>,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Record<'a> {
    pub(super) fn new(file: &'a str, outcome: &'a Outcome, ms: f64) -> Self {
        let best = outcome.as_ref().ok().and_then(|answer| answer.classes.first());
        Self {
            time: rfc3339(SystemTime::now()),
            file,
            label: best.map(|(label, _)| label.as_str()),
            probability: best.map(|&(_, probability)| probability),
            unknown: outcome.as_ref().ok().and_then(|answer| Some(!answer.distance?.is_known())),
            ms: (ms * 1e3).round() / 1e3,
            error: outcome.as_ref().err().map(String::as_str),
        }
    }

    /// One line of JSON without the end of the line.
    pub(super) fn json(&self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        print::json(&mut line, self)?;
        Ok(line)
    }

    fn csv(&self) -> Vec<u8> {
        let probability = self.probability.map(|p| format!("{p:.4}")).unwrap_or_default();
        format!(
            "{},{},{},{probability},{:.3},{}\n",
            self.time,
            cell(self.file),
            cell(self.label.unwrap_or_default()),
            self.ms,
            cell(self.error.unwrap_or_default()),
        )
        .into_bytes()
    }
}

const CSV_HEAD: &[u8] = b"time,file,label,probability,ms,error\n";

/// Where results are appended.
#[derive(Debug)]
pub(super) struct Results {
    file: Mutex<File>,
    is_csv: bool,
}

impl Results {
    /// Opens a file, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = || format!("--results {}", path.display());
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        let is_csv = match suffix.map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => true,
            Some("jsonl") => false,
            _ => bail!("{}: the name must end in .csv or .jsonl", name()),
        };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path);
        if let Ok(file) = &mut file {
            begin(file, is_csv).with_context(name)?;
        }
        Ok(Self { file: Mutex::new(file.with_context(name)?), is_csv })
    }

    /// Appends a row at once, so that rows of several threads, or programs, do not mix.
    pub(super) fn add(&self, record: &Record<'_>) -> io::Result<()> {
        let line = if self.is_csv {
            record.csv()
        } else {
            let mut line = record.json()?;
            line.push(b'\n');
            line
        };
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

/// Ends a row that was cut off when a program was killed or a disk full; names the columns.
fn begin(file: &mut File, is_csv: bool) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    if metadata.len() == 0 {
        return if is_csv { file.write_all(CSV_HEAD) } else { Ok(()) };
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last != *b"\n" { file.write_all(b"\n") } else { Ok(()) }
}

/// A time in UTC with milliseconds, as RFC 3339 writes it.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years begin in March here, so that leap days come last: days since 0000-03-01, in eras of 400
    // years (http://howardhinnant.github.io/date_algorithms.html).
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month >= 10), (month + 2) % 12 + 1);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn times_are_those_of_calendars() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_709_164_800, "2024-02-29T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(rfc3339(time), want);
        }
    }

    #[test]
    fn a_row_that_was_cut_off_stays_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        std::fs::write(&path, "time,file\n2020,\"cut").unwrap();
        let results = Results::open(&path).unwrap();
        results.add(&Record::new("a", &Err("empty".into()), 1.0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines().skip(1);
        assert_eq!(lines.next(), Some("2020,\"cut"));
        assert!(lines.next().unwrap().ends_with("Z,\"a\",\"\",,1.000,\"empty\""), "{text}");
        assert!(Results::open(&dir.path().join("r.txt")).is_err());
    }
}
