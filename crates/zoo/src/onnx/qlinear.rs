//! Operators of onnxruntime that have their scales and zero points as operands ("QOperator"), or
//! several operators in one: each becomes ONNX's own operators on floats, with what dequantizes its
//! operands before and what quantizes its result behind. That is QDQ, which the importer knows.

use super::constant::{Constant, Outside};
use super::order::order;
use super::qdq::{LEAST, REMEDY};
use artifact::text::AsPlain;
use formats::onnx as proto;
use prost::Message;
use std::collections::HashMap;

/// Scales and zero points that may be read beyond as many as the file has bytes.
const ROOM: usize = 1 << 16;

/// The graph without such operators, its nodes in the order of their computation.
pub(super) fn expand(graph: &proto::Graph, outside: &Outside<'_>) -> Result<proto::Graph, String> {
    let mut constants: HashMap<&str, &proto::Tensor> =
        graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let order = order(&graph.node);
    let nodes = || order.iter().map(|&i| &graph.node[i]);
    for node in nodes() {
        let tensor = match node.op_type.as_str() {
            "Constant" => node.attribute.iter().find_map(|a| a.t.as_ref()),
            // Exporters write equal numbers once.
            "Identity" | "Cast" => {
                node.input.first().and_then(|x| constants.get(x.as_str()).copied())
            }
            _ => None,
        };
        if let (Some(name), Some(tensor)) = (node.output.first(), tensor) {
            constants.insert(name, tensor);
        }
    }
    let mut expander = Expander {
        room: graph.encoded_len() + ROOM,
        constants,
        outside,
        nodes: Vec::new(),
        initializers: Vec::new(),
        quantizers: HashMap::new(),
    };
    for node in nodes() {
        expander.node(node).map_err(|e| format!("{}: {e}", super::describe(node)))?;
    }
    let Expander { nodes, initializers, .. } = expander;
    let mut graph = proto::Graph { node: nodes, ..graph.clone() };
    graph.initializer.extend(initializers);
    Ok(graph)
}

struct Expander<'a> {
    constants: HashMap<&'a str, &'a proto::Tensor>,
    outside: &'a Outside<'a>,
    nodes: Vec<proto::Node>,
    initializers: Vec<proto::Tensor>,
    /// Where a value is quantized: the place in `nodes`.
    quantizers: HashMap<&'a str, usize>,
    /// How many numbers may still be read.
    room: usize,
}

impl<'a> Expander<'a> {
    fn node(&mut self, node: &'a proto::Node) -> Result<(), String> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx" | "com.microsoft") {
            self.nodes.push(node.clone());
            return Ok(());
        }
        match node.op_type.as_str() {
            "QLinearConv" => {
                let (x, weights) = (self.real(node, 0, 1)?, self.real(node, 3, 0)?);
                let bias = self.bias(node, 8, [1, 4])?;
                self.push(node, "Conv", vec![x, weights, bias], Some(6))
            }
            "QLinearMatMul" => {
                let inputs = vec![self.real(node, 0, 1)?, self.real(node, 3, 1)?];
                self.push(node, "MatMul", inputs, Some(6))
            }
            "QGemm" => {
                let axis = if is_set(node, "transB") { 0 } else { 1 };
                let (x, weights) = (self.real(node, 0, 1)?, self.real(node, 3, axis)?);
                let bias = self.bias(node, 6, [1, 4])?;
                self.push(node, "Gemm", vec![x, weights, bias], Some(7))
            }
            "QLinearAdd" => {
                let inputs = vec![self.real(node, 0, 1)?, self.real(node, 3, 1)?];
                self.push(node, "Add", inputs, Some(6))
            }
            pool @ ("QLinearGlobalAveragePool" | "QLinearAveragePool") => {
                let x = self.real(node, 0, 1)?;
                self.push(node, pool.trim_start_matches("QLinear"), vec![x], Some(3))
            }
            "NhwcMaxPool" => {
                let x = operand(node, 0)?;
                self.laid_out(node, "MaxPool", vec![x], output(node)?, true);
                Ok(())
            }
            "QLinearSoftmax" => {
                let x = self.real(node, 0, 1)?;
                self.push(node, "Softmax", vec![x], None)
            }
            "FusedConv" | "FusedGemm" => self.fused(node),
            // Those of onnxruntime mean the same.
            "QuantizeLinear" | "DequantizeLinear" => {
                let own = proto::Node { domain: String::new(), ..node.clone() };
                if let (Some(name), "QuantizeLinear") = (node.output.first(), &*node.op_type) {
                    self.quantizers.insert(name, self.nodes.len());
                }
                self.nodes.push(own);
                Ok(())
            }
            "Clip" => match node.input.first().and_then(|x| self.quantizers.get(x.as_str())) {
                Some(&at) => self.narrow(node, at),
                None => {
                    self.nodes.push(node.clone());
                    Ok(())
                }
            },
            _ => {
                self.nodes.push(node.clone());
                Ok(())
            }
        }
    }

    /// The operator on floats; scale and zero point of its result are the operands from
    /// `quantization` on.
    fn push(
        &mut self,
        node: &proto::Node,
        op_type: &str,
        inputs: Vec<String>,
        quantization: Option<usize>,
    ) -> Result<(), String> {
        let result = output(node)?;
        // A layer of floats behind integers has no scale of its own.
        let at = quantization.filter(|&i| node.input.get(i).is_some_and(|name| !name.is_empty()));
        let real = if at.is_some() { format!("{result} real") } else { result.clone() };
        self.laid_out(node, op_type, inputs, real.clone(), is_set(node, "channels_last"));
        if let Some(at) = at {
            let input = [real].into_iter().chain(node.input[at..].iter().take(2).cloned());
            self.nodes.push(proto::Node {
                input: input.collect(),
                output: vec![result],
                op_type: "QuantizeLinear".into(),
                name: node.name.clone(),
                ..Default::default()
            });
        }
        Ok(())
    }

    /// ONNX's operator, whose maps are NCHW, also where those of the file are NHWC.
    fn laid_out(
        &mut self,
        node: &proto::Node,
        op_type: &str,
        mut inputs: Vec<String>,
        result: String,
        is_nhwc: bool,
    ) {
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        let own = if is_nhwc { format!("{result} nchw") } else { result.clone() };
        if is_nhwc && let Some(x) = inputs.first_mut() {
            let turned = format!("{result} of nchw");
            let turn = proto::Node::new("Transpose", &[x], &turned);
            self.nodes.push(turn.ints("perm", &[0, 3, 1, 2]));
            *x = turned;
        }
        let operator = proto::Node {
            input: inputs,
            output: vec![own.clone()],
            op_type: op_type.into(),
            domain: String::new(),
            ..node.clone()
        };
        self.nodes.push(operator);
        if is_nhwc {
            let back = proto::Node::new("Transpose", &[&own], &result);
            self.nodes.push(back.ints("perm", &[0, 2, 3, 1]));
        }
    }

    /// A convolution or dense layer with a sum and an activation in it.
    fn fused(&mut self, node: &proto::Node) -> Result<(), String> {
        let (op_type, sum) = match node.op_type.as_str() {
            "FusedConv" => ("Conv", node.input.get(3).filter(|name| !name.is_empty())),
            _ => ("Gemm", None),
        };
        let activation = node.attribute.iter().find(|a| a.name == "activation");
        let activation = activation.map_or("".into(), |a| String::from_utf8_lossy(&a.s));
        let result = output(node)?;
        // Operator by operator; the last one computes the result.
        let mut steps = vec![op_type];
        steps.extend(sum.map(|_| "Add"));
        match &*activation {
            "" => {}
            "Relu" => steps.push("Relu"),
            other => {
                let other = other.plain();
                return Err(format!("the activation `{other}`, but only Relu is read"));
            }
        }
        let mut inputs: Vec<String> = node.input.iter().take(3).cloned().collect();
        for (i, step) in steps.iter().enumerate() {
            let last = i + 1 == steps.len();
            let to = if last { result.clone() } else { format!("{result} before {i}") };
            if *step == "Add" {
                inputs.extend(sum.cloned());
            }
            self.laid_out(node, step, core::mem::take(&mut inputs), to.clone(), false);
            inputs.push(to);
        }
        Ok(())
    }

    /// As PyTorch writes uint8 with 7 bits: what `at` quantizes is clamped to 127. That is int8's
    /// largest number, too; the smallest is zero.
    fn narrow(&mut self, clip: &proto::Node, at: usize) -> Result<(), String> {
        let quantizer = self.nodes[at].clone();
        let zero = quantizer.input.get(2).filter(|name| !name.is_empty());
        let zero_type = zero.and_then(|zero| self.constants.get(zero.as_str())?.data_type);
        let is_signed = zero_type == Some(proto::INT8);
        let mut bounds = if is_signed { [-128.0, 127.0] } else { [0.0, 255.0] };
        for (i, bound) in bounds.iter_mut().enumerate() {
            if clip.input.get(i + 1).is_some_and(|name| !name.is_empty()) {
                *bound = self.floats(clip, i + 1)?.first().copied().unwrap_or(f32::NAN);
            }
        }
        // Without the least number, values are cut off one step before they would be anyway.
        if is_signed && matches!(bounds, [-128.0 | -127.0, 127.0]) || bounds == [0.0, 255.0] {
            self.nodes.push(proto::Node {
                input: clip.input.iter().take(1).cloned().collect(),
                op_type: "Identity".into(),
                ..clip.clone()
            });
            return Ok(());
        }
        let zero = if zero.is_some() { self.floats(&quantizer, 2)? } else { vec![0.0] };
        let [zero] = zero[..] else { return Err("several zero points for a map".into()) };
        if is_signed || bounds != [0.0, 127.0] || !(0.0..=127.0).contains(&zero) {
            return Err(format!("clamps what is stored to {bounds:?}; {REMEDY}"));
        }
        let result = output(clip)?;
        let name = format!("{result} zero point");
        self.initializers.push(proto::Tensor {
            data_type: Some(proto::INT8),
            name: name.clone(),
            int32_data: vec![zero as i32],
            ..Default::default()
        });
        let input = vec![operand(clip, 0)?, operand(&quantizer, 1)?, name];
        let attribute = vec![proto::Attribute::int(LEAST, 0)];
        self.nodes.push(proto::Node { input, output: vec![result], attribute, ..quantizer });
        let first = &mut self.nodes[at];
        first.op_type = "Identity".into();
        first.input.truncate(1);
        Ok(())
    }

    /// The name of operand `index` in real numbers: its scale and zero point are the two operands
    /// behind it, where there are several those of the places along `axis`.
    fn real(&mut self, node: &proto::Node, index: usize, axis: i64) -> Result<String, String> {
        let stored = operand(node, index)?;
        let name = format!("operand {index} of {}", output(node)?);
        let mut input = vec![stored, operand(node, index + 1)?];
        input.extend(node.input.get(index + 2).filter(|name| !name.is_empty()).cloned());
        self.dequantize(input, &name, axis);
        Ok(name)
    }

    /// The name of a bias' real numbers, whose steps are those of input and weights multiplied;
    /// empty where there is none.
    fn bias(
        &mut self,
        node: &proto::Node,
        index: usize,
        scales: [usize; 2],
    ) -> Result<String, String> {
        let Some(stored) = node.input.get(index).filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let [x, weights] = scales.map(|i| self.floats(node, i));
        let (x, weights) = (x?, weights?);
        let [x] = x[..] else { return Err("several scales for its input".into()) };
        let units: Vec<f32> = weights.iter().map(|w| w * x).collect();
        let name = format!("operand {index} of {}", output(node)?);
        let scale = format!("{name}: scale");
        // One of all is broadcast.
        let dims = if units.len() == 1 { vec![] } else { vec![units.len() as i64] };
        self.initializers.push(proto::Tensor::floats(&scale, &dims, &units));
        self.dequantize(vec![stored.clone(), scale], &name, 0);
        Ok(name)
    }

    fn dequantize(&mut self, input: Vec<String>, output: &str, axis: i64) {
        self.nodes.push(proto::Node {
            input,
            output: vec![output.into()],
            op_type: "DequantizeLinear".into(),
            attribute: vec![proto::Attribute::int("axis", axis)],
            ..Default::default()
        });
    }

    /// The numbers of an operand that is a constant.
    fn floats(&mut self, node: &proto::Node, index: usize) -> Result<Vec<f32>, String> {
        let name = operand(node, index)?;
        let tensor = self.constants.get(name.as_str());
        let tensor = tensor.ok_or_else(|| format!("`{}` is computed", name.plain()))?;
        let numbers = Constant::read(tensor, self.outside)?.to_floats();
        self.room = (self.room.checked_sub(numbers.len()))
            .ok_or("scales are read more often than the file is long; it is damaged")?;
        Ok(numbers)
    }
}

fn is_set(node: &proto::Node, attribute: &str) -> bool {
    node.attribute.iter().any(|a| a.name == attribute && a.i == Some(1))
}

fn operand(node: &proto::Node, index: usize) -> Result<String, String> {
    let name = node.input.get(index).filter(|name| !name.is_empty());
    name.cloned().ok_or_else(|| format!("operand {index} is missing"))
}

fn output(node: &proto::Node) -> Result<String, String> {
    let name = node.output.first().filter(|name| !name.is_empty());
    name.cloned().ok_or_else(|| "computes nothing".into())
}
