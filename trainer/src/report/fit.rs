//! `fit`'s page: what networks promise and take, and those that were trained.

use super::chart::{self, BLUE, Frame, ORANGE, Series};
use super::view::percent;
use crate::fit::{Guess, Milliseconds, Takes, Trained, Wanted, describe};
use crate::train::duration;
use askama::Template;

/// Rows of the table of candidates that are shown, at most.
const MOST_ROWS: usize = 40;

/// What the page tells of.
pub(crate) struct Fitted<'a> {
    pub(crate) wanted: &'a Wanted,
    pub(crate) guesses: &'a [Guess],
    pub(crate) trained: &'a [Trained],
    /// Which of them was chosen.
    pub(crate) best: usize,
    /// How large the data set is, in words.
    pub(crate) extent: &'a str,
    /// The pictures that chose.
    pub(crate) validation: &'a str,
    /// Int8 accuracy on pictures that chose nothing, and how many those are.
    pub(crate) test: Option<(f64, usize)>,
    pub(crate) command: &'a str,
    pub(crate) seconds: f64,
}

#[derive(Template)]
#[template(path = "fit.html")]
struct Page<'a> {
    title: String,
    summary: Vec<[String; 2]>,
    board: String,
    extent: &'a str,
    validation: &'a str,
    margin: String,
    trained: Vec<Row>,
    charts: Vec<String>,
    rows: Vec<Row>,
    more: usize,
    has_energy: bool,
    command: &'a str,
}

/// A network in a table.
struct Row {
    name: String,
    /// Shares right.
    shares: Vec<String>,
    takes: Vec<String>,
    chosen: bool,
}

/// The page as text.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn fit(fitted: &Fitted<'_>) -> anyhow::Result<String> {
    let Fitted { wanted, guesses, trained, .. } = fitted;
    let best = &trained[fitted.best];
    let has_energy = wanted.board.nj_per_cycle.is_some();
    let guess = |name: &str| guesses.iter().find(|g| g.name == name).map_or(0.0, |g| g.accuracy);
    let row = |name: &str, shares: &[f64], takes: &Takes| Row {
        name: name.into(),
        shares: shares.iter().map(|share| percent(*share)).collect(),
        takes: columns(takes, has_energy),
        chosen: name == best.name,
    };
    let mut promising: Vec<&Guess> = guesses.iter().collect();
    promising.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
    let shown = promising.iter().take(MOST_ROWS);
    let mut charts = Vec::new();
    for axis in Axis::ALL.into_iter().filter(|axis| has_energy || *axis != Axis::Energy) {
        charts.push(axis.draw(guesses, trained)?);
    }
    page::finish(&Page {
        title: format!("{}: {}", wanted.name, best.name),
        summary: summary(fitted, best),
        board: describe(wanted),
        extent: fitted.extent,
        validation: fitted.validation,
        margin: dataset::margin(best.int8, best.pictures),
        trained: (trained.iter())
            .map(|t| row(&t.name, &[guess(&t.name), t.float, t.int8], &t.takes))
            .collect(),
        charts,
        rows: shown.map(|g| row(&g.name, &[g.accuracy], &g.takes)).collect(),
        more: guesses.len().saturating_sub(MOST_ROWS),
        has_energy,
        command: fitted.command,
    })
}

/// What a network takes, for the table.
fn columns(takes: &Takes, has_energy: bool) -> Vec<String> {
    let mut columns = vec![
        format!("{:.1}", takes.ram as f64 / 1024.0),
        format!("{:.1}", takes.flash as f64 / 1024.0),
        Milliseconds(takes.seconds).to_string(),
    ];
    if has_energy {
        columns.push(takes.joules.map_or(String::new(), |joules| format!("{:.2}", joules * 1e3)));
    }
    columns
}

/// The headline: names and values.
fn summary(fitted: &Fitted<'_>, best: &Trained) -> Vec<[String; 2]> {
    let mut rows = vec![["in int8".to_owned(), percent(best.int8)]];
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    if let Some((accuracy, pictures)) = fitted.test {
        add(&format!("on {pictures} others"), percent(accuracy));
    }
    add("RAM", format!("{} KiB", best.takes.ram.div_ceil(1024)));
    add("flash", format!("{} KiB", best.takes.flash.div_ceil(1024)));
    add("a picture, about", Milliseconds(best.takes.seconds).to_string());
    if let Some(joules) = best.takes.joules {
        add("energy, about", format!("{:.2} mJ", joules * 1e3));
    }
    add("this command", duration(fitted.seconds));
    rows
}

/// What accuracy is drawn over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Time,
    Ram,
    Flash,
    Energy,
}

impl Axis {
    const ALL: [Self; 4] = [Self::Time, Self::Ram, Self::Flash, Self::Energy];

    fn name(self) -> &'static str {
        match self {
            Self::Time => "milliseconds, about",
            Self::Ram => "KiB of RAM",
            Self::Flash => "KiB of flash",
            Self::Energy => "millijoules, about",
        }
    }

    fn of(self, takes: &Takes) -> f64 {
        match self {
            Self::Time => takes.seconds * 1e3,
            Self::Ram => takes.ram as f64 / 1024.0,
            Self::Flash => takes.flash as f64 / 1024.0,
            Self::Energy => takes.joules.unwrap_or_default() * 1e3,
        }
    }

    /// Candidates as points, a line through those that no cheaper one is as good as, and what was trained.
    fn draw(self, guesses: &[Guess], trained: &[Trained]) -> anyhow::Result<String> {
        let mut points: Vec<(f64, f64)> =
            guesses.iter().map(|g| (self.of(&g.takes), g.accuracy)).collect();
        let measured: Vec<(f64, f64)> =
            trained.iter().map(|t| (self.of(&t.takes), t.int8)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let all = || points.iter().chain(&measured);
        let most = all().map(|p| p.0).fold(0.0, f64::max);
        let least = all().map(|p| p.1).fold(1.0, f64::min);
        let frame = Frame {
            title: "Share right".into(),
            x_name: self.name(),
            x: 0.0..(most * 1.05).max(1e-6),
            x_labels: 6,
            y: (least * 10.0).floor().clamp(0.0, 9.0) / 10.0..1.0,
            y_text: chart::percent,
            mark: None,
        };
        let front = Series::new(BLUE, front(&points));
        chart::points(&frame, &[Series::new(BLUE, points), Series::new(ORANGE, measured)], &front)
    }
}

/// Of points in rising order, those that none before is as high as.
fn front(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut highest = f64::MIN;
    let is_higher = |(_, y): &&(f64, f64)| {
        let is = *y > highest;
        highest = highest.max(*y);
        is
    };
    points.iter().filter(is_higher).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_what_nothing_cheaper_is_as_good_as() {
        let points = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.7), (5.0, 0.9)];
        assert_eq!(front(&points), [(1.0, 0.5), (2.0, 0.7), (5.0, 0.9)]);
        assert_eq!(front(&[]), []);
    }
}
