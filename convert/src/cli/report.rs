//! `convert report`.

use super::convert::describe_int8;
use super::convert_counted;
use super::source::{
    Calibration, Source, calibration_pictures, default_output, float_model, open_model,
};
use crate::emit::edge::Attributes;
use crate::pipeline::Options;
use crate::quantize::{ReportPage, decibels, measure, sorted, worst};
use crate::target::Target;
use anyhow::{Context, Result, bail};
use artifact::text::AsPlain;
use clap::Args;
use dataset::samples::denormalize;
use network::file::{check_writable, write_atomic};
use page::progress::Counter;
use page::terminal::Output;
use page::{self, check_extension};
use std::io::Write;
use std::path::PathBuf;

/// Most pictures that a report measures on.
const MAX_REPORT_PICTURES: usize = 128;

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Model: what is converted, too
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    calibration: Calibration,
    /// The page [default: the model's name with .int8.html]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn report(args: &ReportArgs, command: &str, out: &mut Output<'_>) -> Result<bool> {
    let path = &args.model;
    let page =
        args.output.clone().unwrap_or_else(|| default_output(path).with_extension("int8.html"));
    check_extension("--output", &page, "html")?;
    if let Some(json) = &args.json {
        check_extension("--json", json, "json")?;
    }
    args.source.check()?;
    args.calibration.check()?;
    if let Some(json) = &args.json {
        check_writable(json, 0).with_context(|| format!("--json {}", json.display()))?;
    }
    let imported = open_model(path, &args.source, out)?;
    let model = float_model(&imported, path, &args.source, out)?;
    args.calibration.check_layers(&model)?;
    let mut pictures = calibration_pictures(&args.calibration, &model, out)?;
    let options = Options {
        method: args.calibration.method(),
        adaptive_rounding: args.calibration.adaptive_rounding,
        ..Options::default()
    };
    let converted =
        convert_counted(&model, &pictures, options).with_context(|| path.display().to_string())?;
    let mut converted = args.calibration.with_float_layers(converted, &model, options)?;
    let known = args.calibration.with_unknown(&mut converted, &pictures, &model, out)?;
    let Some(int8) = &converted.int8 else { bail!("no int8 network") };
    if pictures.is_empty() {
        bail!("no pictures to measure on; pass --calibration DIR");
    }
    pictures.truncate(MAX_REPORT_PICTURES);
    let attributes = Attributes::of(&model, Target::Host, false);
    let counter = Counter::new("measuring what int8 costs");
    let progress = |done, total| counter.show(done, total);
    let measured = measure(&converted.graph, int8, &pictures, &attributes, progress)?;
    drop(counter);
    let mut notes: Vec<String> = describe_int8(int8).lines().map(str::to_owned).collect();
    for note in &notes {
        writeln!(out, "{note}")?;
    }
    notes.extend(known);
    let width = measured.layers.iter().map(|l| l.name.chars().count()).max().unwrap_or(0);
    writeln!(
        out,
        "{:<width$}  {:>15}  {:>8}  {:>8}",
        "layer", "signal to noise", "lost", "clipped"
    )?;
    for l in &measured.layers {
        let (name, sqnr, lost) =
            (l.name.plain().to_string(), decibels(l.sqnr_db), decibels(l.lost_db));
        writeln!(out, "{name:<width$}  {sqnr:>15}  {lost:>8}  {:>6.3} %", l.saturated * 100.0)?;
    }
    for l in worst(&measured) {
        let lost = decibels(l.lost_db);
        writeln!(out, "`{}` loses {lost}", l.name.plain())?;
    }
    writeln!(
        out,
        "same class on {:.1} % of {} pictures",
        measured.agreement() * 100.0,
        measured.pictures.len()
    )?;
    let rgb: Vec<Vec<u8>> = pictures.iter().map(|p| denormalize(p, &model.preprocess)).collect();
    let report =
        ReportPage { model: &model, int8, measured: &measured, rgb: &rgb, notes: &notes, command };
    page::save(&report.html()?, &page)?;
    writeln!(out, "{}: the page", page.display().to_string().plain())?;
    if let Some(path) = &args.json {
        let figures = serde_json::json!({
            "model": args.model.display().to_string(),
            "notes": notes,
            "labels": model.labels,
            "agreement": measured.agreement(),
            "layers": measured.layers,
            "pictures": sorted(&measured),
        });
        let text = serde_json::to_vec_pretty(&figures).context("cannot write JSON")?;
        write_atomic(path, &text).with_context(|| path.display().to_string())?;
    }
    Ok(true)
}
