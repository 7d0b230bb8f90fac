//! `--heatmap`: what of a picture speaks for a class.

use crate::cli::Cli;
use crate::sources::Source;
use anyhow::{Context, Result, ensure};
use network::file::write_atomic;
use picture::heat::{self, Shares};
use runtime::classify::Score;
use runtime::heat::Contrast;
use runtime::preprocess::{RgbView, seen};
use runtime::{Model, Session};
use serde::Serialize;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The shares of the pixels of a model's last map in the score of a class, less the mean of all scores.
#[derive(Debug, Serialize)]
pub(crate) struct HeatMap {
    class: String,
    width: usize,
    height: usize,
    /// What the model saw, which the map covers: left, top, width and height as parts of the picture.
    seen: [f32; 4],
    /// Row by row, in the unit of the model's scores.
    values: Vec<f32>,
}

impl HeatMap {
    /// Of the last run of a session that keeps its map, on a photo of `sides` rows and columns.
    pub(crate) fn new(
        contrast: &Contrast,
        session: &Session<'_>,
        model: &Model<'_>,
        sides: [usize; 2],
        class: usize,
    ) -> Result<Self> {
        let without = "a session without heat maps";
        let [height, width] = session.heat_shape().context(without)?;
        let values = contrast.shares(session, class).context(without)?;
        let [[top, rows], [left, columns]] = seen(&model.meta().preprocess, sides);
        let class = model.label(class).to_owned();
        Ok(Self { class, width, height, seen: [left, top, columns, rows], values })
    }

    /// Writes the picture with the map over it.
    pub(crate) fn save(&self, photo: RgbView<'_>, model: &Model<'_>, target: &Path) -> Result<()> {
        let shares = Shares { shape: [self.height, self.width], values: &self.values };
        let png = heat::png(photo, &model.meta().preprocess, shares, heat::MAX_SIDE)?;
        write_atomic(target, &png).with_context(|| target.display().to_string())
    }
}

/// Bytes of activation memory that `--heatmap` takes, or a run without it.
pub(crate) fn arena_len(cli: &Cli, model: &Model<'_>) -> Result<usize> {
    match cli.heatmap {
        Some(_) => Ok(runtime::heat::arena_len(model)?),
        None => Ok(model.arena_len()),
    }
}

/// What heat maps are made with, where they are wanted.
pub(crate) fn contrast(cli: &Cli, model: &Model<'_>) -> Result<Option<Contrast>> {
    Ok(cli.heatmap.as_ref().map(|_| Contrast::new(model)).transpose()?)
}

/// The class that is drawn: that of `--class`, or the likeliest.
pub(crate) fn class(cli: &Cli, model: &Model<'_>, top: &[Score]) -> Result<usize> {
    match &cli.class {
        None => Ok(top.first().map_or(0, |score| score.index)),
        Some(name) => {
            let index = model.labels().position(|label| label == name);
            index.with_context(|| format!("--class: the model has no class {name:?}"))
        }
    }
}

/// Where the heat map of each source goes; empty without `--heatmap`. Makes the folders, and refuses models and
/// classes that have none.
pub(crate) fn targets(cli: &Cli, model: &Model<'_>, sources: &[Source]) -> Result<Vec<PathBuf>> {
    let Some(out) = &cli.heatmap else { return Ok(Vec::new()) };
    arena_len(cli, model)?;
    class(cli, model, &[])?;
    let name = || format!("--heatmap {}", out.display());
    let is_one = sources.len() <= 1 && !cli.files.iter().any(|path| path.is_dir());
    let targets = if is_one && !out.is_dir() {
        ensure!(
            out.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("png")),
            "{}: a heat map is written as .png",
            name()
        );
        vec![out.clone()]
    } else {
        ensure!(!out.is_file(), "{}: of several pictures, it must be a folder", name());
        let mut taken = HashSet::new();
        let targets: Vec<PathBuf> = sources
            .iter()
            .map(|source| {
                let within = match source {
                    Source::File(path) | Source::Failed(path, _) => within(&cli.files, path),
                    Source::Stdin => Path::new("stdin"),
                };
                free(&out.join(within), &mut taken)
            })
            .collect();
        let folders: HashSet<&Path> = targets.iter().filter_map(|path| path.parent()).collect();
        for folder in folders {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        targets
    };
    for (source, target) in sources.iter().zip(&targets) {
        let Source::File(path) = source else { continue };
        let same =
            fs::canonicalize(target).is_ok_and(|t| fs::canonicalize(path).is_ok_and(|p| p == t));
        ensure!(!same, "{}: it would take the place of the picture {}", name(), path.display());
    }
    Ok(targets)
}

/// A picture's path within the folder that was named, or its name.
fn within<'a>(files: &[PathBuf], path: &'a Path) -> &'a Path {
    let inside = files.iter().find_map(|folder| path.strip_prefix(folder).ok());
    let inside = inside.filter(|rest| rest.file_name().is_some());
    inside.unwrap_or_else(|| Path::new(path.file_name().unwrap_or_default()))
}

/// The path with the suffix `png`, and a number where that is taken.
fn free(path: &Path, taken: &mut HashSet<PathBuf>) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_os_string();
    for number in 1.. {
        let mut name = stem.clone();
        if number > 1 {
            name.push(format!("-{number}"));
        }
        name.push(".png");
        let target = path.with_file_name(name);
        if taken.insert(target.clone()) {
            return target;
        }
    }
    path.with_extension("png")
}
