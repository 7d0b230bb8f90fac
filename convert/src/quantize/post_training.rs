//! From an optimized float graph to int8 without training.
//!
//! Whatever is tried is judged by what it does to the logits of real pictures, in the very device
//! file that would be written: the ranges of [`Method::Auto`], equalization where a map has
//! outliers, and the correction of biases for the mean error of rounded weights.

use super::calibrate::{Activation, CalibrationError, calibrate, logits};
use super::equalize::{Outlier, equalize, outliers};
use super::range::Method;
use super::rounding::round_adaptively;
use crate::emit::edge::{Attributes, EmitError, Format, to_edge};
use crate::int8::{int8_weights_of, share_pool_quants};
use artifact::Quant;
use network::graph::{Graph, NodeOp};

/// Most pictures that a choice is judged by.
const MAX_PICTURES: usize = 64;
/// Fewer are no measure.
const MIN_PICTURES: usize = 8;
/// Multiply-accumulates that the choice of ranges may take: some seconds.
const BUDGET: u64 = 400_000_000_000;
/// Multiply-accumulates in whose time a weight is quantized and packed.
const WEIGHT_COST: u64 = 1000;
/// How much smaller an error must be to be worth a change, since few pictures measure it.
const GAIN: f64 = 0.98;

/// Scales that differ by less are not worth a trial.
const SAME: f32 = 0.03;

/// An int8 network.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The float graph with what was changed for int8: factors moved, biases corrected.
    pub graph: Graph,
    /// Quantization of each value.
    pub quants: Vec<Quant>,
    /// Channels that spoil the scale of their map, as they were found.
    pub outliers: Vec<Outlier>,
    /// The float graph after factors were moved between layers, where they were.
    pub equalized: Option<Graph>,
    /// Whether biases make up for the rounding of weights.
    pub is_corrected: bool,
    /// Whether weights are rounded so that outputs change least, not weights.
    pub is_rounded_adaptively: bool,
    /// What chose the range of each value; `None` where the source or the format does.
    pub methods: Vec<Option<Method>>,
}

impl Quantized {
    /// A network whose source has decided on its scales, and on floats where it has none.
    pub fn decided(graph: &Graph) -> Self {
        Self {
            graph: graph.clone(),
            methods: vec![None; graph.nodes.len()],
            quants: graph.nodes.iter().map(|n| n.quant.unwrap_or(Quant::FLOAT)).collect(),
            outliers: Vec::new(),
            equalized: None,
            is_corrected: false,
            is_rounded_adaptively: false,
        }
    }
}

/// Why a network cannot be quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Ranges cannot be measured.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A trial cannot be written.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// By what a choice is judged.
pub(super) struct Trial<'a> {
    pub(super) attributes: &'a Attributes<'a>,
    pub(super) pictures: &'a [Vec<f32>],
    /// Logits of the float network, picture by picture.
    pub(super) wanted: Vec<f32>,
}

impl Trial<'_> {
    /// Mean squared error of the logits of an int8 network; infinite where its scales are so far
    /// apart that it cannot be written.
    pub(super) fn error(&self, graph: &Graph, quants: &[Quant]) -> Result<f64, QuantizeError> {
        let mut quants = quants.to_vec();
        share_pool_quants(graph, &mut quants);
        let edge = match to_edge(graph, Format::I8(&quants), self.attributes) {
            Err(
                EmitError::Scale { .. } | EmitError::HalfOverflow { .. } | EmitError::Artifact(_),
            ) => return Ok(f64::INFINITY),
            edge => edge?.bytes,
        };
        let logits = logits(&edge, self.pictures)?;
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        Ok(logits.iter().zip(&self.wanted).map(square).sum::<f64>() / logits.len().max(1) as f64)
    }
}

/// What is to be quantized, and on what.
#[derive(Debug, Clone, Copy)]
pub struct PostTraining<'a> {
    /// The optimized graph; what its nodes say of their quantization is kept.
    pub graph: &'a Graph,
    /// Its f32 device file.
    pub float: &'a [u8],
    /// How pictures are stored.
    pub input: Quant,
    /// Choice of ranges.
    pub method: Method,
    /// Try adaptive rounding.
    pub adaptive_rounding: bool,
    /// Normalized pictures.
    pub pictures: &'a [Vec<f32>],
    /// Of the files in which what is tried is judged.
    pub attributes: &'a Attributes<'a>,
}

/// Quantizes; `progress` is told what is done of how much, several times from the start.
///
/// # Errors
/// No pictures, activations that are not finite, or scales out of range.
pub fn quantize(
    source: &PostTraining<'_>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Quantized, QuantizeError> {
    let &PostTraining { graph, float, input, method, adaptive_rounding, pictures, attributes } =
        source;
    let mut fixed: Vec<Option<Quant>> = graph.nodes.iter().map(|n| n.quant).collect();
    // Of the input a source in floats says, too, what its pictures are.
    let is_float = fixed.iter().skip(1).all(Option::is_none);
    fixed[0] = fixed[0].or(Some(input));
    let mut activations = calibrate(float, pictures, &mut progress)?;
    let local = |activations: &[Activation], method: Method| -> Vec<Quant> {
        let measured = activations.iter().map(|a| a.histogram.quant(method));
        measured.zip(&fixed).map(|(quant, fixed)| fixed.unwrap_or(quant)).collect()
    };
    let chosen = evenly(pictures, MAX_PICTURES);
    let trial = Trial { attributes, pictures: &chosen, wanted: logits(float, &chosen)? };

    let outliers = if is_float { outliers(&activations) } else { Vec::new() };
    let mut quantized = Quantized {
        quants: local(&activations, method),
        methods: fixed.iter().map(|f| f.is_none().then_some(method.first())).collect(),
        graph: graph.clone(),
        equalized: None,
        is_corrected: false,
        is_rounded_adaptively: false,
        outliers,
    };
    let mut error = trial.error(&quantized.graph, &quantized.quants)?;
    if !quantized.outliers.is_empty() {
        let mut equalized = graph.clone();
        equalize(&mut equalized, &activations);
        let float = to_edge(&equalized, Format::F32, attributes)?;
        let measured = calibrate(&float.bytes, pictures, &mut progress)?;
        let quants = local(&measured, method);
        let smaller = trial.error(&equalized, &quants)?;
        if smaller < error * GAIN {
            (quantized.graph, quantized.quants, error) = (equalized.clone(), quants, smaller);
            quantized.equalized = Some(equalized);
            activations = measured;
        }
    }
    if is_float {
        let mut corrected = quantized.graph.clone();
        correct_biases(&quantized.graph, &mut corrected, &quantized.quants, &activations);
        let smaller = trial.error(&corrected, &quantized.quants)?;
        if smaller < error * GAIN {
            (quantized.graph, error) = (corrected, smaller);
            quantized.is_corrected = true;
        }
    }
    if method == Method::Auto {
        search(&mut quantized, &trial, error, &activations, &mut progress)?;
    }
    share_pool_quants(&quantized.graph, &mut quantized.quants);
    if adaptive_rounding && is_float {
        let clean = quantized.equalized.as_ref().unwrap_or(graph);
        let int8 = to_edge(&quantized.graph, Format::I8(&quantized.quants), attributes)?.bytes;
        let rounded = round_adaptively(clean, &quantized.quants, &int8, &chosen, &mut progress)?;
        let mut corrected = rounded.clone();
        correct_biases(clean, &mut corrected, &quantized.quants, &activations);
        let mut error = trial.error(&quantized.graph, &quantized.quants)?;
        for (graph, is_corrected) in [(rounded, false), (corrected, true)] {
            let smaller = trial.error(&graph, &quantized.quants)?;
            if smaller < error * GAIN {
                (quantized.graph, error) = (graph, smaller);
                quantized.is_corrected = is_corrected;
                quantized.is_rounded_adaptively = true;
            }
        }
    }
    Ok(quantized)
}

/// At most `count` of the pictures, evenly over all, since they may be sorted by class.
pub(super) fn evenly(pictures: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    let count = pictures.len().min(count);
    (0..count).map(|i| pictures[i * pictures.len() / count].clone()).collect()
}

/// Tries the other ranges of each value, one value after another, and keeps what makes the error of
/// the logits smaller. Of as many pictures as take some seconds; not of networks too large for that.
fn search(
    quantized: &mut Quantized,
    trial: &Trial<'_>,
    mut error: f64,
    activations: &[Activation],
    progress: &mut impl FnMut(usize, usize),
) -> Result<(), QuantizeError> {
    let open: Vec<usize> =
        (0..activations.len()).filter(|&i| quantized.methods[i].is_some()).collect();
    let runs = open.len() * (Method::LOCAL.len() - 1);
    let weights = quantized.graph.parameters() * WEIGHT_COST;
    let each = (BUDGET / runs.max(1) as u64).saturating_sub(weights);
    let affordable = each / quantized.graph.macs().max(1);
    let count = trial.pictures.len().min(usize::try_from(affordable).unwrap_or(usize::MAX));
    if count < MIN_PICTURES {
        return Ok(());
    }
    let classes = trial.wanted.len() / trial.pictures.len();
    let trial = Trial {
        pictures: &trial.pictures[..count],
        wanted: trial.wanted[..count * classes].to_vec(),
        ..*trial
    };
    if count < MAX_PICTURES {
        error = trial.error(&quantized.graph, &quantized.quants)?;
    }
    for (done, &value) in open.iter().enumerate() {
        for other in Method::LOCAL.into_iter().skip(1) {
            let quant = activations[value].histogram.quant(other);
            let ratio = quant.scale / quantized.quants[value].scale;
            if (ratio - 1.0).abs() < SAME {
                continue;
            }
            let before = core::mem::replace(&mut quantized.quants[value], quant);
            let smaller = trial.error(&quantized.graph, &quantized.quants)?;
            if smaller < error * GAIN {
                error = smaller;
                quantized.methods[value] = Some(other);
            } else {
                quantized.quants[value] = before;
            }
        }
        progress(done + 1, open.len());
    }
    Ok(())
}

/// Adds to each bias what the rounding of its weights takes from the mean of the output:
/// `Σ (w − q·scale) · mean(x)`, over the filter (Nagel et al. 2019).
/// `floats` has the weights before rounding.
fn correct_biases(floats: &Graph, graph: &mut Graph, quants: &[Quant], activations: &[Activation]) {
    for (id, node) in graph.nodes.iter_mut().enumerate() {
        let (NodeOp::Conv2d(conv), NodeOp::Conv2d(float)) = (&mut node.op, &floats.nodes[id].op)
        else {
            continue;
        };
        let int8 = int8_weights_of(floats, id, conv, quants);
        let mean = &activations[node.inputs[0]].mean;
        let row = conv.row_len();
        for o in 0..conv.bias.len() {
            let mean = &mean[conv.inputs_of(o)];
            let rows = float.weights[o * row..][..row].iter().zip(&int8.values[o * row..][..row]);
            let lost: f64 = rows
                .zip(mean.iter().cycle())
                .map(|((w, q), mean)| {
                    f64::from(w - f32::from(*q) * int8.scales[o]) * f64::from(*mean)
                })
                .sum();
            conv.bias[o] += lost as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::input_quant;
    use crate::optimize::optimize;
    use crate::target::Target;
    use dataset::samples::stored_samples;
    use network::checkpoint::Checkpoint;
    use network::model::FloatModel;
    use std::path::Path;

    /// The shipped ResNet-8 and its calibration pictures.
    fn resnet_8() -> (FloatModel, Vec<Vec<f32>>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/resnet_8_cifar10.mpk");
        let checkpoint = Checkpoint::load(&path).unwrap();
        let pictures = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
        let mut model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        optimize(&mut model.graph);
        (model, pictures)
    }

    /// Quantizes, and measures the error of the logits on the pictures in units of their deviation.
    fn quantized(
        graph: &Graph,
        model: &FloatModel,
        pictures: &[Vec<f32>],
        adaptive_rounding: bool,
    ) -> (Quantized, f64) {
        let attributes = Attributes::of(model, Target::Host, false);
        let float = to_edge(graph, Format::F32, &attributes).unwrap().bytes;
        let input = input_quant(&model.preprocess);
        let method = Method::Mse;
        let source = PostTraining {
            graph,
            float: &float,
            input,
            method,
            adaptive_rounding,
            pictures,
            attributes: &attributes,
        };
        let int8 = quantize(&source, |_, _| ()).unwrap();
        let wanted = logits(&float, pictures).unwrap();
        let deviation =
            wanted.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / wanted.len() as f64;
        let trial = Trial { attributes: &attributes, pictures, wanted };
        let error = trial.error(&int8.graph, &int8.quants).unwrap();
        (int8, (error / deviation).sqrt())
    }

    /// Multiplies channel 3 of what `name` computes by `times`, and divides what reads it.
    fn spoil(graph: &mut Graph, name: &str, times: f32) {
        const CHANNEL: usize = 3;
        let id = graph.nodes.iter().position(|n| n.name == name).unwrap();
        for at in 0..graph.nodes.len() {
            let reads = graph.nodes[at].inputs.first() == Some(&id);
            assert!(!graph.nodes[at].inputs[..].iter().skip(1).any(|&r| r == id), "a residual");
            let channels = usize::from(graph.nodes[id].shape.c);
            let NodeOp::Conv2d(conv) = &mut graph.nodes[at].op else { continue };
            if at == id {
                let row = conv.row_len();
                conv.weights[CHANNEL * row..][..row].iter_mut().for_each(|w| *w *= times);
                conv.bias[CHANNEL] *= times;
            } else if reads {
                conv.weights.iter_mut().skip(CHANNEL).step_by(channels).for_each(|w| *w /= times);
            }
        }
    }

    #[test]
    fn adaptive_rounding_brings_the_logits_closer() {
        let (model, pictures) = resnet_8();
        let (_, nearest) = quantized(&model.graph, &model, &pictures, false);
        let (int8, error) = quantized(&model.graph, &model, &pictures, true);
        assert!(int8.is_rounded_adaptively && error < 0.95 * nearest, "{error} for {nearest}");
        // What is stored is what was chosen, in the steps that were chosen.
        for (id, node) in int8.graph.nodes.iter().enumerate() {
            let NodeOp::Conv2d(conv) = &node.op else { continue };
            let stored = int8_weights_of(&int8.graph, id, conv, &int8.quants);
            let row = conv.row_len();
            for (i, (w, q)) in conv.weights.iter().zip(&stored.values).enumerate() {
                assert_eq!(*w, f32::from(*q) * stored.scales[i / row], "{}", node.name);
            }
        }
    }

    #[test]
    fn an_outlier_channel_is_named_and_rescued() {
        let (model, pictures) = resnet_8();
        let (sound, least) = quantized(&model.graph, &model, &pictures, false);
        assert!(sound.outliers.is_empty() && sound.is_corrected, "{:?}", sound.outliers);
        let name = "stack1_block0_1_conv";
        // With a billion, int8 could not even be written without moving the factor.
        for times in [1e3, 1e9] {
            let mut graph = model.graph.clone();
            spoil(&mut graph, name, times);
            let (rescued, error) = quantized(&graph, &model, &pictures, false);
            let [outlier] = &rescued.outliers[..] else { panic!("{:?}", rescued.outliers) };
            assert_eq!((graph.nodes[outlier.node].name.as_str(), outlier.channel), (name, 3));
            assert!(outlier.times > 0.1 * times, "{outlier:?}");
            assert!(rescued.equalized.is_some());
            assert!(error < least * 1.5, "{error} with the outlier, {least} without");
        }
    }
}
