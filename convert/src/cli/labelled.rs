//! Accuracy on pictures with labels, `--eval`.

use crate::accuracy::{Predictions, predict};
use crate::pipeline::{Converted, Quantize};
use anyhow::Result;
use artifact::text::AsPlain;
use core::cell::OnceCell;
use dataset::CacheSize;
use network::model::FloatModel;
use page::progress::Counter;
use page::terminal::{Output, Role};
use serde::Serialize;
use std::path::Path;

/// Labelled pictures to measure on.
pub(super) struct Labelled {
    data: dataset::Labelled,
    /// What the float network says of them, once it was asked.
    float: OnceCell<Predictions>,
}

impl Labelled {
    pub(super) fn read(dir: &Path, model: &FloatModel, out: &mut Output<'_>) -> Result<Self> {
        let counter = Counter::new("reading pictures");
        let watch = |done, total| counter.show(done, total);
        let data = dataset::Labelled::read(dir, &model.into(), None, CacheSize::Auto, &watch)?;
        drop(counter);
        for note in &data.notes {
            out.note(Role::Warning, &note.plain().to_string())?;
        }
        Ok(Self { data, float: OnceCell::new() })
    }

    pub(super) fn measure(&self, converted: &Converted) -> Result<Accuracy> {
        let pictures = &self.data.pictures;
        let _counter = Counter::new(format!("measuring on {} pictures", pictures.len()));
        let device = predict(&converted.emitted.bytes, pictures)?;
        // Of a file in f32, there is nothing else to compare with.
        let float = match (self.float.get(), converted.quantize) {
            (Some(float), _) => float,
            (None, Quantize::None) => &device,
            (None, _) => {
                let float = predict(&converted.float.bytes, pictures)?;
                self.float.get_or_init(|| float)
            }
        };
        let share = |p: &Predictions| p.accuracy(&pictures.labels);
        let agreement = device.agreement(float);
        Ok(Accuracy { float: share(float), device: share(&device), agreement })
    }
}

/// Shares of pictures, 0..=1.
#[derive(Serialize)]
pub(super) struct Accuracy {
    /// Right in floats.
    float: f64,
    /// Right on the device.
    pub(super) device: f64,
    /// Of the same class in both.
    agreement: f64,
}

impl Accuracy {
    /// Points that the device loses.
    pub(super) fn drop(&self) -> f64 {
        (self.float - self.device) * 100.0
    }

    pub(super) fn text(&self, labelled: &Labelled, format: &str) -> String {
        format!(
            "accuracy on {}: f32 {:.2} %, {format} {:.2} % ({:+.2} points), same class on {:.2} %; {}",
            labelled.data.which,
            self.float * 100.0,
            self.device * 100.0,
            (self.device - self.float) * 100.0,
            self.agreement * 100.0,
            dataset::margin(self.device, labelled.data.pictures.len()),
        )
    }
}
