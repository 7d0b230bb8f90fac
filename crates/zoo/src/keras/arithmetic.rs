//! Sums, activations, batch-norms and what only reorders.

use super::config::activation;
use super::layers::{Layer, Operand};
use super::writer::{Computed, Writer};
use artifact::text::AsPlain;
use formats::onnx as proto;
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

    /// A function of TensorFlow that is called by its name.
    pub(super) fn function(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let operator = match layer.setting("function").as_str().unwrap_or_default() {
            "math.add" | "__operators__.add" | "nn.bias_add" => "Add",
            "math.subtract" | "__operators__.sub" => "Sub",
            "math.multiply" | "__operators__.mul" => "Mul",
            "math.truediv" | "math.divide" | "__operators__.truediv" => "Div",
            "nn.relu" => return Ok(self.node(layer, "Relu", x, &[], Vec::new())),
            "cast" | "identity" => return Ok(x),
            other => {
                let other = other.plain();
                let what = format!("the function {other} is not read; {}", super::EXPORT);
                return Err(layer.misfit(&what));
            }
        };
        self.arithmetic(layer, operator, x)
    }

    pub(super) fn relu(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let is_zero = |key: &str| {
            let value = layer.setting(key);
            value.is_null() || value.as_f64() == Some(0.0)
        };
        let most = layer.setting("max_value");
        if !most.is_null() {
            return Err(layer.misfit(&format!("clamps at {most}, but only a ReLU is read")));
        }
        if !is_zero("negative_slope") || !is_zero("threshold") {
            return Err(layer.misfit("a leaky ReLU, but only a plain one is read"));
        }
        Ok(self.node(layer, "Relu", x, &[], Vec::new()))
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
            Some("relu") => "Relu",
            Some("softmax") => "Softmax",
            Some("log_softmax") => "LogSoftmax",
            other => {
                let other = other.map_or_else(|| setting.to_string(), str::to_owned);
                let what = format!(
                    "the activation {} is not read; relu, softmax and linear are",
                    other.plain()
                );
                return Err(layer.misfit(&what));
            }
        };
        let output = format!("{} activated", self.name());
        self.push(operator, layer, &[&x.name], &output, Vec::new());
        Ok(Computed { name: output, is_picture: false, ..x })
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

    pub(super) fn reshape(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        match layer.setting("target_shape").as_array().map_or(0, Vec::len) {
            1 => Ok(self.flatten(layer, x)),
            _ => Err(layer.misfit("only one to a row is read; Flatten does the same")),
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
