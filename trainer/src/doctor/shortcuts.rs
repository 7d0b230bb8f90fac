//! Whether classes are told by the edges of their photos, where seldom is what they are about: frames, captions, dates,
//! a background that only one class has. A network learns these first, and is wrong wherever they are missing.
//!
//! The middle of some pictures is hidden; where heads tell classes by the rest about as well as by the whole, the edges
//! tell them. Small pictures, which things fill to the edge, say nothing.

use super::Patient;
use crate::builtin::ICON_SIDE;
use crate::data::Pictures;
use crate::fit::{ask, features};
use artifact::Preprocess;
use burn::tensor::Device;
use network::checkpoint::Checkpoint;
use page::progress::Counter;
use serde::Serialize;

/// Pictures that are looked at, at most.
const MOST: usize = 400;
/// What is left of a picture at each side: an eighth, so that more than half is hidden.
const EDGE: usize = 8;
/// As many times as many mistakes by the edges as by the whole are about as many, and that share more. By a frame of 2 %
/// of the width that cats have and dogs have not, they are 1.3 times; of sound cats and dogs, 11 times.
const ABOUT: (f64, f64) = (1.5, 0.005);
/// How many deviations of chance the edges must tell more than nothing.
const SURE: f64 = 3.0;

/// What the edges of photos tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Edges {
    /// Share right by the whole picture, and by its edges alone, of pictures that a head was not fitted to, 0..=1.
    pub(crate) whole: f64,
    pub(crate) edges: f64,
    /// Pictures.
    pub(crate) pictures: usize,
    /// Whether they tell about as much as the whole.
    pub(crate) tell: bool,
}

impl Edges {
    fn new([whole, edges]: [f64; 2], pictures: usize, classes: usize) -> Self {
        let chance = 1.0 / classes.max(1) as f64;
        let deviation = (chance * (1.0 - chance) / pictures.max(1) as f64).sqrt();
        let is_sure = edges - chance >= SURE * deviation;
        let tell = is_sure && 1.0 - edges <= ABOUT.0 * (1.0 - whole) + ABOUT.1;
        Self { whole, edges, pictures, tell }
    }
}

/// Hides the middle of a picture `[height, width, channels]` behind its mean.
fn hide_middle(pixels: &mut [u8], p: &Preprocess) {
    let (height, width, channels) = (usize::from(p.height), usize::from(p.width), p.channels());
    let count = (height * width).max(1) as u64;
    for channel in 0..channels {
        let of_channel = pixels.iter().skip(channel).step_by(channels);
        let mean = (of_channel.map(|v| u64::from(*v)).sum::<u64>() / count) as u8;
        for y in height / EDGE..height - height / EDGE {
            for x in width / EDGE..width - width / EDGE {
                pixels[(y * width + x) * channels + channel] = mean;
            }
        }
    }
}

/// What the edges of the photos tell; `None` of small pictures.
///
/// # Errors
/// Pictures that cannot be read again.
pub(super) fn edges(
    checkpoint: &Checkpoint,
    patient: &Patient,
    seed: u64,
    device: &Device,
) -> anyhow::Result<Option<Edges>> {
    let p = checkpoint.preprocess;
    if usize::from(p.width) <= ICON_SIDE {
        return Ok(None);
    }
    let counter = Counter::new("looking at the edges");
    let pictures = patient.pictures.select(&patient.pictures.stratified(MOST, seed));
    let mut hidden = Pictures::new(p);
    for (i, label) in pictures.labels.iter().enumerate() {
        let mut pixels = pictures.get(i)?.into_owned();
        hide_middle(&mut pixels, &p);
        hidden.push(&pixels, *label, 0);
    }
    let mut right = [0.0; 2];
    for (right, pictures) in right.iter_mut().zip([&pictures, &hidden]) {
        let seen = features(checkpoint, pictures, device)?;
        (*right, _) = ask(&seen, &pictures.labels, patient.labels.len(), seed);
    }
    drop(counter);
    Ok(Some(Edges::new(right, pictures.len(), patient.labels.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_tell_where_they_are_as_good_as_the_whole() {
        // Of frames, of frames on mixed pictures, of sound photos, of what nothing tells.
        for (shares, pictures, tell) in [
            ([0.967, 0.958], 120, true),
            ([0.817, 0.933], 120, true),
            ([0.98, 0.785], 400, false),
            ([0.5, 0.53], 100, false),
        ] {
            assert_eq!(Edges::new(shares, pictures, 2).tell, tell, "{shares:?}");
        }
    }

    #[test]
    fn the_middle_is_hidden() {
        let p = Preprocess::raw(16, 16);
        let mut pixels: Vec<u8> = (0..16 * 16).flat_map(|i| [(i % 16) as u8, 9, 200]).collect();
        let before = pixels.clone();
        hide_middle(&mut pixels, &p);
        let changed = |i: &usize| pixels[3 * i] != before[3 * i];
        assert_eq!(&pixels[(8 * 16 + 8) * 3..][..3], &[7, 9, 200]);
        // All but the column that is the mean.
        assert_eq!((0..16 * 16).filter(changed).count(), 12 * 11);
    }
}
