//! `show`: the pictures of a data set as a network gets them.

use crate::builtin::{Builtin, Target};
use crate::cli::counted;
use crate::data::augment::Mix;
use crate::data::{Augment, CacheSize, DataError, Dataset, Pictures, ReadOptions, batch};
use crate::train::check_file;
use anyhow::{Context, ensure};
use artifact::Preprocess;
use artifact::text::AsPlain;
use askama::Template;
use clap::Args;
use dataset::Glance;
use network::checkpoint::TrainingRecord;
use page::{Thumbnail, check_extension};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use zoo::Head;

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Folder with one folder of pictures per class (optionally below train/ and val/), or
    /// with CIFAR-10's binary files.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Show what each step of the augmentation does, instead of the classes; STEPS as for
    /// `train`.
    #[arg(long, value_name = "STEPS", num_args = 0..=1, default_missing_value = "light",
        value_parser = str::parse::<Augment>)]
    augment: Option<Augment>,
    /// Pictures of each class; with --augment, pictures in all.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 8)]
    count: usize,
    /// Model whose preprocessing the pictures undergo; where left out, the built-in one that finetune
    /// starts from.
    #[arg(long, alias = "preset", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Input side in pixels; the model's where left out.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(8..=1024))]
    size: Option<u16>,
    /// Share of each class set aside for validation where the folder has no val/.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    val_split: f64,
    /// Chooses the pictures, the split and the augmentation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The page.
    #[arg(short = 'o', long = "out", value_name = "FILE", default_value = "gallery.html")]
    out: PathBuf,
}

/// The page.
#[derive(Default, Template)]
#[template(path = "gallery.html")]
struct Gallery {
    title: String,
    notes: Vec<String>,
    explanation: String,
    classes: Vec<Class>,
    /// Titles of the columns of `grid`, in two parts between which they may be broken.
    columns: Vec<[String; 2]>,
    grid: Vec<Row>,
}

struct Class {
    label: String,
    counts: String,
    pictures: Vec<Thumbnail>,
}

struct Row {
    label: String,
    pictures: Vec<Thumbnail>,
}

/// A step of the augmentation and what it makes of each picture.
struct Column {
    title: String,
    pictures: Vec<Vec<u8>>,
}

/// Reads the data, says what is to be known of it and writes the page.
pub(crate) fn run(args: &Show, out: &mut dyn Write) -> anyhow::Result<()> {
    check_extension("-o", &args.out, "html")?;
    check_file(&args.out).with_context(|| format!("-o {}", args.out.display()))?;
    ensure!(args.count > 0, "--count 0 shows nothing; pass at least 1");
    ensure!(
        (0.0..1.0).contains(&args.val_split),
        "--val-split {} is not in 0..1; pass a share such as 0.2",
        args.val_split
    );
    let p = preprocess(args)?;
    let options = ReadOptions {
        preprocess: p,
        val_split: args.val_split,
        seed: args.seed,
        classes: None,
        cache: CacheSize::Auto,
    };
    let unknown = TrainingRecord::default();
    let data = counted(|watch| Dataset::read_for(&args.data, &options, &unknown, watch))?;
    let notes = data.notes();
    let counts = counts(&data);
    let width = data.labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    for (label, counts) in data.labels.iter().zip(&counts) {
        writeln!(out, "{:width$}  {counts}", label.plain().to_string())?;
    }
    for note in &notes {
        writeln!(out, "{}", note.plain())?;
    }
    let mut gallery = Gallery {
        title: format!("{}: {} classes", data.name, data.labels.len()),
        notes,
        explanation: format!(
            "Training pictures as a network gets them, {}×{} pixels.",
            p.width, p.height
        ),
        ..Gallery::default()
    };
    if let Some(augment) = &args.augment {
        gallery.explanation +=
            " Each column shows one step alone, the last all together, as in the first epoch.";
        gallery.add_grid(&data, &p, augment, args)?;
    } else {
        gallery.add_classes(&data, counts, &p, args)?;
    }
    page::save(&page::finish(&gallery)?, &args.out)?;
    writeln!(out, "{}: the pictures", args.out.display().to_string().plain())?;
    Ok(())
}

/// How pictures come to the input size; what happens to their numbers is not shown.
fn preprocess(args: &Show) -> anyhow::Result<Preprocess> {
    let mut p = match &args.model {
        Some(path) => zoo::open(path, Head::Optional)?.preprocess,
        None => {
            let side = Glance::at(&args.data)?.side;
            Builtin::for_pictures(side, Target::Host).open()?.preprocess
        }
    };
    if let Some(side) = args.size {
        (p.height, p.width) = (side, side);
    }
    Ok(p)
}

/// The number of pictures of each class, as text.
fn counts(data: &Dataset) -> Vec<String> {
    let classes = data.labels.len();
    let pairs = data.train.counts(classes).into_iter().zip(data.val.counts(classes));
    pairs.map(|(train, val)| format!("{train} training, {val} validation")).collect()
}

impl Gallery {
    /// Some pictures of each class.
    fn add_classes(
        &mut self,
        data: &Dataset,
        counts: Vec<String>,
        p: &Preprocess,
        args: &Show,
    ) -> anyhow::Result<()> {
        let pairs = data.labels.iter().zip(counts);
        self.classes = pairs
            .map(|(label, counts)| Class { label: label.clone(), counts, pictures: Vec::new() })
            .collect();
        for i in data.train.stratified(data.train.len(), args.seed) {
            let class = self.classes.get_mut(data.train.labels[i] as usize);
            if let Some(class) = class.filter(|c| c.pictures.len() < args.count) {
                class.pictures.push(Thumbnail::new(&data.train.get(i)?, p)?);
            }
        }
        Ok(())
    }

    /// Some pictures before and after each step of the augmentation.
    fn add_grid(
        &mut self,
        data: &Dataset,
        p: &Preprocess,
        augment: &Augment,
        args: &Show,
    ) -> anyhow::Result<()> {
        let chosen = data.train.stratified(args.count, args.seed);
        let pictures = Arc::new(data.train.clone());
        let columns = augmented(&pictures, &chosen, p, augment, args.seed)?;
        let title = |c: &Column| {
            let at = c.title.find('=').unwrap_or(c.title.len());
            let (name, value) = c.title.split_at(at);
            [name.to_owned(), value.to_owned()]
        };
        self.columns = columns.iter().map(title).collect();
        for (row, i) in chosen.iter().enumerate() {
            let label = data.labels.get(data.train.labels[*i] as usize).cloned();
            let pictures = columns.iter().filter_map(|c| c.pictures.get(row));
            self.grid.push(Row {
                label: label.unwrap_or_default(),
                pictures: pictures
                    .map(|rgb| Thumbnail::new(rgb, p))
                    .collect::<anyhow::Result<_>>()?,
            });
        }
        Ok(())
    }
}

/// What each step of the augmentation makes of the `chosen` pictures, as one batch of a run's
/// first epoch.
fn augmented(
    pictures: &Arc<Pictures>,
    chosen: &[usize],
    p: &Preprocess,
    augment: &Augment,
    seed: u64,
) -> Result<Vec<Column>, DataError> {
    let mut columns = vec![("original".to_owned(), Augment::default())];
    for step in &augment.steps {
        columns.push((step.to_string(), Augment { steps: vec![*step], mix: Mix::default() }));
    }
    let Mix { mixup, cutmix } = augment.mix;
    for mix in [Mix { mixup, cutmix: 0.0 }, Mix { mixup: 0.0, cutmix }] {
        if mix != Mix::default() {
            let alone = Augment { steps: Vec::new(), mix };
            columns.push((alone.to_string(), alone));
        }
    }
    if columns.len() > 2 {
        columns.push(("all together".to_owned(), augment.clone()));
    }
    // Unscaled, the batch holds what training sees before its normalization.
    let raw = Preprocess { grey: p.grey, ..Preprocess::raw(p.height, p.width) };
    let column = |(title, augment): (String, Augment)| {
        let batch = batch(pictures, &raw, chosen, &augment, seed)?;
        let len = pictures.picture_len();
        let plane = len / p.channels();
        let pixels = |planes: &[f32]| {
            let pixel = |i: usize| planes.iter().skip(i).step_by(plane);
            let byte = |v: &f32| v.round().clamp(0.0, 255.0) as u8;
            (0..plane).flat_map(|i| pixel(i).map(byte)).collect()
        };
        Ok(Column { title, pictures: batch.chunks_exact(len).map(pixels).collect() })
    };
    columns.into_iter().map(column).collect()
}
