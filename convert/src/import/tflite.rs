//! TensorFlow Lite files (`schema.fbs`, version 3), float or int8.
//!
//! A file is rewritten as the ONNX graph that means the same, and imported as that: a quantized
//! value becomes a QuantizeLinear with a DequantizeLinear behind, a fused ReLU a node of its own, and
//! maps, which here lie as NHWC, are transposed around convolutions and back, which costs nothing
//! since only the name of the layout changes. Names in messages are those of the file's tensors.

use super::flatbuffer::{Table, part};
use super::{ImportError, onnx};
use crate::model::FloatModel;
use crate::onnx_proto as proto;
use artifact::{Preprocess, Quant};
use flatbuffers::InvalidFlatbuffer;
use std::collections::HashSet;
use std::path::Path;

/// Bytes 4 to 7 of a file.
const IDENTIFIER: &[u8] = b"TFL3";
/// The version of ONNX's operators that is written: reductions still name their axes as attributes.
const OPSET: i64 = 13;

/// Numbers of operators (`BuiltinOperator`) that are read or often met, and their names.
const OPERATORS: [(i32, &str); 45] = [
    (0, "ADD"),
    (1, "AVERAGE_POOL_2D"),
    (2, "CONCATENATION"),
    (3, "CONV_2D"),
    (4, "DEPTHWISE_CONV_2D"),
    (6, "DEQUANTIZE"),
    (9, "FULLY_CONNECTED"),
    (14, "LOGISTIC"),
    (16, "LSTM"),
    (17, "MAX_POOL_2D"),
    (18, "MUL"),
    (19, "RELU"),
    (20, "RELU_N1_TO_1"),
    (21, "RELU6"),
    (22, "RESHAPE"),
    (23, "RESIZE_BILINEAR"),
    (25, "SOFTMAX"),
    (28, "TANH"),
    (32, "CUSTOM"),
    (34, "PAD"),
    (36, "GATHER"),
    (37, "BATCH_TO_SPACE_ND"),
    (38, "SPACE_TO_BATCH_ND"),
    (39, "TRANSPOSE"),
    (40, "MEAN"),
    (41, "SUB"),
    (42, "DIV"),
    (43, "SQUEEZE"),
    (45, "STRIDED_SLICE"),
    (49, "SPLIT"),
    (50, "LOG_SOFTMAX"),
    (53, "CAST"),
    (54, "PRELU"),
    (56, "ARG_MAX"),
    (60, "PADV2"),
    (65, "SLICE"),
    (70, "EXPAND_DIMS"),
    (74, "SUM"),
    (82, "REDUCE_MAX"),
    (97, "RESIZE_NEAREST_NEIGHBOR"),
    (98, "LEAKY_RELU"),
    (114, "QUANTIZE"),
    (117, "HARD_SWISH"),
    (126, "BATCH_MATMUL"),
    (150, "GELU"),
];

/// Whether bytes are a TensorFlow Lite model.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(IDENTIFIER)
}

/// Reads a file. `size` is the input's height and width, where the file leaves them open.
pub(super) fn tflite(
    path: &Path,
    bytes: &[u8],
    size: Option<u16>,
) -> Result<FloatModel, ImportError> {
    let rewritten = File::read(bytes).and_then(|file| file.rewrite());
    let (model, input) = rewritten.map_err(|e| ImportError::unsupported(path, e.to_string()))?;
    let mut float = onnx::model(path, &model, size)?;
    if let Some(preprocess) = input.and_then(|quant| preprocess_of(quant, &float.preprocess)) {
        float.preprocess = preprocess;
        float.is_preprocess_assumed = false;
    }
    Ok(float)
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a damaged TensorFlow Lite model ({})", .0.to_string().replace('\n', " "))]
    Damaged(#[from] InvalidFlatbuffer),
    #[error("{0}")]
    Unsupported(String),
}

/// How pictures are prepared for an input that is stored as `quant`: the 256 numbers that it can be
/// tell, where they are a picture's bytes, 0 to 1, or −1 to 1.
fn preprocess_of(quant: Quant, size: &Preprocess) -> Option<Preprocess> {
    let [low, high] = [-128, 127].map(|q| quant.dequantize(q));
    let near = |a: f32, b: f32, step: f32| (a - b).abs() <= step;
    let (height, width) = (size.height, size.width);
    let is = |l, h| near(low, l, quant.scale) && near(high, h, quant.scale);
    if is(0.0, 255.0) {
        Some(Preprocess::raw(height, width))
    } else if is(0.0, 1.0) {
        Some(Preprocess::normalized(height, width, [0.0; 3], [1.0; 3]))
    } else if is(-1.0, 1.0) {
        Some(Preprocess::normalized(height, width, [0.5; 3], [0.5; 3]))
    } else {
        None
    }
}

/// A value of the file (`Tensor`).
struct Tensor<'a> {
    /// Its dimensions; −1 where the file leaves one open.
    dims: Vec<i64>,
    data_type: i32,
    /// Numbers; empty where they are computed.
    data: &'a [u8],
    name: String,
    scales: Vec<f32>,
    zero_points: Vec<i64>,
    /// The dimension that scales belong to.
    axis: i64,
}

impl Tensor<'_> {
    fn is_quantized(&self) -> bool {
        !self.scales.is_empty() && self.data_type != proto::FLOAT
    }

    /// Dimensions, axes and borders, which are integers of 32 or 64 bits.
    fn to_ints(&self) -> Option<Vec<i64>> {
        let wide = |bytes: &[u8; 4]| i32::from_le_bytes(*bytes).into();
        match self.data_type {
            _ if self.data.is_empty() => None,
            proto::INT32 => Some(self.data.as_chunks().0.iter().map(wide).collect()),
            proto::INT64 => {
                Some(self.data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
            }
            _ => None,
        }
    }
}

/// A layer of the file (`Operator`).
struct Layer<'a> {
    operator: i32,
    /// Of an operator that the file brings itself.
    custom: String,
    /// Indices of tensors; −1 where one is left out.
    inputs: Vec<i32>,
    outputs: Vec<i32>,
    options: Option<Table<'a>>,
}

impl Layer<'_> {
    fn operator_name(&self) -> String {
        let known = OPERATORS.iter().find(|(number, _)| *number == self.operator);
        match known {
            _ if !self.custom.is_empty() => self.custom.clone(),
            Some((_, name)) => (*name).into(),
            None => format!("operator {}", self.operator),
        }
    }

    /// A number of the options; zero where it is left out.
    fn option<const N: usize>(
        &self,
        field: u16,
        read: fn([u8; N]) -> i64,
    ) -> Result<i64, InvalidFlatbuffer> {
        self.options.map_or(Ok(0), |options| options.number(field, read, 0))
    }

    fn byte(&self, field: u16) -> Result<i64, InvalidFlatbuffer> {
        self.option(field, |[byte]| byte.into())
    }

    fn int(&self, field: u16) -> Result<i64, InvalidFlatbuffer> {
        self.option(field, |bytes| i32::from_le_bytes(bytes).into())
    }
}

/// What is read of a file: its first graph.
struct File<'a> {
    tensors: Vec<Tensor<'a>>,
    layers: Vec<Layer<'a>>,
    inputs: Vec<i32>,
    outputs: Vec<i32>,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let model = Table::root(bytes)?;
        let buffers = model.tables(4)?;
        let codes = model.tables(1)?;
        let graphs = model.tables(2)?;
        let graph = graphs.first();
        let graph = graph.ok_or_else(|| Fault::Unsupported("a model without a graph".into()))?;
        let tensor = |table: &Table<'a>| -> Result<Tensor<'a>, Fault> {
            let buffer = table.number(2, u32::from_le_bytes, 0)? as usize;
            let data = match buffers.get(buffer) {
                Some(buffer) => data(bytes, *buffer)?,
                None => &[],
            };
            let [shape, signature] = [0, 7].map(|field| table.numbers(field, i32::from_le_bytes));
            let (shape, signature) = (shape?, signature?);
            let dims = if signature.is_empty() { shape } else { signature };
            let quantization = table.table(4)?;
            let (mut scales, mut zero_points, mut axis) = (Vec::new(), Vec::new(), 0);
            if let Some(q) = quantization {
                scales = q.numbers(2, f32::from_le_bytes)?;
                zero_points = q.numbers(3, i64::from_le_bytes)?;
                axis = q.number(6, i32::from_le_bytes, 0)?.into();
            }
            Ok(Tensor {
                dims: dims.into_iter().map(i64::from).collect(),
                data_type: data_type(table.number(1, i8::from_le_bytes, 0)?),
                data,
                name: String::from_utf8_lossy(table.bytes(3)?).into_owned(),
                scales,
                zero_points,
                axis,
            })
        };
        let layer = |table: Table<'a>| -> Result<Layer<'a>, Fault> {
            let code = codes.get(table.number(0, u32::from_le_bytes, 0)? as usize);
            let code = code.ok_or_else(|| Fault::Unsupported("an operator without code".into()))?;
            // The first field holds what fits a byte, and is all that old files have.
            let old = i32::from(code.number(0, i8::from_le_bytes, 0)?);
            Ok(Layer {
                operator: old.max(code.number(3, i32::from_le_bytes, 0)?),
                custom: String::from_utf8_lossy(code.bytes(1)?).into_owned(),
                inputs: table.numbers(1, i32::from_le_bytes)?,
                outputs: table.numbers(2, i32::from_le_bytes)?,
                options: table.table(4)?,
            })
        };
        Ok(Self {
            tensors: graph.tables(0)?.iter().map(tensor).collect::<Result<_, _>>()?,
            layers: graph.tables(3)?.into_iter().map(layer).collect::<Result<_, _>>()?,
            inputs: graph.numbers(1, i32::from_le_bytes)?,
            outputs: graph.numbers(2, i32::from_le_bytes)?,
        })
    }

    fn tensor(&self, index: i32) -> Result<&Tensor<'a>, Fault> {
        usize::try_from(index)
            .ok()
            .and_then(|i| self.tensors.get(i))
            .ok_or_else(|| Fault::Unsupported(format!("a layer names tensor {index}, of none")))
    }

    /// The operands of a layer that become operands of a node.
    fn operands<'b>(&self, layer: &'b Layer<'_>) -> &'b [i32] {
        match layer.operator_name().as_str() {
            // The others say what the shape of the result says, too.
            "RESHAPE" | "SQUEEZE" | "EXPAND_DIMS" | "MEAN" | "REDUCE_MAX" | "TRANSPOSE" | "PAD" => {
                layer.inputs.get(..1).unwrap_or(&[])
            }
            _ => &layer.inputs,
        }
    }

    /// Tensors that the first output depends on.
    fn needed(&self) -> HashSet<i32> {
        let mut needed: HashSet<i32> = self.outputs.iter().take(1).copied().collect();
        for layer in self.layers.iter().rev() {
            if layer.outputs.iter().any(|o| needed.contains(o)) {
                needed.extend(self.operands(layer));
            }
        }
        needed
    }

    /// The model as ONNX, and how its input is stored.
    fn rewrite(&self) -> Result<(proto::Model, Option<Quant>), Fault> {
        let mut writer =
            Writer { file: self, graph: proto::Graph::default(), written: HashSet::new() };
        let mut quant = None;
        for &index in &self.inputs {
            let tensor = self.tensor(index)?;
            let name = format!("input {index}");
            writer.graph.input.push(proto::ValueInfo::tensor(&name, proto::FLOAT, &tensor.dims));
            quant = writer.stored(index, name)?;
        }
        let needed = self.needed();
        for layer in &self.layers {
            if layer.outputs.iter().any(|o| needed.contains(o)) {
                writer.layer(layer)?;
            }
        }
        let output = self.outputs.first();
        let output = output.ok_or_else(|| Fault::Unsupported("a model without output".into()))?;
        writer.graph.output.push(proto::ValueInfo::tensor(&value(*output), proto::FLOAT, &[]));
        let model = proto::Model {
            opset_import: vec![proto::OperatorSet { domain: None, version: Some(OPSET) }],
            graph: Some(writer.graph),
            ..Default::default()
        };
        Ok((model, quant))
    }
}

/// The numbers of a `Buffer`, which in files beyond 2 GiB lie behind all tables.
fn data<'a>(file: &'a [u8], buffer: Table<'a>) -> Result<&'a [u8], InvalidFlatbuffer> {
    let [offset, size] = [1, 2].map(|field| buffer.number(field, u64::from_le_bytes, 0));
    match (offset?, size?) {
        (0 | 1, _) => buffer.bytes(0),
        (offset, size) => part(
            file,
            usize::try_from(offset).unwrap_or(usize::MAX),
            usize::try_from(size).unwrap_or(usize::MAX),
        ),
    }
}

/// ONNX's number of a `TensorType`; zero, which is none, for those that are not read.
fn data_type(tensor_type: i8) -> i32 {
    match tensor_type {
        0 => proto::FLOAT,
        1 => proto::FLOAT16,
        2 => proto::INT32,
        3 => proto::UINT8,
        4 => proto::INT64,
        9 => proto::INT8,
        18 => proto::BFLOAT16,
        _ => 0,
    }
}

/// The name of a tensor in the rewritten graph.
fn value(index: i32) -> String {
    format!("tensor {index}")
}

/// Writes the graph of ONNX.
struct Writer<'f, 'a> {
    file: &'f File<'a>,
    graph: proto::Graph,
    /// Constants that are written already.
    written: HashSet<i32>,
}

impl Writer<'_, '_> {
    fn push(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<proto::Attribute>,
    ) {
        self.graph.node.push(proto::Node {
            input: inputs.iter().map(|&i| i.into()).collect(),
            output: vec![output.into()],
            name: name.into(),
            op_type: op_type.into(),
            attribute,
            ..Default::default()
        });
    }

    fn constant(&mut self, name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) {
        self.graph.initializer.push(proto::Tensor {
            dims: dims.to_vec(),
            data_type: Some(data_type),
            name: name.into(),
            raw_data,
            ..Default::default()
        });
    }

    /// Scale and zero point of a tensor as constants.
    fn quantization(&mut self, index: i32, tensor: &Tensor<'_>) -> [String; 2] {
        let names = ["scale", "zero point"].map(|part| format!("{} {part}", value(index)));
        let is_one = tensor.scales.len() == 1;
        let dims = if is_one { vec![] } else { vec![tensor.scales.len() as i64] };
        let scales = tensor.scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        self.constant(&names[0], &dims, proto::FLOAT, scales);
        let mut zeros = tensor.zero_points.clone();
        zeros.resize(tensor.scales.len(), 0);
        let (data_type, zeros) = match tensor.data_type {
            proto::INT32 => {
                (proto::INT32, zeros.iter().flat_map(|&z| (z as i32).to_le_bytes()).collect())
            }
            other => (other, zeros.iter().map(|&z| z as u8).collect()),
        };
        self.constant(&names[1], &dims, data_type, zeros);
        names
    }

    /// The name of an operand, which is written first where it is a constant.
    fn operand(&mut self, index: i32) -> Result<String, Fault> {
        let tensor = self.file.tensor(index)?;
        let name = value(index);
        if tensor.data.is_empty() || !self.written.insert(index) {
            return Ok(name);
        }
        if tensor.data_type == 0 {
            return Err(Fault::Unsupported(format!(
                "tensor `{}` has numbers of a type that is not read",
                tensor.name.escape_debug()
            )));
        }
        let data = tensor.data.to_vec();
        if tensor.is_quantized() {
            let stored = format!("{name} stored");
            self.constant(&stored, &tensor.dims, tensor.data_type, data);
            let [scale, zero] = self.quantization(index, tensor);
            let axis = vec![proto::Attribute::int("axis", tensor.axis)];
            self.push("DequantizeLinear", &tensor.name, &[&stored, &scale, &zero], &name, axis);
        } else {
            self.constant(&name, &tensor.dims, tensor.data_type, data);
        }
        Ok(name)
    }

    /// Makes tensor `index` of what node `real` computes: rounded to what is stored.
    fn stored(&mut self, index: i32, real: String) -> Result<Option<Quant>, Fault> {
        let tensor = self.file.tensor(index)?;
        let title = first_name(tensor).to_owned();
        if !tensor.is_quantized() {
            self.push("Identity", &title, &[&real], &value(index), Vec::new());
            return Ok(None);
        }
        let &[scale] = &tensor.scales[..] else {
            let count = tensor.scales.len();
            return Err(Fault::Unsupported(format!("`{title}` is a map with {count} scales")));
        };
        let zero = tensor.zero_points.first().copied().unwrap_or(0);
        let zero_point = match tensor.data_type {
            proto::INT8 => zero,
            proto::UINT8 => zero - 128,
            _ => {
                return Err(Fault::Unsupported(format!(
                    "`{title}` is a map of integers that have not 8 bits"
                )));
            }
        };
        let [scale_name, zero_name] = self.quantization(index, tensor);
        let rounded = format!("{real} rounded");
        let inputs = [&real, &scale_name, &zero_name].map(String::as_str);
        self.push("QuantizeLinear", &title, &inputs, &rounded, Vec::new());
        let inputs = [&rounded, &scale_name, &zero_name].map(String::as_str);
        self.push("DequantizeLinear", &title, &inputs, &value(index), Vec::new());
        // A zero point beyond 8 bits is refused where it is read.
        Ok(i8::try_from(zero_point).ok().map(|zero_point| Quant { scale, zero_point }))
    }

    fn layer(&mut self, layer: &Layer<'_>) -> Result<(), Fault> {
        let operator = layer.operator_name();
        let [output, ..] = layer.outputs[..] else {
            return Err(Fault::Unsupported(format!("{operator} computes nothing")));
        };
        let result = self.file.tensor(output)?;
        let mut operands = Vec::new();
        for &index in self.file.operands(layer) {
            operands.push(if index < 0 { String::new() } else { self.operand(index)? });
        }
        let inputs: Vec<&str> = operands.iter().map(String::as_str).collect();
        let numbers = |i: usize| match layer.inputs.get(i) {
            Some(&index) => self.file.tensor(index).map(Tensor::to_ints),
            None => Ok(None),
        };
        let constant = |i: usize| {
            let what = || Fault::Unsupported(format!("{operator}: operand {i} is no constant"));
            numbers(i)?.ok_or_else(what)
        };
        // Weights have the name of their layer; results often that of what they are fused with.
        let named = match (operator.as_str(), layer.inputs.get(1)) {
            ("CONV_2D" | "FULLY_CONNECTED", Some(&weights)) => self.file.tensor(weights)?,
            _ => result,
        };
        let title = first_name(named).to_owned();
        let real = format!("{} real", value(output));
        // The code of a fused clamp, of operators that may have one.
        let mut clamp = 0;
        match operator.as_str() {
            "CONV_2D" => {
                clamp = layer.byte(3)?;
                let mut attributes = vec![
                    proto::Attribute::ints("strides", &[layer.int(2)?, layer.int(1)?]),
                    proto::Attribute::ints(
                        "dilations",
                        &[layer.int(5)?.max(1), layer.int(4)?.max(1)],
                    ),
                ];
                attributes.push(automatic_padding(layer)?);
                let [x, weights] = [0, 1].map(|i| format!("{real} nchw {i}"));
                let from = |i: usize| inputs.get(i).copied().unwrap_or_default();
                let to_nchw = || vec![proto::Attribute::ints("perm", &[0, 3, 1, 2])];
                self.push("Transpose", &title, &[from(0)], &x, to_nchw());
                self.push("Transpose", &title, &[from(1)], &weights, to_nchw());
                let channels_first = format!("{real} nchw");
                let operands = [&x, &weights, from(2)];
                self.push("Conv", &title, &operands, &channels_first, attributes);
                let back = vec![proto::Attribute::ints("perm", &[0, 2, 3, 1])];
                self.push("Transpose", &title, &[&channels_first], &real, back);
            }
            "MAX_POOL_2D" | "AVERAGE_POOL_2D" => {
                clamp = layer.byte(5)?;
                let attributes = vec![
                    proto::Attribute::ints("strides", &[layer.int(2)?, layer.int(1)?]),
                    proto::Attribute::ints("kernel_shape", &[layer.int(4)?, layer.int(3)?]),
                    automatic_padding(layer)?,
                ];
                let kind = if operator == "MAX_POOL_2D" { "MaxPool" } else { "AveragePool" };
                let [x, y] = [0, 1].map(|i| format!("{real} nchw {i}"));
                self.push(
                    "Transpose",
                    &title,
                    &inputs,
                    &x,
                    vec![proto::Attribute::ints("perm", &[0, 3, 1, 2])],
                );
                self.push(kind, &title, &[&x], &y, attributes);
                self.push(
                    "Transpose",
                    &title,
                    &[&y],
                    &real,
                    vec![proto::Attribute::ints("perm", &[0, 2, 3, 1])],
                );
            }
            "FULLY_CONNECTED" => {
                clamp = layer.byte(0)?;
                if layer.byte(1)? != 0 {
                    let what = format!("`{title}`: weights in a shuffled order");
                    return Err(Fault::Unsupported(what));
                }
                let flat = format!("{real} flat");
                let [x, others @ ..] = &inputs[..] else { return Ok(()) };
                self.push("Flatten", &title, &[x], &flat, Vec::new());
                let operands: Vec<&str> =
                    [flat.as_str()].into_iter().chain(others.iter().copied()).collect();
                self.push(
                    "Gemm",
                    &title,
                    &operands,
                    &real,
                    vec![proto::Attribute::int("transB", 1)],
                );
            }
            "ADD" | "SUB" | "MUL" | "DIV" => {
                clamp = layer.byte(0)?;
                let kind = match operator.as_str() {
                    "ADD" => "Add",
                    "SUB" => "Sub",
                    "MUL" => "Mul",
                    _ => "Div",
                };
                self.push(kind, &title, &inputs, &real, Vec::new());
            }
            "MEAN" | "REDUCE_MAX" => {
                let kind = if operator == "MEAN" { "ReduceMean" } else { "ReduceMax" };
                let attributes = vec![
                    proto::Attribute::ints("axes", &constant(1)?),
                    proto::Attribute::int("keepdims", layer.byte(0)?),
                ];
                self.push(kind, &title, &inputs, &real, attributes);
            }
            "RESHAPE" | "SQUEEZE" | "EXPAND_DIMS" => {
                // An open number of pictures is one.
                let dims: Vec<i64> =
                    result.dims.iter().map(|&d| if d < 0 { 1 } else { d }).collect();
                let shape = format!("{real} shape");
                let raw = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
                self.constant(&shape, &[dims.len() as i64], proto::INT64, raw);
                self.push("Reshape", &title, &[inputs[0], &shape], &real, Vec::new());
            }
            "TRANSPOSE" => {
                let order = vec![proto::Attribute::ints("perm", &constant(1)?)];
                self.push("Transpose", &title, &inputs, &real, order);
            }
            "PAD" | "PADV2" => {
                // Before and after, dimension by dimension; ONNX has all before and all after.
                let pads = constant(1)?;
                let pads: Vec<i64> =
                    pads.iter().step_by(2).chain(pads.iter().skip(1).step_by(2)).copied().collect();
                let mut operands = vec![inputs[0]];
                if let Some(value) = inputs.get(2) {
                    operands.extend(["", value]);
                }
                self.push(
                    "Pad",
                    &title,
                    &operands,
                    &real,
                    vec![proto::Attribute::ints("pads", &pads)],
                );
            }
            "RELU" => self.push("Relu", &title, &inputs, &real, Vec::new()),
            "CAST" | "QUANTIZE" | "DEQUANTIZE" => {
                self.push("Identity", &title, &inputs, &real, Vec::new());
            }
            // The stored probabilities say nothing of logits.
            "SOFTMAX" | "LOG_SOFTMAX" => {
                self.push("Softmax", &title, &inputs, &value(output), Vec::new());
                return Ok(());
            }
            // Listed with all others that are not read, by the importer.
            _ => self.push(&operator, &title, &inputs, &real, Vec::new()),
        }
        let clamped = format!("{real} clamped");
        let real = match clamp {
            0 => real,
            code => {
                let kind = match code {
                    1 => "Relu",
                    2 => "RELU_N1_TO_1",
                    3 => "RELU6",
                    4 => "TANH",
                    _ => "SIGN_BIT",
                };
                self.push(kind, &title, &[&real], &clamped, Vec::new());
                clamped
            }
        };
        self.stored(output, real)?;
        Ok(())
    }
}

/// The name of a tensor; of those that were fused, the first.
fn first_name<'a>(tensor: &'a Tensor<'_>) -> &'a str {
    tensor.name.split(';').next().unwrap_or_default()
}

fn automatic_padding(layer: &Layer<'_>) -> Result<proto::Attribute, InvalidFlatbuffer> {
    let rule = if layer.byte(0)? == 0 { "SAME_UPPER" } else { "VALID" };
    Ok(proto::Attribute { name: "auto_pad".into(), s: rule.into(), ..Default::default() })
}
