//! Writes PyTorch state dicts as safetensors: timm's names, which for ResNets of version 1 are torchvision's,
//! and those of the CIFAR ResNets for networks of small pictures.

use super::families::{Names, check, is_convolution, padding, written_rules};
use super::travelling::{METADATA, Travelling};
use crate::assemble::move_epsilon;
use artifact::text::AsPlain;
use network::blueprint::{BATCH_NORM_EPSILON, LayerOp};
use network::checkpoint::{Checkpoint, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

/// Why a checkpoint cannot be written as a state dict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDictError {
    /// PyTorch's packages have no such network.
    #[error("{name}: {what}, which no network of torchvision or timm has")]
    Architecture {
        /// Architecture.
        name: String,
        /// What is different.
        what: String,
    },
    /// The file cannot be built.
    #[error("safetensors: {0}")]
    Safetensors(#[from] SafeTensorError),
}

/// The state dict as a safetensors file.
///
/// # Errors
/// Networks that have no counterpart in PyTorch's packages.
pub fn to_safetensors(checkpoint: &Checkpoint) -> Result<Vec<u8>, StateDictError> {
    let config = &checkpoint.config;
    let architecture =
        |what: String| StateDictError::Architecture { name: config.name.clone(), what };
    check(config).map_err(|what| architecture(what.into()))?;
    let names = Names::of(config);
    let padding = padding(config);
    let mut ours = checkpoint.tensors.clone();
    for layer in config.blueprint().layers.iter().filter(|l| l.op == LayerOp::BatchNorm) {
        let epsilon = written_rules(padding).epsilon;
        move_epsilon(&mut ours, &layer.name, [BATCH_NORM_EPSILON, epsilon]);
    }
    let mut tensors = Vec::new();
    for (name, tensor) in &ours {
        let theirs = names
            .torch(name)
            .ok_or_else(|| architecture(format!("a tensor `{}`", name.plain())))?;
        let (mut shape, values) = oihw(tensor);
        if shape.len() == 2 && is_convolution(&theirs) {
            shape.extend([1, 1]);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((theirs, shape, bytes));
    }
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect();
    let (labels, preprocess) = (checkpoint.labels.clone(), checkpoint.preprocess);
    let travelling = Travelling { labels, preprocess, padding };
    let metadata = [(METADATA.to_owned(), serde_json::json!(travelling).to_string())].into();
    Ok(safetensors::serialize(views?, Some(metadata))?)
}

/// OHWI to OIHW; matrices and vectors stay.
fn oihw(tensor: &Tensor) -> (Vec<usize>, Vec<f32>) {
    let values = tensor.to_f32();
    let [outputs, height, width, inputs] = tensor.shape[..] else {
        return (tensor.shape.clone(), values);
    };
    let mut out = Vec::with_capacity(values.len());
    for filter in values.chunks_exact((height * width * inputs).max(1)) {
        for channel in 0..inputs {
            out.extend(filter.iter().skip(channel).step_by(inputs));
        }
    }
    (vec![outputs, inputs, height, width], out)
}
