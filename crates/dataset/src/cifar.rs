//! CIFAR-10's binary files.

use super::error::DataError;
use super::part::{Files, Part};
use super::pictures::{Pictures, Reader};
use super::record::RECORD;
use super::stored::Stored;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
