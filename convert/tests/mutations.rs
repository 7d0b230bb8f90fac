//! Some thousand damaged files of every kind that is read, always the same ones: what the fuzzer does for hours,
//! in seconds. The seeds are the fuzzer's, what it has learned, and files of the fixtures.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's programs see them")]
mod targets;

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io::Read;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Instant;
use targets::{TARGETS, Target};

/// Damaged files of each target.
const FILES: usize = 400;
/// Longest seed: larger files take longer and are not damaged in more ways.
const MAX_SEED: u64 = 256 << 10;
/// No file takes longer.
const MAX_TIME: Duration = Duration::from_secs(10);

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// Damages a file in one of the ways that find most.
    fn damage(&mut self, file: &mut Vec<u8>) {
        let at = self.below(file.len());
        let len = 1 + self.below(64);
        let end = (at + len).min(file.len());
        match self.below(8) {
            0 => file[at] ^= 1 << self.below(8),
            1 => file[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            2 => file.truncate(at),
            3 => drop(file.drain(at..end)),
            4 => file.extend_from_within(at..end),
            5 => {
                let part = file[at..end].to_vec();
                let to = self.below(file.len());
                file.splice(to..to, part);
            }
            6 => {
                // A length or an offset, most likely.
                let value = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x1_0000][self.below(6)];
                for (to, from) in file[at..].iter_mut().zip(u32::to_le_bytes(value)) {
                    *to = from;
                }
            }
            _ => {
                let with = self.below(file.len());
                file.swap(at, with);
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below a folder, in the order of their names.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Files of a target, with names for people.
type Seeds = Vec<(String, Vec<u8>)>;

fn seeds(&(target, file, _): &Target) -> Seeds {
    let mut found = Vec::new();
    files(&root().join("fuzz/seeds").join(target), &mut found);
    let mut others = Vec::new();
    for folder in ["tests/fixtures", "crates/picture/tests/fixtures", "models"] {
        files(&root().join(folder), &mut others);
    }
    let extension = Path::new(file).extension();
    found.extend(
        others.into_iter().filter(|path| extension.is_some() && path.extension() == extension),
    );
    found.retain(|path| std::fs::metadata(path).unwrap().len() <= MAX_SEED);
    let named = |path: PathBuf| (path.display().to_string(), std::fs::read(path).unwrap());
    let mut seeds: Seeds = found.into_iter().map(named).collect();
    let corpus = std::fs::File::open(root().join("fuzz/corpus.tar.gz")).unwrap();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(corpus)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let is_file = entry.header().entry_type().is_file();
        if is_file && path.parent().is_some_and(|folder| folder.ends_with(target)) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            seeds.push((path.display().to_string(), bytes));
        }
    }
    seeds
}

#[test]
fn damaged_files_are_refused_or_consistent() {
    picture::silence_decoder_panics();
    for target in &TARGETS {
        let (name, _, take) = *target;
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut random = Random(name.len() as u64);
        for i in 0..seeds.len() + FILES {
            // Each one as it is, first.
            let (seed, file) = &seeds[i % seeds.len()];
            let mut file = file.clone();
            for _ in 0..(i / seeds.len()).min(4) {
                if !file.is_empty() {
                    random.damage(&mut file);
                }
            }
            let began = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| take(&file)));
            assert!(outcome.is_ok(), "{name}: {} damaged, {i}: panicked", seed);
            let took = began.elapsed();
            assert!(took < MAX_TIME, "{name}: {} damaged, {i}: {took:?}", seed);
        }
    }
}
