//! `bench --compare`: other engines on the same machine, in the same run.
//!
//! Each engine runs in a process of its own, this one, too, one after the other and several
//! rounds, so that whatever else the machine does disturbs all of them alike.

use crate::EXIT_ANSWER;
use crate::cli::Bench;
use crate::times::median;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Times an engine of a Python package.
const SCRIPT: &str = include_str!("peers.py");
/// Names the Python that has the packages.
const PYTHON_VARIABLE: &str = "PYTHON";
/// How the script says that a package is missing.
const NOT_INSTALLED: i32 = 3;
/// Whether this build has tract.
const HAS_TRACT: bool = cfg!(feature = "tract");

/// An engine, and how it becomes available.
struct Engine {
    name: &'static str,
    remedy: &'static str,
}

const OURS: Engine = Engine { name: "edge-classify", remedy: "" };
const TRACT: Engine = Engine { name: "tract", remedy: "cargo build --features tract" };
const FOR_ONNX: [Engine; 3] = [
    Engine { name: "onnxruntime", remedy: "pip install onnxruntime" },
    Engine { name: "openvino", remedy: "pip install openvino" },
    TRACT,
];
const FOR_TFLITE: [Engine; 1] = [Engine { name: "litert", remedy: "pip install ai-edge-litert" }];

/// What an engine's process prints.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Times {
    median_ms: f64,
    min_ms: f64,
    load_ms: f64,
    rss_mb: Option<f64>,
}

#[derive(Serialize)]
struct Row {
    engine: &'static str,
    model: PathBuf,
    /// Median of the rounds' medians.
    #[serde(skip_serializing_if = "Option::is_none")]
    median_ms: Option<f64>,
    /// Fastest run of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_mb: Option<f64>,
    /// Why there are no times.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The process of one engine.
fn command(engine: &Engine, model: &Path, options: &Bench, threads: usize) -> Result<Command> {
    let itself = || std::env::current_exe().context("this program's own path");
    let (threads, runs) = (threads.to_string(), options.runs.to_string());
    Ok(match engine.name {
        name if name == OURS.name || name == TRACT.name => {
            let mut command = Command::new(itself()?);
            command.args(["bench", "--json", "--threads", &threads, "--runs", &runs]);
            if let Some(isa) = options.machine.isa.filter(|_| name == OURS.name) {
                command.args(["--isa", isa.name()]);
            }
            command.arg(model);
            command
        }
        name => {
            let python = std::env::var_os(PYTHON_VARIABLE).unwrap_or_else(|| "python3".into());
            let mut command = Command::new(python);
            command.args(["-c", SCRIPT, name]).arg(model).args([&threads, &runs]);
            command
        }
    })
}

/// Runs an engine once; the inner error is the engine's own.
fn time(engine: &Engine, mut command: Command) -> Result<core::result::Result<Times, String>> {
    if engine.name == TRACT.name && !HAS_TRACT {
        return Ok(Err(format!("not in this build ({})", engine.remedy)));
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(e) if engine.name != OURS.name => return Ok(Err(format!("{program}: {e}"))),
        Err(e) => return Err(e).context(program),
    };
    if output.status.code() == Some(NOT_INSTALLED) {
        return Ok(Err(format!("not installed ({})", engine.remedy)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let times = text.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    let error = || {
        let text = String::from_utf8_lossy(&output.stderr);
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output").to_owned()
    };
    Ok(times.filter(|_| output.status.success()).ok_or_else(error))
}

/// Measures all engines and prints a table.
pub(crate) fn run(options: &Bench, out: &mut dyn Write) -> Result<u8> {
    let mut rows: Vec<(&Engine, &Path)> = vec![(&OURS, &options.model)];
    for model in &options.compare {
        ensure!(model.is_file(), "{}: no such file", model.display());
        match model.extension().and_then(|e| e.to_str()) {
            Some("onnx") => rows.extend(FOR_ONNX.iter().map(|e| (e, model.as_path()))),
            Some("tflite") => rows.extend(FOR_TFLITE.iter().map(|e| (e, model.as_path()))),
            _ => bail!("{}: want an .onnx or .tflite model to compare with", model.display()),
        }
    }
    let threads = options.machine.threads();
    let mut times: Vec<core::result::Result<Vec<Times>, String>> = vec![Ok(Vec::new()); rows.len()];
    let rounds = options.rounds.get();
    for round in 1..=rounds {
        for ((engine, model), times) in rows.iter().zip(&mut times) {
            // What failed once is not tried again.
            let Ok(seen) = times else { continue };
            match time(engine, command(engine, model, options, threads)?)? {
                Ok(new) => {
                    if std::io::stderr().is_terminal() {
                        eprintln!(
                            "round {round}/{rounds}: {} {:.3} ms",
                            engine.name, new.median_ms
                        );
                    }
                    seen.push(new);
                }
                Err(error) if engine.name == OURS.name => bail!(error),
                Err(error) => *times = Err(error),
            }
        }
    }
    let rows: Vec<Row> = rows
        .into_iter()
        .zip(times)
        .map(|((engine, model), times)| {
            let (seen, error) = match times {
                Ok(seen) => (seen, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            Row {
                engine: engine.name,
                model: model.to_owned(),
                median_ms: median(seen.iter().map(|t| t.median_ms).collect()),
                min_ms: seen.iter().map(|t| t.min_ms).min_by(f64::total_cmp),
                load_ms: median(seen.iter().map(|t| t.load_ms).collect()),
                rss_mb: median(seen.iter().filter_map(|t| t.rss_mb).collect()),
                error,
            }
        })
        .collect();
    if options.json {
        crate::print::json(out, &rows)?;
        writeln!(out)?;
    } else {
        write_table(&rows, threads, rounds, out)?;
    }
    Ok(EXIT_ANSWER)
}

fn write_table(rows: &[Row], threads: usize, rounds: usize, out: &mut dyn Write) -> Result<()> {
    let ours = rows.first().and_then(|row| row.median_ms).unwrap_or(f64::NAN);
    writeln!(out, "{threads} thread(s), {rounds} round(s), one process each")?;
    writeln!(
        out,
        "{:<14} {:>10} {:>10} {:>6} {:>9} {:>9}  model",
        "engine", "median ms", "fastest", "÷ ours", "load ms", "memory MB"
    )?;
    for row in rows {
        let model = row.model.display();
        let cell = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".into(), |v| format!("{v:.digits$}"))
        };
        match &row.error {
            Some(error) => writeln!(out, "{:<14} {error}: {model}", row.engine)?,
            None => writeln!(
                out,
                "{:<14} {:>10} {:>10} {:>6} {:>9} {:>9}  {model}",
                row.engine,
                cell(row.median_ms, 3),
                cell(row.min_ms, 3),
                cell(row.median_ms.map(|ms| ms / ours), 2),
                cell(row.load_ms, 1),
                cell(row.rss_mb, 1),
            )?,
        }
    }
    Ok(())
}
