//! From the command line's files and folders to single pictures.

use std::fs;
use std::path::{Path, PathBuf};

const SUFFIXES: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"];

/// One thing to classify, or why it cannot be.
pub(crate) enum Source {
    /// A file, and its name as printed.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// A folder that holds nothing to classify.
    Failed(PathBuf, anyhow::Error),
}

/// The pictures meant by `paths`, folders replaced by their pictures.
pub(crate) fn expand(paths: &[PathBuf]) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(Source::Stdin);
        } else if path.is_dir() {
            let before = sources.len();
            walk(path, &mut sources);
            if sources.len() == before {
                let what = anyhow::anyhow!("no pictures in this folder (looked for {SUFFIXES:?})");
                sources.push(Source::Failed(path.clone(), what));
            }
        } else {
            sources.push(Source::File(path.clone()));
        }
    }
    sources
}

/// Adds a folder's pictures in the order of their names. Links to folders are left out: they
/// may lead back here.
pub(crate) fn walk(folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = Vec::new();
    match fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(list) => entries.extend(list.into_iter().map(|e| e.path())),
        Err(e) => sources.push(Source::Failed(folder.into(), e.into())),
    }
    entries.sort();
    for path in entries {
        // Hidden files are left out: thumbnails, and what some systems leave beside files.
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match path.symlink_metadata() {
            Ok(m) if m.is_dir() => walk(&path, sources),
            Ok(m) if m.is_file() || (m.is_symlink() && path.is_file()) => {
                if has_picture_suffix(&path) {
                    sources.push(Source::File(path));
                }
            }
            Ok(_) => {}
            Err(e) => sources.push(Source::Failed(path, e.into())),
        }
    }
}

fn has_picture_suffix(path: &Path) -> bool {
    let suffix = path.extension().and_then(|s| s.to_str());
    suffix.is_some_and(|s| SUFFIXES.iter().any(|known| s.eq_ignore_ascii_case(known)))
}
