//! Sums, activations, batch-norms and what only reorders.

use super::EXPORT;
use super::backbone::{function, named};
use super::config::activation;
use super::layers::{Layer, Operand};
use super::writer::{Computed, Writer};
use artifact::Curve;
use artifact::text::AsPlain;
use formats::onnx as proto;
use network::activation::Activation;
use proto::Attribute;
use serde::Deserialize;
use serde_json::Value;

impl Writer<'_> {
    /// Operations with constants, one after the other.
    pub(super) fn affine<const N: usize>(
        &mut self,
        layer: &Layer,
        x: Computed,
        steps: [(&str, Vec<f32>); N],
    ) -> Computed {
        let name = self.name();
        let mut before = x.name.clone();
        for (i, (operator, values)) in steps.into_iter().enumerate() {
            let output = if i + 1 == N { name.clone() } else { format!("{name} {i}") };
            let constant = self.per_channel(i, &x, &values);
            self.push(operator, layer, &[&before, &constant], &output, Vec::new());
            before = output;
        }
        Computed { name, ..x }
    }

    /// A sum of layers, or arithmetic with a constant.
    pub(super) fn arithmetic(
        &mut self,
        layer: &Layer,
        operator: &str,
        x: Computed,
    ) -> Result<Computed, String> {
        let name = self.name();
        if let Some(input) = self.hard_sigmoid(layer, operator) {
            let steps = [Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)];
            let input = self.values[input].name.clone();
            self.push("HardSigmoid", layer, &[&input], &name, steps.into());
            return Ok(Computed { name, is_picture: false, ..x });
        }
        let mut names = Vec::new();
        for (i, operand) in layer.operands.iter().enumerate() {
            names.push(match operand {
                Operand::Layer(id) => self.values[*id].name.clone(),
                Operand::Constant(values) => self.per_channel(i, &x, values),
                Operand::Other(_) => return Err(layer.misfit("computes with what is no number")),
            });
        }
        let Some((last, rest)) = names.split_last().filter(|(_, rest)| !rest.is_empty()) else {
            return Err(layer.misfit("expected two operands"));
        };
        if operator != "Add" && rest.len() > 1 {
            return Err(layer.misfit("expected two operands"));
        }
        let mut sum = rest[0].clone();
        for (i, other) in rest[1..].iter().enumerate() {
            let partial = format!("{name} {i}");
            self.push(operator, layer, &[&sum, other], &partial, Vec::new());
            sum = partial;
        }
        self.push(operator, layer, &[&sum, last], &name, Vec::new());
        let is_picture = x.is_picture && layer.inputs().count() == 1;
        Ok(Computed { name, is_map: x.is_map, is_picture })
    }

    /// What a sixth of `relu6(x + 3)` is computed of, MobileNetV3's hard-sigmoid in Keras Applications.
    fn hard_sigmoid(&self, layer: &Layer, operator: &str) -> Option<usize> {
        let with = |layer: &Layer| match layer.operands.as_slice() {
            [Operand::Layer(input), Operand::Constant(values)] if values.len() == 1 => {
                Some((*input, values[0]))
            }
            _ => None,
        };
        let (clamped, number) = with(layer)?;
        let is_sixth = match operator {
            "Mul" => (number * 6.0 - 1.0).abs() < 1e-6,
            "Div" => number == 6.0,
            _ => false,
        };
        let clamp = self.network.layers.get(clamped).filter(|_| is_sixth)?;
        let is_clamp = function_of(clamp) == Some(Activation::RELU6)
            || clamp.setting("function").as_str() == Some("nn.relu6");
        let sum = &self.network.layers[clamp.inputs().next().filter(|_| is_clamp)?];
        let called = sum.setting("function").as_str().unwrap_or(&sum.class);
        let is_sum = matches!(called, "Add" | "math.add" | "__operators__.add");
        with(sum).filter(|&(_, addend)| is_sum && addend == 3.0).map(|(input, _)| input)
    }

    /// A function of TensorFlow that is called by its name.
    pub(super) fn function(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let operator = match layer.setting("function").as_str().unwrap_or_default() {
            "math.add" | "__operators__.add" | "nn.bias_add" => "Add",
            "math.subtract" | "__operators__.sub" => "Sub",
            "math.multiply" | "__operators__.mul" => "Mul",
            "math.truediv" | "math.divide" | "__operators__.truediv" => "Div",
            "nn.relu" => return self.curve(layer, Activation::RELU, x),
            "nn.relu6" => return self.curve(layer, Activation::RELU6, x),
            "nn.silu" | "nn.swish" => return self.curve(layer, Activation::SILU, x),
            "math.sigmoid" | "nn.sigmoid" => return self.curve(layer, Activation::SIGMOID, x),
            "cast" | "identity" => return Ok(x),
            other => {
                let other = other.plain();
                let what = format!("the function {other} is not read; {}", EXPORT);
                return Err(layer.misfit(&what));
            }
        };
        self.arithmetic(layer, operator, x)
    }

    pub(super) fn relu(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        match function_of(layer) {
            Some(activation) => self.curve(layer, activation, x),
            None => Err(layer.misfit("a leaky ReLU, but only one without a slope is read")),
        }
    }

    pub(super) fn softmax(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        if !matches!(layer.setting("axis").as_i64(), None | Some(-1)) {
            return Err(layer.misfit("a softmax that is not over classes"));
        }
        Ok(self.node(layer, "Softmax", x, &[], Vec::new()))
    }

    /// The activation of a layer's settings.
    pub(super) fn activate(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let setting = layer.setting("activation");
        let operator = match activation(setting) {
            Some("linear") => return Ok(x),
            Some("softmax") => "Softmax",
            Some("log_softmax") => "LogSoftmax",
            name => match name.and_then(named) {
                Some(activation) => return self.curve(layer, activation, x),
                None => {
                    let other = name.map_or_else(|| setting.to_string(), str::to_owned);
                    let what = format!("the activation {} is not read; {EXPORT}", other.plain());
                    return Err(layer.misfit(&what));
                }
            },
        };
        let output = format!("{} activated", self.name());
        self.push(operator, layer, &[&x.name], &output, Vec::new());
        Ok(Computed { name: output, is_picture: false, ..x })
    }

    /// A function of each number.
    pub(super) fn curve(
        &mut self,
        layer: &Layer,
        activation: Activation,
        x: Computed,
    ) -> Result<Computed, String> {
        let output = format!("{} activated", self.name());
        let third = [Attribute::float("alpha", self.slope()), Attribute::float("beta", 0.5)];
        match activation {
            Activation::None => return Ok(x),
            Activation::Clamp { low, high } if high == f32::INFINITY && low == 0.0 => {
                self.push("Relu", layer, &[&x.name], &output, Vec::new());
            }
            Activation::Clamp { low, high } => {
                let bounds = [("low", low), ("high", high)];
                let [low, high] = bounds.map(|(part, value)| self.floats(part, &[], &[value]));
                self.push("Clip", layer, &[&x.name, &low, &high], &output, Vec::new());
            }
            // Scores are compared with each other.
            Activation::Curve(_) if self.network.outputs.contains(&self.values.len()) => {
                let what =
                    format!("ends in {}, but scores for a softmax are read", activation.name());
                return Err(layer.misfit(&what));
            }
            Activation::Curve(Curve::Silu) => {
                let factor = format!("{output} factor");
                self.push("Sigmoid", layer, &[&x.name], &factor, Vec::new());
                self.push("Mul", layer, &[&x.name, &factor], &output, Vec::new());
            }
            Activation::Curve(curve) => {
                let (operator, attributes) = match curve {
                    Curve::HardSigmoid => ("HardSigmoid", third.into()),
                    Curve::HardSwish => ("HardSwish", Vec::new()),
                    Curve::Gelu => ("Gelu", Vec::new()),
                    Curve::Sigmoid | Curve::Silu => ("Sigmoid", Vec::new()),
                };
                self.push(operator, layer, &[&x.name], &output, attributes);
            }
        }
        Ok(Computed { name: output, is_picture: false, ..x })
    }

    /// That of hard-sigmoid, which was another before Keras 3.
    fn slope(&self) -> f32 {
        let is_old = |layer: &Layer| !layer.setting("batch_input_shape").is_null();
        if self.network.layers.iter().any(is_old) { 0.2 } else { 1.0 / 6.0 }
    }

    pub(super) fn batch_norm(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        #[derive(Deserialize)]
        struct Settings {
            axis: Value,
            epsilon: f32,
            center: bool,
            scale: bool,
        }
        let Settings { axis, epsilon, center, scale } = layer.settings()?;
        let axis = axis.as_array().and_then(|a| a.first()).unwrap_or(&axis).as_i64();
        if !matches!(axis, Some(3 | -1 | 1)) || (axis == Some(1) && x.is_map) {
            return Err(layer.misfit("expected one over channels, which come last"));
        }
        let variables = [
            ("gamma", scale.then_some("gamma"), 1.0),
            ("beta", center.then_some("beta"), 0.0),
            ("mean", Some("moving_mean"), 0.0),
            ("variance", Some("moving_variance"), 1.0),
        ];
        let stored: Vec<&str> = variables.iter().filter_map(|(_, stored, _)| *stored).collect();
        let arrays = self.arrays.all(layer, &stored)?;
        let channels = arrays.last().map_or(0, |variance| variance.values.len());
        let mut arrays = arrays.into_iter();
        let mut constants = Vec::new();
        for (part, stored, default) in variables {
            let values = stored.and_then(|_| arrays.next()).map(|array| array.values.clone());
            let values = values.unwrap_or_else(|| vec![default; channels]);
            constants.push(self.floats(part, &[values.len()], &values));
        }
        let epsilon = vec![Attribute::float("epsilon", epsilon)];
        Ok(self.node(layer, "BatchNormalization", x, &constants, epsilon))
    }

    /// A row, or a row as a map of one pixel.
    pub(super) fn reshape(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let target = layer.setting("target_shape").as_array().map_or(&[][..], Vec::as_slice);
        let is_pixel =
            matches!(target, [h, w, _] if [h, w].iter().all(|side| side.as_i64() == Some(1)));
        match target {
            [_] => Ok(self.flatten(layer, x)),
            _ if is_pixel && x.is_map => Ok(x),
            _ if is_pixel => {
                let axes = self.ints("axes", &[2, 3]);
                let map = self.node(layer, "Unsqueeze", x, &[axes], Vec::new());
                Ok(Computed { is_map: true, ..map })
            }
            _ => Err(layer.misfit("only one to a row or to one pixel is read")),
        }
    }

    pub(super) fn flatten(&mut self, layer: &Layer, x: Computed) -> Computed {
        if !x.is_map {
            return x;
        }
        let name = self.name();
        let turned = format!("{name} nhwc");
        let order = vec![Attribute::ints("perm", &[0, 2, 3, 1])];
        self.push("Transpose", layer, &[&x.name], &turned, order);
        self.push("Flatten", layer, &[&turned], &name, Vec::new());
        Computed { name, is_map: false, is_picture: false }
    }
}

/// The function of a layer that computes nothing else.
fn function_of(layer: &Layer) -> Option<Activation> {
    match layer.class.as_str() {
        "Activation" => function(layer.setting("activation")).ok(),
        "ReLU" => {
            let number = |key: &str| layer.setting(key).as_f64();
            let is_plain = |key: &str| number(key).is_none_or(|n| n == 0.0);
            let most = number("max_value")
                .map_or(Activation::RELU, |high| Activation::Clamp { low: 0.0, high: high as f32 });
            (is_plain("negative_slope") && is_plain("threshold")).then_some(most)
        }
        _ => None,
    }
}
