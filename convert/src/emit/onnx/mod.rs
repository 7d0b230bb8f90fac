//! ONNX for other engines: opset 13, IR version 8, one picture in NCHW.
//!
//! Input `input` is `[1, channels, height, width]`, already preprocessed; output `logits` is
//! `[1, classes]`. Preprocessing and labels travel as the metadata entries `preprocess` (a JSON
//! object) and `labels` (a JSON array in index order).
//!
//! Int8 is written in one of two forms ([`Form`]); weights and scales are those of the `.edge` file. Of
//! fp16 the weights have 16 bits, and a Cast behind them.

use super::edge::Format;
use crate::int8::int8_weights_of;
use artifact::{Curve, Padding, PoolKind, Preprocess, Quant, Shape};
use formats::onnx as proto;
use network::activation::Activation;
use network::graph::{Conv, Graph, NodeOp, ValueId};
use prost::Message;
use std::collections::{HashMap, HashSet};

mod integer;

/// Version of ONNX's operators.
const OPSET: i64 = 13;
/// Version of the file format.
const IR_VERSION: i64 = 8;
/// Name of the model's input.
pub const INPUT: &str = "input";
/// Name of the model's output.
pub const OUTPUT: &str = "logits";

/// How int8 is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Floats between QuantizeLinear and DequantizeLinear, which every engine runs, and which those
    /// for integers fuse.
    #[default]
    Qdq,
    /// Integers between operators: QLinearConv, and ConvInteger where a residual is added before
    /// the sum is rounded.
    Integer,
}

/// The model as an ONNX file; any graph will do, an optimized one gives the shortest file. Int8 wants
/// an optimized one; `form` is of int8.
pub fn to_onnx(
    graph: &Graph,
    format: Format<'_>,
    form: Form,
    labels: &[String],
    preprocess: &Preprocess,
) -> Vec<u8> {
    let mut emitter = Emitter::new(graph, format);
    match format {
        Format::I8(quants) if form == Form::Integer => emitter.integers(graph, quants),
        _ => emitter.floats(graph),
    }
    let metadata = |key: &str, value: serde_json::Value| proto::StringEntry {
        key: key.into(),
        value: value.to_string(),
    };
    let metadata = vec![
        metadata("labels", serde_json::json!(labels)),
        metadata("preprocess", serde_json::json!(preprocess)),
    ];
    let inputs = vec![proto::ValueInfo::tensor(INPUT, proto::FLOAT, &nchw(graph.input_shape()))];
    let outputs = vec![proto::ValueInfo::tensor(OUTPUT, proto::FLOAT, &output_dims(graph))];
    emitter.finish(&graph.name, inputs, outputs, metadata)
}

/// Each layer by itself, to compare what an engine computes of the same numbers: input `value i` is
/// what node `i` computes, output `computed i` what it does of its inputs; NCHW, floats or int8.
#[derive(Debug)]
pub struct Layers {
    /// The file.
    pub bytes: Vec<u8>,
    /// Values that are inputs, in the file's order.
    pub inputs: Vec<ValueId>,
    /// Nodes whose values are outputs, in the file's order.
    pub outputs: Vec<ValueId>,
}

/// The layers of an optimized graph, see [`Layers`].
pub fn to_onnx_layers(graph: &Graph, format: Format<'_>) -> Layers {
    let mut emitter = Emitter::new(graph, format);
    emitter.flat_output = false;
    let mut inputs: Vec<ValueId> = graph.nodes.iter().flat_map(|n| n.inputs.clone()).collect();
    inputs.sort_unstable();
    inputs.dedup();
    let outputs: Vec<ValueId> = (1..graph.nodes.len()).collect();
    let [read, computed] =
        ["value", "computed"].map(|role| move |id: ValueId| format!("{role} {id}"));
    for &id in &outputs {
        let names: Vec<String> = graph.nodes[id].inputs.iter().map(|&i| read(i)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match format {
            Format::I8(quants) => emitter.integer_node(graph, quants, id, &names, &computed(id)),
            _ => emitter.node(graph, id, &names, &computed(id)),
        }
    }
    let info = |name: String, id: ValueId| {
        let data_type = if emitter.int8(id).is_some() { proto::INT8 } else { proto::FLOAT };
        proto::ValueInfo::tensor(&name, data_type, &nchw(graph.nodes[id].shape))
    };
    let infos = |ids: &[ValueId], name: &dyn Fn(ValueId) -> String| {
        ids.iter().map(|&id| info(name(id), id)).collect::<Vec<_>>()
    };
    let (infos_in, infos_out) = (infos(&inputs, &read), infos(&outputs, &computed));
    let bytes = emitter.finish(&graph.name, infos_in, infos_out, Vec::new());
    Layers { bytes, inputs, outputs }
}

fn nchw(shape: Shape) -> Vec<i64> {
    vec![1, shape.c.into(), shape.h.into(), shape.w.into()]
}

/// `[1, classes]`; a graph that ends in a map keeps its four dimensions.
fn output_dims(graph: &Graph) -> Vec<i64> {
    let node = &graph.nodes[graph.output()];
    if node.shape.pixels() == 1 { vec![1, node.shape.c.into()] } else { nchw(node.shape) }
}

/// Names handed out so far; ONNX wants each value and constant to have its own.
struct Names(HashSet<String>);

impl Names {
    fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_string();
        let mut n = 1;
        while name.is_empty() || !self.0.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }
}

/// Window and groups of a convolution.
fn conv_window(conv: &Conv) -> Vec<proto::Attribute> {
    let mut attributes = window(conv.filter, conv.stride, conv.padding);
    if conv.groups > 1 {
        attributes.push(proto::Attribute::int("group", conv.groups.into()));
    }
    attributes
}

fn window(filter: [u16; 2], stride: [u16; 2], padding: Padding) -> Vec<proto::Attribute> {
    let Padding { top, left, bottom, right } = padding;
    vec![
        proto::Attribute::ints("kernel_shape", &filter.map(i64::from)),
        proto::Attribute::ints("strides", &stride.map(i64::from)),
        proto::Attribute::ints("pads", &[top, left, bottom, right].map(i64::from)),
    ]
}

/// Collects the parts of the file's graph.
struct Emitter<'a> {
    names: Names,
    nodes: Vec<proto::Node>,
    initializers: Vec<proto::Tensor>,
    format: Format<'a>,
    /// Whether the output loses its map dimensions.
    flat_output: bool,
    /// What the input is.
    picture: &'static str,
    /// Names of the scale and zero point of each value that has been named.
    quantizations: HashMap<ValueId, [String; 2]>,
}

impl<'a> Emitter<'a> {
    fn new(graph: &Graph, format: Format<'a>) -> Self {
        Self {
            format,
            names: Names([INPUT.into(), OUTPUT.into()].into()),
            nodes: Vec::new(),
            initializers: Vec::new(),
            flat_output: graph.output() > 0 && output_dims(graph).len() == 2,
            picture: if graph.input_shape().c == 1 { "the luma of a" } else { "an RGB" },
            quantizations: HashMap::new(),
        }
    }

    /// The quantization of all values, where that of `id` is int8.
    fn int8(&self, id: ValueId) -> Option<&'a [Quant]> {
        match self.format {
            Format::I8(quants) if !quants[id].is_float() => Some(quants),
            _ => None,
        }
    }

    /// All nodes as operations on floats, in int8 as QDQ.
    fn floats(&mut self, graph: &Graph) {
        // The name of each value in the file.
        let mut values: Vec<String> = Vec::with_capacity(graph.nodes.len());
        for (id, node) in graph.nodes.iter().enumerate() {
            let value = match node.op {
                NodeOp::Input => INPUT.into(),
                _ if id == graph.output() => OUTPUT.into(),
                _ => self.names.unique(&node.name),
            };
            let inputs: Vec<&str> = node.inputs.iter().map(|&i| values[i].as_str()).collect();
            self.node(graph, id, &inputs, &value);
            values.push(self.stored(id, value, id == graph.output()));
        }
    }

    fn finish(
        self,
        name: &str,
        input: Vec<proto::ValueInfo>,
        output: Vec<proto::ValueInfo>,
        metadata_props: Vec<proto::StringEntry>,
    ) -> Vec<u8> {
        let model = proto::Model {
            ir_version: Some(IR_VERSION),
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![proto::OperatorSet {
                domain: Some(String::new()),
                version: Some(OPSET),
            }],
            metadata_props,
            graph: Some(proto::Graph {
                node: self.nodes,
                name: name.into(),
                initializer: self.initializers,
                doc_string: format!(
                    "Input: {} picture, fitted and resized, then x * scale + offset per channel \
                     on values 0..=255 (metadata `preprocess`). Output: logits.",
                    self.picture
                ),
                input,
                output,
            }),
        };
        model.encode_to_vec()
    }

    fn push(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<proto::Attribute>,
    ) {
        self.nodes.push(proto::Node {
            input: inputs.iter().map(|&i| i.into()).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: op_type.into(),
            attribute,
            ..Default::default()
        });
    }

    /// Stores a constant and returns its name.
    fn constant(
        &mut self,
        owner: &str,
        part: &str,
        dims: &[usize],
        values: impl IntoIterator<Item = f32>,
    ) -> String {
        let name = self.names.unique(&format!("{owner}.{part}"));
        self.initializers.push(proto::Tensor {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(proto::FLOAT),
            name: name.clone(),
            raw_data: values.into_iter().flat_map(f32::to_le_bytes).collect(),
            ..Default::default()
        });
        name
    }

    /// Stores a constant of another type.
    fn raw(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) {
        self.initializers.push(proto::Tensor {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(data_type),
            name: name.into(),
            raw_data,
            ..Default::default()
        });
    }

    /// The name under which others read a value: in int8, after it was rounded to what is stored.
    fn stored(&mut self, id: usize, value: String, is_output: bool) -> String {
        let Some(quants) = self.int8(id) else { return value };
        let quant = quants[id];
        let owner = if is_output { OUTPUT.to_owned() } else { value.clone() };
        let [scale, zero, rounded] = ["scale", "zero_point", "int8"]
            .map(|part| self.names.unique(&format!("{owner}.{part}")));
        self.raw(&scale, &[], proto::FLOAT, quant.scale.to_le_bytes().into());
        self.raw(&zero, &[], proto::INT8, quant.zero_point.to_le_bytes().into());
        let mut real = value;
        if is_output {
            // The model's output keeps its name, what computed it gets another.
            real = self.names.unique(&format!("{OUTPUT}.real"));
            if let Some(last) = self.nodes.last_mut() {
                last.output[0].clone_from(&real);
                last.name.clone_from(&real);
            }
        }
        let name = if is_output { owner } else { self.names.unique(&format!("{owner}.stored")) };
        self.push("QuantizeLinear", &[&real, &scale, &zero], &rounded, Vec::new());
        self.push("DequantizeLinear", &[&rounded, &scale, &zero], &name, Vec::new());
        name
    }

    /// What `real` is once it was stored with a quantization that no value has.
    fn rounded(&mut self, quant: Quant, real: String) -> String {
        let [scale, zero, stored, rounded] = ["scale", "zero_point", "int8", "stored"]
            .map(|part| self.names.unique(&format!("{real}.{part}")));
        self.raw(&scale, &[], proto::FLOAT, quant.scale.to_le_bytes().into());
        self.raw(&zero, &[], proto::INT8, quant.zero_point.to_le_bytes().into());
        self.push("QuantizeLinear", &[&real, &scale, &zero], &stored, Vec::new());
        self.push("DequantizeLinear", &[&stored, &scale, &zero], &rounded, Vec::new());
        rounded
    }

    /// Weights and biases as what the file stores; `order` has the places of OHWI weights in the
    /// order of `dims`.
    fn weights(
        &mut self,
        graph: &Graph,
        id: usize,
        conv: &Conv,
        dims: &[usize],
        order: &[usize],
        target: &str,
    ) -> [String; 2] {
        let c_out = conv.bias.len();
        if let Some(quants) = self.int8(id) {
            let Integers { values, scales, units, bias } =
                Integers::new(graph, quants, id, conv, order);
            let [scales, units] = [scales, units].map(floats_as_bytes);
            let bias = bias.iter().flat_map(|bias| bias.to_le_bytes()).collect();
            return [
                self.dequantized(&format!("{target}.weight"), dims, proto::INT8, values, scales),
                self.dequantized(&format!("{target}.bias"), &[c_out], proto::INT32, bias, units),
            ];
        }
        let values = order.iter().map(|&at| conv.weights[at]);
        let bias = conv.bias.iter().copied();
        let weights = match self.format {
            // Floats of int8 models have such weights.
            Format::F16 | Format::I8(_) => {
                let raw = values.flat_map(|w| half::f16::from_f32(w).to_le_bytes()).collect();
                let [half, weights] =
                    ["fp16", "weight"].map(|part| self.names.unique(&format!("{target}.{part}")));
                self.raw(&half, dims, proto::FLOAT16, raw);
                self.push(
                    "Cast",
                    &[&half],
                    &weights,
                    vec![proto::Attribute::int("to", proto::FLOAT.into())],
                );
                weights
            }
            _ => self.constant(target, "weight", dims, values),
        };
        [weights, self.constant(target, "bias", &[c_out], bias)]
    }

    /// Integers with a scale for each place of the first dimension, and what makes floats of them.
    fn dequantized(
        &mut self,
        owner: &str,
        dims: &[usize],
        data_type: i32,
        values: Vec<u8>,
        scales: Vec<u8>,
    ) -> String {
        let [stored, scale, name] =
            ["int", "scale", "real"].map(|part| self.names.unique(&format!("{owner}.{part}")));
        self.raw(&stored, dims, data_type, values);
        self.raw(&scale, &dims[..1], proto::FLOAT, scales);
        self.push(
            "DequantizeLinear",
            &[&stored, &scale],
            &name,
            vec![proto::Attribute::int("axis", 0)],
        );
        name
    }

    /// Appends the operations of one node; the last of them produces `value`.
    fn node(&mut self, graph: &Graph, id: usize, inputs: &[&str], value: &str) {
        let node = &graph.nodes[id];
        let x_shape = node.inputs.first().map_or(node.shape, |&x| graph.nodes[x].shape);
        let flatten = self.flat_output && value == OUTPUT;
        match &node.op {
            NodeOp::Conv2d(conv) if flatten && is_dense(conv, x_shape) => {
                return self.dense(graph, id, conv, inputs[0], value);
            }
            NodeOp::Input => return,
            _ => {}
        }
        let target = if flatten { self.names.unique(&node.name) } else { value.into() };
        match &node.op {
            NodeOp::Input => {}
            NodeOp::Conv2d(conv) => self.conv(graph, id, conv, inputs, &target),
            NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon } => {
                let parts =
                    [("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)];
                let parts = parts.map(|(part, values)| {
                    self.constant(&target, part, &[values.len()], values.iter().copied())
                });
                let [gamma, beta, mean, variance] = parts.each_ref().map(String::as_str);
                let inputs = [inputs[0], gamma, beta, mean, variance];
                self.push(
                    "BatchNormalization",
                    &inputs,
                    &target,
                    vec![proto::Attribute::float("epsilon", *epsilon)],
                );
            }
            NodeOp::Affine { factor, addend, activation } => {
                let dims = [factor.len(), 1, 1];
                let factor = self.constant(&target, "factor", &dims, factor.iter().copied());
                let addend = self.constant(&target, "addend", &dims, addend.iter().copied());
                let product = self.names.unique(&format!("{target}_product"));
                self.push("Mul", &[inputs[0], &factor], &product, Vec::new());
                self.clamped(*activation, &target, |emitter, output| {
                    emitter.push("Add", &[&product, &addend], output, Vec::new());
                });
            }
            NodeOp::Cast => self.push("Identity", inputs, &target, Vec::new()),
            NodeOp::Activation(activation) => self.activation(*activation, inputs[0], &target),
            NodeOp::Add => self.push("Add", inputs, &target, Vec::new()),
            NodeOp::Gate { activation } => self.clamped(*activation, &target, |emitter, output| {
                emitter.push("Mul", inputs, output, Vec::new());
            }),
            NodeOp::Pool2d { kind, filter, stride, padding } => {
                let global = *filter == [x_shape.h, x_shape.w] && *padding == Padding::default();
                let mut attributes =
                    if global { Vec::new() } else { window(*filter, *stride, *padding) };
                if !global && *kind == PoolKind::Average {
                    attributes.push(proto::Attribute::int("count_include_pad", 0));
                }
                let op_type = match (kind, global) {
                    (PoolKind::Max, false) => "MaxPool",
                    (PoolKind::Max, true) => "GlobalMaxPool",
                    (PoolKind::Average, false) => "AveragePool",
                    (PoolKind::Average, true) => "GlobalAveragePool",
                };
                self.push(op_type, inputs, &target, attributes);
            }
        }
        if flatten {
            self.push("Flatten", &[&target], value, vec![proto::Attribute::int("axis", 1)]);
        }
    }

    fn conv(&mut self, graph: &Graph, id: usize, conv: &Conv, inputs: &[&str], target: &str) {
        let (dims, order) = oihw(conv);
        let [weights, bias] = self.weights(graph, id, conv, &dims, &order, target);
        self.clamped(conv.activation, target, |emitter, output| {
            let attributes = conv_window(conv);
            match inputs.get(1) {
                Some(residual) => {
                    let product = emitter.names.unique(&format!("{target}_conv"));
                    emitter.push("Conv", &[inputs[0], &weights, &bias], &product, attributes);
                    let rounded = conv.sum_quant.filter(|_| emitter.int8(id).is_some());
                    let product = match rounded {
                        Some(quant) => emitter.rounded(quant, product),
                        None => product,
                    };
                    emitter.push("Add", &[residual, &product], output, Vec::new());
                }
                None => emitter.push("Conv", &[inputs[0], &weights, &bias], output, attributes),
            }
        });
    }

    fn dense(&mut self, graph: &Graph, id: usize, conv: &Conv, x: &str, target: &str) {
        let (c_in, c_out) = (conv.row_len(), conv.bias.len());
        let order: Vec<usize> = (0..conv.weights.len()).collect();
        let [weights, bias] = self.weights(graph, id, conv, &[c_out, c_in], &order, target);
        let flat = self.names.unique(&format!("{target}_flat"));
        self.push("Flatten", &[x], &flat, vec![proto::Attribute::int("axis", 1)]);
        self.clamped(conv.activation, target, |emitter, output| {
            // Weights are (out, in).
            emitter.push(
                "Gemm",
                &[&flat, &weights, &bias],
                output,
                vec![proto::Attribute::int("transB", 1)],
            );
        });
    }

    /// Lets `emit` produce the value that, after `activation`, becomes `target`.
    fn clamped(
        &mut self,
        activation: Activation,
        target: &str,
        emit: impl FnOnce(&mut Self, &str),
    ) {
        if activation.is_none() {
            return emit(self, target);
        }
        let unclamped = self.names.unique(&format!("{target}_unclamped"));
        emit(self, &unclamped);
        // The layer is what is clamped.
        if let Some(layer) = self.nodes.last_mut() {
            layer.name = target.into();
        }
        self.activation(activation, &unclamped, target);
        if let Some(clamp) = self.nodes.last_mut() {
            clamp.name.push('_');
            clamp.name.push_str(activation.name());
        }
    }

    fn activation(&mut self, activation: Activation, x: &str, target: &str) {
        if activation == Activation::RELU {
            return self.push("Relu", &[x], target, Vec::new());
        }
        let [low, high] = match activation {
            Activation::Curve(curve) => return self.curve(curve, x, target),
            Activation::Clamp { low, high } => [low, high],
            Activation::None => [f32::NEG_INFINITY, f32::INFINITY],
        };
        let low = self.constant(target, "low", &[], [low]);
        let high = self.constant(target, "high", &[], [high]);
        self.push("Clip", &[x, &low, &high], target, Vec::new());
    }

    /// In operators that this version of ONNX has.
    fn curve(&mut self, curve: Curve, x: &str, target: &str) {
        let step = || {
            vec![proto::Attribute::float("alpha", 1.0 / 6.0), proto::Attribute::float("beta", 0.5)]
        };
        let (op_type, attributes) = match curve {
            Curve::HardSigmoid => return self.push("HardSigmoid", &[x], target, step()),
            Curve::Sigmoid => return self.push("Sigmoid", &[x], target, Vec::new()),
            Curve::HardSwish => ("HardSigmoid", step()),
            Curve::Silu => ("Sigmoid", Vec::new()),
            Curve::Gelu => {
                // x · (erf(x / √2) + 1) / 2
                let [scale, one, half] =
                    [("scale", core::f32::consts::FRAC_1_SQRT_2), ("one", 1.0), ("half", 0.5)]
                        .map(|(part, value)| self.constant(target, part, &[], [value]));
                let [scaled, erf, raised, share] = ["scaled", "erf", "raised", "share"]
                    .map(|part| self.names.unique(&format!("{target}_{part}")));
                self.push("Mul", &[x, &scale], &scaled, Vec::new());
                self.push("Erf", &[&scaled], &erf, Vec::new());
                self.push("Add", &[&erf, &one], &raised, Vec::new());
                self.push("Mul", &[&raised, &half], &share, Vec::new());
                return self.push("Mul", &[x, &share], target, Vec::new());
            }
        };
        let share = self.names.unique(&format!("{target}_share"));
        self.push(op_type, &[x], &share, attributes);
        self.push("Mul", &[x, &share], target, Vec::new());
    }
}

/// Dimensions of a convolution's weights, and their places in OHWI.
fn oihw(conv: &Conv) -> ([usize; 4], Vec<usize>) {
    let [rows, columns] = conv.filter.map(usize::from);
    let (c_out, taps) = (conv.bias.len(), rows * columns);
    let c_in = conv.weights.len() / (c_out * taps);
    let order = (0..c_out)
        .flat_map(|o| {
            (0..c_in).flat_map(move |c| (0..taps).map(move |tap| (o * taps + tap) * c_in + c))
        })
        .collect();
    ([c_out, c_in, rows, columns], order)
}

/// A convolution's numbers in int8.
struct Integers {
    /// Weights, as bytes.
    values: Vec<u8>,
    /// Size of a step of the weights, for each output.
    scales: Vec<f32>,
    /// Size of a step of the sums, for each output.
    units: Vec<f32>,
    /// Biases in these.
    bias: Vec<i32>,
}

impl Integers {
    fn new(graph: &Graph, quants: &[Quant], id: ValueId, conv: &Conv, order: &[usize]) -> Self {
        let int8 = int8_weights_of(graph, id, conv, quants);
        let x = quants[graph.nodes[id].inputs[0]];
        let units: Vec<f32> = int8.scales.iter().map(|scale| scale * x.scale).collect();
        let bias = conv.bias.iter().zip(&units);
        Self {
            values: order.iter().map(|&at| int8.values[at] as u8).collect(),
            bias: bias.map(|(b, unit)| (f64::from(*b) / f64::from(*unit)).round() as i32).collect(),
            scales: int8.scales,
            units,
        }
    }
}

fn floats_as_bytes(values: Vec<f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn is_dense(conv: &Conv, x: Shape) -> bool {
    x.pixels() == 1 && conv.filter == [1; 2] && !conv.residual
}
