//! Labelled pictures that a model is measured on, and which those are.
//!
//! Accuracy on pictures that a model was trained on says little. A folder with parts says itself
//! which are to measure on. Of a folder without, the run that made a model has set some pictures
//! aside: its record says which, and the fingerprint whether this is that folder. Any other folder
//! is measured whole.

use super::layout::Layout;
use super::part::Part;
use super::pictures::Reader;
use super::{CacheSize, DataError, Dataset, Pictures, Watch, find, list, notes, read_parts};
use crate::samples::sample_pixels;
use artifact::Preprocess;
use network::checkpoint::{Sample, Split, TrainingRecord, Validation};
use network::model::FloatModel;
use network::nearest::suggestion;
use network::random::fnv1a;
use std::collections::HashSet;
use std::path::Path;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Class names in index order.
    pub labels: &'a [String],
    /// From picture to input.
    pub preprocess: Preprocess,
    /// How it came to be.
    pub training: &'a TrainingRecord,
    /// Some of the pictures that it was trained on.
    pub samples: &'a [Sample],
}

impl<'a> From<&'a FloatModel> for Measured<'a> {
    fn from(model: &'a FloatModel) -> Self {
        let FloatModel { labels, preprocess, training, samples, .. } = model;
        Self { labels, preprocess: *preprocess, training, samples }
    }
}

/// Where the accuracy on other such pictures lies, with a probability of 95 %: as few `pictures` as were
/// measured do not tell it more exactly (Wilson's interval, 1927). Shares, 0..=1.
pub fn interval(accuracy: f64, pictures: usize) -> [f64; 2] {
    /// Deviations from the mean within which 95 % of a normal distribution lie.
    const Z: f64 = 1.96;
    let n = pictures.max(1) as f64;
    let (p, width) = (accuracy, 1.0 + Z * Z / n);
    let middle = (p + Z * Z / (2.0 * n)) / width;
    let half = Z / width * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    [middle - half, middle + half]
}

/// Half of [`interval`] in words, such as `± 3.3 points`.
pub fn margin(accuracy: f64, pictures: usize) -> String {
    let [low, high] = interval(accuracy, pictures);
    format!("± {:.1} points", (high - low) * 50.0)
}

/// Labelled pictures, and which those are.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// Name of the data set.
    pub name: String,
    /// The pictures; their classes are the model's.
    pub pictures: Pictures,
    /// In words, such as `200 validation pictures of the run (seed 1, 20 %)`.
    pub which: String,
    /// Whether they are known to have chosen the model's epoch.
    pub chose: bool,
    /// What else is to be said, one line each.
    pub notes: Vec<String>,
}

impl Labelled {
    /// Reads the pictures of `dir` to measure `model` on; its classes may be some of the model's,
    /// in any order. With `choice`, those that it chooses where the folder has no parts.
    ///
    /// # Errors
    /// Unreadable or missing folders, those whose meaning is not clear, classes that the model does
    /// not know, and folders without a usable picture.
    pub fn read(
        dir: &Path,
        model: &Measured<'_>,
        choice: Option<Split>,
        cache: CacheSize,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let Layout { name, train, val, test, remarks } = find(dir)?;
        let is_undivided = val.is_none() && test.is_none();
        let Some(part) = val.or(test).or(train) else {
            return Err(DataError::layout(dir, "no class folders here"));
        };
        check_known(&part, model.labels)?;
        let mut skipped = Vec::new();
        let reader = Reader::new(model.preprocess, cache, watch);
        // The fingerprint has the classes as training numbers them.
        let [own] = read_parts([Some(&part)], &part.labels, &reader, &mut skipped)?;
        if own.is_empty() {
            let why = skipped.first().map_or(String::new(), |s| format!(" ({s})"));
            return Err(DataError::layout(dir, format!("no usable picture{why}")));
        }
        let (mut pictures, which, chose) = match is_undivided {
            true => {
                let of_folder = Undivided::new(own, dir, &part);
                let run = of_folder.split_of_run(model);
                let (pictures, which) = of_folder.measured(model, run, choice);
                (pictures, which, run.is_some() && choice.or(run) == run)
            }
            false => {
                let seen = includes(&own, model);
                let which = format!("{} pictures of {}{seen}", own.len(), part.path.display());
                (own, which, false)
            }
        };
        let to_model = |label: &u32| {
            let name = &part.labels[*label as usize];
            model.labels.iter().position(|l| l == name).unwrap_or(0) as u32
        };
        pictures.labels = pictures.labels.iter().map(to_model).collect();
        Ok(Self { name, pictures, which, chose, notes: notes(&remarks, &skipped) })
    }
}

/// A folder without parts.
struct Undivided<'a> {
    data: Dataset,
    dir: &'a Path,
}

impl<'a> Undivided<'a> {
    fn new(pictures: Pictures, dir: &'a Path, part: &Part) -> Self {
        let none = pictures.select(&[]);
        let mut data = Dataset {
            name: String::new(),
            labels: part.labels.clone(),
            train: pictures,
            val: none.clone(),
            validation: Validation::None,
            test: none,
            test_name: String::new(),
            skipped: Vec::new(),
            remarks: Vec::new(),
            fingerprint: String::new(),
        };
        data.fingerprint = data.digest();
        Self { data, dir }
    }

    fn has_the_classes_of(&self, model: &Measured<'_>) -> bool {
        self.data.labels == model.labels
    }

    /// What the model's run set aside of this folder.
    fn split_of_run(&self, model: &Measured<'_>) -> Option<Split> {
        let split = self.data.split_of(model.training);
        split.filter(|split| self.has_the_classes_of(model) && split.share > 0.0)
    }

    /// The pictures to measure on, in words as well: those that `choice` or else the `run` sets
    /// aside, or all.
    fn measured(
        mut self,
        model: &Measured<'_>,
        run: Option<Split>,
        choice: Option<Split>,
    ) -> (Pictures, String) {
        let record = model.training;
        let (dir, all) = (self.dir.display(), self.data.train.len());
        match choice.or(run) {
            Some(split) => {
                let trained = run.map(|run| {
                    let mut of_run = self.data.clone();
                    of_run.split(run);
                    of_run.train.digests.iter().copied().collect::<HashSet<u64>>()
                });
                self.data.split(split);
                let val = self.data.val;
                let which = match trained {
                    Some(_) if run == Some(split) => {
                        format!("{} validation pictures of the run ({split})", val.len())
                    }
                    Some(trained) => {
                        let seen = val.digests.iter().filter(|d| trained.contains(d)).count();
                        let n = val.len();
                        format!(
                            "{n} pictures of {dir} ({split}), {seen} of which it was trained on"
                        )
                    }
                    None => {
                        format!(
                            "{} pictures of {dir} ({split}){}",
                            val.len(),
                            includes(&val, model)
                        )
                    }
                };
                (val, which)
            }
            None if self.has_the_classes_of(model)
                && self.data.fingerprint == record.fingerprint =>
            {
                let which = format!("all {all} pictures of {dir}, which it was trained on");
                (self.data.train, which)
            }
            None => {
                let seen = match includes(&self.data.train, model) {
                    "" if !record.fingerprint.is_empty() => {
                        ", none of which it was trained on (another fingerprint)"
                    }
                    seen => seen,
                };
                (self.data.train, format!("all {all} pictures of {dir}{seen}"))
            }
        }
    }
}

/// Whether some of the pictures are those that the model keeps of its training, in words.
fn includes(pictures: &Pictures, model: &Measured<'_>) -> &'static str {
    let pixels = |sample: &Sample| sample_pixels(sample, &model.preprocess).ok();
    let samples: HashSet<u64> =
        model.samples.iter().filter_map(pixels).map(|pixels| fnv1a(&pixels)).collect();
    match pictures.pixel_digests().any(|digest| samples.contains(&digest)) {
        true => ", which include pictures that it was trained on",
        false => "",
    }
}

fn check_known(part: &Part, labels: &[String]) -> Result<(), DataError> {
    let Some(stray) = part.labels.iter().find(|l| !labels.contains(l)) else { return Ok(()) };
    Err(DataError::layout(
        &part.path,
        format!(
            "class `{stray}` is unknown to the model{}, which knows {}; rename or remove its folder",
            suggestion(stray, labels),
            list(labels)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReadOptions;
    use std::path::PathBuf;

    const LABELS: [&str; 3] = ["cat", "dog", "fox"];

    /// Ten pictures each of the classes, of other colors for each `shade`.
    fn folder(root: &Path, classes: &[&str], shade: u8) -> PathBuf {
        for class in classes {
            let red = 10 * LABELS.iter().position(|l| l == class).unwrap() as u8;
            std::fs::create_dir_all(root.join(class)).unwrap();
            for i in 0..10 {
                let picture = image::RgbImage::from_pixel(9, 9, image::Rgb([red, i, shade]));
                picture.save(root.join(class).join(format!("{i}.png"))).unwrap();
            }
        }
        root.into()
    }

    fn options(val_split: f64, seed: u64) -> ReadOptions {
        let preprocess = Preprocess::raw(8, 8);
        ReadOptions { preprocess, val_split, seed, classes: None, cache: CacheSize::Auto }
    }

    /// The record of a run on the data, and samples of what it was trained on.
    fn run(data: &Dataset, seed: u64) -> (TrainingRecord, Vec<Sample>) {
        let training = TrainingRecord {
            fingerprint: data.fingerprint.clone(),
            seed,
            validation: data.validation.clone(),
            ..TrainingRecord::default()
        };
        let samples = data.train.stratified(6, 1).into_iter().map(|i| {
            Sample::encode(data.train.labels[i], &data.train.get(i).unwrap(), 8, 8).unwrap()
        });
        (training, samples.collect())
    }

    fn measure(
        dir: &Path,
        (training, samples): &(TrainingRecord, Vec<Sample>),
        choice: Option<Split>,
    ) -> Result<Labelled, String> {
        let labels = LABELS.map(String::from);
        let preprocess = Preprocess::raw(8, 8);
        let model = Measured { labels: &labels, preprocess, training, samples };
        Labelled::read(dir, &model, choice, CacheSize::Auto, &|_, _| ()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_pictures_of_the_run_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = folder(&dir.path().join("pets"), &LABELS, 0);
        let data = Dataset::read(&root, &options(0.3, 7)).unwrap();
        let model = run(&data, 7);
        // Wherever the folder lies.
        let moved = dir.path().join("moved");
        std::fs::rename(&root, &moved).unwrap();
        let found = measure(&moved, &model, None).unwrap();
        assert_eq!(found.pictures.digests, data.val.digests);
        assert_eq!(found.pictures.labels, data.val.labels);
        assert_eq!(found.which, "9 validation pictures of the run (seed 7, 30 %)");
        // As files said before splits were recorded.
        let data = Dataset::read(&moved, &options(0.2, 3)).unwrap();
        let mut older = run(&data, 3);
        older.0.validation = Validation::Unknown;
        let found = measure(&moved, &older, None).unwrap();
        assert_eq!(found.pictures.digests, data.val.digests);
        let other = measure(&moved, &older, Some(Split { share: 0.5, seed: 1 })).unwrap();
        let trained = |l: &Labelled| {
            l.pictures.digests.iter().filter(|d| data.train.digests.contains(d)).count()
        };
        let said = format!("(seed 1, 50 %), {} of which it was trained on", trained(&other));
        assert!(trained(&other) > 0 && other.which.ends_with(&said), "{}", other.which);
        let all = run(&Dataset::read(&moved, &options(0.0, 3)).unwrap(), 3);
        let found = measure(&moved, &all, None).unwrap();
        assert!(found.which.ends_with(", which it was trained on"), "{}", found.which);
    }

    #[test]
    fn other_folders_are_measured_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = folder(&dir.path().join("pets"), &LABELS, 0);
        let model = run(&Dataset::read(&root, &options(0.2, 7)).unwrap(), 7);
        let other = folder(&dir.path().join("others"), &LABELS, 1);
        let found = measure(&other, &model, None).unwrap();
        assert_eq!(found.pictures.len(), 30);
        assert!(found.which.contains("others, none of which it was trained on"), "{}", found.which);
        // The same pictures and some more.
        std::fs::copy(other.join("cat/0.png"), root.join("cat/new.png")).unwrap();
        let found = measure(&root, &model, None).unwrap();
        let seen = "all 31 pictures of ";
        assert!(found.which.starts_with(seen), "{}", found.which);
        assert!(found.which.ends_with("which include pictures that it was trained on"));
        // A model of which nothing is known.
        let unknown = (TrainingRecord::default(), Vec::new());
        let found = measure(&other, &unknown, None).unwrap();
        assert_eq!(found.which, format!("all 30 pictures of {}", other.display()));
    }

    #[test]
    fn some_of_the_classes_are_enough() {
        let dir = tempfile::tempdir().unwrap();
        let unknown = (TrainingRecord::default(), Vec::new());
        for classes in [&["fox", "dog"][..], &["fox"]] {
            let root = folder(&dir.path().join(classes.len().to_string()), classes, 0);
            let found = measure(&root, &unknown, None).unwrap();
            let counts = [0, classes.len() / 2 * 10, 10];
            assert_eq!(found.pictures.counts(3), counts);
        }
        let root = folder(&dir.path().join("stray"), &LABELS, 0);
        std::fs::rename(root.join("fox"), root.join("wolf")).unwrap();
        let error = measure(&root, &unknown, None).unwrap_err();
        assert!(error.contains("`wolf` is unknown") && error.contains("cat, dog, fox"), "{error}");
    }

    #[test]
    fn parts_say_which_pictures_to_measure() {
        let dir = tempfile::tempdir().unwrap();
        let unknown = (TrainingRecord::default(), Vec::new());
        for part in ["training_set", "test_set", "dev"] {
            folder(&dir.path().join(part), &LABELS, part.len() as u8);
            let found = measure(dir.path(), &unknown, None).unwrap();
            let all = part == "training_set";
            assert_eq!(found.pictures.len(), 30);
            assert_eq!(found.which.starts_with("all "), all, "{}", found.which);
            assert!(all || found.which.ends_with(part), "{}", found.which);
        }
        // What chose nothing is read for the last word, and what is left chooses.
        let data = Dataset::read(dir.path(), &options(0.2, 0)).unwrap();
        assert_eq!([data.train.len(), data.val.len(), data.test.len()], [30, 30, 30]);
        std::fs::remove_dir_all(dir.path().join("dev")).unwrap();
        let data = Dataset::read(dir.path(), &options(0.2, 0)).unwrap();
        assert_eq!([data.train.len(), data.val.len(), data.test.len()], [24, 6, 30]);
        assert_eq!(data.validation, Validation::Split(Split { share: 0.2, seed: 0 }));
    }

    /// The next run keeps aside what the one before it has not seen.
    #[test]
    fn a_run_that_goes_on_keeps_the_split() {
        let dir = tempfile::tempdir().unwrap();
        let root = folder(&dir.path().join("pets"), &LABELS, 0);
        let first = Dataset::read(&root, &options(0.3, 7)).unwrap();
        let (record, _) = run(&first, 7);
        let next = Dataset::read_for(&root, &options(0.2, 0), &record, &|_, _| ()).unwrap();
        assert_eq!(next.val.digests, first.val.digests);
        assert_eq!(next.fingerprint, first.fingerprint);
        assert!(next.remarks[0].contains("not trained on (seed 7, 30 %)"), "{:?}", next.remarks);
    }

    #[test]
    fn pictures_without_classes_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = folder(dir.path(), &["cat"], 0);
        let read = |root: &Path| Dataset::read_unlabelled(root, &options(0.0, 0), &|_, _| ());
        assert_eq!(read(&root.join("cat")).unwrap().train.len(), 10);
        assert_eq!(read(&root).unwrap().train.len(), 10);
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let error = read(&dir.path().join("empty")).unwrap_err().to_string();
        assert!(error.contains("no usable picture"), "{error}");
        // What lies beside classes, and deeper than they do, is of no class, but there.
        std::fs::create_dir(root.join("cat/old")).unwrap();
        std::fs::copy(root.join("cat/0.png"), root.join("cat/old/a.png")).unwrap();
        std::fs::copy(root.join("cat/0.png"), root.join("loose.png")).unwrap();
        let heap = |root: &Path| Dataset::read_heap(root, &options(0.0, 0), &|_, _| ());
        assert_eq!(heap(&root).unwrap().train.len(), 12);
        let error = heap(&dir.path().join("empty")).unwrap_err().to_string();
        assert!(error.contains("no usable picture"), "{error}");
        assert!(heap(&dir.path().join("nowhere")).is_err());
    }
}
