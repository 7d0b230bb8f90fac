//! Pictures that are there more than once.

use super::Patient;
use super::similar::Pair;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// How a picture resembles the first one of its group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Kin {
    /// The first one itself.
    First,
    /// The same file.
    Same,
    /// Another file of the same photo.
    Near {
        /// Normalized correlation of the pixels, -1..=1; of the closest in its group.
        correlation: f32,
        /// Whether it is mirrored, as far as it was compared with the first one.
        mirrored: bool,
    },
}

/// A picture of a group.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Member {
    /// Its number among all pictures.
    #[serde(skip)]
    pub(crate) picture: usize,
    pub(crate) file: String,
    pub(crate) class: String,
    pub(crate) part: String,
    #[serde(flatten)]
    pub(crate) kin: Kin,
}

/// Copies of one picture.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Copies {
    pub(crate) pictures: Vec<Member>,
    /// They are filed under several classes.
    pub(crate) across_classes: bool,
    /// They are in several parts.
    pub(crate) across_parts: bool,
    /// All are the same file.
    pub(crate) exact: bool,
}

/// Those whose files have the same bytes.
pub(super) fn exact(patient: &Patient) -> Vec<Copies> {
    named(patient, &groups(patient, &[]), &[])
}

/// The number of the group that each picture is in, which is that of its first picture: those with
/// the same bytes and those in `pairs` are one group.
pub(super) fn groups(patient: &Patient, pairs: &[Pair]) -> Vec<usize> {
    let digests = &patient.pictures.digests;
    let mut parents: Vec<usize> = (0..digests.len()).collect();
    let mut first: HashMap<u64, usize> = HashMap::new();
    let same: Vec<[usize; 2]> =
        digests.iter().enumerate().map(|(i, d)| [*first.entry(*d).or_insert(i), i]).collect();
    for [a, b] in same.into_iter().chain(pairs.iter().map(|pair| pair.pictures)) {
        let (a, b) = (root(&mut parents, a), root(&mut parents, b));
        parents[a.max(b)] = a.min(b);
    }
    (0..parents.len()).map(|i| root(&mut parents, i)).collect()
}

/// The first of the group that `i` is in, by which it is found at once the next time.
fn root(parents: &mut [usize], mut i: usize) -> usize {
    while parents[i] != i {
        parents[i] = parents[parents[i]];
        i = parents[i];
    }
    i
}

/// The groups with more than one picture; those across classes first, then those across parts.
pub(super) fn named(patient: &Patient, groups: &[usize], pairs: &[Pair]) -> Vec<Copies> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    groups.iter().enumerate().for_each(|(i, group)| members.entry(*group).or_default().push(i));
    // By itself how it resembles another one; by both, whether it is mirrored.
    let mut closest: HashMap<usize, f32> = HashMap::new();
    let mut mirrored: HashMap<[usize; 2], bool> = HashMap::new();
    for pair in pairs {
        mirrored.insert(pair.pictures, pair.mirrored);
        for i in pair.pictures {
            let known = closest.entry(i).or_insert(pair.correlation);
            *known = known.max(pair.correlation);
        }
    }
    let digest = |i: usize| patient.pictures.digests[i];
    let mut found: Vec<Copies> = members
        .into_values()
        .filter(|members| members.len() > 1)
        .map(|members| {
            let (first, mut known) = (members[0], Vec::new());
            let copy = |i: usize| {
                let kin = match closest.get(&i) {
                    _ if known.is_empty() => Kin::First,
                    _ if known.contains(&digest(i)) => Kin::Same,
                    Some(correlation) => Kin::Near {
                        correlation: *correlation,
                        mirrored: mirrored.get(&[first, i]).copied().unwrap_or(false),
                    },
                    None => Kin::Same,
                };
                known.push(digest(i));
                let part = patient.parts[patient.part(i)].0.clone();
                let class = patient.class(i).to_owned();
                Member { picture: i, file: patient.file(i), class, part, kin }
            };
            let pictures: Vec<Member> = members.into_iter().map(copy).collect();
            let differs = |what: fn(&Member) -> &String| {
                pictures.iter().any(|copy| what(copy) != what(&pictures[0]))
            };
            Copies {
                across_classes: differs(|copy| &copy.class),
                across_parts: differs(|copy| &copy.part),
                exact: pictures.iter().all(|c| !matches!(c.kin, Kin::Near { .. })),
                pictures,
            }
        })
        .collect();
    found.sort_by_key(|c| (!c.across_classes, !c.across_parts, c.pictures[0].picture));
    found
}
