//! In place of the comparison with the file that a network was read from: tract is not in this build.

use super::{Check, VerifyError};
use crate::pipeline::Converted;
use network::model::FloatModel;

/// Nothing to compare with.
///
/// # Errors
/// None.
pub fn compare(
    _: &FloatModel,
    _: &Converted,
    _: &[Vec<f32>],
) -> Result<Option<Result<Check, String>>, VerifyError> {
    Ok(None)
}
