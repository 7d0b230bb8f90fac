//! Int8 as operations on integers ([`super::Form::Integer`]).

use super::{Emitter, INPUT, Integers, OUTPUT, conv_window, floats_as_bytes, oihw, window};
use artifact::{Clamp, PoolKind, Quant};
use formats::onnx as proto;
use network::graph::{Conv, Graph, NodeOp, ValueId};

impl Emitter<'_> {
    /// The whole network: floats only before its first and behind its last layer, and in those that
    /// ONNX has for floats alone.
    pub(super) fn integers(&mut self, graph: &Graph, quants: &[Quant]) {
        let mut values: Vec<String> = Vec::with_capacity(graph.nodes.len());
        for (id, node) in graph.nodes.iter().enumerate() {
            let value = self.names.unique(&node.name);
            let inputs: Vec<&str> = node.inputs.iter().map(|&i| values[i].as_str()).collect();
            match node.op {
                NodeOp::Input => self.quantize(quants, id, INPUT, &value),
                _ => self.integer_node(graph, quants, id, &inputs, &value),
            }
            values.push(value);
        }
        let mut last = values[graph.output()].clone();
        if self.int8(graph.output()).is_some() {
            last = self.dequantize(quants, graph.output(), &last);
        }
        if self.flat_output {
            self.push("Flatten", &[&last], OUTPUT, vec![proto::Attribute::int("axis", 1)]);
        } else {
            self.push("Identity", &[&last], OUTPUT, Vec::new());
        }
    }

    /// Appends the operations of one node, from int8 to int8, or from floats to floats.
    pub(super) fn integer_node(
        &mut self,
        graph: &Graph,
        quants: &[Quant],
        id: ValueId,
        inputs: &[&str],
        target: &str,
    ) {
        let node = &graph.nodes[id];
        match &node.op {
            NodeOp::Cast if quants[id].is_float() => {
                let [scale, zero] = self.quantization(quants, node.inputs[0]);
                self.push("DequantizeLinear", &[inputs[0], &scale, &zero], target, Vec::new());
            }
            NodeOp::Cast => self.quantize(quants, id, inputs[0], target),
            _ if quants[id].is_float() => self.node(graph, id, inputs, target),
            NodeOp::Conv2d(conv) => self.integer_conv(graph, quants, id, conv, inputs, target),
            NodeOp::Pool2d { kind: PoolKind::Max, filter, stride, padding } => {
                self.push("MaxPool", inputs, target, window(*filter, *stride, *padding));
            }
            _ => {
                let operands: Vec<String> = (node.inputs.iter().zip(inputs))
                    .map(|(&value, name)| self.dequantize(quants, value, name))
                    .collect();
                let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
                let real = self.names.unique(&format!("{target}_real"));
                self.node(graph, id, &operands, &real);
                self.quantize(quants, id, &real, target);
            }
        }
    }

    fn integer_conv(
        &mut self,
        graph: &Graph,
        quants: &[Quant],
        id: ValueId,
        conv: &Conv,
        inputs: &[&str],
        target: &str,
    ) {
        let operands = &graph.nodes[id].inputs;
        let (dims, order) = oihw(conv);
        let c_out = dims[0];
        let Integers { values, scales, units, bias } =
            Integers::new(graph, quants, id, conv, &order);
        let weights = self.names.unique(&format!("{target}.weight"));
        self.raw(&weights, &dims, proto::INT8, values);
        let [x_scale, x_zero] = self.quantization(quants, operands[0]);
        let window = conv_window(conv);
        let Some(residual) = inputs.get(1) else {
            let [scale, zero, biases] = ["weight.scale", "weight.zero_point", "bias"]
                .map(|part| self.names.unique(&format!("{target}.{part}")));
            self.raw(&scale, &[c_out], proto::FLOAT, floats_as_bytes(scales));
            self.raw(&zero, &[c_out], proto::INT8, vec![0; c_out]);
            let bytes = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
            self.raw(&biases, &[c_out], proto::INT32, bytes);
            let [y_scale, y_zero] = self.quantization(quants, id);
            // Bounds that are not the least and the largest number anyway.
            let bounds = conv.activation.clamp().map_or([i8::MIN, i8::MAX], |[low, high]| {
                Clamp::Bounds { low, high }.bytes(quants[id])
            });
            let clamps = bounds != [i8::MIN, i8::MAX];
            let sum =
                if clamps { self.names.unique(&format!("{target}_sum")) } else { target.into() };
            let operands =
                [inputs[0], &x_scale, &x_zero, &weights, &scale, &zero, &y_scale, &y_zero, &biases];
            self.push("QLinearConv", &operands, &sum, window);
            if clamps {
                let [low, high] =
                    ["low", "high"].map(|end| self.names.unique(&format!("{target}.{end}")));
                for (name, bound) in [(&low, bounds[0]), (&high, bounds[1])] {
                    self.raw(name, &[], proto::INT8, bound.to_le_bytes().into());
                }
                self.push("Clip", &[&sum, &low, &high], target, Vec::new());
            }
            return;
        };
        let sums = self.names.unique(&format!("{target}_sums"));
        self.push("ConvInteger", &[inputs[0], &weights, &x_zero], &sums, window);
        let [as_float, scaled, real] = ["sums_float", "scaled", "conv"]
            .map(|part| self.names.unique(&format!("{target}_{part}")));
        self.push(
            "Cast",
            &[&sums],
            &as_float,
            vec![proto::Attribute::int("to", proto::FLOAT.into())],
        );
        let biases = bias.iter().zip(&units).map(|(bias, unit)| *bias as f32 * unit);
        let biases = self.constant(target, "bias", &[c_out, 1, 1], biases);
        let units = self.constant(target, "unit", &[c_out, 1, 1], units);
        self.push("Mul", &[&as_float, &units], &scaled, Vec::new());
        self.push("Add", &[&scaled, &biases], &real, Vec::new());
        let real = match conv.sum_quant {
            Some(quant) => self.rounded(quant, real),
            None => real,
        };
        let residual = self.dequantize(quants, operands[1], residual);
        let rounded = self.names.unique(&format!("{target}_rounded"));
        self.clamped(conv.activation, &rounded, |emitter, output| {
            emitter.push("Add", &[&residual, &real], output, Vec::new());
        });
        self.quantize(quants, id, &rounded, target);
    }

    /// Names of the scale and the zero point of a value.
    fn quantization(&mut self, quants: &[Quant], id: ValueId) -> [String; 2] {
        if let Some(names) = self.quantizations.get(&id) {
            return names.clone();
        }
        let names =
            ["scale", "zero_point"].map(|part| self.names.unique(&format!("value_{id}.{part}")));
        self.raw(&names[0], &[], proto::FLOAT, quants[id].scale.to_le_bytes().into());
        self.raw(&names[1], &[], proto::INT8, quants[id].zero_point.to_le_bytes().into());
        self.quantizations.insert(id, names.clone());
        names
    }

    fn quantize(&mut self, quants: &[Quant], id: ValueId, real: &str, target: &str) {
        let [scale, zero] = self.quantization(quants, id);
        self.push("QuantizeLinear", &[real, &scale, &zero], target, Vec::new());
    }

    fn dequantize(&mut self, quants: &[Quant], id: ValueId, stored: &str) -> String {
        let [scale, zero] = self.quantization(quants, id);
        let real = self.names.unique(&format!("{stored}.real"));
        self.push("DequantizeLinear", &[stored, &scale, &zero], &real, Vec::new());
        real
    }
}
