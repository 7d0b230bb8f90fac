//! `bench`: the latency of one inference.
//!
//! Loads (including the first run), warms up for a tenth of a second, then times each run.

use crate::EXIT_ANSWER;
use crate::cli::Bench;
use crate::model::{ModelFile, Use};
use crate::times::{median, time_runs, to_ms};
use anyhow::{Context, Result, ensure};
use core::time::Duration;
use runtime::{AlignedBuf, Dtype, Isa, Model, Op, Session, Shape};
use serde::Serialize;
use std::io::Write;
use std::time::Instant;

/// Names a file of the input: f32, little-endian, channels × height × width, preprocessed.
const INPUT_VARIABLE: &str = "BENCH_INPUT";
/// Outputs printed, so that the answer can be checked along with the time.
const OUTPUTS: usize = 10;

#[derive(Serialize)]
struct Report {
    median_ms: f64,
    min_ms: f64,
    /// 99 of 100 runs took no longer.
    p99_ms: f64,
    load_ms: f64,
    /// The process's peak; none where the system does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_mb: Option<f64>,
    isa: &'static str,
    threads: usize,
    /// 10⁹ multiply-accumulates a second of the inner loop alone, on all threads; with `layers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_gmacs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Layer>,
}

impl Report {
    fn new(ms: [f64; 3], load_ms: f64, isa: &'static str, threads: usize) -> Self {
        let [min_ms, median_ms, p99_ms] = ms;
        let (rss_mb, peak_gmacs, y, layers) = (peak_mb(), None, None, Vec::new());
        Self { median_ms, min_ms, p99_ms, load_ms, rss_mb, isa, threads, peak_gmacs, y, layers }
    }
}

/// One operator.
#[derive(Serialize)]
struct Layer {
    operator: &'static str,
    /// How it is computed, see [`Session::kernel`].
    #[serde(skip_serializing_if = "String::is_empty")]
    kernel: String,
    /// Height, width, channels.
    input: [u16; 3],
    output: [u16; 3],
    /// Rows and columns; none where the operator has no window.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<[u16; 2]>,
    macs: u64,
    median_ms: f64,
}

/// Measures and prints one line.
pub(crate) fn run(options: &Bench, out: &mut dyn Write) -> Result<u8> {
    if options.model.extension().is_some_and(|e| e == "onnx") {
        return run_onnx(options, out);
    }
    if !options.compare.is_empty() {
        return crate::compare::run(options, out);
    }
    let given = std::env::var_os(INPUT_VARIABLE).map(|path| {
        std::fs::read(&path).with_context(|| format!("{INPUT_VARIABLE}={}", path.display()))
    });
    let given = given.transpose()?;

    let start = Instant::now();
    let file = ModelFile::open(Some(&options.model), Use::Short)?;
    let model = file.parse(None)?;
    let workers = options.machine.workers()?;
    let isa = options.machine.isa();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena)?.with_isa(isa).with_workers(&*workers);
    let input = match &given {
        Some(bytes) => nhwc(bytes, model.input_shape())?,
        None => (0..model.input_shape().len()).map(|i| (i % 255) as f32 / 127.0 - 1.0).collect(),
    };
    let mut infer = || {
        give(&mut session, &input);
        let start = Instant::now();
        let logits = session.run();
        (start.elapsed(), logits.iter().take(OUTPUTS).collect::<Vec<f32>>())
    };
    let (_, y) = infer();
    let load_ms = to_ms(start.elapsed());

    let ms = time_runs(options.runs.get(), || Ok(infer().0))?;
    let threads = workers.threads();
    let (layers, peak_gmacs) = match options.layers {
        true => (
            time_layers(&mut session, &model, &input, options.runs.get()),
            Some(peak_gmacs(isa, model.dtype()) * threads as f64),
        ),
        false => (Vec::new(), None),
    };
    let y = given.map(|_| y);
    let report = Report { peak_gmacs, y, layers, ..Report::new(ms, load_ms, isa.name(), threads) };
    if options.json {
        crate::print::json(out, &report)?;
        writeln!(out)?;
    } else {
        let ([min_ms, median_ms, p99_ms], runs, isa) = (ms, options.runs, report.isa);
        write!(
            out,
            "median {median_ms:.3} ms, fastest {min_ms:.3} ms, 99 % within {p99_ms:.3} ms of {runs} \
             runs on {threads} thread(s) with {isa}; load and first run {load_ms:.1} ms"
        )?;
        if let Some(mb) = report.rss_mb {
            write!(out, "; peak memory {mb:.1} MB")?;
        }
        writeln!(out)?;
        write_layers(&report, out)?;
    }
    Ok(EXIT_ANSWER)
}

/// Times tract, where this build has it.
#[cfg(feature = "tract")]
fn run_onnx(options: &Bench, out: &mut dyn Write) -> Result<u8> {
    let start = Instant::now();
    let mut infer = crate::tract::load(&options.model)?;
    infer()?;
    let load_ms = to_ms(start.elapsed());
    let ms = time_runs(options.runs.get(), || {
        let start = Instant::now();
        infer()?;
        Ok(start.elapsed())
    })?;
    crate::print::json(out, &Report::new(ms, load_ms, "tract", 1))?;
    writeln!(out)?;
    Ok(EXIT_ANSWER)
}

#[cfg(not(feature = "tract"))]
fn run_onnx(options: &Bench, _: &mut dyn Write) -> Result<u8> {
    anyhow::bail!(
        "{}: bench runs .edge files; ONNX models are for --compare, and a build with the feature \
         tract also runs them",
        options.model.display()
    )
}

/// Writes the input, which a run overwrites: the arena's memory is reused.
fn give(session: &mut Session<'_>, input: &[f32]) {
    let mut to = session.input_mut();
    for (index, &value) in input.iter().enumerate() {
        to.set(index, value);
    }
}

/// 10⁹ multiply-accumulates a second of the inner loop alone: the best of many short trials.
fn peak_gmacs(isa: Isa, dtype: Dtype) -> f64 {
    const TRIALS: usize = 50;
    let trial = |rounds| {
        let start = Instant::now();
        let macs = isa.peak(dtype, rounds);
        (start.elapsed(), macs)
    };
    let mut rounds = 1;
    while trial(rounds).0 < Duration::from_micros(500) {
        rounds *= 2;
    }
    let rate = |(time, macs): (Duration, u64)| macs as f64 / 1e9 / time.as_secs_f64();
    (0..TRIALS).map(|_| rate(trial(rounds))).fold(0.0, f64::max)
}

/// Times each operator, from the end of the one before it, in `runs` more runs. Of operators that
/// take turns the last one has the time and the work of all.
fn time_layers(
    session: &mut Session<'_>,
    model: &Model<'_>,
    input: &[f32],
    runs: usize,
) -> Vec<Layer> {
    let mut times = vec![Vec::with_capacity(runs); model.ops().count()];
    for _ in 0..runs {
        give(session, input);
        let mut last = Instant::now();
        session.run_observed(|seen| {
            let now = Instant::now();
            // Observation 0 is the input, before the first operator.
            if let Some(times) = seen.index.checked_sub(1).and_then(|op| times.get_mut(op)) {
                times.push(to_ms(now - last));
            }
            last = Instant::now();
        });
    }
    let extent = |s: Shape| [s.h, s.w, s.c];
    let mut waiting = 0;
    let layer = |(op, times): (Op, Vec<f64>)| {
        let macs = op.macs() + core::mem::take(&mut waiting);
        if times.is_empty() {
            waiting = macs;
            return None;
        }
        Some(Layer {
            operator: op.name(),
            kernel: session.kernel(&op),
            input: extent(op.input().shape),
            output: extent(op.output().shape),
            filter: op.window().map(|[filter, _]| filter),
            macs,
            median_ms: median(times)?,
        })
    };
    model.ops().zip(times).filter_map(layer).collect()
}

fn write_layers(report: &Report, out: &mut dyn Write) -> Result<()> {
    let Some(peak) = report.peak_gmacs else { return Ok(()) };
    writeln!(out, "inner loop alone: {peak:.1} GMAC/s")?;
    let by = |s: &[u16]| s.iter().map(u16::to_string).collect::<Vec<_>>().join("x");
    writeln!(
        out,
        "  #  operator         kernel              input      output filter       MACs        ms   GMAC/s  of peak"
    )?;
    for (i, l) in report.layers.iter().enumerate() {
        let filter = l.filter.map_or(String::new(), |f| by(&f));
        let rate = l.macs as f64 / 1e6 / l.median_ms.max(1e-9);
        writeln!(
            out,
            "{i:>3}  {:<16} {:<12} {:>12} {:>11} {filter:>6} {:>10} {:>9.4} {rate:>8.1} {:>6.0} %",
            l.operator,
            l.kernel,
            by(&l.input),
            by(&l.output),
            l.macs,
            l.median_ms,
            100.0 * rate / peak,
        )?;
    }
    Ok(())
}

/// The raw file's values in the model's order.
fn nhwc(bytes: &[u8], shape: Shape) -> Result<Vec<f32>> {
    let (values, rest) = bytes.as_chunks();
    ensure!(
        rest.is_empty() && values.len() == shape.len(),
        "{INPUT_VARIABLE}: file of {} bytes, but the model's input of {} x {} x {} has {}",
        bytes.len(),
        shape.c,
        shape.h,
        shape.w,
        shape.len() * 4
    );
    let (pixels, channels) = (shape.pixels(), usize::from(shape.c));
    let value = |i: usize| f32::from_le_bytes(values[i % channels * pixels + i / channels]);
    Ok((0..values.len()).map(value).collect())
}

/// The most memory the process has had, in MiB.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}
