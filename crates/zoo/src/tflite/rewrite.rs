//! The same as ONNX.

use super::Fault;
use super::file::{File, Tensor};
use artifact::text::AsPlain;
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

/// The name of a tensor in the rewritten graph.
pub(super) fn value(index: i32) -> String {
    format!("tensor {index}")
}

/// Writes the graph of ONNX.
pub(super) struct Writer<'f, 'a> {
    pub(super) file: &'f File<'a>,
    graph: proto::Graph,
    /// Constants that are written already.
    written: HashSet<i32>,
    /// Tensors that a layer has computed.
    pub(super) computed: HashSet<i32>,
    /// Bytes of constants that may still be written.
    room: usize,
}

impl Writer<'_, '_> {
    pub(super) fn push(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<proto::Attribute>,
    ) {
        let node = proto::Node::new(op_type, inputs, output);
        self.graph.node.push(proto::Node { name: name.into(), attribute, ..node });
    }

    pub(super) fn constant(&mut self, name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) {
        self.graph.initializer.push(proto::Tensor::raw(name, dims, data_type, raw_data));
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
    pub(super) fn operand(&mut self, index: i32) -> Result<String, Fault> {
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
    pub(super) fn stored(&mut self, index: i32, real: String) -> Result<(), Fault> {
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
}

/// The name of a tensor; of those that were fused, the first.
pub(super) fn first_name<'a>(tensor: &'a Tensor<'_>) -> &'a str {
    tensor.name.split(';').next().unwrap_or_default()
}
