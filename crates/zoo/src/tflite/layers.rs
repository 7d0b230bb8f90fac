//! Layer by layer: what ONNX has for each operator.

use super::Fault;
use super::file::{File, Layer, Tensor};
use super::rewrite::{Writer, first_name, value};
use flatbuffers::InvalidFlatbuffer;
use formats::onnx as proto;
use proto::Attribute;

/// Most dimensions of a map, before and behind which borders may be.
const MAX_OPTIONS: usize = 16;
/// Orders of dimensions.
const TO_NCHW: [i64; 4] = [0, 3, 1, 2];
const TO_NHWC: [i64; 4] = [0, 2, 3, 1];
const DEPTHWISE_TO_OIHW: [i64; 4] = [3, 0, 1, 2];

/// A layer whose operands are written already.
struct Step<'s, 'a> {
    file: &'s File<'a>,
    layer: &'s Layer<'a>,
    operator: String,
    /// Names of its operands; empty where one is left out.
    operands: Vec<String>,
    output: i32,
    result: &'s Tensor<'a>,
    /// Its name for people.
    title: String,
    /// What it computes, not yet clamped or rounded.
    real: String,
    /// The code of a fused clamp.
    clamp: i64,
}

impl Step<'_, '_> {
    fn inputs(&self) -> Vec<&str> {
        self.operands.iter().map(String::as_str).collect()
    }

    fn first(&self) -> Result<&str, Fault> {
        let what = || Fault::Unsupported(format!("{} without an operand", self.operator));
        self.operands.first().map(String::as_str).ok_or_else(what)
    }

    /// The integers of operand `i`.
    fn constant(&self, i: usize) -> Result<Vec<i64>, Fault> {
        let operator = &self.operator;
        let what = || Fault::Unsupported(format!("{operator}: operand {i} is no constant"));
        let numbers = match self.layer.inputs.get(i) {
            Some(&index) => self.file.tensor(index)?.to_ints(),
            None => None,
        };
        numbers.filter(|numbers| numbers.len() <= MAX_OPTIONS).ok_or_else(what)
    }

    fn refused(&self, what: &str) -> Fault {
        Fault::Unsupported(format!("`{}`: {what}", self.title))
    }

    /// Strides and padding of a window.
    fn window(&self) -> Result<Vec<Attribute>, InvalidFlatbuffer> {
        let layer = self.layer;
        let strides = Attribute::ints("strides", &[layer.int(2)?, layer.int(1)?]);
        let rule = if layer.byte(0)? == 0 { "SAME_UPPER" } else { "VALID" };
        let rule = Attribute { name: "auto_pad".into(), s: rule.into(), ..Default::default() };
        Ok(vec![strides, rule])
    }
}

impl<'f, 'a> Writer<'f, 'a> {
    pub(super) fn layer(&mut self, layer: &'f Layer<'a>) -> Result<(), Fault> {
        let step = self.step(layer)?;
        // The stored probabilities say nothing of logits.
        if matches!(step.operator.as_str(), "SOFTMAX" | "LOG_SOFTMAX") {
            let output = value(step.output);
            self.push("Softmax", &step.title, &step.inputs(), &output, Vec::new());
            return Ok(());
        }
        self.operator(&step)?;
        let clamped = format!("{} clamped", step.real);
        let from = step.real.as_str();
        match step.clamp {
            0 => return self.stored(step.output, step.real),
            1 => self.push("Relu", &step.title, &[from], &clamped, Vec::new()),
            2 => self.clip(&step, from, &clamped, -1.0, 1.0),
            3 => self.clip(&step, from, &clamped, 0.0, 6.0),
            4 => self.push("TANH", &step.title, &[from], &clamped, Vec::new()),
            _ => self.push("SIGN_BIT", &step.title, &[from], &clamped, Vec::new()),
        }
        self.stored(step.output, clamped)
    }

    fn clip(&mut self, step: &Step<'_, '_>, from: &str, to: &str, low: f32, high: f32) {
        let names = [("least", low), ("largest", high)].map(|(part, bound)| {
            let name = format!("{to} {part}");
            self.constant(&name, &[], proto::FLOAT, bound.to_le_bytes().into());
            name
        });
        self.push("Clip", &step.title, &[from, &names[0], &names[1]], to, Vec::new());
    }

    fn step(&mut self, layer: &'f Layer<'a>) -> Result<Step<'f, 'a>, Fault> {
        let (file, operator) = (self.file, layer.operator_name());
        let [output, ..] = layer.outputs[..] else {
            return Err(Fault::Unsupported(format!("{operator} computes nothing")));
        };
        let result = file.tensor(output)?;
        if !self.computed.insert(output) {
            let what = format!("{operator}: computes tensor {output} a second time");
            return Err(Fault::Unsupported(what));
        }
        let mut operands = Vec::new();
        for &index in file.operands(layer) {
            operands.push(if index < 0 { String::new() } else { self.operand(index)? });
        }
        // Weights have the name of their layer; results often that of what they are fused with.
        let named = match (operator.as_str(), layer.inputs.get(1)) {
            ("CONV_2D" | "DEPTHWISE_CONV_2D" | "FULLY_CONNECTED", Some(&weights)) => {
                file.tensor(weights)?
            }
            _ => result,
        };
        let title = first_name(named).to_owned();
        let real = format!("{} real", value(output));
        let clamp = match operator.as_str() {
            "CONV_2D" => layer.byte(3)?,
            "DEPTHWISE_CONV_2D" => layer.byte(4)?,
            "MAX_POOL_2D" | "AVERAGE_POOL_2D" => layer.byte(5)?,
            "FULLY_CONNECTED" | "ADD" | "SUB" | "MUL" | "DIV" => layer.byte(0)?,
            _ => 0,
        };
        Ok(Step { file, layer, operator, operands, output, result, title, real, clamp })
    }

    /// What the operator computes, without clamp and rounding.
    fn operator(&mut self, step: &Step<'_, '_>) -> Result<(), Fault> {
        let kind = match step.operator.as_str() {
            "CONV_2D" => return self.conv(step, [5, 4], TO_NCHW),
            "DEPTHWISE_CONV_2D" => return self.conv(step, [6, 5], DEPTHWISE_TO_OIHW),
            "MAX_POOL_2D" => return self.pool(step, "MaxPool"),
            "AVERAGE_POOL_2D" => return self.pool(step, "AveragePool"),
            "FULLY_CONNECTED" => return self.dense(step),
            "MEAN" => return self.reduce(step, "ReduceMean"),
            "REDUCE_MAX" => return self.reduce(step, "ReduceMax"),
            "RESHAPE" | "SQUEEZE" | "EXPAND_DIMS" => return self.reshape(step),
            "TRANSPOSE" => {
                self.plain(step, "Transpose", vec![Attribute::ints("perm", &step.constant(1)?)]);
                return Ok(());
            }
            "GATHER" => {
                self.plain(step, "Gather", vec![Attribute::int("axis", step.layer.int(0)?)]);
                return Ok(());
            }
            "STRIDED_SLICE" => return self.slice(step),
            "PAD" | "PADV2" => return self.pad(step),
            "ADD" => "Add",
            "SUB" => "Sub",
            "MUL" => "Mul",
            "DIV" => "Div",
            "RELU" => "Relu",
            "RELU6" | "RELU_N1_TO_1" => {
                let (low, high) = if step.operator == "RELU6" { (0.0, 6.0) } else { (-1.0, 1.0) };
                self.clip(step, step.first()?, &step.real, low, high);
                return Ok(());
            }
            "LOGISTIC" => "Sigmoid",
            "HARD_SWISH" => "HardSwish",
            "GELU" if step.layer.byte(0)? == 0 => "Gelu",
            "CAST" | "QUANTIZE" | "DEQUANTIZE" => "Identity",
            // Listed with all others that are not read, by the importer.
            other => other,
        };
        self.plain(step, kind, Vec::new());
        Ok(())
    }

    /// One node of the layer's own operands.
    fn plain(&mut self, step: &Step<'_, '_>, kind: &str, attributes: Vec<Attribute>) {
        self.push(kind, &step.title, &step.inputs(), &step.real, attributes);
    }

    fn transpose(&mut self, step: &Step<'_, '_>, inputs: &[&str], output: &str, order: [i64; 4]) {
        self.push("Transpose", &step.title, inputs, output, vec![Attribute::ints("perm", &order)]);
    }

    /// `dilations` are the fields of those of rows and columns, `order` makes OIHW of the weights.
    fn conv(
        &mut self,
        step: &Step<'_, '_>,
        dilations: [u16; 2],
        order: [i64; 4],
    ) -> Result<(), Fault> {
        let (layer, real) = (step.layer, &step.real);
        let mut attributes = step.window()?;
        let [rows, columns] = dilations;
        let dilations = [layer.int(rows)?.max(1), layer.int(columns)?.max(1)];
        // Channels of the map, and those that a filter sees.
        let channels = |i: usize| {
            let dims = layer.inputs.get(i).map(|&index| self.file.tensor(index)).transpose()?;
            Ok::<_, Fault>(dims.and_then(|t| t.dims.get(3).copied()).unwrap_or(1).max(1))
        };
        let seen = if order == TO_NCHW { channels(1)? } else { 1 };
        attributes.push(Attribute::int("group", channels(0)? / seen));
        attributes.push(Attribute::ints("dilations", &dilations));
        let [x, weights] = [0, 1].map(|i| format!("{real} nchw {i}"));
        let from = |i: usize| step.operands.get(i).map_or("", String::as_str);
        self.transpose(step, &[from(0)], &x, TO_NCHW);
        self.transpose(step, &[from(1)], &weights, order);
        let y = format!("{real} nchw");
        self.push("Conv", &step.title, &[&x, &weights, from(2)], &y, attributes);
        self.transpose(step, &[&y], real, TO_NHWC);
        Ok(())
    }

    fn pool(&mut self, step: &Step<'_, '_>, kind: &str) -> Result<(), Fault> {
        let mut attributes = step.window()?;
        let filter = [step.layer.int(4)?, step.layer.int(3)?];
        attributes.push(Attribute::ints("kernel_shape", &filter));
        let [x, y] = [0, 1].map(|i| format!("{} nchw {i}", step.real));
        self.transpose(step, &step.inputs(), &x, TO_NCHW);
        self.push(kind, &step.title, &[&x], &y, attributes);
        self.transpose(step, &[&y], &step.real, TO_NHWC);
        Ok(())
    }

    fn dense(&mut self, step: &Step<'_, '_>) -> Result<(), Fault> {
        if step.layer.byte(1)? != 0 {
            return Err(step.refused("weights in a shuffled order"));
        }
        let flat = format!("{} flat", step.real);
        self.push("Flatten", &step.title, &[step.first()?], &flat, Vec::new());
        let mut operands = step.inputs();
        operands[0] = &flat;
        let turned = vec![Attribute::int("transB", 1)];
        self.push("Gemm", &step.title, &operands, &step.real, turned);
        Ok(())
    }

    fn reduce(&mut self, step: &Step<'_, '_>, kind: &str) -> Result<(), Fault> {
        let axes = Attribute::ints("axes", &step.constant(1)?);
        self.plain(step, kind, vec![axes, Attribute::int("keepdims", step.layer.byte(0)?)]);
        Ok(())
    }

    fn reshape(&mut self, step: &Step<'_, '_>) -> Result<(), Fault> {
        // An open number of pictures is one.
        let dims = step.result.dims.iter().map(|&d| if d < 0 { 1 } else { d });
        let raw = dims.flat_map(i64::to_le_bytes).collect();
        let shape = format!("{} shape", step.real);
        self.constant(&shape, &[step.result.dims.len() as i64], proto::INT64, raw);
        self.push("Reshape", &step.title, &[step.first()?, &shape], &step.real, Vec::new());
        Ok(())
    }

    fn slice(&mut self, step: &Step<'_, '_>) -> Result<(), Fault> {
        let (begin, end, steps) = (step.constant(1)?, step.constant(2)?, step.constant(3)?);
        // Bits of dimensions that are taken from their first place, or to their last.
        let [from_first, to_last] = [step.layer.int(0)?, step.layer.int(1)?];
        if [2, 3, 4].iter().any(|&field| step.layer.int(field).is_ok_and(|mask| mask != 0)) {
            return Err(step.refused("a slice that adds or leaves away dimensions"));
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
            Attribute::ints("starts", &starts),
            Attribute::ints("ends", &ends),
            Attribute::ints("steps", &steps),
        ];
        self.push("Slice", &step.title, &[step.first()?], &step.real, attributes);
        Ok(())
    }

    fn pad(&mut self, step: &Step<'_, '_>) -> Result<(), Fault> {
        // Before and after, dimension by dimension; ONNX has all before and all after.
        let pads = step.constant(1)?;
        let pads: Vec<i64> =
            pads.iter().step_by(2).chain(pads.iter().skip(1).step_by(2)).copied().collect();
        let mut operands = vec![step.first()?];
        if let Some(value) = step.operands.get(2) {
            operands.extend(["", value]);
        }
        let pads = vec![Attribute::ints("pads", &pads)];
        self.push("Pad", &step.title, &operands, &step.real, pads);
        Ok(())
    }
}
