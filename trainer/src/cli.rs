//! Command line of `trainer`.

use crate::bench::{self, Bench};
use crate::builtin::{Builtin, ICON_SIDE, Target};
use crate::classify::{self, Classify, MAX_TOP};
use crate::data::{CacheSize, DataError, Dataset, Labelled, Pictures, ReadOptions};
use crate::distill::Distill;
use crate::distributed::{self, world};
use crate::doctor::{self, Doctor};
use crate::fit::{self, Fit};
use crate::learning::{Defaults, Learning, ONE_CYCLE_RISE, RecipeName};
use crate::memory::peak_mb;
use crate::net;
use crate::options::{Machine, architecture, check_size, open_model};
use crate::report::{self, Report, ScheduleArgs, Show, command_line};
use crate::train::{
    self, Claim, Evaluation, Existing, Folder, Recipe, Run, SETTINGS, State, Teacher, check_file,
    duration,
};
use anyhow::{Context, bail};
use artifact::Preprocess;
use artifact::text::AsPlain;
use burn::tensor::Device;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use core::sync::atomic::{AtomicBool, Ordering};
use dataset::{Glance, Measured, Watch};
use network::architecture::{Architecture, default_preprocess};
use network::checkpoint::{Checkpoint, Split, TrainingRecord, Validation};
use page::config::{Arguments, Config, repeating};
use page::terminal::{Output, Role, Voice};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use zoo::Head;

const EXAMPLES: &str = "\
Examples:
  trainer finetune --data samples/fashion -o fashion.mpk
  trainer doctor samples/fashion
  trainer eval --model fashion.mpk --data samples/fashion
  trainer train --help";

const TRAIN_EXAMPLES: &str = "\
Examples:
  trainer train --data samples/fashion --epochs 20 -o small.mpk
  trainer train --arch resnet_8_cifar --data samples/fashion --augment strong --json
  trainer train --teacher fashion.mpk --data samples/fashion -o small.mpk";

const FINETUNE_EXAMPLES: &str = "\
Examples:
  trainer finetune --data samples/fashion --out runs/fashion -o fashion.mpk
  trainer finetune --config runs/fashion/run.toml --lr 0.01 --out runs/faster -o faster.mpk
  trainer finetune --qat --model models/resnet_8_cifar10.mpk --data samples/fashion
  trainer finetune --target cortex-m --teacher pets.mpk --unlabelled photos --data pets -o small.mpk";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  trainer doctor samples/fashion
  trainer doctor samples/fashion -o fashion.html
  trainer doctor samples/fashion --quick --json";

const FIT_EXAMPLES: &str = "\
Examples:
  trainer fit --data samples/fashion --board nucleo-f446re -o fitted.mpk
  trainer fit --data samples/fashion --ram 64K --flash 256K --core cortex-m4 --mhz 80 -o small.mpk
  trainer fit --data samples/fashion --board pi4 --latency 50ms -o pi.mpk";

const EVAL_EXAMPLES: &str = "\
Examples:
  trainer eval --model fashion.mpk --data samples/fashion --report fashion.html
  trainer eval --model fashion.mpk --data samples/fashion --json";

const CLASSIFY_EXAMPLES: &str = "\
Examples:
  trainer classify --preset models/mobilenet_v2.mpk samples/pictures/chelsea.png
  trainer classify --preset resnet_50_imagenet --top 3 samples/pictures/rocket.jpg";

const SHOW_EXAMPLES: &str = "\
Examples:
  trainer show --data samples/fashion -o classes.html
  trainer show --data samples/fashion --augment strong -o changes.html";

const SCHEDULE_EXAMPLES: &str = "\
Examples:
  trainer schedule --epochs 30 --lr 0.1 --warmup-epochs 3
  trainer schedule --epochs 30 --pictures 400 --batch 32 -o rate.svg";

const BENCH_EXAMPLES: &str = "\
Examples:
  trainer bench --arch resnet_8_cifar
  trainer bench --arch mobilenet_v2 --batch 16 --steps 4 --layers";

/// Trains image classifiers that run anywhere.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network from scratch.
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(Train),
    /// Teach a trained network other classes.
    #[command(after_help = FINETUNE_EXAMPLES)]
    Finetune(Finetune),
    /// Search the network that suits a board: cut, fine-tuned, converted to int8 and measured.
    #[command(after_help = FIT_EXAMPLES)]
    Fit(Fit),
    /// Say what is to be mended in a data set: damaged files, copies, wrong labels and more.
    ///
    /// The exit status is 0 where nothing must be mended, 1 where something must, 2 after an error.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
    /// Measure a model on labelled pictures.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(Eval),
    /// Say what a model sees in photos.
    #[command(after_help = CLASSIFY_EXAMPLES)]
    Classify(Classify),
    /// Show the pictures of a data set, or what augmentation does to them.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Print and draw the learning rate over a run.
    #[command(after_help = SCHEDULE_EXAMPLES)]
    Schedule(ScheduleArgs),
    /// Measure the speed and the memory of training steps.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Freeze {
    /// Everything but the head; batch-norms keep their statistics.
    Backbone,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Folder with one folder of pictures per class (optionally below train/, val/ and test/), or
    /// with CIFAR-10's binary files.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Memory for decoded pictures: such as 512M or 2G, all, 0, or auto for a quarter of what is
    /// free (1G where the system does not tell). The others are decoded again for each epoch, with
    /// the same result.
    #[arg(long, value_name = "SIZE", default_value_t = CacheSize::Auto)]
    pub(crate) cache: CacheSize,
}

/// What is left to chance.
#[derive(Debug, Args)]
pub(crate) struct Chance {
    /// Share of each class set aside for validation where the folder has no val/ [default: 0.2, or
    /// what --model was not trained on].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    val_split: Option<f64>,
    /// Seed of weights, order, augmentation and split: the same seed gives the same model.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Share of each class that is set aside by default.
const VAL_SPLIT: f64 = 0.2;

/// A share of pictures.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "not in 0..1; pass a share such as 0.2".into())
}

/// What is learned, and how.
#[derive(Debug, Args)]
pub(crate) struct Task {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) chance: Chance,
    #[command(flatten)]
    pub(crate) learning: Learning,
    #[command(flatten)]
    pub(crate) distill: Distill,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    pub(crate) voice: Voice,
}

#[derive(Debug, Args)]
struct Train {
    /// Architecture, such as resnet_8_cifar or resnet_18 [default: resnet_8_cifar; the guide's
    /// recipe: kerashub_guide].
    #[arg(long)]
    arch: Option<String>,
    #[command(flatten)]
    task: Task,
}

#[derive(Debug, Args)]
struct Finetune {
    /// Trained model to start from: a checkpoint (.mpk), a KerasHub preset (directory or name), a
    /// PyTorch state dict, hf://owner/name or kaggle://owner/model/framework/variation; where left
    /// out, a built-in one: for photos MobileNetV2, which knows ImageNet, and for pictures of 32
    /// pixels or so ResNet-20, which knows CIFAR-10.
    #[arg(long, alias = "preset", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// What the finished model is to run on: cortex-m starts from smaller built-in networks,
    /// MobileNetV1 with a quarter of the channels and ResNet-8.
    #[arg(long, value_enum, default_value_t = Target::Host, conflicts_with = "model")]
    target: Target,
    /// Part of the network that does not learn.
    #[arg(long, value_enum)]
    freeze: Option<Freeze>,
    /// Let it learn, too, after this many epochs; never where left out.
    #[arg(long, value_name = "N", requires = "freeze")]
    freeze_epochs: Option<u32>,
    /// Begin with a random head. By default, it is the one that is best for the features that the
    /// model has already; the guide's recipe, --qat with other classes and networks of small
    /// pictures begin with a random one.
    #[arg(long)]
    no_linear_probe: bool,
    /// Prepare the model for int8 (quantization-aware): a few epochs in which weights and maps are
    /// rounded as the device rounds them. With the classes of the model, its head is kept.
    #[arg(long)]
    qat: bool,
    /// Factor on the learning rate of the backbone [default: 0.3; the guide's recipe and --qat: 1].
    #[arg(long, value_name = "FACTOR")]
    backbone_rate: Option<f64>,
    #[command(flatten)]
    task: Task,
}

#[derive(Debug, Args)]
struct Eval {
    /// Model to measure: a checkpoint (.mpk), a KerasHub preset (directory or name), a PyTorch
    /// state dict, hf://owner/name or kaggle://owner/model/framework/variation.
    #[arg(long, alias = "preset", value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    voice: Voice,
    /// Also report how often the class is among the K best.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top_k: usize,
    /// Pictures per step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Also write a page with figures, charts and mistakes (.html).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Measure this share of each class, instead of what the model's run set aside.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    val_split: Option<f64>,
    /// Choose it by this seed, instead of the run's.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Runs the program: `args` with the program's name first, answers to `out`.
///
/// Returns the exit status: 0, an answer; 1, a data set of which something must be mended; 2, some of
/// several inputs failed.
///
/// # Errors
/// Everything that should end in exit status 2, with what to do about it.
pub fn run<I, A>(args: I, out: &mut dyn Write) -> anyhow::Result<u8>
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let typed = command_line(&args);
    let arguments = Arguments::new(args, &command())?;
    let parsed = command().try_get_matches_from(&arguments.all);
    let cli = match parsed.and_then(|given| Ok((Cli::from_arg_matches(&given)?, given))) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help and version are answers.
            write!(out, "{error}")?;
            return Ok(0);
        }
        Err(error) => bail!("{}", arguments.describe(&error)),
    };
    dispatch(cli, typed, out).map_err(|error| {
        let text = error.to_string();
        let placed = arguments.placed(&text, &text);
        if placed == text { error } else { error.context(placed) }
    })
}

/// The command line's description, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs what was parsed; `given` are all options, `command` is what was typed.
fn dispatch(
    (cli, given): (Cli, ArgMatches),
    command: String,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    match cli.command {
        Command::Train(args) => distributed::run(out, |out| {
            train_command(&args, (command, &given), &mut output(out, args.task.voice))
        })?,
        Command::Finetune(args) => distributed::run(out, |out| {
            finetune_command(&args, (command, &given), &mut output(out, args.task.voice))
        })?,
        Command::Fit(args) => {
            fit::run(&args, (command, &given), &mut output(out, args.task.voice))?
        }
        Command::Doctor(args) => {
            return doctor::run(&args, &command, &mut output(out, args.voice));
        }
        Command::Eval(args) => eval_command(&args, &command, &mut output(out, args.voice))?,
        Command::Classify(args) => return classify::run(&args, &mut output(out, args.voice)),
        Command::Show(args) => report::show(&args, out)?,
        Command::Schedule(args) => report::schedule(&args, out)?,
        Command::Bench(args) => bench::run(&args, &mut output(out, args.voice))?,
    }
    Ok(0)
}

/// What this process says: of several, the first one alone.
fn output(out: &mut dyn Write, voice: Voice) -> Output<'_> {
    let silent = Voice { quiet: true, json: false };
    Output::new(out, if world().rank() == 0 { voice } else { silent })
}

/// Set by the first Ctrl-C.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// The first Ctrl-C ends the run after its step, the second at once.
pub(crate) fn stop_on_interrupt() {
    // Fails where a handler exists already: in tests, and on a second run in one process.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; Ctrl-C again stops at once");
    });
}

/// Reads what is to be learned; goes on from a model with the record `base`.
pub(crate) fn read(
    common: &Common,
    chance: &Chance,
    preprocess: Preprocess,
    classes: Option<usize>,
    base: &TrainingRecord,
    out: &mut Output<'_>,
) -> anyhow::Result<Dataset> {
    let options = ReadOptions {
        preprocess,
        val_split: chance.val_split.unwrap_or(VAL_SPLIT),
        seed: chance.seed,
        classes,
        cache: common.cache,
    };
    // Who says how many are to be set aside gets as many.
    let unknown = TrainingRecord::default();
    let base = if chance.val_split.is_some() { &unknown } else { base };
    let data = counted(|watch| Dataset::read_for(&common.data, &options, base, watch))?;
    writeln!(out, "{}: {}", common.data.display().to_string().plain(), data.extent())?;
    for note in data.notes().iter().chain(&data.checkup()) {
        out.note(Role::Warning, &note.plain().to_string())?;
    }
    let (kept, all) = (data.in_memory(), data.pictures());
    if kept < all {
        let note = format!("in memory: {kept} of {all} pictures (--cache {})", common.cache);
        writeln!(out, "{}", Role::Dim.paint(note))?;
    }
    Ok(data)
}

/// Reads pictures, and says how many, in the first of several processes.
pub(crate) fn counted<T>(
    read: impl FnOnce(Watch<'_>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let counter = train::counter("reading pictures");
    read(&|done, total| {
        if let Some(counter) = &counter {
            counter.show(done, total);
        }
    })
}

/// A command as it was typed, and all its options.
pub(crate) type Given<'a> = (String, &'a ArgMatches);

fn train_command(args: &Train, given: Given<'_>, out: &mut Output<'_>) -> anyhow::Result<()> {
    let (arch, defaults) = match args.task.learning.recipe {
        RecipeName::Default => ("resnet_8_cifar", Defaults::SCRATCH),
        RecipeName::OneCycle => ("resnet_8_cifar", Defaults::ONE_CYCLE),
        RecipeName::FastCifar => ("resnet_20_cifar", Defaults::FAST_CIFAR),
        RecipeName::KerashubGuide => ("kerashub_guide", Defaults::GUIDE_SCRATCH),
    };
    let arch = args.arch.as_deref().unwrap_or(arch);
    let mut config = architecture(arch)?;
    if args.task.learning.grey {
        config.channels = 1;
    }
    let side = args.task.learning.size.unwrap_or(config.native_size());
    check_size(side)?;
    let preprocess = match args.task.learning.recipe {
        RecipeName::KerashubGuide => Preprocess::raw(side, side),
        _ => default_preprocess(side),
    };
    let preprocess = config.preprocess(preprocess);
    let recipe =
        args.task.learning.recipe(args.task.chance.seed, &defaults).map_err(anyhow::Error::msg)?;
    let job = Job { config, preprocess, recipe, base: None, given };
    job.run(&args.task, out)
}

fn finetune_command(args: &Finetune, given: Given<'_>, out: &mut Output<'_>) -> anyhow::Result<()> {
    let learning = &args.task.learning;
    let glance = Glance::at(&args.task.common.data)?;
    let (mut base, side) = match &args.model {
        Some(path) => (distributed::from_first(|| open_model(path, Head::Optional))?, None),
        None => {
            let builtin = Builtin::for_pictures(glance.side, args.target);
            (builtin.open()?, builtin.side)
        }
    };
    if learning.grey {
        base = net::make_grey(base).map_err(anyhow::Error::msg)?;
    }
    let mut preprocess = base.preprocess;
    if let Some(side) = learning.size.or(side) {
        check_size(side)?;
        (preprocess.height, preprocess.width) = (side, side);
    }
    let mut defaults = match learning.recipe {
        RecipeName::Default if args.qat => Defaults::QAT,
        _ => tuning(learning, &base.preprocess, &glance)?,
    };
    defaults.backbone_rate = args.backbone_rate.unwrap_or(defaults.backbone_rate);
    let mut recipe =
        learning.recipe(args.task.chance.seed, &defaults).map_err(anyhow::Error::msg)?;
    recipe.qat = args.qat;
    recipe.probe &= !args.no_linear_probe;
    if args.freeze.is_some() {
        recipe.freeze_epochs = args.freeze_epochs.unwrap_or(recipe.epochs);
    }
    let job = Job { config: base.config.clone(), preprocess, recipe, base: Some(base), given };
    job.run(&args.task, out)
}

/// What fine-tuning a network that saw pictures by `base` says where the user says nothing.
///
/// # Errors
/// A recipe for something else.
pub(crate) fn tuning(
    learning: &Learning,
    base: &Preprocess,
    glance: &Glance,
) -> anyhow::Result<Defaults> {
    let tuning = match usize::from(base.width) <= ICON_SIDE {
        true => Defaults::FINETUNE_SMALL,
        false => Defaults::FINETUNE.over(glance.files),
    };
    Ok(match learning.recipe {
        RecipeName::Default => tuning,
        // Its best epochs are the last ones.
        RecipeName::OneCycle => {
            Defaults { warmup: ONE_CYCLE_RISE, most_warmup: f64::INFINITY, patience: 0.0, ..tuning }
        }
        RecipeName::FastCifar => {
            bail!("--recipe fast-cifar trains from scratch; use trainer train")
        }
        RecipeName::KerashubGuide => Defaults::GUIDE_FINETUNE,
    })
}

/// The options of a run that repeat it, as its folder's file has them.
pub(crate) fn settings(given: &ArgMatches, file: &Path) -> String {
    let description = command();
    let described = given
        .subcommand()
        .and_then(|(name, given)| Some((name, description.find_subcommand(name)?, given)));
    described.map_or_else(String::new, |(name, description, given)| {
        repeating(&format!("trainer {name}"), description, given, file)
    })
}

/// Among how many best ones an answer counts: with as many classes as places, every one would.
fn places(top_k: usize, classes: usize) -> usize {
    if top_k < classes { top_k.max(1) } else { 1 }
}

/// What a run does not train on.
struct HeldOut {
    val: Arc<Pictures>,
    validation: Validation,
    test: Arc<Pictures>,
    test_name: String,
}

impl HeldOut {
    fn of(data: &Dataset) -> Self {
        Self {
            val: Arc::new(data.val.clone()),
            validation: data.validation.clone(),
            test: Arc::new(data.test.clone()),
            test_name: data.test_name.clone(),
        }
    }

    /// Measures the finished model, which lies at `learning.model_out`; tells how it does on the
    /// pictures that chose its epoch, and on those that chose nothing.
    fn measure(
        &self,
        best: &Checkpoint,
        learning: &Learning,
        device: &Device,
        out: &mut dyn Write,
    ) -> anyhow::Result<[Option<Evaluation>; 2]> {
        let path = learning.model_out.display();
        let epoch = best.training.epochs.last().map_or(0, |e| e.epoch);
        let net = train::network(best, device)?;
        let classes = best.labels.len();
        let options = (128, places(learning.top_k, classes));
        let measure = |pictures: &Arc<Pictures>| {
            train::evaluate(&net, pictures, &best.preprocess, classes, options, device)
        };
        let mut measured = [None, None];
        if self.val.is_empty() {
            writeln!(out, "{path}: epoch {epoch}, not measured (no validation pictures)")?;
        } else {
            let m = measure(&self.val)?;
            let (summary, n) = (m.summary(), m.pictures);
            let on = format!("{n} validation pictures ({}), {}", self.validation, m.margin());
            writeln!(out, "{path}: epoch {epoch}, {} on {on}", Role::Good.paint(summary))?;
            measured[0] = Some(m);
        }
        if !self.test.is_empty() {
            let m = measure(&self.test)?;
            let (summary, n, name) = (m.summary(), m.pictures, &self.test_name);
            writeln!(
                out,
                "{} on {n} test pictures ({name}), which chose nothing, {}",
                Role::Good.paint(summary),
                m.margin()
            )?;
            measured[1] = Some(m);
        }
        Ok(measured)
    }
}

/// What `train` and `finetune` share.
struct Job<'a> {
    config: Architecture,
    preprocess: Preprocess,
    recipe: Recipe,
    base: Option<Checkpoint>,
    given: Given<'a>,
}

impl Job<'_> {
    /// What a run starts from, and at which size it sees pictures.
    fn beginning(&self) -> String {
        let size = format!("{}×{} pixels", self.preprocess.width, self.preprocess.height);
        match &self.base {
            Some(base) => format!("from {}, {size}", base.origin()),
            None => format!("{} from scratch, {size}", self.config.name),
        }
    }

    /// The folder of the run, and the right to write the finished model: nobody else will write
    /// there, and it is known now, not after hours, that there can be written.
    fn claims(&self, learning: &Learning) -> anyhow::Result<(Folder, Claim)> {
        let path = &learning.model_out;
        if path.extension().is_some() {
            report::check_extension("-o", path, "mpk")?;
        }
        let existing = match (learning.resume, learning.overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ => Existing::Keep,
        };
        let (command, given) = &self.given;
        let mut folder = match &learning.out {
            Some(dir) => Folder::open(dir, existing, command)?,
            None => {
                let what = if self.base.is_some() { "finetune-" } else { "" };
                let dir = Path::new("runs").join(format!("{what}{}", self.config.name));
                Folder::numbered(&dir, existing, command)?
            }
        };
        let file = folder.path().join(SETTINGS);
        folder.keep_settings(settings(given, &file));
        Ok((folder, Claim::file(path, "-o", command)?))
    }

    /// Says what will run, where and on how many processes.
    fn announce(
        &self,
        folder: Option<&Folder>,
        learning: &Learning,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        if let Some(folder) = folder {
            let beginning = format!("{}, run in {}", self.beginning(), folder.path().display());
            writeln!(out, "{}", beginning.plain())?;
        }
        if learning.model_out.exists() {
            let path = learning.model_out.display();
            let note = format!("{path} is there already; it is replaced at the end");
            writeln!(out, "{}", Role::Warning.paint(note))?;
        }
        if world().processes() > 1 {
            let threads = rayon::current_num_threads();
            writeln!(out, "{} processes, {threads} threads each", world().processes())?;
        }
        Ok(())
    }

    fn run(mut self, task: &Task, out: &mut Output<'_>) -> anyhow::Result<()> {
        let Task { common, chance, learning, distill, .. } = task;
        self.recipe.check()?;
        for photo in &learning.predict {
            // Now, not after hours of training.
            picture::open(photo).with_context(|| format!("--predict {}", photo.display()))?;
        }
        let device = common.machine.device()?;
        let teacher = distill.open()?;
        let claims = (world().rank() == 0).then(|| self.claims(learning)).transpose()?;
        let (folder, model) = claims.unzip();
        self.announce(folder.as_ref(), learning, out)?;
        let started = Instant::now();
        let unknown = TrainingRecord::default();
        let base = self.base.as_ref().map_or(&unknown, |base| &base.training);
        // What the teacher has learned would flatter its student, too.
        let taught = teacher.as_ref().map(Teacher::record).filter(|r| !r.fingerprint.is_empty());
        let base = taught.unwrap_or(base);
        let data = read(common, chance, self.preprocess, learning.classes, base, out)?;
        let teach = |teacher| distill.teaching(teacher, &data, self.preprocess, common.cache, out);
        let teaching = teacher.map(teach).transpose()?;
        self.config.classes = data.labels.len();
        self.config.dropout = learning.dropout.unwrap_or(self.config.dropout);
        stop_on_interrupt();
        let held_out = HeldOut::of(&data);
        let facts = report::DataFacts::new(&data, &common.data);
        let mut run = Run {
            config: self.config,
            preprocess: self.preprocess,
            recipe: self.recipe,
            base: self.base.as_ref(),
            teaching: teaching.as_ref(),
            folder,
            device: device.clone(),
            checkpointing: learning.checkpointing,
            top_k: places(learning.top_k, data.labels.len()),
            // A launcher may show its processes a terminal and write to a file.
            terminal: world().processes() == 1 && out.is_terminal(),
            stop: &STOP,
        };
        let best = run.train(data, out)?;
        let (Some(folder), Some(claim)) = (&run.folder, model) else { return Ok(()) };
        claim.check()?;
        best.save(&learning.model_out)?;
        let [measured, tested] = held_out.measure(&best, learning, &device, out.answer())?;
        // The best model only knows the epochs up to its own, and not how long they took.
        let state = State::load(&folder.file("state.mpk")?)?;
        let page = folder.file("report.html")?;
        let report = Report {
            model: &learning.model_out,
            command: &self.given.0,
            data: facts,
            checkpoint: &best,
            epochs: &state.last.training.epochs,
            measured: measured.as_ref().map(|m| (m, &*held_out.val)),
            seconds: started.elapsed().as_secs_f64(),
        };
        report.save(&page)?;
        writeln!(out, "{}: the report", page.display().to_string().plain())?;
        write!(out, "{} in all", duration(started.elapsed().as_secs_f64()))?;
        if let Some(mb) = peak_mb() {
            write!(out, ", peak memory {mb:.0} MB")?;
        }
        writeln!(out)?;
        let top = learning.top_k.clamp(1, MAX_TOP);
        let predictions = classify::photos(&best, &learning.predict, top, out.answer())?;
        out.tell("model", page::told(&learning.model_out))?;
        out.tell("folder", page::told(folder.path()))?;
        out.tell("report", page::told(&page))?;
        out.tell("epoch", best.training.epochs.last().map_or(0, |e| e.epoch))?;
        out.tell("epochs", &state.last.training.epochs)?;
        out.tell("validation", measured)?;
        out.tell("test", tested)?;
        out.tell("predictions", predictions)?;
        out.tell("seconds", started.elapsed().as_secs_f64())?;
        Ok(out.finish()?)
    }
}

fn eval_command(args: &Eval, command: &str, out: &mut Output<'_>) -> anyhow::Result<()> {
    let started = Instant::now();
    if let Some(page) = &args.report {
        report::check_extension("--report", page, "html")?;
        check_file(page).with_context(|| format!("--report {}", page.display()))?;
    }
    let data = &args.common.data;
    std::fs::metadata(data).with_context(|| format!("--data {}", data.display()))?;
    let checkpoint = open_model(&args.model, Head::Required)?;
    let device = args.common.machine.device()?;
    let classes = checkpoint.labels.len();
    let choice = (args.val_split.is_some() || args.seed.is_some()).then(|| {
        let of_run = match checkpoint.training.validation {
            Validation::Split(split) => split,
            _ => Split { share: VAL_SPLIT, seed: checkpoint.training.seed },
        };
        let share = args.val_split.unwrap_or(of_run.share);
        Split { share, seed: args.seed.unwrap_or(of_run.seed) }
    });
    let model = Measured {
        labels: &checkpoint.labels,
        preprocess: checkpoint.preprocess,
        training: &checkpoint.training,
        samples: &checkpoint.samples,
    };
    let cache = args.common.cache;
    let data = counted(|watch| Labelled::read(&args.common.data, &model, choice, cache, watch))?;
    for note in &data.notes {
        out.note(Role::Warning, &note.plain().to_string())?;
    }
    let facts = report::DataFacts::measured(&data, &args.common.data);
    let pictures = Arc::new(data.pictures);
    let net = train::network(&checkpoint, &device)?;
    let options = (args.batch.max(1), places(args.top_k, classes));
    let p = &checkpoint.preprocess;
    let m = train::evaluate(&net, &pictures, p, classes, options, &device)?;
    if let Some(page) = &args.report {
        let report = Report {
            model: &args.model,
            command,
            data: facts,
            checkpoint: &checkpoint,
            epochs: &checkpoint.training.epochs,
            measured: Some((&m, &*pictures)),
            seconds: started.elapsed().as_secs_f64(),
        };
        report.save(page)?;
        writeln!(out, "{}: the report", page.display().to_string().plain())?;
    }
    if out.is_json() {
        out.tell("model", page::told(&args.model))?;
        out.tell("labels", &checkpoint.labels)?;
        out.tell("pictures", &data.which)?;
        out.tell("evaluation", &m)?;
        return Ok(out.finish()?);
    }
    let out = out.answer();
    let summary = Role::Good.paint(m.summary());
    let chose = if data.chose { ", which chose its epoch" } else { "" };
    writeln!(
        out,
        "{summary}, loss {:.4} on {}{chose}, {}",
        m.loss,
        data.which.plain(),
        m.margin()
    )?;
    per_class(&checkpoint.labels, &m, out)
}

/// A line for each class that has pictures.
fn per_class(labels: &[String], m: &Evaluation, out: &mut dyn Write) -> anyhow::Result<()> {
    let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(5).max(5);
    writeln!(out, "{:width$}  pictures  right     %  most taken for", "class")?;
    for (i, (label, row)) in labels.iter().zip(&m.confusion).enumerate() {
        let count: usize = row.iter().sum();
        if count == 0 {
            continue;
        }
        let share = 100.0 * row[i] as f64 / count.max(1) as f64;
        let wrong = row.iter().enumerate().filter(|(j, n)| *j != i && **n > 0);
        let taken = wrong
            .max_by_key(|(_, n)| **n)
            .map_or(String::new(), |(j, n)| format!("{} ({n})", labels[j]));
        let (label, taken) = (label.plain(), taken.plain());
        writeln!(out, "{label:width$}  {count:8}  {:5}  {share:4.1}  {taken}", row[i])?;
    }
    Ok(())
}
