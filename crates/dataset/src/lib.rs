//! Labelled pictures from folders and CIFAR-10's binary files.

mod cache;
mod checkup;
mod cifar;
mod error;
mod fit;
mod folder;
mod glance;
mod labelled;
mod layout;
mod memory;
mod part;
mod pictures;
mod record;
pub mod samples;
mod skipped;
mod stored;

pub use cache::{CacheSize, CacheSizeError};
pub use error::DataError;
pub use fit::fit;
pub use glance::Glance;
pub use labelled::{Labelled, Measured, interval, margin};
pub use layout::{is_part_name, list};
pub use pictures::{Origin, Pictures, Watch};
pub use skipped::Skipped;

use network::checkpoint::{Split, TrainingRecord, Validation};

use artifact::Preprocess;
use layout::Layout;
use network::random::{Rng, fnv1a};
use part::{Files, Part};
use pictures::Reader;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Files that are named as skipped, at most.
const MAX_NAMED: usize = 10;

/// A data set that has been read; its pictures are in memory as far as they fit.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Last part of the path, for the training record.
    pub name: String,
    /// Class names in index order.
    pub labels: Vec<String>,
    /// Pictures to learn from.
    pub train: Pictures,
    /// Pictures to choose the best epoch by; empty where there are none.
    pub val: Pictures,
    /// Which pictures those are.
    pub validation: Validation,
    /// Pictures for the last word, which choose nothing; empty where there are none.
    pub test: Pictures,
    /// Where those lie, such as `test/`.
    pub test_name: String,
    /// Files that could not be used.
    pub skipped: Vec<Skipped>,
    /// What else was found, one line each.
    pub remarks: Vec<String>,
    /// Hash over the bytes and class of every picture to learn from or to choose by, in order.
    pub fingerprint: String,
}

/// How to read a data set.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Model input size and the rule that brings pictures to it.
    pub preprocess: Preprocess,
    /// Share of each class set aside for validation where the folder has no split, 0..1.
    pub val_split: f64,
    /// Chooses the pictures set aside.
    pub seed: u64,
    /// Number of classes the user expects.
    pub classes: Option<usize>,
    /// Memory for decoded pictures; the others are decoded again whenever they are needed.
    pub cache: CacheSize,
}

impl Dataset {
    /// How large it is, and which of its pictures are for what.
    pub fn extent(&self) -> String {
        let (classes, train) = (self.labels.len(), self.train.len());
        let val = match self.val.len() {
            0 => "no validation pictures".into(),
            n => format!("{n} validation pictures ({})", self.validation),
        };
        let test = match self.test.len() {
            0 => String::new(),
            n => format!(", {n} test pictures ({})", self.test_name),
        };
        format!("{classes} classes, {train} training and {val}{test}")
    }

    /// Reads a folder: CIFAR-10's binary files, class folders below `train/`, `val/` and `test/`, or
    /// class folders alone.
    ///
    /// Without pictures to validate on, some of each class are set aside.
    ///
    /// # Errors
    /// Unreadable or missing folders, those whose meaning is not clear, fewer than two classes,
    /// classes without a usable picture, and a class count other than the one expected.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        Self::read_for(path, options, &TrainingRecord::default(), &|_, _| ())
    }

    /// As [`Self::read`], for training that goes on from a model with the record `base`: where that
    /// was trained on these pictures, those that it was not trained on stay aside, whatever the
    /// `options` say.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn read_for(
        path: &Path,
        options: &ReadOptions,
        base: &TrainingRecord,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let mut data = Self::examine(path, options, watch)?;
        data.check_classes(path, options.classes)?;
        if data.val.is_empty() {
            let own = Split { share: options.val_split, seed: options.seed };
            let kept = data.split_of(base);
            if let Some(kept) = kept.filter(|kept| *kept != own) {
                data.remarks.push(format!(
                    "validation pictures are those that the model was not trained on ({kept})"
                ));
            }
            data.split(kept.unwrap_or(own));
        }
        data.fingerprint = data.digest();
        Ok(data)
    }

    /// Reads a folder as it lies there, to see what it has: nothing is set aside, and there may be
    /// fewer classes or pictures than can be learned from. It has no fingerprint.
    ///
    /// # Errors
    /// Unreadable or missing folders, and those whose meaning is not clear.
    pub fn examine(
        path: &Path,
        options: &ReadOptions,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let layout = find(path)?;
        let reader = Reader::new(options.preprocess, options.cache, watch);
        let mut skipped = Vec::new();
        let Some(train) = &layout.train else {
            let parts = [&layout.val, &layout.test].into_iter().flatten();
            let names: Vec<String> = parts.map(|part| part.name.clone()).collect();
            return Err(DataError::layout(
                path,
                format!("{} and no pictures to learn from; call their folder train", list(&names)),
            ));
        };
        let labels = train.labels.clone();
        check_labels(train)?;
        let parts = [Some(train), layout.val.as_ref(), layout.test.as_ref()];
        let [train, val, test] = read_parts(parts, &labels, &reader, &mut skipped)?;
        let validation = match layout.val {
            Some(part) if !val.is_empty() => Validation::Part(part.name),
            _ => Validation::None,
        };
        Ok(Self {
            name: layout.name,
            labels,
            train,
            val,
            validation,
            test,
            test_name: layout.test.map_or(String::new(), |part| part.name),
            skipped,
            remarks: layout.remarks,
            fingerprint: String::new(),
        })
    }

    /// The pictures of a folder, whatever they show: those to learn from where it has parts.
    ///
    /// # Errors
    /// Unreadable or missing folders, and those without a usable picture.
    pub fn read_unlabelled(
        path: &Path,
        options: &ReadOptions,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let layout = find(path).ok();
        let (parts, remarks) = match layout {
            Some(layout) => ([layout.train, layout.val, layout.test], layout.remarks),
            None => Default::default(),
        };
        let part = parts.into_iter().flatten().next().unwrap_or_else(|| Layout::heap(path));
        Self::of_part(path, part, remarks, options, watch)
    }

    /// The pictures below a folder, at any depth, whatever its folders mean and they show.
    ///
    /// # Errors
    /// Those of [`Self::read_unlabelled`].
    pub fn read_heap(
        path: &Path,
        options: &ReadOptions,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let heap = Self::of_part(path, Layout::heap(path), Vec::new(), options, watch);
        // Records of CIFAR-10's files are none that lie in a heap.
        heap.or_else(|none| Self::read_unlabelled(path, options, watch).map_err(|_| none))
    }

    /// The pictures of a part of what lies at `path`.
    fn of_part(
        path: &Path,
        part: Part,
        remarks: Vec<String>,
        options: &ReadOptions,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let mut skipped = Vec::new();
        let reader = Reader::new(options.preprocess, options.cache, watch);
        let [train] = read_parts([Some(&part)], &part.labels, &reader, &mut skipped)?;
        if train.is_empty() {
            let why = skipped.first().map_or(String::new(), |s| format!(" ({s})"));
            return Err(DataError::layout(path, format!("no usable picture below it{why}")));
        }
        Ok(Self {
            name: String::new(),
            labels: part.labels,
            train,
            val: reader.pictures(),
            validation: Validation::None,
            test: reader.pictures(),
            test_name: String::new(),
            skipped,
            remarks,
            fingerprint: String::new(),
        })
    }

    /// What a user should know before relying on it, one line each: what was not used, and what
    /// makes an accuracy look better or worse than it is.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = notes(&self.remarks, &self.skipped);
        for [a, b] in self.case_twins() {
            notes.push(format!(
                "warning: the classes `{a}` and `{b}` differ only in case; if they are one class, \
                 put its pictures into one folder"
            ));
        }
        let leaked = self.leaked();
        if leaked > 0 {
            notes.push(format!(
                "warning: {leaked} validation pictures are also training pictures; the accuracy \
                 will look better than it is"
            ));
        }
        let contradictions = self.contradictions();
        if contradictions > 0 {
            notes.push(format!(
                "warning: {contradictions} pictures appear under more than one class"
            ));
        }
        notes
    }

    fn check_classes(&self, path: &Path, expected: Option<usize>) -> Result<(), DataError> {
        let found = self.labels.len();
        let names = list(&self.labels);
        if let Some(expected) = expected.filter(|e| *e != found) {
            return Err(DataError::layout(
                path,
                format!(
                    "--classes {expected}, but the data has {found} classes ({names}); \
                     pass --classes {found} or add and remove folders"
                ),
            ));
        }
        if found < 2 {
            return Err(DataError::layout(
                path,
                format!(
                    "only one class ({names}); telling things apart needs at least two folders"
                ),
            ));
        }
        for (label, count) in self.labels.iter().zip(self.train.counts(found)) {
            if count == 0 {
                let why = self.skipped.first().map_or(String::new(), |s| format!(" ({s})"));
                return Err(DataError::layout(
                    path,
                    format!(
                        "class `{label}` has no usable picture{why}; add some or remove the folder"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Moves a share of each class, at least one of two, from `train` to `val`, if it is above 0.
    fn split(&mut self, split: Split) {
        if split.share <= 0.0 {
            return;
        }
        let groups = self.train.by_class(&mut Rng::keyed(&[split.seed, fnv1a(b"split")]));
        let (mut train, mut val) = (Vec::new(), Vec::new());
        for group in groups {
            let most = group.len().saturating_sub(1);
            let count = ((group.len() as f64 * split.share).round() as usize).max(1).min(most);
            val.extend_from_slice(&group[..count]);
            train.extend_from_slice(&group[count..]);
        }
        train.sort_unstable();
        val.sort_unstable();
        self.val = self.train.select(&val);
        self.train = self.train.select(&train);
        self.validation = Validation::Split(split);
    }

    /// The split that the run with this record made of these undivided pictures; `None` where it
    /// was trained on others.
    fn split_of(&self, record: &TrainingRecord) -> Option<Split> {
        let split = match record.validation {
            Validation::Split(split) => split,
            // The default, before it was recorded.
            Validation::Unknown => Split { share: 0.2, seed: record.seed },
            _ => return None,
        };
        let mut divided = self.clone();
        divided.split(split);
        (divided.digest() == record.fingerprint).then_some(split)
    }

    /// Number of pictures whose pixels are in memory.
    pub fn in_memory(&self) -> usize {
        self.train.in_memory() + self.val.in_memory() + self.test.in_memory()
    }

    /// Number of pictures.
    pub fn pictures(&self) -> usize {
        self.train.len() + self.val.len() + self.test.len()
    }

    /// Pictures of `val` whose stored bytes also lie in `train`.
    pub fn leaked(&self) -> usize {
        let known: HashSet<u64> = self.train.digests.iter().copied().collect();
        self.val.digests.iter().filter(|d| known.contains(d)).count()
    }

    /// Pictures whose stored bytes appear under more than one class.
    pub fn contradictions(&self) -> usize {
        let mut classes: HashMap<u64, u32> = HashMap::new();
        let all = [&self.train, &self.val];
        let pairs = all.iter().flat_map(|p| p.digests.iter().zip(&p.labels));
        pairs.filter(|(d, l)| *classes.entry(**d).or_insert(**l) != **l).count()
    }

    /// Pairs of classes whose names differ only in case: most often one class by mistake, and
    /// one folder on systems that ignore case.
    pub fn case_twins(&self) -> Vec<[&str; 2]> {
        let mut seen: HashMap<String, &str> = HashMap::new();
        let mut twins = Vec::new();
        for label in &self.labels {
            if let Some(other) = seen.insert(label.to_lowercase(), label) {
                twins.push([other, label.as_str()]);
            }
        }
        twins
    }

    fn digest(&self) -> String {
        let fold = |h: u64, v: u64| Rng::keyed(&[h, v]).next_u64();
        let hash = [&self.train, &self.val].iter().fold(0, |h, pictures| {
            let pairs = pictures.digests.iter().zip(&pictures.labels);
            pairs.fold(fold(h, pictures.len() as u64), |h, (d, l)| fold(h, d ^ u64::from(*l)))
        });
        format!("{hash:016x}")
    }
}

/// Where the pictures of a data set lie.
fn find(path: &Path) -> Result<Layout, DataError> {
    let meta = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
    if !meta.is_dir() {
        return Err(DataError::layout(
            path,
            "not a folder; --data wants a folder with one folder of pictures per class",
        ));
    }
    Layout::find(path)
}

/// Class names become labels of a model.
fn check_labels(part: &Part) -> Result<(), DataError> {
    let most = artifact::meta::MAX_LABEL_BYTES;
    let Some(label) = part.labels.iter().find(|l| l.len() > most) else { return Ok(()) };
    let start: String = label.chars().take(32).collect();
    Err(DataError::layout(
        &part.path,
        format!("the class name `{start}…` is longer than {most} bytes; shorten the folder's name"),
    ))
}

/// Lines on what was found beside usable pictures.
fn notes(remarks: &[String], skipped: &[Skipped]) -> Vec<String> {
    let mut notes = remarks.to_vec();
    notes.extend(skipped.iter().take(MAX_NAMED).map(|file| format!("skipped {file}")));
    if skipped.len() > MAX_NAMED {
        notes.push(format!("skipped files: {}", skipped.len()));
    }
    notes
}

/// The files of a part, before they are read.
enum Listed {
    /// Of each class.
    Pictures(Vec<Vec<PathBuf>>),
    Batches(Vec<PathBuf>),
}

impl Part {
    /// Finds its files, and lets the reader expect as many.
    fn list(&self, reader: &Reader<'_>) -> Result<Listed, DataError> {
        Ok(match &self.files {
            Files::Folders(folders) => {
                let classes = folder::list(folders)?;
                reader.expect(classes.iter().map(Vec::len).sum());
                Listed::Pictures(classes)
            }
            Files::Batches(files) => {
                reader.expect(cifar::count(files));
                Listed::Batches(files.clone())
            }
        })
    }

    /// Reads its pictures; their classes are places in `labels`, which has all of the part's.
    fn read(
        &self,
        listed: &Listed,
        labels: &[String],
        reader: &Reader<'_>,
        skipped: &mut Vec<Skipped>,
    ) -> Result<Pictures, DataError> {
        let mut pictures = match listed {
            Listed::Pictures(classes) => folder::read(classes, reader, skipped),
            Listed::Batches(files) => cifar::read(files, self.labels.len(), reader)?,
        };
        let place = |label: &u32| {
            let name = &self.labels[*label as usize];
            labels.iter().position(|l| l == name).unwrap_or(0) as u32
        };
        pictures.labels = pictures.labels.iter().map(place).collect();
        Ok(pictures)
    }
}

/// Reads parts of a data set; what is not there has no pictures.
fn read_parts<const N: usize>(
    parts: [Option<&Part>; N],
    labels: &[String],
    reader: &Reader<'_>,
    skipped: &mut Vec<Skipped>,
) -> Result<[Pictures; N], DataError> {
    let mut listed = Vec::new();
    for part in parts {
        listed.push(part.map(|part| part.list(reader)).transpose()?);
    }
    let mut read = parts.map(|_| reader.pictures());
    for ((part, listed), pictures) in parts.iter().zip(&listed).zip(&mut read) {
        if let (Some(part), Some(listed)) = (part, listed) {
            *pictures = part.read(listed, labels, reader, skipped)?;
        }
    }
    Ok(read)
}
