//! Whether a device file computes what it should: layer by layer on real pictures, against others
//! who compute the same.
//!
//! | what | against | may differ by |
//! |---|---|---|
//! | the f32 network in the runtime | tract, on the exported ONNX | 10⁻⁴ of a layer's largest number |
//! | fp16 and bf16 | tract, with the same weights | what their arithmetic costs on some CPUs |
//! | int8 in the runtime | the formulas (`reference`) | nothing |
//! | int8 in the runtime | tract's integers, on [`crate::emit::onnx::Form::Integer`] | one step |
//! | layers in floats of an int8 network | tract, with the same f16 weights | as fp16 |
//! | the whole network | tract, on the ONNX file that it was read from | 10⁻³ of the largest score |
//!
//! Each layer is given the very numbers that the runtime's layer had, so that a difference names the
//! layer that makes it. tract computes QLinearConv and ConvInteger in integers; its QDQ convolutions
//! would run in floats. Means and per-channel products have no integer form in ONNX: there tract
//! computes in floats what int8 stores. The last line alone starts from what the user brought, so
//! that it tells what the importer gets wrong ([`source`]).
//!
//! Without the feature `tract`, that engine has nothing to say of any layer, and int8 is compared with
//! its formulas alone.

mod reference;
#[cfg_attr(not(feature = "tract"), path = "no_source.rs")]
pub mod source;
#[cfg_attr(not(feature = "tract"), path = "no_tract.rs")]
mod tract;

use crate::emit::edge::Format;
use crate::emit::onnx::to_onnx_layers;
use crate::pipeline::{Converted, Quantize};
use crate::quantize::{CalibrationError, Quantized, values, with_session};
use artifact::{Artifact, ArtifactError, Preprocess};
use network::graph::{Graph, NodeOp};
use network::random::Rng;
use tract::Engine;

/// Whether the second engine is in this build.
pub const HAS_TRACT: bool = cfg!(feature = "tract");

/// Multiply-accumulates that a verification may take.
const BUDGET: u64 = 8_000_000_000;
/// Most pictures that it uses.
const MAX_PICTURES: usize = 4;

/// What the arithmetic of f16 costs on some CPUs, of a layer's largest number.
const F16_LIMIT: f64 = 4e-3;

/// The unit of differences between floats.
const SHARE: &str = "of the largest number";

/// One comparison.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Check {
    /// What was compared.
    pub what: &'static str,
    /// The largest difference.
    pub worst: f64,
    /// Where it is.
    pub layer: String,
    /// What is allowed.
    pub limit: f64,
    /// What differences are counted in.
    pub unit: &'static str,
}

impl Check {
    /// Whether nothing differs by more than is allowed; not where something is no number.
    pub fn is_passed(&self) -> bool {
        self.worst <= self.limit
    }

    /// The largest difference as a text.
    pub fn difference(&self) -> String {
        match self.unit {
            SHARE => format!("{:.1e} of the largest number", self.worst),
            unit => format!("{} {unit}{}", self.worst, if self.worst == 1.0 { "" } else { "s" }),
        }
    }

    const fn new(what: &'static str, limit: f64, unit: &'static str) -> Self {
        Self { what, worst: 0.0, layer: String::new(), limit, unit }
    }

    fn see(&mut self, layer: &str, difference: f64) {
        // What is no number is the worst.
        if self.layer.is_empty() || difference.is_nan() || difference > self.worst {
            (self.worst, self.layer) = (difference, layer.into());
        }
    }
}

/// Why nothing can be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The file is refused.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// It does not run.
    #[error(transparent)]
    Run(#[from] CalibrationError),
    /// The other engine fails.
    #[error("tract, which verifies the model: {0}; --no-verify skips that")]
    Tract(String),
}

/// Compares what was converted with what others compute of `pictures`, or of noise where there are
/// none. Returns those comparisons that there are others for, and how many pictures were used.
///
/// # Errors
/// A file or an exported model that does not run.
pub fn verify(
    converted: &Converted,
    preprocess: &Preprocess,
    pictures: &[Vec<f32>],
) -> Result<(Vec<Check>, usize), VerifyError> {
    let pictures = &inputs(converted, preprocess, pictures);
    let graph = &converted.graph;
    let emitted = &converted.emitted.bytes;
    let mut checks = match (&converted.int8, converted.quantize) {
        (Some(int8), _) => {
            let float = floats(graph, Format::F32, &converted.float.bytes, pictures, 1e-4)?;
            let mut checks = vec![float];
            checks.extend(int8_layers(int8, emitted, pictures)?);
            checks
        }
        (None, Quantize::Fp16) => vec![floats(graph, Format::F16, emitted, pictures, F16_LIMIT)?],
        (None, Quantize::Bf16) => {
            vec![floats(&rounded_to_bf16(graph), Format::F32, emitted, pictures, 1.6e-2)?]
        }
        (None, _) => vec![floats(graph, Format::F32, emitted, pictures, 1e-4)?],
    };
    checks.retain(|check| !check.layer.is_empty());
    Ok((checks, pictures.len()))
}

/// As many pictures as a verification may take, or noise where there are none.
fn inputs(converted: &Converted, preprocess: &Preprocess, pictures: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let affordable = (BUDGET / converted.graph.macs().max(1)).max(1);
    let count = MAX_PICTURES.min(usize::try_from(affordable).unwrap_or(MAX_PICTURES));
    match pictures {
        [] => (0..count).map(|i| noise_picture(preprocess, i as u64)).collect(),
        pictures => pictures[..count.min(pictures.len())].to_vec(),
    }
}

/// A picture of random bytes, normalized.
fn noise_picture(preprocess: &Preprocess, seed: u64) -> Vec<f32> {
    let mut rng = Rng::keyed(&[seed]);
    let pixels = usize::from(preprocess.height) * usize::from(preprocess.width);
    let len = pixels * preprocess.channels();
    let bytes: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
    dataset::samples::normalize(&bytes, preprocess)
}

/// The float layers of a device file in tract.
fn floats(
    graph: &Graph,
    format: Format<'_>,
    edge: &[u8],
    pictures: &[Vec<f32>],
    limit: f64,
) -> Result<Check, VerifyError> {
    let layers = to_onnx_layers(graph, format);
    let engine = Engine::new(graph, &layers, vec![false; graph.nodes.len()])?;
    let mut check = Check::new("floats against tract", limit, SHARE);
    for seen in all_values(edge, pictures)? {
        for (id, wanted) in engine.run(&seen)? {
            check.see(&graph.nodes[id].name, share_of_largest(&wanted, &seen[id]));
        }
    }
    Ok(check)
}

/// The largest difference, as a share of the largest number.
fn share_of_largest(wanted: &[f32], found: &[f32]) -> f64 {
    let largest = wanted.iter().fold(f64::from(f32::MIN_POSITIVE), |m, v| m.max(v.abs().into()));
    let differences = wanted.iter().zip(found).map(|(a, b)| f64::from((a - b).abs()));
    let worst = differences.fold(0.0, |m: f64, d| if d > m || d.is_nan() { d } else { m });
    worst / largest
}

/// The values of each picture, of which there are few.
fn all_values(edge: &[u8], pictures: &[Vec<f32>]) -> Result<Vec<Vec<Vec<f32>>>, VerifyError> {
    with_session(edge, |session| Ok(pictures.iter().map(|p| values(session, p)).collect()))
}

/// The layers of an int8 device file: by their formulas, and in tract; those in floats in tract only.
fn int8_layers(
    int8: &Quantized,
    edge: &[u8],
    pictures: &[Vec<f32>],
) -> Result<Vec<Check>, VerifyError> {
    let Quantized { graph, quants, .. } = int8;
    let artifact = Artifact::parse(edge)?;
    let layers = to_onnx_layers(graph, Format::I8(quants));
    let engine = Engine::new(graph, &layers, quants.iter().map(|q| !q.is_float()).collect())?;
    let mut reference = Check::new("int8 against its formulas", 0.0, "byte");
    let mut integers = Check::new("int8 against tract's integers", 1.0, "step");
    let mut floats = Check::new("layers in floats against tract", F16_LIMIT, SHARE);
    for real in all_values(edge, pictures)? {
        // Of int8, what is stored.
        let stored = |id: usize, values: &[f32]| -> Vec<f32> {
            let quant = quants[id];
            let store = |v: &f32| if quant.is_float() { *v } else { quant.quantize(*v).into() };
            values.iter().map(store).collect()
        };
        let mut values: Vec<Vec<f32>> = vec![stored(0, &real[0])];
        for (id, (op, node)) in (1..).zip(artifact.ops().zip(&graph.nodes[1..])) {
            let found = stored(id, &real[id]);
            let x = &values[node.inputs[0]];
            let residual = node.inputs.get(1).map(|&r| values[r].as_slice());
            match reference::run(&artifact, &op, x, residual) {
                Some(wanted) if found.is_empty() => values.push(wanted),
                Some(wanted) => {
                    let different = found.iter().zip(&wanted).filter(|(a, b)| a != b).count();
                    reference.see(&node.name, different as f64);
                    values.push(found);
                }
                None => values.push(found),
            }
        }
        for (id, wanted) in engine.run(&values)? {
            let (name, found) = (&graph.nodes[id].name, &values[id]);
            if quants[id].is_float() {
                floats.see(name, share_of_largest(&wanted, found));
            } else {
                let steps = wanted.iter().zip(found).map(|(a, b)| (a - b).abs());
                integers.see(name, steps.fold(0.0, f32::max).into());
            }
        }
    }
    let mixed = quants.iter().any(|q| q.is_float()).then_some(floats);
    Ok([reference, integers].into_iter().chain(mixed).collect())
}

/// The graph with the weights that a bf16 file has.
fn rounded_to_bf16(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    for node in &mut graph.nodes {
        if let NodeOp::Conv2d(conv) = &mut node.op {
            for w in &mut conv.weights {
                *w = half::bf16::from_f32(*w).to_f32();
            }
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::edge::Attributes;
    use crate::emit::edge::to_edge;
    use crate::pipeline::{Options, convert};
    use crate::target::Target;
    use dataset::samples::stored_samples;
    use network::checkpoint::Checkpoint;
    use network::model::FloatModel;
    use std::path::Path;

    /// A gate works in place, and every engine computes the same of it.
    #[test]
    fn gates() {
        let mut model = FloatModel::new(crate::optimize::gated(16));
        model.labels = (0..5).map(|i| format!("class {i}")).collect();
        model.preprocess = Preprocess::normalized(16, 16, [0.5; 3], [0.25; 3]);
        let pictures: Vec<_> = (0..8).map(|i| noise_picture(&model.preprocess, i)).collect();
        for target in [Target::Host, Target::CortexM] {
            for quantize in [Quantize::Int8, Quantize::Fp16, Quantize::None] {
                let options = Options { quantize, target, ..Options::default() };
                let Ok(converted) = convert(&model, &pictures, options, |_, _| ()) else {
                    assert!(target == Target::CortexM && quantize != Quantize::Int8);
                    continue;
                };
                let bytes = &converted.emitted.bytes;
                let gate = Artifact::parse(bytes).unwrap().ops().find(|op| op.name() == "gate");
                let gate = gate.unwrap();
                assert!(
                    gate.clamp() == artifact::Clamp::Relu
                        && gate.input().offset == gate.output().offset
                );
                let (checks, _) = verify(&converted, &model.preprocess, &pictures).unwrap();
                assert!(!checks.is_empty() || (quantize != Quantize::Int8 && !HAS_TRACT));
                assert!(checks.iter().all(Check::is_passed), "{checks:?}");
            }
        }
    }

    /// One layer's bias is off by some steps in the file, and only that layer is blamed; without tract none, for
    /// the formulas are told the file's bias.
    #[test]
    fn a_wrong_layer_is_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/resnet_8_cifar10.mpk");
        let checkpoint = Checkpoint::load(&path).unwrap();
        let pictures = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        // Floats have nothing but tract to be compared with.
        let formats = [Quantize::Int8, Quantize::Fp16, Quantize::None];
        for quantize in formats.into_iter().take(if HAS_TRACT { 3 } else { 1 }) {
            let options = Options { quantize, ..Options::default() };
            let mut converted = convert(&model, &pictures, options, |_, _| ()).unwrap();
            let (checks, count) = verify(&converted, &model.preprocess, &pictures).unwrap();
            assert!(count > 1 && checks.iter().all(Check::is_passed), "{checks:?}");

            let name = "stack1_block0_2_conv";
            let mut graph = converted.int8.as_ref().map_or(&converted.graph, |i| &i.graph).clone();
            let node = graph.nodes.iter_mut().find(|n| n.name == name).unwrap();
            let NodeOp::Conv2d(conv) = &mut node.op else { panic!("{name} is no convolution") };
            conv.bias[5] += 0.5;
            let format = match (&converted.int8, converted.quantize) {
                (Some(int8), _) => Format::I8(&int8.quants),
                (None, Quantize::Fp16) => Format::F16,
                (None, _) => Format::F32,
            };
            let attributes = Attributes::of(&model, Target::Host, true);
            converted.emitted = to_edge(&graph, format, &attributes).unwrap();
            let (checks, _) = verify(&converted, &model.preprocess, &pictures).unwrap();
            let failed = checks.iter().filter(|c| !c.is_passed());
            let failed: Vec<&str> = failed.map(|c| c.layer.as_str()).collect();
            assert_eq!(failed, [name][..usize::from(HAS_TRACT)], "{checks:?}");
        }
    }
}
