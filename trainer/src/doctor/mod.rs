//! `doctor`: what is to be mended in a data set before anything learns from it.
//!
//! Cheap facts first (`facts`: folders, classes, files, sizes). Then the built-in network that
//! fine-tuning would start from looks at each picture once (`seen`). Of what it sees follow copies
//! (`neighbors` proposes, `similar` decides by pixels), wrong labels and what more pictures
//! would bring (`folds`, `labels`, `curve`), and whether classes are told by the edges of their photos (`shortcuts`). `words` says all that, `report::doctor` makes a page of it.

mod copies;
mod curve;
mod facts;
mod folds;
mod labels;
mod neighbors;
mod register;
mod seen;
mod shortcuts;
mod similar;
mod words;

pub(crate) use copies::{Copies, Kin};
pub(crate) use curve::Curve;
pub(crate) use facts::{Class, Damaged, Facts};
pub(crate) use labels::Suspect;
pub(crate) use shortcuts::Edges;
pub(crate) use words::curve_lines;

use crate::builtin::{Builtin, Target};
use crate::cli::counted;
use crate::data::{CacheSize, DataError, Dataset, Pictures, ReadOptions};
use crate::options::Machine;
use crate::report;
use crate::train::{check_file, duration};
use anyhow::{Context, ensure};
use artifact::Preprocess;
use artifact::text::AsPlain;
use clap::Args;
use core::ops::Range;
use curve::SHARES;
use dataset::Glance;
use folds::Folds;
use network::checkpoint::{Checkpoint, Validation};
use page::progress::Counter;
use page::terminal::{Output, Voice};
use seen::Seen;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Folder with one folder of pictures per class (optionally below train/, val/ and test/), or
    /// with CIFAR-10's binary files.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Also write a page with the pictures in question (.html).
    #[arg(short = 'o', long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Look at folders and files alone: no network looks for wrong labels, near copies and what more
    /// pictures would bring.
    #[arg(long)]
    quick: bool,
    /// Deals pictures to folds.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Memory for decoded pictures, as for `finetune`; the others are decoded twice.
    #[arg(long, value_name = "SIZE", default_value_t = CacheSize::Auto)]
    cache: CacheSize,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    pub(crate) voice: Voice,
}

/// Something that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Whether it should be mended before training; else it is only good to know.
    pub(crate) mend: bool,
    /// In a sentence.
    pub(crate) text: String,
    /// Lines that name what is meant.
    pub(crate) lines: Vec<String>,
}

/// The pictures of all parts.
pub(crate) struct Patient {
    pub(crate) root: PathBuf,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) preprocess: Preprocess,
    pub(crate) pictures: Pictures,
    /// Names of the parts, and which of the pictures they have.
    pub(crate) parts: Vec<(String, Range<usize>)>,
}

/// All that was found.
#[derive(Serialize)]
pub(crate) struct Diagnosis {
    /// How large it is, in words.
    pub(crate) extent: String,
    pub(crate) facts: Facts,
    pub(crate) copies: Vec<Copies>,
    /// Likely wrong labels, the likeliest first.
    pub(crate) suspects: Vec<Suspect>,
    /// Pictures of classes that are too small to tell wrong labels.
    pub(crate) unjudged: usize,
    pub(crate) curve: Option<Curve>,
    /// Whether classes are told by the edges of their photos.
    pub(crate) edges: Option<Edges>,
}

impl Patient {
    fn new(data: &Dataset, root: &Path, preprocess: Preprocess) -> Self {
        let mut pictures = data.train.clone();
        let mut parts = Vec::new();
        let val = match &data.validation {
            Validation::Part(name) => name.as_str(),
            _ => "val/",
        };
        // Where there is one part, it has no name worth saying.
        let train = if data.val.is_empty() && data.test.is_empty() { "pictures" } else { "train" };
        parts.push((train.to_owned(), 0..pictures.len()));
        for (name, part) in [(val, &data.val), (&data.test_name, &data.test)] {
            if !part.is_empty() {
                let start = pictures.len();
                pictures.append(part);
                parts.push((name.trim_end_matches('/').to_owned(), start..pictures.len()));
            }
        }
        Self {
            root: root.into(),
            name: data.name.clone(),
            labels: data.labels.clone(),
            preprocess,
            pictures,
            parts,
        }
    }

    /// The part that picture `i` is in.
    pub(crate) fn part(&self, i: usize) -> usize {
        self.parts.iter().position(|(_, range)| range.contains(&i)).unwrap_or(0)
    }

    /// The class of picture `i`.
    pub(crate) fn class(&self, i: usize) -> &str {
        self.labels.get(self.pictures.labels[i] as usize).map_or("", String::as_str)
    }

    /// The file of picture `i` below the folder.
    pub(crate) fn file(&self, i: usize) -> String {
        report::picture_name(&self.pictures, i, &self.root)
    }
}

/// Examines the folder; status 1 where something must be mended.
pub(crate) fn run(args: &Doctor, command: &str, out: &mut Output<'_>) -> anyhow::Result<u8> {
    let started = Instant::now();
    if let Some(page) = &args.out {
        report::check_extension("-o", page, "html")?;
        check_file(page).with_context(|| format!("-o {}", page.display()))?;
    }
    let meta = std::fs::metadata(&args.dir).with_context(|| args.dir.display().to_string())?;
    ensure!(
        meta.is_dir(),
        "{}: not a folder; pass one with a folder per class",
        args.dir.display()
    );
    let device = args.machine.device()?;
    let (checkpoint, patient, mut diagnosis) = match examine(args) {
        Ok(found) => found,
        // What is no data set is the first thing to be mended.
        Err(error) => match error.downcast_ref::<DataError>() {
            Some(DataError::Layout { .. }) => return words::only(&error.to_string(), out),
            _ => return Err(error),
        },
    };
    if !args.quick && !patient.pictures.is_empty() {
        let seen = Seen::by(&checkpoint, &patient.pictures, &device)?;
        diagnosis.judge(&patient, &seen, args.seed);
        if diagnosis.curve.is_some() {
            diagnosis.edges = shortcuts::edges(&checkpoint, &patient, args.seed, &device)?;
        }
    }
    let findings = words::findings(&patient, &diagnosis);
    words::say(&patient, &diagnosis, &findings, out)?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(page) = &args.out {
        let html = report::doctor(&patient, &diagnosis, &findings, (command, seconds))?;
        page::save(&html, page)?;
        writeln!(out, "{}: the page", page.display().to_string().plain())?;
        out.tell("page", page::told(page))?;
    }
    writeln!(out, "{} in all", duration(seconds))?;
    words::finish(&diagnosis, &findings, out)
}

/// Reads the folder as the network sees it that suits its pictures, and finds what needs no looking.
fn examine(args: &Doctor) -> anyhow::Result<(Checkpoint, Patient, Diagnosis)> {
    let side = Glance::at(&args.dir)?.side;
    let checkpoint = Builtin::for_pictures(side, Target::Host).open()?;
    let preprocess = checkpoint.preprocess;
    let options =
        ReadOptions { preprocess, val_split: 0.0, seed: 0, classes: None, cache: args.cache };
    let data = counted(|watch| Dataset::examine(&args.dir, &options, watch))?;
    let patient = Patient::new(&data, &args.dir, preprocess);
    let diagnosis = Diagnosis {
        extent: data.extent(),
        facts: Facts::of(&data, &patient),
        copies: copies::exact(&patient),
        suspects: Vec::new(),
        unjudged: 0,
        curve: None,
        edges: None,
    };
    Ok((checkpoint, patient, diagnosis))
}

impl Diagnosis {
    /// Adds what only a network has seen.
    fn judge(&mut self, patient: &Patient, seen: &Seen, seed: u64) {
        let pictures = &patient.pictures;
        let comparing = Counter::new("comparing pictures");
        let pairs = similar::pairs(seen, pictures);
        drop(comparing);
        let groups = copies::groups(patient, &pairs);
        self.copies = copies::named(patient, &groups, &pairs);
        let classes = patient.labels.len();
        let folds = Folds::new(&pictures.labels, &groups, classes, seed);
        if classes < 2 || folds.len() < 2 {
            self.unjudged = pictures.len();
            return;
        }
        let counter = Counter::new("fitting heads to the other pictures");
        let all = folds.len() * SHARES.len();
        let mut asked = Vec::new();
        for (i, share) in SHARES.into_iter().enumerate() {
            asked.push(folds.ask(seen, share, (&counter, i * folds.len(), all)));
        }
        drop(counter);
        self.curve = Some(Curve::of(&asked, seed));
        if let Some((verdicts, _)) = asked.last() {
            (self.suspects, self.unjudged) = labels::suspects(patient, verdicts, &groups);
        }
    }
}
