//! What a search has found out, in its folder, so that it can go on after it was stopped.

use super::candidates::{Candidate, Takes};
use crate::train::Folder;
use anyhow::{Context, ensure};
use network::file::write_atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file in the folder.
const NAME: &str = "fit.json";

/// What a candidate takes, and how well heads on its features do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guess {
    pub(crate) name: String,
    pub(crate) side: u16,
    pub(crate) takes: Takes,
    /// Share right of training pictures that a head was not fitted to, 0..=1.
    pub(crate) accuracy: f64,
    /// Mean cross-entropy of them.
    pub(crate) loss: f64,
}

impl Guess {
    pub(super) fn new(candidate: &Candidate, accuracy: f64, loss: f64) -> Self {
        let Candidate { name, side, takes, .. } = candidate.clone();
        Self { name, side, takes, accuracy, loss }
    }
}

/// A candidate that was fine-tuned and converted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trained {
    pub(crate) name: String,
    pub(crate) takes: Takes,
    /// Share of the validation pictures right, in floats and in int8, 0..=1.
    pub(crate) float: f64,
    pub(crate) int8: f64,
    /// How many those are.
    pub(crate) pictures: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Journal {
    /// What all of it depends on.
    settings: String,
    guesses: Vec<Guess>,
    trained: Vec<Trained>,
}

impl Journal {
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// Opens that of a folder; a new one where there is none.
    ///
    /// # Errors
    /// One of another search, or that cannot be read.
    pub(super) fn open(folder: &Folder, settings: &str, resume: bool) -> anyhow::Result<Self> {
        let path = folder.file(NAME)?;
        if !resume || !path.exists() {
            let new = Self { settings: settings.into(), ..Self::default() };
            new.save(folder)?;
            return Ok(new);
        }
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let found: Self =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        ensure!(
            found.settings == settings,
            "{} is of another board, other pictures or other networks; pass the same options to \
             resume, or --out with another folder",
            path.display()
        );
        Ok(found)
    }

    fn save(&self, folder: &Folder) -> anyhow::Result<()> {
        let path = folder.file(NAME)?;
        let text = serde_json::to_vec_pretty(self)?;
        write_atomic(&path, &text).with_context(|| path.display().to_string())
    }

    pub(super) fn guesses(&self) -> &[Guess] {
        &self.guesses
    }

    pub(super) fn trained(&self) -> &[Trained] {
        &self.trained
    }

    pub(super) fn guessed(&self, name: &str) -> Option<&Guess> {
        self.guesses.iter().find(|guess| guess.name == name)
    }

    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.trained.iter().position(|trained| trained.name == name)
    }

    pub(super) fn add_guess(&mut self, folder: &Folder, guess: Guess) -> anyhow::Result<()> {
        self.guesses.push(guess);
        self.save(folder)
    }

    /// Gives its place.
    pub(super) fn add_trained(
        &mut self,
        folder: &Folder,
        trained: Trained,
    ) -> anyhow::Result<usize> {
        self.trained.push(trained);
        self.save(folder)?;
        Ok(self.trained.len() - 1)
    }

    /// The candidates, the most promising first: by the share right, among equals by time.
    pub(super) fn best(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let mut known: Vec<(&Guess, &Candidate)> = candidates
            .iter()
            .filter_map(|candidate| Some((self.guessed(&candidate.name)?, candidate)))
            .collect();
        known.sort_by(|(a, _), (b, _)| {
            let by_time = || a.takes.seconds.total_cmp(&b.takes.seconds);
            b.accuracy.total_cmp(&a.accuracy).then_with(by_time)
        });
        known.into_iter().map(|(_, candidate)| candidate.clone()).collect()
    }
}
