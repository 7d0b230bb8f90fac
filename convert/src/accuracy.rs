//! Accuracy of a device file on labelled pictures, through the runtime.

use crate::quantize::logits_of;
use artifact::ArtifactError;
use dataset::samples::normalize;
use dataset::{DataError, Pictures};
use runtime::SessionError;

/// What a model says of each picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Class with the largest logit, per picture; ties go to the lower index.
    pub classes: Vec<u32>,
    /// Logits, `[N, classes]`.
    pub logits: Vec<f32>,
}

impl Predictions {
    /// Share of `labels` predicted right, 0..=1.
    pub fn accuracy(&self, labels: &[u32]) -> f64 {
        let right = self.classes.iter().zip(labels).filter(|(a, b)| a == b).count();
        right as f64 / labels.len().max(1) as f64
    }

    /// Share of pictures on which two models name the same class, 0..=1.
    pub fn agreement(&self, other: &Self) -> f64 {
        self.accuracy(&other.classes)
    }
}

/// Why a device file cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccuracyError {
    /// The file is not readable.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// It does not run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A picture is not there any more.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Runs a device file on every picture, on all threads.
///
/// # Errors
/// A file that is not a model, and pictures that cannot be read again.
pub fn predict(edge: &[u8], pictures: &Pictures) -> Result<Predictions, AccuracyError> {
    let logits = logits_of(edge, pictures.len(), |i, preprocess| {
        Ok::<_, AccuracyError>(normalize(&pictures.get(i)?, preprocess).into())
    })?;
    let best = |logits: &[f32]| {
        let larger = |best: (u32, f32), (class, &logit): (usize, &f32)| {
            if logit > best.1 { (class as u32, logit) } else { best }
        };
        logits.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0
    };
    let classes = logits.len() / pictures.len().max(1);
    Ok(Predictions { classes: logits.chunks(classes.max(1)).map(best).collect(), logits })
}
