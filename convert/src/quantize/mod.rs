//! From float ranges to int8: activations asymmetric per tensor, weights symmetric per
//! output channel.

mod calibrate;
mod equalize;
mod measure;
mod mixed;
mod page;
mod post_training;
mod range;
mod rounding;
mod unknown;

#[cfg(feature = "tract")]
pub(crate) use calibrate::logits;
pub(crate) use calibrate::logits_of;
pub use calibrate::set_input;
pub use calibrate::{Activation, CalibrationError, calibrate};
pub(crate) use calibrate::{values, with_session};
pub use equalize::{Outlier, equalize, outliers};
pub use measure::{LayerError, Measured, PictureError, measure};
pub use mixed::sensitivity;
pub(crate) use mixed::{insert_casts, left_in_floats, without_quants};
pub use page::ReportPage;
pub(crate) use page::{decibels, sorted, worst};
pub use post_training::{PostTraining, QuantizeError, Quantized, quantize};
pub use range::{Histogram, Method};
pub(crate) use unknown::describe_means;
pub use unknown::{Rate, Unknown, UnknownError, tell_unknown};
