//! Pages and drawings for people: the report of a run, galleries, the learning-rate curve.
//!
//! A report is one HTML file without scripts that loads nothing: charts are SVG inside it,
//! pictures are `data:` addresses. It reads well on paper, on a phone, in the light and in the
//! dark.

mod chart;
mod classes;
mod doctor;
mod fit;
mod gallery;
mod schedule;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use doctor::doctor;
pub(crate) use fit::{Fitted, fit};
pub(crate) use gallery::{Show, run as show};
pub(crate) use page::{check_extension, command_line};
pub(crate) use schedule::{ScheduleArgs, run as schedule};
pub(crate) use view::picture_name;

use crate::data::{Dataset, Labelled, Pictures};
use crate::train::Evaluation;
use network::checkpoint::{Draft, EpochRecord};
use std::path::{Path, PathBuf};

/// What a report says of the data set, which is gone by the time it is written.
pub(crate) struct DataFacts {
    name: String,
    notes: Vec<String>,
    /// Folder, as the user named it.
    root: PathBuf,
    /// Whether the pictures measured are those that chose the model's epoch.
    chose: bool,
}

impl DataFacts {
    pub(crate) fn new(data: &Dataset, root: &Path) -> Self {
        let notes = core::iter::once(data.extent()).chain(data.notes()).collect();
        Self { name: data.name.clone(), notes, root: root.into(), chose: true }
    }

    /// Of pictures to measure a finished model on.
    pub(crate) fn measured(data: &Labelled, root: &Path) -> Self {
        let notes = core::iter::once(&data.which).chain(&data.notes).cloned().collect();
        Self { name: data.name.clone(), notes, root: root.into(), chose: data.chose }
    }
}

/// What a report tells of.
pub(crate) struct Report<'a> {
    /// File of the model.
    pub(crate) model: &'a Path,
    /// The command that made it, or measured it.
    pub(crate) command: &'a str,
    /// The data that the command read.
    pub(crate) data: DataFacts,
    /// The model.
    pub(crate) checkpoint: &'a Draft,
    /// The epochs to draw: all of the run, also those after the model's.
    pub(crate) epochs: &'a [EpochRecord],
    /// Figures, and the pictures that they come from; `None` without validation pictures.
    pub(crate) measured: Option<(&'a Evaluation, &'a Pictures)>,
    /// How long the command took.
    pub(crate) seconds: f64,
}

impl Report<'_> {
    /// The page.
    pub(crate) fn html(&self) -> anyhow::Result<String> {
        page::finish(&view::Page::new(self)?)
    }

    /// Writes the page to `path`.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        page::save(&self.html()?, path)
    }
}
