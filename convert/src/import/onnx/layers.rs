//! What each operator of ONNX becomes.

use super::constant::{Constant, Values};
use super::{Border, Importer, Layout, Map, Value};
use crate::graph::{Conv, NodeOp};
use crate::onnx_proto as proto;
use crate::padding::same_padding;
use artifact::{Padding, PoolKind, Quant, Shape};

impl Layout {
    /// The dimensions of a map as the file has them.
    fn dims(self, shape: Shape) -> Vec<i64> {
        let [h, w, c] = [shape.h, shape.w, shape.c].map(i64::from);
        match self {
            Self::Nchw => vec![1, c, h, w],
            Self::Nhwc => vec![1, h, w, c],
            Self::FlatChw | Self::FlatHwc => vec![1, h * w * c],
        }
    }

    /// Which dimension counts channels.
    const fn channel_axis(self) -> usize {
        match self {
            Self::Nhwc => 3,
            Self::Nchw | Self::FlatChw | Self::FlatHwc => 1,
        }
    }

    const fn rank(self) -> usize {
        match self {
            Self::Nchw | Self::Nhwc => 4,
            Self::FlatChw | Self::FlatHwc => 2,
        }
    }
}

/// A node's attributes and operands.
struct Call<'a> {
    node: &'a proto::Node,
    operands: Vec<Option<Value>>,
}

impl Call<'_> {
    fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    fn operand(&self, i: usize) -> Option<&Value> {
        self.operands.get(i)?.as_ref()
    }

    /// Operand `i`, which must depend on the picture, without a border.
    fn map(&self, i: usize) -> Result<Map, String> {
        match self.bordered(i)? {
            Map { border: Some(_), .. } => Err("reads a padded map, which only windows do".into()),
            map => Ok(map),
        }
    }

    fn bordered(&self, i: usize) -> Result<Map, String> {
        match self.operand(i) {
            Some(Value::Map(map)) => Ok(*map),
            _ => Err(format!("operand {i} does not depend on the picture")),
        }
    }

    /// Operand `i`, which must be a constant.
    fn constant(&self, i: usize) -> Result<&Constant, String> {
        match self.operand(i) {
            Some(Value::Constant(constant)) => Ok(constant),
            Some(Value::Map(_)) => Err(format!("operand {i} is no constant")),
            None => Err(format!("operand {i} is missing")),
        }
    }

    fn optional(&self, i: usize) -> Result<Option<&Constant>, String> {
        if self.operand(i).is_none() { Ok(None) } else { self.constant(i).map(Some) }
    }

    /// Numbers that were an attribute in older versions, and are an operand in newer ones.
    fn numbers(&self, name: &str, operand: usize) -> Result<Option<Vec<i64>>, String> {
        if let Some(ints) = self.ints(name) {
            return Ok(Some(ints.to_vec()));
        }
        let Some(constant) = self.optional(operand)? else { return Ok(None) };
        let ints = constant.to_ints().ok_or_else(|| format!("{name} are no integers"))?;
        Ok(Some(ints.to_vec()))
    }

    /// Whether the output with this index is named.
    fn has_output(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|name| !name.is_empty())
    }
}

impl Importer<'_> {
    /// Walks over one node.
    pub(super) fn node(&mut self, node: &proto::Node) -> Result<(), String> {
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
        let on_picture = call.operands.iter().flatten().any(|v| matches!(v, Value::Map(_)));
        let value = if on_picture { self.layer(&call)? } else { Value::Constant(folded(&call)?) };
        let output = node.output.first().ok_or("computes nothing")?;
        if self.values.insert(output.clone(), value).is_some() {
            return Err(format!("computes `{}` a second time", output.escape_debug()));
        }
        Ok(())
    }

    fn shape(&self, map: Map) -> Shape {
        self.graph.nodes[map.id].shape
    }

    fn push(
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
    fn layer(&mut self, call: &Call<'_>) -> Result<Value, String> {
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
            "Softmax" | "LogSoftmax" if self.outputs.contains(call.node.output[0].as_str()) => {
                Ok(Value::Map(call.map(0)?))
            }
            "Softmax" | "LogSoftmax" => Err("is not the last layer".into()),
            "QuantizeLinear" => self.quantize(call),
            "Identity" | "Dropout" | "Cast" | "DequantizeLinear" => {
                Ok(Value::Map(call.bordered(0)?))
            }
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

    /// Filter, strides and padding of a window over `x`, whose border must have the value `outside`.
    fn window(
        &self,
        call: &Call<'_>,
        x: Map,
        filter: Option<[i64; 2]>,
        outside: f32,
    ) -> Result<([u16; 2], [u16; 2], Padding), String> {
        let pair = |name: &str, default: [i64; 2]| match call.ints(name) {
            None => Ok(default),
            Some(&[a, b]) => Ok([a, b]),
            Some(other) => Err(format!("{name} {other:?}, but two numbers are wanted")),
        };
        let filter = match filter {
            Some(filter) => filter,
            None => pair("kernel_shape", [0, 0])?,
        };
        let small = |name: &str, pair: [i64; 2]| match pair.map(u16::try_from) {
            [Ok(a), Ok(b)] if a > 0 && b > 0 => Ok([a, b]),
            _ => Err(format!("{name} {pair:?}")),
        };
        let filter = small("filter", filter)?;
        let stride = small("strides", pair("strides", [1, 1])?)?;
        if pair("dilations", [1, 1])? != [1, 1] {
            return Err("dilated windows are not read".into());
        }
        let shape = self.shape(x);
        let sides = [shape.h, shape.w].map(usize::from);
        let same =
            |axis: usize| same_padding(sides[axis], filter[axis].into(), stride[axis].into());
        let automatic = call.attribute("auto_pad").map_or(&b"NOTSET"[..], |a| &a.s);
        // Before and after, of rows and columns.
        let [rows, columns] = match automatic {
            b"SAME_UPPER" => [same(0), same(1)],
            b"SAME_LOWER" => [same(0), same(1)].map(|(a, b)| (b, a)),
            b"VALID" => [(0, 0); 2],
            _ => match call.ints("pads").map(|p| p.iter().map(|&v| small_pad(v)).collect()) {
                None => [(0, 0); 2],
                Some(Some::<Vec<usize>>(p)) if p.len() == 4 => [(p[0], p[2]), (p[1], p[3])],
                Some(_) => return Err(format!("pads {:?}", call.ints("pads").unwrap_or(&[]))),
            },
        };
        let mut sums = [rows.0, columns.0, rows.1, columns.1];
        if let Some(Border { padding: p, value }) = x.border {
            let unseen = outside == f32::NEG_INFINITY && self.hides_zeros(x, PoolKind::Max);
            if value != outside && !(value == 0.0 && unseen) {
                return Err(format!("reads a map padded with {value}"));
            }
            for (sum, more) in sums.iter_mut().zip([p.top, p.left, p.bottom, p.right]) {
                *sum += usize::from(more);
            }
        }
        if call.int("ceil_mode", 0) != 0 {
            // As many windows as start inside: a border behind, which pools do not see.
            for axis in 0..2 {
                let (filter, stride) = (usize::from(filter[axis]), usize::from(stride[axis]));
                let padded = sides[axis] + sums[axis] + sums[axis + 2];
                let mut windows = padded.saturating_sub(filter).div_ceil(stride) + 1;
                if (windows - 1) * stride >= sides[axis] + sums[axis] {
                    windows -= 1;
                }
                let wanted = (windows - 1) * stride + filter;
                sums[axis + 2] += wanted.saturating_sub(padded);
            }
        }
        let [Ok(top), Ok(left), Ok(bottom), Ok(right)] = sums.map(u8::try_from) else {
            return Err(format!("padding {sums:?}"));
        };
        Ok((filter, stride, Padding { top, left, bottom, right }))
    }

    /// Whether a pool of this kind does not see zeros around a map: a maximum of values that are not
    /// negative.
    fn hides_zeros(&self, x: Map, kind: PoolKind) -> bool {
        kind == PoolKind::Max && matches!(self.graph.nodes[x.id].op, NodeOp::Relu)
    }

    /// `x` with as many of the zeros around it as a window sees: a convolution with one tap for each
    /// channel, since only convolutions pad with zeros here.
    fn padded(
        &mut self,
        call: &Call<'_>,
        x: Map,
        (filter, stride, padding): ([u16; 2], [u16; 2], Padding),
    ) -> Result<Map, String> {
        let shape = self.shape(x);
        let c = usize::from(shape.c);
        // Of rows and columns: filter, tap, and padding before and after.
        let axis = |len: u16, before: u8, after: u8, i: usize| {
            let padded = usize::from(len) + usize::from(before) + usize::from(after);
            let (filter, stride) = (usize::from(filter[i]), usize::from(stride[i]));
            let seen = padded.checked_sub(filter).map(|rest| rest / stride * stride + filter);
            let after = usize::from(after).saturating_sub(padded - seen.unwrap_or(padded));
            let before = usize::from(before);
            // The output is as long as the padded map where the filter is one longer than the
            // border; its tap stands where the border before it ends.
            let size = before + after + 1;
            (size, after, (before + after, after + before))
        };
        let rows = axis(shape.h, padding.top, padding.bottom, 0);
        let columns = axis(shape.w, padding.left, padding.right, 1);
        let (sizes, taps) = ([rows.0, columns.0], [rows.1, columns.1]);
        let mut weights = vec![0.0; c * sizes[0] * sizes[1] * c];
        for o in 0..c {
            weights[((o * sizes[0] + taps[0]) * sizes[1] + taps[1]) * c + o] = 1.0;
        }
        let side = |value: usize| u8::try_from(value).map_err(|_| format!("padding {value}"));
        let conv = Conv {
            weights,
            bias: vec![0.0; c],
            filter: sizes.map(|s| s as u16),
            stride: [1; 2],
            padding: Padding {
                top: side(rows.2.0)?,
                left: side(columns.2.0)?,
                bottom: side(rows.2.1)?,
                right: side(columns.2.1)?,
            },
            relu: false,
            residual: false,
            weight_scales: Vec::new(),
        };
        let quant = self.graph.nodes[x.id].quant;
        let Value::Map(map) = self.push(call, NodeOp::Conv2d(conv), &[x], x.layout)? else {
            return Err("no map".into());
        };
        let node = &mut self.graph.nodes[map.id];
        node.name.push_str(".pad");
        node.quant = quant;
        Ok(map)
    }

    fn pool(&mut self, call: &Call<'_>, kind: PoolKind) -> Result<Value, String> {
        let x = call.bordered(0)?;
        if x.layout != Layout::Nchw {
            return Err("its input is no map of [1, channels, height, width]".into());
        }
        if kind == PoolKind::Max && call.has_output(1) {
            return Err("the places of maxima are not read".into());
        }
        let outside = match kind {
            PoolKind::Max => f32::NEG_INFINITY,
            PoolKind::Average => f32::NAN,
        };
        let counts_padding = call.int("count_include_pad", 0) != 0;
        // Zeros around a map that a pool does see, unlike those that it only skips.
        let zeros = match x.border {
            Some(Border { padding, value: 0.0 }) if !self.hides_zeros(x, kind) => Some(padding),
            _ => None,
        };
        let (mut x, mut window) = match zeros {
            Some(zeros) => {
                let bare = Map { border: None, ..x };
                let mut window = self.window(call, bare, None, outside)?;
                if window.2 != Padding::default() {
                    return Err("pads a map twice".into());
                }
                window.2 = zeros;
                (bare, window)
            }
            None => (x, self.window(call, x, None, outside)?),
        };
        if window.2 != Padding::default()
            && (zeros.is_some() || (counts_padding && kind == PoolKind::Average))
        {
            x = self.padded(call, x, window)?;
            window.2 = Padding::default();
        }
        let (filter, stride, padding) = window;
        self.push(call, NodeOp::Pool2d { kind, filter, stride, padding }, &[x], x.layout)
    }

    /// A pool of the whole map, whose dimensions stay where `keep`.
    fn global_pool(
        &mut self,
        call: &Call<'_>,
        kind: PoolKind,
        axes: Option<Vec<i64>>,
        keep: bool,
    ) -> Result<Value, String> {
        let x = call.map(0)?;
        let (shape, wanted) = (
            self.shape(x),
            match x.layout {
                Layout::Nchw => [2, 3],
                Layout::Nhwc => [1, 2],
                Layout::FlatChw | Layout::FlatHwc => return Err("its input is no map".into()),
            },
        );
        if let Some(axes) = axes {
            let mut axes: Vec<i64> = axes.iter().map(|&a| if a < 0 { a + 4 } else { a }).collect();
            axes.sort_unstable();
            if axes != wanted {
                return Err(format!("reduces the axes {axes:?}, but {wanted:?} are read"));
            }
        }
        let (filter, stride) = ([shape.h, shape.w], [1, 1]);
        let op = NodeOp::Pool2d { kind, filter, stride, padding: Padding::default() };
        let layout = if keep { x.layout } else { Layout::FlatChw };
        self.push(call, op, &[x], layout)
    }

    fn reduce(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let kind = match call.node.op_type.as_str() {
            "ReduceMean" => PoolKind::Average,
            _ => PoolKind::Max,
        };
        let axes = call.numbers("axes", 1)?.ok_or("reduces all axes")?;
        self.global_pool(call, kind, Some(axes), call.int("keepdims", 1) != 0)
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

    /// Keeps how int8 stores a value; what is dequantized again is that value.
    fn quantize(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let mut x = call.bordered(0)?;
        if x.border.is_some() {
            // A border is stored as what it surrounds is.
            return Ok(Value::Map(x));
        }
        let scale = call.constant(1)?.to_floats();
        let (zero, is_unsigned) = match call.optional(2)? {
            Some(zero) => (zero.to_floats(), zero.is_unsigned),
            None => (vec![0.0], true),
        };
        let ([scale], [zero]) = (&scale[..], &zero[..]) else {
            return Err("several scales for a map; one is read".into());
        };
        let zero_point = if is_unsigned { zero - 128.0 } else { *zero };
        if !(-128.0..=127.0).contains(&zero_point) {
            return Err(format!("the zero point {zero}; 8 bits are read"));
        }
        let quant = Quant { scale: *scale, zero_point: zero_point as i8 };
        if !quant.is_valid() {
            return Err(format!("the scale {scale}"));
        }
        // Exporters leave away a ReLU where nothing below zero can be stored.
        let sum = matches!(
            self.graph.nodes[x.id].op,
            NodeOp::Conv2d(_) | NodeOp::BatchNorm { .. } | NodeOp::Add
        );
        let clamps = sum && quant.zero_point == -128 && self.graph.nodes[x.id].quant.is_none();
        if clamps && let Value::Map(map) = self.push(call, NodeOp::Relu, &[x], x.layout)? {
            x = map;
        }
        // A second one would round a value that is stored already.
        self.graph.nodes[x.id].quant.get_or_insert(quant);
        Ok(Value::Map(x))
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

    fn pad(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let mode = call.attribute("mode").map_or(&b"constant"[..], |a| &a.s);
        if mode != b"constant" {
            return Err(format!(
                "pads by `{}`, but only constants are read",
                String::from_utf8_lossy(mode)
            ));
        }
        let pads = call.numbers("pads", 1)?.unwrap_or_default();
        let value = match call.optional(2)? {
            Some(constant) => constant.to_floats().first().copied().unwrap_or(0.0),
            None => call.float("value", 0.0),
        };
        // The least number stands for −∞.
        let value = if value == f32::MIN { f32::NEG_INFINITY } else { value };
        let pads: Result<Vec<u8>, _> = pads.iter().map(|&p| u8::try_from(p)).collect();
        let pads = pads.map_err(|_| "pads that are negative or too large")?;
        let (padding, others) = match (x.layout, &pads[..]) {
            (Layout::Nchw, &[a, b, top, left, c, d, bottom, right]) => {
                (Padding { top, left, bottom, right }, [a, b, c, d])
            }
            (Layout::Nhwc, &[a, top, left, b, c, bottom, right, d]) => {
                (Padding { top, left, bottom, right }, [a, b, c, d])
            }
            _ => return Err(format!("pads {pads:?}")),
        };
        if others != [0; 4] {
            return Err("pads channels".into());
        }
        let border = (padding != Padding::default()).then_some(Border { padding, value });
        Ok(Value::Map(Map { border, ..x }))
    }

    fn transpose(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.bordered(0)?;
        let order = call.ints("perm").ok_or("without an order")?;
        let layout = match (x.layout, order) {
            (layout, order) if order.iter().copied().eq(0..layout.rank() as i64) => layout,
            (Layout::Nchw, [0, 2, 3, 1]) => Layout::Nhwc,
            (Layout::Nhwc, [0, 3, 1, 2]) => Layout::Nchw,
            _ => return Err(format!("the order {order:?}, but only NCHW and NHWC are read")),
        };
        Ok(Value::Map(Map { layout, ..x }))
    }

    /// `x` as one row.
    fn row(&self, x: Map) -> Value {
        let layout = match x.layout {
            Layout::Nchw | Layout::FlatChw => Layout::FlatChw,
            Layout::Nhwc | Layout::FlatHwc => Layout::FlatHwc,
        };
        Value::Map(Map { layout, ..x })
    }

    fn flatten(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        match call.int("axis", 1) {
            1 => Ok(self.row(x)),
            axis if axis < 0 && axis + x.layout.rank() as i64 == 1 => Ok(self.row(x)),
            axis => Err(format!("flattens from axis {axis}, but 1 is read")),
        }
    }

    fn reshape(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let wanted = call.numbers("shape", 1)?.ok_or("without a shape")?;
        let (shape, dims) = (self.shape(x), x.layout.dims(self.shape(x)));
        // A zero stands for the same dimension, −1 for what is left.
        let mut wanted: Vec<i64> = (wanted.iter().enumerate())
            .map(|(i, &d)| if d == 0 { dims.get(i).copied().unwrap_or(0) } else { d })
            .collect();
        let len = shape.len() as i64;
        let known = positive_product(&wanted);
        if let Some(open) = wanted.iter_mut().find(|d| **d == -1) {
            *open = len / known.max(1);
        }
        self.view(x, &wanted)
    }

    fn squeeze(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let mut dims = x.layout.dims(self.shape(x));
        let axes = call.numbers("axes", 1)?;
        let rank = dims.len() as i64;
        if call.node.op_type == "Unsqueeze" {
            let axes = axes.ok_or("without axes")?;
            let rank = rank + axes.len() as i64;
            let mut axes: Vec<i64> =
                axes.iter().map(|&a| if a < 0 { a + rank } else { a }).collect();
            axes.sort_unstable();
            for axis in axes {
                let at = usize::try_from(axis).ok().filter(|&at| at <= dims.len());
                dims.insert(at.ok_or_else(|| format!("axis {axis}"))?, 1);
            }
        } else {
            let axes = axes.ok_or("without axes, which would lose the picture's too")?;
            let mut axes: Vec<i64> =
                axes.iter().map(|&a| if a < 0 { a + rank } else { a }).collect();
            axes.sort_unstable();
            for axis in axes.into_iter().rev() {
                let at = usize::try_from(axis).ok().filter(|&at| dims.get(at) == Some(&1));
                dims.remove(at.ok_or_else(|| format!("axis {axis}"))?);
            }
        }
        self.view(x, &dims)
    }

    /// The same numbers with other dimensions: a row, or a map with nothing but channels.
    fn view(&self, x: Map, dims: &[i64]) -> Result<Value, String> {
        let (shape, len) = (self.shape(x), self.shape(x).len() as i64);
        if dims == x.layout.dims(shape) {
            return Ok(Value::Map(x));
        }
        let pixel = shape.pixels() == 1;
        let layout = match *dims {
            [1, n] if n == len => return Ok(self.row(x)),
            [1, n, 1, 1] if n == len && pixel => Layout::Nchw,
            [1, 1, 1, n] if n == len && pixel => Layout::Nhwc,
            _ => {
                let from = x.layout.dims(shape);
                return Err(format!("makes {dims:?} of {from:?}, but only a row is read"));
            }
        };
        Ok(Value::Map(Map { layout, ..x }))
    }
}

fn small_pad(pad: i64) -> Option<usize> {
    u8::try_from(pad).ok().map(usize::from)
}

/// The product of the dimensions that are known.
fn positive_product(dims: &[i64]) -> i64 {
    dims.iter().filter(|&&d| d > 0).fold(1, |product: i64, &d| product.saturating_mul(d))
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

/// An operator on constants alone.
fn folded(call: &Call<'_>) -> Result<Constant, String> {
    let first = || call.constant(0).cloned();
    let index = |i: i64, len: usize| -> Result<usize, String> {
        let i = if i < 0 { i + len as i64 } else { i };
        usize::try_from(i).ok().filter(|&i| i < len).ok_or_else(|| format!("index {i} of {len}"))
    };
    let ints = |i: usize| -> Result<Vec<i64>, String> {
        let constant = call.constant(i)?;
        Ok(constant.to_ints().ok_or("a constant that is computed of no integers")?.to_vec())
    };
    Ok(match call.node.op_type.as_str() {
        "Constant" => {
            let whole = |a: &proto::Attribute| a.t.as_ref().map(|t| Constant::read(t, "".as_ref()));
            match call.node.attribute.first() {
                Some(a) if a.name == "value" => whole(a).ok_or("without a value")??,
                Some(a) if a.name == "value_int" => {
                    Constant::new(vec![], Values::Int(vec![a.i.unwrap_or_default()]))
                }
                Some(a) if a.name == "value_float" => {
                    Constant::new(vec![], Values::Float(vec![a.f.unwrap_or_default()]))
                }
                Some(a) if a.name == "value_ints" => Constant::ints(a.ints.clone()),
                Some(a) if a.name == "value_floats" => {
                    Constant::new(vec![a.floats.len()], Values::Float(a.floats.clone()))
                }
                _ => return Err("a constant of a kind that is not read".into()),
            }
        }
        "Identity" | "Cast" | "Dropout" => first()?,
        "Transpose" => {
            let constant = first()?;
            let order: Option<Vec<usize>> = match call.ints("perm") {
                Some(order) => order.iter().map(|&i| usize::try_from(i).ok()).collect(),
                None => Some((0..constant.dims.len()).rev().collect()),
            };
            order
                .and_then(|order| constant.transposed(&order))
                .ok_or("an order that does not fit")?
        }
        "Reshape" => {
            let mut constant = first()?;
            let len = constant.dims.iter().product::<usize>();
            let mut dims = ints(1)?;
            let known = positive_product(&dims);
            if let Some(open) = dims.iter_mut().find(|d| **d == -1) {
                *open = len as i64 / known.max(1);
            }
            let dims: Vec<usize> = dims.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
            if dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d)) != Some(len) {
                return Err(format!("makes {dims:?} of {:?}", constant.dims));
            }
            constant.dims = dims;
            constant
        }
        "Shape" => Constant::ints(first()?.dims.iter().map(|&d| d as i64).collect()),
        "Gather" => {
            let (data, indices) = (ints(0)?, ints(1)?);
            let picked: Result<Vec<i64>, String> =
                indices.iter().map(|&i| Ok(data[index(i, data.len())?])).collect();
            Constant::new(call.constant(1)?.dims.clone(), Values::Int(picked?))
        }
        "Unsqueeze" | "Squeeze" => Constant::ints(ints(0)?),
        "Concat" => {
            let mut all = Vec::new();
            for i in 0..call.operands.len() {
                all.extend(ints(i)?);
            }
            Constant::ints(all)
        }
        "Slice" => {
            let data = ints(0)?;
            let [start, end] = [("starts", 1), ("ends", 2)].map(|(name, i)| call.numbers(name, i));
            let (start, end) = (start?.ok_or("without starts")?, end?.ok_or("without ends")?);
            let clamp = |i: i64| {
                let len = data.len() as i64;
                (if i < 0 { i + len } else { i }).clamp(0, len) as usize
            };
            let one = |ends: &[i64]| ends.first().map_or(0, |&i| clamp(i));
            let (start, end) = (one(&start), one(&end));
            Constant::ints(data.get(start..end).unwrap_or(&[]).to_vec())
        }
        "DequantizeLinear" => dequantized(call)?,
        _ => return Err("computes with constants in a way that is not read".into()),
    })
}

/// `(x − zero_point) · scale`, for each of the axis' places by itself where there are several.
fn dequantized(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let scale = call.constant(1)?.to_floats();
    let zero = call.optional(2)?.map_or(vec![0.0], Constant::to_floats);
    let axis = call.int("axis", 1);
    let axis = if axis < 0 { axis + x.dims.len() as i64 } else { axis };
    let (places, inner) = match scale.len() {
        1 => (1, x.dims.iter().product()),
        places => {
            let at = usize::try_from(axis).ok().filter(|&at| x.dims.get(at) == Some(&places));
            let at = at.ok_or_else(|| format!("{places} scales for a shape {:?}", x.dims))?;
            (places, x.dims[at + 1..].iter().product::<usize>())
        }
    };
    if zero.len() != 1 && zero.len() != places {
        return Err(format!("{} zero points for {places} scales", zero.len()));
    }
    let values = x.to_floats();
    let values = values.iter().enumerate().map(|(i, v)| {
        let place = i / inner.max(1) % places;
        (v - zero[place.min(zero.len() - 1)]) * scale[place]
    });
    let values = Values::Float(values.collect());
    // Of int8 without a zero point, what is multiplied is what is stored.
    let plain = zero.iter().all(|&z| z == 0.0) && !x.is_unsigned;
    let kept = plain && (scale.len() == 1 || axis == 0);
    let scales = if kept { scale } else { Vec::new() };
    Ok(Constant { scales, ..Constant::new(x.dims.clone(), values) })
}
