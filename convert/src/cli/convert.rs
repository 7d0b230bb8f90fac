//! `convert MODEL`.

use super::convert_counted;
use super::form::Form;
use super::labelled::{Accuracy, Labelled};
use super::source::{
    Calibration, Source, calibration_pictures, check_exists, default_output, float_model,
    open_model,
};
use crate::board::{Board, Boards};
use crate::budget::{Bytes, Firmware, check_flash, check_ram};
use crate::cost::instructions;
use crate::emit::edge::Attributes;
use crate::emit::edge::Format;
use crate::emit::onnx::{self, to_onnx};
use crate::inspect::{edge_facts, edge_table};
use crate::pipeline::{Converted, Options, Quantize, with_floats};
use crate::quantize::{Method, Outlier, Quantized, decibels, measure, sensitivity, worst};
use crate::target::Target;
use crate::verify::{self, Check, source, verify};
use anyhow::{Context, Result, anyhow, bail};
use artifact::text::AsPlain;
use artifact::{Artifact, Dtype};
use clap::{Args, ValueEnum};
use dataset::samples::stored_samples;
use network::checkpoint::Checkpoint;
use network::file::{check_folder, check_writable, write_atomic};
use network::graph::NodeOp;
use network::model::FloatModel;
use page::config::Config;
use page::progress::Counter;
use page::terminal::{Output, Role, Voice, print_error};
use std::io::Write;
use std::path::{Path, PathBuf};
use zoo::keras::to_preset;
use zoo::torch::to_safetensors;

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// Model to convert: a checkpoint (.mpk), an ONNX or TensorFlow Lite classifier, a KerasHub preset
    /// (directory or name), a saved Keras model (.keras, .h5), a directory of timm or transformers, a
    /// PyTorch state dict (.safetensors, .pt, .pth, .th, or Burn's .bpk), hf://owner/name or
    /// kaggle://owner/model/framework/variation
    #[arg(required = true, value_name = "MODEL")]
    pub(super) model: Option<PathBuf>,
    /// Number format of weights and activations [default: int8, to .onnx none]
    #[arg(long, value_enum)]
    quantize: Option<QuantizeArg>,
    /// Compute every convolution directly, none by Winograd's algorithm: smaller files of f32
    /// models, less memory of int8 models, slower 3×3 convolutions
    #[arg(long)]
    no_winograd: bool,
    /// Requantize int8 sums with integers instead of floats, as files for microcontrollers always do: the
    /// bytes of a microcontroller on a PC, which takes longer
    #[arg(long)]
    fixed_point: bool,
    /// Device class: decides the layout of the weights
    #[arg(long, value_enum, default_value_t = TargetArg::Host)]
    target: TargetArg,
    /// Board, such as nucleo-f446re, pico or pi4: its device class, memory and flash, and how long a picture
    /// takes it, about; a wrong name lists all
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    board: Option<String>,
    /// File of more boards, written as convert/boards.toml
    #[arg(long, value_name = "FILE", requires = "board")]
    boards: Option<PathBuf>,
    /// Memory of the chip, such as 32K: what does not fit with a stack of 4K (7K with layers of
    /// floats) is not written, and it is said which layer needs most
    #[arg(long, value_name = "BYTES")]
    ram: Option<Bytes>,
    /// Flash of the chip, such as 128K, of which code takes 42K (75K with layers of floats)
    #[arg(long, value_name = "BYTES")]
    flash: Option<Bytes>,
    /// Output: .edge, .mpk for a checkpoint, .onnx for other engines (int8 as QDQ), or .safetensors
    /// for a PyTorch state dict; the input's name with .edge where left out
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write int8 to .onnx as QLinearConv and ConvInteger instead of QDQ, for engines that have
    /// no other integers
    #[arg(long)]
    onnx_integers: bool,
    /// Write a KerasHub preset directory, named by --output
    #[arg(long, requires = "output")]
    keras_preset: bool,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    pub(super) voice: Voice,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    calibration: Calibration,
    /// Do not compare each layer with another engine and with its formula
    #[arg(long)]
    no_verify: bool,
    /// Labelled pictures: report accuracy before and after. Of the folder that the model was trained
    /// on, those that it was validated on; else val/ or test/, or all
    #[arg(long, value_name = "DIR")]
    eval: Option<PathBuf>,
    /// Most points of accuracy on --eval that int8 may lose, such as 0.5: else the layers that lose
    /// most are named, and those that int8 hurts most are computed in floats, as few as suffice;
    /// where that would be most of the network, fp16 is written instead, and for microcontrollers
    /// nothing, with exit status 1
    #[arg(long, value_name = "POINTS", requires = "eval")]
    max_drop: Option<f64>,
    /// Exit with status 1 where the converted model's accuracy on --eval is below this (0..1)
    #[arg(long, value_name = "SHARE", requires = "eval")]
    min_accuracy: Option<f64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum QuantizeArg {
    /// 8-bit integers
    Int8,
    /// 16-bit float weights
    Fp16,
    /// Weights of the upper 16 bits of a float, which AVX-512 BF16 multiplies twice as fast on AMD's
    /// CPUs
    Bf16,
    /// 32-bit floats
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TargetArg {
    /// PC or Raspberry Pi
    Host,
    /// Microcontroller
    CortexM,
}

impl ConvertArgs {
    /// The board that is named.
    fn known_board(&self) -> Result<Option<Board>> {
        let Some(name) = &self.board else { return Ok(None) };
        let mut boards = Boards::known();
        if let Some(file) = &self.boards {
            boards.add(file).map_err(|e| anyhow!("--boards {e}"))?;
        }
        boards.named(name).map(Some).map_err(|e| anyhow!("--board {e}"))
    }

    /// What was asked for, or what suits `form`.
    fn options(&self, form: Form, board: Option<&Board>) -> Options {
        Options {
            quantize: match self.quantize {
                None if form == Form::Onnx => Quantize::None,
                None | Some(QuantizeArg::Int8) => Quantize::Int8,
                Some(QuantizeArg::Fp16) => Quantize::Fp16,
                Some(QuantizeArg::Bf16) => Quantize::Bf16,
                Some(QuantizeArg::None) => Quantize::None,
            },
            target: match (board, self.target) {
                (Some(board), _) => board.target(),
                (None, TargetArg::Host) => Target::Host,
                (None, TargetArg::CortexM) => Target::CortexM,
            },
            method: self.calibration.method(),
            adaptive_rounding: self.calibration.adaptive_rounding,
            direct: self.no_winograd,
            fixed_point: self.fixed_point,
        }
    }

    /// Refuses, before anything is read, what could not be read or written after it.
    fn check_files(
        &self,
        path: &Path,
        output: &Path,
        form: Form,
        quantize: Quantize,
    ) -> Result<()> {
        self.source.check()?;
        self.calibration.check()?;
        check_exists("--eval", self.eval.as_deref())?;
        // Weights of four bytes become as many smaller ones.
        let before = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let after = match quantize {
            _ if !form.is_computed() => before,
            Quantize::Int8 => before / 5,
            Quantize::Fp16 | Quantize::Bf16 => before / 3,
            Quantize::None => before / 2,
        };
        let parent = output.parent().filter(|dir| !dir.as_os_str().is_empty());
        let checked = match form {
            Form::Preset => check_folder(parent.unwrap_or(Path::new(".")), after),
            _ => check_writable(output, after),
        };
        checked.with_context(|| format!("--output {}", output.display()))
    }

    /// Refuses what does not fit the chip.
    fn check_limits(&self, converted: &Converted) -> Result<()> {
        let board = self.known_board()?;
        let firmware = if converted.has_floats() { Firmware::WITH_FLOATS } else { Firmware::INT8 };
        if let Some(ram) = self.ram.or(board.and_then(|board| board.ram)) {
            check_ram(&converted.graph, &converted.emitted.plan, firmware, ram)?;
        }
        if let Some(flash) = self.flash.or(board.and_then(|board| board.flash)) {
            check_flash(&converted.graph, converted.emitted.bytes.len(), firmware, flash)?;
        }
        Ok(())
    }
}

/// `given` are the names of the options that were passed.
pub(super) fn convert_file(
    args: &ConvertArgs,
    given: &[String],
    out: &mut Output<'_>,
) -> Result<bool> {
    let Some(path) = &args.model else { bail!("no model named") };
    out.tell("source", page::told(path))?;
    let output = args.output.clone().unwrap_or_else(|| default_output(path));
    let form = Form::of(&output, args.keras_preset)?;
    let board = args.known_board()?;
    let options = args.options(form, board.as_ref());
    form.check(given, options.quantize)?;
    options.check()?;
    if output == *path {
        bail!("{}: the output would overwrite the input; name another with -o", output.display());
    }
    args.check_files(path, &output, form, options.quantize)?;
    let imported = open_model(path, &args.source, out)?;
    if !form.is_computed() {
        write_weights(&imported.into_checkpoint(path)?, form, &output, out)?;
        return Ok(true);
    }
    let model = float_model(&imported, path, &args.source, out)?;
    args.calibration.check_layers(&model)?;
    if options.quantize != Quantize::Int8 && model.graph.nodes.iter().any(|n| n.quant.is_some()) {
        let note = format!(
            "{} is quantized: in floats, nothing is rounded or clamped to what int8 holds, so that \
             numbers differ; --quantize int8 keeps them",
            path.display().to_string().plain()
        );
        out.note(Role::Warning, &note)?;
    }
    // Before the minutes that converting may take.
    let labelled = args.eval.as_deref().map(|dir| Labelled::read(dir, &model, out)).transpose()?;
    let pictures = match options.quantize {
        Quantize::Int8 => calibration_pictures(&args.calibration, &model, out)?,
        _ => Vec::new(),
    };
    let converted =
        convert_counted(&model, &pictures, options).with_context(|| path.display().to_string())?;
    let converted = args.calibration.with_float_layers(converted, &model, options)?;
    if let Some(int8) = &converted.int8 {
        describe_int8(int8).lines().try_for_each(|line| out.note(Role::Dim, line))?;
    }
    let conversion = Conversion {
        args,
        options,
        model: &model,
        pictures: &pictures,
        labelled: labelled.as_ref(),
    };
    if !conversion.is_sound(&converted, out)? {
        return Ok(false);
    }
    let Some((mut converted, accuracy)) = conversion.within_max_drop(converted, out)? else {
        return Ok(false);
    };
    args.calibration.with_unknown(&mut converted, &pictures, &model, out)?;
    args.check_limits(&converted)?;
    match form {
        Form::Onnx => write_onnx(args, &model, &converted, &output, out)?,
        _ => write_edge(path, &converted, &output, out)?,
    }
    if let (Some(name), Some(board)) = (&args.board, &board) {
        estimate(name, board, &converted, out)?;
    }
    // Said last, below the table.
    conversion.is_accurate(&converted, accuracy.as_ref(), out)
}

/// Writes what holds the weights as they are.
fn write_weights(
    checkpoint: &Checkpoint,
    form: Form,
    output: &Path,
    out: &mut Output<'_>,
) -> Result<()> {
    let name = output.display();
    match form {
        Form::Preset => {
            to_preset(checkpoint, output)?;
            writeln!(out.answer(), "{name} (KerasHub preset)")?;
        }
        Form::StateDict => {
            let bytes = to_safetensors(checkpoint)?;
            write_atomic(output, &bytes).with_context(|| name.to_string())?;
            writeln!(out.answer(), "{name} ({} bytes, PyTorch state dict)", bytes.len())?;
        }
        _ => {
            checkpoint.save(output)?;
            writeln!(out.answer(), "{name}: {}", checkpoint.config.name.plain())?;
        }
    }
    let bytes = std::fs::metadata(output).ok().filter(std::fs::Metadata::is_file);
    written(output, bytes.map(|m| m.len()), form.name(), out)
}

/// Tells machines what was written.
fn written(output: &Path, bytes: Option<u64>, kind: &str, out: &mut Output<'_>) -> Result<()> {
    out.tell("output", page::told(output))?;
    out.tell("kind", kind.trim_start_matches('.'))?;
    Ok(out.tell("bytes", bytes)?)
}

fn write_edge(
    source: &Path,
    converted: &Converted,
    output: &Path,
    out: &mut Output<'_>,
) -> Result<()> {
    let edge = &converted.emitted.bytes;
    write_atomic(output, edge).with_context(|| output.display().to_string())?;
    let artifact = Artifact::parse(edge)?;
    let names: Vec<&str> = converted.graph.nodes.iter().skip(1).map(|n| n.name.as_str()).collect();
    write!(out, "{}", edge_table(&artifact, &names))?;
    let before = std::fs::metadata(source).ok().filter(std::fs::Metadata::is_file);
    let before = before.map_or(String::new(), |m| format!(" ({} bytes)", m.len()));
    let (source, name) = (source.display(), output.display());
    let bytes = Role::Good.paint(edge.len());
    writeln!(out.answer(), "{source}{before} → {name} ({bytes} bytes)")?;
    out.tell("format", converted.format())?;
    out.tell("model", edge_facts(&artifact, &names))?;
    written(output, Some(edge.len() as u64), Form::Edge.name(), out)
}

/// Says what a picture takes a board, about.
fn estimate(name: &str, board: &Board, converted: &Converted, out: &mut Output<'_>) -> Result<()> {
    if converted.has_floats() || converted.quantize != Quantize::Int8 {
        return Ok(out.note(Role::Dim, "how long it takes is known of int8 alone")?);
    }
    let artifact = Artifact::parse(&converted.emitted.bytes)?;
    let ms = board.latency(&artifact).as_secs_f64() * 1e3;
    write!(out, "{}: about {ms:.1} ms a picture", name.plain())?;
    if let Some(joules) = board.energy(&artifact) {
        write!(out, " and {:.2} mJ", joules * 1e3)?;
    }
    writeln!(out)?;
    out.tell("milliseconds", ms)?;
    Ok(out.tell("instructions", instructions(&artifact, board.core))?)
}

/// What quantization found and did, where that is more than choosing ranges.
pub(super) fn describe_int8(int8: &Quantized) -> String {
    let mut text = String::new();
    for &Outlier { node, channel, times } in &int8.outliers {
        let name = int8.graph.nodes[node].name.plain();
        text += &format!("`{name}`: channel {channel} spans {times:.0} times what others do\n");
    }
    if !int8.outliers.is_empty() {
        text += if int8.equalized.is_some() {
            "such channels share the steps of int8 badly: equalized with the layers that read them\n"
        } else {
            "such channels share the steps of int8 badly, and equalizing them did not help\n"
        };
    }
    let count = |method: Method| int8.methods.iter().filter(|m| **m == Some(method)).count();
    let counts: Vec<String> = Method::LOCAL
        .into_iter()
        .filter(|m| count(*m) > 0)
        .map(|m| format!("{} {}", count(m), m.name()))
        .collect();
    let floats = int8.graph.nodes.iter().zip(&int8.quants);
    let floats: Vec<String> = floats
        .filter(|(node, quant)| quant.is_float() && !matches!(node.op, NodeOp::Cast))
        .map(|(node, _)| format!("`{}`", node.name.plain()))
        .collect();
    if !floats.is_empty() {
        text += &format!(
            "in floats: {}, {:.1} % of the multiply-accumulates\n",
            floats.join(", "),
            int8.float_share() * 100.0
        );
    }
    if !counts.is_empty() {
        let corrected = if int8.is_corrected { ", biases corrected" } else { "" };
        let rounded = if int8.is_rounded_adaptively { ", weights rounded adaptively" } else { "" };
        text += &format!("ranges of activations: {}{corrected}{rounded}\n", counts.join(", "));
    }
    text
}

fn write_onnx(
    args: &ConvertArgs,
    model: &FloatModel,
    converted: &Converted,
    output: &Path,
    out: &mut Output<'_>,
) -> Result<()> {
    let (form, int8_name) = match args.onnx_integers {
        true => (onnx::Form::Integer, "int8 as integers"),
        false => (onnx::Form::Qdq, "int8 as QDQ"),
    };
    let (graph, format, name) = match (converted.quantize, &converted.int8) {
        (_, Some(int8)) => (&int8.graph, Format::I8(&int8.quants), int8_name),
        (Quantize::Fp16, None) => (&converted.graph, Format::F16, "fp16 weights"),
        _ => (&converted.graph, Format::F32, "f32"),
    };
    let bytes = to_onnx(graph, format, form, &model.labels, &model.preprocess);
    write_atomic(output, &bytes).with_context(|| output.display().to_string())?;
    writeln!(
        out.answer(),
        "{} ({} bytes, ONNX, {name})",
        output.display().to_string().plain(),
        bytes.len()
    )?;
    out.tell("format", name)?;
    written(output, Some(bytes.len() as u64), Form::Onnx.name(), out)
}

/// A model that is being converted.
struct Conversion<'a> {
    args: &'a ConvertArgs,
    options: Options,
    model: &'a FloatModel,
    /// What int8 is measured on.
    pictures: &'a [Vec<f32>],
    /// What accuracy is measured on.
    labelled: Option<&'a Labelled>,
}

impl Conversion<'_> {
    /// Whether it computes what it should; refuses what does not fit the chip.
    fn is_sound(&self, converted: &Converted, out: &mut Output<'_>) -> Result<bool> {
        let is_verified = self.is_verified(converted, out)?;
        if is_verified {
            self.args.check_limits(converted)?;
        }
        Ok(is_verified)
    }

    /// Compares the layers of what was converted with others who compute the same, and says how far
    /// apart they are.
    fn is_verified(&self, converted: &Converted, out: &mut Output<'_>) -> Result<bool> {
        if self.args.no_verify {
            return Ok(true);
        }
        let stored;
        let pictures = if self.pictures.is_empty() {
            stored = stored_samples(&self.model.samples, &self.model.preprocess)?;
            &stored
        } else {
            self.pictures
        };
        let counter = Counter::new("checking each layer");
        let (mut checks, count) = verify(converted, &self.model.preprocess, pictures)?;
        let compared = source::compare(self.model, converted, pictures)?;
        drop(counter);
        let unread = match compared {
            Some(Ok(check)) => {
                checks.push(check);
                None
            }
            Some(Err(why)) => Some(why),
            None => None,
        };
        if !checks.is_empty() {
            let noise = if pictures.is_empty() { " of noise" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            writeln!(out, "verified on {count} picture{plural}{noise}:")?;
        }
        for check in &checks {
            let (layer, worst) = (check.layer.plain(), check.difference());
            match check.worst {
                0.0 => writeln!(out, "  {:<30} equal", check.what)?,
                _ => writeln!(out, "  {:<30} at most {worst}, in `{layer}`", check.what)?,
            }
            if !check.is_passed() {
                let what = format!(
                    "layer `{layer}` computes something else than it should: {}, {worst}; nothing \
                     was written. Please report this; --no-verify writes the model all the same",
                    check.what
                );
                print_error("convert", &what);
            }
        }
        out.tell("checks", &checks)?;
        if let Some(why) = unread {
            out.note(Role::Warning, &format!("  the source file was not compared: tract {why}"))?;
        }
        if !verify::HAS_TRACT {
            writeln!(
                out,
                "not compared with tract, a second engine, which is not in this build; `cargo build \
                 --release --features edge-convert/tract` adds it"
            )?;
        }
        Ok(checks.iter().all(Check::is_passed))
    }

    /// What was converted, with its accuracy where that is measured; with layers in floats where
    /// it loses more than it may. `None` where nothing helps.
    fn within_max_drop(
        &self,
        converted: Converted,
        out: &mut Output<'_>,
    ) -> Result<Option<(Converted, Option<Accuracy>)>> {
        let Some(labelled) = self.labelled else { return Ok(Some((converted, None))) };
        let found = labelled.measure(&converted)?;
        let most = match self.args.max_drop {
            Some(most) if converted.int8.is_some() && found.drop() > most => most,
            _ => return Ok(Some((converted, Some(found)))),
        };
        writeln!(out, "{}", found.text(labelled, converted.format()))?;
        let loss = format!("int8 loses {:.2} points, more than --max-drop {most}", found.drop());
        out.note(Role::Warning, &loss)?;
        self.name_losers(&converted, out)?;
        let Some((better, found)) = self.lose_less(converted, labelled, most, out)? else {
            return Ok(None);
        };
        Ok(self.is_sound(&better, out)?.then_some((better, Some(found))))
    }

    /// Keeps layers in floats until no more than `most` points are lost, those first that int8 hurts
    /// most; fp16 where that would be most of the network. `None` where nothing helps.
    fn lose_less(
        &self,
        converted: Converted,
        labelled: &Labelled,
        most: f64,
        out: &mut Output<'_>,
    ) -> Result<Option<(Converted, Accuracy)>> {
        let has_halves = self.options.target.runs(Dtype::F16);
        if let Some(int8) = converted.int8.as_ref().filter(|_| !converted.has_floats()) {
            let enough = if has_halves { 0.5 } else { 1.0 };
            let mixed = self.mix(&converted, int8, labelled, most, enough, out)?;
            if mixed.is_some() {
                return Ok(mixed);
            }
        }
        if !has_halves {
            let remedy = "train for int8 with `trainer finetune --qat`, or see `convert report`";
            out.note(Role::Error, &format!("nothing was written; {remedy}"))?;
            return Ok(None);
        }
        out.note(Role::Warning, "taking fp16 instead")?;
        let options = Options { quantize: Quantize::Fp16, ..self.options };
        let halves = convert_counted(self.model, self.pictures, options)?;
        let found = labelled.measure(&halves)?;
        Ok(Some((halves, found)))
    }

    /// Int8 with the fewest layers in floats, at most the share `enough` of the multiply-accumulates,
    /// that loses no more than `most` points.
    fn mix(
        &self,
        converted: &Converted,
        int8: &Quantized,
        labelled: &Labelled,
        most: f64,
        enough: f64,
        out: &mut Output<'_>,
    ) -> Result<Option<(Converted, Accuracy)>> {
        /// As many layers more each time.
        const GROWTH: f64 = 1.5;
        let attributes = Attributes::of(self.model, Target::Host, false);
        let counter = Counter::new("trying layers in int8");
        let progress = |done, total| counter.show(done, total);
        let (graph, float) = (&converted.graph, &converted.float.bytes);
        let layers = sensitivity(graph, int8, float, self.pictures, &attributes, progress)?;
        drop(counter);
        let mut count = 1;
        while count <= layers.len() {
            let floats = &layers[..count];
            let mixed = with_floats(graph, int8, floats, self.model, self.options)?;
            let share = mixed.int8.as_ref().map_or(1.0, Quantized::float_share);
            if share > enough {
                break;
            }
            let found = labelled.measure(&mixed)?;
            let names: Vec<String> =
                floats.iter().map(|&id| format!("`{}`", graph.nodes[id].name.plain())).collect();
            writeln!(
                out,
                "with {} in floats ({:.1} % of the multiply-accumulates) it loses {:.2} points",
                names.join(", "),
                share * 100.0,
                found.drop()
            )?;
            if found.drop() <= most {
                return Ok(Some((mixed, found)));
            }
            count = (count as f64 * GROWTH).ceil() as usize;
        }
        Ok(None)
    }

    /// Names the layers in which int8 loses most.
    fn name_losers(&self, converted: &Converted, out: &mut Output<'_>) -> Result<()> {
        /// As many show it.
        const PICTURES: usize = 32;
        let (Some(int8), [_, ..]) = (&converted.int8, self.pictures) else { return Ok(()) };
        let pictures = &self.pictures[..self.pictures.len().min(PICTURES)];
        let attributes = Attributes::of(self.model, Target::Host, false);
        let counter = Counter::new("looking for the layers that lose most");
        let progress = |done, total| counter.show(done, total);
        let measured = measure(&converted.graph, int8, pictures, &attributes, progress)?;
        drop(counter);
        for layer in worst(&measured) {
            let (lost, left) = (decibels(layer.lost_db), decibels(layer.sqnr_db));
            writeln!(
                out,
                "  `{}` loses {lost} of signal to noise, which leaves {left}, and clips {:.3} %",
                layer.name.plain(),
                layer.saturated * 100.0
            )?;
        }
        Ok(())
    }

    /// Says the accuracy where that was measured; whether it suffices.
    fn is_accurate(
        &self,
        converted: &Converted,
        accuracy: Option<&Accuracy>,
        out: &mut Output<'_>,
    ) -> Result<bool> {
        let (Some(labelled), Some(found)) = (self.labelled, accuracy) else { return Ok(true) };
        let text = found.text(labelled, converted.format());
        writeln!(out.answer(), "{}", Role::Good.paint(text))?;
        out.tell("accuracy", found)?;
        let Some(least) = self.args.min_accuracy.filter(|least| found.device < *least) else {
            return Ok(true);
        };
        let remedy = "see --calibration, or try --quantize fp16";
        let text = format!("below --min-accuracy {least}; {remedy}");
        out.note(Role::Warning, &text)?;
        Ok(false)
    }
}
