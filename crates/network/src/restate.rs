//! Batch-norms with other statistics, in a network that computes the same.
//!
//! Formats that leave batch-norms out become networks whose batch-norms only add a bias. Training them asks for
//! maps of mean 0 and deviation 1, as any others have: with the statistics of the user's own pictures, scale and
//! shift take over what was normalized away.

use crate::blueprint::{BATCH_NORM_EPSILON, LayerOp};
use crate::checkpoint::{Checkpoint, Tensor};
use std::collections::BTreeMap;

/// What a batch-norm reads, channel by channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Mean over all pixels of all pictures.
    pub mean: Vec<f32>,
    /// Mean square of the distance from it.
    pub variance: Vec<f32>,
}

/// The same function, with these statistics in batch-norms of these names; those without stay as they are.
///
/// Scale becomes the deviation of what the batch-norm made, shift its mean. Statistics are of what the batch-norm
/// *reads*, the convolution's result. Channels of no variance have the scale √ε.
///
/// # Errors
/// Names of no batch-norm, other numbers of channels, statistics that are no numbers or negative variances, as text.
pub fn restate(
    checkpoint: Checkpoint,
    statistics: &BTreeMap<String, Statistics>,
) -> Result<Checkpoint, String> {
    let blueprint = checkpoint.config.blueprint();
    checkpoint.edit(|draft| {
        for (name, measured) in statistics {
            let layer = blueprint.layer(name).filter(|layer| layer.op == LayerOp::BatchNorm);
            let Some(layer) = layer else { return Err(format!("`{name}` is no batch-norm")) };
            let channels = layer.channels;
            let is_positive = |v: &f32| v.is_finite() && *v >= 0.0;
            if measured.mean.len() != channels
                || measured.variance.len() != channels
                || !measured.mean.iter().all(|v| v.is_finite())
                || !measured.variance.iter().all(is_positive)
            {
                return Err(format!(
                    "statistics of `{name}` that are not those of {channels} channels"
                ));
            }
            let parts = ["gamma", "beta", "mean", "variance"].map(|part| format!("{name}.{part}"));
            let [gamma, beta, mean, variance] = parts
                .each_ref()
                .map(|part| draft.tensors.get(part).map(Tensor::to_f32).unwrap_or_default());
            let deviation = |variance: f32| (f64::from(variance) + BATCH_NORM_EPSILON).sqrt();
            let (mut scale, mut shift) = (Vec::new(), Vec::new());
            for c in 0..channels {
                let factor = f64::from(gamma[c]) / deviation(variance[c]);
                scale.push((factor * deviation(measured.variance[c])) as f32);
                let moved = f64::from(measured.mean[c]) - f64::from(mean[c]);
                shift.push((f64::from(beta[c]) + factor * moved) as f32);
            }
            let restated = [&scale, &shift, &measured.mean, &measured.variance];
            for (part, values) in parts.into_iter().zip(restated) {
                draft.tensors.insert(part, Tensor::from_f32(&[channels], values));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::evaluate::{evaluate, evaluate_all};
    use crate::graph::{Graph, NodeOp};
    use crate::init::random_checkpoint;
    use crate::random::Rng;

    /// Mean and variance of each channel of a map.
    fn measured(map: &[f32], channels: usize) -> Statistics {
        let pixels = (map.len() / channels) as f64;
        let of = |c: usize| map.iter().skip(c).step_by(channels).map(|x| f64::from(*x));
        let mean: Vec<f64> = (0..channels).map(|c| of(c).sum::<f64>() / pixels).collect();
        let square = |c: usize| of(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / pixels;
        Statistics {
            variance: (0..channels).map(|c| square(c) as f32).collect(),
            mean: mean.into_iter().map(|mean| mean as f32).collect(),
        }
    }

    /// What each batch-norm reads and makes of a picture.
    fn norms(graph: &Graph, picture: &[f32]) -> BTreeMap<String, [Statistics; 2]> {
        let values = evaluate_all(graph, picture);
        let norms = graph.nodes.iter().zip(&values);
        let norms = norms.filter(|(node, _)| matches!(node.op, NodeOp::BatchNorm { .. }));
        norms
            .map(|(node, made)| {
                let channels = node.shape.c.into();
                let both = [&values[node.inputs[0]], made].map(|map| measured(map, channels));
                (node.name.clone(), both)
            })
            .collect()
    }

    #[test]
    fn networks_compute_the_same_with_other_statistics() {
        for name in ["mobilenet_v2_035", "mobilenet_v3_small_050", "resnet_8_cifar"] {
            let checkpoint =
                random_checkpoint(Architecture::named(name, 5).unwrap(), 32, 1).unwrap();
            let mut rng = Rng::keyed(&[1]);
            let picture: Vec<f32> = (0..32 * 32 * 3).map(|_| rng.normal() as f32).collect();
            let graph = checkpoint.graph().unwrap();
            let before = norms(&graph, &picture);
            let read =
                before.iter().map(|(name, [read, _])| (name.clone(), read.clone())).collect();
            let restated = restate(checkpoint, &read).unwrap();
            for (name, [read, made]) in &before {
                let part = |part: &str| restated.tensors[&format!("{name}.{part}")].to_f32();
                assert_eq!(
                    (part("mean"), part("variance")),
                    (read.mean.clone(), read.variance.clone())
                );
                for (c, (gamma, beta)) in part("gamma").into_iter().zip(part("beta")).enumerate() {
                    // But for ε, scale is the deviation of what was made, shift its mean.
                    let wanted = f64::from(made.variance[c]);
                    let epsilon = f64::from(gamma).powi(2) * BATCH_NORM_EPSILON
                        / (f64::from(read.variance[c]) + BATCH_NORM_EPSILON);
                    let error = f64::from(gamma).powi(2) - epsilon - wanted;
                    assert!(error.abs() < 1e-4 * wanted.max(1e-3), "{name}: {gamma} {wanted}");
                    assert!((beta - made.mean[c]).abs() < 1e-4, "{name}: {beta}");
                }
            }
            let [a, b] = [graph, restated.graph().unwrap()].map(|graph| evaluate(&graph, &picture));
            let largest = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() < 1e-4 * largest, "{name}: {a} {b}");
            }
        }
    }

    #[test]
    fn statistics_of_other_layers_are_refused() {
        let of = |mean: f32, variance: f32, channels| Statistics {
            mean: vec![mean; channels],
            variance: vec![variance; channels],
        };
        for (name, statistics, said) in [
            ("stem_conv", of(0.0, 1.0, 16), "`stem_conv` is no batch-norm"),
            ("stem_bn", of(0.0, 1.0, 8), "those of 16 channels"),
            ("stem_bn", of(f32::NAN, 1.0, 16), "those of 16 channels"),
            ("stem_bn", of(0.0, -1.0, 16), "those of 16 channels"),
        ] {
            let config = Architecture::named("mobilenet_v2_050", 5).unwrap();
            let checkpoint = random_checkpoint(config, 32, 1).unwrap();
            let error = restate(checkpoint, &[(name.into(), statistics)].into()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
