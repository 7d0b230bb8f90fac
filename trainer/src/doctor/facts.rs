//! What folders and files tell without a look at what they show.

use super::Patient;
use crate::data::Dataset;
use dataset::is_part_name;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Folders of a class that are named, at most.
const MOST_NAMED: usize = 5;

/// A class.
#[derive(Debug, Serialize)]
pub(crate) struct Class {
    pub(crate) name: String,
    /// Of each part.
    pub(crate) pictures: Vec<usize>,
}

/// A file that is no use.
#[derive(Debug, Serialize)]
pub(crate) struct Damaged {
    /// Below the folder.
    pub(crate) file: String,
    pub(crate) why: String,
}

/// How large pictures are, width and height in pixels.
#[derive(Debug, Serialize)]
pub(crate) struct Sizes {
    /// The one with the fewest pixels.
    pub(crate) smallest: [u32; 2],
    /// The one in the middle.
    pub(crate) median: [u32; 2],
    /// The one with the most.
    pub(crate) largest: [u32; 2],
}

/// What folders and files tell.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    /// Names of the parts.
    pub(crate) parts: Vec<String>,
    pub(crate) classes: Vec<Class>,
    /// `None` without pictures.
    pub(crate) sizes: Option<Sizes>,
    /// Files that are named as pictures and are none.
    pub(crate) damaged: Vec<Damaged>,
    /// Other files that are no pictures.
    pub(crate) strangers: Vec<String>,
    /// Classes that have the name of a part.
    pub(crate) part_names: Vec<String>,
    /// Classes without pictures of their own, and the folders in them.
    pub(crate) deep: Vec<(String, Vec<String>)>,
    /// Classes whose names differ only in case.
    pub(crate) case_twins: Vec<[String; 2]>,
    /// What reading remarks, in sentences.
    pub(crate) remarks: Vec<String>,
}

impl Facts {
    pub(super) fn of(data: &Dataset, patient: &Patient) -> Self {
        let below =
            |path: &Path| path.strip_prefix(&patient.root).unwrap_or(path).display().to_string();
        let (damaged, strangers): (Vec<_>, Vec<_>) =
            data.skipped.iter().partition(|skipped| skipped.is_named_as_picture());
        let mut classes: Vec<Class> = Vec::new();
        for name in &patient.labels {
            classes.push(Class { name: name.clone(), pictures: vec![0; patient.parts.len()] });
        }
        for (part, (_, range)) in patient.parts.iter().enumerate() {
            for label in &patient.pictures.labels[range.clone()] {
                classes[*label as usize].pictures[part] += 1;
            }
        }
        // One called `train` beside `bus` and `plane` is a vehicle.
        let is_vehicle = |name: &str| name.eq_ignore_ascii_case("train");
        let part_names = patient.labels.iter().filter(|n| is_part_name(n) && !is_vehicle(n));
        Self {
            parts: patient.parts.iter().map(|(name, _)| name.clone()).collect(),
            classes,
            sizes: sizes(&patient.pictures.sizes),
            damaged: damaged
                .iter()
                .map(|s| Damaged { file: below(&s.path), why: s.why.clone() })
                .collect(),
            strangers: strangers.iter().map(|skipped| below(&skipped.path)).collect(),
            part_names: part_names.cloned().collect(),
            deep: deep(patient),
            case_twins: data.case_twins().iter().map(|pair| pair.map(String::from)).collect(),
            remarks: data.remarks.clone(),
        }
    }
}

fn sizes(sizes: &[[u32; 2]]) -> Option<Sizes> {
    let mut sorted = sizes.to_vec();
    sorted.sort_by_key(|[width, height]| u64::from(*width) * u64::from(*height));
    let (smallest, largest) = (*sorted.first()?, *sorted.last()?);
    Some(Sizes { smallest, median: sorted[sorted.len() / 2], largest })
}

/// Classes whose pictures all lie in two or more folders inside of theirs: these may be the classes.
fn deep(patient: &Patient) -> Vec<(String, Vec<String>)> {
    let mut inner: Vec<(bool, BTreeSet<String>)> = vec![Default::default(); patient.labels.len()];
    for (i, label) in patient.pictures.labels.iter().enumerate() {
        let Some(origin) = patient.pictures.origin(i).filter(|o| o.record.is_none()) else {
            continue;
        };
        let path = origin.path.strip_prefix(&patient.root).unwrap_or(origin.path);
        let folders = path.parent().into_iter().flat_map(Path::components);
        let names = folders.map(|folder| folder.as_os_str().to_string_lossy().into_owned());
        let class = patient.class(i);
        let (has_own, folders) = &mut inner[*label as usize];
        match names.skip_while(|name| name != class).nth(1) {
            Some(folder) => drop(folders.insert(folder)),
            None => *has_own = true,
        }
    }
    let pairs = patient.labels.iter().zip(inner);
    let is_deep = |(_, (has_own, folders)): &(&String, (bool, BTreeSet<String>))| {
        !has_own && folders.len() >= 2
    };
    let some = |folders: BTreeSet<String>| folders.into_iter().take(MOST_NAMED).collect();
    pairs.filter(is_deep).map(|(label, (_, folders))| (label.clone(), some(folders))).collect()
}
