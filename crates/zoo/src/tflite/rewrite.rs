//! The same as ONNX.

use super::Fault;
use super::file::{File, Layer, Tensor};
use artifact::text::AsPlain;
use flatbuffers::InvalidFlatbuffer;
use formats::onnx as proto;
use std::collections::HashSet;

/// What to do about other numbers than floats and int8.
const REMEDY: &str = "convert it again in floats, or to int8 (optimizations = [DEFAULT])";

/// The version of ONNX's operators that is written: reductions still name their axes as attributes.
const OPSET: i64 = 13;

/// The model as ONNX.
pub(super) fn rewrite(file: &File<'_>) -> Result<proto::Model, Fault> {
    let room = file.bytes * COPIES;
    let mut writer = Writer {
        file,
        graph: proto::Graph::default(),
        written: HashSet::new(),
        computed: HashSet::new(),
        room,
    };
    if file.inputs.len().max(file.outputs.len()) > MAX_ENDS {
        let count = file.inputs.len().max(file.outputs.len());
        return Err(Fault::Unsupported(format!("{count} inputs or outputs; the file is damaged")));
    }
    for &index in &file.inputs {
        let tensor = file.tensor(index)?;
        let name = format!("input {index}");
        writer.graph.input.push(proto::ValueInfo::tensor(&name, proto::FLOAT, &tensor.dims));
        writer.stored(index, name)?;
    }
    let needed = file.needed();
    for layer in &file.layers {
        if layer.outputs.iter().any(|o| needed.contains(o)) {
            writer.layer(layer)?;
        }
    }
    for &index in &file.outputs {
        // Under the names that people know them by.
        let tensor = file.tensor(index)?;
        let is_taken = writer.graph.output.iter().any(|o| o.name == tensor.name);
        let is_name = !is_taken && !tensor.name.is_empty();
        let name = if is_name { tensor.name.clone() } else { format!("output {index}") };
        writer.push("Identity", &name, &[&value(index)], &name, Vec::new());
        let format = if tensor.is_quantized() { proto::FLOAT } else { tensor.data_type };
        writer.graph.output.push(proto::ValueInfo::tensor(&name, format, &tensor.dims));
    }
    Ok(proto::Model {
        opset_import: vec![proto::OperatorSet { domain: None, version: Some(OPSET) }],
        graph: Some(writer.graph),
        ..Default::default()
    })
}

/// How often the numbers of a file may be copied: tensors may share them.
const COPIES: usize = 4;
/// Most inputs, and most outputs.
const MAX_ENDS: usize = 64;
/// Most dimensions of a map, before and behind which borders may be.
const MAX_OPTIONS: usize = 16;

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
    /// Tensors that a layer has computed.
    computed: HashSet<i32>,
    /// Bytes of constants that may still be written.
    room: usize,
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
                "tensor `{}` has numbers of {}, which are not read; {REMEDY}",
                tensor.name.plain(),
                tensor.type_name()
            )));
        }
        let what = "tensors that share their numbers too often; the file is damaged";
        self.room = (self.room.checked_sub(tensor.data.len()))
            .ok_or_else(|| Fault::Unsupported(what.into()))?;
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
    fn stored(&mut self, index: i32, real: String) -> Result<(), Fault> {
        let tensor = self.file.tensor(index)?;
        let title = first_name(tensor).to_owned();
        if !tensor.is_quantized() {
            self.push("Identity", &title, &[&real], &value(index), Vec::new());
            return Ok(());
        }
        let wrong = match (tensor.data_type, tensor.scales.len()) {
            (proto::INT8 | proto::UINT8, 1) => None,
            (proto::INT8 | proto::UINT8, count) => Some(format!("{count} scales, but one is read")),
            _ => Some(format!("numbers of {}, but 8 bits are read; {REMEDY}", tensor.type_name())),
        };
        if let Some(wrong) = wrong {
            let title = title.plain();
            return Err(Fault::Unsupported(format!("`{title}` is a map with {wrong}")));
        }
        let [scale, zero] = self.quantization(index, tensor);
        let rounded = format!("{real} rounded");
        self.push("QuantizeLinear", &title, &[&real, &scale, &zero], &rounded, Vec::new());
        let inputs = [&rounded, &scale, &zero].map(String::as_str);
        self.push("DequantizeLinear", &title, &inputs, &value(index), Vec::new());
        Ok(())
    }

    fn layer(&mut self, layer: &Layer<'_>) -> Result<(), Fault> {
        let operator = layer.operator_name();
        let [output, ..] = layer.outputs[..] else {
            return Err(Fault::Unsupported(format!("{operator} computes nothing")));
        };
        let result = self.file.tensor(output)?;
        if !self.computed.insert(output) {
            let what = format!("{operator}: computes tensor {output} a second time");
            return Err(Fault::Unsupported(what));
        }
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
            numbers(i)?.filter(|numbers| numbers.len() <= MAX_OPTIONS).ok_or_else(what)
        };
        let first = || {
            let what = || Fault::Unsupported(format!("{operator} without an operand"));
            inputs.first().copied().ok_or_else(what)
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
                self.push("Flatten", &title, &[first()?], &flat, Vec::new());
                let mut operands = inputs.clone();
                operands[0] = &flat;
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
                self.push("Reshape", &title, &[first()?, &shape], &real, Vec::new());
            }
            "TRANSPOSE" => {
                let order = vec![proto::Attribute::ints("perm", &constant(1)?)];
                self.push("Transpose", &title, &inputs, &real, order);
            }
            "GATHER" => {
                let axis = vec![proto::Attribute::int("axis", layer.int(0)?)];
                self.push("Gather", &title, &inputs, &real, axis);
            }
            "STRIDED_SLICE" => {
                let (begin, end, steps) = (constant(1)?, constant(2)?, constant(3)?);
                // Bits of dimensions that are taken from their first place, or to their last.
                let [from_first, to_last] = [layer.int(0)?, layer.int(1)?];
                if [2, 3, 4].iter().any(|&field| layer.int(field).is_ok_and(|mask| mask != 0)) {
                    return Err(Fault::Unsupported(format!(
                        "`{title}`: a slice that adds or leaves away dimensions"
                    )));
                }
                let ends = |numbers: &[i64], mask: i64, open: fn(bool) -> i64| -> Vec<i64> {
                    let is_open = |i: usize| mask >> i & 1 != 0;
                    let place = |(i, (&n, &step)): (usize, (&i64, &i64))| {
                        if is_open(i) { open(step > 0) } else { n }
                    };
                    numbers.iter().zip(&steps).enumerate().map(place).collect()
                };
                let starts = ends(&begin, from_first, |rising| if rising { 0 } else { -1 });
                let ends = ends(&end, to_last, |rising| if rising { i64::MAX } else { i64::MIN });
                let attributes = vec![
                    proto::Attribute::ints("starts", &starts),
                    proto::Attribute::ints("ends", &ends),
                    proto::Attribute::ints("steps", &steps),
                ];
                self.push("Slice", &title, &[first()?], &real, attributes);
            }
            "PAD" | "PADV2" => {
                // Before and after, dimension by dimension; ONNX has all before and all after.
                let pads = constant(1)?;
                let pads: Vec<i64> =
                    pads.iter().step_by(2).chain(pads.iter().skip(1).step_by(2)).copied().collect();
                let mut operands = vec![first()?];
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
            "RELU6" if ends_at_six(result) => {
                self.push("Relu", &title, &inputs, &real, Vec::new());
            }
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
                    3 if ends_at_six(result) => "Relu",
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

/// Whether nothing above six can be stored of a map, so that a clamp there is no other than at zero.
fn ends_at_six(tensor: &Tensor<'_>) -> bool {
    let largest = match tensor.data_type {
        proto::INT8 => 127,
        proto::UINT8 => 255,
        _ => return false,
    };
    let zero = tensor.zero_points.first().copied().unwrap_or(0);
    match tensor.scales[..] {
        // Six may be between two steps, of which the lower one is stored.
        [scale] => (largest as f32 - zero as f32) * scale < 6.0 + 0.5 * scale,
        _ => false,
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
