//! Pictures with their classes, in memory as far as they fit.

use super::cache::{Budget, CacheSize};
use super::error::DataError;
use super::stored::Stored;
use artifact::Preprocess;
use core::sync::atomic::{AtomicUsize, Ordering};
use network::random::{Rng, fnv1a};
use rayon::prelude::*;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// Is told, by any thread, how many pictures have been read, and of how many.
pub type Watch<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Pictures at the model's input size, RGB or luma, not normalized, with their classes.
///
/// Those that do not fit into the memory given for them are decoded again from their files
/// each time. Copies share the pixels.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// Class index of each picture.
    pub labels: Vec<u32>,
    /// Hash of each picture's bytes as stored, for finding duplicates and changed files.
    pub digests: Vec<u64>,
    /// Width and height of each picture in pixels, before it was brought to the model's input size.
    pub sizes: Vec<[u32; 2]>,
    places: Vec<Place>,
    preprocess: Preprocess,
}

/// Where a picture lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its number among several in one file, from 0.
    pub record: Option<u64>,
}

/// Where the pixels of a picture come from.
#[derive(Debug, Clone)]
enum Place {
    /// `[height, width, channels]`, and where they were read from.
    Memory(Arc<[u8]>, Option<Stored>),
    Disk(Stored),
}

/// A picture that was just read.
#[derive(Debug)]
pub(super) struct Read {
    digest: u64,
    size: [u32; 2],
    place: Place,
}

/// Decodes the pictures of a data set for the first time and keeps what there is memory for.
pub(super) struct Reader<'a> {
    preprocess: Preprocess,
    budget: Budget,
    /// Told how many pictures have been read, of how many.
    watch: Watch<'a>,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(preprocess: Preprocess, cache: CacheSize, watch: Watch<'a>) -> Self {
        let (done, total) = Default::default();
        Self { preprocess, budget: Budget::new(cache), watch, done, total }
    }

    /// So many more pictures will be read.
    pub(super) fn expect(&self, count: usize) {
        let total = self.total.fetch_add(count, Ordering::Relaxed) + count;
        (self.watch)(self.done.load(Ordering::Relaxed), total);
    }

    /// No pictures yet.
    pub(super) const fn pictures(&self) -> Pictures {
        Pictures::new(self.preprocess)
    }

    /// Reads and decodes a picture.
    pub(super) fn read(&self, stored: Stored) -> Result<Read, String> {
        let read = stored.bytes().and_then(|bytes| self.keep(&bytes, stored));
        self.count();
        read
    }

    /// Decodes a picture whose bytes have been read already.
    pub(super) fn decode(&self, bytes: &[u8], stored: Stored) -> Result<Read, String> {
        let read = self.keep(bytes, stored);
        self.count();
        read
    }

    fn count(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.watch)(done, self.total.load(Ordering::Relaxed));
    }

    fn keep(&self, bytes: &[u8], stored: Stored) -> Result<Read, String> {
        let (pixels, size) = stored.decode(bytes, &self.preprocess)?;
        let place = match self.budget.take(pixels.len()) {
            true => Place::Memory(pixels.into(), Some(stored)),
            false => Place::Disk(stored),
        };
        Ok(Read { digest: fnv1a(bytes), size, place })
    }
}

impl Pictures {
    /// None yet, of the size that `preprocess` asks for.
    pub const fn new(preprocess: Preprocess) -> Self {
        Self {
            labels: Vec::new(),
            digests: Vec::new(),
            sizes: Vec::new(),
            places: Vec::new(),
            preprocess,
        }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True without pictures.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one picture, `height · width · channels`.
    pub fn picture_len(&self) -> usize {
        let p = &self.preprocess;
        usize::from(p.height) * usize::from(p.width) * p.channels()
    }

    /// Number of pictures whose pixels are in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.places.iter().filter(|p| matches!(p, Place::Memory(..))).count()
    }

    /// Pixels of picture `i`, `[height, width, channels]`.
    ///
    /// # Errors
    /// A picture that is not in memory, and whose file is gone, unreadable or not the one that
    /// was read at first.
    ///
    /// # Panics
    /// Where there are not more than `i` pictures.
    pub fn get(&self, i: usize) -> Result<Cow<'_, [u8]>, DataError> {
        match &self.places[i] {
            Place::Memory(pixels, _) => Ok(Cow::Borrowed(pixels)),
            Place::Disk(stored) => {
                let again = || {
                    let bytes = stored.bytes()?;
                    if fnv1a(&bytes) != self.digests[i] {
                        return Err("its contents have changed".into());
                    }
                    Ok(stored.decode(&bytes, &self.preprocess)?.0)
                };
                let lost = |why| DataError::Lost { path: stored.path().into(), why };
                again().map(Cow::Owned).map_err(lost)
            }
        }
    }

    /// Where picture `i` was read from; `None` where it was made here.
    pub fn origin(&self, i: usize) -> Option<Origin<'_>> {
        match self.places.get(i)? {
            Place::Memory(_, Some(stored)) | Place::Disk(stored) => Some(match stored {
                Stored::File(path) => Origin { path, record: None },
                Stored::Record(path, number) => Origin { path, record: Some(*number) },
            }),
            Place::Memory(_, None) => None,
        }
    }

    /// Hashes of the pixels that are in memory.
    pub(super) fn pixel_digests(&self) -> impl Iterator<Item = u64> {
        self.places.iter().filter_map(|place| match place {
            Place::Memory(pixels, _) => Some(fnv1a(pixels)),
            Place::Disk(_) => None,
        })
    }

    /// Adds a picture that stays in memory: its pixels `[height, width, channels]`, its class and the
    /// hash of its bytes as stored.
    ///
    /// # Panics
    /// Where it has another size than the others.
    pub fn push(&mut self, pixels: &[u8], label: u32, digest: u64) {
        assert_eq!(pixels.len(), self.picture_len(), "a picture of another size");
        let size = [self.preprocess.width, self.preprocess.height].map(u32::from);
        self.push_read(Read { digest, size, place: Place::Memory(pixels.into(), None) }, label);
    }

    /// Adds a picture.
    pub(super) fn push_read(&mut self, read: Read, label: u32) {
        self.labels.push(label);
        self.digests.push(read.digest);
        self.sizes.push(read.size);
        self.places.push(read.place);
    }

    /// The pictures at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            labels: indices.iter().map(|i| self.labels[*i]).collect(),
            digests: indices.iter().map(|i| self.digests[*i]).collect(),
            sizes: indices.iter().map(|i| self.sizes[*i]).collect(),
            places: indices.iter().map(|i| self.places[*i].clone()).collect(),
            preprocess: self.preprocess,
        }
    }

    /// The same pictures, in the same order, as another network sees them: read again, and decoded at
    /// once as far as `cache` allows.
    ///
    /// # Errors
    /// A picture whose file is gone or another than it was, or that was made here.
    pub fn seen_by(
        &self,
        preprocess: Preprocess,
        cache: CacheSize,
        watch: Watch<'_>,
    ) -> Result<Self, DataError> {
        let reader = Reader::new(preprocess, cache, watch);
        reader.expect(self.len());
        let place = |i: usize| {
            let (Place::Memory(_, Some(stored)) | Place::Disk(stored)) = &self.places[i] else {
                let (path, why) =
                    (format!("picture {i}").into(), "made here, without a file".into());
                return Err(DataError::Lost { path, why });
            };
            let lost = |why| DataError::Lost { path: stored.path().into(), why };
            let read = reader.read(stored.clone()).map_err(lost)?;
            match read.digest == self.digests[i] {
                true => Ok(read.place),
                false => Err(lost("its contents have changed".into())),
            }
        };
        let places = (0..self.len()).into_par_iter().map(place).collect::<Result<_, _>>()?;
        let Self { labels, digests, sizes, .. } = self.clone();
        Ok(Self { labels, digests, sizes, places, preprocess })
    }

    /// Adds the pictures of `others`, which have the same input size.
    pub fn append(&mut self, others: &Self) {
        self.labels.extend_from_slice(&others.labels);
        self.digests.extend_from_slice(&others.digests);
        self.sizes.extend_from_slice(&others.sizes);
        self.places.extend_from_slice(&others.places);
    }

    /// Number of pictures of each of `classes`.
    pub fn counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for label in &self.labels {
            if let Some(count) = counts.get_mut(*label as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Picture indices of each class, shuffled by `rng`.
    pub(super) fn by_class(&self, rng: &mut Rng) -> Vec<Vec<usize>> {
        let classes = self.labels.iter().map(|l| *l as usize + 1).max().unwrap_or(0);
        let mut groups = vec![Vec::new(); classes];
        for (i, label) in self.labels.iter().enumerate() {
            groups[*label as usize].push(i);
        }
        groups.iter_mut().for_each(|g| rng.shuffle(g));
        groups
    }

    /// Up to `count` picture indices, the classes in turn, chosen by `seed`.
    pub fn stratified(&self, count: usize, seed: u64) -> Vec<usize> {
        let groups = self.by_class(&mut Rng::keyed(&[seed, fnv1a(b"samples")]));
        let deepest = groups.iter().map(Vec::len).max().unwrap_or(0);
        (0..deepest)
            .flat_map(|depth| groups.iter().filter_map(move |g| g.get(depth).copied()))
            .take(count)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dataset, ReadOptions};
    use super::*;
    use std::path::Path;

    const SIDE: u16 = 12;
    const LEN: usize = 12 * 12 * 3;

    fn read(root: &Path, cache: CacheSize) -> Dataset {
        let preprocess = Preprocess::normalized(SIDE, SIDE, [0.5; 3], [0.5; 3]);
        let options = ReadOptions { preprocess, val_split: 0.25, seed: 4, classes: None, cache };
        Dataset::read(root, &options).unwrap()
    }

    /// Noise of several sizes in two classes, a file that is no picture, and one twice.
    fn folder(root: &Path) {
        let mut rng = Rng::keyed(&[8]);
        for class in ["a", "b"] {
            std::fs::create_dir_all(root.join(class)).unwrap();
            for i in 0..10 {
                let pixel = |_, _| image::Rgb([(); 3].map(|()| rng.below(256) as u8));
                let path = root.join(class).join(format!("{i}.png"));
                image::RgbImage::from_fn(10 + i, 20, pixel).save(path).unwrap();
            }
            std::fs::write(root.join(class).join("note.png"), b"no picture").unwrap();
        }
        std::fs::copy(root.join("a/3.png"), root.join("b/3.png")).unwrap();
    }

    /// CIFAR-10's layout with records of noise.
    fn cifar(root: &Path) {
        let mut rng = Rng::keyed(&[9]);
        for (file, records) in [("data_batch_1", 15), ("data_batch_2", 7), ("test_batch", 5)] {
            let record = |i| {
                let pixels: Vec<u8> = (0..3072).map(|_| rng.below(256) as u8).collect();
                [vec![(i % 10) as u8], pixels].concat()
            };
            let bytes: Vec<u8> = (0..records).flat_map(record).collect();
            std::fs::write(root.join(file).with_extension("bin"), bytes).unwrap();
        }
    }

    fn pixels(pictures: &Pictures) -> Vec<Vec<u8>> {
        (0..pictures.len()).map(|i| pictures.get(i).unwrap().into_owned()).collect()
    }

    #[test]
    fn memory_changes_no_picture() {
        for make in [folder, cifar] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path());
            let all = read(dir.path(), CacheSize::All);
            let total = all.train.len() + all.val.len();
            assert_eq!(all.in_memory(), total);
            for (kept, bytes) in [(0, 0), (0, LEN - 1), (5, 5 * LEN + 1), (total, total * LEN)] {
                let some = read(dir.path(), CacheSize::Bytes(bytes as u64));
                assert_eq!(some.in_memory(), kept);
                assert_eq!(some.fingerprint, all.fingerprint);
                assert_eq!(some.skipped, all.skipped);
                assert_eq!(some.contradictions(), all.contradictions());
                for (some, all) in [(&some.train, &all.train), (&some.val, &all.val)] {
                    assert_eq!((&some.labels, &some.digests), (&all.labels, &all.digests));
                    assert_eq!(pixels(some), pixels(all));
                }
            }
        }
    }

    #[test]
    fn pictures_are_seen_at_another_size() {
        for make in [folder, cifar] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path());
            let larger = Preprocess::raw(20, 20);
            let options = ReadOptions {
                preprocess: larger,
                val_split: 0.25,
                seed: 4,
                classes: None,
                cache: CacheSize::All,
            };
            let want = Dataset::read(dir.path(), &options).unwrap().train;
            for cache in [CacheSize::All, CacheSize::Bytes(0)] {
                let got = read(dir.path(), cache).train.seen_by(larger, cache, &|_, _| ()).unwrap();
                assert_eq!((&got.labels, &got.digests), (&want.labels, &want.digests));
                assert_eq!(pixels(&got), pixels(&want));
            }
        }
        let mut made = Pictures::new(Preprocess::raw(2, 2));
        made.push(&[0; 12], 0, 1);
        assert!(made.seen_by(Preprocess::raw(4, 4), CacheSize::All, &|_, _| ()).is_err());
    }

    #[test]
    fn records_that_are_gone_or_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        cifar(dir.path());
        let train = read(dir.path(), CacheSize::Bytes(0)).train;
        let file = dir.path().join("data_batch_1.bin");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[2 * 3073 + 9] ^= 1;
        std::fs::write(&file, &bytes[..14 * 3073]).unwrap();
        for (i, what) in [(2, Some("changed")), (13, None), (14, Some("only 43022 bytes"))] {
            let error = train.get(i).err().map(|e| e.to_string());
            let fits = |e: &String| e.contains("data_batch_1.bin") && e.contains(what.unwrap());
            assert_eq!(error.is_some(), what.is_some(), "{error:?}");
            assert!(error.iter().all(fits), "{error:?}");
        }
    }
}
