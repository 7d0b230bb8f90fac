//! What a teacher says of the views of each epoch, and the file that keeps it.
//!
//! A teacher sees what its student sees: the same loader makes both views, by the same draws. What it says of an
//! epoch is kept in `teacher.bin`, so that neither a resumed run nor one that is repeated with another rate or
//! temperature asks again. The file begins with what its contents depend on, as a number, and has an epoch's
//! logits after the other, each with a sum that tells whether they are whole.

use super::{Run, Teaching, counter, interrupted};
use crate::data::{Batches, Loading, Order, Pictures};
use crate::distributed::{self, world};
use anyhow::{Context, ensure};
use core::sync::atomic::Ordering;
use network::random::fnv1a;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file in a run's folder.
pub(super) const FILE: &str = "teacher.bin";
/// Start of the file.
const MAGIC: [u8; 8] = *b"TEACHER1";
/// Bytes of the file, at most: of later epochs the teacher is asked again.
const MOST_BYTES: u64 = 1 << 30;

/// What the teacher of a run says.
pub(super) struct Lessons<'a> {
    run: &'a Run<'a>,
    teaching: &'a Teaching,
    /// All pictures that are learned from, as the student sees them, those without a label last.
    pictures: Arc<Pictures>,
    /// The same as the teacher sees them, once it is asked.
    seen: Option<Arc<Pictures>>,
    /// Which of the teacher's classes each class is.
    order: Vec<usize>,
    file: Option<Kept>,
}

impl<'a> Lessons<'a> {
    /// Those of `run` for `pictures` with these `labels`; `None` where nobody teaches.
    pub(super) fn of(
        run: &'a Run<'a>,
        pictures: &Arc<Pictures>,
        labels: &[String],
        fingerprint: &str,
    ) -> anyhow::Result<Option<Self>> {
        let Some(teaching) = run.teaching else { return Ok(None) };
        let order = teaching.teacher.order(labels)?;
        let epoch_len = pictures.len() * labels.len();
        let key = fnv1a(run.views(fingerprint).as_bytes());
        let path = run.folder.as_ref().map(|folder| folder.file(FILE)).transpose()?;
        let file = path.map(|path| Kept::open(path, key, epoch_len)).transpose()?;
        let (run, pictures) = (run, pictures.clone());
        Ok(Some(Self { run, teaching, pictures, seen: None, order, file }))
    }

    /// All pictures that are learned from.
    pub(super) fn pictures(&self) -> &Arc<Pictures> {
        &self.pictures
    }

    /// Logits `[pictures, classes]` for the views of an epoch, from 0. Those of a picture that the epoch
    /// leaves out are 0.
    pub(super) fn epoch(&mut self, epoch: u32) -> anyhow::Result<Vec<f32>> {
        let kept = distributed::from_first(|| {
            Ok(self.file.as_mut().map(|file| file.read(epoch)).transpose()?.flatten())
        })?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let mut logits = self.ask(epoch)?;
        join(&mut logits);
        let logits: Vec<f32> = logits.into_iter().map(|(logit, _)| logit as f32).collect();
        if let Some(file) = &mut self.file {
            file.write(epoch, &logits)?;
        }
        Ok(logits)
    }

    /// Logits `[pictures, classes]` for pictures as they are, those at `some` places.
    ///
    /// To be asked by one process alone.
    pub(super) fn plain(&mut self, some: &[usize]) -> anyhow::Result<Vec<f32>> {
        let pictures = Arc::new(self.seen()?.select(some));
        let own = self.run.loading(0);
        let loading = Loading { side: None, order: Order::Sequential, ..own };
        let said = self.look(pictures, loading, None)?;
        Ok(said.into_iter().map(|(logit, _)| logit as f32).collect())
    }

    /// Logits, and how many processes have computed them, of this process's pictures.
    fn ask(&mut self, epoch: u32) -> anyhow::Result<Vec<(f64, f64)>> {
        let own = self.run.loading(epoch);
        let loading = Loading { side: None, frame: Some(own.frame()), ..own };
        let pictures = self.seen()?;
        self.look(pictures, loading, Some(epoch))
    }

    /// All pictures as the teacher sees them.
    fn seen(&mut self) -> anyhow::Result<Arc<Pictures>> {
        if let Some(seen) = &self.seen {
            return Ok(seen.clone());
        }
        let counter = counter("reading pictures for the teacher");
        let watch = |done, total| {
            if let Some(counter) = &counter {
                counter.show(done, total);
            }
        };
        let preprocess = self.teaching.teacher.preprocess(&self.run.preprocess);
        let seen = self.pictures.seen_by(preprocess, self.teaching.cache, &watch)?;
        Ok(self.seen.insert(Arc::new(seen)).clone())
    }

    /// What the teacher says of `pictures`, which are of its size, for an epoch. Before the first one, nobody
    /// stops it: there is no state yet to go on from.
    fn look(
        &self,
        pictures: Arc<Pictures>,
        loading: Loading,
        epoch: Option<u32>,
    ) -> anyhow::Result<Vec<(f64, f64)>> {
        let (classes, count) = (self.order.len(), pictures.len());
        let preprocess = self.teaching.teacher.preprocess(&self.run.preprocess);
        let mut logits = vec![(0.0, 0.0); count * classes];
        let counter = counter("the teacher looks at pictures");
        let mut done = 0;
        for batch in Batches::start(pictures, Loading { preprocess, ..loading }) {
            let batch = batch.with_context(|| named(epoch))?;
            let said = self.teaching.teacher.logits(&batch.pixels)?;
            for (picture, said) in batch.pictures.iter().zip(said.chunks_exact(classes)) {
                let row = &mut logits[picture * classes..][..classes];
                for (logit, class) in row.iter_mut().zip(&self.order) {
                    ensure!(
                        said[*class].is_finite(),
                        "{}: the teacher's scores are no numbers; use another --teacher",
                        named(epoch)
                    );
                    *logit = (f64::from(said[*class]), 1.0);
                }
            }
            done += batch.pictures.len();
            if let Some(counter) = &counter {
                counter.show(done, count);
            }
            if let Some(epoch) = epoch.filter(|_| self.run.stop.load(Ordering::Relaxed)) {
                return Err(interrupted(epoch, self.run.recipe.epochs));
            }
        }
        Ok(logits)
    }
}

fn named(epoch: Option<u32>) -> String {
    epoch.map_or("before epoch 1".into(), |epoch| format!("epoch {}", epoch + 1))
}

/// Gives every process what all have computed. Of a batch that several compute, all have the same.
fn join(logits: &mut [(f64, f64)]) {
    if world().processes() == 1 {
        return;
    }
    let mut sums: Vec<f64> = logits.iter().flat_map(|(logit, count)| [*logit, *count]).collect();
    world().sum(&mut sums);
    // Exact: a few times 24 bits are fewer than 53.
    for (logit, sum) in logits.iter_mut().zip(sums.as_chunks::<2>().0) {
        *logit = (sum[0] / sum[1].max(1.0), sum[1]);
    }
}

/// The file of a run's folder.
struct Kept {
    path: PathBuf,
    file: File,
    /// Numbers of an epoch.
    len: usize,
}

impl Kept {
    /// What lies there where it has the `key`, else an empty file.
    fn open(path: PathBuf, key: u64, len: usize) -> anyhow::Result<Self> {
        let head = [MAGIC, key.to_le_bytes()].concat();
        let open = |path: &Path| -> std::io::Result<File> {
            let mut options = File::options();
            let mut file =
                options.read(true).write(true).create(true).truncate(false).open(path)?;
            let mut found = Vec::new();
            (&mut file).take(head.len() as u64).read_to_end(&mut found)?;
            if found != head {
                file.set_len(0)?;
                file.rewind()?;
                file.write_all(&head)?;
            }
            Ok(file)
        };
        let file = open(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, file, len })
    }

    /// Where an epoch's sum and numbers begin; `None` where they are not kept.
    fn place(&self, epoch: u32) -> Option<u64> {
        let block = 8 + 4 * self.len as u64;
        let start = 16u64.checked_add(block.checked_mul(epoch.into())?)?;
        (start.checked_add(block)? <= MOST_BYTES).then_some(start)
    }

    /// An epoch's numbers, where they are there and whole.
    fn read(&mut self, epoch: u32) -> anyhow::Result<Option<Vec<f32>>> {
        let Some(start) = self.place(epoch) else { return Ok(None) };
        let length = 8 + 4 * self.len as u64;
        let mut bytes = Vec::new();
        let mut read = || {
            self.file.seek(SeekFrom::Start(start))?;
            (&mut self.file).take(length).read_to_end(&mut bytes)
        };
        read().with_context(|| self.path.display().to_string())?;
        let Some((sum, numbers)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
        let is_whole = bytes.len() as u64 == length && u64::from_le_bytes(*sum) == digest(numbers);
        let numbers = numbers.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v));
        Ok(is_whole.then(|| numbers.collect()))
    }

    fn write(&mut self, epoch: u32, logits: &[f32]) -> anyhow::Result<()> {
        let Some(start) = self.place(epoch) else { return Ok(()) };
        let numbers: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
        let block = [&digest(&numbers).to_le_bytes()[..], &numbers].concat();
        let mut write = || {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.write_all(&block)
        };
        write().with_context(|| self.path.display().to_string())
    }
}

/// Never that of a hole in a file.
fn digest(numbers: &[u8]) -> u64 {
    fnv1a(numbers).max(1)
}
