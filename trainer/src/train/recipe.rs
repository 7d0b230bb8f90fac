//! What shapes the result of a run.

use super::{Clip, OptimizerConfig, Rule, Schedule};
use crate::data::augment::Augment;
use crate::distributed;
use crate::net::InitRule;
use accel::Precision;
use anyhow::ensure;
use network::architecture::Architecture;
use std::collections::BTreeMap;

/// What shapes the result of a run, beside the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Passes over the training pictures.
    pub epochs: u32,
    /// Pictures per gradient.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// Optimizer.
    pub optimizer: OptimizerConfig,
    /// How fresh weights are drawn.
    pub init: InitRule,
    /// Share of the target spread over all classes, ε.
    pub label_smoothing: f64,
    /// Rare classes weigh more, so that all classes weigh the same.
    pub balance: bool,
    /// Epochs of rising rate.
    pub warmup_epochs: f64,
    /// Epochs at the highest rate.
    pub hold_epochs: f64,
    /// Number type of feature maps in training; measuring is always in f32.
    pub precision: Precision,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// Random changes of training pictures.
    pub augment: Augment,
    /// Side in pixels of the input at the start, where it is not the full one.
    pub start_size: Option<u16>,
    /// Begin with the head that is best for the features of the trained network, instead of a
    /// random one.
    pub probe: bool,
    /// Epochs at the start in which only the head learns.
    pub freeze_epochs: u32,
    /// Epochs without a better validation accuracy after which the run ends.
    pub patience: Option<u32>,
    /// Compute as int8 will, in training and when measuring.
    pub qat: bool,
}

impl Recipe {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first number out of range, with the range.
    pub fn check(&self) -> anyhow::Result<()> {
        let unit = 0.0..1.0;
        let o = &self.optimizer;
        ensure!(self.epochs > 0, "--epochs 0 trains nothing; pass at least 1");
        ensure!(self.batch >= 2, "--batch {}: batch statistics need at least 2", self.batch);
        distributed::share().check(self.batch)?;
        ensure!(
            !self.qat || self.precision == Precision::F32,
            "--qat rounds maps to int8, which {} would round a second time; use --precision f32",
            self.precision
        );
        ensure!(
            !self.qat || distributed::world().processes() == 1,
            "--qat trains in one process, which sees the ranges of all maps"
        );
        ensure!(o.accumulate > 0, "--accumulate 0 never makes a step; pass at least 1");
        ensure!(self.patience != Some(0), "--patience 0 would never train; pass at least 1");
        let momentum = match o.rule {
            Rule::Sgd { momentum, .. } => momentum,
            Rule::Adam { .. } => 0.0,
        };
        let shares = [
            ("momentum", momentum),
            ("weight-decay", o.weight_decay),
            ("label-smoothing", self.label_smoothing),
            ("ema", o.average.map_or(0.0, |a| a.decay)),
        ];
        for (name, value) in shares {
            ensure!(unit.contains(&value), "--{name} {value} is not in 0..1");
        }
        ensure!(
            self.start_size.is_none_or(|side| (8..=1024).contains(&side)),
            "--start-size {} is not in 8..=1024",
            self.start_size.unwrap_or(0)
        );
        let clip = match o.clip {
            Some(Clip::Norm(v) | Clip::GlobalNorm(v) | Clip::Value(v)) => v,
            None => 1.0,
        };
        for (name, value) in [("lr", self.rate), ("clip-norm", clip)] {
            ensure!(
                value.is_finite() && value > 0.0,
                "--{name} {value}: pass a number above 0, such as 0.1"
            );
        }
        let counts = [
            ("warmup-epochs", self.warmup_epochs),
            ("hold-epochs", self.hold_epochs),
            ("backbone-rate", o.backbone_rate),
        ];
        for (name, value) in counts {
            ensure!(
                value.is_finite() && value >= 0.0,
                "--{name} {value} is not a number of at least 0"
            );
        }
        Ok(())
    }

    /// Side of the input in pixels in an epoch, from 0, where it is not yet the `full` one: a
    /// straight line over the first part of the run.
    pub fn side(&self, epoch: u32, full: u16) -> Option<u16> {
        /// Share of the run until which the side grows.
        const GROWTH: f64 = 0.6;
        /// Sides are multiples of it: a fraction of the last map's pixel gains nothing.
        const STEP: u16 = 4;

        let start = self.start_size.filter(|start| *start < full)?;
        let progress = f64::from(epoch) / (GROWTH * f64::from(self.epochs));
        let grown = f64::from(start) + progress * f64::from(full - start);
        let side = (grown / f64::from(STEP)).round() as u16 * STEP;
        (progress < 1.0 && side < full).then_some(side)
    }

    /// Steps of an epoch with `batches` batches.
    pub fn steps(&self, batches: usize) -> usize {
        batches.div_ceil(self.optimizer.accumulate as usize)
    }

    /// The learning rates of a run with `steps` steps an epoch.
    pub fn schedule(&self, steps: usize) -> Schedule {
        let epochs = [self.warmup_epochs, self.hold_epochs, f64::from(self.epochs)];
        Schedule::over_epochs(self.rate, epochs, steps)
    }

    /// The recipe as text, for the training record.
    pub(super) fn options(&self, config: &Architecture) -> BTreeMap<String, String> {
        let o = &self.optimizer;
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".into());
        let (optimizer, momentum) = match o.rule {
            Rule::Sgd { momentum, nesterov: false } => ("sgd", momentum),
            Rule::Sgd { momentum, nesterov: true } => ("sgd-nesterov", momentum),
            Rule::Adam { beta_1, .. } => ("adamw", beta_1),
        };
        let clip = o.clip.map(|clip| match clip {
            Clip::Norm(v) => format!("{v} each"),
            Clip::GlobalNorm(v) => v.to_string(),
            Clip::Value(v) => format!("{v} value"),
        });
        [
            ("accumulate", o.accumulate.to_string()),
            ("arch", config.name.clone()),
            ("augment", self.augment.to_string()),
            ("backbone-rate", o.backbone_rate.to_string()),
            ("balance", self.balance.to_string()),
            ("batch", self.batch.to_string()),
            ("clip-norm", or_none(clip)),
            ("decay-all", o.decay_all.to_string()),
            ("dropout", config.dropout.to_string()),
            ("ema", or_none(o.average.map(|a| a.decay.to_string()))),
            ("epochs", self.epochs.to_string()),
            ("freeze-epochs", self.freeze_epochs.to_string()),
            ("hold-epochs", self.hold_epochs.to_string()),
            ("init", format!("{:?}", self.init).to_lowercase()),
            ("label-smoothing", self.label_smoothing.to_string()),
            ("lr", self.rate.to_string()),
            ("momentum", momentum.to_string()),
            ("optimizer", optimizer.into()),
            ("patience", or_none(self.patience.map(|p| p.to_string()))),
            ("precision", self.precision.to_string()),
            ("seed", self.seed.to_string()),
            ("start-size", or_none(self.start_size.map(|side| side.to_string()))),
            ("warmup-epochs", self.warmup_epochs.to_string()),
            ("weight-decay", o.weight_decay.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        // Others are as they were before there were these.
        .chain((config.channels == 1).then(|| ("grey".into(), "true".into())))
        .chain(self.probe.then(|| ("linear-probe".into(), "true".into())))
        .chain(self.qat.then(|| ("qat".into(), "true".into())))
        .collect()
    }
}
