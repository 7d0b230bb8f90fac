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
    checkpoint.training.epochs.iter_mut().for_each(|e| (e.seconds, e.wait_seconds) = (0.0, 0.0));
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
    let mut thrifty = run(&dir.path().join("thrifty"), 2, false, &never);
    thrifty.checkpointing = true;
    let mut lavish = run(&dir.path().join("lavish"), 2, false, &never);
    let thrifty = thrifty.train(data.clone(), &mut Vec::new()).unwrap();
    assert!(without_times(thrifty) == without_times(lavish.train(data, &mut Vec::new()).unwrap()));
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
        String::from_utf8(log).unwrap().contains("stopped: none of 2 epochs was better than epoch")
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
