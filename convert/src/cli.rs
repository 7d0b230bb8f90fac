//! The command line.

use crate::accuracy::{Predictions, predict};
use crate::budget::{Bytes, check_flash, check_ram};
use crate::checkpoint::{self, Checkpoint, write_atomic};
use crate::data::{CacheSize, Dataset, Pictures, ReadOptions};
use crate::emit::edge::Format;
use crate::emit::keras::to_preset;
use crate::emit::onnx::{Form, to_onnx};
use crate::emit::torch::to_safetensors;
use crate::hub::Reference;
use crate::import::{self, Head, Imported};
use crate::init::random_checkpoint;
use crate::inspect::{checkpoint_table, edge_table, graph_table};
use crate::model::FloatModel;
use crate::page::{self, check_extension, command_line};
use crate::pipeline::{
    Converted, Options, Quantize, Target, convert, denormalize, normalize, stored_samples,
};
use crate::quantize::{Method, Outlier, Quantized, decibels, measure, report_page, sorted, worst};
use crate::resnet::ResNetConfig;
#[cfg(feature = "verify")]
use crate::verify::{Check, verify};
use anyhow::{Context, Result, bail};
use artifact::header::VERSION;
use artifact::meta::MAX_LABEL_BYTES;
use artifact::writer::rewrite;
use artifact::{Artifact, Preprocess};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// Most pictures that a report measures on.
const MAX_REPORT_PICTURES: usize = 128;

/// Turns trained models into device files.
#[derive(Debug, Parser)]
#[command(
    name = "convert",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit status: 0 done, 1 below --min-accuracy or not what others compute, 2 an error."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    convert: ConvertArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in a model (.edge, or anything that is converted)
    Inspect {
        /// The model
        file: PathBuf,
        /// Height and width of an input that an ONNX or TensorFlow Lite model leaves open
        #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=8192))]
        input_size: Option<u16>,
    },
    /// Show what int8 costs: the error of each layer, what is clipped, and the pictures that change
    /// most
    Report(ReportArgs),
    /// Sign a device file with a private key (Ed25519), so that a program that has the public key
    /// refuses every other model. `openssl genpkey -algorithm ed25519 -out private.pem` makes a key,
    /// `openssl pkey -in private.pem -pubout -out public.pem` its public half
    Sign(SignArgs),
    /// Rewrite a device file or checkpoint of an older version as one of the newest; a signature is
    /// lost
    Upgrade(UpgradeArgs),
    /// Make a model with random weights, to learn its speed, memory and size before training it
    Init(InitArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Architecture, such as resnet_50 or resnet_8_cifar
    #[arg(value_name = "ARCH")]
    architecture: String,
    /// Side of the input in pixels [default: 32 for CIFAR's architectures, else 224]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(8..=1024))]
    size: Option<u16>,
    /// Classes [default: 10 for CIFAR's architectures, else 1000]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output [default: the architecture's name with .mpk]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ConvertArgs {
    /// Model to convert: a checkpoint (.mpk), an ONNX or TensorFlow Lite
    /// classifier, a KerasHub preset (directory or
    /// name), a saved Keras model (.keras, .h5), a PyTorch state dict (.safetensors, .pt, .pth, .th,
    /// or Burn's .bpk),
    /// hf://owner/name or kaggle://owner/model/framework/variation
    #[arg(required = true, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Number format of weights and activations [default: int8, to .onnx none]
    #[arg(long, value_enum)]
    quantize: Option<QuantizeArg>,
    /// Compute every convolution directly, none by Winograd's algorithm: smaller files of f32
    /// models, less memory of int8 models, slower 3×3 convolutions
    #[arg(long)]
    no_winograd: bool,
    /// Device class: decides the layout of the weights
    #[arg(long, value_enum, default_value_t = TargetArg::Host)]
    target: TargetArg,
    /// Memory of the chip, such as 32K: what does not fit with a stack of 4K is not written, and it
    /// is said which layer needs most
    #[arg(long, value_name = "BYTES")]
    ram: Option<Bytes>,
    /// Flash of the chip, such as 128K, of which code takes 32K
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
    source: Source,
    #[command(flatten)]
    calibration: Calibration,
    /// Do not compare each layer with another engine and with its formula
    #[arg(long)]
    no_verify: bool,
    /// Labelled pictures: report accuracy before and after; validation pictures where the
    /// folder has them
    #[arg(long, value_name = "DIR")]
    eval: Option<PathBuf>,
    /// Exit with status 1 where the converted model's accuracy on --eval is below this (0..1)
    #[arg(long, value_name = "SHARE", requires = "eval")]
    min_accuracy: Option<f64>,
}

/// What a model does not say itself.
#[derive(Debug, Args)]
struct Source {
    /// Class names in index order, one per line, for a model that brings none
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Height and width of an input that an ONNX or TensorFlow Lite model leaves open
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=8192))]
    input_size: Option<u16>,
    /// Mean of the training pictures, red, green and blue in 0..1, or one number: pictures are
    /// prepared as (v / 255 − mean) / std instead of as the model says
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Their standard deviation; 0.00392157 (1/255) with a mean of 0 leaves values 0 to 255
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Option<Vec<f32>>,
}

/// What int8 is measured on, and how.
#[derive(Debug, Args)]
struct Calibration {
    /// Pictures to measure int8 ranges on, any folder layout that `trainer` reads; the samples
    /// stored in the checkpoint where left out
    #[arg(long, value_name = "DIR")]
    calibration: Option<PathBuf>,
    /// Most calibration pictures
    #[arg(long, value_name = "N", default_value_t = 256)]
    calibration_pictures: usize,
    /// How int8 ranges follow from what was measured
    #[arg(long, value_enum, default_value_t = MethodArg::Auto)]
    calibration_method: MethodArg,
}

#[derive(Debug, Args)]
struct SignArgs {
    /// Device file (.edge)
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Private key, PEM (PKCS #8)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The signed file [default: the model itself is replaced]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct UpgradeArgs {
    /// Device file (.edge) or checkpoint (.mpk)
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The new file [default: the model itself is replaced]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ReportArgs {
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum QuantizeArg {
    /// 8-bit integers
    Int8,
    /// 16-bit float weights
    Fp16,
    /// Weights of the upper 16 bits of a float, which AVX-512 BF16 multiplies twice as fast
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MethodArg {
    /// For each activation the one of these that changes the logits least (mse for large networks)
    Auto,
    /// Smallest mean squared error
    Mse,
    /// Smallest to largest value
    MinMax,
    /// All but 0.01 % of the values
    Percentile,
    /// Smallest Kullback–Leibler divergence
    Entropy,
}

/// Runs the program; returns its exit status.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>, out: &mut dyn Write) -> u8 {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let command = command_line(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    let result = match cli.command {
        Some(Command::Inspect { file, input_size }) => inspect(&file, input_size, out),
        Some(Command::Report(args)) => report(&args, &command, out),
        Some(Command::Sign(args)) => sign(&args, out),
        Some(Command::Upgrade(args)) => upgrade(&args, out),
        Some(Command::Init(args)) => init(&args, out),
        None => convert_file(&cli.convert, out),
    };
    match result {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(e) => {
            eprintln!("convert: {}", describe(&e));
            2
        }
    }
}

/// An error and its causes in one line, each said once: the texts of many errors hold those of
/// their causes already.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether a file is one of ours for devices. A damaged one is, too, and is told so by its reader.
fn is_edge(path: &Path) -> bool {
    let mut start = [0; artifact::header::MAGIC.len()];
    path.extension().is_some_and(|e| e == "edge")
        || path.is_file()
            && std::fs::File::open(path)
                .and_then(|mut file| file.read_exact(&mut start))
                .is_ok_and(|()| start == artifact::header::MAGIC)
}

fn sign(args: &SignArgs, out: &mut dyn Write) -> Result<bool> {
    let name = |path: &Path| path.display().to_string();
    let file = std::fs::read(&args.model).with_context(|| name(&args.model))?;
    let pem = std::fs::read_to_string(&args.key).with_context(|| name(&args.key))?;
    let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| {
        anyhow::anyhow!(
            "{}: no private key of Ed25519 in PEM, as `openssl genpkey -algorithm ed25519` writes it",
            name(&args.key)
        )
    })?;
    let signed = rewrite(&file, Some(|bytes: &[u8]| key.sign(bytes).to_bytes()))
        .with_context(|| name(&args.model))?;
    let output = args.output.as_ref().unwrap_or(&args.model);
    write_atomic(output, &signed).with_context(|| name(output))?;
    let public: String =
        key.verifying_key().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    writeln!(out, "{}: signed; the public key is {public}", output.display())?;
    Ok(true)
}

fn upgrade(args: &UpgradeArgs, out: &mut dyn Write) -> Result<bool> {
    let name = args.model.display().to_string();
    let output = args.output.as_ref().unwrap_or(&args.model);
    let (old, newest) = if is_edge(&args.model) {
        let file = std::fs::read(&args.model).with_context(|| name.clone())?;
        let new = rewrite(&file, None::<fn(&[u8]) -> _>).with_context(|| name.clone())?;
        let old = u32::from(u16::from_le_bytes([file[8], file[9]]));
        // What is as new as can be keeps its signature.
        if old < VERSION.into() || args.output.is_some() {
            write_atomic(output, &new).with_context(|| output.display().to_string())?;
        }
        (old, VERSION.into())
    } else {
        let checkpoint = Checkpoint::load(&args.model)?;
        let old = checkpoint.version;
        if old < checkpoint::VERSION || args.output.is_some() {
            Checkpoint { version: checkpoint::VERSION, ..checkpoint }.save(output)?;
        }
        (old, checkpoint::VERSION)
    };
    let what = if old < newest { "upgraded to" } else { "already of" };
    writeln!(out, "{}: {what} version {newest}", output.display())?;
    Ok(true)
}

fn inspect(path: &Path, input_size: Option<u16>, out: &mut dyn Write) -> Result<bool> {
    let name = path.display().to_string();
    if is_edge(path) {
        let bytes = std::fs::read(path).with_context(|| name.clone())?;
        let artifact = Artifact::parse(&bytes).with_context(|| name)?;
        write!(out, "{}", edge_table(&artifact, &[]))?;
    } else {
        let table = match import::open_any(path, Head::Optional, input_size)? {
            Imported::Checkpoint(checkpoint) => checkpoint_table(&checkpoint),
            Imported::Graph(model) => graph_table(&model),
        };
        write!(out, "{table}")?;
    }
    Ok(true)
}

fn init(args: &InitArgs, out: &mut dyn Write) -> Result<bool> {
    let mut config = ResNetConfig::named(&args.architecture, 1).map_err(anyhow::Error::msg)?;
    let side = config.native_size();
    config.classes = args.classes.unwrap_or(config.native_classes());
    let checkpoint = random_checkpoint(config, args.size.unwrap_or(side), args.seed)
        .map_err(anyhow::Error::msg)?;
    let output = args.output.clone().unwrap_or_else(|| format!("{}.mpk", args.architecture).into());
    checkpoint.save(&output)?;
    let (name, numbers) = (&args.architecture, checkpoint.numbers());
    writeln!(out, "{}: {name} with {numbers} random values", output.display())?;
    Ok(true)
}

/// Progress with a percentage on a terminal; nothing in a log.
fn show(what: &str, done: usize, total: usize) {
    if std::io::stderr().is_terminal() {
        let end = if done == total { "\n" } else { "" };
        eprint!("\r{what}: {} %{end}", done * 100 / total.max(1));
    }
}

fn show_progress(done: usize, total: usize) {
    show("calibrating", done, total);
}

fn convert_file(args: &ConvertArgs, out: &mut dyn Write) -> Result<bool> {
    let Some(path) = &args.model else { bail!("no model named") };
    let imported = open_model(path, &args.source)?;
    let output = args.output.clone().unwrap_or_else(|| default_output(path));
    if output == *path {
        bail!("{}: the output would overwrite the input; name another with -o", output.display());
    }
    if args.keras_preset {
        to_preset(checkpoint_of(&imported, path)?, &output)?;
        writeln!(out, "{} (KerasHub preset)", output.display())?;
        return Ok(true);
    }
    let options = Options {
        quantize: match args.quantize(&output) {
            QuantizeArg::Int8 => Quantize::Int8,
            QuantizeArg::Fp16 => Quantize::Fp16,
            QuantizeArg::Bf16 => Quantize::Bf16,
            QuantizeArg::None => Quantize::None,
        },
        target: match args.target {
            TargetArg::Host => Target::Host,
            TargetArg::CortexM => Target::CortexM,
        },
        method: args.calibration.method(),
        direct: args.no_winograd,
    };
    if output.extension().is_some_and(|e| e == "safetensors") {
        let bytes = to_safetensors(checkpoint_of(&imported, path)?)?;
        write_atomic(&output, &bytes).with_context(|| output.display().to_string())?;
        writeln!(out, "{} ({} bytes, PyTorch state dict)", output.display(), bytes.len())?;
        return Ok(true);
    }
    if output.extension().is_some_and(|e| e == "mpk") {
        let checkpoint = checkpoint_of(&imported, path)?;
        checkpoint.save(&output)?;
        writeln!(out, "{}: {}", output.display(), checkpoint.config.name.escape_debug())?;
        return Ok(true);
    }
    if is_onnx(&output) && options.quantize == Quantize::Bf16 {
        bail!("ONNX has no weights in bf16; use --quantize fp16");
    }
    let model = float_model(&imported, path, &args.source, out)?;
    let calibration = match options.quantize {
        Quantize::Int8 => calibration_pictures(&args.calibration, &model, out)?,
        _ => Vec::new(),
    };
    let converted = convert(&model, &calibration, options, show_progress)
        .with_context(|| path.display().to_string())?;
    if let Some(int8) = &converted.int8 {
        write!(out, "{}", describe_int8(int8))?;
    }
    if !is_verified(args, &options, &model, &converted, &calibration, out)? {
        return Ok(false);
    }
    if is_onnx(&output) {
        return write_onnx(args, &model, &converted, &output, out);
    }
    let edge = &converted.emitted.bytes;
    if let Some(ram) = args.ram {
        check_ram(&converted.graph, &converted.emitted.plan, ram)?;
    }
    if let Some(flash) = args.flash {
        check_flash(&converted.graph, edge.len(), flash)?;
    }
    write_atomic(&output, edge).with_context(|| output.display().to_string())?;

    let artifact = Artifact::parse(edge)?;
    let names: Vec<&str> = converted.graph.nodes.iter().skip(1).map(|n| n.name.as_str()).collect();
    write!(out, "{}", edge_table(&artifact, &names))?;
    let before = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let before = before.map_or(String::new(), |m| format!(" ({} bytes)", m.len()));
    let (path, output) = (path.display(), output.display());
    writeln!(out, "{path}{before} → {output} ({} bytes)", edge.len())?;
    match &args.eval {
        Some(dir) => report_accuracy(args, dir, &model, &converted, out),
        None => Ok(true),
    }
}

/// Opens a model; what `source` says goes before what the file does.
fn open_model(path: &Path, source: &Source) -> Result<Imported> {
    let mut imported = import::open_any(path, Head::Required, source.input_size)?;
    let (labels, preprocess) = match &mut imported {
        Imported::Checkpoint(c) => (&mut c.labels, &mut c.preprocess),
        Imported::Graph(m) => (&mut m.labels, &mut m.preprocess),
    };
    if let Some(file) = &source.labels {
        *labels = read_labels(file, labels.len())?;
    }
    if source.mean.is_some() || source.std.is_some() {
        let [zeros, ones] = [[0.0; 3], [1.0; 3]];
        let (mean, std) = (rgb(&source.mean, zeros)?, rgb(&source.std, ones)?);
        let Preprocess { scale, offset, .. } =
            Preprocess::normalized(preprocess.height, preprocess.width, mean, std);
        *preprocess = Preprocess { scale, offset, ..*preprocess };
        if !preprocess.is_valid() {
            bail!("--mean {mean:?} and --std {std:?} give no finite numbers");
        }
    }
    Ok(imported)
}

/// The float model of either kind; says where its preprocessing is a guess.
fn float_model(
    imported: &Imported,
    path: &Path,
    source: &Source,
    out: &mut dyn Write,
) -> Result<FloatModel> {
    let model = imported.to_float_model().with_context(|| path.display().to_string())?;
    if model.is_preprocess_assumed && source.mean.is_none() && source.std.is_none() {
        writeln!(
            out,
            "{} does not say how pictures are prepared: taken for ImageNet's mean and deviation; \
             --mean and --std are for others",
            path.display()
        )?;
    }
    Ok(model)
}

fn report(args: &ReportArgs, command: &str, out: &mut dyn Write) -> Result<bool> {
    let path = &args.model;
    let page =
        args.output.clone().unwrap_or_else(|| default_output(path).with_extension("int8.html"));
    check_extension("--output", &page, "html")?;
    if let Some(json) = &args.json {
        check_extension("--json", json, "json")?;
    }
    let imported = open_model(path, &args.source)?;
    let model = float_model(&imported, path, &args.source, out)?;
    let mut pictures = calibration_pictures(&args.calibration, &model, out)?;
    let options = Options { method: args.calibration.method(), ..Options::default() };
    let converted = convert(&model, &pictures, options, show_progress)
        .with_context(|| path.display().to_string())?;
    let Some(int8) = &converted.int8 else { bail!("no int8 network") };
    if pictures.is_empty() {
        bail!("no pictures to measure on; pass --calibration DIR");
    }
    pictures.truncate(MAX_REPORT_PICTURES);
    let attributes = model.attributes(Target::Host, false);
    let progress = |done, total| show("measuring", done, total);
    let measured = measure(&converted.graph, int8, &pictures, &attributes, progress)?;
    let notes: Vec<String> = describe_int8(int8).lines().map(str::to_owned).collect();
    for note in &notes {
        writeln!(out, "{note}")?;
    }
    let width = measured.layers.iter().map(|l| l.name.chars().count()).max().unwrap_or(0);
    writeln!(
        out,
        "{:<width$}  {:>15}  {:>8}  {:>8}",
        "layer", "signal to noise", "lost", "clipped"
    )?;
    for l in &measured.layers {
        let (name, sqnr, lost) =
            (l.name.escape_debug().to_string(), decibels(l.sqnr_db), decibels(l.lost_db));
        writeln!(out, "{name:<width$}  {sqnr:>15}  {lost:>8}  {:>6.3} %", l.saturated * 100.0)?;
    }
    for l in worst(&measured) {
        let lost = decibels(l.lost_db);
        writeln!(out, "`{}` loses {lost}", l.name.escape_debug())?;
    }
    writeln!(
        out,
        "same class on {:.1} % of {} pictures",
        measured.agreement() * 100.0,
        measured.pictures.len()
    )?;
    let rgb: Vec<Vec<u8>> = pictures.iter().map(|p| denormalize(p, &model.preprocess)).collect();
    let html = report_page(&model, int8, &measured, &rgb, &notes, command)?;
    page::save(&html, &page)?;
    writeln!(out, "{}: the page", page.display())?;
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

/// The input's name with `.edge`; beside it where it is a file or folder, here where it is a
/// hub's.
fn default_output(input: &Path) -> PathBuf {
    match Reference::of(input) {
        Ok(Some(model)) => format!("{}.edge", model.model_name()).into(),
        _ => input.with_extension("edge"),
    }
}

/// Reads a file of class names; empty lines at the end do not count.
fn read_labels(file: &Path, classes: usize) -> Result<Vec<String>> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(name)?;
    let labels: Vec<String> = text.trim_end().lines().map(|l| l.trim().to_owned()).collect();
    if labels.len() != classes {
        bail!("{}: {} names, but the model has {classes} classes", name(), labels.len());
    }
    if let Some(at) = labels.iter().position(|l| l.is_empty() || l.len() > MAX_LABEL_BYTES) {
        bail!("{}: line {} is empty or longer than {MAX_LABEL_BYTES} bytes", name(), at + 1);
    }
    Ok(labels)
}

/// The checkpoint for what only a checkpoint can be written as.
fn checkpoint_of<'a>(imported: &'a Imported, path: &Path) -> Result<&'a Checkpoint> {
    match imported {
        Imported::Checkpoint(checkpoint) => Ok(checkpoint),
        Imported::Graph(_) => {
            bail!(
                "{}: no checkpoint; of such models only .edge and .onnx are written",
                path.display()
            )
        }
    }
}

/// Three numbers, or one for all channels.
fn rgb(numbers: &Option<Vec<f32>>, default: [f32; 3]) -> Result<[f32; 3]> {
    match numbers.as_deref() {
        None => Ok(default),
        Some(&[all]) => Ok([all; 3]),
        Some(&[r, g, b]) => Ok([r, g, b]),
        Some(other) => bail!("{other:?}, but one number or three are wanted"),
    }
}

fn is_onnx(output: &Path) -> bool {
    output.extension().is_some_and(|e| e == "onnx")
}

impl Calibration {
    fn method(&self) -> Method {
        match self.calibration_method {
            MethodArg::Auto => Method::Auto,
            MethodArg::Mse => Method::Mse,
            MethodArg::MinMax => Method::MinMax,
            MethodArg::Percentile => Method::Percentile,
            MethodArg::Entropy => Method::Entropy,
        }
    }
}

impl ConvertArgs {
    /// What was asked for, or what suits `output`.
    fn quantize(&self, output: &Path) -> QuantizeArg {
        let default = if is_onnx(output) { QuantizeArg::None } else { QuantizeArg::Int8 };
        self.quantize.unwrap_or(default)
    }
}

/// What quantization found and did, where that is more than choosing ranges.
fn describe_int8(int8: &Quantized) -> String {
    let mut text = String::new();
    for &Outlier { node, channel, times } in &int8.outliers {
        let name = int8.graph.nodes[node].name.escape_debug();
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
    if !counts.is_empty() {
        let corrected = if int8.is_corrected { ", biases corrected" } else { "" };
        text += &format!("ranges of activations: {}{corrected}\n", counts.join(", "));
    }
    text
}

/// Compares the layers of what was converted with others who compute the same, and says how far
/// apart they are.
#[cfg(feature = "verify")]
fn is_verified(
    args: &ConvertArgs,
    options: &Options,
    model: &FloatModel,
    converted: &Converted,
    pictures: &[Vec<f32>],
    out: &mut dyn Write,
) -> Result<bool> {
    if args.no_verify {
        return Ok(true);
    }
    let stored;
    let pictures = if pictures.is_empty() {
        stored = stored_samples(&model.samples, &model.preprocess)?;
        &stored
    } else {
        pictures
    };
    let (checks, count) = verify(converted, options.quantize, &model.preprocess, pictures)?;
    let noise = if pictures.is_empty() { " of noise" } else { "" };
    writeln!(out, "verified on {count} picture{}{noise}:", if count == 1 { "" } else { "s" })?;
    for check in &checks {
        let (layer, worst) = (check.layer.escape_debug(), check.difference());
        match check.worst {
            0.0 => writeln!(out, "  {:<30} equal", check.what)?,
            _ => writeln!(out, "  {:<30} at most {worst}, in `{layer}`", check.what)?,
        }
        if !check.is_passed() {
            eprintln!(
                "convert: layer `{layer}` computes something else than it should: {}, {worst}; \
                 nothing was written. Please report this; --no-verify writes the model all the same",
                check.what
            );
        }
    }
    Ok(checks.iter().all(Check::is_passed))
}

/// Without the feature `verify`, everything is.
#[cfg(not(feature = "verify"))]
fn is_verified(
    _: &ConvertArgs,
    _: &Options,
    _: &FloatModel,
    _: &Converted,
    _: &[Vec<f32>],
    _: &mut dyn Write,
) -> Result<bool> {
    Ok(true)
}

fn write_onnx(
    args: &ConvertArgs,
    model: &FloatModel,
    converted: &Converted,
    output: &Path,
    out: &mut dyn Write,
) -> Result<bool> {
    let (form, int8_name) = match args.onnx_integers {
        true => (Form::Integer, "int8 as integers"),
        false => (Form::Qdq, "int8 as QDQ"),
    };
    let (graph, format, name) = match (args.quantize(output), &converted.int8) {
        (_, Some(int8)) => (&int8.graph, Format::I8(&int8.quants), int8_name),
        (QuantizeArg::Fp16, None) => (&converted.graph, Format::F16, "fp16 weights"),
        _ => (&converted.graph, Format::F32, "f32"),
    };
    let bytes = to_onnx(graph, format, form, &model.labels, &model.preprocess);
    write_atomic(output, &bytes).with_context(|| output.display().to_string())?;
    writeln!(out, "{} ({} bytes, ONNX, {name})", output.display(), bytes.len())?;
    Ok(true)
}

fn read_data(dir: &Path, model: &FloatModel, out: &mut dyn Write) -> Result<Dataset> {
    let options = ReadOptions {
        preprocess: model.preprocess,
        val_split: 0.0,
        seed: model.seed,
        classes: None,
        cache: CacheSize::Auto,
    };
    let data = Dataset::read(dir, &options)?;
    for file in &data.skipped {
        writeln!(out, "skipped {}", file.escape_debug())?;
    }
    Ok(data)
}

/// Normalized pictures to measure on.
fn calibration_pictures(
    args: &Calibration,
    model: &FloatModel,
    out: &mut dyn Write,
) -> Result<Vec<Vec<f32>>> {
    let Some(dir) = &args.calibration else {
        let mut samples = stored_samples(&model.samples, &model.preprocess)?;
        samples.truncate(args.calibration_pictures);
        return Ok(samples);
    };
    let data = read_data(dir, model, out)?;
    let chosen = data.train.stratified(args.calibration_pictures, model.seed);
    let picture = |i: &usize| Ok(normalize(&data.train.get(*i)?, &model.preprocess));
    chosen.iter().map(picture).collect()
}

/// Labels of `--eval` must be the model's, in whatever order the folder has them.
fn relabel(pictures: &Pictures, found: &[String], wanted: &[String]) -> Result<Vec<u32>> {
    let map: Result<Vec<u32>> = found
        .iter()
        .map(|name| match wanted.iter().position(|w| w == name) {
            Some(i) => Ok(i as u32),
            None => bail!(
                "class `{}` is unknown to the model, which knows {}",
                name.escape_debug(),
                wanted.join(", ").escape_debug()
            ),
        })
        .collect();
    let map = map?;
    Ok(pictures.labels.iter().map(|l| map[*l as usize]).collect())
}

fn report_accuracy(
    args: &ConvertArgs,
    dir: &Path,
    model: &FloatModel,
    converted: &Converted,
    out: &mut dyn Write,
) -> Result<bool> {
    let data = read_data(dir, model, out)?;
    let pictures = if data.val.is_empty() { &data.train } else { &data.val };
    let labels = relabel(pictures, &data.labels, &model.labels)
        .with_context(|| dir.display().to_string())?;
    let float = predict(&converted.float.bytes, pictures)?;
    let device = predict(&converted.emitted.bytes, pictures)?;
    let name = match args.quantize.unwrap_or(QuantizeArg::Int8) {
        QuantizeArg::Int8 => "int8",
        QuantizeArg::Fp16 => "fp16",
        QuantizeArg::Bf16 => "bf16",
        QuantizeArg::None => "f32",
    };
    let share = |p: &Predictions| p.accuracy(&labels);
    writeln!(
        out,
        "accuracy on {} pictures of {}: f32 {:.2} %, {name} {:.2} % ({:+.2} points), same class on {:.2} %",
        pictures.len(),
        dir.display(),
        share(&float) * 100.0,
        share(&device) * 100.0,
        (share(&device) - share(&float)) * 100.0,
        device.agreement(&float) * 100.0,
    )?;
    match args.min_accuracy {
        Some(least) if share(&device) < least => {
            writeln!(
                out,
                "below --min-accuracy {least}; see --calibration, or try --quantize fp16"
            )?;
            Ok(false)
        }
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::{default_output, describe};
    use anyhow::{Context, anyhow};
    use std::path::Path;

    #[test]
    fn models_of_hubs_are_converted_to_here() {
        for (input, output) in [
            ("runs/best.mpk", "runs/best.edge"),
            ("hf://timm/resnet18.a1_in1k", "resnet18.a1_in1k.edge"),
            ("kaggle://keras/resnet/keras/resnet_18_imagenet/2", "resnet_18_imagenet.edge"),
            ("resnet_18_imagenet", "resnet_18_imagenet.edge"),
        ] {
            assert_eq!(default_output(Path::new(input)), Path::new(output));
        }
    }

    #[test]
    fn causes_are_said_once() {
        let error = Err::<(), _>(anyhow!("no such file")).context("m.mpk: no such file");
        assert_eq!(describe(&error.unwrap_err()), "m.mpk: no such file");
        let error = Err::<(), _>(anyhow!("disk full")).context("cannot save").unwrap_err();
        assert_eq!(describe(&error), "cannot save: disk full");
    }
}
