//! Accuracy of a device file on labelled pictures, through the runtime.

use crate::quantize::set_input;
use artifact::ArtifactError;
use dataset::samples::normalize;
use dataset::{DataError, Pictures};
use runtime::{AlignedBuf, Model, Session, SessionError};

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

/// Runs a device file on every picture.
///
/// # Errors
/// A file that is not a model, and pictures that cannot be read again.
pub fn predict(edge: &[u8], pictures: &Pictures) -> Result<Predictions, AccuracyError> {
    let file = AlignedBuf::from_slice(edge);
    let model = Model::new(&file)?;
    let preprocess = model.meta().preprocess;
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena)?;
    let mut out = Predictions { classes: Vec::new(), logits: Vec::new() };
    for i in 0..pictures.len() {
        set_input(&mut session, &normalize(&pictures.get(i)?, &preprocess));
        let logits = session.run();
        let mut best = (0, f32::NEG_INFINITY);
        for (class, logit) in logits.iter().enumerate() {
            if logit > best.1 {
                best = (class as u32, logit);
            }
            out.logits.push(logit);
        }
        out.classes.push(best.0);
    }
    Ok(out)
}
