//! CIFAR-10's binary files: records of one label byte and 32×32 pixels, plane by plane.

use super::layout::{Files, Part};
use super::pictures::Reader;
use super::stored::Stored;
use super::{DataError, Pictures, fit};
use artifact::Preprocess;
use runtime::preprocess::{FrameError, RgbView};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Bytes of a record's pixels.
pub(super) const PLANES: usize = 3 * PLANE;
const RECORD: usize = 1 + PLANES;

/// Class names where `batches.meta.txt` is missing.
const NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The folder with the batches: `path` itself or the one that the archive unpacks to.
pub(super) fn find(path: &Path) -> Option<PathBuf> {
    [path.to_path_buf(), path.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|dir| dir.join("data_batch_1.bin").is_file())
}

/// `data_batch_*.bin` to learn from, and `test_batch.bin` where it is there.
pub(super) fn parts(root: &Path) -> Result<(Part, Option<Part>), DataError> {
    let labels: Vec<String> = match std::fs::read_to_string(root.join("batches.meta.txt")) {
        Ok(text) => {
            text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect()
        }
        Err(_) => NAMES.map(String::from).to_vec(),
    };
    let entries = std::fs::read_dir(root).map_err(|e| DataError::io(root, e))?;
    let mut batches: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("data_batch_") && name.ends_with(".bin") && p.is_file()
        })
        .collect();
    batches.sort();
    let part = |name: &str, path: &Path, batches| Part {
        name: name.into(),
        path: path.into(),
        labels: labels.clone(),
        files: Files::Batches(batches),
    };
    let test = root.join("test_batch.bin");
    let is_there = test.is_file();
    let test = is_there.then(|| part("test_batch.bin", &test, vec![test.clone()]));
    Ok((part("data_batch_*.bin", root, batches), test))
}

/// Number of records in `files`, as far as they can be found.
pub(super) fn count(files: &[PathBuf]) -> usize {
    let len = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
    files.iter().map(|path| (len(path) / RECORD as u64) as usize).sum()
}

/// Reads the records of `files`, of `classes` classes.
pub(super) fn read(
    files: &[PathBuf],
    classes: usize,
    reader: &Reader<'_>,
) -> Result<Pictures, DataError> {
    let mut out = reader.pictures();
    for path in files {
        let io = |e| DataError::io(path, e);
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        if len == 0 || len % RECORD as u64 != 0 {
            return Err(DataError::layout(
                path,
                format!("{len} bytes, expected a multiple of {RECORD}; unpack the archive again"),
            ));
        }
        let mut file = BufReader::new(file);
        let path: Arc<Path> = path.as_path().into();
        let mut record = [0; RECORD];
        for number in 0..len / RECORD as u64 {
            file.read_exact(&mut record).map_err(io)?;
            let (label, planes) = (usize::from(record[0]), &record[1..]);
            if label >= classes {
                return Err(DataError::layout(
                    &path,
                    format!("record {number} has label {label}, but there are {classes} classes"),
                ));
            }
            let picture = reader
                .decode(planes, Stored::Record(path.clone(), number))
                .map_err(|e| DataError::layout(&path, e))?;
            out.push_read(picture, label as u32);
        }
    }
    Ok(out)
}

/// Where the pixels of a record start in its file.
pub(super) const fn offset(record: u64) -> u64 {
    record * RECORD as u64 + 1
}

/// Fits a record's pixels, plane by plane, to the model's input size.
///
/// # Errors
/// Fewer than [`PLANES`] bytes.
pub(super) fn decode(planes: &[u8], p: &Preprocess) -> Result<Vec<u8>, FrameError> {
    let mut rgb = vec![0; planes.len()];
    for (pixel, out) in rgb.chunks_exact_mut(3).enumerate() {
        for (channel, value) in out.iter_mut().enumerate() {
            *value = planes[channel * planes.len() / 3 + pixel];
        }
    }
    fit(RgbView::new(&rgb, SIDE, SIDE, SIDE * 3)?, p)
}
