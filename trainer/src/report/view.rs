//! The report as the template `report.html` wants it: texts and drawings.

use super::Report;
use super::chart::{self, BLUE, Frame, ORANGE, Series};
use super::classes::{self, ClassFigures};
use crate::data::{Origin, Pictures};
use crate::heat::Heat;
use crate::train::{self, Answer, BINS, Evaluation, duration};
use artifact::Preprocess;
use askama::Template;
use network::checkpoint::EpochRecord;
use page::Thumbnail;
use std::path::Path;

/// Version of Burn, which exports none.
pub(super) const BURN: &str = "0.22.1";
/// Up to this many classes, the confusion matrix can be read as a whole.
const MAX_MATRIX: usize = 30;
/// Pairs of classes and rows of a table that are shown at once.
const MAX_ROWS: usize = 30;
/// Longest side of a mistake's photo, in pixels of the page.
const SHOWN: u16 = 180;
/// Mistakes shown, at most.
const MAX_MISTAKES: usize = 24;
/// Numbers on the axis of epochs, at most: fewer where there would be fractions between.
const MAX_LABELS: u32 = 8;
/// Classes marked as the worst, at most.
const MAX_WORST: usize = 3;

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    title: String,
    summary: Vec<[String; 2]>,
    notes: Vec<String>,
    curves: Vec<String>,
    /// Whether the curves have a second line.
    validated: bool,
    /// Whether they have a line at the model's epoch.
    marked: bool,
    epochs: Vec<EpochRow>,
    measured: Option<Measured>,
    command: String,
    facts: Vec<[String; 2]>,
    options: Vec<[String; 2]>,
}

/// What measuring adds to a page.
struct Measured {
    pictures: usize,
    matrix: Option<Matrix>,
    confused: Vec<[String; 3]>,
    classes: Vec<ClassRow>,
    more_classes: Vec<ClassRow>,
    mistakes: Vec<Mistake>,
    /// Whether some have heat maps.
    has_heat: bool,
    wrong: usize,
    ece: String,
    reliability: String,
    bins: Vec<[String; 4]>,
}

/// A confusion matrix as a heat map.
struct Matrix {
    labels: Vec<String>,
    rows: Vec<(String, Vec<Cell>)>,
}

struct Cell {
    /// Empty for 0.
    count: String,
    right: bool,
    /// Opacity of the cell's color, 0..=1: the root of the share of the row, for most wrong
    /// answers are too few to be seen otherwise.
    opacity: String,
    /// Whether the color is so strong that text on it must be white.
    strong: bool,
}

struct ClassRow {
    worst: bool,
    label: String,
    pictures: usize,
    right: usize,
    recall: String,
    precision: String,
    taken_for: String,
}

struct EpochRow {
    values: [String; 7],
    /// Whether it is the model's.
    chosen: bool,
}

struct Mistake {
    thumbnail: Thumbnail,
    /// The same, with what spoke for the answer; of a photo, and of a network that has heat maps.
    heat: Option<Thumbnail>,
    /// The file, below the data set's folder.
    name: String,
    label: String,
    answer: String,
    probability: String,
}

impl Page {
    pub(super) fn new(report: &Report<'_>) -> anyhow::Result<Self> {
        let training = &report.checkpoint.training;
        let measured = match report.measured {
            Some((evaluation, pictures)) if evaluation.pictures > 0 => {
                Some(Measured::new(report, evaluation, pictures)?)
            }
            _ => None,
        };
        let options = training.options.iter().map(|(k, v)| [k.clone(), v.clone()]);
        let own = training.epochs.last().map(|e| e.epoch);
        let chosen = own.filter(|_| report.epochs.len() > 1);
        Ok(Self {
            title: format!("{} on {}", model_name(report), report.data.name),
            summary: summary(report),
            notes: verdict(report).into_iter().chain(report.data.notes.clone()).collect(),
            curves: curves(report.epochs, chosen)?,
            validated: report.epochs.iter().any(|e| e.val_loss.is_some()),
            marked: chosen.is_some(),
            epochs: report.epochs.iter().map(|e| EpochRow::new(e, chosen)).collect(),
            measured,
            command: report.command.into(),
            facts: facts(report),
            options: options.collect(),
        })
    }
}

impl Measured {
    fn new(
        report: &Report<'_>,
        evaluation: &Evaluation,
        pictures: &Pictures,
    ) -> anyhow::Result<Self> {
        let labels = &report.checkpoint.labels;
        let name = |class: usize| labels.get(class).cloned().unwrap_or_default();
        let figures = classes::worst_first(&evaluation.confusion);
        let worst = (figures.len() / 3).clamp(1, MAX_WORST);
        let row = |(i, f): (usize, &ClassFigures)| ClassRow {
            worst: i < worst && f.right < f.pictures,
            label: name(f.class),
            pictures: f.pictures,
            right: f.right,
            recall: f.recall().map_or("–".into(), percent),
            precision: f.precision().map_or("–".into(), percent),
            taken_for: f
                .taken_for
                .map_or(String::new(), |(class, n)| format!("{} ({n})", name(class))),
        };
        let mut classes: Vec<_> = figures.iter().enumerate().map(row).collect();
        let more_classes = classes.split_off(classes.len().min(MAX_ROWS));
        let confused = classes::confused(&evaluation.confusion, MAX_ROWS);
        let pair = |(a, b, n): (usize, usize, usize)| [name(a), name(b), n.to_string()];
        let wrong = most_confident_first(&evaluation.answers);
        let p = &report.checkpoint.preprocess;
        let heat = if wrong.is_empty() { None } else { Heat::new(report.checkpoint) };
        let mistake = |&i: &usize| {
            let Answer { label, class, probability } = evaluation.answers[i];
            let pixels = pictures.get(i)?;
            let found = opened(pictures, i);
            let view = found.as_ref().and_then(|photo| photo.view().ok());
            let map = |view| heat.as_ref()?.over(view, &pixels, class as usize, SHOWN);
            Ok(Mistake {
                thumbnail: match view.and_then(|view| Thumbnail::photo(view, SHOWN).ok()) {
                    Some(thumbnail) => thumbnail,
                    None => Thumbnail::new(&pixels, p)?,
                },
                heat: view.and_then(map),
                name: picture_name(pictures, i, &report.data.root),
                label: name(label as usize),
                answer: name(class as usize),
                probability: percent(f64::from(probability)),
            })
        };
        let bins = train::calibration(&evaluation.answers);
        let filled = bins.iter().enumerate().filter(|(_, b)| b.pictures > 0);
        let edge = |i: usize| format!("{:.1}", 100.0 * i as f64 / BINS as f64);
        let bin_row = |(i, b): (usize, &train::Bin)| {
            let range = format!("{}–{} %", edge(i), edge(i + 1));
            [range, b.pictures.to_string(), percent(b.confidence), percent(b.accuracy)]
        };
        let shown = wrong.iter().take(MAX_MISTAKES).map(mistake);
        let mistakes = shown.collect::<anyhow::Result<Vec<Mistake>>>()?;
        Ok(Self {
            pictures: evaluation.pictures,
            matrix: (labels.len() <= MAX_MATRIX).then(|| Matrix::new(labels, evaluation)),
            confused: confused.into_iter().map(pair).collect(),
            classes,
            more_classes,
            has_heat: mistakes.iter().any(|mistake| mistake.heat.is_some()),
            mistakes,
            wrong: wrong.len(),
            ece: percent(evaluation.ece),
            reliability: chart::reliability(&bins)?,
            bins: filled.map(bin_row).collect(),
        })
    }
}

/// The photo that a picture was made from, if it can still be read.
pub(super) fn photo(pictures: &Pictures, i: usize) -> Option<Thumbnail> {
    Thumbnail::photo(opened(pictures, i)?.view().ok()?, SHOWN).ok()
}

/// As [`photo`], in full.
fn opened(pictures: &Pictures, i: usize) -> Option<picture::Picture> {
    let origin = pictures.origin(i).filter(|origin| origin.record.is_none())?;
    picture::open(origin.path).ok()
}

/// The file of a picture below `root`.
pub(crate) fn picture_name(pictures: &Pictures, i: usize, root: &Path) -> String {
    let Some(Origin { path, record }) = pictures.origin(i) else { return String::new() };
    let path = path.strip_prefix(root).unwrap_or(path).display();
    record.map_or_else(|| path.to_string(), |number| format!("{path}, picture {number}"))
}

impl Matrix {
    fn new(labels: &[String], evaluation: &Evaluation) -> Self {
        let row = |(class, (label, counts)): (usize, (&String, &Vec<usize>))| {
            let all = counts.iter().sum::<usize>().max(1) as f64;
            let cell = |(answer, n): (usize, &usize)| {
                let opacity = (*n as f64 / all).sqrt();
                Cell {
                    count: if *n == 0 { String::new() } else { n.to_string() },
                    right: answer == class,
                    opacity: format!("{opacity:.2}"),
                    strong: opacity > 0.7,
                }
            };
            (label.clone(), counts.iter().enumerate().map(cell).collect())
        };
        let rows = labels.iter().zip(&evaluation.confusion).enumerate().map(row).collect();
        Self { labels: labels.to_vec(), rows }
    }
}

/// Indices of the wrong answers, those given with the highest probability first.
pub(super) fn most_confident_first(answers: &[Answer]) -> Vec<usize> {
    let mut wrong: Vec<usize> =
        answers.iter().enumerate().filter(|(_, a)| !a.is_right()).map(|(i, _)| i).collect();
    wrong.sort_by(|a, b| answers[*b].probability.total_cmp(&answers[*a].probability));
    wrong
}

/// What the figures do not say by themselves, in sentences.
fn verdict(report: &Report<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let epochs = report.epochs;
    if let Some((m, _)) = report.measured
        && m.pictures > 0
    {
        let [low, high] = m.interval().map(percent);
        let n = m.pictures;
        lines.push(format!(
            "{} of {n} pictures: on others of their kind, between {low} and {high} (95 % interval)",
            percent(m.accuracy)
        ));
        if report.data.chose && epochs.len() > 1 {
            lines.push(format!(
                "The best of {} epochs on these {n} pictures, which flatters it a little",
                epochs.len()
            ));
        }
    }
    if let Some((epoch, low, end)) = overfitting(epochs) {
        lines.push(format!(
            "It overfits from epoch {epoch} on: the validation loss rises from {low:.3} to \
             {end:.3} while that of training falls"
        ));
    }
    lines
}

/// The epoch from which on only the training pictures are learned better, if there is one, with the
/// lowest and the last validation loss.
pub(super) fn overfitting(epochs: &[EpochRecord]) -> Option<(u32, f64, f64)> {
    /// Fewer epochs or less of a rise are chance.
    const FEWEST: usize = 3;
    const LEAST_RISE: f64 = 1.1;
    let losses: Vec<f64> = epochs.iter().map_while(|e| e.val_loss).collect();
    let lowest = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b]))?;
    let (low, end) = (losses[lowest], *losses.last()?);
    let after = epochs.get(lowest + 1)?;
    let falls = epochs.last()?.train_loss < epochs[lowest].train_loss;
    (epochs.len() > lowest + FEWEST && falls && end > low * LEAST_RISE).then_some((
        after.epoch,
        low,
        end,
    ))
}

/// The headline: names and values.
fn summary(report: &Report<'_>) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    match report.measured {
        Some((m, _)) if m.pictures > 0 => {
            add("accuracy", percent(m.accuracy));
            if (2..report.checkpoint.labels.len()).contains(&m.top_k) {
                add(&format!("top-{}", m.top_k), percent(m.top_k_accuracy));
            }
            add("loss", format!("{:.3}", m.loss));
            add("pictures measured", m.pictures.to_string());
            add("calibration error", percent(m.ece));
        }
        _ => add("accuracy", "not measured".into()),
    }
    add("classes", report.checkpoint.labels.len().to_string());
    let p = &report.checkpoint.preprocess;
    add("the network sees", format!("{}×{} pixels", p.width, p.height));
    if !report.epochs.is_empty() {
        let seconds: f64 = report.epochs.iter().map(|e| e.seconds).sum();
        add("time to train", duration(seconds));
        let waiting: f64 = report.epochs.iter().map(|e| e.wait_seconds).sum();
        let share = waiting / seconds.max(1e-9);
        if share >= 0.01 {
            add("of it, waiting for pictures", percent(share));
        }
    }
    add("this command", duration(report.seconds));
    rows
}

/// The model's file without its folder.
fn model_name(report: &Report<'_>) -> String {
    report.model.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where the model comes from.
fn facts(report: &Report<'_>) -> Vec<[String; 2]> {
    let checkpoint = report.checkpoint;
    let training = &checkpoint.training;
    let mut rows = Vec::new();
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    add("model", model_name(report));
    add("architecture", checkpoint.config.name.clone());
    add("data set", report.data.name.clone());
    if let Some(own) = training.epochs.last() {
        add("trained on", format!("{} (fingerprint {})", training.dataset, training.fingerprint));
        let all = training.options.get("epochs").map_or(String::new(), |n| format!(" of {n}"));
        add("epoch of the model", format!("{}{all}", own.epoch));
        add("seed", training.seed.to_string());
        add("validated on", training.validation.to_string());
    }
    if !training.base.is_empty() {
        add("started from", training.base.clone());
    }
    add("preprocessing", preprocessing(&checkpoint.preprocess));
    add("trainer", env!("CARGO_PKG_VERSION").into());
    add("Burn", BURN.into());
    rows
}

fn preprocessing(p: &Preprocess) -> String {
    let antialias = if p.antialias { " with antialias" } else { "" };
    let channels = p.channels();
    let (scale, offset) = (&p.scale[..channels], &p.offset[..channels]);
    let names = if p.grey { "luma" } else { "R, G, B" };
    format!(
        "{:?} to {}×{} pixels, {:?}{antialias}; value · {scale:.5?} + {offset:.4?} ({names})",
        p.fit, p.width, p.height, p.interpolation
    )
}

/// Loss, accuracy and learning rate over the epochs; none without epochs.
fn curves(epochs: &[EpochRecord], chosen: Option<u32>) -> anyhow::Result<Vec<String>> {
    let Some(last) = epochs.last() else { return Ok(Vec::new()) };
    let line = |color, value: fn(&EpochRecord) -> Option<f64>| {
        let point = |e: &EpochRecord| Some((f64::from(e.epoch), value(e)?));
        Series::new(color, epochs.iter().filter_map(point))
    };
    // An axis needs two ends, also after one epoch.
    let (x, labels) = match last.epoch {
        ..=1 => (0.0..2.0, 3),
        epochs => (1.0..f64::from(epochs), epochs.min(MAX_LABELS)),
    };
    let frame = |title: &str, y, y_text| Frame {
        title: title.into(),
        x_name: "epoch",
        x: x.clone(),
        x_labels: labels as usize,
        y,
        y_text,
        mark: chosen.map(f64::from),
    };
    let loss = [line(BLUE, |e| Some(e.train_loss)), line(ORANGE, |e| e.val_loss)];
    let accuracy = [line(BLUE, |e| Some(e.train_accuracy)), line(ORANGE, |e| e.val_accuracy)];
    let rate = [line(BLUE, |e| Some(e.learning_rate))];
    let from_zero = |series: &[Series]| {
        let top = chart::y_bounds(series).map_or(0.0, |(_, max)| max * 1.05);
        0.0..if top > 0.0 { top } else { 1.0 }
    };
    let lowest = chart::y_bounds(&accuracy).map_or(0.0, |(min, _)| min).clamp(0.0, 0.9);
    let tenth = (lowest * 10.0).floor() / 10.0;
    Ok(vec![
        chart::lines(&frame("Loss", from_zero(&loss), chart::number), &loss)?,
        chart::lines(&frame("Accuracy", tenth..1.0, chart::percent), &accuracy)?,
        chart::lines(&frame("Learning rate", from_zero(&rate), chart::number), &rate)?,
    ])
}

impl EpochRow {
    fn new(e: &EpochRecord, chosen: Option<u32>) -> Self {
        let or_none = |text: Option<String>| text.unwrap_or("–".into());
        let values = [
            e.epoch.to_string(),
            format!("{:.4}", e.train_loss),
            percent(e.train_accuracy),
            or_none(e.val_loss.map(|v| format!("{v:.4}"))),
            or_none(e.val_accuracy.map(percent)),
            format!("{:.5}", e.learning_rate),
            duration(e.seconds),
        ];
        Self { values, chosen: chosen == Some(e.epoch) }
    }
}

/// A share with one decimal.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
