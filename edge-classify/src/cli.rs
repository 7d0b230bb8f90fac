//! The command line.

use clap::{Args, Parser, Subcommand};
use core::num::NonZeroUsize;
use runtime::Isa;
use std::path::PathBuf;

/// Most classes printed for a picture.
pub(crate) const MAX_TOP: usize = 100;

const AFTER_HELP: &str = "\
Pictures: JPEG, PNG, WebP, BMP and GIF, told by their contents, at most
32768 pixels a side and 512 MiB decoded. The EXIF orientation is applied.
Transparent pictures are put on white. Of animated ones the first frame is
classified, and a note says so. Folders are searched for files with a
picture's suffix, in the order of their names; what else is in them is
counted and named. Links to folders are not followed.

A model that was converted with --unknown tells pictures that are like none it
was calibrated on: `unknown`, with the class that would be likeliest.

Exit status: 0 an answer for each picture; 1 --threshold was given and some
picture has no class that likely or is unknown; 2 some picture (the others are still
classified) or the whole run failed.

Files named `bench`, `serve` or `teach` are given as ./bench, ./serve or ./teach.

Examples:
  edge-classify samples/pictures/chelsea.png
  edge-classify --csv --top 1 samples/pictures
  edge-classify --heatmap heat.png samples/pictures/chelsea.png
  edge-classify --model models/resnet_8_cifar10.edge --json samples/fashion/val";

const BENCH_EXAMPLES: &str = "\
Examples:
  edge-classify bench models/mobilenet_v2.edge
  edge-classify bench models/resnet_8_cifar10.edge --layers --threads 1";

const TEACH_EXAMPLES: &str = "\
Examples:
  edge-classify teach --model pets.edge --label crow crows -o pets.patch
  edge-classify --model pets.edge --patch pets.patch garden.jpg
  edge-classify teach --model pets.edge --patch pets.patch --replace cat our_cat -o pets.patch";

/// Says what is in pictures.
#[derive(Debug, Parser)]
#[command(
    name = "edge-classify",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Pictures, folders of pictures, or - for a picture on standard input
    #[arg(value_name = "FILE|DIR|-", required_unless_present_any = ["tensor", "watch"])]
    pub(crate) files: Vec<PathBuf>,

    /// Model to use instead of the built-in one (an .edge file, made by `convert`)
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,

    /// Refuse a model that is not signed with the key that belongs to this public key (Ed25519, PEM);
    /// see `convert sign`
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(crate) key: Option<PathBuf>,

    /// Also know the classes that the model was taught, by `edge-classify teach` or by a device; with --key, the patch
    /// has to be signed, too
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with = "heatmap")]
    pub(crate) patch: Option<PathBuf>,

    /// Check the patch with this public key, such as that of the device which learned, instead of that of --key
    #[arg(long, value_name = "FILE", requires = "patch")]
    pub(crate) patch_key: Option<PathBuf>,

    /// Also classify each picture that appears in this folder, or changes, until interrupted (Ctrl-C);
    /// with --json, one object a line. It is said where pictures drift from what the model knows, if it tells
    /// unknown pictures
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tensor", "logits"])]
    pub(crate) watch: Option<PathBuf>,

    /// Delete pictures that --watch has answered, but for the newest N of them; never one that was in
    /// the folder before, or has no answer
    #[arg(long, value_name = "N", requires = "watch")]
    pub(crate) keep: Option<usize>,

    /// Classes to print for each picture, likeliest first
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = top)]
    pub(crate) top: usize,

    /// Print only classes with at least this probability (0 to 1)
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) threshold: Option<f32>,

    /// Print one JSON array: {file, classes: [{label, probability}]} for each picture; of models that tell
    /// unknown pictures with `distance`, which is above 1 where the picture is unknown, and `unknown`
    #[arg(long)]
    pub(crate) json: bool,

    /// Print a table (CSV, RFC 4180): a row for each picture with `file`, `label`, `probability`,
    /// `label2`, … up to --top, `distance` where the model tells unknown pictures, `error`; names that a spreadsheet would compute get an apostrophe
    #[arg(long, conflicts_with_all = ["json", "logits"])]
    pub(crate) csv: bool,

    /// Say nothing but answers and errors
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Also print the milliseconds for decoding, preprocessing and running
    #[arg(long)]
    pub(crate) time: bool,

    /// Classify preprocessed input instead of pictures: a NumPy file of float32, (h,w,c) or
    /// (n,h,w,c)
    #[arg(long, value_name = "NPY", conflicts_with = "files")]
    pub(crate) tensor: Option<PathBuf>,

    /// Print the model's raw outputs as JSON, {"logits": [[...], ...]}, instead of classes
    #[arg(long, conflicts_with_all = ["json", "threshold", "time"])]
    pub(crate) logits: bool,

    /// Draw over each picture where the class comes from: a PNG of at most 1024 pixels a side; of several pictures
    /// or a folder, a folder of them. With --json, the numbers are printed, too
    #[arg(long, value_name = "PNG|DIR", conflicts_with_all = ["tensor", "watch", "logits"])]
    pub(crate) heatmap: Option<PathBuf>,

    /// The class that --heatmap draws [default: each picture's likeliest]
    #[arg(long, value_name = "NAME", requires = "heatmap")]
    pub(crate) class: Option<String>,

    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// How to run.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// Threads to run the model on [default: one for each CPU]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Instruction set to use instead of the best one of this CPU
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<Isa>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a model's latency
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Teach a model that was converted with --unknown a class, from some pictures of it and as a device does: the model's
    /// file stays as it is, a patch of some kilobytes is written beside it
    #[command(after_help = TEACH_EXAMPLES)]
    Teach(Teach),
    /// Classify pictures that are sent by HTTP
    #[cfg(feature = "serve")]
    Serve(Box<crate::serve::Options>),
    /// Classify pictures that are sent by HTTP (not in this build)
    #[cfg(not(feature = "serve"))]
    #[command(disable_help_flag = true)]
    Serve {
        /// Ignored
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<std::ffi::OsString>,
    },
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Model to run (an .edge file)
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Runs to measure, after warming up
    #[arg(long, value_name = "K", default_value = "50")]
    pub(crate) runs: NonZeroUsize,

    /// Also time each operator, and compare it with the inner loop alone
    #[arg(long)]
    pub(crate) layers: bool,

    /// Also time other engines on the same network in their format: .onnx for onnxruntime, openvino
    /// and tract, .tflite for LiteRT; may be given several times. Uses the Python packages that
    /// `python3` (or $PYTHON) finds
    #[arg(long, value_name = "FILE", conflicts_with = "layers")]
    pub(crate) compare: Vec<PathBuf>,

    /// Rounds of --compare, in each of which every engine runs once
    #[arg(long, value_name = "N", default_value = "3", requires = "compare")]
    pub(crate) rounds: NonZeroUsize,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// Options of `teach`.
#[derive(Debug, Args)]
pub(crate) struct Teach {
    /// Pictures of the class, or folders of them, 8 or better more
    #[arg(value_name = "FILE|DIR|-", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// The model (an .edge file, made by `convert --unknown`)
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,

    /// Name of the class [default: that of --replace]
    #[arg(long, value_name = "NAME", required_unless_present = "replace")]
    pub(crate) label: Option<String>,

    /// The class that it takes the place of, the model's or one that it was taught
    #[arg(long, value_name = "CLASS")]
    pub(crate) replace: Option<String>,

    /// What the model was taught before, which the new patch has, too
    #[arg(long, value_name = "FILE")]
    pub(crate) patch: Option<PathBuf>,

    /// The patch
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Say nothing but errors
    #[arg(long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) machine: Machine,
}

pub(crate) fn top(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(k) if (1..=MAX_TOP).contains(&k) => Ok(k),
        _ => Err(format!("want a number from 1 to {MAX_TOP}")),
    }
}

pub(crate) fn probability(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("want a number from 0 to 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
