//! A whole training run: epochs, measuring, checkpoints, resuming.

use super::loss::balanced_weights;
use super::pass::Pass;
use super::validation::{Measured, Validation};
use super::{DIVERGED, Folder, Optimizer, Progress, Recipe, State, duration};
use crate::data::{DataError, Dataset, batch_count};
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
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

/// Pictures kept in the checkpoint for calibration, at most.
const MAX_SAMPLES: usize = 256;
/// Bytes of those pictures, at most.
const MAX_SAMPLE_BYTES: usize = 4 << 20;

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
    /// Folder for `best.mpk`, `last.mpk` and `state.mpk`, with the state to go on with if there is
    /// one; `None` in processes that do not write.
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
        let world = distributed::world();
        ensure!(
            world.processes() == 1 || accel::supports(&self.device),
            "this backend trains in one process only; use --backend flex"
        );
        let recipe = &self.recipe;
        let training = self.device.clone().autodiff();
        let init = Init { rule: recipe.init, seed: recipe.seed };
        let mut net = Network::new(&self.config, init, &training)
            .map_err(|what| anyhow::anyhow!("{}: {what}", self.config.name))?;
        crate::options::check_precision(recipe.precision, &self.device)?;
        if !accel::is_fast(recipe.precision) {
            writeln!(
                out,
                "this processor has no fast instructions for {}; f32 is faster here",
                recipe.precision
            )?;
        }
        net.set_precision(recipe.precision);
        let mut optimizer = Optimizer::new(recipe.optimizer);
        let resumed = before.is_some();
        let mut state = distributed::from_first(|| {
            if let Some(state) = before {
                self.check_resumed(&state, &data)?;
                return Ok(state);
            }
            if let Some(base) = self.base {
                // What is to become int8 is to stay what it is.
                let keeps_head = recipe.qat && base.labels == data.labels;
                net::load_tensors(&mut net, &base.tensors, !keeps_head)?;
            }
            let tensors = net::save_tensors(&net);
            let state = State::new(Draft { tensors, ..self.draft(&data)? });
            // So that a run that is stopped before its first whole epoch can be resumed, too.
            let folder = self.folder()?;
            folder.clear()?;
            state.save(&folder.file("state.mpk")?)?;
            Ok(state)
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
        let weights = match recipe.balance {
            true => balanced_weights(&data.train.counts(classes)),
            false => vec![1.0; classes],
        };
        let (train, val) = (Arc::new(data.train), Validation::new(data.val));
        let batches = batch_count(train.len(), recipe.batch, true);
        let steps = recipe.steps(batches);
        let schedule = recipe.schedule(steps);
        let mut progress = Progress::new(self.terminal);
        let began = std::time::Instant::now();
        while !state.done() {
            progress.start_epoch();
            net.set_backbone_frozen(state.epoch < recipe.freeze_epochs);
            let (epoch, first) = (state.epoch, state.step);
            let pass = Pass { run: self, schedule, batches, epoch, first, weights: &weights };
            let (loss, accuracy) =
                pass.run(&mut net, &mut optimizer, &train, &mut progress, out)?;
            // What learns goes on from the raw weights; what is used is their average.
            let plain = measurable(&net);
            let used = optimizer.averaged(measurable(&net)).unwrap_or_else(|| plain.clone());
            let measured = self.measure(&used, &val)?;
            state.epoch += 1;
            state.step += steps as u64;
            let seconds = progress.elapsed().as_secs_f64();
            let record = EpochRecord {
                epoch: state.epoch,
                learning_rate: schedule.at(state.step - 1),
                train_loss: loss,
                train_accuracy: accuracy,
                val_loss: measured.as_ref().map(|m| m.loss),
                val_accuracy: measured.as_ref().map(|m| m.accuracy),
                val_top_k_accuracy: measured.as_ref().map(|m| m.top_k_accuracy),
                seconds,
                wait_seconds: progress.waited().as_secs_f64(),
            };
            progress
                .line(&self.epoch_line(&record, train.len(), began.elapsed().as_secs_f64()), out)?;
            state.last.training.epochs.push(record);
            state.last.tensors = net::save_tensors(&plain);
            state.last.fits().map_err(|what| anyhow::anyhow!("{what}; {DIVERGED}"))?;
            let accuracy = measured.map(|m| m.accuracy);
            let better = state.best.is_none() || accuracy.is_none() || accuracy > state.best;
            if better {
                (state.best, state.best_epoch) = (accuracy, state.epoch);
            }
            if world.rank() > 0 {
                continue;
            }
            let finished = Draft { tensors: net::save_tensors(&used), ..state.last.clone() };
            let finished = finished.check().map_err(anyhow::Error::msg)?;
            let folder = self.folder()?;
            if better {
                finished.save(&folder.file("best.mpk")?)?;
            }
            finished.save(&folder.file("last.mpk")?)?;
            state.memory = optimizer.memory();
            state.ranges = net.ranges();
            // Last: whatever was written before is written again by the repeated epoch.
            state.save(&folder.file("state.mpk")?)?;
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

    /// The folder, in the process that writes.
    fn folder(&self) -> anyhow::Result<&Folder> {
        self.folder.as_ref().context("this process has no folder to write to")
    }

    /// The best model of the run that ends with `state`.
    fn best(&self, state: &State) -> anyhow::Result<Checkpoint> {
        let path = self.folder()?.file("best.mpk")?;
        let best = Checkpoint::load(&path)?;
        let epochs = &state.last.training.epochs;
        ensure!(
            epochs.get(..state.best_epoch as usize) == Some(&best.training.epochs),
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
            first.options == self.recipe.options(&self.config) && first.last.config == self.config,
            "the options are not those of rank 0; start every process with the same command"
        );
        Ok(())
    }

    /// Refuses to go on with the state of another run.
    fn check_resumed(&self, state: &State, data: &Dataset) -> anyhow::Result<()> {
        let dir = self.folder()?.path().display();
        for (name, value) in self.recipe.options(&self.config) {
            let before = state.options.get(&name).map_or("unset", String::as_str);
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

    /// A checkpoint of this run without tensors.
    fn draft(&self, data: &Dataset) -> anyhow::Result<Draft> {
        Ok(Draft {
            samples: samples(data, &self.preprocess, self.recipe.seed)?,
            training: TrainingRecord {
                dataset: data.name.clone(),
                fingerprint: data.fingerprint.clone(),
                seed: self.recipe.seed,
                options: self.recipe.options(&self.config),
                epochs: Vec::new(),
                validation: data.validation.clone(),
                base: self.base.map_or(String::new(), |base| base.origin()),
            },
            ..Draft::new(self.config.clone(), data.labels.clone(), self.preprocess, BTreeMap::new())
        })
    }

    fn epoch_line(&self, r: &EpochRecord, pictures: usize, elapsed: f64) -> String {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let mut val = String::new();
        if let (Some(loss), Some(accuracy)) = (r.val_loss, r.val_accuracy) {
            val = format!(", val loss {loss:.4} acc {}", percent(accuracy));
        }
        if let Some(near) = r.val_top_k_accuracy.filter(|_| self.top_k > 1) {
            val += &format!(" top-{} {}", self.top_k, percent(near));
        }
        let seconds = r.seconds.max(1e-9);
        let waiting = 100.0 * r.wait_seconds / seconds;
        let waiting = match waiting >= 1.0 {
            true => format!(", {waiting:.0} % waiting for pictures"),
            false => String::new(),
        };
        // A terminal has shown the speed already, and the report has the rate.
        let more = match self.terminal {
            true => String::new(),
            false => format!(
                ", lr {:.5}, {:.0} images/s{waiting}",
                r.learning_rate,
                pictures as f64 / seconds
            ),
        };
        format!(
            "epoch {}/{} loss {:.4} acc {:.2} %{val}{more}, {} so far",
            r.epoch,
            self.recipe.epochs,
            r.train_loss,
            100.0 * r.train_accuracy,
            duration(elapsed)
        )
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{CacheSize, ReadOptions};
    use crate::net::InitRule;
    use crate::train::{Average, Clip, Existing, OptimizerConfig, Rule};
    use core::sync::atomic::Ordering;
    use network::random::Rng;
    use std::path::Path;

    const SIDE: u16 = 16;

    fn config() -> Architecture {
        let mut config = Architecture::by_name("resnet_8_cifar", 2).unwrap();
        let resnet = config.family.resnet_mut().unwrap();
        resnet.input_conv_filters = vec![8];
        resnet.stackwise_num_filters = vec![8, 8];
        resnet.stackwise_num_blocks = vec![1, 1];
        resnet.stackwise_num_strides = vec![1, 2];
        config.dropout = 0.2;
        config
    }

    fn preprocess() -> Preprocess {
        Preprocess::normalized(SIDE, SIDE, [0.5; 3], [0.25; 3])
    }

    /// Bright and dark noise, which any network tells apart.
    fn pictures(root: &Path) -> Dataset {
        let mut rng = Rng::keyed(&[5]);
        for (class, floor) in [("bright", 100), ("dark", 0)] {
            std::fs::create_dir_all(root.join(class)).unwrap();
            for i in 0..20 {
                let side = u32::from(SIDE);
                let pixel = |_, _| image::Rgb([(); 3].map(|()| floor + rng.below(150) as u8));
                let path = root.join(class).join(format!("{i}.png"));
                image::RgbImage::from_fn(side, side, pixel).save(path).unwrap();
            }
        }
        let options = ReadOptions {
            preprocess: preprocess(),
            val_split: 0.25,
            seed: 1,
            classes: None,
            cache: CacheSize::Auto,
        };
        Dataset::read(root, &options).unwrap()
    }

    fn recipe(epochs: u32) -> Recipe {
        Recipe {
            epochs,
            batch: 8,
            rate: 0.05,
            optimizer: OptimizerConfig {
                weight_decay: 5e-4,
                average: Some(Average { decay: 0.8, overwrite: None }),
                accumulate: 2,
                ..OptimizerConfig::plain(Rule::Sgd { momentum: 0.9, nesterov: true })
            },
            init: InitRule::He,
            label_smoothing: 0.1,
            balance: true,
            precision: Precision::F32,
            warmup_epochs: 0.5,
            hold_epochs: 0.0,
            seed: 3,
            augment: "strong".parse().unwrap(),
            start_size: Some(8),
            freeze_epochs: 0,
            patience: None,
            qat: false,
        }
    }

    /// In a folder that may hold another run already.
    fn run<'a>(dir: &Path, epochs: u32, resume: bool, stop: &'a AtomicBool) -> Run<'a> {
        let existing = if resume { Existing::Resume } else { Existing::Overwrite };
        Run {
            config: config(),
            preprocess: preprocess(),
            recipe: recipe(epochs),
            base: None,
            folder: Some(Folder::open(dir, existing, "a test").unwrap()),
            device: Device::flex(),
            checkpointing: false,
            top_k: 1,
            terminal: false,
            stop,
        }
    }

    /// A file in its folder.
    fn file(run: &Run<'_>, name: &str) -> std::path::PathBuf {
        run.folder().unwrap().path().join(name)
    }

    /// Stops the run when it reports an epoch.
    struct StopAfter<'a>(&'static str, &'a AtomicBool);
    impl Write for StopAfter<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if String::from_utf8_lossy(bytes).contains(self.0) {
                self.1.store(true, Ordering::Relaxed);
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn without_times(checkpoint: Checkpoint) -> Draft {
        let mut checkpoint = checkpoint.into_draft();
        checkpoint
            .training
            .epochs
            .iter_mut()
            .for_each(|e| (e.seconds, e.wait_seconds) = (0.0, 0.0));
        checkpoint
    }

    #[test]
    fn a_resumed_run_equals_an_unbroken_one() {
        resumed_equals_unbroken(false, "epoch 1/3");
    }

    /// Also where ranges are learned.
    #[test]
    fn a_resumed_run_to_int8_equals_an_unbroken_one() {
        resumed_equals_unbroken(true, "epoch 1/3");
    }

    #[test]
    fn a_run_that_was_stopped_in_its_first_epoch_equals_an_unbroken_one() {
        resumed_equals_unbroken(false, NOW);
        resumed_equals_unbroken(true, NOW);
    }

    /// Stops the run after its first step.
    const NOW: &str = "";

    fn resumed_equals_unbroken(qat: bool, stop_after: &'static str) {
        let run = |dir, epochs, resume, stop| {
            let mut run = run(dir, epochs, resume, stop);
            run.recipe.qat = qat;
            run
        };
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let whole = dir.path().join("whole");
        run(&whole, 3, false, &never).train(data.clone(), &mut Vec::new()).unwrap();

        let broken = dir.path().join("broken");
        let stop = AtomicBool::new(stop_after == NOW);
        let error = run(&broken, 3, false, &stop)
            .train(data.clone(), &mut StopAfter(stop_after, &stop))
            .unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
        let again = Folder::open(&broken, Existing::Keep, "again");
        match stop_after {
            NOW => drop(again.expect("nothing would be lost")),
            _ => assert!(again.unwrap_err().to_string().contains("--resume")),
        }
        let other = run(&broken, 4, true, &never).train(data.clone(), &mut Vec::new());
        assert!(other.unwrap_err().to_string().contains("epochs 3, not 4"));
        run(&broken, 3, true, &never).train(data.clone(), &mut Vec::new()).unwrap();

        for file in ["last.mpk", "best.mpk"] {
            let load = |dir: &Path| without_times(Checkpoint::load(&dir.join(file)).unwrap());
            assert!(load(&whole) == load(&broken), "{file} differs");
        }
        let last = Checkpoint::load(&whole.join("last.mpk")).unwrap();
        assert_eq!(last.training.epochs.len(), 3);
        assert!(!last.samples.is_empty());
        assert!(last.training.epochs[2].train_loss < last.training.epochs[0].train_loss);
    }

    #[test]
    fn a_frozen_backbone_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let base = run(&dir.path().join("base"), 1, false, &never)
            .train(data.clone(), &mut Vec::new())
            .unwrap();
        let mut second = run(&dir.path().join("head"), 1, false, &never);
        second.base = Some(&base);
        second.recipe.freeze_epochs = 1;
        let tuned = second.train(data, &mut Vec::new()).unwrap();
        for (name, tensor) in &base.tensors {
            let same = tuned.tensors[name] == *tensor;
            assert_eq!(same, !net::is_head(name), "{name}");
        }
    }

    #[test]
    fn a_thawed_backbone_learns() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let mut first = run(&dir.path().join("thawed"), 2, false, &never);
        first.recipe.freeze_epochs = 1;
        first.recipe.augment = "none".parse().unwrap();
        let path = file(&first, "last.mpk");
        first.train(data.clone(), &mut Vec::new()).unwrap();
        let thawed = Checkpoint::load(&path).unwrap();
        first = run(&dir.path().join("frozen"), 2, false, &never);
        first.recipe.freeze_epochs = 2;
        first.recipe.augment = "none".parse().unwrap();
        let path = file(&first, "last.mpk");
        first.train(data, &mut Vec::new()).unwrap();
        let frozen = Checkpoint::load(&path).unwrap();
        for (name, tensor) in &frozen.tensors {
            assert_ne!(&thawed.tensors[name], tensor, "{name}");
        }
    }

    /// Pools of one and of three threads give the same bits, on the same pictures in any order
    /// of work.
    #[test]
    fn threads_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let train = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let folder = dir.path().join(threads.to_string());
            let checkpoint = pool
                .install(|| run(&folder, 2, false, &never).train(data.clone(), &mut Vec::new()))
                .unwrap();
            without_times(checkpoint)
        };
        assert!(train(1) == train(3));
    }

    #[test]
    fn checkpointing_changes_nothing_but_memory() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        // Of two epochs, the backbone learns in all, in the last, or in none.
        for frozen in [0, 1, 2] {
            let train = |checkpointing: bool| {
                let folder = dir.path().join(format!("{frozen} {checkpointing}"));
                let mut run = run(&folder, 2, false, &never);
                run.recipe.freeze_epochs = frozen;
                run.checkpointing = checkpointing;
                without_times(run.train(data.clone(), &mut Vec::new()).unwrap())
            };
            assert!(train(true) == train(false), "{frozen}");
        }
    }

    #[test]
    fn patience_ends_a_run_that_does_not_get_better() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let mut patient = run(&dir.path().join("run"), 50, false, &never);
        // Nothing changes at this rate, so the first epoch stays the best.
        patient.recipe.rate = 1e-12;
        patient.recipe.patience = Some(2);
        patient.recipe.optimizer.average = None;
        patient.recipe.augment = "none".parse().unwrap();
        let mut log = Vec::new();
        patient.train(data, &mut log).unwrap();
        let state = State::load(&file(&patient, "state.mpk")).unwrap();
        assert_eq!(state.epoch, state.best_epoch + 2);
        assert!(state.done());
        assert!(
            String::from_utf8(log)
                .unwrap()
                .contains("stopped: none of 2 epochs was better than epoch")
        );
        drop(patient);
        let error = Folder::open(&dir.path().join("run"), Existing::Keep, "again").unwrap_err();
        assert!(error.to_string().contains("holds a finished run of"), "{error}");
        assert!(error.to_string().contains("--overwrite"), "{error}");
    }

    /// Nobody is impatient before the backbone has begun to learn.
    #[test]
    fn patience_waits_for_the_thaw() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let mut patient = run(&dir.path().join("run"), 20, false, &never);
        patient.recipe.rate = 1e-12;
        patient.recipe.patience = Some(2);
        patient.recipe.freeze_epochs = 4;
        patient.recipe.optimizer.average = None;
        patient.recipe.augment = "none".parse().unwrap();
        patient.train(data, &mut Vec::new()).unwrap();
        let state = State::load(&file(&patient, "state.mpk")).unwrap();
        assert_eq!(state.epoch, state.best_epoch.max(4) + 2);
    }

    /// Another run's model is never taken for this one's.
    #[test]
    fn a_replaced_model_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let mut other = run(&dir.path().join("other"), 1, false, &never);
        other.train(data.clone(), &mut Vec::new()).unwrap();
        let mut own = run(&dir.path().join("own"), 1, false, &never);
        own.train(data.clone(), &mut Vec::new()).unwrap();
        std::fs::copy(file(&other, "best.mpk"), file(&own, "best.mpk")).unwrap();
        drop(own);
        let resumed = run(&dir.path().join("own"), 1, true, &never).train(data, &mut Vec::new());
        let error = resumed.unwrap_err().to_string();
        assert!(error.contains("best.mpk is not the model of this run's epoch 1"), "{error}");
    }

    #[test]
    fn averages_leave_the_network_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let mut averaged = run(&dir.path().join("averaged"), 2, false, &never);
        let mut plain = run(&dir.path().join("plain"), 2, false, &never);
        plain.recipe.optimizer.average = None;
        averaged.train(data.clone(), &mut Vec::new()).unwrap();
        plain.train(data, &mut Vec::new()).unwrap();
        let state = |run: &Run<'_>| State::load(&file(run, "state.mpk")).unwrap();
        let last = |run: &Run<'_>| Checkpoint::load(&file(run, "last.mpk")).unwrap();
        assert!(state(&averaged).last.tensors == state(&plain).last.tensors);
        assert!(last(&averaged).tensors != last(&plain).tensors);
        assert!(last(&plain).tensors == state(&plain).last.tensors);
    }

    #[test]
    fn bad_numbers_name_their_option() {
        let check = |change: &dyn Fn(&mut Recipe)| {
            let mut recipe = recipe(1);
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert!(check(&|r| r.epochs = 0).contains("--epochs"));
        assert!(check(&|r| r.batch = 1).contains("--batch"));
        assert!(check(&|r| r.rate = f64::NAN).contains("--lr"));
        let sgd = |momentum| Rule::Sgd { momentum, nesterov: false };
        assert!(check(&|r| r.optimizer.rule = sgd(1.0)).contains("--momentum"));
        assert!(check(&|r| r.optimizer.accumulate = 0).contains("--accumulate"));
        assert!(check(&|r| r.optimizer.clip = Some(Clip::GlobalNorm(0.0))).contains("--clip-norm"));
        assert!(check(&|r| r.hold_epochs = -1.0).contains("--hold-epochs"));
    }
}
