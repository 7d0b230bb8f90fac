use super::super::lessons;
use super::*;
use crate::data::{CacheSize, Pictures, ReadOptions};
use crate::net::InitRule;
use crate::train::{Average, Clip, Existing, OptimizerConfig, Rule, Teacher};
use burn::tensor::TensorData;
use core::sync::atomic::Ordering;
use network::checkpoint::Tensor;
use network::init::random_checkpoint;
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
        probe: false,
        freeze_epochs: 0,
        patience: None,
        qat: false,
    }
}

static NEVER: AtomicBool = AtomicBool::new(false);

/// Where tests run: pictures, and folders for runs.
struct Place {
    dir: tempfile::TempDir,
    data: Dataset,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = pictures(&dir.path().join("data"));
        Self { dir, data }
    }

    /// A run that nobody stops.
    fn run(&self, name: &str, epochs: u32) -> Run<'static> {
        run(&self.dir.path().join(name), epochs, false, &NEVER)
    }

    fn train(&self, run: &mut Run<'_>) -> Checkpoint {
        run.train(self.data.clone(), &mut Vec::new()).unwrap()
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
        teaching: None,
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

fn state(run: &Run<'_>) -> State {
    State::load(&file(run, "state.mpk")).unwrap()
}

fn last(run: &Run<'_>) -> Checkpoint {
    Checkpoint::load(&file(run, "last.mpk")).unwrap()
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
    let place = Place::new();
    let [whole, broken] = ["whole", "broken"].map(|name| place.dir.path().join(name));
    place.train(&mut run(&whole, 3, false, &NEVER));

    let stop = AtomicBool::new(stop_after == NOW);
    let error = run(&broken, 3, false, &stop)
        .train(place.data.clone(), &mut StopAfter(stop_after, &stop))
        .unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");
    let again = Folder::open(&broken, Existing::Keep, "again");
    match stop_after {
        NOW => drop(again.expect("nothing would be lost")),
        _ => assert!(again.unwrap_err().to_string().contains("--resume")),
    }
    let other = run(&broken, 4, true, &NEVER).train(place.data.clone(), &mut Vec::new());
    assert!(other.unwrap_err().to_string().contains("epochs 3, not 4"));
    place.train(&mut run(&broken, 3, true, &NEVER));

    for file in ["last.mpk", "best.mpk"] {
        let load = |dir: &Path| Checkpoint::load(&dir.join(file)).unwrap();
        assert!(load(&whole) == load(&broken), "{file} differs");
    }
    let last = Checkpoint::load(&whole.join("last.mpk")).unwrap();
    assert_eq!(last.training.epochs.len(), 3);
    assert!(!last.samples.is_empty());
    assert!(last.training.epochs[2].train_loss < last.training.epochs[0].train_loss);
}

#[test]
fn a_frozen_backbone_stays() {
    let place = Place::new();
    let base = place.train(&mut place.run("base", 1));
    let mut second = place.run("head", 1);
    second.base = Some(&base);
    second.recipe.freeze_epochs = 1;
    let tuned = place.train(&mut second);
    for (name, tensor) in &base.tensors {
        let same = tuned.tensors[name] == *tensor;
        assert_eq!(same, !net::is_head(name), "{name}");
    }
}

#[test]
fn a_thawed_backbone_learns() {
    let place = Place::new();
    let [thawed, frozen] = [1, 2].map(|freeze_epochs| {
        let mut run = place.run(&freeze_epochs.to_string(), 2);
        run.recipe.freeze_epochs = freeze_epochs;
        run.recipe.augment = "none".parse().unwrap();
        place.train(&mut run);
        last(&run)
    });
    for (name, tensor) in &frozen.tensors {
        assert_ne!(&thawed.tensors[name], tensor, "{name}");
    }
}

#[test]
fn training_begins_with_the_best_head() {
    let place = Place::new();
    let base = random_checkpoint(config(), SIDE, 2).unwrap();
    let [probed, again, drawn] = [(true, 1), (true, 3), (false, 1)].map(|(probe, threads)| {
        let mut run = place.run(&format!("{probe} {threads}"), 1);
        run.base = Some(&base);
        run.recipe.probe = probe;
        // What is learned afterwards is not to be seen.
        (run.recipe.rate, run.recipe.freeze_epochs) = (1e-9, 1);
        (run.recipe.start_size, run.recipe.label_smoothing) = (None, 0.0);
        run.recipe.augment = "none".parse().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let trained = pool.install(|| place.train(&mut run));
        (trained.training.epochs[0].train_loss, trained.tensors.clone())
    });
    assert!(probed.0 < 0.9 * drawn.0, "{} {}", probed.0, drawn.0);
    assert!(probed.1 == again.1, "threads change the head");
}

/// Pools of one and of three threads give the same bits, on the same pictures in any order
/// of work.
#[test]
fn threads_change_nothing() {
    let place = Place::new();
    let train = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| place.train(&mut place.run(&threads.to_string(), 2)))
    };
    assert!(train(1) == train(3));
}

#[test]
fn checkpointing_changes_nothing_but_memory() {
    let place = Place::new();
    // Of two epochs, the backbone learns in all, in the last, or in none.
    for frozen in [0, 1, 2] {
        let train = |checkpointing: bool| {
            let mut run = place.run(&format!("{frozen} {checkpointing}"), 2);
            run.recipe.freeze_epochs = frozen;
            run.checkpointing = checkpointing;
            place.train(&mut run)
        };
        assert!(train(true) == train(false), "{frozen}");
    }
}

/// A run in which nothing changes, so that the first epoch stays the best.
fn impatient(place: &Place, epochs: u32) -> Run<'static> {
    let mut run = place.run("run", epochs);
    run.recipe.rate = 1e-12;
    run.recipe.patience = Some(2);
    run.recipe.optimizer.average = None;
    run.recipe.augment = "none".parse().unwrap();
    run
}

#[test]
fn patience_ends_a_run_that_does_not_get_better() {
    let place = Place::new();
    let mut run = impatient(&place, 50);
    let mut log = Vec::new();
    run.train(place.data.clone(), &mut log).unwrap();
    let state = state(&run);
    assert_eq!(state.epoch, state.best_epoch + 2);
    assert!(state.done());
    let log = String::from_utf8(log).unwrap();
    assert!(log.contains("stopped: none of 2 epochs was better than epoch"));
    drop(run);
    let error = Folder::open(&place.dir.path().join("run"), Existing::Keep, "again").unwrap_err();
    assert!(error.to_string().contains("holds a finished run of"), "{error}");
    assert!(error.to_string().contains("--overwrite"), "{error}");
}

/// Nobody is impatient before the backbone has begun to learn.
#[test]
fn patience_waits_for_the_thaw() {
    let place = Place::new();
    let mut run = impatient(&place, 20);
    run.recipe.freeze_epochs = 4;
    place.train(&mut run);
    let state = state(&run);
    assert_eq!(state.epoch, state.best_epoch.max(4) + 2);
}

/// Another run's model is never taken for this one's.
#[test]
fn a_replaced_model_is_noticed() {
    let place = Place::new();
    let [mut other, mut own] = ["other", "own"].map(|name| place.run(name, 1));
    // The same seed would give the same model.
    other.recipe.seed += 1;
    place.train(&mut other);
    place.train(&mut own);
    std::fs::copy(file(&other, "best.mpk"), file(&own, "best.mpk")).unwrap();
    drop(own);
    let mut resumed = run(&place.dir.path().join("own"), 1, true, &NEVER);
    let error = resumed.train(place.data, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("best.mpk is not the model of this run's epoch 1"), "{error}");
}

#[test]
fn averages_leave_the_network_alone() {
    let place = Place::new();
    let [mut averaged, mut plain] = ["averaged", "plain"].map(|name| place.run(name, 2));
    plain.recipe.optimizer.average = None;
    place.train(&mut averaged);
    place.train(&mut plain);
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

/// Networks whose batch-norms were folded away compute what they did, with statistics of the pictures.
#[test]
fn folded_batch_norms_get_the_statistics_of_the_pictures() {
    let place = Place::new();
    let base = random_checkpoint(config(), SIDE, 2).unwrap();
    let base = base.edit(|draft| {
        for (name, tensor) in &mut draft.tensors {
            let len = tensor.shape.iter().product();
            match name.rsplit('.').next() {
                Some("mean") => *tensor = Tensor::from_f32(&[len], &vec![0.0; len]),
                Some("beta") => *tensor = Tensor::from_f32(&[len], &vec![0.1; len]),
                _ => {}
            }
        }
        Ok(())
    });
    let base = base.unwrap();
    let mut run = place.run("folded", 1);
    run.base = Some(&base);
    let mut net = run.network(&mut Vec::new()).unwrap();
    let state = run.start(&mut net, &place.data, None, &mut Vec::new()).unwrap();
    let logits = |net: &Network| -> Vec<f32> {
        let shape = [2, 3, usize::from(SIDE), usize::from(SIDE)];
        let mut noise = Rng::keyed(&[9]);
        let pixels = noise.around(shape.iter().product(), 0.0, 1.0);
        let x = burn::tensor::Tensor::from_data(TensorData::new(pixels, shape), &run.device);
        measurable(net).forward(x).into_data().iter::<f32>().collect()
    };
    let before = logits(&net);
    net::load_tensors(&mut net, &state.last.tensors, false).unwrap();
    for (after, before) in logits(&net).iter().zip(&before) {
        assert!((after - before).abs() < 1e-4 * before.abs().max(1.0), "{after} for {before}");
    }
    let mean = state.last.tensors["conv1_bn.mean"].to_f32();
    assert!(mean.iter().any(|m| *m != 0.0), "{mean:?}");
}

#[test]
fn an_epoch_is_a_line_of_eighty_columns_at_most() {
    let place = Place::new();
    let mut run = place.run("columns", 3);
    let record = |epoch, loss, accuracy, seconds| EpochRecord {
        epoch,
        learning_rate: 0.1,
        train_loss: loss,
        train_accuracy: accuracy,
        val_loss: Some(loss),
        val_accuracy: Some(accuracy),
        val_top_k_accuracy: Some(accuracy),
        seconds,
        wait_seconds: seconds / 2.0,
    };
    let quick = EpochRecord { wait_seconds: 0.0, ..record(1, 0.5, 0.5, 10.0) };
    let line = run.epoch_line(&quick, 100, 5.0);
    assert_eq!(line, "epoch 1/3 loss 0.5000 acc 50.0 %, val 0.5000 acc 50.00 %, 5 s, 10 images/s");
    run.top_k = 5;
    let slow = run.epoch_line(&record(1, 0.5, 0.5, 10.0), 100, 5.0);
    assert_eq!(slow, "epoch 1/3 loss 0.5000 acc 50.0 %, val 0.5000 acc 50.00 %, 5 s, 50 % waiting");
    let unmeasured = EpochRecord { val_loss: None, val_top_k_accuracy: None, ..quick };
    let line = run.epoch_line(&unmeasured, 100, 3723.0);
    assert_eq!(line, "epoch 1/3 loss 0.5000 acc 50.0 %, 1 h 02 min, 10 images/s");
    run.recipe.epochs = 10_000;
    for (epoch, loss, accuracy, elapsed) in [(9_999, 0.0, 1.0, 1e6), (1, 99.0, 0.0, 1.0)] {
        let line = run.epoch_line(&record(epoch, loss, accuracy, 1e-3), 1_000_000, elapsed);
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// A network of random weights, twice as large as its student's pictures, that knows the classes in another
/// order, and some pictures that have none.
fn teaching(place: &Place) -> Teaching {
    let checkpoint = random_checkpoint(config(), 2 * SIDE, 6).unwrap();
    let named = checkpoint.edit(|draft| {
        draft.labels = ["dark", "bright"].map(String::from).to_vec();
        Ok(())
    });
    let teacher = Teacher::from_checkpoint(&named.unwrap()).unwrap();
    let mut teaching = Teaching::by(teacher, preprocess());
    let root = place.dir.path().join("more");
    std::fs::create_dir_all(root.join("deep/er")).unwrap();
    let mut rng = Rng::keyed(&[7]);
    for i in 0..9 {
        let pixel = |_, _| image::Rgb([(); 3].map(|()| rng.below(250) as u8));
        let path = root.join(["a", "deep/b", "deep/er/c"][i % 3].to_owned() + &format!("{i}.png"));
        image::RgbImage::from_fn(20, 30, pixel).save(path).unwrap();
    }
    // Those that are there already, one of each kind.
    let known =
        [&place.data.train, &place.data.val].map(|pictures| pictures.origin(0).unwrap().path);
    for (i, path) in known.into_iter().enumerate() {
        std::fs::copy(path, root.join(format!("known{i}.png"))).unwrap();
    }
    std::fs::copy(root.join("a0.png"), root.join("twice.png")).unwrap();
    let options = ReadOptions {
        preprocess: preprocess(),
        val_split: 0.0,
        seed: 0,
        classes: None,
        cache: CacheSize::Auto,
    };
    let more = Dataset::read_heap(&root, &options, &|_, _| ()).unwrap().train;
    let said = teaching.add_unlabelled(&more, &place.data);
    assert_eq!(said.len(), 3, "{said:?}");
    for (line, what) in
        said.iter().zip(["1 unlabelled pictures are validation", "labelled ones", "twice"])
    {
        assert!(line.contains(what), "{line}");
    }
    assert_eq!(teaching.unlabelled.len(), 9);
    assert!(teaching.unlabelled.labels.iter().all(|label| *label == 2));
    teaching
}

/// A run of three epochs with a teacher.
fn taught<'a>(
    (teaching, base): (&'a Teaching, &'a Checkpoint),
    dir: &Path,
    resume: bool,
    stop: &'a AtomicBool,
) -> Run<'a> {
    let mut run = run(dir, 3, resume, stop);
    run.recipe.probe = true;
    Run { teaching: Some(teaching), base: Some(base), ..run }
}

#[test]
fn a_taught_run_is_the_same_however_it_comes_about() {
    let place = Place::new();
    let (teaching, base) = (teaching(&place), random_checkpoint(config(), SIDE, 2).unwrap());
    let who = (&teaching, &base);
    let [whole, broken] = ["whole", "broken"].map(|name| place.dir.path().join(name));
    let read = |dir: &Path, file: &str| std::fs::read(dir.join(file)).unwrap();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool(1).install(|| place.train(&mut taught(who, &whole, false, &NEVER)));
    let (said, model) = (read(&whole, lessons::FILE), read(&whole, "last.mpk"));
    // Sums and logits of three epochs of thirty pictures with, and nine without, a class.
    assert_eq!(said.len(), 16 + 3 * (8 + 4 * 2 * 39));

    for stop_after in [NOW, "epoch 1/3"] {
        let stop = AtomicBool::new(stop_after == NOW);
        let mut out = StopAfter(stop_after, &stop);
        let mut first = taught(who, &broken, false, &stop);
        let error = first.train(place.data.clone(), &mut out).unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
        drop(first);
        let mut again = taught(who, &broken, true, &NEVER);
        pool(3).install(|| place.train(&mut again));
        assert!(read(&broken, lessons::FILE) == said, "other lessons");
        assert!(read(&broken, "last.mpk") == model, "another model");
        std::fs::remove_dir_all(&broken).unwrap();
    }

    // Without the file, and with one that is damaged, the teacher is asked again.
    for damage in [None, Some(40)] {
        match damage {
            None => std::fs::remove_file(whole.join(lessons::FILE)).unwrap(),
            Some(at) => {
                let mut bytes = said.clone();
                bytes[at] ^= 1;
                std::fs::write(whole.join(lessons::FILE), bytes).unwrap();
            }
        }
        place.train(&mut taught(who, &whole, false, &NEVER));
        assert!(read(&whole, lessons::FILE) == said && read(&whole, "last.mpk") == model);
    }

    let last = Checkpoint::from_bytes(&model, "last.mpk").unwrap();
    let options = &last.training.options;
    assert_eq!(options["temperature"], "2");
    assert!(options["unlabelled"].starts_with("9 pictures "), "{options:?}");
    assert!(last.samples.iter().all(|sample| sample.label < 2));
}

/// What is kept is used, where it belongs to the run.
#[test]
fn what_a_teacher_has_said_is_kept() {
    let place = Place::new();
    let teaching = teaching(&place);
    let trained = |seed| {
        let mut run = Run { teaching: Some(&teaching), ..place.run("kept", 1) };
        run.recipe.seed = seed;
        place.train(&mut run).tensors.clone()
    };
    let (first, path) = (trained(3), place.dir.path().join("kept").join(lessons::FILE));
    let said = std::fs::read(&path).unwrap();
    // All that it said is turned around, with the right sum.
    let mut other = said.clone();
    other[24..].iter_mut().skip(3).step_by(4).for_each(|byte| *byte ^= 0x80);
    let sum = network::random::fnv1a(&other[24..]).to_le_bytes();
    other[16..24].copy_from_slice(&sum);
    std::fs::write(&path, &other).unwrap();
    assert!(trained(3) != first, "nobody has read it");
    assert!(std::fs::read(&path).unwrap() == other);
    // Other views are of no use.
    trained(4);
    let of_others = std::fs::read(&path).unwrap();
    assert!(of_others[..16] != said[..16] && of_others[24..] != other[24..]);
    // Nobody teaches: nothing is kept.
    place.train(&mut place.run("kept", 1));
    assert!(!path.exists());
}

/// A network learns what its teacher says, not what the pictures are labelled.
#[test]
fn a_teacher_is_believed() {
    let place = Place::new();
    let train = |name: &str, teaching: Option<&Teaching>| {
        let mut run = Run { teaching, ..place.run(name, 12) };
        run.recipe.label_smoothing = 0.0;
        run.recipe.start_size = None;
        run.recipe.augment = "none".parse().unwrap();
        place.train(&mut run);
        (last(&run), last(&run).training.epochs.last().unwrap().train_accuracy)
    };
    let (teacher, accuracy) = train("teacher", None);
    assert!(accuracy > 0.9, "{accuracy}");
    let liar = teacher.edit(|draft| {
        draft.labels.reverse();
        Ok(())
    });
    let liar = Teacher::from_checkpoint(&liar.unwrap()).unwrap();
    let mut teaching = Teaching::by(liar, preprocess());
    for (weight, right) in [(1.0, 0.0..0.2), (0.01, 0.8..1.1)] {
        teaching.weight = weight;
        let (_, accuracy) = train(&weight.to_string(), Some(&teaching));
        assert!(right.contains(&accuracy), "{weight}: {accuracy}");
    }
}

#[test]
fn another_teacher_is_no_way_to_go_on() {
    let place = Place::new();
    let mut teaching = teaching(&place);
    place.train(&mut Run { teaching: Some(&teaching), ..place.run("run", 1) });
    let dir = place.dir.path().join("run");
    let error = |teaching: Option<&Teaching>| {
        let mut again = Run { teaching, ..run(&dir, 1, true, &NEVER) };
        again.train(place.data.clone(), &mut Vec::new()).unwrap_err().to_string()
    };
    let alone = error(None);
    assert!(alone.contains("with teacher ") && alone.contains(", not unset;"), "{alone}");
    teaching.temperature = 3.0;
    assert!(error(Some(&teaching)).contains("temperature 2, not 3"));
    teaching.temperature = 2.0;
    teaching.unlabelled = Pictures::new(preprocess());
    assert!(error(Some(&teaching)).contains("not unset"));
}

#[test]
fn teachers_know_the_same_classes() {
    let place = Place::new();
    let teaching = teaching(&place);
    let order = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().copied().map(String::from).collect();
        teaching.teacher.order(&labels).map_err(|error| error.to_string())
    };
    assert_eq!(order(&["bright", "dark"]), Ok(vec![1, 0]));
    assert_eq!(order(&["dark", "bright"]), Ok(vec![0, 1]));
    for labels in [&["bright", "light"][..], &["bright"], &["bright", "dark", "grey"]] {
        let error = order(labels).unwrap_err();
        for what in ["knows 2 classes (dark, bright)", labels[labels.len() - 1], "trainer finetune"]
        {
            assert!(error.contains(what), "{error}");
        }
    }
    let mut data = place.data.clone();
    data.labels[1] = "grey".into();
    let error = Run { teaching: Some(&teaching), ..place.run("run", 1) }
        .train(data, &mut Vec::new())
        .unwrap_err();
    assert!(error.to_string().contains("bright, grey"), "{error}");
}

#[test]
fn bad_numbers_of_a_teacher_name_their_option() {
    let place = Place::new();
    let mut teaching = teaching(&place);
    let mut check = |weight, temperature| {
        (teaching.weight, teaching.temperature) = (weight, temperature);
        teaching.check().err().map_or(String::new(), |error| error.to_string())
    };
    for (weight, temperature, option) in [
        (0.0, 2.0, "--teacher-weight 0 "),
        (1.1, 2.0, "--teacher-weight 1.1 "),
        (f64::NAN, 2.0, "--teacher-weight"),
        (0.5, 0.0, "--temperature 0 "),
        (0.5, f64::INFINITY, "--temperature"),
        (1.0, 1.0, ""),
    ] {
        let error = check(weight, temperature);
        assert!(error.starts_with(option) && error.is_empty() == option.is_empty(), "{error}");
    }
}
