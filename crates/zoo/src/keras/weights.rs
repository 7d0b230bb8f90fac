//! Which tensor an array of a Keras weight file is: `layers/<class>[_N]/vars/<i>`.

use super::backbone::Backbone;
use super::names::{Naming, hub_group};
use formats::Array;
use formats::hdf5::Contents;
use network::architecture::Architecture;
use network::blueprint::{HEAD, LayerOp};
use network::checkpoint::Tensor;
use std::collections::BTreeMap;

/// Layer names of a ResNet of each Keras class in the order of its numbering.
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
pub const LAYER_CLASSES: [(&str, &[&str]); 3] =
    [("conv2d", PLAIN), ("batch_normalization", NORM), ("dense", PLAIN)];

/// Parts of a layer with a kernel; quantized to int8, a dense layer also has a scale.
const PLAIN: &[&str] = &["weight", "bias", "scale"];
const NORM: &[&str] = &["gamma", "beta", "mean", "variance"];

/// Where Keras keeps a layer.
#[derive(Debug)]
struct Place {
    /// The group behind the last `layers/`.
    group: String,
    name: String,
    ours: String,
    parts: &'static [&'static str],
}

/// Where Keras keeps the layers of a network, and which shapes their tensors have here.
#[derive(Debug)]
pub(super) struct Places {
    layers: Vec<Place>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Places {
    /// Those of a KerasHub backbone and its classifier.
    pub(super) fn of(config: &Architecture, backbone: &Backbone) -> Self {
        let blueprint = config.blueprint();
        let (mut layers, mut numbers) = (Vec::new(), BTreeMap::<&str, usize>::new());
        for layer in &blueprint.layers {
            let (class, parts) = match layer.op {
                LayerOp::Conv(conv) if conv.groups > 1 => ("depthwise_conv2d", PLAIN),
                LayerOp::Conv(_) => ("conv2d", PLAIN),
                LayerOp::BatchNorm => ("batch_normalization", NORM),
                LayerOp::Dense { .. } if layer.name == HEAD => ("dense", PLAIN),
                // Gates and what comes before the head.
                LayerOp::Dense { .. } => ("conv2d", PLAIN),
                _ => continue,
            };
            let ours = layer.name.clone();
            let in_block = match backbone.naming {
                Some(Naming::HubMobileNet) => hub_group(&ours),
                _ => None,
            };
            let group = in_block.unwrap_or_else(|| {
                // The classifier has a file of its own, and counts anew.
                let number = numbers.entry(class).or_default();
                *number += usize::from(ours != HIDDEN);
                if ours == HIDDEN || *number == 1 {
                    class.into()
                } else {
                    format!("{class}_{}", *number - 1)
                }
            });
            let place = |n: usize| {
                backbone.places.get(n).or(backbone.places.last()).copied().unwrap_or_default()
            };
            let name = backbone.naming.and_then(|naming| naming.name(&ours, place));
            layers.push(Place { group, name: name.unwrap_or_else(|| ours.clone()), ours, parts });
        }
        Self { layers, shapes: blueprint.tensors().collect() }
    }

    /// The canonical name of `…/layers/<group>/vars/<i>`.
    fn canonical(&self, path: &str, names: &BTreeMap<String, String>) -> Option<String> {
        let (group, variable) = path.rsplit_once('/')?;
        // Files of Keras before 3.0 call the same thing otherwise.
        let layer = group.strip_suffix("/vars")?;
        let layer = layer
            .rsplit_once("layers/")
            .or_else(|| layer.rsplit_once("_layer_checkpoint_dependencies/"))?
            .1;
        let by_group = || self.layers.iter().find(|place| place.group == layer);
        let place = match names.get(group) {
            // A head has its own name in the file of a task, and another in a Sequential.
            Some(name) => self.named(name).or_else(|| by_group().filter(|p| p.ours == HEAD))?,
            None => by_group()?,
        };
        let part = place.parts.get(variable.parse::<usize>().ok()?)?;
        Some(format!("{}.{part}", place.ours))
    }

    /// The canonical name of `model_weights/…/<layer>/<variable>` in an `.h5` file.
    fn canonical_h5(&self, path: &str) -> Option<String> {
        let path = path.strip_prefix("model_weights/")?.trim_end_matches(":0");
        let (layer, variable) = path.rsplit_once('/')?;
        let part = match variable {
            "kernel" | "depthwise_kernel" => "weight",
            "bias" | "gamma" | "beta" => variable,
            "moving_mean" => "mean",
            "moving_variance" => "variance",
            _ => return None,
        };
        let layer = layer.rsplit('/').next()?;
        let ours = self.named(layer).map_or(HEAD, |place| &place.ours);
        Some(format!("{ours}.{part}"))
    }

    fn named(&self, name: &str) -> Option<&Place> {
        self.layers.iter().find(|place| place.name == name)
    }
}

/// The layer before the head.
const HIDDEN: &str = "hidden";

/// Files a weight file's arrays under their canonical names; what is no weight of a layer, the
/// optimizer's state apart, goes to `extra`.
pub(super) fn collect(
    contents: Contents,
    places: &Places,
    found: &mut BTreeMap<String, Tensor>,
    extra: &mut Vec<String>,
) {
    for (path, array) in contents.arrays {
        if path.starts_with("optimizer") {
            continue;
        }
        let name = places.canonical(&path, &contents.names).or_else(|| places.canonical_h5(&path));
        match name {
            Some(name) => {
                let wanted = places.shapes.get(&name).map_or(&[][..], Vec::as_slice);
                found.insert(name, tensor(array, wanted));
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

/// An array as the tensor of a `wanted` shape, where it has the numbers for that: HWIO to OHWI, the
/// depthwise HWCM to OHW1, (in, out) to (out, in); vectors stay.
pub(super) fn tensor(array: Array, wanted: &[usize]) -> Tensor {
    let Array { mut shape, values } = array;
    match (shape.as_slice(), wanted) {
        (&[1, 1, inputs, outputs], [_, _]) => shape = vec![inputs, outputs],
        (&[rows, columns, c, m], &[outputs, _, _, 1]) if c > 1 && c * m == outputs => {
            shape = vec![rows, columns, 1, outputs];
        }
        _ => {}
    }
    match shape.split_last() {
        Some((&outputs, rest)) if !rest.is_empty() && outputs > 0 => {
            let column = |o: usize| values.iter().skip(o).step_by(outputs).copied();
            let first: Vec<f32> = (0..outputs).flat_map(column).collect();
            Tensor::from_f32(&[&[outputs], rest].concat(), &first)
        }
        _ => Tensor::from_f32(&shape, &values),
    }
}
