//! Model → optimized graph → calibration → device file.

use crate::emit::edge::{Attributes, EmitError, Emitted, Format, to_edge};
use crate::int8::{inherit_quants, input_quant};
use crate::optimize::optimize;
use crate::quantize::{
    Method, PostTraining, QuantizeError, Quantized, insert_casts, left_in_floats, quantize,
    without_quants,
};
use crate::target::Target;
use artifact::Dtype;
use network::graph::{Graph, GraphError, NodeOp, ValueId};
use network::model::FloatModel;

/// Number format of the device file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantize {
    /// Int8 weights and activations.
    #[default]
    Int8,
    /// f16 weights, f32 activations.
    Fp16,
    /// bf16 weights, f32 activations.
    Bf16,
    /// f32.
    None,
}

impl Quantize {
    /// That of the file's weights.
    const fn dtype(self) -> Dtype {
        match self {
            Self::Int8 => Dtype::I8,
            Self::Fp16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
            Self::None => Dtype::F32,
        }
    }
}

/// What to make of a model.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Number format.
    pub quantize: Quantize,
    /// Device class.
    pub target: Target,
    /// Choice of int8 ranges.
    pub method: Method,
    /// Round int8 weights so that outputs change least, not weights.
    pub adaptive_rounding: bool,
    /// Compute convolutions directly, never by Winograd's algorithm.
    pub direct: bool,
    /// Requantize int8 sums with integers, as on microcontrollers, see [`artifact::params`].
    pub fixed_point: bool,
}

impl Options {
    /// Refuses what the target cannot run.
    ///
    /// # Errors
    /// A number format that it has no kernels for.
    pub fn check(&self) -> Result<(), ConvertError> {
        let dtype = self.quantize.dtype();
        if self.target.runs(dtype) { Ok(()) } else { Err(ConvertError::Target { dtype }) }
    }

    /// Whether convolutions may be computed by Winograd's algorithm.
    fn winograd(&self) -> bool {
        !self.direct && self.target == Target::Host
    }

    /// Whether sums are requantized with integers, which round once.
    fn is_fixed_point(&self) -> bool {
        self.fixed_point || self.target != Target::Host
    }

    /// What surrounds the graph of `model` in the file.
    fn attributes<'a>(&self, model: &'a FloatModel) -> Attributes<'a> {
        Attributes {
            fixed_point: self.is_fixed_point(),
            ..Attributes::of(model, self.target, self.winograd())
        }
    }
}

/// The device file and what it was made from.
#[derive(Debug)]
pub struct Converted {
    /// The file and its memory plan.
    pub emitted: Emitted,
    /// The optimized float graph.
    pub graph: Graph,
    /// The same model as an f32 device file: the yardstick of the others.
    pub float: Emitted,
    /// The int8 network; `None` unless int8.
    pub int8: Option<Quantized>,
    /// Number format of the file.
    pub quantize: Quantize,
}

impl Converted {
    /// Whether some layers of an int8 network are computed in floats.
    pub(crate) fn has_floats(&self) -> bool {
        self.int8.as_ref().is_some_and(|int8| int8.quants.iter().any(|q| q.is_float()))
    }

    /// Name of the file's number format.
    pub(crate) fn format(&self) -> &'static str {
        match self.quantize {
            Quantize::Int8 if self.has_floats() => "int8 with floats",
            Quantize::Int8 => "int8",
            Quantize::Fp16 => "fp16",
            Quantize::Bf16 => "bf16",
            Quantize::None => "f32",
        }
    }
}

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The target has no kernels for the number format.
    #[error(
        "microcontrollers have no kernels for files of {dtype:?}; use --quantize int8, with --float-layers \
         or --max-drop for layers that it hurts, or leave --target out"
    )]
    Target {
        /// Number format.
        dtype: Dtype,
    },
    /// The graph cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The graph cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The file cannot be written.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// Converts a model; `calibration` holds normalized inputs and is used for int8 only.
///
/// # Errors
/// What the target cannot run, a graph that cannot be built or written, or calibration that cannot run.
pub fn convert(
    model: &FloatModel,
    calibration: &[Vec<f32>],
    options: Options,
    progress: impl FnMut(usize, usize),
) -> Result<Converted, ConvertError> {
    options.check()?;
    let mut graph = model.graph.clone();
    optimize(&mut graph);
    inherit_quants(&mut graph);
    if options.is_fixed_point() {
        round_once(&mut graph);
    }
    let attributes = options.attributes(model);
    let host = Attributes::of(model, Target::Host, false);
    let mut float = to_edge(&graph, Format::F32, &host)?;
    let mut int8 = None;
    let emitted = match options.quantize {
        Quantize::None => to_edge(&graph, Format::F32, &attributes)?,
        Quantize::Fp16 => to_edge(&graph, Format::F16, &attributes)?,
        Quantize::Bf16 => to_edge(&graph, Format::Bf16, &attributes)?,
        Quantize::Int8 => {
            if graph.nodes[0].quant.is_none() && !model.is_preprocess_assumed {
                graph.nodes[0].quant = Some(input_quant(&model.preprocess));
            }
            let is_decided = graph.nodes.iter().all(|n| n.quant.is_some());
            let quantized = match left_in_floats(&graph) {
                // What a source has left in floats stays so unless there is something to measure.
                Some(floats) if calibration.is_empty() && floats.contains(&true) => {
                    graph = insert_casts(&graph, &floats).graph;
                    float = to_edge(&graph, Format::F32, &host)?;
                    Quantized::decided(&graph)
                }
                _ if is_decided => Quantized::decided(&graph),
                _ => {
                    let source = PostTraining {
                        graph: &graph,
                        float: &float.bytes,
                        input: input_quant(&model.preprocess),
                        method: options.method,
                        adaptive_rounding: options.adaptive_rounding
                            || is_rounded_adaptively(&graph),
                        pictures: calibration,
                        attributes: &host,
                    };
                    quantize(&source, progress)?
                }
            };
            let quantized = int8.insert(quantized);
            to_edge(&quantized.graph, Format::I8(&quantized.quants), &attributes)?
        }
    };
    Ok(Converted { emitted, graph, float, int8, quantize: options.quantize })
}

/// Leaves out what a quantized source rounds before it adds a shortcut.
fn round_once(graph: &mut Graph) {
    for node in &mut graph.nodes {
        if let NodeOp::Conv2d(conv) = &mut node.op {
            conv.sum_quant = None;
        }
    }
}

/// Whether weights are rounded adaptively without being asked: of small networks with depthwise
/// convolutions, where it takes a second or two. Nine weights average out few errors.
fn is_rounded_adaptively(graph: &Graph) -> bool {
    const FEW: usize = 1_000_000;
    let convs = || {
        graph.nodes.iter().filter_map(|node| match &node.op {
            NodeOp::Conv2d(conv) => Some(conv),
            _ => None,
        })
    };
    let weights: usize = convs().map(|conv| conv.weights.len()).sum();
    convs().any(|conv| conv.groups > 1) && weights <= FEW
}

/// An int8 network, as [`convert`] made it of `graph`, with some nodes computed in floats: those
/// that `floats` names.
///
/// # Errors
/// A weight that f16 does not hold.
pub fn with_floats(
    graph: &Graph,
    int8: &Quantized,
    floats: &[ValueId],
    model: &FloatModel,
    options: Options,
) -> Result<Converted, ConvertError> {
    let chosen: Vec<bool> = (0..graph.nodes.len()).map(|id| floats.contains(&id)).collect();
    let int8 = int8.with_floats(graph, &chosen);
    let graph = insert_casts(&without_quants(graph, &chosen), &chosen).graph;
    let float = to_edge(&graph, Format::F32, &Attributes::of(model, Target::Host, false))?;
    let attributes = options.attributes(model);
    let emitted = to_edge(&int8.graph, Format::I8(&int8.quants), &attributes)?;
    Ok(Converted { emitted, graph, float, int8: Some(int8), quantize: Quantize::Int8 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use artifact::params::ParamsForm;
    use artifact::{Artifact, Quant};
    use dataset::samples::stored_samples;
    use network::architecture::Architecture;
    use network::graph::Node;
    use network::init::random_checkpoint;
    use runtime::{AlignedBuf, Model, Session};

    fn logits(name: &str, channels: usize, seed: u64, quantize: Quantize) -> Vec<f32> {
        let config = Architecture { channels, ..Architecture::named(name, 5).unwrap() };
        let checkpoint = random_checkpoint(config, 32, seed).unwrap();
        let samples = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
        let options = Options { quantize, method: Method::Mse, ..Options::default() };
        let converted = convert(
            &FloatModel::from_checkpoint(&checkpoint).unwrap(),
            &samples,
            options,
            |_, _| (),
        )
        .unwrap();
        let file = AlignedBuf::from_slice(&converted.emitted.bytes);
        let model = Model::new(&file).unwrap();
        let mut arena = AlignedBuf::zeroed(model.arena_len());
        let mut session = Session::new(&model, &mut arena).unwrap();
        let mut input = session.input_mut();
        samples[0].iter().enumerate().for_each(|(i, v)| input.set(i, *v));
        session.run().iter().collect()
    }

    #[test]
    fn integers_alone_round_once_and_stay_so_beside_floats() {
        let config = Architecture::named("resnet_8_cifar", 5).unwrap();
        let checkpoint = random_checkpoint(config, 32, 1).unwrap();
        let mut model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        for node in &mut model.graph.nodes {
            node.quant = Some(Quant { scale: 0.05, zero_point: 3 });
        }
        for (target, fixed_point) in
            [(Target::Host, false), (Target::Host, true), (Target::CortexM, false)]
        {
            let options = Options { target, fixed_point, ..Options::default() };
            let once = options.is_fixed_point();
            let converted = convert(&model, &[], options, |_, _| ()).unwrap();
            let rounds =
                |node: &Node| matches!(&node.op, NodeOp::Conv2d(c) if c.sum_quant.is_some());
            assert_eq!(converted.graph.nodes.iter().any(rounds), !once, "{target:?}");
            let last = converted.graph.output();
            let int8 = converted.int8.as_ref().unwrap();
            let mixed = with_floats(&converted.graph, int8, &[last], &model, options).unwrap();
            for bytes in [&converted.emitted.bytes, &mixed.emitted.bytes] {
                let artifact = Artifact::parse(bytes).unwrap();
                let nr = artifact.header().nr;
                let conv = *artifact.ops().find_map(|op| op.conv().copied()).as_ref().unwrap();
                let is_scaled = conv.params_form(nr, Dtype::I8) == Some(ParamsForm::Scales);
                assert_eq!(is_scaled, !once, "{target:?} {fixed_point}");
            }
        }
    }

    #[test]
    fn random_models_convert_and_answer() {
        for (name, channels) in
            [("resnet_8_cifar", 3), ("resnet_8_cifar", 1), ("resnet_v2_50", 3), ("resnet_vd_18", 3)]
        {
            let float = logits(name, channels, 1, Quantize::None);
            let scale = float.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            assert!(scale > 0.1 && scale < 100.0, "{name}: {float:?}");
            let int8 = logits(name, channels, 1, Quantize::Int8);
            for (f, q) in float.iter().zip(&int8) {
                assert!((f - q).abs() < 0.2 * scale, "{name}: {float:?} and {int8:?}");
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let of = |seed| logits("resnet_8_cifar", 3, seed, Quantize::None);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn impossible_models_are_refused() {
        let unknown = Architecture::named("resnet_9000", 10).unwrap_err();
        assert!(unknown.contains("resnet_9000") && unknown.contains("resnet_50"), "{unknown}");
        let none = random_checkpoint(Architecture::named("resnet_18", 0).unwrap(), 224, 0);
        assert!(none.is_err());
    }
}
