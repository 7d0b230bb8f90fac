//! Pictures as files, one folder for each class.

use super::error::DataError;
use super::layout::hidden;
use super::pictures::{Pictures, Reader};
use super::skipped::Skipped;
use super::stored::Stored;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Longest chain of folders inside a class folder; ends symlink loops.
const MAX_DEPTH: usize = 8;

/// The files below each of the class `folders`.
pub(super) fn list(folders: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, DataError> {
    let below = |folder: &PathBuf| {
        let mut paths = Vec::new();
        files(folder, 0, &mut paths)?;
        Ok(paths)
    };
    folders.iter().map(below).collect()
}

/// Reads the files of each class.
pub(super) fn read(
    classes: &[Vec<PathBuf>],
    reader: &Reader<'_>,
    skipped: &mut Vec<Skipped>,
) -> Pictures {
    let mut out = reader.pictures();
    for (index, paths) in classes.iter().enumerate() {
        let read = |path: &PathBuf| reader.read(Stored::File(path.as_path().into()));
        let read: Vec<_> = paths.par_iter().map(read).collect();
        for (path, result) in paths.iter().zip(read) {
            match result {
                Ok(picture) => out.push_read(picture, index as u32),
                Err(why) => skipped.push(Skipped { path: path.clone(), why }),
            }
        }
    }
    out
}

/// Regular files below `dir`, sorted by path. Devices, pipes and sockets are no pictures;
/// opening one could block forever.
fn files(dir: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    let entries = std::fs::read_dir(dir).map_err(|e| DataError::io(dir, e))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if hidden(&path) {
            continue;
        }
        // A link to a picture counts, a link to a folder may lead back up.
        if meta.is_dir() {
            files(&path, depth + 1, out)?;
        } else if std::fs::metadata(&path).map_or(true, |m| m.is_file()) {
            // Reading will say why a link leads nowhere.
            out.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{CacheSize, Dataset, ReadOptions};
    use artifact::Preprocess;
    use std::fs;
    use std::path::Path;

    fn picture(path: &Path, color: [u8; 3]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(20, 10, image::Rgb(color)).save(path).unwrap();
    }

    fn read(root: &Path, classes: Option<usize>) -> Result<Dataset, String> {
        let preprocess = Preprocess::normalized(8, 8, [0.5; 3], [0.5; 3]);
        let options =
            ReadOptions { preprocess, val_split: 0.25, seed: 1, classes, cache: CacheSize::Auto };
        Dataset::read(root, &options).map_err(|e| e.to_string())
    }

    fn two_classes(root: &Path) {
        for i in 0..8 {
            picture(&root.join(format!("cat/{i}.png")), [i, 0, 0]);
            picture(&root.join(format!("dog/deep/{i}.png")), [0, i, 99]);
        }
    }

    #[test]
    fn a_flat_folder_is_split_by_class() {
        let dir = tempfile::tempdir().unwrap();
        two_classes(dir.path());
        fs::write(dir.path().join("cat/broken.jpg"), b"\xff\xd8\xff no").unwrap();
        // Half a photo decodes to half a photo of grey, which would teach nonsense.
        let cut = dir.path().join("dog/cut.jpg");
        picture(&cut, [5, 5, 5]);
        let jpeg = fs::read(&cut).unwrap();
        fs::write(&cut, &jpeg[..jpeg.len() - 9]).unwrap();
        fs::write(dir.path().join("cat/.DS_Store"), b"x").unwrap();
        fs::write(dir.path().join("dog/Thumbs.db"), b"x").unwrap();
        let data = read(dir.path(), Some(2)).unwrap();
        assert_eq!(data.labels, ["cat", "dog"]);
        assert_eq!(data.train.counts(2), [6, 6]);
        assert_eq!(data.val.counts(2), [2, 2]);
        assert_eq!(data.train.picture_len(), 8 * 8 * 3);
        assert_eq!((data.leaked(), data.contradictions()), (0, 0));
        assert_eq!(data.skipped.len(), 2);
        assert!(data.skipped[0].path.ends_with("broken.jpg"), "{:?}", data.skipped);
        assert!(
            data.skipped[1].to_string().contains("cut.jpg: damaged picture: the end"),
            "{:?}",
            data.skipped
        );
        assert_eq!(read(dir.path(), None).unwrap().fingerprint, data.fingerprint);
    }

    #[test]
    fn split_folders_are_used_and_leaks_are_found() {
        let dir = tempfile::tempdir().unwrap();
        two_classes(&dir.path().join("train"));
        picture(&dir.path().join("val/cat/a.png"), [3, 0, 0]);
        picture(&dir.path().join("val/dog/b.png"), [9, 9, 9]);
        let data = read(dir.path(), None).unwrap();
        assert_eq!((data.train.len(), data.val.len()), (16, 2));
        assert_eq!((data.leaked(), data.contradictions()), (1, 0));
        picture(&dir.path().join("val/dog/b.png"), [7, 0, 0]);
        assert_eq!(read(dir.path(), None).unwrap().contradictions(), 1);
        picture(&dir.path().join("val/fox/c.png"), [1, 1, 1]);
        let error = read(dir.path(), None).unwrap_err();
        assert!(error.contains("fox") && error.contains("cat, dog"), "{error}");
    }

    #[cfg(target_os = "linux")] // elsewhere the two may be one folder
    #[test]
    fn names_that_differ_only_in_case_are_found() {
        let dir = tempfile::tempdir().unwrap();
        two_classes(dir.path());
        picture(&dir.path().join("Cat/1.png"), [1, 2, 3]);
        let data = read(dir.path(), Some(3)).unwrap();
        assert_eq!(data.case_twins(), [["Cat", "cat"]]);
    }

    #[test]
    fn unusable_folders_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(read(&root.join("nowhere"), None).unwrap_err().contains("nowhere"));
        assert!(read(root, None).unwrap_err().contains("no class folders"));
        picture(&root.join("cat/1.png"), [1, 2, 3]);
        assert!(read(root, None).unwrap_err().contains("only one class (cat)"));
        fs::create_dir(root.join("dog")).unwrap();
        assert!(read(root, None).unwrap_err().contains("`dog` has no usable picture"));
        picture(&root.join("dog/1.png"), [1, 2, 4]);
        let error = read(root, Some(5)).unwrap_err();
        assert!(error.contains("--classes 5") && error.contains("2 classes (cat, dog)"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        two_classes(dir.path());
        std::os::unix::fs::symlink("..", dir.path().join("cat/loop")).unwrap();
        let data = read(dir.path(), None).unwrap();
        assert_eq!(data.train.len() + data.val.len(), 16);
    }
}
