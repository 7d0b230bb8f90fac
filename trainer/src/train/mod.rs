//! The training loop.
//!
//! Everything random in an epoch follows from the seed and the epoch's number, and the
//! state is saved after each whole epoch. A run that was killed repeats its broken epoch
//! from there and ends with the same weights as one that was not.

mod evaluate;
mod loss;
mod progress;
mod schedule;
mod sgd;
mod state;

pub(crate) use convert::progress::duration;
pub use evaluate::{Evaluation, evaluate};
pub use loss::{argmax, cross_entropy, rank, targets};
pub use progress::{Figures, Progress};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdConfig, Velocity};
pub use state::{State, StateError};

use crate::data::{Augment, Batches, Dataset, Order, batch_count};
use crate::resnet::{self, ResNet};
use anyhow::{Context, bail, ensure};
use artifact::Preprocess;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use convert::checkpoint::{Checkpoint, EpochRecord, FORMAT, Sample, TrainingRecord, VERSION};
use convert::resnet::ResNetConfig;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pictures kept in the checkpoint for calibration, at most.
const MAX_SAMPLES: usize = 256;
/// Bytes of those pictures, at most.
const MAX_SAMPLE_BYTES: usize = 4 << 20;

/// What shapes the result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Passes over the training pictures.
    pub epochs: u32,
    /// Pictures per step.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// Optimizer.
    pub sgd: SgdConfig,
    /// Share of the target spread over all classes, ε.
    pub label_smoothing: f64,
    /// Epochs of rising rate.
    pub warmup_epochs: f64,
    /// Epochs at the highest rate.
    pub hold_epochs: f64,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// Random flips and shifts.
    pub augment: bool,
    /// Train only the head.
    pub freeze_backbone: bool,
}

impl Recipe {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first number out of range, with the range.
    pub fn check(&self) -> anyhow::Result<()> {
        let unit = 0.0..1.0;
        ensure!(self.epochs > 0, "--epochs 0 trains nothing; pass at least 1");
        ensure!(self.batch >= 2, "--batch {}: batch statistics need at least 2", self.batch);
        ensure!(
            self.rate.is_finite() && self.rate > 0.0,
            "--lr {}: pass a number above 0, such as 0.1",
            self.rate
        );
        let (momentum, decay) = (self.sgd.momentum, self.sgd.weight_decay);
        ensure!(unit.contains(&momentum), "--momentum {momentum} is not in 0..1");
        ensure!(unit.contains(&decay), "--weight-decay {decay} is not in 0..1");
        let smoothing = self.label_smoothing;
        ensure!(unit.contains(&smoothing), "--label-smoothing {smoothing} is not in 0..1");
        for (name, value) in [("warmup", self.warmup_epochs), ("hold", self.hold_epochs)] {
            ensure!(
                value.is_finite() && value >= 0.0,
                "--{name}-epochs {value} is not a number of at least 0"
            );
        }
        Ok(())
    }

    /// The learning rates of a run with `steps` steps an epoch.
    pub fn schedule(&self, steps: usize) -> Schedule {
        let at = |epochs: f64| (epochs * steps as f64).round() as u64;
        Schedule {
            target: self.rate,
            warmup: at(self.warmup_epochs),
            hold: at(self.hold_epochs),
            total: at(f64::from(self.epochs)),
        }
    }

    /// The recipe as text, for the training record.
    fn options(&self, config: &ResNetConfig) -> BTreeMap<String, String> {
        [
            ("arch", config.name.clone()),
            ("augment", self.augment.to_string()),
            ("backbone-rate", self.sgd.backbone_rate.to_string()),
            ("batch", self.batch.to_string()),
            ("decay-all", self.sgd.decay_all.to_string()),
            ("epochs", self.epochs.to_string()),
            ("freeze-backbone", self.freeze_backbone.to_string()),
            ("hold-epochs", self.hold_epochs.to_string()),
            ("label-smoothing", self.label_smoothing.to_string()),
            ("lr", self.rate.to_string()),
            ("momentum", self.sgd.momentum.to_string()),
            ("seed", self.seed.to_string()),
            ("warmup-epochs", self.warmup_epochs.to_string()),
            ("weight-decay", self.sgd.weight_decay.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// A training run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Architecture with as many classes as the data.
    pub config: ResNetConfig,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// How to train.
    pub recipe: Recipe,
    /// Backbone to start from; `None` trains from scratch.
    pub base: Option<&'a Checkpoint>,
    /// Folder for `best.mpk`, `last.mpk` and `state.mpk`.
    pub dir: PathBuf,
    /// Continue the run in `dir`.
    pub resume: bool,
    /// Plain device, without autodiff.
    pub device: Device,
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
    /// run, a loss that is no number any more, and interruption.
    pub fn train(&self, data: Dataset, out: &mut dyn Write) -> anyhow::Result<Checkpoint> {
        self.recipe.check()?;
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("{}: cannot make this folder", self.dir.display()))?;
        let training = self.device.clone().autodiff();
        let mut net = ResNet::new(&self.config, self.recipe.seed, &training)
            .map_err(|what| anyhow::anyhow!("{}: {what}", self.config.name))?;
        let mut sgd = Sgd::new(self.recipe.sgd);
        let mut state = match self.resume_state(&data)? {
            Some(mut state) => {
                resnet::load_tensors(&mut net, &state.last.tensors, false)?;
                sgd.restore(core::mem::take(&mut state.velocities), &self.device);
                writeln!(out, "resuming after epoch {} of {}", state.epoch, self.recipe.epochs)?;
                state
            }
            None => {
                if let Some(base) = self.base {
                    resnet::load_tensors(&mut net, &base.tensors, true)?;
                }
                State::new(self.checkpoint(&data)?, BTreeMap::new())
            }
        };
        if self.recipe.freeze_backbone {
            net.freeze_backbone();
        }
        let (train, val) = (Arc::new(data.train), Arc::new(data.val));
        let steps = batch_count(train.len(), self.recipe.batch, true);
        let schedule = self.recipe.schedule(steps);
        let mut progress = Progress::new(self.terminal);
        let began = std::time::Instant::now();
        while state.epoch < self.recipe.epochs {
            progress.start_epoch();
            let pass = Pass { run: self, schedule, steps, epoch: state.epoch, first: state.step };
            let (loss, accuracy) = pass.run(&mut net, &mut sgd, &train, &mut progress, out)?;
            let plain = net.valid();
            let measured = (!val.is_empty()).then(|| {
                let options = (self.recipe.batch.max(64), 1);
                let classes = self.config.classes;
                evaluate(&plain, &val, &self.preprocess, classes, options, &self.device)
            });
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
                seconds,
            };
            let left = began.elapsed().as_secs_f64();
            progress.line(&self.epoch_line(&record, train.len(), left), out)?;
            state.last.tensors = resnet::save_tensors(&plain);
            state.last.training.epochs.push(record);
            state.last.check().map_err(|what| anyhow::anyhow!("{what}; {DIVERGED}"))?;
            let accuracy = measured.map(|m| m.accuracy);
            if state.best.is_none() || accuracy.is_none() || accuracy > state.best {
                state.best = accuracy;
                state.last.save(&self.dir.join("best.mpk"))?;
            }
            state.last.save(&self.dir.join("last.mpk"))?;
            state.velocities = sgd.state();
            // Last: whatever was written before is written again by the repeated epoch.
            state.save(&self.dir.join("state.mpk"))?;
        }
        Ok(Checkpoint::load(&self.dir.join("best.mpk"))?)
    }

    /// The state to continue from, if this run is to be resumed.
    fn resume_state(&self, data: &Dataset) -> anyhow::Result<Option<State>> {
        let path = self.dir.join("state.mpk");
        let dir = self.dir.display();
        if !self.resume {
            // An unreadable state is no run to protect.
            if let Ok(state) = State::load(&path)
                && !finished(&state)
            {
                bail!(
                    "{dir} holds a run that stopped after epoch {}; pass --resume to continue it, \
                     or --out with another folder",
                    state.epoch
                );
            }
            return Ok(None);
        }
        if !path.exists() {
            bail!("{dir} holds no run to resume; leave --resume away or pass the run's --out");
        }
        let state = State::load(&path)?;
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
        Ok(Some(state))
    }

    /// A checkpoint of this run without tensors.
    fn checkpoint(&self, data: &Dataset) -> anyhow::Result<Checkpoint> {
        Ok(Checkpoint {
            format: FORMAT.into(),
            version: VERSION,
            config: self.config.clone(),
            labels: data.labels.clone(),
            preprocess: self.preprocess,
            tensors: BTreeMap::new(),
            samples: samples(data, &self.preprocess, self.recipe.seed)?,
            training: TrainingRecord {
                dataset: data.name.clone(),
                fingerprint: data.fingerprint.clone(),
                seed: self.recipe.seed,
                options: self.recipe.options(&self.config),
                epochs: Vec::new(),
            },
        })
    }

    fn epoch_line(&self, r: &EpochRecord, pictures: usize, elapsed: f64) -> String {
        let val = match (r.val_loss, r.val_accuracy) {
            (Some(loss), Some(accuracy)) => {
                format!(", val loss {loss:.4} acc {:.2} %", 100.0 * accuracy)
            }
            _ => String::new(),
        };
        format!(
            "epoch {}/{} loss {:.4} acc {:.2} %{val}, lr {:.5}, {:.0} images/s, {} so far",
            r.epoch,
            self.recipe.epochs,
            r.train_loss,
            100.0 * r.train_accuracy,
            r.learning_rate,
            pictures as f64 / r.seconds.max(1e-9),
            duration(elapsed)
        )
    }
}

const DIVERGED: &str = "training diverged; use a smaller --lr or a longer --warmup-epochs";

fn finished(state: &State) -> bool {
    state.options.get("epochs").is_some_and(|e| e.parse() == Ok(state.epoch))
}

/// One epoch.
struct Pass<'a> {
    run: &'a Run<'a>,
    schedule: Schedule,
    steps: usize,
    /// From 0.
    epoch: u32,
    /// Number of the first step.
    first: u64,
}

impl Pass<'_> {
    /// Trains; returns mean loss and accuracy, both before each step's update.
    fn run(
        &self,
        net: &mut ResNet,
        sgd: &mut Sgd,
        train: &Arc<crate::data::Pictures>,
        progress: &mut Progress,
        out: &mut dyn Write,
    ) -> anyhow::Result<(f64, f64)> {
        let (run, recipe) = (self.run, &self.run.recipe);
        let classes = run.config.classes;
        let device = run.device.clone().autodiff();
        let side = usize::from(run.preprocess.height.min(run.preprocess.width));
        let augment = if recipe.augment { Augment::standard(side) } else { Augment::NONE };
        let order = Order::Shuffled { seed: recipe.seed, epoch: self.epoch, augment };
        let (mut sum, mut right, mut seen) = (0.0, 0, 0);
        let batches = Batches::start(train.clone(), run.preprocess, recipe.batch, order);
        for (step, batch) in batches.enumerate() {
            let count = batch.labels.len();
            let x = Tensor::<4>::from_data(TensorData::new(batch.pixels, batch.shape), &device);
            let logits = net.forward(x);
            let target = targets(&batch.labels, classes, recipe.label_smoothing, &device);
            let cost = cross_entropy(logits.clone(), target);
            let gradients = cost.backward();
            sgd.step(net, gradients, self.schedule.at(self.first + step as u64));
            let cost = f64::from(cost.into_scalar::<f32>());
            ensure!(cost.is_finite(), "epoch {}: the loss is {cost}; {DIVERGED}", self.epoch + 1);
            let scores: Vec<f32> = logits.into_data().iter::<f32>().collect();
            let pairs = scores.chunks_exact(classes).zip(&batch.labels);
            right += pairs.filter(|(s, label)| argmax(s) == **label as usize).count();
            sum += cost * count as f64;
            seen += count;
            let figures = Figures {
                epoch: self.epoch + 1,
                epochs: recipe.epochs,
                step: step + 1,
                steps: self.steps,
                loss: sum / seen as f64,
                accuracy: right as f64 / seen as f64,
                pictures: seen,
            };
            progress.step(&figures, out)?;
            if run.stop.load(Ordering::Relaxed) {
                progress.line("", out)?;
                bail!(
                    "interrupted in epoch {} of {}; the same command with --resume continues \
                     after epoch {}",
                    self.epoch + 1,
                    recipe.epochs,
                    self.epoch
                );
            }
        }
        ensure!(seen > 0, "no training pictures");
        Ok((sum / seen as f64, right as f64 / seen as f64))
    }
}

/// Training pictures for calibration, the classes in turn.
fn samples(data: &Dataset, p: &Preprocess, seed: u64) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut total = 0;
    for i in data.train.stratified(MAX_SAMPLES, seed) {
        let mut png = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        let (width, height) = (u32::from(p.width), u32::from(p.height));
        let color = image::ExtendedColorType::Rgb8;
        image::ImageEncoder::write_image(encoder, data.train.get(i), width, height, color)
            .context("cannot encode a picture for calibration")?;
        total += png.len();
        if total > MAX_SAMPLE_BYTES {
            break;
        }
        samples.push(Sample { label: data.train.labels[i], png });
    }
    Ok(samples)
}

/// Builds the network of a checkpoint on a plain device, ready to evaluate.
///
/// # Errors
/// Tensors that do not fit the architecture.
pub fn network(checkpoint: &Checkpoint, device: &Device) -> anyhow::Result<ResNet> {
    let mut net = ResNet::new(&checkpoint.config, 0, device).map_err(anyhow::Error::msg)?;
    resnet::load_tensors(&mut net, &checkpoint.tensors, false)?;
    Ok(net)
}

/// Saves to `path`, making its folder.
///
/// # Errors
/// Unwritable folder or full disk.
pub fn save(checkpoint: &Checkpoint, path: &Path) -> anyhow::Result<()> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("{}: cannot make this folder", dir.display()))?;
    }
    Ok(checkpoint.save(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, ReadOptions};
    use convert::random::Rng;

    const SIDE: u16 = 16;

    fn config() -> ResNetConfig {
        let mut config = ResNetConfig::by_name("resnet_8_cifar", 2).unwrap();
        config.input_conv_filters = vec![8];
        config.stackwise_num_filters = vec![8, 8];
        config.stackwise_num_blocks = vec![1, 1];
        config.stackwise_num_strides = vec![1, 2];
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
        let options =
            ReadOptions { preprocess: preprocess(), val_split: 0.25, seed: 1, classes: None };
        Dataset::read(root, &options).unwrap()
    }

    fn recipe(epochs: u32) -> Recipe {
        Recipe {
            epochs,
            batch: 8,
            rate: 0.05,
            sgd: SgdConfig {
                momentum: 0.9,
                weight_decay: 5e-4,
                decay_all: false,
                backbone_rate: 1.0,
            },
            label_smoothing: 0.1,
            warmup_epochs: 0.5,
            hold_epochs: 0.0,
            seed: 3,
            augment: true,
            freeze_backbone: false,
        }
    }

    fn run<'a>(dir: &Path, epochs: u32, resume: bool, stop: &'a AtomicBool) -> Run<'a> {
        Run {
            config: config(),
            preprocess: preprocess(),
            recipe: recipe(epochs),
            base: None,
            dir: dir.into(),
            resume,
            device: Device::flex(),
            terminal: false,
            stop,
        }
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

    fn without_times(mut checkpoint: Checkpoint) -> Checkpoint {
        checkpoint.training.epochs.iter_mut().for_each(|e| e.seconds = 0.0);
        checkpoint
    }

    #[test]
    fn a_resumed_run_equals_an_unbroken_one() {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        let never = AtomicBool::new(false);
        let whole = dir.path().join("whole");
        run(&whole, 3, false, &never).train(data.clone(), &mut Vec::new()).unwrap();

        let broken = dir.path().join("broken");
        let stop = AtomicBool::new(false);
        let error = run(&broken, 3, false, &stop)
            .train(data.clone(), &mut StopAfter("epoch 1/3", &stop))
            .unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
        let again = run(&broken, 3, false, &never).train(data.clone(), &mut Vec::new());
        assert!(again.unwrap_err().to_string().contains("--resume"));
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
        second.recipe.freeze_backbone = true;
        let tuned = second.train(data, &mut Vec::new()).unwrap();
        for (name, tensor) in &base.tensors {
            let same = tuned.tensors[name] == *tensor;
            assert_eq!(same, !resnet::is_head(name), "{name}");
        }
    }

    #[test]
    fn bad_numbers_name_their_option() {
        let check = |change: fn(&mut Recipe)| {
            let mut recipe = recipe(1);
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert!(check(|r| r.epochs = 0).contains("--epochs"));
        assert!(check(|r| r.batch = 1).contains("--batch"));
        assert!(check(|r| r.rate = f64::NAN).contains("--lr"));
        assert!(check(|r| r.sgd.momentum = 1.0).contains("--momentum"));
        assert!(check(|r| r.hold_epochs = -1.0).contains("--hold-epochs"));
    }
}
