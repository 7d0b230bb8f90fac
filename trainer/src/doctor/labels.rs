//! Pictures that are most likely filed under the wrong class.

use super::Patient;
use super::folds::Verdict;
use serde::Serialize;
use std::collections::HashSet;

/// Share of labels that are wrong, before anything is known: ten known data sets had 3.3 % in the mean, good ones
/// less (Northcutt et al., *Pervasive Label Errors in Test Sets*, 2021).
const PRIOR: f32 = 0.02;
/// Least odds that are worth a look: in two classes, 80 %.
const LEAST_ODDS: f32 = 4.0;

/// Other pictures of the own class without which a head cannot know what they look like.
const FEWEST: usize = 4;

/// How many times likelier another class must be, so that rather the label is wrong than the head,
/// which is wrong about so many: by Bayes, `odds · prior ≥ share wrong`.
fn least_odds(verdicts: &[Option<Verdict>]) -> f32 {
    let known = || verdicts.iter().flatten();
    let wrong = known().filter(|verdict| !verdict.agrees()).count() as f32;
    (wrong / known().count().max(1) as f32 / PRIOR).max(LEAST_ODDS)
}

/// A picture whose label is most likely wrong.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Suspect {
    /// Its number among all pictures.
    #[serde(skip)]
    pub(crate) picture: usize,
    pub(crate) file: String,
    pub(crate) class: String,
    /// The class that it looks like.
    pub(crate) looks_like: String,
    /// Probability of that class, 0..=1.
    pub(crate) probability: f32,
    /// How many times likelier that is than its own class.
    pub(crate) odds: f32,
}

/// The likeliest wrong labels first, one of each of the `groups` of copies, and how many pictures have no
/// verdict.
pub(super) fn suspects(
    patient: &Patient,
    verdicts: &[Option<Verdict>],
    groups: &[usize],
) -> (Vec<Suspect>, usize) {
    let counts = patient.pictures.counts(patient.labels.len());
    let is_known = |i: usize| counts[patient.pictures.labels[i] as usize] > FEWEST;
    let judged = verdicts.iter().enumerate().filter_map(|(i, verdict)| Some((i, (*verdict)?)));
    let mut judged: Vec<(usize, Verdict)> = judged.filter(|(i, _)| is_known(*i)).collect();
    let unjudged = verdicts.len() - judged.len();
    let least = least_odds(verdicts).ln();
    judged.retain(|(_, verdict)| verdict.margin >= least);
    judged.sort_by(|a, b| b.1.margin.total_cmp(&a.1.margin));
    let mut named = HashSet::new();
    judged.retain(|(i, _)| named.insert(groups[*i]));
    let suspect = |(i, verdict): (usize, Verdict)| Suspect {
        picture: i,
        file: patient.file(i),
        class: patient.class(i).to_owned(),
        looks_like: patient.labels.get(verdict.other as usize).cloned().unwrap_or_default(),
        probability: verdict.probability,
        odds: verdict.margin.exp(),
    };
    (judged.into_iter().map(suspect).collect(), unjudged)
}
