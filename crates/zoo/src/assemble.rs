//! The checkpoint of a network that was trained elsewhere.

use crate::ImportError;
use artifact::Preprocess;
use network::architecture::Architecture;
use network::blueprint::{BATCH_NORM_EPSILON, HEAD, Layer};
use network::checkpoint::{Draft, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Files a batch-norm that only adds `beta`: its ε is taken off the variance beforehand.
pub(crate) fn identity_batch_norm(found: &mut BTreeMap<String, Tensor>, name: &str, beta: &[f32]) {
    let constant = |value| vec![value; beta.len()];
    for (part, values) in [
        ("gamma", constant(1.0)),
        ("beta", beta.to_vec()),
        ("mean", constant(0.0)),
        ("variance", constant((1.0 - BATCH_NORM_EPSILON) as f32)),
    ] {
        found.insert(format!("{name}.{part}"), Tensor::from_f32(&[values.len()], &values));
    }
}

/// Rewrites the statistics of a batch-norm, where they are known, for another ε.
pub(crate) fn move_epsilon(found: &mut BTreeMap<String, Tensor>, name: &str, [from, to]: [f64; 2]) {
    let [gamma, variance] = ["gamma", "variance"].map(|part| format!("{name}.{part}"));
    let (Some(factor), Some(square)) = (found.get(&gamma), found.get(&variance)) else { return };
    if from == to || factor.shape != square.shape {
        return;
    }
    let shape = square.shape.clone();
    let moved = factor.to_f32().into_iter().zip(square.to_f32()).map(|(factor, square)| {
        // NaN stays, and is found by the checkpoint's check.
        let total = f64::from(square) + from;
        match total < to {
            // No variance is negative.
            true => ((f64::from(factor) * (to / total).sqrt()) as f32, 0.0),
            false => (factor, (total - to) as f32),
        }
    });
    let (factors, squares): (Vec<f32>, Vec<f32>) = moved.unzip();
    found.insert(gamma, Tensor::from_f32(&shape, &factors));
    found.insert(variance, Tensor::from_f32(&shape, &squares));
}

/// Takes the difference of a network's ε and ours into the statistics of all batch-norms.
pub(crate) fn fold_epsilon(found: &mut BTreeMap<String, Tensor>, epsilon: f64) {
    let norms: Vec<String> =
        found.keys().filter_map(|name| name.strip_suffix(".variance")).map(Into::into).collect();
    for name in norms {
        move_epsilon(found, &name, [epsilon, BATCH_NORM_EPSILON]);
    }
}

/// A head of zeros where there is none, and its bias where it has none.
pub(crate) fn add_head(config: &Architecture, found: &mut BTreeMap<String, Tensor>) {
    for (part, shape) in config.blueprint().layers.last().map_or(Vec::new(), Layer::parts) {
        let zeros = || Tensor::from_f32(&shape, &vec![0.0; shape.iter().product()]);
        found.entry(format!("{HEAD}.{part}")).or_insert_with(zeros);
    }
}

/// What is known of a model that was trained elsewhere.
pub(crate) fn draft(
    config: Architecture,
    labels: Vec<String>,
    preprocess: Preprocess,
    tensors: BTreeMap<String, Tensor>,
) -> Draft {
    let preprocess = Preprocess { grey: config.channels == 1, ..preprocess };
    Draft::new(config, labels, preprocess, tensors)
}

/// Most differences named one by one.
pub(crate) const MAX_LISTED: usize = 20;

/// The tensors that `config` needs, from those `found` under canonical names; `extra` names
/// what has no canonical name.
pub(crate) fn assemble(
    path: &Path,
    config: &Architecture,
    mut found: BTreeMap<String, Tensor>,
    extra: Vec<String>,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let mut differences = Vec::new();
    let mut tensors = BTreeMap::new();
    for (name, shape) in config.blueprint().tensors() {
        match found.remove(&name) {
            Some(tensor) if tensor.shape == shape => {
                tensors.insert(name, tensor);
            }
            Some(tensor) => {
                differences.push(format!("`{name}` has shape {:?}, not {shape:?}", tensor.shape));
            }
            None => differences.push(format!("`{name}` {shape:?} is missing")),
        }
    }
    let strange = found.into_iter().map(|(name, t)| format!("`{name}` {:?}", t.shape));
    differences.extend(strange.chain(extra).map(|what| format!("{what} belongs to no layer")));
    if differences.is_empty() {
        return Ok(tensors);
    }
    let more = differences.len().saturating_sub(MAX_LISTED);
    differences.truncate(MAX_LISTED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(ImportError::Tensors {
        path: path.display().to_string(),
        config: config.name.clone(),
        differences: differences.iter().map(|d| format!("\n  {d}")).collect(),
    })
}
