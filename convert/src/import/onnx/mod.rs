//! ONNX files: classifiers of convolutions, batch-norms, pools and dense layers, as PyTorch, timm,
//! Keras and others export them.
//!
//! Nodes are walked in their order. What depends on no picture is computed on the way
//! ([`constant`]); what does becomes nodes of a [`Graph`] ([`layers`]). Pictures may lie as NCHW or
//! NHWC: here a map is a map, a layout is how the file speaks of it, and a Transpose only changes
//! that. Softmax at the end is left away, since models here give logits, with what only stores or
//! copies its probabilities.

mod call;
mod constant;
mod fold;
mod layers;
mod order;
mod qdq;
mod qlinear;
mod shapes;
mod tail;
#[cfg(test)]
mod tests;
mod windows;

use super::prepared::preprocess_of;
use super::{ImportError, imagenet};
use crate::graph::{Graph, ValueId};
use crate::model::FloatModel;
use crate::onnx_proto as proto;
use crate::resnet::IMAGENET_STATISTICS;
use artifact::{Padding, Preprocess, Shape};
use constant::Constant;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Operators that are read.
const OPERATORS: [&str; 35] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "QuantizeLinear",
    "ReduceMax",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Shape",
    "Slice",
    "Softmax",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
];
/// Oldest and newest version of ONNX's operators that is known.
const OPSETS: core::ops::RangeInclusive<i64> = 7..=24;
/// Most nodes that are named in an error.
const MAX_LISTED: usize = 20;

/// How the file speaks of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `[1, c, h, w]`.
    Nchw,
    /// `[1, h, w, c]`.
    Nhwc,
    /// `[1, c·h·w]`, in that order.
    FlatChw,
    /// `[1, h·w·c]`, in that order.
    FlatHwc,
}

/// A value that depends on the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Map {
    id: ValueId,
    layout: Layout,
    /// A border that a Pad has put around it, for the window that reads it.
    border: Option<Border>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Border {
    padding: Padding,
    value: f32,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Constant(Constant),
    Map(Map),
    /// What a softmax makes of this map, or its logarithm: read as the map where nothing but the end
    /// of the network does, since models here give logits.
    Probabilities(Map),
}

/// The state of a walk.
struct Importer<'a> {
    folder: &'a Path,
    graph: Graph,
    values: HashMap<String, Value>,
    /// The ReLU behind a value, where it was left away since nothing below zero is stored.
    clamped: HashMap<ValueId, ValueId>,
}

/// Whether a file that starts with these bytes may be an ONNX model: with field 1, the version.
pub(super) fn may_be_one(start: &[u8]) -> bool {
    start.first() == Some(&0x08)
}

/// Whether bytes are an ONNX model.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    may_be_one(bytes)
        && proto::Model::decode(bytes).is_ok_and(|m| m.ir_version.is_some() && m.graph.is_some())
}

/// Reads a file. `size` is the input's height and width, where the file leaves them open.
pub(super) fn onnx(
    path: &Path,
    bytes: &[u8],
    size: Option<u16>,
) -> Result<FloatModel, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let decoded = proto::Model::decode(bytes)
        .map_err(|e| unsupported(format!("no ONNX model, or a damaged one ({e})")))?;
    model(path, &decoded, size)
}

/// The model of a file that is decoded.
pub(super) fn model(
    path: &Path,
    model: &proto::Model,
    size: Option<u16>,
) -> Result<FloatModel, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let opset = model.opset_import.iter().find(|o| is_onnx(o.domain.as_deref().unwrap_or("")));
    let opset = opset.and_then(|o| o.version).unwrap_or(1);
    if !OPSETS.contains(&opset) {
        return Err(unsupported(format!(
            "operators of version {opset}, but {} to {} are read; export it with another opset",
            OPSETS.start(),
            OPSETS.end()
        )));
    }
    let file =
        model.graph.as_ref().ok_or_else(|| unsupported("an ONNX file without a graph".into()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = &qlinear::expand(file, folder).map_err(unsupported)?;
    check_operators(file).map_err(unsupported)?;
    let shape = input(file, size).map_err(unsupported)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut importer = Importer {
        folder,
        graph: Graph::new(name, shape.1),
        values: HashMap::new(),
        clamped: HashMap::new(),
    };
    importer.constants(file).map_err(unsupported)?;
    let map = Map { id: 0, layout: shape.0, border: None };
    importer.values.insert(shape.2.into(), Value::Map(map));
    for node in &file.node {
        importer.node(node).map_err(|e| unsupported(format!("{}: {e}", describe(node))))?;
    }
    let graph = importer.finish(file).map_err(unsupported)?;

    let classes = usize::from(graph.nodes[graph.output()].shape.c);
    let metadata = |key: &str| model.metadata_props.iter().find(|e| e.key == key);
    let labels =
        metadata("labels").and_then(|e| serde_json::from_str::<Vec<String>>(&e.value).ok());
    let preprocess = metadata("preprocess").and_then(|e| serde_json::from_str(&e.value).ok());
    let preprocess = preprocess
        .filter(|p: &Preprocess| {
            let channels = usize::from(shape.1.c);
            p.is_valid() && (p.height, p.width, p.channels()) == (shape.1.h, shape.1.w, channels)
        })
        .or_else(|| preprocess_of(&graph));
    Ok(FloatModel {
        labels: labels
            .filter(|l| l.len() == classes)
            .unwrap_or_else(|| imagenet::labels_of(classes)),
        is_preprocess_assumed: preprocess.is_none(),
        preprocess: preprocess.unwrap_or_else(|| {
            // What is grey was rarely trained on ImageNet.
            let grey = shape.1.c == 1;
            let [mean, std] = if grey { [[0.0; 3], [1.0; 3]] } else { IMAGENET_STATISTICS };
            Preprocess { grey, ..Preprocess::normalized(shape.1.h, shape.1.w, mean, std) }
        }),
        ..FloatModel::new(graph)
    })
}

fn is_onnx(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn describe(node: &proto::Node) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    let name = name.map_or("", String::as_str);
    format!("node `{}` ({})", name.escape_debug(), node.op_type.escape_debug())
}

/// Refuses a file with operators that are not read, before anything else is done.
fn check_operators(file: &proto::Graph) -> Result<(), String> {
    let strange: Vec<String> = file
        .node
        .iter()
        .filter(|n| !is_onnx(&n.domain) || !OPERATORS.contains(&n.op_type.as_str()))
        .map(describe)
        .collect();
    if strange.is_empty() {
        return Ok(());
    }
    let more = strange.len().saturating_sub(MAX_LISTED);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    let listed: Vec<&str> = strange.iter().take(MAX_LISTED).map(String::as_str).collect();
    Err(format!(
        "operators that are not read; networks of convolutions, batch-norms, ReLUs, sums, pools and \
         dense layers are:\n  {}{more}\n{}",
        listed.join("\n  "),
        file.node.iter().find_map(remedy).unwrap_or(
            "take a network without them, such as a ResNet of torchvision, timm, Keras, or of \
             `trainer finetune`"
        )
    ))
}

/// What to do about an operator of engines' own.
fn remedy(node: &proto::Node) -> Option<&'static str> {
    Some(match node.op_type.as_str() {
        "DynamicQuantizeLinear"
        | "ConvInteger"
        | "MatMulInteger"
        | "DynamicQuantizeMatMul"
        | "MatMulIntegerToFloat" => {
            "it is quantized while it runs (quantize_dynamic): take the model in floats, or \
             quantize_static"
        }
        _ if node.domain == "com.microsoft.nchwc" => {
            "it was optimized for one CPU: save it with ORT_ENABLE_EXTENDED, or take the model that \
             it was made of"
        }
        _ => return None,
    })
}

/// Layout, shape and name of the picture.
fn input(file: &proto::Graph, size: Option<u16>) -> Result<(Layout, Shape, &str), String> {
    let constants: HashSet<&str> = file.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<_> =
        file.input.iter().filter(|i| !constants.contains(i.name.as_str())).collect();
    let [input] = inputs[..] else {
        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(format!("inputs {names:?}, but one picture is wanted"));
    };
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()?.shape.as_ref());
    let dims: Vec<Option<u16>> = shape.map_or(Vec::new(), |s| {
        s.dim.iter().map(|d| d.dim_value.and_then(|v| u16::try_from(v).ok())).collect()
    });
    let wrong = || {
        format!(
            "the input `{}` of shape {dims:?}, but [1, 3, height, width] or [1, height, width, 3] \
             is wanted, or 1 channel instead of 3",
            input.name.escape_debug()
        )
    };
    let (layout, c, sides) = match dims[..] {
        [_, Some(3), h, w] => (Layout::Nchw, 3, [h, w]),
        [_, h, w, Some(3)] => (Layout::Nhwc, 3, [h, w]),
        [_, Some(1), h, w] => (Layout::Nchw, 1, [h, w]),
        [_, h, w, Some(1)] => (Layout::Nhwc, 1, [h, w]),
        [_, a, b, c] => match open_channels(file, &input.name).ok_or_else(wrong)? {
            (Layout::Nchw, channels) if a.is_none() => (Layout::Nchw, channels, [b, c]),
            (Layout::Nhwc, channels) if c.is_none() => (Layout::Nhwc, channels, [a, b]),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if dims[0].is_some_and(|n| n > 1) {
        return Err(format!("{}; export it for one picture", wrong()));
    }
    let [Some(h), Some(w)] = sides.map(|side| side.filter(|&s| s > 0).or(size)) else {
        return Err(format!("{}; name height and width by --input-size", wrong()));
    };
    Ok((layout, Shape::new(h, w, c), &input.name))
}

/// Layout and channels of a picture whose shape is open, as its first convolution has them.
fn open_channels(file: &proto::Graph, input: &str) -> Option<(Layout, u16)> {
    let conv = file.node.iter().find(|n| n.op_type == "Conv")?;
    let mut weights = conv.input.get(1)?;
    let quantized = file.node.iter().find(|n| n.output.first() == Some(weights));
    if let Some(node) = quantized.filter(|n| n.op_type == "DequantizeLinear") {
        weights = node.input.first()?;
    }
    let weights = file.initializer.iter().find(|t| t.name == *weights)?;
    let group = conv.attribute.iter().find(|a| a.name == "group").and_then(|a| a.i).unwrap_or(1);
    let channels = weights.dims.get(1)?.checked_mul(group)?;
    let mut readers = file.node.iter().filter(|n| n.input.iter().any(|name| name == input));
    let layout = match readers.any(|n| n.op_type == "Transpose") {
        true => Layout::Nhwc,
        false => Layout::Nchw,
    };
    u16::try_from(channels).ok().filter(|c| [1, 3].contains(c)).map(|c| (layout, c))
}

impl Importer<'_> {
    fn constants(&mut self, file: &proto::Graph) -> Result<(), String> {
        for tensor in &file.initializer {
            let constant = Constant::read(tensor, self.folder)
                .map_err(|e| format!("constant `{}`: {e}", tensor.name.escape_debug()))?;
            self.values.insert(tensor.name.clone(), Value::Constant(constant));
        }
        Ok(())
    }

    /// The graph up to the logits.
    fn finish(mut self, file: &proto::Graph) -> Result<Graph, String> {
        let [output, ..] = &file.output[..] else { return Err("no output".into()) };
        let Some(Value::Map(map) | Value::Probabilities(map)) = self.values.get(&output.name)
        else {
            return Err(format!(
                "the output `{}` depends on no picture",
                output.name.escape_debug()
            ));
        };
        let shape = self.graph.nodes[map.id].shape;
        if shape.pixels() != 1 || map.id == 0 {
            return Err(format!(
                "the output is a map of {}×{}×{}, no score for each class",
                shape.h, shape.w, shape.c
            ));
        }
        // What follows is read by no output.
        self.graph.nodes.truncate(map.id + 1);
        Ok(self.graph)
    }
}
