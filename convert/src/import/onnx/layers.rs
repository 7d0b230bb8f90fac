//! What each operator of ONNX becomes.

use super::call::Call;
use super::constant::Constant;
use super::fold::folded;
use super::{Importer, Layout, Map, Value};
use crate::graph::{Conv, NodeOp};
use crate::onnx_proto as proto;
use artifact::{Padding, PoolKind, Shape};

impl Importer<'_> {
    /// Walks over one node.
    pub(super) fn node(&mut self, node: &proto::Node) -> Result<(), String> {
        let output = node.output.first().ok_or("computes nothing")?;
        let mut operands = Vec::with_capacity(node.input.len());
        for name in &node.input {
            operands.push(match self.values.get(name) {
                Some(value) => Some(value.clone()),
                None if name.is_empty() => None,
                None => {
                    let name = name.escape_debug();
                    return Err(format!("reads `{name}`, which nothing before it computes"));
                }
            });
        }
        let call = Call { node, operands };
        let on_picture = call.operands.iter().flatten().any(|v| !matches!(v, Value::Constant(_)));
        let probabilities =
            |v: &Value| if let Value::Probabilities(x) = v { Some(*x) } else { None };
        let value = match call.operands.iter().flatten().find_map(probabilities) {
            Some(x) => self.tail(&call, x)?,
            None if on_picture => self.layer(&call)?,
            None => Value::Constant(folded(&call)?),
        };
        if self.values.insert(output.clone(), value).is_some() {
            return Err(format!("computes `{}` a second time", output.escape_debug()));
        }
        Ok(())
    }

    pub(super) fn shape(&self, map: Map) -> Shape {
        self.graph.nodes[map.id].shape
    }

    pub(super) fn push(
        &mut self,
        call: &Call<'_>,
        op: NodeOp,
        inputs: &[Map],
        layout: Layout,
    ) -> Result<Value, String> {
        let name = if call.node.name.is_empty() { &call.node.output[0] } else { &call.node.name };
        let ids: Vec<usize> = inputs.iter().map(|m| m.id).collect();
        let id =
            self.graph.push(name.trim_start_matches('/'), op, &ids).map_err(|e| e.to_string())?;
        Ok(Value::Map(Map { id, layout, border: None }))
    }

    /// An operator on what depends on the picture.
    pub(super) fn layer(&mut self, call: &Call<'_>) -> Result<Value, String> {
        match call.node.op_type.as_str() {
            "Conv" => self.conv(call),
            "Gemm" | "MatMul" => self.dense(call),
            "BatchNormalization" => self.batch_norm(call),
            "Relu" => {
                let x = call.map(0)?;
                self.push(call, NodeOp::Relu, &[x], x.layout)
            }
            "Clip" => self.clip(call),
            "Add" | "Sub" | "Mul" | "Div" | "Sum" => self.arithmetic(call),
            "MaxPool" => self.pool(call, PoolKind::Max),
            "AveragePool" => self.pool(call, PoolKind::Average),
            "GlobalMaxPool" => self.global_pool(call, PoolKind::Max, None, true),
            "GlobalAveragePool" => self.global_pool(call, PoolKind::Average, None, true),
            "ReduceMean" | "ReduceMax" => self.reduce(call),
            "Pad" => self.pad(call),
            "Transpose" => self.transpose(call),
            "Flatten" => self.flatten(call),
            "Reshape" => self.reshape(call),
            "Squeeze" | "Unsqueeze" => self.squeeze(call),
            "Shape" => {
                let x = call.map(0)?;
                Ok(Value::Constant(Constant::ints(x.layout.dims(self.shape(x)))))
            }
            "Softmax" | "LogSoftmax" => self.softmax(call),
            "QuantizeLinear" => self.quantize(call),
            "DequantizeLinear" => self.dequantize(call),
            "Identity" | "Dropout" | "Cast" => Ok(Value::Map(call.bordered(0)?)),
            _ => Err("is read for constants alone".into()),
        }
    }

    fn conv(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.bordered(0)?;
        if x.layout != Layout::Nchw {
            return Err("its input is no map of [1, channels, height, width]".into());
        }
        if call.int("group", 1) != 1 {
            return Err(format!("{} groups, but only one is read", call.int("group", 1)));
        }
        let weights = call.constant(1)?;
        let [c_out, c_in, kh, kw] = weights.dims[..] else {
            return Err(format!("weights of shape {:?}", weights.dims));
        };
        if c_in != usize::from(self.shape(x).c) {
            return Err(format!("weights for {c_in} channels, the input has {}", self.shape(x).c));
        }
        let filter = [kh, kw].map(|k| k as i64);
        let (filter, stride, padding) = self.window(call, x, Some(filter), 0.0)?;
        // OIHW to OHWI.
        let weights = weights.transposed(&[0, 2, 3, 1]).ok_or("weights of another shape")?;
        let conv = Conv {
            weights: finite(weights.to_floats())?,
            bias: finite(call.optional(2)?.map_or(vec![0.0; c_out], Constant::to_floats))?,
            filter,
            stride,
            padding,
            relu: false,
            residual: false,
            weight_scales: weights.steps(),
        };
        if conv.bias.len() != c_out {
            return Err(format!("{} biases for {c_out} outputs", conv.bias.len()));
        }
        self.push(call, NodeOp::Conv2d(conv), &[x], x.layout)
    }

    fn dense(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let shape = self.shape(x);
        let weights = call.constant(1)?;
        let gemm = call.node.op_type == "Gemm";
        let factors = [call.float("alpha", 1.0), call.float("beta", 1.0)];
        if gemm && (factors != [1.0; 2] || call.int("transA", 0) != 0) {
            return Err(format!("alpha and beta {factors:?}, or a transposed input"));
        }
        if !matches!(x.layout, Layout::FlatChw | Layout::FlatHwc) {
            return Err("its input is not flat".into());
        }
        let weights = if call.int("transB", 0) != 0 {
            Some(weights.clone())
        } else {
            weights.transposed(&[1, 0])
        };
        let weights = weights.filter(|w| w.dims.len() == 2 && w.dims[1] == shape.len());
        let weights = weights.ok_or_else(|| {
            format!("weights that do not fit an input of {} numbers", shape.len())
        })?;
        let outputs = weights.dims[0];
        let bias = match call.optional(2)? {
            Some(bias) if bias.dims.iter().product::<usize>() == outputs => bias.to_floats(),
            Some(bias) => return Err(format!("biases of shape {:?}", bias.dims)),
            None => vec![0.0; outputs],
        };
        // A convolution with one window, the whole map.
        let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
        let weights = match x.layout {
            Layout::FlatChw => Constant { dims: vec![outputs, c, h, w], ..weights }
                .transposed(&[0, 2, 3, 1])
                .ok_or("weights of another shape")?,
            _ => weights,
        };
        let conv = Conv {
            weights: finite(weights.to_floats())?,
            bias: finite(bias)?,
            filter: [shape.h, shape.w],
            stride: [1, 1],
            padding: Padding::default(),
            relu: false,
            residual: false,
            weight_scales: weights.steps(),
        };
        self.push(call, NodeOp::Conv2d(conv), &[x], Layout::FlatChw)
    }

    fn batch_norm(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        if call.int("training_mode", 0) != 0 {
            return Err(
                "a batch-norm that is still training; export the model in evaluation".into()
            );
        }
        if x.layout == Layout::Nhwc {
            return Err("its input is no map of [1, channels, height, width]".into());
        }
        let part = |i: usize| finite(call.constant(i)?.to_floats());
        let epsilon = call.float("epsilon", 1e-5);
        finite(vec![epsilon])?;
        let op = NodeOp::BatchNorm {
            gamma: part(1)?,
            beta: part(2)?,
            mean: part(3)?,
            variance: part(4)?,
            epsilon,
        };
        self.push(call, op, &[x], x.layout)
    }

    fn clip(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let bound = |name: &str, operand: usize, open: f32| -> Result<f32, String> {
            match call.optional(operand)? {
                Some(constant) => Ok(constant.to_floats().first().copied().unwrap_or(open)),
                None => Ok(call.float(name, open)),
            }
        };
        let bounds = [bound("min", 1, f32::NEG_INFINITY)?, bound("max", 2, f32::INFINITY)?];
        // Some exporters write the largest number for none.
        if bounds[0] != 0.0 || bounds[1] < f32::MAX {
            return Err(format!("clamps to {bounds:?}, but only a ReLU is read"));
        }
        self.push(call, NodeOp::Relu, &[x], x.layout)
    }

    /// A sum of two maps, or one number a channel added, subtracted, multiplied or divided by.
    fn arithmetic(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let operator = call.node.op_type.as_str();
        if call.operands.len() != 2 {
            return Err(format!("{} operands, but two are read", call.operands.len()));
        }
        if let (Ok(a), Ok(b)) = (call.map(0), call.map(1)) {
            return match operator {
                "Add" | "Sum" if a.layout == b.layout => {
                    self.push(call, NodeOp::Add, &[a, b], a.layout)
                }
                "Add" | "Sum" => Err("adds maps of different layouts".into()),
                _ => Err("combines two maps; only their sum is read".into()),
            };
        }
        let (x, constant, swapped) = match call.map(0) {
            Ok(x) => (x, call.constant(1)?, false),
            Err(_) => (call.map(1)?, call.constant(0)?, true),
        };
        let c = usize::from(self.shape(x).c);
        if matches!(x.layout, Layout::FlatChw | Layout::FlatHwc) && self.shape(x).pixels() != 1 {
            return Err("combines a flattened map with a constant".into());
        }
        let values = per_channel(constant, x.layout, c).ok_or_else(|| {
            format!(
                "a constant of shape {:?}, but one number a channel ({c}) is read",
                constant.dims
            )
        })?;
        let (ones, zeros) = (vec![1.0; c], vec![0.0; c]);
        let (gamma, beta) = match (operator, swapped) {
            ("Add" | "Sum", _) => (ones.clone(), values),
            ("Sub", false) => (ones.clone(), values.iter().map(|v| -v).collect()),
            ("Sub", true) => (vec![-1.0; c], values),
            ("Mul", _) => (values, zeros.clone()),
            ("Div", false) => (values.iter().map(|v| 1.0 / v).collect(), zeros.clone()),
            _ => return Err("divides by a map".into()),
        };
        if gamma.iter().chain(&beta).any(|v| !v.is_finite()) {
            return Err("a constant that is not finite, or a division by zero".into());
        }
        let op = NodeOp::BatchNorm { gamma, beta, mean: zeros, variance: ones, epsilon: 0.0 };
        self.push(call, op, &[x], x.layout)
    }
}

/// Numbers that a layer computes with.
fn finite(values: Vec<f32>) -> Result<Vec<f32>, String> {
    match values.iter().find(|v| !v.is_finite()) {
        Some(value) => Err(format!("a weight that is {value}")),
        None => Ok(values),
    }
}

/// A constant that is broadcast over a map, one number a channel.
fn per_channel(constant: &Constant, layout: Layout, channels: usize) -> Option<Vec<f32>> {
    let values = constant.to_floats();
    if values.len() == 1 {
        return Some(vec![values[0]; channels]);
    }
    // Dimensions are aligned at their ends.
    let rank = constant.dims.len();
    let axis = layout.channel_axis().checked_sub(layout.rank().checked_sub(rank)?)?;
    let fits =
        constant.dims.iter().enumerate().all(|(i, &d)| d == if i == axis { channels } else { 1 });
    fits.then_some(values)
}
