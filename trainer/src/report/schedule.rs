//! `schedule`: the learning rate over a run, before it is run.

use super::chart::{self, BLUE, Frame, Series};
use super::page::check_extension;
use crate::data::batch_count;
use crate::train::Schedule;
use anyhow::{Context, ensure};
use clap::Args;
use convert::checkpoint::write_atomic;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

/// Points of the drawn curve, at most.
const POINTS: u64 = 400;
/// Rows of the printed table, apart from the corners of the curve.
const ROWS: u64 = 8;

#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    /// Passes over the training pictures.
    #[arg(long, default_value_t = 30)]
    epochs: u32,
    /// Highest learning rate.
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    lr: f64,
    /// Epochs of rising learning rate.
    #[arg(long, value_name = "EPOCHS", default_value_t = 1.0)]
    warmup_epochs: f64,
    /// Epochs at the highest learning rate.
    #[arg(long, value_name = "EPOCHS", default_value_t = 0.0)]
    hold_epochs: f64,
    /// Steps of an epoch, instead of --pictures and --batch.
    #[arg(long, value_name = "N", conflicts_with_all = ["pictures", "batch"])]
    steps_per_epoch: Option<usize>,
    /// Training pictures.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    pictures: usize,
    /// Pictures per step.
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch: usize,
    /// Draw the curve, too (.svg).
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Prints the rates of a schedule, and draws them if asked to.
pub(crate) fn run(args: &ScheduleArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let counted = batch_count(args.pictures, args.batch, true);
    let steps = args.steps_per_epoch.unwrap_or(counted);
    ensure!(args.epochs > 0, "--epochs 0 has no steps; pass at least 1");
    ensure!(
        (1..=1 << 30).contains(&steps),
        "{steps} steps an epoch; pass a --steps-per-epoch or --pictures of at least 1"
    );
    ensure!(
        args.lr.is_finite() && args.lr > 0.0,
        "--lr {}: pass a number above 0, such as 0.1",
        args.lr
    );
    for (name, value) in [("warmup", args.warmup_epochs), ("hold", args.hold_epochs)] {
        ensure!(
            value.is_finite() && value >= 0.0,
            "--{name}-epochs {value} is not a number of at least 0"
        );
    }
    let epochs = [args.warmup_epochs, args.hold_epochs, f64::from(args.epochs)];
    let schedule = Schedule::over_epochs(args.lr, epochs, steps);
    print(&schedule, steps, out)?;
    if let Some(path) = &args.out {
        check_extension(path, "svg", "a curve")?;
        let svg = curve(&schedule, steps)?;
        write_atomic(path, svg.as_bytes())
            .with_context(|| format!("{}: cannot write this drawing", path.display()))?;
        writeln!(out, "{}: the curve", path.display())?;
    }
    Ok(())
}

/// The rates at the corners of the curve and at equal distances between.
fn print(schedule: &Schedule, steps: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let last = schedule.total - 1;
    let corners = [schedule.warmup, schedule.warmup.saturating_add(schedule.hold)];
    let mut rows: BTreeSet<u64> = (0..=ROWS).map(|i| at_share(last, i, ROWS)).collect();
    rows.extend(corners.into_iter().filter(|t| *t < last));
    writeln!(out, "   epoch      step  learning rate")?;
    for step in rows {
        let epoch = step as f64 / steps as f64;
        writeln!(out, "{epoch:8.2}  {step:8}  {:.6}", schedule.at(step))?;
    }
    Ok(())
}

/// Step `i/parts` of the way from 0 to `last`.
fn at_share(last: u64, i: u64, parts: u64) -> u64 {
    (u128::from(last) * u128::from(i) / u128::from(parts)) as u64
}

/// The curve as SVG.
fn curve(schedule: &Schedule, steps: usize) -> anyhow::Result<String> {
    let last = schedule.total - 1;
    let corners = [schedule.warmup, schedule.warmup.saturating_add(schedule.hold)];
    let mut drawn: BTreeSet<u64> = (0..=POINTS).map(|i| at_share(last, i, POINTS)).collect();
    drawn.extend(corners.into_iter().filter(|t| *t < last));
    let epoch = |step: u64| step as f64 / steps as f64;
    let points = drawn.into_iter().map(|step| (epoch(step), schedule.at(step)));
    let series = Series::new(BLUE, points);
    let frame = Frame {
        title: "Learning rate".into(),
        x_name: "epoch",
        x: 0.0..epoch(schedule.total),
        y: 0.0..schedule.target * 1.05,
        y_text: chart::number,
    };
    chart::lines(&frame, &[series])
}
