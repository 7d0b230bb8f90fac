//! What was found, in words.

use super::copies::{Copies, Kin};
use super::curve::{Curve, Forecast};
use super::facts::Facts;
use super::{Diagnosis, Finding, Patient};
use artifact::text::AsPlain;
use page::terminal::{Output, Role};
use serde::Serialize;
use std::io::Write;

/// Lines below a finding, at most; the page and `--json` have all.
const MOST_LINES: usize = 20;
/// So many times as many pictures in one class as in another are to be mended, or to be known.
const IMBALANCE: [f64; 2] = [10.0, 3.0];
/// Fewer pictures of a class are few.
const FEW: usize = 10;

/// Everything that was found, what must be mended first.
pub(super) fn findings(patient: &Patient, diagnosis: &Diagnosis) -> Vec<Finding> {
    let mut found = Vec::new();
    folders(&diagnosis.facts, &mut found);
    classes(&diagnosis.facts, &mut found);
    copies(diagnosis, &mut found);
    suspects(patient, diagnosis, &mut found);
    if let Some(edges) = diagnosis.edges.filter(|edges| edges.tell) {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let text = format!(
            "the edges of the photos tell their classes about as well as the whole photos: {} right with the middle \
             hidden, {} without; look for frames, captions, or backgrounds that only one class has, which a network \
             would learn instead",
            percent(edges.edges),
            percent(edges.whole)
        );
        found.push(Finding { mend: false, text, lines: Vec::new() });
    }
    found.sort_by_key(|finding| !finding.mend);
    found
}

/// `1 file is`, `3 files are`: what is counted, and a verb.
fn counted(n: usize, noun: &str, verbs: [&str; 2]) -> String {
    match n {
        1 => format!("1 {noun} {}", verbs[0]),
        n => format!("{n} {noun}s {}", verbs[1]),
    }
}

/// Files and folders.
fn folders(facts: &Facts, found: &mut Vec<Finding>) {
    let mut add = |mend, text: String, lines| found.push(Finding { mend, text, lines });
    if !facts.damaged.is_empty() {
        let text = counted(
            facts.damaged.len(),
            "file",
            ["is no usable picture", "are no usable pictures"],
        );
        let lines = facts.damaged.iter().map(|d| format!("{}: {}", d.file, d.why)).collect();
        add(true, format!("{text}; replace or remove"), lines);
    }
    for name in &facts.part_names {
        let text = format!(
            "class `{name}` has the name of a part of a data set; sort its pictures into folders of \
             classes, or move it away"
        );
        add(true, text, Vec::new());
    }
    for (class, inner) in &facts.deep {
        let inner = inner.join(", ");
        let text = format!(
            "class `{class}` has no pictures of its own, but folders ({inner}): one level too deep? \
             If these are classes, move them beside the others"
        );
        add(true, text, Vec::new());
    }
    for [a, b] in &facts.case_twins {
        let text =
            format!("classes `{a}` and `{b}` differ only in case; if they are one, join them");
        add(true, text, Vec::new());
    }
    if !facts.strangers.is_empty() {
        let text = counted(facts.strangers.len(), "file", ["is no picture", "are no pictures"]);
        add(false, format!("{text}, and not used"), facts.strangers.clone());
    }
    for remark in &facts.remarks {
        add(false, remark.clone(), Vec::new());
    }
}

/// How many pictures classes have.
fn classes(facts: &Facts, found: &mut Vec<Finding>) {
    let mut add = |mend, text: String| found.push(Finding { mend, text, lines: Vec::new() });
    let count = |of: &super::Class| of.pictures.iter().sum::<usize>();
    let to_learn = |of: &super::Class| of.pictures.first().copied().unwrap_or(0);
    if facts.classes.len() < 2 {
        add(true, "there is one class; telling things apart needs at least two folders".into());
    }
    for class in facts.classes.iter().filter(|class| to_learn(class) == 0) {
        let name = &class.name;
        add(
            true,
            format!("class `{name}` has no usable picture to learn from; add some or remove it"),
        );
    }
    let few: Vec<String> = facts
        .classes
        .iter()
        .filter(|class| (1..FEW).contains(&to_learn(class)))
        .map(|class| format!("{} ({})", class.name, to_learn(class)))
        .collect();
    if !few.is_empty() {
        let which = dataset::list(&few);
        add(false, format!("few pictures to learn from, each counts: {which}"));
    }
    let filled = facts.classes.iter().filter(|class| count(class) > 0);
    let most = filled.clone().max_by_key(|class| count(class));
    let fewest = filled.min_by_key(|class| count(class));
    if let (Some(most), Some(fewest)) = (most, fewest) {
        let [many, few] = [count(most), count(fewest)];
        let times = many as f64 / few as f64;
        if times >= IMBALANCE[1] {
            let text = format!(
                "`{}` has {many} pictures and `{}` has {few}; add some of these, or train with \
                 --class-weights balanced",
                most.name, fewest.name
            );
            add(times >= IMBALANCE[0], text);
        }
    }
}

/// Pictures that are there more than once.
fn copies(diagnosis: &Diagnosis, found: &mut Vec<Finding>) {
    let of_kind = |classes: bool, parts: bool| -> Vec<&Copies> {
        let is_kind = |c: &&Copies| c.across_classes == classes && c.across_parts == parts;
        diagnosis.copies.iter().filter(is_kind).collect()
    };
    let mut add = |mend, groups: Vec<&Copies>, verbs: [&str; 2], rest: &str| {
        if !groups.is_empty() {
            let text = counted(groups.len(), "photo", verbs) + rest;
            let lines = groups.iter().map(|group| group_line(group)).collect();
            found.push(Finding { mend, text, lines });
        }
    };
    let classes = [of_kind(true, false), of_kind(true, true)].concat();
    add(true, classes, ["is in several classes", "are in several classes"], "; keep one of each");
    add(
        true,
        of_kind(false, true),
        ["is in several parts", "are in several parts"],
        ", which makes accuracy look better than it is; keep one of each",
    );
    let verbs = ["is there more than once", "are there more than once"];
    add(false, of_kind(false, false), verbs, "");
}

/// `cat/1.jpg = cat/2.jpg ~ dog/3.jpg (97.3 % alike, mirrored)`.
fn group_line(group: &Copies) -> String {
    /// More make no line that can be read.
    const MOST: usize = 4;
    let member = |copy: &super::copies::Member| match copy.kin {
        Kin::First => copy.file.clone(),
        Kin::Same => format!(" = {}", copy.file),
        Kin::Near { correlation, mirrored } => {
            let mirrored = if mirrored { ", mirrored" } else { "" };
            format!(" ~ {} ({:.1} % alike{mirrored})", copy.file, 100.0 * correlation)
        }
    };
    let named: String = group.pictures.iter().take(MOST).map(member).collect();
    match group.pictures.len().checked_sub(MOST).filter(|more| *more > 0) {
        Some(more) => format!("{named} and {more} more"),
        None => named,
    }
}

/// Likely wrong labels.
fn suspects(patient: &Patient, diagnosis: &Diagnosis, found: &mut Vec<Finding>) {
    if !diagnosis.suspects.is_empty() {
        let verbs = ["may have a wrong label", "may have wrong labels"];
        let text = counted(diagnosis.suspects.len(), "picture", verbs);
        let line = |s: &super::Suspect| {
            let share = 100.0 * s.probability;
            format!("{}: {}, but looks like {} ({share:.1} %)", s.file, s.class, s.looks_like)
        };
        let lines = diagnosis.suspects.iter().map(line).collect();
        found.push(Finding { mend: true, text: format!("{text}; look at them"), lines });
    }
    if diagnosis.unjudged > 0 && diagnosis.unjudged < patient.pictures.len() {
        let text = format!(
            "the labels of {} pictures were not judged: their classes have too few",
            diagnosis.unjudged
        );
        found.push(Finding { mend: false, text, lines: Vec::new() });
    }
}

/// Says all of it.
pub(super) fn say(
    patient: &Patient,
    diagnosis: &Diagnosis,
    findings: &[Finding],
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    writeln!(out, "{}: {}", patient.name.plain(), diagnosis.extent.plain())?;
    table(&diagnosis.facts, out)?;
    if let Some(sizes) = &diagnosis.facts.sizes {
        let [smallest, median, largest] =
            [sizes.smallest, sizes.median, sizes.largest].map(|[w, h]| format!("{w}×{h}"));
        writeln!(out, "pixels: {smallest} to {largest}, in the middle {median}")?;
    }
    for finding in findings {
        let role = if finding.mend { Role::Warning } else { Role::Dim };
        let what = if finding.mend { "mend" } else { "know" };
        let answer: &mut dyn Write = if finding.mend { out.answer() } else { out };
        writeln!(answer, "{}: {}", role.paint(what), finding.text.plain())?;
        for line in finding.lines.iter().take(MOST_LINES) {
            writeln!(answer, "  {}", line.plain())?;
        }
        if let Some(more) = finding.lines.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
            writeln!(answer, "  and {more} more, which the page (-o) and --json name")?;
        }
    }
    if let Some(curve) = &diagnosis.curve {
        for line in curve_lines(curve) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// How many pictures each class has in each part.
fn table(facts: &Facts, out: &mut dyn Write) -> std::io::Result<()> {
    /// More classes are no table to read.
    const MOST_ROWS: usize = 40;
    let names = facts.classes.iter().map(|class| class.name.plain().to_string().chars().count());
    let width = names.max().unwrap_or(5).clamp(5, 40);
    let columns = facts.parts.iter().map(|part| part.chars().count().max(6)).collect::<Vec<_>>();
    let mut row = |name: &str, cells: Vec<String>| {
        write!(out, "{:width$}", name.plain())?;
        for (cell, column) in cells.iter().zip(&columns) {
            write!(out, "  {cell:>column$}")?;
        }
        writeln!(out)
    };
    row("class", facts.parts.iter().map(|part| part.plain().to_string()).collect())?;
    for class in facts.classes.iter().take(MOST_ROWS) {
        row(&class.name, class.pictures.iter().map(usize::to_string).collect())?;
    }
    match facts.classes.len().checked_sub(MOST_ROWS).filter(|more| *more > 0) {
        Some(more) => writeln!(out, "and {more} more classes"),
        None => Ok(()),
    }
}

/// Accuracy over pictures, and what more of them would bring.
pub(crate) fn curve_lines(curve: &Curve) -> Vec<String> {
    let Some((last, others)) = curve.points.split_last() else { return Vec::new() };
    let rounded = |pictures: f64| pictures.round() as usize;
    let mut text = String::from("a head on the features as they are tells right");
    for p in others {
        text += &format!(" {:.1} % with {} pictures,", 100.0 * p.accuracy, rounded(p.pictures));
    }
    let (accuracy, error) = (100.0 * last.accuracy, 100.0 * last.error);
    text += &format!(" {accuracy:.1} ± {error:.1} % with {}", rounded(last.pictures));
    let advice = match curve.forecast {
        Forecast::Unknown => return vec![text],
        Forecast::Done => "less than one point is left to gain by more pictures".into(),
        Forecast::Flat => {
            "more pictures of this kind will hardly help: the curve is flat, as far as these tell"
                .into()
        }
        Forecast::More { pictures, low, high } => {
            let [about, low, high] = [pictures, low, high].map(round);
            format!("about {about} more photos for one point ({low} to {high}, by a power law)")
        }
    };
    vec![text, advice]
}

/// To two digits.
fn round(pictures: f64) -> usize {
    let unit = 10f64.powf(pictures.max(1.0).log10().floor() - 1.0).max(1.0);
    ((pictures / unit).round() * unit).max(1.0) as usize
}

/// Says the verdict; status 1 where something must be mended.
pub(super) fn finish(
    diagnosis: &impl Serialize,
    findings: &[Finding],
    out: &mut Output<'_>,
) -> anyhow::Result<u8> {
    let mend = findings.iter().filter(|finding| finding.mend).count();
    let verdict = match mend {
        0 => Role::Good.paint("nothing to mend".to_owned()),
        1 => Role::Warning.paint("1 thing to mend".to_owned()),
        n => Role::Warning.paint(format!("{n} things to mend")),
    };
    writeln!(out.answer(), "{verdict}")?;
    out.tell("mend", mend)?;
    out.tell("findings", findings)?;
    out.tell("diagnosis", diagnosis)?;
    out.finish()?;
    Ok(u8::from(mend > 0))
}

/// Says that the folder is no data set, and why.
pub(super) fn only(why: &str, out: &mut Output<'_>) -> anyhow::Result<u8> {
    let finding = Finding { mend: true, text: why.into(), lines: Vec::new() };
    writeln!(out.answer(), "{}: {}", Role::Warning.paint("mend"), finding.text.plain())?;
    finish(&(), &[finding], out)
}
