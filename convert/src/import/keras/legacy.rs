//! `.h5` files of whole models, as Keras 2 saved them: the attribute `model_config` describes
//! the layers, the group `model_weights` has their numbers.
//!
//! Our convolutions have no bias and our batch-norms one ε; both are folded into the
//! statistics: `mean − bias`, `variance + ε − ours`.

use super::super::hdf5::{self, Contents};
use super::super::{Array, ImportError, assemble, checkpoint, identity_batch_norm, imagenet};
use super::config::Object;
use super::functional::Network;
use super::matching::{Matched, Unit, recognize};
use super::weights::tensor;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::resnet::BATCH_NORM_EPSILON;
use artifact::text::AsPlain;
use std::collections::BTreeMap;
use std::path::Path;

/// Imports a model's `.h5` file.
pub(in super::super) fn legacy(path: &Path, bytes: Vec<u8>) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let contents = hdf5::parse(bytes).map_err(unsupported)?;
    let Some(model) = &contents.model_config else {
        return Err(unsupported(
            "weights without the network they belong to; name the folder of the preset, or save \
             the whole model"
                .into(),
        ));
    };
    let model: Object<serde_json::Value> = serde_json::from_str(model)
        .map_err(|source| ImportError::Json { path: path.display().to_string(), source })?;
    let network = Network::new(model).map_err(unsupported)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let matched = recognize(name, &network).map_err(unsupported)?;
    let (found, extra) = tensors(&matched, Weights::new(contents)).map_err(unsupported)?;
    let tensors = assemble(path, &matched.config, found, extra)?;
    let labels = imagenet::labels_of(matched.config.classes);
    checkpoint(path, matched.config, labels, matched.preprocess, tensors)
}

/// Arrays by layer and variable, such as `conv2d_1` and `kernel`.
struct Weights(BTreeMap<(String, String), Array>);

impl Weights {
    /// Those of `model_weights/<layer>/…/<variable>:0`; the optimizer's are left away.
    fn new(contents: Contents) -> Self {
        let key = |path: &str| {
            let (layer, rest) = path.strip_prefix("model_weights/")?.split_once('/')?;
            let variable = rest.rsplit('/').next()?;
            Some((layer.to_owned(), variable.trim_end_matches(":0").to_owned()))
        };
        let arrays = contents.arrays.into_iter();
        Self(arrays.filter_map(|(path, array)| Some((key(&path)?, array))).collect())
    }

    fn take(&mut self, layer: &str, variable: &str) -> Option<Array> {
        self.0.remove(&(layer.to_owned(), variable.to_owned()))
    }
}

type Found = (BTreeMap<String, Tensor>, Vec<String>);

/// The weights under canonical names, and what belongs to no layer.
fn tensors(matched: &Matched<'_>, mut weights: Weights) -> Result<Found, String> {
    let mut found = BTreeMap::new();
    for (name, unit) in &matched.units {
        let conv = &unit.conv.name;
        if let Some(kernel) = weights.take(conv, "kernel") {
            found.insert(format!("{name}.weight"), tensor(kernel));
        }
        let bias = weights.take(conv, "bias");
        batch_norm(name, unit, bias, &mut weights, &mut found)?;
    }
    let head = &matched.head.name;
    for (variable, part) in [("kernel", "weight"), ("bias", "bias")] {
        if let Some(array) = weights.take(head, variable) {
            found.insert(format!("predictions.{part}"), tensor(array));
        }
    }
    let extra = weights.0.into_iter().map(|((layer, variable), array)| {
        format!("`{}` {:?}", format!("{layer}/{variable}").plain(), array.shape)
    });
    Ok((found, extra.collect()))
}

/// The batch-norm after the convolution `name`, with that one's bias in it.
fn batch_norm(
    name: &str,
    unit: &Unit<'_>,
    bias: Option<Array>,
    weights: &mut Weights,
    found: &mut BTreeMap<String, Tensor>,
) -> Result<(), String> {
    let ours = format!("{}_bn", name.trim_end_matches("_conv"));
    let Some((norm, epsilon)) = unit.norm else {
        let filters = found.get(&format!("{name}.weight")).and_then(|w| w.shape.first());
        let beta = bias.map_or_else(|| vec![0.0; filters.copied().unwrap_or(0)], |b| b.values);
        identity_batch_norm(found, &ours, &beta);
        return Ok(());
    };
    let variables = ["gamma", "beta", "moving_mean", "moving_variance"];
    for (variable, part) in variables.into_iter().zip(["gamma", "beta", "mean", "variance"]) {
        // What is missing is listed with all else that does not fit.
        let Some(mut array) = weights.take(&norm.name, variable) else { continue };
        match (part, &bias) {
            ("mean", Some(bias)) => {
                if bias.values.len() != array.values.len() {
                    return Err(unit.conv.misfit("its bias and its batch-norm differ in length"));
                }
                for (mean, bias) in array.values.iter_mut().zip(&bias.values) {
                    *mean -= bias;
                }
            }
            ("variance", _) => {
                for variance in &mut array.values {
                    let sum = f64::from(*variance) + epsilon - BATCH_NORM_EPSILON;
                    // NaN stays, and is found by the checkpoint's check.
                    *variance = if sum < 0.0 { 0.0 } else { sum as f32 };
                }
            }
            _ => {}
        }
        found.insert(format!("{ours}.{part}"), tensor(array));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first layer that does not fit is named, with what was expected.
    #[test]
    fn other_networks_are_refused() {
        let path = "../tests/fixtures/keras_legacy/even.h5";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let contents = hdf5::parse(std::fs::read(path).unwrap()).unwrap();
        let model = contents.model_config.unwrap();
        let error = |from: &str, to: &str| {
            assert!(model.contains(from), "{from} is not in {model}");
            let model: Object<_> = serde_json::from_str(&model.replacen(from, to, 1)).unwrap();
            let matched = Network::new(model).map(|n| recognize(String::new(), &n).map(|_| ()));
            matched.and_then(|m| m).expect_err(to)
        };
        for (from, to, wanted) in [
            ("\"Functional\"", "\"Sequential\"", "a Sequential, expected a functional model"),
            ("\"InputLayer\"", "\"Masking\"", "expected one InputLayer"),
            ("\"Conv2D\"", "\"Conv1D\"", "(Conv1D): expected a Conv2D"),
            ("\"padding\": \"same\"", "\"padding\": \"valid\"", "expected a square filter"),
            ("\"strides\": [2, 2]", "\"strides\": [2, 1]", "expected a square filter"),
            ("\"kernel_size\": [1, 1]", "\"kernel_size\": [3, 3]", "expected 6 filters 1×1"),
            ("\"axis\": -1", "\"axis\": 1", "expected one over channels"),
            ("\"relu\"", "\"gelu\"", "(Activation): expected a ReLU"),
            ("\"Add\"", "\"Concatenate\"", "(Concatenate): expected a ReLU"),
            ("\"pool_size\": [4, 4]", "\"pool_size\": [2, 2]", "over the whole map, [4, 4]"),
            ("\"softmax\"", "\"sigmoid\"", "expected softmax or no activation"),
        ] {
            let text = error(from, to);
            assert!(text.contains(wanted), "{to}: {text}");
        }
    }
}
