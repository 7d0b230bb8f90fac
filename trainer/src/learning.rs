//! The options that `train` and `finetune` share, and the recipes behind their defaults.

use crate::data::augment::Augment;
use crate::net::InitRule;
use crate::train::{Average, Clip, OptimizerConfig, Recipe, Rule};
use accel::Precision;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecipeName {
    /// What works best here.
    Default,
    /// A rate that rises for 30 % of the run and falls for the rest (Smith and Topin 2017).
    OneCycle,
    /// CIFAR-10 in little time: high rate and decay, small pictures first, averaged weights.
    FastCifar,
    /// What KerasHub's image classification guide does, value by value.
    KerashubGuide,
}

/// Share of a one-cycle run in which the rate rises.
pub(crate) const ONE_CYCLE_RISE: f64 = 0.3;

/// Fewest epochs that a run waits for a better accuracy, unless it is told to wait for fewer.
const LEAST_PATIENCE: u32 = 8;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with decoupled weight decay.
    Adamw,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum InitName {
    /// Normal over the fan-out.
    He,
    /// Uniform over fan-in and fan-out, as Keras.
    Glorot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClassWeights {
    /// Every picture counts the same.
    Equal,
    /// Every class counts the same, however few pictures it has.
    Balanced,
}

#[derive(Debug, Args)]
pub(crate) struct Learning {
    /// Values behind the options that are left out.
    #[arg(long, value_enum, default_value_t = RecipeName::Default)]
    pub(crate) recipe: RecipeName,
    /// Passes over the training pictures.
    #[arg(long)]
    pub(crate) epochs: Option<u32>,
    /// Pictures per gradient.
    #[arg(long)]
    pub(crate) batch: Option<usize>,
    /// Gradients per step: a batch as large as memory does not allow.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) accumulate: u32,
    /// Highest learning rate.
    #[arg(long, value_name = "RATE")]
    pub(crate) lr: Option<f64>,
    /// What turns gradients into steps.
    #[arg(long, value_enum, default_value_t = OptimizerName::Sgd)]
    pub(crate) optimizer: OptimizerName,
    /// Momentum of SGD.
    #[arg(long)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov's momentum.
    #[arg(long)]
    pub(crate) nesterov: bool,
    /// Decoupled weight decay, multiplied by the learning rate.
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// Decay batch-norms and biases, too, as Keras does.
    #[arg(long)]
    pub(crate) decay_all: bool,
    /// Longest gradient, over all tensors.
    #[arg(long, value_name = "NORM")]
    pub(crate) clip_norm: Option<f64>,
    /// Keep, and use, an average of the weights with this share surviving each step, such as
    /// 0.999.
    #[arg(long, value_name = "DECAY")]
    pub(crate) ema: Option<f64>,
    /// Share of each target spread over all classes.
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f64>,
    /// Share of the features left out before the head.
    #[arg(long, value_name = "SHARE")]
    pub(crate) dropout: Option<f64>,
    /// How much each class counts.
    #[arg(long, value_enum, default_value_t = ClassWeights::Equal)]
    pub(crate) class_weights: ClassWeights,
    /// Epochs of rising learning rate.
    #[arg(long)]
    pub(crate) warmup_epochs: Option<f64>,
    /// Epochs at the highest learning rate.
    #[arg(long)]
    pub(crate) hold_epochs: Option<f64>,
    /// Numbers that training computes with; weights and measuring stay in f32.
    #[arg(long, value_parser = crate::options::precision(), default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
    /// Random changes of training pictures: none, light, strong, kerashub-guide, or a list
    /// such as `flip,crop=0.5,rotate=15,color=0.3,mixup=0.2`; a wrong name lists all.
    #[arg(long, value_name = "STEPS", value_parser = str::parse::<Augment>)]
    pub(crate) augment: Option<Augment>,
    /// The same as --augment none.
    #[arg(long, conflicts_with = "augment")]
    pub(crate) no_augment: bool,
    /// Train with much less memory, in about a third more time and with the same result: of the
    /// maps that the backward pass needs, keep only those between blocks.
    #[arg(long)]
    pub(crate) checkpointing: bool,
    /// How fresh weights are drawn.
    #[arg(long, value_enum)]
    pub(crate) init: Option<InitName>,
    /// Stop after this many epochs without a better validation accuracy, 0 for never [default: to
    /// fine-tune, 8, or 8 of 30 in longer runs; else never].
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) patience: Option<u32>,
    /// Number of classes that the data must have.
    #[arg(long)]
    pub(crate) classes: Option<usize>,
    /// Look at the luma of pictures only: a network with one input channel, for grey cameras or less
    /// work. A trained network is changed so that it says the same of grey pictures.
    #[arg(long)]
    pub(crate) grey: bool,
    /// Input side in pixels; the architecture's own where left out.
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<u16>,
    /// Input side of the first epoch, which grows to the full one over the first 60 % of the run:
    /// small pictures take less time, and most of what is to be learned is seen in them, too.
    #[arg(long, value_name = "PIXELS")]
    pub(crate) start_size: Option<u16>,
    /// Folder of the run: best.mpk, last.mpk, state.mpk, report.html, run.toml, of a --teacher also
    /// teacher.bin, what it has said, which --overwrite keeps [default: runs/<arch>, with a
    /// number where that is taken].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The finished model.
    #[arg(short = 'o', long = "model-out", value_name = "FILE", default_value = "model.mpk")]
    pub(crate) model_out: PathBuf,
    /// Continue the run in --out after its last whole epoch.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace the run that is in --out already.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite: bool,
    /// Also report how often the class is among the K best.
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub(crate) top_k: usize,
    /// Classify this photo with the finished model.
    #[arg(long, value_name = "PHOTO")]
    pub(crate) predict: Vec<PathBuf>,
}

/// What a recipe says where the user says nothing.
#[derive(Debug)]
pub(crate) struct Defaults {
    pub(crate) epochs: u32,
    pub(crate) batch: usize,
    pub(crate) rate: f64,
    pub(crate) momentum: f64,
    pub(crate) weight_decay: f64,
    pub(crate) decay_all: bool,
    pub(crate) label_smoothing: f64,
    pub(crate) nesterov: bool,
    pub(crate) ema: Option<f64>,
    pub(crate) start_size: Option<u16>,
    /// As a share of all epochs.
    pub(crate) warmup: f64,
    /// As a share of all epochs.
    pub(crate) hold: f64,
    /// Longest warm-up, in epochs.
    pub(crate) most_warmup: f64,
    pub(crate) augment: &'static str,
    pub(crate) init: InitRule,
    pub(crate) backbone_rate: f64,
    /// Begin with the best head for the features that there are.
    pub(crate) probe: bool,
    /// As a share of all epochs; never stops early where it is 0.
    pub(crate) patience: f64,
}

impl Defaults {
    /// Training from scratch.
    pub(crate) const SCRATCH: Self = Self {
        epochs: 30,
        batch: 128,
        rate: 0.1,
        momentum: 0.9,
        weight_decay: 5e-4,
        decay_all: false,
        label_smoothing: 0.0,
        nesterov: false,
        ema: None,
        start_size: None,
        warmup: 0.2,
        hold: 0.0,
        most_warmup: 1.0,
        augment: "light",
        init: InitRule::He,
        backbone_rate: 1.0,
        probe: false,
        patience: 0.0,
    };

    /// Training from scratch with one cycle of the rate.
    pub(crate) const ONE_CYCLE: Self =
        Self { warmup: ONE_CYCLE_RISE, most_warmup: f64::INFINITY, ..Self::SCRATCH };

    /// CIFAR-10 in little time; `models/README.md` has what each value is worth.
    pub(crate) const FAST_CIFAR: Self = Self {
        epochs: 60,
        rate: 0.3,
        weight_decay: 2e-3,
        nesterov: true,
        ema: Some(0.998),
        start_size: Some(20),
        warmup: 0.1,
        most_warmup: f64::INFINITY,
        ..Self::SCRATCH
    };

    /// Teaching a network of photos other classes: from the head that is best for what it sees
    /// already, slowly. `docs/finetuning.md` has what each value is worth.
    pub(crate) const FINETUNE: Self = Self {
        epochs: 6,
        batch: 32,
        rate: 0.003,
        ema: Some(0.98),
        backbone_rate: 0.3,
        probe: true,
        augment: "flip,crop=0.8",
        patience: 8.0 / 30.0,
        ..Self::SCRATCH
    };

    /// Teaching a small network of small pictures other classes, which bears more: all of it learns
    /// from the start. After the last epoch of ResNet-20, means of two or three seeds at rates
    /// 0.01, 0.02 and 0.04: 90.8, 90.5 and 89.5 % on photos of cats and dogs, which it knows from
    /// CIFAR-10, and 75.0, 78.0 and 79.3 % on `samples/fashion`, which is new to it.
    ///
    /// What it knows already it knows best after a few epochs: on those photos, at 0.01, epochs 5,
    /// 20 and 7 of 30 are the best, and with this patience runs end after 13, 12 and 15, with 0,
    /// 0.5 and 0 points less. On `samples/fashion`, which it learns longer, they end after 29, 27
    /// and 22 with none less; with a patience of 5, two of them lose 3 points.
    pub(crate) const FINETUNE_SMALL: Self =
        Self { batch: 32, rate: 0.02, backbone_rate: 0.3, patience: 8.0 / 30.0, ..Self::SCRATCH };

    /// Fine-tuning to int8: a few epochs that move nothing far. The shipped ResNet-8 has 89.43 % in
    /// floats; in int8, 89.22 % after two epochs at 0.005 and 89.42 % at this rate.
    pub(crate) const QAT: Self = Self {
        epochs: 3,
        batch: 128,
        rate: 0.001,
        most_warmup: 0.5,
        backbone_rate: 1.0,
        ..Self::SCRATCH
    };

    /// The guide's third section, "Train a classifier from scratch". It trains one epoch and
    /// advises 100.
    pub(crate) const GUIDE_SCRATCH: Self = Self {
        epochs: 1,
        batch: 32,
        rate: 1e-2,
        momentum: 0.9,
        weight_decay: 5e-4,
        decay_all: true,
        label_smoothing: 0.1,
        nesterov: false,
        ema: None,
        start_size: None,
        warmup: 0.1,
        hold: 0.45,
        most_warmup: f64::INFINITY,
        augment: "kerashub-guide",
        init: InitRule::Glorot,
        backbone_rate: 1.0,
        probe: false,
        patience: 0.0,
    };

    /// The guide's second section, "Fine tuning a pretrained classifier": SGD at 0.01 and
    /// nothing else.
    pub(crate) const GUIDE_FINETUNE: Self = Self {
        momentum: 0.0,
        weight_decay: 0.0,
        decay_all: false,
        label_smoothing: 0.0,
        warmup: 0.0,
        hold: 1.0,
        augment: "none",
        ..Self::GUIDE_SCRATCH
    };
}

/// Steps that fine-tuning makes, about, where pictures are few.
const STEPS: usize = 100;
/// Most epochs for them.
const MOST_EPOCHS: u32 = 20;

impl Defaults {
    /// For about as many pictures: few are passed over more often.
    pub(crate) fn over(self, pictures: usize) -> Self {
        let steps = pictures.div_ceil(self.batch).max(1);
        let epochs = STEPS.div_ceil(steps) as u32;
        Self { epochs: self.epochs.max(epochs.min(MOST_EPOCHS)), ..self }
    }
}

impl Learning {
    /// Epochs without a better accuracy after which a run of `epochs` ends.
    fn patience(&self, epochs: u32, d: &Defaults) -> Option<u32> {
        // Small pictures first get better late.
        let grows = self.start_size.or(d.start_size).is_some();
        let share = if grows { 0.0 } else { d.patience };
        let default = (share > 0.0).then(|| LEAST_PATIENCE.max((f64::from(epochs) * share) as u32));
        self.patience.or(default).filter(|epochs| *epochs > 0)
    }

    /// The recipe: what the user said over what `d` says.
    pub(crate) fn recipe(&self, seed: u64, d: &Defaults) -> Result<Recipe, String> {
        let epochs = self.epochs.unwrap_or(d.epochs);
        let share = |share: f64| f64::from(epochs) * share;
        let momentum = self.momentum.unwrap_or(d.momentum);
        let rule = match self.optimizer {
            OptimizerName::Sgd => Rule::Sgd { momentum, nesterov: self.nesterov || d.nesterov },
            OptimizerName::Adamw => Rule::ADAM,
        };
        // Adam's steps are about as long as its rate, whatever the gradient.
        let rate = match self.optimizer {
            OptimizerName::Sgd => d.rate,
            OptimizerName::Adamw => d.rate / 20.0,
        };
        let augment = match (&self.augment, self.no_augment) {
            (Some(augment), _) => augment.clone(),
            (None, true) => Augment::default(),
            (None, false) => d.augment.parse()?,
        };
        Ok(Recipe {
            epochs,
            batch: self.batch.unwrap_or(d.batch),
            rate: self.lr.unwrap_or(rate),
            optimizer: OptimizerConfig {
                rule,
                weight_decay: self.weight_decay.unwrap_or(d.weight_decay),
                decay_all: self.decay_all || d.decay_all,
                backbone_rate: d.backbone_rate,
                clip: self.clip_norm.map(Clip::GlobalNorm),
                average: self.ema.or(d.ema).map(|decay| Average { decay, overwrite: None }),
                accumulate: self.accumulate,
            },
            init: match self.init {
                Some(InitName::He) => InitRule::He,
                Some(InitName::Glorot) => InitRule::Glorot,
                None => d.init,
            },
            label_smoothing: self.label_smoothing.unwrap_or(d.label_smoothing),
            balance: self.class_weights == ClassWeights::Balanced,
            // A warm-up that is longer than a short run would never reach the rate.
            warmup_epochs: self.warmup_epochs.unwrap_or(share(d.warmup).min(d.most_warmup)),
            hold_epochs: self.hold_epochs.unwrap_or(share(d.hold)),
            precision: self.precision,
            seed,
            augment,
            start_size: self.start_size.or(d.start_size),
            probe: d.probe,
            freeze_epochs: 0,
            patience: self.patience(epochs, d),
            qat: false,
        })
    }
}
