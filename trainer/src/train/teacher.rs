//! Distillation: a network learns what a finished one, its teacher, says of the very pictures that it
//! sees, beside what they are labelled, or instead of it (Hinton, Vinyals and Dean, *Distilling the
//! Knowledge in a Neural Network*, 2015; Beyer et al., *Knowledge distillation: A good teacher is patient
//! and consistent*, 2022).
//!
//! The loss of a labelled picture is `(1 − α)·cross-entropy + α·T²·KL(teacher ‖ student)`, both softmaxes at
//! temperature T; of one without a label the second term.

use super::loss::softmax;
use crate::data::{CacheSize, Dataset, Pictures};
use crate::distributed;
use anyhow::{Context, anyhow, bail, ensure};
use artifact::Preprocess;
use artifact::header::MAGIC;
use artifact::text::AsPlain;
use convert::pipeline::{self, Quantize};
use dataset::list;
use network::checkpoint::{Checkpoint, TrainingRecord};
use network::model::FloatModel;
use network::random::{Rng, fnv1a};
use rayon::prelude::*;
use runtime::{AlignedBuf, Model, Session};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use zoo::{Head, Hints};

/// A finished model that teaches another one. It runs as it would on a device.
#[derive(Debug)]
pub struct Teacher {
    file: AlignedBuf,
    record: TrainingRecord,
    name: String,
    labels: Vec<String>,
    preprocess: Preprocess,
}

/// What a [`Teacher`] is made of; one of several processes reads it for all.
#[derive(Debug, Serialize, Deserialize)]
struct TeacherFile {
    /// A `.edge` file.
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    /// How it was trained, where that is known.
    record: TrainingRecord,
}

impl TeacherFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let name = || format!("--teacher {}", path.display().to_string().plain());
        if let Some(bytes) = edge(path).with_context(name)? {
            return Ok(Self { bytes, record: TrainingRecord::default() });
        }
        let model = zoo::open_any(path, Head::Required, &Hints::default()).with_context(name)?;
        Self::of(&model.to_float_model().with_context(name)?).with_context(name)
    }

    fn of(model: &FloatModel) -> anyhow::Result<Self> {
        let options = pipeline::Options { quantize: Quantize::None, ..Default::default() };
        let converted = pipeline::convert(model, &[], options, |_, _| ())?;
        Ok(Self { bytes: converted.emitted.bytes, record: model.training.clone() })
    }
}

/// The contents of a `.edge` file; `None` of what is none.
fn edge(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    if !path.is_file() {
        return Ok(None);
    }
    let mut start = Vec::new();
    std::fs::File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start == MAGIC { network::file::read(path).map(Some) } else { Ok(None) }
}

impl Teacher {
    /// Opens what `trainer` or `convert` can open, or a finished `.edge` file; of several processes, the first
    /// one reads it.
    ///
    /// # Errors
    /// No model, and one that cannot be converted.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Self::new(distributed::from_first(|| TeacherFile::open(path))?)
    }

    /// A trained network.
    ///
    /// # Errors
    /// One that cannot be converted.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> anyhow::Result<Self> {
        Self::new(TeacherFile::of(&FloatModel::from_checkpoint(checkpoint)?)?)
    }

    fn new(file: TeacherFile) -> anyhow::Result<Self> {
        let bytes = AlignedBuf::from_slice(&file.bytes);
        let model = Model::new(&bytes).map_err(|e| anyhow!("--teacher: {e}"))?;
        let (name, preprocess) = (model.meta().name.to_owned(), model.meta().preprocess);
        let grey = model.input_shape().c == 1;
        let labels = model.labels().map(str::to_owned).collect();
        let preprocess = Preprocess { grey, ..preprocess };
        Ok(Self { file: bytes, record: file.record, name, labels, preprocess })
    }

    /// How it was trained; empty where that is not known.
    pub fn record(&self) -> &TrainingRecord {
        &self.record
    }

    /// What it is, in words.
    pub fn name(&self) -> String {
        let p = &self.preprocess;
        format!("{}, {}×{} pixels", self.name, p.width, p.height)
    }

    /// Tells it from others.
    fn digest(&self) -> u64 {
        fnv1a(&self.file)
    }

    /// From pictures to its input, fitted as its student fits them.
    pub(super) fn preprocess(&self, student: &Preprocess) -> Preprocess {
        Preprocess { fit: student.fit, ..self.preprocess }
    }

    /// Which of its classes each of `labels` is.
    ///
    /// # Errors
    /// Other classes than these.
    pub fn order(&self, labels: &[String]) -> anyhow::Result<Vec<usize>> {
        let places = labels.iter().map(|label| self.labels.iter().position(|own| own == label));
        match places.collect::<Option<Vec<usize>>>() {
            Some(order) if labels.len() == self.labels.len() => Ok(order),
            _ => bail!(
                "the teacher knows {} classes ({}), the data has {} ({}); teach it the same ones first, \
                 with `trainer finetune --data DIR -o teacher.mpk`, and pass --teacher teacher.mpk",
                self.labels.len(),
                list(&self.labels).plain(),
                labels.len(),
                list(labels).plain()
            ),
        }
    }

    /// What it says of pictures, `planes: [N, channels, height, width]`: logits `[N, classes]`. Each picture
    /// is computed by one thread, so that their number changes nothing.
    pub(super) fn logits(&self, planes: &[f32]) -> anyhow::Result<Vec<f32>> {
        // The first time, it was checked as a whole.
        let model = Model::new_trusted(&self.file).map_err(|e| anyhow!("--teacher: {e}"))?;
        let p = &self.preprocess;
        let pixels = usize::from(p.height) * usize::from(p.width);
        let len = pixels * p.channels();
        let share = (planes.len() / len.max(1)).div_ceil(rayon::current_num_threads()).max(1);
        let run = |planes: &[f32]| -> anyhow::Result<Vec<f32>> {
            let mut arena = AlignedBuf::zeroed(model.arena_len());
            let mut session =
                Session::new(&model, &mut arena).map_err(|e| anyhow!("--teacher: {e}"))?;
            let mut logits = Vec::new();
            for planes in planes.chunks_exact(len) {
                let mut input = session.input_mut();
                for (channel, plane) in planes.chunks_exact(pixels).enumerate() {
                    for (i, v) in plane.iter().enumerate() {
                        input.set(i * p.channels() + channel, *v);
                    }
                }
                logits.extend(session.run().iter());
            }
            Ok(logits)
        };
        let parts = planes.par_chunks(share * len).map(run);
        Ok(parts.collect::<anyhow::Result<Vec<_>>>()?.concat())
    }
}

/// How one network is taught by another.
#[derive(Debug)]
pub struct Teaching {
    /// Who teaches.
    pub teacher: Teacher,
    /// How much the teacher counts, α; the labels have the rest.
    pub weight: f64,
    /// T: above 1, what it finds less likely counts more.
    pub temperature: f64,
    /// Pictures of which only the teacher says what they are, prepared for the student.
    pub unlabelled: Pictures,
    /// Memory for the pictures as the teacher sees them.
    pub cache: CacheSize,
}

impl Teaching {
    /// How much the teacher counts where nobody says.
    pub const WEIGHT: f64 = 0.9;
    /// The temperature where nobody says.
    pub const TEMPERATURE: f64 = 2.0;

    /// By `teacher`, of pictures that the student sees by `preprocess`, all of them labelled.
    pub fn by(teacher: Teacher, preprocess: Preprocess) -> Self {
        let (weight, temperature) = (Self::WEIGHT, Self::TEMPERATURE);
        let unlabelled = Pictures::new(preprocess);
        Self { teacher, weight, temperature, unlabelled, cache: CacheSize::Auto }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// The first number out of range, with the range.
    pub fn check(&self) -> anyhow::Result<()> {
        check(self.weight, self.temperature)
    }

    /// Adds pictures without labels: those that are not among the data's already, of which validation and test
    /// pictures are to stay unknown. Says what was left out.
    pub fn add_unlabelled(&mut self, pictures: &Pictures, data: &Dataset) -> Vec<String> {
        let mut seen: HashSet<u64> = self.unlabelled.digests.iter().copied().collect();
        let mut left_out = [0; 4];
        let known = [&data.val, &data.test, &data.train].map(|pictures| {
            let digests = pictures.digests.iter().copied();
            digests.collect::<HashSet<u64>>()
        });
        let is_new = |i: &usize| {
            let digest = pictures.digests[*i];
            let found = known.iter().position(|known| known.contains(&digest));
            let found = found.or((!seen.insert(digest)).then_some(3));
            found.map(|kind| left_out[kind] += 1).is_none()
        };
        let new: Vec<usize> = (0..pictures.len()).filter(is_new).collect();
        let mut new = pictures.select(&new);
        // The class behind the last one: none.
        new.labels.fill(data.labels.len() as u32);
        self.unlabelled.append(&new);
        let why = [
            "warning: {} unlabelled pictures are validation pictures; they are left out",
            "warning: {} unlabelled pictures are test pictures; they are left out",
            "{} unlabelled pictures are among the labelled ones; they are left out",
            "{} unlabelled pictures are there twice; they count once",
        ];
        let said = why.iter().zip(left_out).filter(|(_, count)| *count > 0);
        said.map(|(why, count)| why.replace("{}", &count.to_string())).collect()
    }

    /// How much pictures count as each class, `[pictures, classes]`: by their labels, which count as `weights`
    /// says, and by what the teacher `said` of them.
    pub(super) fn targets(&self, said: &[f32], labels: &[u32], weights: &[f32]) -> Vec<f32> {
        let mut rows = softmax(said, weights.len(), 1.0);
        rows.iter_mut().for_each(|share| *share *= self.weight as f32);
        for (row, label) in rows.chunks_exact_mut(weights.len()).zip(labels) {
            let label = *label as usize;
            if let (Some(share), Some(weight)) = (row.get_mut(label), weights.get(label)) {
                *share += (1.0 - self.weight) as f32 * weight;
            }
        }
        rows
    }

    /// Who looks at what, as text.
    pub(super) fn views(&self) -> String {
        let fold = |h: u64, v: &u64| Rng::keyed(&[h, *v]).next_u64();
        let unlabelled = self.unlabelled.digests.iter().fold(0, fold);
        format!("{:016x} {unlabelled:016x}", self.teacher.digest())
    }

    /// What shapes the result, as text, for the training record.
    pub(super) fn options(&self) -> BTreeMap<String, String> {
        let views = self.views();
        let (teacher, unlabelled) = views.split_once(' ').unwrap_or_default();
        let mut options: BTreeMap<String, String> = [
            ("teacher", format!("{} {teacher}", self.teacher.name)),
            ("teacher-weight", self.weight.to_string()),
            ("temperature", self.temperature.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if !self.unlabelled.is_empty() {
            let count = self.unlabelled.len();
            options.insert("unlabelled".into(), format!("{count} pictures {unlabelled}"));
        }
        options
    }
}

/// Checks what `--teacher-weight` and `--temperature` say.
pub(crate) fn check(weight: f64, temperature: f64) -> anyhow::Result<()> {
    ensure!(
        weight > 0.0 && weight <= 1.0,
        "--teacher-weight {weight} is not above 0 and at most 1; pass a share such as {}",
        Teaching::WEIGHT
    );
    ensure!(
        (0.1..=100.0).contains(&temperature),
        "--temperature {temperature} is not in 0.1..=100; pass a number such as {}",
        Teaching::TEMPERATURE
    );
    Ok(())
}
