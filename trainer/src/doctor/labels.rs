//! Pictures that are most likely filed under the wrong class.

use super::Patient;
use super::folds::Verdict;
use serde::Serialize;

/// Another class must be as many times likelier. One label in a hundred is wrong in good data sets (Northcutt et
/// al., *Pervasive Label Errors*, 2021, found 0.2 to 10 %): with these odds, a label is
/// rather wrong than the head, if its probabilities are right.
const LEAST_ODDS: f32 = 10.0;

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

/// The likeliest wrong labels first, and how many pictures have no verdict.
pub(super) fn suspects(
    patient: &Patient,
    verdicts: &[Option<Verdict>],
) -> (Vec<Suspect>, usize) {
    let known = verdicts.iter().enumerate().filter_map(|(i, verdict)| Some((i, (*verdict)?)));
    let mut sure: Vec<(usize, Verdict)> =
        known.filter(|(_, verdict)| verdict.margin >= LEAST_ODDS.ln()).collect();
    sure.sort_by(|a, b| b.1.margin.total_cmp(&a.1.margin));
    let suspect = |(i, verdict): (usize, Verdict)| Suspect {
        picture: i,
        file: patient.file(i),
        class: patient.class(i).to_owned(),
        looks_like: patient.labels.get(verdict.other as usize).cloned().unwrap_or_default(),
        probability: verdict.probability,
        odds: verdict.margin.exp(),
    };
    let unjudged = verdicts.iter().filter(|verdict| verdict.is_none()).count();
    (sure.into_iter().map(suspect).collect(), unjudged)
}
