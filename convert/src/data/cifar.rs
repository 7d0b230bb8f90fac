//! CIFAR-10's binary files: records of one label byte and 32×32 pixels, plane by plane.

use super::{DataError, Dataset, Pictures, ReadOptions, fit};
use crate::random::fnv1a;
use runtime::preprocess::RgbView;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;

/// Class names where `batches.meta.txt` is missing.
const NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The folder with the batches: `path` itself or the one that the archive unpacks to.
pub(super) fn find(path: &Path) -> Option<PathBuf> {
    [path.to_path_buf(), path.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|dir| dir.join("data_batch_1.bin").is_file())
}

/// Reads `data_batch_*.bin` as training and `test_batch.bin`, if present, as validation
/// pictures.
pub(super) fn read(root: &Path, options: &ReadOptions) -> Result<Dataset, DataError> {
    let labels = match std::fs::read_to_string(root.join("batches.meta.txt")) {
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
    let train = read_batches(&batches, labels.len(), options)?;
    let test = root.join("test_batch.bin");
    let val = if test.is_file() {
        read_batches(&[test], labels.len(), options)?
    } else {
        read_batches(&[], labels.len(), options)?
    };
    let name = "cifar-10".into();
    Ok(Dataset { name, labels, train, val, skipped: Vec::new(), fingerprint: String::new() })
}

fn read_batches(
    files: &[PathBuf],
    classes: usize,
    options: &ReadOptions,
) -> Result<Pictures, DataError> {
    let p = &options.preprocess;
    let picture_len = usize::from(p.height) * usize::from(p.width) * 3;
    let mut out = Pictures { picture_len, ..Pictures::default() };
    for file in files {
        let bytes = std::fs::read(file).map_err(|e| DataError::io(file, e))?;
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            let len = bytes.len();
            return Err(DataError::layout(
                file,
                format!("{len} bytes, expected a multiple of {RECORD}; unpack the archive again"),
            ));
        }
        let mut rgb = vec![0; 3 * PLANE];
        for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
            let (label, planes) = (usize::from(record[0]), &record[1..]);
            if label >= classes {
                return Err(DataError::layout(
                    file,
                    format!("record {i} has label {label}, but there are {classes} classes"),
                ));
            }
            for (pixel, out) in rgb.chunks_exact_mut(3).enumerate() {
                for (channel, value) in out.iter_mut().enumerate() {
                    *value = planes[channel * PLANE + pixel];
                }
            }
            let fitted = RgbView::new(&rgb, SIDE, SIDE, SIDE * 3)
                .and_then(|view| fit(view, p))
                .map_err(|e| DataError::layout(file, e.to_string()))?;
            out.push(&fitted, label as u32, fnv1a(planes));
        }
    }
    Ok(out)
}
