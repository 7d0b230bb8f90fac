//! `schedule`: the learning rate over a run, before it is run.

use super::chart::{self, BLUE, Frame, Series};
use crate::data::batch_count;
use crate::train::Schedule;
use anyhow::{Context, ensure};
use artifact::text::AsPlain;
use clap::Args;
use network::file::write_atomic;
use page::check_extension;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

/// Parts of the drawn curve.
const POINTS: u64 = 400;
/// Parts of the curve between the rows of the table.
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
    if let Some(path) = &args.out {
        check_extension("-o", path, "svg")?;
        let svg = curve(&schedule, steps)?;
        write_atomic(path, svg.as_bytes())
            .with_context(|| format!("{}: cannot write this drawing", path.display()))?;
        writeln!(out, "{}: the curve", path.display().to_string().plain())?;
    }
    print(&schedule, steps, out)?;
    Ok(())
}

/// The rates at a few steps.
fn print(schedule: &Schedule, steps: usize, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "   epoch      step  learning rate")?;
    for step in sampled(schedule, ROWS) {
        let epoch = step as f64 / steps as f64;
        writeln!(out, "{epoch:8.2}  {step:8}  {:.6}", schedule.at(step))?;
    }
    Ok(())
}

/// The corners of the curve, and `parts + 1` steps at equal distances.
fn sampled(schedule: &Schedule, parts: u64) -> BTreeSet<u64> {
    let last = schedule.total - 1;
    let step = |i| (u128::from(last) * u128::from(i) / u128::from(parts)) as u64;
    let corners = [schedule.warmup, schedule.warmup.saturating_add(schedule.hold)];
    let corners = corners.into_iter().filter(|t| *t < last);
    (0..=parts).map(step).chain(corners).collect()
}

/// The curve as SVG.
fn curve(schedule: &Schedule, steps: usize) -> anyhow::Result<String> {
    let epoch = |step: u64| step as f64 / steps as f64;
    let points = sampled(schedule, POINTS).into_iter().map(|t| (epoch(t), schedule.at(t)));
    let series = Series::new(BLUE, points);
    let frame = Frame {
        title: "Learning rate".into(),
        x_name: "epoch",
        x: 0.0..epoch(schedule.total),
        x_labels: 8,
        y: 0.0..schedule.target * 1.05,
        y_text: chart::number,
        mark: None,
    };
    chart::lines(&frame, &[series])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_corners_and_both_ends() {
        let schedule = Schedule::over_epochs(0.1, [1.0, 2.0, 10.0], 10);
        let mut out = Vec::new();
        print(&schedule, 10, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for row in ["0         0  0.000000", "10  0.100000", "30  0.100000", "99  0.000050"] {
            assert!(text.contains(row), "{row}: {text}");
        }
    }

    #[test]
    fn short_schedules_can_be_drawn() {
        for epochs in [[0.0, 0.0, 1.0], [5.0, 5.0, 1.0], [0.0, 1e300, 2.0]] {
            let schedule = Schedule::over_epochs(1e-9, epochs, 1);
            assert!(curve(&schedule, 1).unwrap().contains("<polyline"));
        }
    }
}
