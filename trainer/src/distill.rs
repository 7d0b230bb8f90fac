//! The options of distillation.

use crate::cli::counted;
use crate::data::{CacheSize, Dataset, ReadOptions};
use crate::train::{Teacher, Teaching, check_teaching};
use anyhow::{Context, ensure};
use artifact::Preprocess;
use artifact::text::AsPlain;
use clap::Args;
use page::terminal::{Output, Role};
use std::io::Write;
use std::path::PathBuf;

/// Who teaches, beside the labels.
#[derive(Debug, Args)]
pub(crate) struct Distill {
    /// Learn also from what this model says of the very pictures that the network sees: a checkpoint
    /// (.mpk), a finished .edge file, or anything that `convert` opens. It has to know the same classes, and
    /// sees pictures at its own size.
    #[arg(long, value_name = "MODEL")]
    teacher: Option<PathBuf>,
    /// How much it counts, the labels having the rest [default: 0.9].
    #[arg(long, value_name = "SHARE")]
    teacher_weight: Option<f64>,
    /// What its scores and the network's are divided by before they are compared: above 1, classes that it
    /// finds less likely count more [default: 2].
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Folder with more photos, at any depth, of which only --teacher says what they show. Those that are
    /// among the data's already are left out.
    #[arg(long, value_name = "DIR")]
    unlabelled: Option<PathBuf>,
}

impl Distill {
    /// Checks what needs no pictures, and opens the teacher.
    ///
    /// # Errors
    /// Options of a teacher without one, numbers out of range, no folder, no model.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Teacher>> {
        let Some(path) = &self.teacher else {
            let given = [
                ("--unlabelled", self.unlabelled.is_some()),
                ("--teacher-weight", self.teacher_weight.is_some()),
                ("--temperature", self.temperature.is_some()),
            ];
            let alone = given.into_iter().find_map(|(name, given)| given.then_some(name));
            ensure!(
                alone.is_none(),
                "{} needs a teacher, which says what pictures show; pass --teacher with a model that knows \
                 the classes, such as one of trainer finetune",
                alone.unwrap_or_default()
            );
            return Ok(None);
        };
        check_teaching(self.weight(), self.temperature())?;
        if let Some(dir) = &self.unlabelled {
            std::fs::metadata(dir)
                .with_context(|| format!("--unlabelled {}", dir.display().to_string().plain()))?;
        }
        Teacher::open(path).map(Some)
    }

    fn weight(&self) -> f64 {
        self.teacher_weight.unwrap_or(Teaching::WEIGHT)
    }

    fn temperature(&self) -> f64 {
        self.temperature.unwrap_or(Teaching::TEMPERATURE)
    }

    /// How `teacher` teaches a network that sees pictures by `preprocess` what `data` has; says so.
    ///
    /// # Errors
    /// Other classes, unreadable pictures.
    pub(crate) fn teaching(
        &self,
        teacher: Teacher,
        data: &Dataset,
        preprocess: Preprocess,
        cache: CacheSize,
        out: &mut Output<'_>,
    ) -> anyhow::Result<Teaching> {
        teacher.order(&data.labels)?;
        let (weight, temperature) = (self.weight(), self.temperature());
        let mut teaching =
            Teaching { weight, temperature, cache, ..Teaching::by(teacher, preprocess) };
        let name = teaching.teacher.name();
        let share = 100.0 * weight;
        writeln!(out, "teacher: {}, counts {share} %, temperature {temperature}", name.plain())?;
        if let Some(dir) = &self.unlabelled {
            let options = ReadOptions { preprocess, val_split: 0.0, seed: 0, classes: None, cache };
            let read = counted(|watch| Dataset::read_heap(dir, &options, watch))
                .context("--unlabelled")?;
            let said = teaching.add_unlabelled(&read.train, data);
            for note in read.notes().iter().chain(&said) {
                out.note(Role::Warning, &note.plain().to_string())?;
            }
            let (count, labelled) = (teaching.unlabelled.len(), data.train.len());
            let all = count + labelled;
            writeln!(
                out,
                "{count} unlabelled pictures: {all} an epoch, {labelled} of them labelled"
            )?;
        }
        Ok(teaching)
    }
}
