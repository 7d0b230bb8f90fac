//! From the command line's files and folders to single pictures.

use std::collections::BTreeMap;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

const SUFFIXES: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"];
/// What systems leave beside files, whatever the case.
const LEFT_BEHIND: [&str; 3] = ["thumbs.db", "desktop.ini", "__macosx"];
/// Most files of a kind that are named.
const MAX_NAMED: usize = 3;

/// One thing to classify, or why it cannot be.
pub(crate) enum Source {
    /// A file, and its name as printed.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// A folder that holds nothing to classify, or cannot be read.
    Failed(PathBuf, anyhow::Error),
}

/// Files in folders that are no pictures to classify, by what they are.
#[derive(Default)]
pub(crate) struct Skipped {
    kinds: BTreeMap<&'static str, Vec<PathBuf>>,
}

impl Skipped {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: PathBuf) {
        let kind = match fs::metadata(&path) {
            Ok(m) if m.is_file() => {
                picture::describe(&path).unwrap_or("a file that cannot be read")
            }
            Ok(m) if m.is_dir() => "a link to a folder, which is not followed",
            Ok(_) => "no file with contents",
            Err(_) => "a link that leads nowhere",
        };
        self.kinds.entry(kind).or_default().push(path);
    }

    /// Lines that count and name them, and forgets them.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, paths) in core::mem::take(&mut self.kinds) {
            let files = if paths.len() == 1 { "file" } else { "files" };
            lines.push(format!("skipped {} {files}: {kind}", paths.len()));
            lines.extend(paths.iter().take(MAX_NAMED).map(|path| format!("  {}", path.display())));
            if paths.len() > MAX_NAMED {
                lines.push(format!("  and {} more", paths.len() - MAX_NAMED));
            }
        }
        lines
    }
}

/// The pictures meant by `paths`, folders replaced by their pictures.
pub(crate) fn expand(paths: &[PathBuf], skipped: &mut Skipped) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(Source::Stdin);
        } else if path.is_dir() {
            let before = sources.len();
            walk(path, &mut sources, skipped);
            if sources.len() == before {
                let suffixes = SUFFIXES.join(", .");
                let what = anyhow::anyhow!("no pictures in this folder (looked for .{suffixes})");
                sources.push(Source::Failed(path.clone(), what));
            }
        } else {
            sources.push(Source::File(path.clone()));
        }
    }
    sources
}

/// Adds a folder's pictures in the order of their names.
fn walk(folder: &Path, sources: &mut Vec<Source>, skipped: &mut Skipped) {
    let entries = match list(folder) {
        Ok(entries) => entries,
        Err(e) => return sources.push(Source::Failed(folder.into(), e.into())),
    };
    for (path, kind) in entries {
        match kind {
            Kind::Folder => walk(&path, sources, skipped),
            Kind::Picture => sources.push(Source::File(path)),
            Kind::Other => skipped.add(path),
        }
    }
}

/// What is in a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    /// A file, or a link to one, that is named like a picture.
    Picture,
    Other,
}

/// What is in a folder, in the order of the names; hidden files and what systems leave behind are
/// left out.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Kind)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_left = LEFT_BEHIND.iter().any(|left| name.eq_ignore_ascii_case(left));
        if !is_left && !name.as_encoded_bytes().starts_with(b".") {
            let path = entry.path();
            let kind = entry.file_type().map_or(Kind::Other, |kind| kind_of(&path, kind));
            entries.push((path, kind));
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Links to folders are no folders: they may lead back here.
fn kind_of(path: &Path, kind: FileType) -> Kind {
    let suffix = path.extension().and_then(|s| s.to_str());
    let is_named =
        suffix.is_some_and(|s| SUFFIXES.iter().any(|known| s.eq_ignore_ascii_case(known)));
    if kind.is_dir() {
        Kind::Folder
    } else if is_named && (kind.is_file() || (kind.is_symlink() && path.is_file())) {
        Kind::Picture
    } else {
        Kind::Other
    }
}
