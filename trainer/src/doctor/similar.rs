//! Near copies: the same photo resized, compressed again, mirrored, cropped a little, brighter or
//! darker.
//!
//! 1. *Candidates* are the nearest of each picture by two signatures that hardly change then: the
//!    network's features (projected at random onto [`WIDTH`] numbers, Johnson and Lindenstrauss 1984), and the low
//!    frequencies of a small grey copy, those that a mirror turns around without their sign.
//! 2. Of these, a pair is *registered* at 16×16 pixels ([`register`](super::register)). It must agree well,
//!    and at least twice as well as each of both with its other candidates: shirts are all alike, and so
//!    are frames of one scene, but copies are more alike than that.
//! 3. *Decided* is at 64×64 pixels of the photos themselves, at 32×32 of tiny ones: pixels, edges and faint
//!    differences agree, and one frame lies inside of the other. What has moved before a plain ground agrees, too, but its frames do not.
//!
//! The thresholds lie between what was measured on 500 pictures of clothes of 28 pixels, 400 of CIFAR-10 and 800
//! photos. Copies of all those kinds agree by 0.98 and more in pixels and 0.89 in edges, and reach beyond each
//! other by 1 % at most. In faint differences, copies of photos agree by 0.86, of tiny pictures by
//! 0.726, while of different clothes with one outline none does by more than 0.721.
//!
//! `n` pictures cost 1 KB and 5 KB of features each, [`neighbors`]' products, and about
//! [`MOST`] registrations of 0.2 ms each.

use super::neighbors;
use super::register::{Agreement, Grey, Pose, agreement, correlation, register};
use super::seen::Seen;
use crate::builtin::ICON_SIDE;
use crate::data::Pictures;
use artifact::{Fit, Preprocess};
use network::random::{Rng, fnv1a};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Side in pixels of the grey copies that all pictures have.
pub(super) const SIDE: usize = 32;
/// Side of those that decide about photos.
const PHOTO_SIDE: usize = 64;
/// Low frequencies along each axis.
const FREQUENCIES: usize = 8;
/// Numbers of a projected signature.
const WIDTH: usize = 64;
/// Candidates of each picture by each signature.
const MOST: usize = 10;
/// The candidate, by its rank, that the others of a picture are compared with: so many copies of one
/// photo may be there.
const RANK: usize = 10;
/// A copy is at most this share of that away.
const CLOSER: f32 = 0.5;
/// Disagreement, 1 - correlation, of copies at 16×16 pixels, at most.
const ROUGH: f32 = 0.08;
/// Agreement of copies of photos, and of tiny pictures, in which compression leaves less of faint
/// differences.
const LEAST_OF_PHOTOS: Agreement = Agreement { pixels: 0.98, edges: 0.88, texture: 0.8 };
const LEAST_OF_TINY: Agreement = Agreement { texture: 0.725, ..LEAST_OF_PHOTOS };
/// Share of the side that the frames of copies reach beyond each other, at most.
const MOST_EXCESS: f64 = 0.015;
/// Steps of a registration, at 16×16 pixels and after that.
const STEPS: [usize; 2] = [8, 8];

/// Two pictures of the same photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    /// Their numbers, the smaller first.
    pub(super) pictures: [usize; 2],
    /// Normalized correlation of their pixels.
    pub(super) correlation: f32,
    /// Whether one is mirrored.
    pub(super) mirrored: bool,
}

/// A pair at 16×16 pixels.
#[derive(Debug, Clone, Copy)]
struct Rough {
    disagreement: f32,
    pose: Pose,
    mirrored: bool,
}

/// All pairs of pictures that show the same photo, but for those with the same bytes.
pub(super) fn pairs(seen: &Seen, pictures: &Pictures) -> Vec<Pair> {
    let mut known = HashSet::new();
    let fresh = |i: &usize| known.insert(pictures.digests[*i]);
    let all: Vec<usize> = (0..pictures.len()).filter(fresh).collect();
    let greys: Vec<Grey> = all
        .par_iter()
        .map(|i| Grey::new(SIDE, &seen.greys[i * SIDE * SIDE..][..SIDE * SIDE]))
        .collect();
    let small: Vec<[Grey; 2]> = greys
        .par_iter()
        .map(|grey| {
            let half = grey.halved();
            let mirrored = half.mirrored();
            [half, mirrored]
        })
        .collect();
    let rough: Vec<([usize; 2], Rough)> = candidates(seen, &all, &greys)
        .into_par_iter()
        .map(|[a, b]| ([a, b], roughly(&small[a][0], &small[b])))
        .collect();
    let mut by_picture: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    for ([a, b], rough) in &rough {
        by_picture.entry(*a).or_default().push(rough.disagreement);
        by_picture.entry(*b).or_default().push(rough.disagreement);
    }
    // Without as many others there is nothing to compare with.
    let usual: HashMap<usize, f32> = by_picture
        .into_iter()
        .map(|(i, mut all)| {
            all.sort_by(f32::total_cmp);
            (i, all.get(RANK).copied().unwrap_or(f32::INFINITY))
        })
        .collect();
    let is_close = |([a, b], rough): &([usize; 2], Rough)| {
        let others = usual[a].min(usual[b]);
        rough.disagreement <= ROUGH.min(CLOSER * others)
    };
    let close: Vec<_> = rough.into_iter().filter(is_close).collect();
    let mut shown: BTreeSet<usize> = BTreeSet::new();
    close.iter().for_each(|([a, b], _)| shown.extend([*a, *b]));
    let shown: HashMap<usize, Grey> =
        shown.into_par_iter().filter_map(|i| Some((i, photo(pictures, all[i])?))).collect();
    close
        .par_iter()
        .filter_map(|([a, b], rough)| {
            // Small ones are decided as the network saw them, and so is what they may be copies of.
            let [a_shown, b_shown] = match (shown.get(a), shown.get(b)) {
                (Some(a), Some(b)) => [a, b],
                _ => [&greys[*a], &greys[*b]],
            };
            let correlation = decide(a_shown, b_shown, rough)?;
            let pictures = [all[*a], all[*b]];
            Some(Pair { pictures, correlation, mirrored: rough.mirrored })
        })
        .collect()
}

/// Pairs of places in `all`, the smaller first.
fn candidates(seen: &Seen, all: &[usize], greys: &[Grey]) -> Vec<[usize; 2]> {
    let features = projected(seen, all);
    let frequencies: Vec<Vec<f32>> = greys.par_iter().map(frequencies).collect();
    let mut found = BTreeSet::new();
    for vectors in [features, frequencies.concat()] {
        let width = vectors.len() / all.len().max(1);
        for (i, near) in neighbors::nearest(&vectors, width, MOST).into_iter().enumerate() {
            found.extend(near.into_iter().map(|j| [i.min(j as usize), i.max(j as usize)]));
        }
    }
    found.into_iter().collect()
}

/// Features, projected and of length 1, `[pictures, WIDTH]`.
fn projected(seen: &Seen, all: &[usize]) -> Vec<f32> {
    let mut rng = Rng::keyed(&[fnv1a(b"projection")]);
    let rows: Vec<Vec<f32>> =
        (0..WIDTH).map(|_| (0..seen.width).map(|_| rng.normal() as f32).collect()).collect();
    let project =
        |i: &usize| unit(rows.iter().map(|row| neighbors::product(row, seen.of(*i))).collect());
    all.par_iter().flat_map_iter(project).collect()
}

/// The low frequencies of a picture but the mean, of length 1. A mirror changes the sign of odd ones along
/// rows: these are without.
fn frequencies(grey: &Grey) -> Vec<f32> {
    let side = grey.side;
    let wave = |frequency: usize, at: usize| {
        let angle = core::f32::consts::PI * frequency as f32 * (at as f32 + 0.5);
        (angle / side as f32).cos()
    };
    // Along rows, then along columns.
    let rows: Vec<[f32; FREQUENCIES]> = grey
        .pixels
        .chunks_exact(side)
        .map(|row| {
            core::array::from_fn(|u| row.iter().enumerate().map(|(x, p)| p * wave(u, x)).sum())
        })
        .collect();
    let at = |v: usize, u: usize| -> f32 {
        let sum: f32 = rows.iter().enumerate().map(|(y, row)| row[u] * wave(v, y)).sum();
        if u % 2 == 1 { sum.abs() } else { sum }
    };
    unit((1..FREQUENCIES * FREQUENCIES).map(|i| at(i / FREQUENCIES, i % FREQUENCIES)).collect())
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = neighbors::product(&vector, &vector).sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|v| *v /= length);
    vector
}

/// `b` over `a`, as it is or mirrored, whichever agrees better.
fn roughly(a: &Grey, b: &[Grey; 2]) -> Rough {
    let [plain, mirrored] = [0, 1].map(|i| {
        let pose = register(a, &b[i], Pose::SAME, STEPS[0]);
        Rough { disagreement: 1.0 - correlation(a, &b[i], &pose), pose, mirrored: i == 1 }
    });
    if mirrored.disagreement < plain.disagreement { mirrored } else { plain }
}

/// The correlation of two pictures of the same photo; `None` of others.
fn decide(a: &Grey, b: &Grey, rough: &Rough) -> Option<f32> {
    let b = if rough.mirrored { &b.mirrored() } else { b };
    let start = rough.pose.enlarged(a.side as f64 / (SIDE / 2) as f64);
    let pose = register(a, b, start, STEPS[1]);
    let found = agreement(a, b, &pose);
    let least = if a.side == PHOTO_SIDE { LEAST_OF_PHOTOS } else { LEAST_OF_TINY };
    let agrees = found.pixels >= least.pixels
        && found.edges >= least.edges
        && found.texture >= least.texture;
    (agrees && pose.excess(a.side) <= MOST_EXCESS).then_some(found.pixels)
}

/// All of a photo that is larger than what every picture has in memory, `[PHOTO_SIDE, PHOTO_SIDE]`.
fn photo(pictures: &Pictures, i: usize) -> Option<Grey> {
    let origin = pictures.origin(i).filter(|origin| origin.record.is_none())?;
    if pictures.sizes[i].iter().all(|side| *side as usize <= ICON_SIDE) {
        return None;
    }
    let side = PHOTO_SIDE as u16;
    let p = Preprocess {
        grey: true,
        fit: Fit::Stretch,
        antialias: true,
        ..Preprocess::raw(side, side)
    };
    let picture = picture::open(origin.path).ok()?;
    Some(Grey::new(PHOTO_SIDE, &dataset::fit(picture.view().ok()?, &p).ok()?))
}
