//! What a model is to run on: memory, and how fast it computes.

use crate::budget::Bytes;
use crate::cost::{Core, cycles};
use crate::target::Target;
use artifact::Artifact;
use artifact::text::AsPlain;
use core::time::Duration;
use network::nearest::suggestion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A board; `boards.toml` says what its fields mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// What computes.
    pub core: Core,
    /// Clock, in megahertz.
    pub mhz: f64,
    /// Memory of a program; `None` where it is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram: Option<Bytes>,
    /// Flash of a program; `None` where it is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<Bytes>,
    /// Cores that compute.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub threads: u8,
    /// Nanojoules of a cycle, where somebody has measured them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nj_per_cycle: Option<f64>,
}

const fn one() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_one(threads: &u8) -> bool {
    *threads == one()
}

/// Boards by name.
#[derive(Debug, Clone, Default)]
pub struct Boards(BTreeMap<String, Board>);

impl Boards {
    /// Those that come with the program.
    pub fn known() -> Self {
        // A test reads it, too.
        Self::parse(include_str!("../boards.toml")).unwrap_or_default()
    }

    /// Adds those of a file, which replace others of the same name.
    ///
    /// # Errors
    /// A file that cannot be read, and what is wrong in it.
    pub fn add(&mut self, file: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let others = Self::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        self.0.extend(others.0);
        Ok(())
    }

    /// # Errors
    /// What is no board, with its line.
    fn parse(text: &str) -> Result<Self, String> {
        let boards: BTreeMap<String, Board> =
            toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        for (name, board) in &boards {
            let is_positive = |number: f64| number.is_finite() && number > 0.0;
            if !is_positive(board.mhz) || !board.nj_per_cycle.is_none_or(is_positive) {
                return Err(format!("{}: mhz and nj_per_cycle are numbers above 0", name.plain()));
            }
            if board.threads == 0 {
                return Err(format!("{}: threads is 0; at least one computes", name.plain()));
            }
        }
        Ok(Self(boards))
    }

    /// A board by its name.
    ///
    /// # Errors
    /// A name that is not known, with those that are.
    pub fn named(&self, name: &str) -> Result<Board, String> {
        self.0.get(name).copied().ok_or_else(|| {
            let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let meant = suggestion(name, &names);
            format!("{}: not known{meant}; there are {}", name.plain(), names.join(", "))
        })
    }
}

impl Board {
    /// The kind of file that it runs.
    pub const fn target(&self) -> Target {
        if self.core.is_microcontroller() { Target::CortexM } else { Target::Host }
    }

    /// What a run takes, about: an estimate.
    pub fn latency(&self, artifact: &Artifact<'_>) -> Duration {
        let seconds = cycles(artifact, self.core, self.threads) / (self.mhz * 1e6);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Joules of a run, about; `None` where nobody has measured the chip.
    pub fn energy(&self, artifact: &Artifact<'_>) -> Option<f64> {
        Some(cycles(artifact, self.core, self.threads) * self.nj_per_cycle? * 1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_known_by_name() {
        let known = Boards::parse(include_str!("../boards.toml")).unwrap();
        let board = known.named("nucleo-f446re").unwrap();
        assert_eq!((board.core, board.ram), (Core::CortexM4, Some(Bytes(128 << 10))));
        assert_eq!(board.target(), Target::CortexM);
        assert_eq!(known.named("pi4").unwrap().target(), Target::Host);
        let error = known.named("nucleo-f446").unwrap_err();
        assert!(error.contains("did you mean") && error.contains("nucleo-f446re"), "{error}");
    }

    #[test]
    fn files_add_boards_and_wrong_ones_are_told_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        let mut boards = Boards::known();
        std::fs::write(&file, "[mine]\ncore = \"cortex-m4\"\nmhz = 80\nram = \"96K\"\n").unwrap();
        boards.add(&file).unwrap();
        assert_eq!(boards.named("mine").unwrap().ram, Some(Bytes(96 << 10)));
        for (text, said) in [
            ("[mine]\ncore = \"cortex-m5\"\nmhz = 80\n", "cortex-m5"),
            ("[mine]\ncore = \"cortex-m4\"\n", "mhz"),
            ("[mine]\ncore = \"cortex-m4\"\nmhz = 0\n", "above 0"),
            ("[mine]\ncore = \"cortex-m4\"\nmhz = 80\nram = \"96X\"\n", "96X"),
            ("[mine]\ncore = \"cortex-m4\"\nmhz = 80\nsize = 3\n", "size"),
            ("[mine", "line 1"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = boards.add(&file).unwrap_err();
            assert!(error.contains("mine.toml") && error.contains(said), "{error}");
        }
    }
}
