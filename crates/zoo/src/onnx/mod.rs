//! ONNX files: classifiers of convolutions, batch-norms, pools and dense layers, as PyTorch, timm,
//! Keras and others export them.
//!
//! Nodes are walked in their order. What depends on no picture is computed on the way
//! ([`fold`]); what does becomes nodes of a [`Graph`] ([`layers`]). Pictures may lie as NCHW or
//! NHWC: here a map is a map, a [`view`] is how the file speaks of it, and a Transpose only changes
//! that. Softmax at the end is left away, since models here give logits, with what only stores or
//! copies its probabilities.

mod arithmetic;
mod call;
mod channels;
mod constant;
mod fold;
mod groups;
mod input;
mod layers;
mod order;
mod outputs;
mod qdq;
mod qlinear;
mod shapes;
#[cfg(test)]
mod tests;
mod view;
mod windows;

use super::prepared::preprocess_of;
use crate::{Hints, ImportError};
use artifact::text::AsPlain;
use artifact::{Padding, Preprocess, Shape};
use call::Call;
use constant::{Constant, Outside};
use formats::onnx as proto;
use groups::Groups;
use input::input;
use network::architecture::IMAGENET_STATISTICS;
use network::graph::{Graph, ValueId};
use network::imagenet;
use network::model::{FloatModel, OnnxSource, Source};
use prost::Message;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use view::View;

/// Operators that are read, some of them for constants alone.
const OPERATORS: &str = "\
    Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape \
    Conv DequantizeLinear Div Dropout Equal Exp Expand Flatten Floor Gather GatherND Gelu \
    Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity If Less LessOrEqual Log \
    LogSoftmax MatMul Max MaxPool Min Mod Mul Neg Not Or Pad Pow QuantizeLinear Range \
    Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Shape \
    Sigmoid Size Slice Softmax Split Sqrt Squeeze Sub Sum Transpose Unsqueeze Where";
/// Oldest and newest version of ONNX's operators that is known.
const OPSETS: core::ops::RangeInclusive<i64> = 7..=24;
/// Most nodes that are named in an error.
const MAX_LISTED: usize = 20;
/// Numbers that an import may compute, beside those for each byte of the file.
const LEAST_BUDGET: usize = 1 << 18;
/// Numbers that it may compute for each byte: a weight of int8 is read, turned and used.
const BUDGET_PER_BYTE: usize = 4;

/// A value that depends on the picture.
#[derive(Debug, Clone, PartialEq)]
struct Map {
    id: ValueId,
    view: View,
    /// A border that a Pad has put around it, for the window that reads it.
    border: Option<Border>,
    /// Whether the file has what a softmax makes of it.
    is_softmax: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Border {
    padding: Padding,
    value: f32,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Constant(Rc<Constant>),
    Map(Map),
    /// Until a Reshape puts them side by side again.
    Groups(Groups),
}

/// The state of a walk.
struct Importer<'a> {
    outside: &'a Outside<'a>,
    opset: i64,
    /// Whether the picture comes in integers.
    has_bytes: bool,
    graph: Graph,
    values: HashMap<String, Value>,
    /// Values with some channels of others, in an order.
    settled: HashMap<(ValueId, Vec<u16>), ValueId>,
    /// The ReLU behind a value, where it was left away since nothing below zero is stored.
    clamped: HashMap<ValueId, ValueId>,
    /// What the last softmax reads.
    logits: Option<String>,
    /// Numbers that may still be computed.
    budget: usize,
}

/// Whether a file that starts with these bytes may be an ONNX model: with field 1, the version.
pub(super) fn may_be_one(start: &[u8]) -> bool {
    start.first() == Some(&0x08)
}

/// Whether bytes are an ONNX model.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    may_be_one(bytes)
        && proto::Model::decode(bytes).is_ok_and(|m| m.ir_version.is_some() && m.graph.is_some())
}

/// Reads a file; `hints` says what it leaves open.
pub(crate) fn onnx(path: &Path, bytes: &[u8], hints: &Hints) -> Result<FloatModel, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let decoded = proto::Model::decode(bytes)
        .map_err(|e| unsupported(format!("no ONNX model, or a damaged one ({e})")))?;
    let (mut model, mut source) = model(path, &decoded, hints)?;
    // Another engine reads the very bytes that were read here.
    source.bytes = bytes.into();
    model.source = Source::Onnx(source);
    Ok(model)
}

/// The model of a file that is decoded, and how it compares with the file.
pub(super) fn model(
    path: &Path,
    model: &proto::Model,
    hints: &Hints,
) -> Result<(FloatModel, OnnxSource), ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let opset = opset(model).map_err(unsupported)?;
    let file =
        model.graph.as_ref().ok_or_else(|| unsupported("an ONNX file without a graph".into()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let outside = Outside::new(folder, path);
    let file = &qlinear::expand(file, &outside).map_err(unsupported)?;
    let metadata = |key: &str| model.metadata_props.iter().find(|e| e.key == key);
    let labels =
        metadata("labels").and_then(|e| serde_json::from_str::<Vec<String>>(&e.value).ok());
    let output = outputs::choose(file, hints.output_node.as_deref(), labels.as_ref().map(Vec::len));
    let output = output.map_err(unsupported)?;
    let needed = outputs::needed(file, &output.name);
    let is_needed = |node: &&proto::Node| node.output.iter().any(|o| needed.contains(o.as_str()));
    let nodes: Vec<&proto::Node> = file.node.iter().filter(is_needed).collect();
    check_operators(&nodes).map_err(unsupported)?;
    let input = input(file, hints.size).map_err(unsupported)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut importer = Importer {
        outside: &outside,
        opset,
        has_bytes: input.has_bytes(),
        graph: Graph::new(name, input.shape),
        values: HashMap::new(),
        settled: HashMap::new(),
        clamped: HashMap::new(),
        logits: None,
        budget: LEAST_BUDGET.saturating_add(model.encoded_len().saturating_mul(BUDGET_PER_BYTE)),
    };
    importer.constants(file).map_err(unsupported)?;
    let picture = Map { id: 0, view: input.view.clone(), border: None, is_softmax: false };
    importer.values.insert(input.name.into(), Value::Map(picture));
    for node in nodes {
        importer.node(node).map_err(|e| unsupported(format!("{}: {e}", describe(node))))?;
    }
    let source = OnnxSource {
        folder: folder.into(),
        input_type: input.data_type,
        input_dims: input.view.dims(input.shape),
        is_nchw: !input.is_nhwc,
        is_half: has_halves(file),
        scores: importer.scores(&output.name),
        ..OnnxSource::default()
    };
    let graph = importer.finish(&output.name).map_err(unsupported)?;

    let classes = usize::from(graph.nodes[graph.output()].shape.c);
    let Shape { h, w, c } = input.shape;
    let preprocess = metadata("preprocess").and_then(|e| serde_json::from_str(&e.value).ok());
    let preprocess = preprocess.filter(|p: &Preprocess| {
        p.is_valid() && (p.height, p.width, p.channels()) == (h, w, usize::from(c))
    });
    let mut notes: Vec<String> = outputs::note(file, output).into_iter().collect();
    let preprocess = preprocess.or_else(|| {
        // Bytes are given as they are.
        let raw = Preprocess { grey: c == 1, ..Preprocess::raw(h, w) };
        let told = if input.has_bytes() { Some(raw) } else { preprocess_of(&graph) }?;
        let range = if told == raw { "0 to 255" } else { "0 to 1" };
        if graph.nodes[0].quant.is_none() {
            notes.push(format!("takes pictures as values {range} and prepares them itself"));
        }
        Some(told)
    });
    let float = FloatModel {
        labels: labels
            .filter(|l| l.len() == classes)
            .unwrap_or_else(|| imagenet::labels_of(classes)),
        is_preprocess_assumed: preprocess.is_none(),
        preprocess: preprocess.unwrap_or_else(|| usual(input.shape)),
        notes,
        ..FloatModel::new(graph)
    };
    Ok((float, source))
}

/// The version of ONNX's operators.
fn opset(model: &proto::Model) -> Result<i64, String> {
    let opset = model.opset_import.iter().find(|o| is_onnx(o.domain.as_deref().unwrap_or("")));
    let opset = opset.and_then(|o| o.version).unwrap_or(1);
    if !OPSETS.contains(&opset) {
        return Err(format!(
            "operators of version {opset}, but {} to {} are read; export it with another opset",
            OPSETS.start(),
            OPSETS.end()
        ));
    }
    Ok(opset)
}

/// How pictures are prepared for most networks of such an input.
fn usual(Shape { h, w, c }: Shape) -> Preprocess {
    // What is grey was rarely trained on ImageNet.
    let grey = c == 1;
    let [mean, std] = if grey { [[0.0; 3], [1.0; 3]] } else { IMAGENET_STATISTICS };
    Preprocess { grey, ..Preprocess::normalized(h, w, mean, std) }
}

fn is_onnx(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn describe(node: &proto::Node) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    let name = name.map_or("", String::as_str);
    format!("node `{}` ({})", name.plain(), node.op_type.plain())
}

/// Refuses a file with operators that are not read, before anything else is done.
fn check_operators(nodes: &[&proto::Node]) -> Result<(), String> {
    let strange: Vec<String> = nodes
        .iter()
        .filter(|n| !is_onnx(&n.domain) || !OPERATORS.split(' ').any(|read| read == n.op_type))
        .map(|node| describe(node))
        .collect();
    if strange.is_empty() {
        return Ok(());
    }
    let more = strange.len().saturating_sub(MAX_LISTED);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    let listed: Vec<&str> = strange.iter().take(MAX_LISTED).map(String::as_str).collect();
    Err(format!(
        "operators that are not read; networks of convolutions, batch-norms, ReLUs and their kin, sums, pools, \
         dense layers and squeeze-and-excitation are:\n  {}{more}\n{}",
        listed.join("\n  "),
        nodes.iter().find_map(|node| remedy(node)).unwrap_or(
            "take a network without them, such as a ResNet, MobileNet or EfficientNet of torchvision, timm or \
             Keras, or one of `trainer finetune`"
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

/// Whether some numbers of a file have 16 bits.
fn has_halves(file: &proto::Graph) -> bool {
    let is_half = |data_type: i32| [proto::FLOAT16, proto::BFLOAT16].contains(&data_type);
    let casts = |node: &proto::Node| {
        node.attribute.iter().any(|a| {
            a.name == "to" && a.i.and_then(|to| i32::try_from(to).ok()).is_some_and(is_half)
        })
    };
    file.initializer.iter().any(|t| t.data_type.is_some_and(is_half)) || file.node.iter().any(casts)
}

impl Importer<'_> {
    fn constants(&mut self, file: &proto::Graph) -> Result<(), String> {
        for tensor in &file.initializer {
            let constant = Constant::read(tensor, self.outside)
                .map_err(|e| format!("constant `{}`: {e}", tensor.name.plain()))?;
            if tensor.data_location == Some(proto::EXTERNAL) {
                let numbers = constant.len().saturating_mul(BUDGET_PER_BYTE);
                self.budget = self.budget.saturating_add(numbers);
            }
            self.values.insert(tensor.name.clone(), Value::Constant(Rc::new(constant)));
        }
        Ok(())
    }

    /// Counts numbers that are made of those of the file.
    fn spend(&mut self, numbers: usize) -> Result<(), String> {
        let left = self.budget.checked_sub(numbers);
        self.budget = left.ok_or("makes far more numbers than the file has; it is damaged")?;
        Ok(())
    }

    /// The file's name for the scores of the classes.
    fn scores(&self, output: &str) -> String {
        match (self.values.get(output), &self.logits) {
            (Some(Value::Map(Map { is_softmax: true, .. })), Some(logits)) => logits.clone(),
            _ => output.into(),
        }
    }

    /// The graph up to the scores.
    fn finish(mut self, output: &str) -> Result<Graph, String> {
        let Some(Value::Map(map)) = self.values.get(output).cloned() else {
            return Err(format!("the output `{}` depends on no picture", output.plain()));
        };
        let name = proto::Node { name: output.into(), ..Default::default() };
        let map = self.settled(&Call { node: &name, operands: Vec::new(), room: 0 }, &map)?;
        let shape = self.shape(&map);
        if shape.pixels() != 1 || map.id == 0 || map.border.is_some() {
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
