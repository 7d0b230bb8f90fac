//! The command line.

mod convert;
mod files;
mod form;
mod labelled;
mod report;
mod source;

use crate::pipeline::{self, ConvertError, Converted, Options, Quantize};
use anyhow::{Result, ensure};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Id, Parser, Subcommand};
use convert::{ConvertArgs, convert_file};
use files::{InitArgs, SignArgs, UpgradeArgs, init, inspect, sign, upgrade};
use network::model::FloatModel;
use page::command_line;
use page::config::Arguments;
use page::progress::Counter;
use page::terminal::{Output, Voice, describe, print_error};
use report::{ReportArgs, report};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use zoo::Hints;

const EXAMPLES: &str = "\
Exit status: 0 done, 1 not as accurate as asked for, or not what others compute, 2 an error.

Examples:
  convert models/resnet_8_cifar10.mpk -o small.edge
  convert models/resnet_8_cifar10.mpk --target cortex-m --ram 64K --flash 256K -o chip.edge
  convert models/mobilenet_v2.mpk --quantize none -o mobilenet.onnx
  convert models/resnet_20_cifar10.mpk --quantize fp16 -o half.edge --json";

const INSPECT_EXAMPLES: &str = "\
Examples:
  convert inspect models/resnet_8_cifar10.edge
  convert inspect models/resnet_8_cifar10.mpk --json";

const REPORT_EXAMPLES: &str = "\
Examples:
  convert report models/resnet_8_cifar10.mpk -o int8.html
  convert report models/resnet_8_cifar10.mpk -o int8.html --json int8.json";

const SIGN_EXAMPLES: &str = "\
Examples:
  openssl genpkey -algorithm ed25519 -out private.pem
  convert sign models/resnet_8_cifar10.edge --key private.pem -o signed.edge";

const UPGRADE_EXAMPLES: &str = "\
Examples:
  convert upgrade models/resnet_8_cifar10.edge -o newest.edge";

const INIT_EXAMPLES: &str = "\
Examples:
  convert init resnet_18 --classes 20 -o random.mpk
  convert init resnet_8_cifar --grey";

/// Turns trained models into device files.
#[derive(Debug, Parser)]
#[command(
    name = "convert",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES
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
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// The model
        file: PathBuf,
        #[command(flatten)]
        hints: Hints,
        #[command(flatten)]
        voice: Voice,
    },
    /// Show what int8 costs: the error of each layer, what is clipped, and the pictures that change
    /// most
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Sign a device file, or classes that it was taught, with a private key (Ed25519), so that a program that has the
    /// public key refuses every other one. `openssl genpkey -algorithm ed25519 -out private.pem` makes a key,
    /// `openssl pkey -in private.pem -pubout -out public.pem` its public half
    #[command(after_help = SIGN_EXAMPLES)]
    Sign(SignArgs),
    /// Rewrite a device file or checkpoint of an older version as one of the newest; a signature is
    /// lost
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade(UpgradeArgs),
    /// Make a model with random weights, to learn its speed, memory and size before training it
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
}

/// The command line's description, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program; returns its exit status.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>, out: &mut dyn Write) -> u8 {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let command = command_line(&args);
    let arguments = match Arguments::new(args, &self::command()) {
        Ok(arguments) => arguments,
        Err(e) => {
            print_error("convert", &describe(&e));
            return 2;
        }
    };
    let (cli, given) = match parse(&arguments.all) {
        Ok(parsed) => parsed,
        Err(e) => {
            // What was typed may be the name of a file.
            if e.use_stderr() {
                print_error("convert", &arguments.describe(&e));
                return 2;
            }
            let _ = write!(out, "{e}").and_then(|()| out.flush());
            return 0;
        }
    };
    let voice = match &cli.command {
        Some(Command::Inspect { voice, .. }) => *voice,
        Some(_) => Voice::default(),
        None => cli.convert.voice,
    };
    let out = &mut Output::new(out, voice);
    let result = match cli.command {
        Some(Command::Inspect { file, hints, .. }) => inspect(&file, &hints, out),
        Some(Command::Report(args)) => report(&args, &command, out),
        Some(Command::Sign(args)) => sign(&args, out),
        Some(Command::Upgrade(args)) => upgrade(&args, out),
        Some(Command::Init(args)) => init(&args, out),
        None => convert_file(&cli.convert, &given, out),
    };
    match result.and_then(|is_done| out.finish().map(|()| is_done).map_err(Into::into)) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(e) => {
            let text = describe(&e);
            print_error("convert", &arguments.placed(&text, &text));
            2
        }
    }
}

/// The command line and the names of its options that are not defaults.
fn parse(args: &[OsString]) -> Result<(Cli, Vec<String>), clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let is_given = |id: &&Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    let given = matches.ids().filter(is_given).map(|id| id.as_str().replace('_', "-")).collect();
    Ok((Cli::from_arg_matches(&matches)?, given))
}

fn ends_in(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending))
}

/// Refuses, before anything is done, an output whose ending says that it is of a kind other than
/// `written`. One without an ending is of the first.
fn check_ending(output: &Path, written: &[&str]) -> Result<()> {
    let Some(ending) = output.extension() else { return Ok(()) };
    ensure!(
        written.iter().any(|known| ends_in(output, known)),
        "{}: .{} is not written; name it {}",
        output.display(),
        ending.display(),
        written.iter().map(|known| format!(".{known}")).collect::<Vec<_>>().join(" or ")
    );
    Ok(())
}

/// Converts, and says how far that is.
fn convert_counted(
    model: &FloatModel,
    pictures: &[Vec<f32>],
    options: Options,
) -> Result<Converted, ConvertError> {
    let what = if options.quantize == Quantize::Int8 { "calibrating" } else { "converting" };
    let counter = Counter::new(what);
    pipeline::convert(model, pictures, options, |done, total| counter.show(done, total))
}

#[cfg(test)]
mod tests {
    use super::{check_ending, run};
    use std::path::Path;

    #[test]
    fn endings_that_are_not_written_are_refused_before_anything_is_done() {
        let written = ["edge", "onnx"];
        for right in ["m.edge", "m.ONNX", "folder.v2/m", "m"] {
            check_ending(Path::new(right), &written).unwrap();
        }
        let error = check_ending(Path::new("m.tflite"), &written).unwrap_err().to_string();
        assert_eq!(error, "m.tflite: .tflite is not written; name it .edge or .onnx");
        let dir = tempfile::tempdir().unwrap();
        for ending in ["tflite", "h", "pth", "keras", "h5", "bin"] {
            let output = dir.path().join("m").with_extension(ending);
            let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.mpk");
            let args = ["convert", model, "-o", output.to_str().unwrap()];
            assert_eq!(run(args, &mut Vec::new()), 2);
            assert_eq!(
                run(["convert", "init", "resnet_8_cifar", args[2], args[3]], &mut Vec::new()),
                2
            );
            assert!(!output.exists());
        }
    }
}
