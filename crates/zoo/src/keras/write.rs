//! Writes KerasHub preset directories: what `save_to_preset` would write of the same classifier,
//! so that `keras_hub.models.ImageClassifier.from_preset` opens it.

use super::weights::{LAYER_CLASSES, layer_order};
use artifact::{Fit, Interpolation, Preprocess};
use hdf5_pure::{AttrValue, FileBuilder};
use network::architecture::Architecture;
use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
use network::blueprint::Pooling;
use network::checkpoint::{Checkpoint, Tensor};
use network::padding::ConvPadding;
use serde_json::{Value, json};
use std::path::Path;

/// Versions whose layout is written.
const KERAS_VERSION: &str = "3.15.1";
const KERAS_HUB_VERSION: &str = "0.32.0";

/// Why a checkpoint cannot be written as a preset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// KerasHub has no such network.
    #[error("{name}: {what}, which KerasHub's ResNetBackbone cannot express")]
    Architecture {
        /// Architecture.
        name: String,
        /// What is different.
        what: &'static str,
    },
    /// Something is there already.
    #[error("{path}: exists already; name another folder")]
    Exists {
        /// Folder.
        path: String,
    },
    /// Writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Folder.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The weight file cannot be built.
    #[error("weight file: {0}")]
    Hdf5(#[from] hdf5_pure::Error),
}

/// Writes a preset directory, whole or not at all; `dir` must not exist.
///
/// # Errors
/// Networks that KerasHub cannot express, an existing `dir`, and what the file system says.
pub fn to_preset(checkpoint: &Checkpoint, dir: &Path) -> Result<(), PresetError> {
    let config = &checkpoint.config;
    let architecture = |what| PresetError::Architecture { name: config.name.clone(), what };
    let resnet =
        config.family.resnet().ok_or_else(|| architecture("a network of another family"))?;
    if resnet.stem_stride != 2 || !resnet.stem_pool {
        return Err(architecture("the stem keeps the picture's size"));
    }
    if resnet.padding != ConvPadding::Symmetric {
        return Err(architecture("strided convolutions are padded as TensorFlow pads"));
    }
    if resnet.stackwise_num_filters[0] != 64 {
        return Err(architecture("the first stack is not 64 wide"));
    }
    if resnet.expansion != 4 || resnet.bottleneck_stride != BottleneckStride::Second {
        return Err(architecture("bottlenecks of another width, or with another stride"));
    }
    if resnet.block_type == BlockType::BasicBlock
        && config.blueprint().layer("stack0_block0_0_conv").is_some()
    {
        return Err(architecture("the first basic block projects"));
    }
    let path = dir.display().to_string();
    if dir.exists() {
        return Err(PresetError::Exists { path });
    }
    let io = |source| PresetError::Io { path: path.clone(), source };
    let backbone = backbone(resnet, config.channels);
    let converter = converter(&checkpoint.preprocess);
    let preprocessor = preprocessor(&converter);
    let task = task(config, &backbone, &preprocessor);
    let metadata = json!({
        "keras_version": KERAS_VERSION,
        "keras_hub_version": KERAS_HUB_VERSION,
        "parameter_count": parameters(checkpoint),
        "tasks": ["ImageClassifier"],
    });
    network::file::make_folder(dir, io, |folder| {
        for (file, value) in [
            ("config.json", &backbone),
            ("image_converter.json", &converter),
            ("preprocessor.json", &preprocessor),
            ("task.json", &task),
            ("metadata.json", &metadata),
        ] {
            std::fs::write(folder.join(file), format!("{value:#}")).map_err(io)?;
        }
        let (whole, head) = (&["conv2d", "batch_normalization"][..], &["dense"][..]);
        for (file, classes) in [("model.weights.h5", whole), ("task.weights.h5", head)] {
            let bytes = weights(checkpoint, classes)?;
            std::fs::write(folder.join(file), bytes).map_err(io)?;
        }
        Ok(())
    })
}

/// An object as Keras writes it down.
fn object(module: &str, class: &str, config: Value) -> Value {
    json!({
        "module": format!("keras_hub.src.models.resnet.{module}"),
        "class_name": class,
        "config": config,
        "registered_name": format!("keras_hub>{class}"),
    })
}

fn dtype() -> Value {
    json!({
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": "float32"},
        "registered_name": null,
    })
}

fn backbone(c: &ResNetConfig, channels: usize) -> Value {
    let config = json!({
        "name": "res_net_backbone",
        "trainable": true,
        "dtype": dtype(),
        "input_conv_filters": c.input_conv_filters,
        "input_conv_kernel_sizes": c.input_conv_kernel_sizes,
        "stackwise_num_filters": c.stackwise_num_filters,
        "stackwise_num_blocks": c.stackwise_num_blocks,
        "stackwise_num_strides": c.stackwise_num_strides,
        "block_type": c.block_type,
        "use_pre_activation": c.use_pre_activation,
        "image_shape": [null, null, channels],
    });
    object("resnet_backbone", "ResNetBackbone", config)
}

fn converter(p: &Preprocess) -> Value {
    let config = json!({
        "name": "res_net_image_converter",
        "trainable": true,
        "dtype": dtype(),
        "image_size": [p.height, p.width],
        "scale": p.scale,
        "offset": p.offset,
        "interpolation": match p.interpolation {
            Interpolation::Nearest => "nearest",
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
            Interpolation::Lanczos3 => "lanczos3",
            Interpolation::Lanczos5 => "lanczos5",
        },
        "antialias": p.antialias,
        "crop_to_aspect_ratio": p.fit == Fit::Crop,
        "pad_to_aspect_ratio": matches!(p.fit, Fit::Pad(_)),
        "bounding_box_format": "yxyx",
    });
    object("resnet_image_converter", "ResNetImageConverter", config)
}

fn preprocessor(converter: &Value) -> Value {
    let config = json!({
        "name": "res_net_image_classifier_preprocessor",
        "trainable": true,
        "dtype": dtype(),
        "image_converter": converter,
        "config_file": "preprocessor.json",
    });
    let module = "resnet_image_classifier_preprocessor";
    object(module, "ResNetImageClassifierPreprocessor", config)
}

fn task(c: &Architecture, backbone: &Value, preprocessor: &Value) -> Value {
    let config = json!({
        "backbone": backbone,
        "preprocessor": preprocessor,
        "name": "res_net_image_classifier",
        "num_classes": c.classes,
        "pooling": match c.pooling {
            Pooling::Avg => "avg",
            Pooling::Max => "max",
        },
        "activation": null,
        "dropout": c.dropout,
    });
    object("resnet_image_classifier", "ResNetImageClassifier", config)
}

/// Numbers of the backbone, which is what Keras counts.
fn parameters(checkpoint: &Checkpoint) -> usize {
    let backbone = checkpoint.tensors.iter().filter(|(name, _)| !name.starts_with("predictions."));
    backbone.map(|(_, tensor)| tensor.shape.iter().product::<usize>()).sum()
}

/// The layers of some Keras classes as an HDF5 file, `layers/<class>[_N]/vars/<i>`.
fn weights(checkpoint: &Checkpoint, classes: &[&str]) -> Result<Vec<u8>, hdf5_pure::Error> {
    let order = layer_order(&checkpoint.config);
    let mut file = FileBuilder::new();
    let mut layers = file.create_group("layers");
    for (class, parts) in LAYER_CLASSES.iter().filter(|(class, _)| classes.contains(class)) {
        for (number, name) in order[class].iter().enumerate() {
            let suffix = if number == 0 { String::new() } else { format!("_{number}") };
            let mut layer = layers.create_group(&format!("{class}{suffix}"));
            let mut vars = layer.create_group("vars");
            vars.set_attr("name", AttrValue::VarLenString(name.clone()));
            for (i, part) in parts.iter().enumerate() {
                // A checked checkpoint has every tensor of its architecture.
                let Some(tensor) = checkpoint.tensors.get(&format!("{name}.{part}")) else {
                    continue;
                };
                let (shape, values) = outputs_last(tensor);
                vars.create_dataset(&i.to_string()).with_f32_data(&values).with_shape(&shape);
            }
            layer.add_group(vars.finish());
            layers.add_group(layer.finish());
        }
    }
    file.add_group(layers.finish());
    file.finish()
}

/// OHWI to HWIO, (out, in) to (in, out); vectors stay.
fn outputs_last(tensor: &Tensor) -> (Vec<u64>, Vec<f32>) {
    let values = tensor.to_f32();
    let shape: Vec<u64> = tensor.shape.iter().map(|d| *d as u64).collect();
    match *shape.as_slice() {
        [outputs, ref rest @ ..] if !rest.is_empty() => {
            let len = values.len() / (outputs as usize).max(1);
            let row = |i: usize| values.iter().skip(i).step_by(len).copied();
            let turned = (0..len).flat_map(row).collect();
            ([rest, &[outputs]].concat(), turned)
        }
        _ => (shape, values),
    }
}
