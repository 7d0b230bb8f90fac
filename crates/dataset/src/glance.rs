//! A glance at a data set, before it is known which network is to learn it.

use super::error::DataError;
use super::part::Files;
use super::{cifar, find, folder, record};
use std::path::{Path, PathBuf};

/// Pictures that are opened, at most.
const MAX_OPENED: usize = 24;

/// What there is to learn from, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Files to learn from, with those that will be set aside and those that are no pictures.
    pub files: usize,
    /// The longer side in pixels that some of them, of all classes, have in the median; `None`
    /// where none can be opened.
    pub side: Option<usize>,
}

impl Glance {
    /// Looks at the folder of a data set.
    ///
    /// # Errors
    /// Unreadable or missing folders, and those whose meaning is not clear.
    pub fn at(path: &Path) -> Result<Self, DataError> {
        let Some(part) = find(path)?.train else { return Ok(Self { files: 0, side: None }) };
        match &part.files {
            Files::Batches(files) => {
                Ok(Self { files: cifar::count(files), side: Some(record::SIDE) })
            }
            Files::Folders(folders) => {
                let paths = folder::list(folders)?.concat();
                Ok(Self { files: paths.len(), side: median_side(&paths) })
            }
        }
    }
}

/// The median over some pictures, spread evenly.
fn median_side(paths: &[PathBuf]) -> Option<usize> {
    let step = paths.len().div_ceil(MAX_OPENED).max(1);
    let side = |path: &PathBuf| {
        let picture = picture::open(path).ok()?;
        let view = picture.view().ok()?;
        Some(view.width().max(view.height()))
    };
    let mut sides: Vec<usize> = paths.iter().step_by(step).filter_map(side).collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_those_of_most_pictures() {
        let dir = tempfile::tempdir().unwrap();
        for (i, side) in [24, 300, 200].into_iter().enumerate() {
            for class in ["a", "b"] {
                std::fs::create_dir_all(dir.path().join(class)).unwrap();
                let path = dir.path().join(format!("{class}/{i}.png"));
                image::RgbImage::new(side / 2, side).save(path).unwrap();
            }
        }
        let glance = Glance::at(dir.path()).unwrap();
        assert_eq!(glance, Glance { files: 6, side: Some(200) });
        for path in folder::list(&["a", "b"].map(|class| dir.path().join(class))).unwrap().concat()
        {
            std::fs::write(path, b"no picture").unwrap();
        }
        assert_eq!(Glance::at(dir.path()).unwrap(), Glance { files: 6, side: None });
        assert!(Glance::at(&dir.path().join("c")).is_err());
    }
}
