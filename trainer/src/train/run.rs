//! A whole training run: epochs, measuring, checkpoints, resuming.

use super::lessons::Lessons;
use super::loss::balanced_weights;
use super::pass::Pass;
use super::validation::{Measured, Validation};
use super::{DIVERGED, Folder, Optimizer, Progress, Recipe, State, Teaching, duration};
use crate::data::{DataError, Dataset, Loading, Order, batch_count};
use crate::distributed;
use crate::net::{self, Init, Network};
use accel::Precision;
use anyhow::{Context, ensure};
use artifact::Preprocess;
use burn::module::Module;
use burn::tensor::Device;
use core::sync::atomic::AtomicBool;
use network::architecture::Architecture;
use network::checkpoint::{Checkpoint, Draft, EpochRecord, Sample, TrainingRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

/// Pictures kept in the checkpoint for calibration, at most.
const MAX_SAMPLES: usize = 256;
/// Bytes of those pictures, at most.
const MAX_SAMPLE_BYTES: usize = 4 << 20;

/// Columns of an epoch's line, at most.
const MOST_COLUMNS: usize = 80;

/// A training run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Architecture with as many classes as the data.
    pub config: Architecture,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// How to train.
    pub recipe: Recipe,
    /// Backbone to start from; `None` trains from scratch.
    pub base: Option<&'a Checkpoint>,
    /// Who teaches it, beside the labels.
    pub teaching: Option<&'a Teaching>,
    /// Folder for `best.mpk`, `last.mpk`, `state.mpk` and what the teacher says, with the state to go on
    /// with if there is one; `None` in processes that do not write.
    pub folder: Option<Folder>,
    /// Plain device, without autodiff.
    pub device: Device,
    /// Keep only the maps between blocks for the backward pass, and compute the others again.
    pub checkpointing: bool,
    /// Each epoch also reports how often the class is among this many best.
    pub top_k: usize,
    /// Whether progress may overwrite its line.
    pub terminal: bool,
    /// Set from outside to stop after the current step.
    pub stop: &'a AtomicBool,
}

impl Run<'_> {
    /// Trains on `data` and returns the best checkpoint: by validation accuracy, or the last
    /// one without validation pictures.
    ///
    /// # Errors
    /// Wrong numbers in the recipe, unwritable folders, a state that does not belong to this
    /// run, pictures that cannot be read again, a loss that is no number any more, and interruption.
    ///
    /// Of several processes the first one alone writes, and all return the same.
    pub fn train(&mut self, data: Dataset, out: &mut dyn Write) -> anyhow::Result<Checkpoint> {
        let before = self.folder.as_mut().and_then(Folder::take_state);
        self.run(data, before, out)
    }

    fn run(
        &self,
        data: Dataset,
        before: Option<State>,
        out: &mut dyn Write,
    ) -> anyhow::Result<Checkpoint> {
        self.recipe.check()?;
        if let Some(teaching) = self.teaching {
            teaching.check()?;
            teaching.teacher.order(&data.labels)?;
        }
        let world = distributed::world();
        ensure!(
            world.processes() == 1 || accel::supports(&self.device),
            "this backend trains in one process only; use --backend flex"
        );
        let recipe = &self.recipe;
        let mut train = data.train.clone();
        if let Some(teaching) = self.teaching {
            train.append(&teaching.unlabelled);
        }
        let train = Arc::new(train);
        let mut lessons = Lessons::of(self, &train, &data.labels, &data.fingerprint)?;
        let mut net = self.network(out)?;
        let mut optimizer = Optimizer::new(recipe.optimizer);
        let resumed = before.is_some();
        let mut state = distributed::from_first(|| match before {
            Some(state) => self.check_resumed(&state, &data).map(|()| state),
            None => self.start(&mut net, &data, lessons.as_mut(), out),
        })?;
        self.check_agreement(&state, &data)?;
        net::load_tensors(&mut net, &state.last.tensors, false)?;
        optimizer.restore(core::mem::take(&mut state.memory), &self.device);
        if recipe.qat {
            net.set_rounding(Some(core::mem::take(&mut state.ranges)));
        }
        if resumed {
            writeln!(out, "resuming after epoch {} of {}", state.epoch, recipe.epochs)?;
        }
        let classes = self.config.classes;
        let mut weights = match recipe.balance {
            true => balanced_weights(&data.train.counts(classes)),
            false => vec![1.0; classes],
        };
        // Of pictures that have no class, only the teacher counts.
        weights.push(0.0);
        let val = Validation::new(data.val);
        let batches = batch_count(train.len(), recipe.batch, true);
        let steps = recipe.steps(batches);
        let schedule = recipe.schedule(steps);
        let mut progress = Progress::new(self.terminal);
        let began = std::time::Instant::now();
        while !state.done() {
            progress.start_epoch();
            net.set_backbone_frozen(state.epoch < recipe.freeze_epochs);
            let (epoch, first) = (state.epoch, state.step);
            let lesson = lessons.as_mut().map(|lessons| lessons.epoch(epoch)).transpose()?;
            let lesson = lesson.as_deref();
            let pass =
                Pass { run: self, schedule, batches, epoch, first, weights: &weights, lesson };
            let (loss, accuracy) =
                pass.run(&mut net, &mut optimizer, &train, &mut progress, out)?;
            // What learns goes on from the raw weights; what is used is their average.
            let plain = measurable(&net);
            let used = optimizer.averaged(measurable(&net)).unwrap_or_else(|| plain.clone());
            let measured = self.measure(&used, &val)?;
            state.step += steps as u64;
            let record = EpochRecord {
                epoch: epoch + 1,
                learning_rate: schedule.at(state.step - 1),
                train_loss: loss,
                train_accuracy: accuracy,
                val_loss: measured.as_ref().map(|m| m.loss),
                val_accuracy: measured.as_ref().map(|m| m.accuracy),
                val_top_k_accuracy: measured.as_ref().map(|m| m.top_k_accuracy),
                seconds: progress.elapsed().as_secs_f64(),
                wait_seconds: progress.waited().as_secs_f64(),
            };
            let line = self.epoch_line(&record, train.len(), began.elapsed().as_secs_f64());
            progress.line(&line, out)?;
            let is_better = state.add(record, net::save_tensors(&plain));
            state.last.fits().map_err(|what| anyhow::anyhow!("{what}; {DIVERGED}"))?;
            if world.rank() == 0 {
                (state.memory, state.ranges) = (optimizer.memory(), net.ranges());
                self.save(&state, &used, is_better)?;
            }
        }
        if state.epoch < recipe.epochs {
            writeln!(
                out,
                "stopped: none of {1} epochs was better than epoch {0} (--patience)",
                state.best_epoch,
                state.epoch - state.best_epoch
            )?;
        }
        distributed::from_first(|| self.best(&state))
    }

    /// The network before anything is learned.
    fn network(&self, out: &mut dyn Write) -> anyhow::Result<Network> {
        let Recipe { init, seed, precision, .. } = self.recipe;
        let training = self.device.clone().autodiff();
        let mut net = Network::new(&self.config, Init { rule: init, seed }, &training)
            .map_err(|what| anyhow::anyhow!("{}: {what}", self.config.name))?;
        crate::options::check_precision(precision, &self.device)?;
        if !accel::is_fast(precision) {
            let what = "this processor has no fast instructions for";
            writeln!(out, "{what} {precision}; f32 is faster here")?;
        }
        net.set_precision(precision);
        Ok(net)
    }

    /// Saves what an epoch has made of the state, and the network that is `used`.
    fn save(&self, state: &State, used: &Network, is_better: bool) -> anyhow::Result<()> {
        let mut finished = Draft { tensors: net::save_tensors(used), ..state.last.clone() };
        // The same command gives the same bytes.
        finished.training.epochs = untimed(&finished.training.epochs);
        let finished = finished.check().map_err(anyhow::Error::msg)?;
        let folder = self.folder()?;
        if is_better {
            finished.save(&folder.file("best.mpk")?)?;
        }
        finished.save(&folder.file("last.mpk")?)?;
        // Last: whatever was written before is written again by the repeated epoch.
        state.save(&folder.file("state.mpk")?)?;
        Ok(())
    }

    /// The folder, in the process that writes.
    fn folder(&self) -> anyhow::Result<&Folder> {
        self.folder.as_ref().context("this process has no folder to write to")
    }

    /// The best model of the run that ends with `state`.
    fn best(&self, state: &State) -> anyhow::Result<Checkpoint> {
        let path = self.folder()?.file("best.mpk")?;
        let best = Checkpoint::load(&path)?;
        let epochs = &state.last.training.epochs;
        let of_this_run = epochs.get(..state.best_epoch as usize).map(untimed);
        ensure!(
            of_this_run == Some(untimed(&best.training.epochs)),
            "{} is not the model of this run's epoch {}; somebody has replaced it: train again, \
             with --out and another folder",
            path.display(),
            state.best_epoch
        );
        Ok(best)
    }

    fn measure(&self, net: &Network, val: &Validation) -> Result<Option<Measured>, DataError> {
        let options = (self.recipe.batch.max(64), self.top_k);
        val.measure(net, &self.preprocess, self.config.classes, options, &self.device)
    }

    /// Refuses to train with a process that has another data set or recipe.
    fn check_agreement(&self, first: &State, data: &Dataset) -> anyhow::Result<()> {
        if distributed::world().rank() == 0 {
            return Ok(());
        }
        ensure!(
            first.fingerprint == data.fingerprint && first.last.labels == data.labels,
            "the pictures (fingerprint {}) are not those of rank 0 (fingerprint {}); give every \
             process the same --data",
            data.fingerprint,
            first.fingerprint
        );
        ensure!(
            first.options == self.options() && first.last.config == self.config,
            "the options are not those of rank 0; start every process with the same command"
        );
        Ok(())
    }

    /// Refuses to go on with the state of another run.
    fn check_resumed(&self, state: &State, data: &Dataset) -> anyhow::Result<()> {
        let dir = self.folder()?.path().display();
        let options = self.options();
        let names: BTreeSet<&String> = options.keys().chain(state.options.keys()).collect();
        for name in names {
            let value = |options: &BTreeMap<String, String>| {
                options.get(name).map_or("unset", String::as_str).to_owned()
            };
            let (before, value) = (value(&state.options), value(&options));
            ensure!(
                before == value,
                "{dir} was trained with {name} {before}, not {value}; pass the same options to \
                 resume, or --out with another folder"
            );
        }
        ensure!(
            state.fingerprint == data.fingerprint && state.last.config == self.config,
            "{dir} was trained on other pictures or classes; restore them to resume, or pass \
             --out with another folder"
        );
        Ok(())
    }

    /// What shapes the result, as text, for the training record.
    fn options(&self) -> BTreeMap<String, String> {
        let mut options = self.recipe.options(&self.config);
        options.extend(self.teaching.map(Teaching::options).unwrap_or_default());
        options
    }

    /// How the pictures of an epoch, from 0, become batches.
    pub(super) fn loading(&self, epoch: u32) -> Loading {
        let (recipe, preprocess) = (&self.recipe, self.preprocess);
        let (augment, share) = (recipe.augment.clone(), distributed::share());
        let order = Order::Shuffled { seed: recipe.seed, epoch, augment, share };
        // Only square pictures grow.
        let square = preprocess.height == preprocess.width;
        let side = recipe.side(epoch, preprocess.width).filter(|_| square);
        Loading { preprocess, batch: recipe.batch, side, frame: None, order }
    }

    /// What the views of each epoch, and what a teacher says of them, depend on.
    pub(super) fn views(&self, fingerprint: &str) -> String {
        let Recipe { seed, batch, augment, start_size, epochs, .. } = &self.recipe;
        // What is mixed depends on the size of the batches.
        let growth = start_size.filter(|_| augment.is_of_batches()).map(|side| (side, epochs));
        let (student, teaching) = (self.preprocess, self.teaching.map(Teaching::views));
        let student = (student.height, student.width, student.fit);
        format!("{teaching:?} {student:?} {fingerprint} {seed} {batch} {augment} {growth:?}")
    }

    /// A checkpoint of this run without tensors.
    fn draft(&self, data: &Dataset) -> anyhow::Result<Draft> {
        Ok(Draft {
            samples: samples(data, &self.preprocess, self.recipe.seed)?,
            training: TrainingRecord {
                dataset: data.name.clone(),
                fingerprint: data.fingerprint.clone(),
                seed: self.recipe.seed,
                options: self.options(),
                epochs: Vec::new(),
                validation: data.validation.clone(),
                base: self.base.map_or(String::new(), |base| base.origin()),
            },
            ..Draft::new(self.config.clone(), data.labels.clone(), self.preprocess, BTreeMap::new())
        })
    }

    fn epoch_line(&self, r: &EpochRecord, pictures: usize, elapsed: f64) -> String {
        let mut line = format!(
            "epoch {}/{} loss {:.4} acc {:.1} %",
            r.epoch,
            self.recipe.epochs,
            r.train_loss,
            100.0 * r.train_accuracy
        );
        if let (Some(loss), Some(accuracy)) = (r.val_loss, r.val_accuracy) {
            line += &format!(", val {loss:.4} acc {:.2} %", 100.0 * accuracy);
        }
        let seconds = r.seconds.max(1e-9);
        let waiting = 100.0 * r.wait_seconds / seconds;
        let near = r.val_top_k_accuracy.filter(|_| self.top_k > 1);
        // As far as there is room: the report has them all.
        for more in [
            Some(duration(elapsed)),
            (waiting >= 1.0).then(|| format!("{waiting:.0} % waiting")),
            near.map(|near| format!("top-{} {:.1} %", self.top_k, 100.0 * near)),
            Some(format!("{:.0} images/s", pictures as f64 / seconds)),
        ] {
            let more = more.filter(|more| line.chars().count() + 2 + more.len() <= MOST_COLUMNS);
            line += &more.map_or(String::new(), |more| format!(", {more}"));
        }
        line
    }
}

fn untimed(epochs: &[EpochRecord]) -> Vec<EpochRecord> {
    epochs.iter().map(EpochRecord::untimed).collect()
}

/// Training pictures for calibration, the classes in turn.
fn samples(data: &Dataset, p: &Preprocess, seed: u64) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut total = 0;
    for i in data.train.stratified(MAX_SAMPLES, seed) {
        let label = data.train.labels[i];
        let sample = Sample::encode(label, &data.train.get(i)?, p.width, p.height)
            .context("cannot encode a picture for calibration")?;
        total += sample.png.len();
        if total > MAX_SAMPLE_BYTES {
            break;
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// A copy to measure with, whose running statistics are its own: a clone would share them.
fn measurable(net: &Network) -> Network {
    let mut copy = net.valid();
    copy.set_precision(Precision::F32);
    copy
}

mod start;
#[cfg(test)]
mod tests;
