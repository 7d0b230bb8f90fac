//! `doctor`'s page: what was found in a data set, with the pictures in question.

use super::chart::{self, BLUE, Frame, Series};
use super::view::{percent, photo};
use crate::doctor::{Copies, Curve, Damaged, Diagnosis, Finding, Kin, Patient, curve_lines};
use crate::train::duration;
use askama::Template;
use page::Thumbnail;

/// Pictures with likely wrong labels that are shown, at most.
const MOST_SUSPECTS: usize = 60;
/// Groups of copies that are shown, at most.
const MOST_GROUPS: usize = 40;
/// Pictures of a group that are shown, at most.
const MOST_MEMBERS: usize = 6;
/// Lines of a list that are shown, at most.
const MOST_LINES: usize = 200;

/// The page.
#[derive(Template)]
#[template(path = "doctor.html")]
struct Page<'a> {
    title: String,
    summary: Vec<[String; 2]>,
    findings: &'a [Finding],
    suspects: Vec<Shown>,
    more_suspects: usize,
    groups: Vec<Group>,
    more_groups: usize,
    damaged: Vec<&'a Damaged>,
    more_damaged: usize,
    parts: &'a [String],
    classes: Vec<(String, Vec<usize>)>,
    curve: Option<Drawn>,
    command: &'a str,
}

/// A picture with a few words.
struct Shown {
    thumbnail: Thumbnail,
    file: String,
    class: String,
    /// What is to be said of it beside its class.
    words: String,
    /// The class that it looks like, and how likely that is.
    other: String,
}

/// Copies of a picture.
struct Group {
    title: &'static str,
    pictures: Vec<Shown>,
    more: usize,
}

/// Accuracy over pictures.
struct Drawn {
    svg: String,
    lines: Vec<String>,
}

/// The page as text.
///
/// # Errors
/// Pictures that cannot be read again.
pub(crate) fn doctor(
    patient: &Patient,
    diagnosis: &Diagnosis,
    findings: &[Finding],
    (command, seconds): (&str, f64),
) -> anyhow::Result<String> {
    let suspects = diagnosis.suspects.iter().take(MOST_SUSPECTS).map(|s| {
        let other = format!("{} {}", s.looks_like, percent(s.probability.into()));
        Shown::new(patient, s.picture, "looks like".into(), other)
    });
    let groups = diagnosis.copies.iter().take(MOST_GROUPS).map(|group| Group::new(patient, group));
    let facts = &diagnosis.facts;
    page::finish(&Page {
        title: format!("{}: {}", patient.name, verdict(findings)),
        summary: summary(patient, diagnosis, seconds),
        findings,
        suspects: suspects.collect::<anyhow::Result<_>>()?,
        more_suspects: diagnosis.suspects.len().saturating_sub(MOST_SUSPECTS),
        groups: groups.collect::<anyhow::Result<_>>()?,
        more_groups: diagnosis.copies.len().saturating_sub(MOST_GROUPS),
        damaged: facts.damaged.iter().take(MOST_LINES).collect(),
        more_damaged: facts.damaged.len().saturating_sub(MOST_LINES),
        parts: &facts.parts,
        classes: facts.classes.iter().map(|c| (c.name.clone(), c.pictures.clone())).collect(),
        curve: diagnosis.curve.as_ref().map(Drawn::new).transpose()?.flatten(),
        command,
    })
}

/// How much is to be mended, in words.
fn verdict(findings: &[Finding]) -> String {
    match findings.iter().filter(|finding| finding.mend).count() {
        0 => "nothing to mend".into(),
        1 => "1 thing to mend".into(),
        n => format!("{n} things to mend"),
    }
}

/// The headline: names and values.
fn summary(patient: &Patient, diagnosis: &Diagnosis, seconds: f64) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    add("classes", patient.labels.len().to_string());
    for (name, range) in &patient.parts {
        add(name, range.len().to_string());
    }
    if let Some(sizes) = &diagnosis.facts.sizes {
        let [width, height] = sizes.median;
        add("pixels, in the middle", format!("{width}×{height}"));
    }
    add("unusable files", diagnosis.facts.damaged.len().to_string());
    add("photos with copies", diagnosis.copies.len().to_string());
    if diagnosis.curve.is_some() {
        add("likely wrong labels", diagnosis.suspects.len().to_string());
    }
    add("this command", duration(seconds));
    rows
}

impl Shown {
    fn new(patient: &Patient, i: usize, words: String, other: String) -> anyhow::Result<Self> {
        let pictures = &patient.pictures;
        let thumbnail = match photo(pictures, i) {
            Some(thumbnail) => thumbnail,
            None => Thumbnail::new(&pictures.get(i)?, &patient.preprocess)?,
        };
        let (file, class) = (patient.file(i), patient.class(i).to_owned());
        Ok(Self { thumbnail, file, class, words, other })
    }
}

impl Group {
    fn new(patient: &Patient, group: &Copies) -> anyhow::Result<Self> {
        let shown = group.pictures.iter().take(MOST_MEMBERS).map(|member| {
            let words = match member.kin {
                Kin::First => String::new(),
                Kin::Same => "the same file".into(),
                Kin::Near { correlation, mirrored } => {
                    let mirrored = if mirrored { ", mirrored" } else { "" };
                    format!("{} alike{mirrored}", percent(correlation.into()))
                }
            };
            Shown::new(patient, member.picture, words, String::new())
        });
        Ok(Self {
            title: match (group.across_classes, group.across_parts) {
                (true, _) => "In several classes",
                (false, true) => "In several parts",
                (false, false) => "In one class",
            },
            pictures: shown.collect::<anyhow::Result<_>>()?,
            more: group.pictures.len().saturating_sub(MOST_MEMBERS),
        })
    }
}

/// A line as a sentence.
fn sentence(line: &str) -> String {
    let mut rest = line.chars();
    let first = rest.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(rest).chain(['.']).collect()
}

impl Drawn {
    /// `None` without two points.
    fn new(curve: &Curve) -> anyhow::Result<Option<Self>> {
        let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else {
            return Ok(None);
        };
        if last.pictures <= first.pictures {
            return Ok(None);
        }
        let points = curve.points.iter().map(|p| (p.pictures, p.accuracy));
        let lowest = curve.points.iter().map(|p| p.accuracy).fold(1.0, f64::min);
        let frame = Frame {
            title: "Share right".into(),
            x_name: "pictures that the head was fitted to",
            x: 0.0..last.pictures * 1.05,
            x_labels: 6,
            y: (lowest * 10.0 - 0.5).floor().clamp(0.0, 9.0) / 10.0..1.0,
            y_text: chart::percent,
            mark: None,
        };
        let svg = chart::lines(&frame, &[Series::new(BLUE, points)])?;
        Ok(Some(Self {
            svg,
            lines: curve_lines(curve).iter().map(|line| sentence(line)).collect(),
        }))
    }
}
