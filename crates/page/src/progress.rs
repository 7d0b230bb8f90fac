//! What a user sees while waiting, for downloads above all: one line that changes on a terminal,
//! few lines in a log.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Between two lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Between two changes of the line on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// Least time between two reports of progress: on a terminal, where one line changes, or in a log.
pub fn interval(terminal: bool) -> Duration {
    if terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL }
}

/// Prints how far a download is.
///
/// An output that cannot be written to is no reason to end a download: its errors are ignored.
pub struct Progress<'a> {
    out: &'a mut dyn Write,
    terminal: bool,
    /// A line on the terminal has no end yet.
    open: bool,
    transfer: Transfer,
}

/// The file under way.
struct Transfer {
    name: String,
    /// Bytes that lay there when it started.
    before: u64,
    done: u64,
    total: Option<u64>,
    started: Instant,
    shown: Instant,
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl<'a> Progress<'a> {
    /// `terminal`: whether a line may be overwritten.
    pub fn new(out: &'a mut dyn Write, terminal: bool) -> Self {
        let now = Instant::now();
        let name = String::new();
        let transfer = Transfer { name, before: 0, done: 0, total: None, started: now, shown: now };
        Self { out, terminal, open: false, transfer }
    }

    /// Prints a line that stays.
    pub fn note(&mut self, text: &str) {
        self.stop();
        let _ = writeln!(self.out, "{text}");
    }

    /// A file of `total` bytes, where that is known, starts with `before` of them present.
    pub fn start(&mut self, name: &str, before: u64, total: Option<u64>) {
        let now = Instant::now();
        let name = name.to_owned();
        self.transfer = Transfer { name, before, done: before, total, started: now, shown: now };
    }

    /// More bytes have come; shows it if it is time to.
    pub fn advance(&mut self, bytes: u64) {
        self.transfer.done += bytes;
        if self.transfer.shown.elapsed() < interval(self.terminal) {
            return;
        }
        self.transfer.shown = Instant::now();
        let line = self.transfer.line();
        self.open = self.terminal;
        let _ = match self.terminal {
            true => write!(self.out, "\r{line}\x1b[K"),
            false => writeln!(self.out, "{line}"),
        };
        let _ = self.out.flush();
    }

    /// The file will not come: what is printed next starts on its own line.
    pub fn stop(&mut self) {
        if core::mem::take(&mut self.open) {
            let _ = writeln!(self.out);
        }
    }

    /// The file is there.
    pub fn finish(&mut self) {
        let t = &self.transfer;
        let time = duration(t.started.elapsed().as_secs_f64());
        let erase = if core::mem::take(&mut self.open) { "\r\x1b[K" } else { "" };
        let _ = writeln!(self.out, "{erase}{}: {} in {time}", t.name, size(t.done));
    }
}

impl Transfer {
    /// `model.weights.h5 45 % of 94.4 MB, 8.1 MB/s, 6 s left`.
    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = (self.done - self.before) as f64 / seconds;
        let speed = size(rate.round() as u64);
        match self.total {
            Some(total) => {
                let percent = 100.0 * self.done as f64 / total.max(1) as f64;
                let left = duration(total.saturating_sub(self.done) as f64 / rate.max(1.0));
                format!("{} {percent:.0} % of {}, {speed}/s, {left} left", self.name, size(total))
            }
            None => format!("{} {}, {speed}/s", self.name, size(self.done)),
        }
    }
}

/// Says on stderr what takes long, and counts what is done of it, by any number of threads: in a line
/// that changes and goes away on a terminal, in few lines in a log. What is done in a moment is not
/// said at all.
#[derive(Debug)]
pub struct Counter {
    shared: Arc<Shared>,
    clock: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Counted>,
    /// Wakes the clock at the end.
    ended: Condvar,
}

/// What is done.
#[derive(Debug)]
struct Counted {
    what: String,
    done: usize,
    /// 0 where it is not known.
    total: usize,
    started: Instant,
    is_over: bool,
}

/// Work that is done before is not shown.
const MOMENT: Duration = Duration::from_millis(500);

/// No counter says anything any more.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether counters and downloads are to be silent, from now on, in this process.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether they are.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

impl Counter {
    /// Of `what` is done, such as `reading pictures`.
    pub fn new(what: impl Into<String>) -> Self {
        let started = Instant::now();
        let counted = Counted { what: what.into(), done: 0, total: 0, started, is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(counted), ended: Condvar::new() });
        let clock = (!is_quiet()).then(|| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let terminal = std::io::stderr().is_terminal();
                shared.watch(terminal, crate::terminal::stderr);
            })
        });
        Self { shared, clock }
    }

    /// How many are done. Fewer than before begin anew.
    pub fn show(&self, done: usize, total: usize) {
        // Whoever finds it taken is not the last one to come.
        let Ok(mut state) = self.shared.state.try_lock() else { return };
        if done < state.done || state.total == 0 {
            state.started = Instant::now();
        }
        (state.done, state.total) = (done, total);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.shared.ended.notify_one();
        if let Some(clock) = self.clock.take() {
            let _ = clock.join();
        }
    }
}

impl Shared {
    /// Shows what is done, again and again until it is over.
    fn watch<W: Write>(&self, terminal: bool, open: impl FnOnce() -> W) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut pause, mut open, mut out) = (MOMENT, Some(open), None);
        while !state.is_over {
            let woken = self.ended.wait_timeout_while(state, pause, |state| !state.is_over);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over {
                break;
            }
            pause = interval(terminal);
            if let Some(open) = open.take() {
                out = Some(open());
            }
            if let Some(out) = &mut out {
                let line = state.line();
                let _ = match terminal {
                    true => write!(out, "\r{line}\x1b[K"),
                    false => writeln!(out, "{line}"),
                };
                let _ = out.flush();
            }
        }
        if let (Some(out), true) = (&mut out, terminal) {
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

impl Counted {
    /// `reading pictures: 30 of 90, 4 s left`, or `checking, 4 s`.
    fn line(&self) -> String {
        let (what, seconds) = (&self.what, self.started.elapsed().as_secs_f64());
        if self.total == 0 || self.done == 0 {
            return format!("{what}, {}", duration(seconds));
        }
        let left = seconds / self.done as f64 * self.total.saturating_sub(self.done) as f64;
        format!("{what}: {} of {}, {} left", self.done, self.total, duration(left))
    }
}

/// Does `work`, and says `what` takes so long if it does.
pub fn during<T>(what: impl Into<String>, work: impl FnOnce() -> T) -> T {
    let _counter = Counter::new(what);
    work()
}

/// Seconds as `1 h 02 min`, `3 min 04 s` or `5 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// Bytes as `512 B`, `23.7 kB` or `94.4 MB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a counter writes whose work ends after `work`.
    fn watched(terminal: bool, work: impl FnOnce(&Counter)) -> String {
        let started = Instant::now();
        let counted =
            Counted { what: "reading".into(), done: 0, total: 0, started, is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(counted), ended: Condvar::new() });
        let (out, text) = (shared.clone(), Arc::new(Mutex::new(Vec::new())));
        let written = text.clone();
        let clock = std::thread::spawn(move || out.watch(terminal, || Shown(written)));
        let counter = Counter { shared, clock: Some(clock) };
        work(&counter);
        drop(counter);
        let text = text.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn slow_work_is_shown_and_quick_work_is_not() {
        assert_eq!(watched(true, |_| ()), "");
        assert_eq!(watched(false, |counter| counter.show(1, 2)), "");
        let slow = |counter: &Counter| {
            counter.show(0, 90);
            counter.show(30, 90);
            std::thread::sleep(MOMENT * 2);
        };
        let line = "reading: 30 of 90, 1 s left";
        assert_eq!(watched(false, slow), format!("{line}\n"));
        let shown = watched(true, slow);
        assert!(shown.starts_with(&format!("\r{line}\x1b[K\rreading: 30")), "{shown:?}");
        assert!(shown.ends_with("left\x1b[K\r\x1b[K") && !shown.contains('\n'), "{shown:?}");
        let uncounted = watched(false, |_| std::thread::sleep(MOMENT * 2));
        assert_eq!(uncounted, "reading, 1 s\n");
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(4.6), "5 s");
        assert_eq!(duration(184.0), "3 min 04 s");
        assert_eq!(duration(3720.0), "1 h 02 min");
        assert_eq!([size(999), size(23_672), size(94_400_000)], ["999 B", "23.7 kB", "94.4 MB"]);
    }

    #[test]
    fn a_terminal_has_one_line_and_a_log_has_whole_lines() {
        for terminal in [true, false] {
            let mut out = Vec::new();
            let mut progress = Progress::new(&mut out, terminal);
            progress.start("weights", 50, Some(200));
            progress.transfer.shown -= LOG_INTERVAL;
            progress.transfer.started -= Duration::from_secs(10);
            progress.advance(100);
            progress.finish();
            let text = String::from_utf8(out).unwrap();
            let line = "weights 75 % of 200 B, 10 B/s, 5 s left";
            let end = "weights: 150 B in 10 s";
            assert_eq!(
                text,
                match terminal {
                    true => format!("\r{line}\x1b[K\r\x1b[K{end}\n"),
                    false => format!("{line}\n{end}\n"),
                }
            );
        }
    }
}
