//! Values of activations, measured on real pictures with the float model.
//!
//! The pictures run twice: the first pass finds the extremes of each activation and the sums of its
//! channels, the second fills a histogram between the extremes.

use super::range::Histogram;
use artifact::{ArtifactError, Preprocess};
use rayon::prelude::*;
use runtime::{Model, Observation, Session, SessionError};
use std::borrow::Cow;

/// Why calibration cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// A model is not readable.
    #[error("model for calibration: {0}")]
    Artifact(#[from] ArtifactError),
    /// A model does not run.
    #[error("model for calibration: {0}")]
    Session(#[from] SessionError),
    /// Nothing to measure on.
    #[error(
        "no calibration pictures; pass --calibration DIR with a few dozen photos like those it will see"
    )]
    NoPictures,
    /// An activation is not finite on some picture.
    #[error(
        "value {value} is not finite on calibration picture {picture}; the weights are damaged or training diverged"
    )]
    NotFinite {
        /// Index of the value.
        value: usize,
        /// Index of the picture.
        picture: usize,
    },
}

/// What was seen of one activation.
#[derive(Debug, Clone)]
pub struct Activation {
    /// All its values.
    pub histogram: Histogram,
    /// Largest size of a value, for each channel.
    pub largest: Vec<f32>,
    /// Mean, for each channel.
    pub mean: Vec<f32>,
}

/// Measures every value of a float model, in operator order (0 is the input).
///
/// `pictures` are inputs, NHWC, normalized. `progress` is called after each one with the
/// number done and the total.
///
/// # Errors
/// No pictures, an unusable model, or activations that are not finite.
pub fn calibrate(
    float_model: &[u8],
    pictures: &[Vec<f32>],
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Activation>, CalibrationError> {
    /// Of one channel.
    #[derive(Clone, Copy, Default)]
    struct Seen {
        low: f32,
        high: f32,
        sum: f64,
    }
    if pictures.is_empty() {
        return Err(CalibrationError::NoPictures);
    }
    let mut seen: Vec<Vec<Seen>> = Vec::new();
    let mut pixels: Vec<usize> = Vec::new();
    let total = pictures.len() * 2;
    for_each_value(
        float_model,
        pictures,
        |picture, value| {
            let channels = usize::from(value.place.shape.c);
            if seen.len() <= value.index {
                seen.resize(value.index + 1, vec![Seen::default(); channels]);
                pixels.resize(value.index + 1, value.place.shape.pixels());
            }
            let mut finite = true;
            for pixel in value.as_f32().unwrap_or(&[]).chunks_exact(channels) {
                for (seen, &v) in seen[value.index].iter_mut().zip(pixel) {
                    finite &= v.is_finite();
                    seen.low = seen.low.min(v);
                    seen.high = seen.high.max(v);
                    seen.sum += f64::from(v);
                }
            }
            match finite {
                true => Ok(()),
                false => Err(CalibrationError::NotFinite { value: value.index, picture }),
            }
        },
        |done| progress(done, total),
    )?;
    let range = |channels: &Vec<Seen>| {
        let ends = channels.iter().fold((0f32, 0f32), |(l, h), s| (l.min(s.low), h.max(s.high)));
        Histogram::new(ends.0, ends.1)
    };
    let mut histograms: Vec<Histogram> = seen.iter().map(range).collect();
    for_each_value(
        float_model,
        pictures,
        |_, value| {
            let histogram = &mut histograms[value.index];
            value.iter().for_each(|v| histogram.add(v));
            Ok(())
        },
        |done| progress(pictures.len() + done, total),
    )?;
    let activation = |((channels, histogram), pixels): ((Vec<Seen>, Histogram), usize)| {
        let count = (pixels * pictures.len()) as f64;
        Activation {
            histogram,
            largest: channels.iter().map(|s| s.high.max(-s.low)).collect(),
            mean: channels.iter().map(|s| (s.sum / count) as f32).collect(),
        }
    };
    Ok(seen.into_iter().zip(histograms).zip(pixels).map(activation).collect())
}

/// Runs a device file on each of `pictures` and shows every value with the picture's index, then
/// says how many pictures are done.
///
/// # Errors
/// An unusable model, and the first error of `observe`.
pub(super) fn for_each_value(
    edge: &[u8],
    pictures: &[Vec<f32>],
    mut observe: impl FnMut(usize, Observation<'_>) -> Result<(), CalibrationError>,
    mut done: impl FnMut(usize),
) -> Result<(), CalibrationError> {
    with_session(edge, |session| {
        for (i, picture) in pictures.iter().enumerate() {
            set_input(session, picture);
            let mut result = Ok(());
            session.run_observed(|value| {
                if result.is_ok() {
                    result = observe(i, value);
                }
            });
            result?;
            done(i + 1);
        }
        Ok(())
    })
}

/// Calls `run` with a session of a device file.
///
/// # Errors
/// An unusable model, and those of `run`.
pub(crate) fn with_session<R, E: From<CalibrationError>>(
    edge: &[u8],
    run: impl FnOnce(&mut Session<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let file = runtime::AlignedBuf::from_slice(edge);
    let model = Model::new(&file).map_err(CalibrationError::from)?;
    let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).map_err(CalibrationError::from)?;
    run(&mut session)
}

/// The real numbers of each value of `picture`, in the order of the nodes.
pub(crate) fn values(session: &mut Session<'_>, picture: &[f32]) -> Vec<Vec<f32>> {
    let mut values: Vec<Vec<f32>> = Vec::new();
    set_input(session, picture);
    session.run_observed(|value| {
        // Convolutions that take turns show no map between them.
        values.resize(value.index, Vec::new());
        values.push(value.iter().collect());
    });
    values
}

/// Logits of each of `pictures` from a device file, on all threads.
///
/// # Errors
/// An unusable model.
pub(crate) fn logits(edge: &[u8], pictures: &[Vec<f32>]) -> Result<Vec<f32>, CalibrationError> {
    logits_of(edge, pictures.len(), |i, _| Ok(Cow::Borrowed(&pictures[i])))
}

/// Logits of `count` pictures from a device file, on all threads; `picture` makes the `i`th input as
/// the model wants it.
///
/// # Errors
/// An unusable model, and those of `picture`.
pub(crate) fn logits_of<'a, E: From<ArtifactError> + From<SessionError> + Send>(
    edge: &[u8],
    count: usize,
    picture: impl Fn(usize, &Preprocess) -> Result<Cow<'a, [f32]>, E> + Sync,
) -> Result<Vec<f32>, E> {
    let file = runtime::AlignedBuf::from_slice(edge);
    let model = Model::new(&file)?;
    let preprocess = model.meta().preprocess;
    let share = count.div_ceil(rayon::current_num_threads()).max(1);
    let run = |start: usize| -> Result<Vec<f32>, E> {
        let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
        let mut session = Session::new(&model, &mut arena)?;
        let mut logits = Vec::new();
        for i in start..count.min(start + share) {
            set_input(&mut session, &picture(i, &preprocess)?);
            logits.extend(session.run().iter());
        }
        Ok(logits)
    };
    let starts: Vec<usize> = (0..count).step_by(share).collect();
    let parts: Result<Vec<Vec<f32>>, E> = starts.into_par_iter().map(run).collect();
    Ok(parts?.concat())
}

/// Copies a normalized picture into a session.
pub fn set_input(session: &mut Session<'_>, picture: &[f32]) {
    let mut input = session.input_mut();
    for (i, v) in picture.iter().enumerate() {
        input.set(i, *v);
    }
}
