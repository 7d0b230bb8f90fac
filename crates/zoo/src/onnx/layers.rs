//! What each operator of ONNX becomes.

use super::arithmetic::in_order;
use super::call::Call;
use super::constant::{Constant, MAX_RANK, count};
use super::fold::folded;
use super::view::{Side, View, len};
use super::{Importer, Map, Value};
use artifact::text::AsPlain;
use artifact::{Curve, Padding, PoolKind, Shape};
use formats::onnx as proto;
use network::activation::Activation;
use network::graph::{Conv, NodeOp};
use std::rc::Rc;

impl Importer<'_> {
    /// Walks over one node. What is not read is an error only where something reads it that is.
    pub(super) fn node(&mut self, node: &proto::Node) -> Result<(), String> {
        let mut operands = Vec::with_capacity(node.input.len());
        for name in &node.input {
            operands.push(match self.values.get(name) {
                Some(value) => Some(value.clone()),
                None if name.is_empty() => None,
                None => {
                    let name = name.plain();
                    return Err(format!("reads `{name}`, which nothing before it computes"));
                }
            });
        }
        let call = Call { node, operands, room: self.budget };
        if call.node.op_type == "If" {
            return self.branch(&call);
        }
        let on_picture =
            call.operands.iter().flatten().any(|v| matches!(v, Value::Map(_) | Value::Groups(_)));
        let values = if on_picture { self.layer(&call)? } else { self.constant(&call)? };
        self.computed(node, values)
    }

    /// Keeps what a node computes.
    fn computed(&mut self, node: &proto::Node, values: Vec<Value>) -> Result<(), String> {
        if node.output.is_empty() {
            return Err("computes nothing".into());
        }
        for (name, value) in node.output.iter().zip(values) {
            self.spend(match &value {
                Value::Map(map) => map.view.channels().len(),
                Value::Constant(_) | Value::Groups(_) => 0,
            })?;
            if !name.is_empty() && self.values.insert(name.clone(), value).is_some() {
                return Err(format!("computes `{}` a second time", name.plain()));
            }
        }
        Ok(())
    }

    /// An operator on constants alone, whose numbers count.
    fn constant(&mut self, call: &Call<'_>) -> Result<Vec<Value>, String> {
        // What only has another name is not computed again.
        if let ("Identity" | "Dropout", Some(value)) = (call.node.op_type.as_str(), call.operand(0))
        {
            return Ok(vec![value.clone()]);
        }
        let constants = folded(call)?;
        if let Some(constant) = constants.iter().find(|c| c.dims.len() > MAX_RANK) {
            return Err(format!("makes {} dimensions", constant.dims.len()));
        }
        self.spend(constants.iter().map(Constant::len).sum())?;
        Ok(constants.into_iter().map(|constant| Value::Constant(Rc::new(constant))).collect())
    }

    /// The branch that is taken, where the condition is known.
    fn branch(&mut self, call: &Call<'_>) -> Result<(), String> {
        let condition = call.constant(0).map_err(|_| "a condition that depends on the picture")?;
        let taken = condition.to_floats().first().is_some_and(|&v| v != 0.0);
        let name = if taken { "then_branch" } else { "else_branch" };
        let graph = call.attribute(name).and_then(|a| a.g.as_ref());
        let graph = graph.ok_or_else(|| format!("without a {name}"))?;
        self.constants(graph)?;
        for node in &graph.node {
            self.node(node).map_err(|e| format!("{}: {e}", super::describe(node)))?;
        }
        let values: Option<Vec<Value>> =
            graph.output.iter().map(|output| self.values.get(&output.name).cloned()).collect();
        self.computed(call.node, values.ok_or("a branch that computes nothing")?)
    }

    /// The shape of a map in the graph.
    pub(super) fn shape(&self, map: &Map) -> Shape {
        self.graph.nodes[map.id].shape
    }

    /// The dimensions of a map as the file has them.
    pub(super) fn dims(&self, map: &Map) -> Vec<usize> {
        map.view.dims(self.shape(map))
    }

    pub(super) fn push(
        &mut self,
        call: &Call<'_>,
        op: NodeOp,
        inputs: &[&Map],
        view: View,
    ) -> Result<Map, String> {
        let ids: Vec<usize> = inputs.iter().map(|m| m.id).collect();
        self.push_on(call, op, &ids, view)
    }

    /// Appends a node on values of the graph; `view` is how the file sees it.
    pub(super) fn push_on(
        &mut self,
        call: &Call<'_>,
        op: NodeOp,
        inputs: &[usize],
        view: View,
    ) -> Result<Map, String> {
        let first = call.node.output.first().map_or("", String::as_str);
        let name = if call.node.name.is_empty() { first } else { &call.node.name };
        // Nodes may share the constants that they have copies of.
        self.spend(match &op {
            NodeOp::Conv2d(conv) => conv.weights.len() + 2 * conv.bias.len(),
            NodeOp::BatchNorm { gamma, .. } => 4 * gamma.len(),
            _ => 0,
        })?;
        let id = self.graph.push(name.trim_start_matches('/'), op, inputs);
        let id = id.map_err(|e| e.to_string())?;
        Ok(Map { id, view: view.of(self.graph.nodes[id].shape), border: None, is_softmax: false })
    }

    /// Room for weights of these dimensions.
    pub(super) fn zeros(&mut self, dims: &[usize]) -> Result<Vec<f32>, String> {
        let len = count(dims, self.budget);
        let len = len.ok_or_else(|| format!("takes weights of {dims:?}, which are too many"))?;
        self.spend(len)?;
        Ok(vec![0.0; len])
    }

    /// An operator on what depends on the picture.
    fn layer(&mut self, call: &Call<'_>) -> Result<Vec<Value>, String> {
        let value = match call.node.op_type.as_str() {
            "Conv" => self.conv(call),
            "Gemm" | "MatMul" => self.dense(call),
            "BatchNormalization" => self.batch_norm(call),
            "Relu" => self.activation(call, Activation::RELU),
            "Sigmoid" => self.activation(call, Activation::SIGMOID),
            "HardSwish" => self.activation(call, Activation::HARD_SWISH),
            "HardSigmoid" => self.hard_sigmoid(call),
            "Gelu" if call.attribute("approximate").is_none_or(|a| a.s == b"none"[..]) => {
                self.activation(call, Activation::Curve(Curve::Gelu))
            }
            "Clip" => self.clip(call),
            "Add" | "Sub" | "Mul" | "Div" | "Sum" => self.arithmetic(call),
            "Neg" => {
                let x = call.map(0)?;
                let c = usize::from(self.shape(&x).c);
                Ok(Value::Map(self.scaled(call, &x, vec![-1.0; c], vec![0.0; c])?))
            }
            "MaxPool" => self.pool(call, PoolKind::Max),
            "AveragePool" => self.pool(call, PoolKind::Average),
            "GlobalMaxPool" => self.global_pool(call, PoolKind::Max),
            "GlobalAveragePool" => self.global_pool(call, PoolKind::Average),
            "ReduceMean" | "ReduceMax" | "ReduceSum" => self.reduce(call),
            "Pad" => self.pad(call),
            "Transpose" => self.transpose(call),
            "Flatten" => self.flatten(call),
            "Reshape" => self.reshape(call),
            "Squeeze" => self.squeeze(call),
            "Unsqueeze" => self.unsqueeze(call),
            "Slice" => self.slice(call),
            "Gather" | "GatherND" => self.gather(call),
            "Split" => return self.split(call),
            "Concat" => self.concat(call),
            "Shape" => self.shape_of(call),
            "Softmax" | "LogSoftmax" => self.softmax(call),
            "Log" => match call.any(0)? {
                x if x.is_softmax => Ok(Value::Map(x)),
                _ => Err("is read of a softmax alone".into()),
            },
            "Cast" => self.cast(call),
            "QuantizeLinear" => self.quantize(call),
            "DequantizeLinear" => self.dequantize(call),
            "Identity" | "Dropout" => Ok(Value::Map(call.any(0)?)),
            _ => Err("is read for constants alone".into()),
        };
        Ok(vec![value?])
    }

    fn conv(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let mut x = call.bordered(0)?;
        let groups = call.int("group", 1);
        let groups = u16::try_from(groups).ok().filter(|&g| g > 0);
        let groups = groups.ok_or_else(|| format!("{} groups", call.int("group", 1)))?;
        if groups > 1 {
            x = self.settled(call, &x)?;
        }
        let weights = call.constant(1)?;
        let [c_out, c_in, kh, kw] = weights.dims[..] else {
            return Err(format!(
                "weights of shape {:?}, but those of pictures are read",
                weights.dims
            ));
        };
        let c = x.view.seen(self.shape(&x)).c;
        let (taps, dilations) = ([kh, kw], self.dilations(call, [kh, kw])?);
        let spread = [0, 1].map(|i| (taps[i].max(1) - 1) * dilations[i] + taps[i].min(1));
        let mut window = self.filter_window(call, &x, spread.map(|k| k as i64))?;
        if !window.fits() {
            // More than a filter may have itself.
            x = self.padded(call, &x, window.padding)?;
            window.padding = Padding::default();
        }
        if c_in.checked_mul(groups.into()) != Some(c.into()) {
            let each =
                if groups > 1 { format!(" in each of {groups} groups") } else { String::new() };
            return Err(format!("weights for {c_in} channels{each}, the input has {c}"));
        }
        // OIHW to OHWI.
        let weights = weights.transposed(&[0, 2, 3, 1]).ok_or("weights of another shape")?;
        let floats = self.of_channels(&x, finite(weights.to_floats())?)?;
        let conv = Conv {
            stride: window.stride,
            padding: window.padding,
            groups,
            weight_scales: weights.steps(),
            ..Conv::new(
                self.spread(floats, c_out, taps, dilations)?,
                finite(call.optional(2)?.map_or(vec![0.0; c_out], Constant::to_floats))?,
                window.filter,
            )
        };
        if conv.bias.len() != c_out {
            return Err(format!("{} biases for {c_out} outputs", conv.bias.len()));
        }
        Ok(Value::Map(self.slid(call, NodeOp::Conv2d(conv), &x, &x.view.settled())?))
    }

    /// Weights whose innermost dimension counts the channels that the file means, as weights of all
    /// channels of the map.
    fn of_channels(&mut self, x: &Map, weights: Vec<f32>) -> Result<Vec<f32>, String> {
        let channels = x.view.channels();
        if channels.is_empty() {
            return Ok(weights);
        }
        let c = usize::from(self.shape(x).c);
        let mut spread = self.zeros(&[weights.len() / channels.len(), c])?;
        let rows = spread.chunks_exact_mut(c).zip(weights.chunks_exact(channels.len()));
        for (row, seen) in rows {
            for (weight, &channel) in seen.iter().zip(channels) {
                row[usize::from(channel)] += weight;
            }
        }
        Ok(spread)
    }

    /// A product with weights, of the channels of each pixel or of a whole map that lies in a row.
    fn dense(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let shape = self.shape(&x);
        let gemm = call.node.op_type == "Gemm";
        let factors = [call.float("alpha", 1.0), call.float("beta", 1.0)];
        if gemm && (factors != [1.0; 2] || call.int("transA", 0) != 0) {
            return Err(format!("alpha and beta {factors:?}, or a transposed input"));
        }
        let Some(last) = x.view.rank().checked_sub(1) else {
            return Err("its input is a single number".into());
        };
        let counted = self.dims(&x)[last];
        let weights = call.constant(1)?;
        let weights = match weights.dims[..] {
            [_, _] if call.int("transB", 0) != 0 => weights.clone(),
            [_, _] => weights.transposed(&[1, 0]).ok_or("weights of another shape")?,
            _ => {
                return Err(format!(
                    "weights of shape {:?}, but two dimensions are read",
                    weights.dims
                ));
            }
        };
        if weights.dims[1] != counted {
            return Err(format!(
                "weights for {} numbers, the input {:?} has {counted}",
                weights.dims[1],
                self.dims(&x)
            ));
        }
        let outputs = weights.dims[0];
        let bias = match call.optional(2)? {
            Some(bias) if bias.len() == outputs => bias.to_floats(),
            Some(bias) if bias.len() == 1 => vec![bias.to_floats()[0]; outputs],
            Some(bias) => return Err(format!("biases of shape {:?}", bias.dims)),
            None => vec![0.0; outputs],
        };
        // Of each pixel, or with one window, the whole map.
        let is_pixel = match (x.view.sides(last), x.view.side(last, shape)) {
            ([Side::Channel], _) => true,
            ([], Some(Side::Row | Side::Column)) => false,
            ([], _) => x.view.seen(shape).c == 1,
            _ => false,
        };
        let (weights, filter) = if is_pixel {
            (weights, [1, 1])
        } else {
            let sides = x.view.row().ok_or_else(|| {
                format!("its input {:?} is neither a row nor channels last", self.dims(&x))
            })?;
            let seen = x.view.seen(shape);
            let dims = core::iter::once(outputs).chain(sides.iter().map(|&s| len(s, seen)));
            let mut order: Vec<usize> = (0..sides.len()).collect();
            order.sort_by_key(|&i| sides[i]);
            let order: Vec<usize> =
                core::iter::once(0).chain(order.into_iter().map(|i| i + 1)).collect();
            let weights = weights.reshaped(dims.collect());
            (weights.transposed(&order).ok_or("weights of another shape")?, [shape.h, shape.w])
        };
        let floats = self.of_channels(&x, finite(weights.to_floats())?)?;
        let plain = Conv::new(floats, finite(bias)?, filter);
        let conv = Conv { weight_scales: weights.steps(), ..plain };
        let map = self.push(call, NodeOp::Conv2d(conv), &[&x], x.view.settled())?;
        let view = map.view.clone().counting(last, Vec::new(), self.shape(&map));
        Ok(Value::Map(Map { view, ..map }))
    }

    fn batch_norm(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        if call.int("training_mode", 0) != 0 {
            return Err(
                "a batch-norm that is still training; export the model in evaluation".into()
            );
        }
        let c = usize::from(x.view.seen(self.shape(&x)).c);
        if c > 1 && x.view.channel_axis() != Some(1) {
            return Err(format!(
                "its input is no map of [1, channels, height, width], but {:?}",
                self.dims(&x)
            ));
        }
        let x = if x.view.has_every_channel(self.shape(&x)) { x } else { self.settled(call, &x)? };
        let part = |i: usize| -> Result<Vec<f32>, String> {
            let values = finite(call.constant(i)?.to_floats())?;
            if values.len() == c {
                return Ok(in_order(&x.view, values));
            }
            Err(format!("{} parameters for {c} channels", values.len()))
        };
        let epsilon = call.float("epsilon", 1e-5);
        finite(vec![epsilon])?;
        let op = NodeOp::BatchNorm {
            gamma: part(1)?,
            beta: part(2)?,
            mean: part(3)?,
            variance: part(4)?,
            epsilon,
        };
        Ok(Value::Map(self.push(call, op, &[&x], x.view.clone())?))
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
        let [low, high] = bounds.map(|b| if b.abs() == f32::MAX { b * f32::MAX } else { b });
        if low > high || low.is_nan() || high.is_nan() {
            return Err(format!("clamps to {bounds:?}, between which there is nothing"));
        }
        let clamp = Activation::Clamp { low, high };
        Ok(Value::Map(self.push(call, NodeOp::Activation(clamp), &[&x], x.view.clone())?))
    }

    /// A function of each number.
    fn activation(&mut self, call: &Call<'_>, activation: Activation) -> Result<Value, String> {
        let x = call.map(0)?;
        Ok(Value::Map(self.push(call, NodeOp::Activation(activation), &[&x], x.view.clone())?))
    }

    /// `min(max(α · x + β, 0), 1)`; of other numbers than MobileNetV3's in two steps.
    fn hard_sigmoid(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let (alpha, beta) = (call.float("alpha", 0.2), call.float("beta", 0.5));
        if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
            return self.activation(call, Activation::HARD_SIGMOID);
        }
        let x = call.map(0)?;
        let c = usize::from(self.shape(&x).c);
        let parts = finite(vec![alpha, beta])?;
        let line = self.scaled(call, &x, vec![parts[0]; c], vec![parts[1]; c])?;
        let clamp = NodeOp::Activation(Activation::Clamp { low: 0.0, high: 1.0 });
        Ok(Value::Map(self.push(call, clamp, &[&line], line.view.clone())?))
    }

    fn shape_of(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let dims = match call.any(0)? {
            Map { border: Some(_), .. } => return Err("reads the shape of a padded map".into()),
            map => self.dims(&map),
        };
        let dims = dims.into_iter().map(|d| d as i64).collect();
        Ok(Value::Constant(Rc::new(super::fold::part_of_shape(call, dims)?)))
    }

    /// Probabilities at the end, which are left away: models here give logits.
    fn softmax(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let (shape, rank) = (self.shape(&x), x.view.rank());
        // Older versions take all dimensions from the axis on as one.
        let default = if self.opset < 13 { 1 } else { -1 };
        let axis = call.axis("axis", default, rank)?;
        let last = if self.opset < 13 { rank } else { axis + 1 };
        let counts = (axis..last).any(|i| x.view.sides(i) == [Side::Channel]);
        if shape.pixels() != 1 || !counts {
            return Err(format!(
                "over the axis {axis}, but one over the classes is read (of {:?})",
                self.dims(&x)
            ));
        }
        self.logits = call.node.input.first().cloned();
        Ok(Value::Map(Map { is_softmax: true, ..x }))
    }

    /// Between formats of floats; the picture's bytes may become other integers, too, and what is
    /// stored in bytes stays so.
    fn cast(&self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.any(0)?;
        let to = i32::try_from(call.int("to", proto::FLOAT.into())).unwrap_or(0);
        let is_float =
            matches!(to, proto::FLOAT | proto::FLOAT16 | proto::DOUBLE | proto::BFLOAT16);
        let is_wide = matches!(to, proto::INT32 | proto::INT64);
        let is_stored =
            matches!(to, proto::UINT8 | proto::INT8) && self.graph.nodes[x.id].quant.is_some();
        if is_float || is_stored || (is_wide && x.id == 0 && self.has_bytes) {
            return Ok(Value::Map(x));
        }
        Err("casts to integers".into())
    }
}

/// Numbers that a layer computes with.
fn finite(values: Vec<f32>) -> Result<Vec<f32>, String> {
    match values.iter().find(|v| !v.is_finite()) {
        Some(value) => Err(format!("a weight that is {value}")),
        None => Ok(values),
    }
}
