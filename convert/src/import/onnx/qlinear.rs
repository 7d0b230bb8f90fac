//! Operators that have their scales and zero points as operands, as onnxruntime's "QOperator" format
//! writes them: each becomes the operator on floats, with what dequantizes its constants before and
//! what quantizes its result behind. That is QDQ, which the importer knows.

use super::constant::Constant;
use crate::onnx_proto as proto;
use std::collections::HashMap;
use std::path::Path;

/// The graph without such operators.
pub(super) fn expand(graph: &proto::Graph, folder: &Path) -> Result<proto::Graph, String> {
    let constants = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut expander = Expander { constants, folder, nodes: Vec::new(), initializers: Vec::new() };
    for node in &graph.node {
        expander.node(node).map_err(|e| format!("{}: {e}", super::describe(node)))?;
    }
    let Expander { nodes, initializers, .. } = expander;
    let mut graph = proto::Graph { node: nodes, ..graph.clone() };
    graph.initializer.extend(initializers);
    Ok(graph)
}

struct Expander<'a> {
    constants: HashMap<&'a str, &'a proto::Tensor>,
    folder: &'a Path,
    nodes: Vec<proto::Node>,
    initializers: Vec<proto::Tensor>,
}

impl Expander<'_> {
    fn node(&mut self, node: &proto::Node) -> Result<(), String> {
        let known = matches!(node.domain.as_str(), "" | "ai.onnx" | "com.microsoft");
        match node.op_type.as_str() {
            "QLinearConv" if known => {
                let [x, weights] = [operand(node, 0)?, operand(node, 3)?];
                let weights = self.dequantized(node, weights, [4, 5], 0)?;
                let bias = self.bias(node, 8, [1, 4])?;
                self.push(node, "Conv", &[x, weights, bias], [6, 7])
            }
            "QLinearMatMul" if known => {
                let [x, weights] = [operand(node, 0)?, operand(node, 3)?];
                let weights = self.dequantized(node, weights, [4, 5], 1)?;
                self.push(node, "MatMul", &[x, weights], [6, 7])
            }
            "QGemm" if known => {
                let [x, weights] = [operand(node, 0)?, operand(node, 3)?];
                let transposed =
                    node.attribute.iter().any(|a| a.name == "transB" && a.i == Some(1));
                let axis = if transposed { 0 } else { 1 };
                let weights = self.dequantized(node, weights, [4, 5], axis)?;
                let bias = self.bias(node, 6, [1, 4])?;
                self.push(node, "Gemm", &[x, weights, bias], [7, 8])
            }
            "QLinearAdd" if known => {
                let [a, b] = [operand(node, 0)?, operand(node, 3)?];
                self.push(node, "Add", &[a, b], [6, 7])
            }
            pool @ ("QLinearGlobalAveragePool" | "QLinearAveragePool") if known => {
                if node.attribute.iter().any(|a| a.name == "channels_last" && a.i == Some(1)) {
                    return Err("its maps are NHWC; export it as NCHW".into());
                }
                let x = operand(node, 0)?;
                self.push(node, pool.trim_start_matches("QLinear"), &[x], [3, 4])
            }
            "QLinearSoftmax" if known => {
                let softmax = proto::Node {
                    op_type: "Softmax".into(),
                    domain: String::new(),
                    input: node.input.iter().take(1).cloned().collect(),
                    ..node.clone()
                };
                self.nodes.push(softmax);
                Ok(())
            }
            _ => {
                self.nodes.push(node.clone());
                Ok(())
            }
        }
    }

    /// The operator on floats, and what quantizes its result with the operands `quantization`.
    fn push(
        &mut self,
        node: &proto::Node,
        op_type: &str,
        inputs: &[String],
        quantization: [usize; 2],
    ) -> Result<(), String> {
        let result = node.output.first().ok_or("computes nothing")?;
        // A layer of floats behind integers has no scale of its own.
        let is_quantized = node.input.get(quantization[0]).is_some_and(|name| !name.is_empty());
        let real = if is_quantized { format!("{result} real") } else { result.clone() };
        let mut inputs = inputs.to_vec();
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        self.nodes.push(proto::Node {
            input: inputs,
            output: vec![real.clone()],
            op_type: op_type.into(),
            domain: String::new(),
            ..node.clone()
        });
        if is_quantized {
            let mut input = vec![real, operand(node, quantization[0])?];
            input.extend(node.input.get(quantization[1]).cloned());
            self.nodes.push(proto::Node {
                input,
                output: vec![result.clone()],
                op_type: "QuantizeLinear".into(),
                name: node.name.clone(),
                ..Default::default()
            });
        }
        Ok(())
    }

    /// The name of a constant's real numbers; its scale and zero point are the operands
    /// `quantization`, for each place of `axis`.
    fn dequantized(
        &mut self,
        node: &proto::Node,
        stored: String,
        quantization: [usize; 2],
        axis: i64,
    ) -> Result<String, String> {
        let name = format!("{stored} of {}", node.output.first().map_or("", String::as_str));
        let mut input = vec![stored, operand(node, quantization[0])?];
        input.extend(node.input.get(quantization[1]).filter(|name| !name.is_empty()).cloned());
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
        let name = format!("{stored} of {}", node.output.first().map_or("", String::as_str));
        let scale = format!("{name}: scale");
        self.initializers.push(proto::Tensor {
            // One of all is broadcast.
            dims: if units.len() == 1 { Vec::new() } else { vec![units.len() as i64] },
            data_type: Some(proto::FLOAT),
            name: scale.clone(),
            float_data: units,
            ..Default::default()
        });
        self.dequantize(vec![stored.clone(), scale], &name, 0);
        Ok(name)
    }

    fn dequantize(&mut self, input: Vec<String>, output: &str, axis: i64) {
        let axis = proto::Attribute { name: "axis".into(), i: Some(axis), ..Default::default() };
        self.nodes.push(proto::Node {
            input,
            output: vec![output.into()],
            op_type: "DequantizeLinear".into(),
            attribute: vec![axis],
            ..Default::default()
        });
    }

    /// The numbers of an operand that is a constant.
    fn floats(&self, node: &proto::Node, index: usize) -> Result<Vec<f32>, String> {
        let name = operand(node, index)?;
        let tensor = self.constants.get(name.as_str());
        let tensor =
            tensor.ok_or_else(|| format!("the scale `{}` is computed", name.escape_debug()))?;
        Ok(Constant::read(tensor, self.folder)?.to_floats())
    }
}

fn operand(node: &proto::Node, index: usize) -> Result<String, String> {
    let name = node.input.get(index).filter(|name| !name.is_empty());
    name.cloned().ok_or_else(|| format!("operand {index} is missing"))
}
