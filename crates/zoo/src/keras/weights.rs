//! Which tensor an array of a Keras weight file is: `layers/<class>[_N]/vars/<i>`.

use formats::Array;
use formats::hdf5::Contents;
use network::architecture::Architecture;
use network::blueprint::LayerOp;
use network::checkpoint::Tensor;
use std::collections::BTreeMap;

/// Layer names of each Keras class in the order of its numbering.
///
/// Keras sorts layers by their distance from the output, which is our order of execution: a
/// projection stands just before the last convolution of its block.
pub fn layer_order(config: &Architecture) -> BTreeMap<&'static str, Vec<String>> {
    let mut order = LAYER_CLASSES.map(|(class, _)| (class, Vec::new()));
    for layer in config.blueprint().layers {
        let class = match layer.op {
            LayerOp::Conv(_) => 0,
            LayerOp::BatchNorm => 1,
            LayerOp::Dense { .. } => 2,
            _ => continue,
        };
        order[class].1.push(layer.name);
    }
    order.into()
}

/// Keras' classes of layers with weights, each with its parts in the order of its variables.
pub const LAYER_CLASSES: [(&str, &[&str]); 3] = [
    ("conv2d", &["weight"]),
    ("batch_normalization", &["gamma", "beta", "mean", "variance"]),
    // Quantized to int8, a dense layer also has a scale.
    ("dense", &["weight", "bias", "scale"]),
];

/// Files a weight file's arrays under their canonical names; what is no weight of a layer, the
/// optimizer's state apart, goes to `extra`.
pub(super) fn collect(
    contents: Contents,
    order: &BTreeMap<&'static str, Vec<String>>,
    found: &mut BTreeMap<String, Tensor>,
    extra: &mut Vec<String>,
) {
    for (path, array) in contents.arrays {
        if path.starts_with("optimizer") {
            continue;
        }
        let name = canonical(&path, &contents.names, order).or_else(|| canonical_h5(&path, order));
        match name {
            Some(name) => {
                found.insert(name, tensor(array));
            }
            None => extra.push(format!("`{path}` {:?}", array.shape)),
        }
    }
}

/// Turns a head of int8 weights, `round(weight · scale)` per class, into one of floats.
pub(super) fn dequantize_head(found: &mut BTreeMap<String, Tensor>) {
    let (Some(weight), Some(scale)) =
        (found.get("predictions.weight"), found.get("predictions.scale"))
    else {
        return;
    };
    let scale = scale.to_f32();
    let [outputs, inputs] = weight.shape[..] else { return };
    // A scale that does not fit stays, and is listed with all else that does not.
    if outputs != scale.len() {
        return;
    }
    let rows = weight.to_f32();
    let rows = rows.chunks(inputs.max(1)).zip(&scale);
    let values: Vec<f32> = rows.flat_map(|(row, s)| row.iter().map(move |w| w / s)).collect();
    found.insert("predictions.weight".into(), Tensor::from_f32(&[outputs, inputs], &values));
    found.remove("predictions.scale");
}

/// The canonical name of `…/layers/<class>[_N]/vars/<i>`.
fn canonical(
    path: &str,
    names: &BTreeMap<String, String>,
    order: &BTreeMap<&'static str, Vec<String>>,
) -> Option<String> {
    let (group, variable) = path.rsplit_once('/')?;
    // Files of Keras before 3.0 call the same thing otherwise.
    let layer = group.strip_suffix("/vars")?;
    let layer = layer
        .rsplit_once("layers/")
        .or_else(|| layer.rsplit_once("_layer_checkpoint_dependencies/"))?
        .1;
    let (class, parts) =
        LAYER_CLASSES.iter().find(|(class, _)| layer.strip_prefix(class).is_some_and(is_number))?;
    let layers = order.get(class)?;
    let part = parts.get(variable.parse::<usize>().ok()?)?;
    let name = match names.get(group) {
        Some(name) if layers.contains(name) => name,
        // A head has its own name in the file of a task, and another in a Sequential.
        _ if *class == "dense" => layers.first()?,
        Some(_) => return None,
        None => {
            let number = layer.strip_prefix(*class)?.strip_prefix('_');
            layers.get(number.map_or(Ok(0), str::parse).ok()?)?
        }
    };
    Some(format!("{name}.{part}"))
}

/// The canonical name of `model_weights/…/<layer>/<variable>` in an `.h5` file.
fn canonical_h5(path: &str, order: &BTreeMap<&'static str, Vec<String>>) -> Option<String> {
    let path = path.strip_prefix("model_weights/")?.trim_end_matches(":0");
    let (layer, variable) = path.rsplit_once('/')?;
    let layer = layer.rsplit('/').next()?;
    let part = match variable {
        "kernel" => "weight",
        "bias" | "gamma" | "beta" => variable,
        "moving_mean" => "mean",
        "moving_variance" => "variance",
        _ => return None,
    };
    let is_known = order.values().flatten().any(|name| name == layer);
    let layer = if is_known { layer } else { order.get("dense")?.first()? };
    Some(format!("{layer}.{part}"))
}

/// `""` or `_N`.
fn is_number(suffix: &str) -> bool {
    suffix.is_empty()
        || suffix
            .strip_prefix('_')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// HWIO to OHWI, (in, out) to (out, in); vectors stay.
pub(super) fn tensor(array: Array) -> Tensor {
    let Array { shape, values } = array;
    match shape.split_last() {
        Some((&outputs, rest)) if !rest.is_empty() && outputs > 0 => {
            let column = |o: usize| values.iter().skip(o).step_by(outputs).copied();
            let first: Vec<f32> = (0..outputs).flat_map(column).collect();
            Tensor::from_f32(&[&[outputs], rest].concat(), &first)
        }
        _ => Tensor::from_f32(&shape, &values),
    }
}
