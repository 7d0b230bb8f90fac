//! What models do to pictures before their first convolution: scale them, turn their channels, give
//! them another size.

use super::config::Converter;
use super::layers::{Layer, Operand};
use super::writer::{Computed, Writer};
use formats::onnx as proto;
use proto::Attribute;
use serde::Deserialize;
use serde_json::{Value, json};

impl Writer<'_> {
    pub(super) fn rescale(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        #[derive(Deserialize)]
        struct Rescaling {
            scale: Value,
            #[serde(default)]
            offset: Value,
        }
        let Rescaling { scale, offset } = layer.settings()?;
        let [scale, offset] = [(scale, 1.0), (offset, 0.0)].map(|(value, default)| {
            if value.is_null() { Some(vec![default]) } else { numbers(&value) }
        });
        let (Some(scale), Some(offset)) = (scale, offset) else {
            return Err(layer.misfit("a scale or an offset that are no numbers"));
        };
        Ok(self.affine(layer, x, [("Mul", scale), ("Add", offset)]))
    }

    pub(super) fn normalize(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let axis = layer.setting("axis");
        let axes: Vec<i64> = match axis {
            Value::Array(axes) => axes.iter().filter_map(Value::as_i64).collect(),
            other => other.as_i64().into_iter().collect(),
        };
        let last = if x.is_map { 3 } else { 1 };
        if !matches!(axes[..], [] | [-1]) && axes != [last] {
            return Err(layer.misfit("expected one over channels, which come last"));
        }
        if layer.setting("invert").as_bool() == Some(true) {
            return Err(layer.misfit("an inverted one, which no classifier starts with"));
        }
        let settings = [layer.setting("mean"), layer.setting("variance")];
        let [mean, variance] = if settings[0].is_null() {
            // The third one counts pictures.
            let [mean, variance, _] = self.arrays.of(layer, ["mean", "variance", "count"])?;
            [mean.values.clone(), variance.values.clone()]
        } else {
            let [mean, variance] = settings.map(numbers);
            let (Some(mean), Some(variance)) = (mean, variance) else {
                return Err(layer.misfit("a mean or a variance that are no numbers"));
            };
            [mean, variance]
        };
        // Keras' ε.
        let deviation = variance.iter().map(|v| v.sqrt().max(1e-7)).collect();
        Ok(self.affine(layer, x, [("Sub", mean), ("Div", deviation)]))
    }

    /// Turns red and blue.
    fn reverse(&mut self, layer: &Layer, x: Computed) -> Computed {
        let order = self.ints("order", &[2, 1, 0]);
        let is_picture = x.is_picture;
        let turned = self.node(layer, "Gather", x, &[order], vec![Attribute::int("axis", 1)]);
        Computed { is_picture, ..turned }
    }

    pub(super) fn slice(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let order = channel_slice(layer)
            .ok_or_else(|| layer.misfit("a slice, but only channels in reverse are read"))?;
        if let ChannelSlice::Reverse = order {
            return Ok(self.reverse(layer, x));
        }
        // One channel is for the Stack that reads it.
        let id = self.values.len();
        let stacks = self.network.layers.iter().filter(|l| l.class == "Stack");
        if stacks.flat_map(Layer::inputs).filter(|i| *i == id).count() != self.readers[id] {
            return Err(layer.misfit("takes one channel alone"));
        }
        Ok(x)
    }

    pub(super) fn stack(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let one = |i: usize| match channel_slice(&self.network.layers[i]) {
            Some(ChannelSlice::One(channel)) => {
                Some((channel, self.network.layers[i].inputs().next()?))
            }
            _ => None,
        };
        let parts: Option<Vec<_>> = layer.inputs().map(one).collect();
        let is_last = layer.setting("axis").as_i64() == Some(-1);
        match parts.as_deref() {
            Some(&[(2, a), (1, b), (0, c)]) if a == b && b == c && is_last => {
                Ok(self.reverse(layer, x))
            }
            _ => Err(layer.misfit("stacks others than channels in reverse")),
        }
    }

    /// A layer that makes pictures have its size: the model's own, whatever comes in.
    pub(super) fn resize(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        #[derive(Deserialize)]
        struct Size {
            height: u16,
            width: u16,
        }
        let Size { height, width } = layer.settings()?;
        let wanted = [height, width].map(Some);
        if self.sides == wanted {
            return Ok(x);
        }
        if !x.is_picture {
            return Err(layer.misfit("resizes what is no picture, which is not read"));
        }
        if layer.class != "Resizing" {
            return Err(layer.misfit(&format!(
                "cuts {height}×{width} out of larger pictures, but here pictures are made as large as \
                 the model's input; give the model an input of {height}×{width}, without this layer"
            )));
        }
        let mut settings: Value = layer.settings()?;
        if settings.get("crop_to_aspect_ratio").is_none() {
            settings["crop_to_aspect_ratio"] = json!(false);
        }
        if self.resized.is_some() {
            return Err(layer.misfit("resizes pictures a second time"));
        }
        let converter: Converter =
            serde_json::from_value(settings).map_err(|e| layer.misfit(&e.to_string()))?;
        self.resized = Some(converter.preprocess().map_err(|what| layer.misfit(&what))?);
        self.sides = wanted;
        Ok(x)
    }
}

/// One number, or several.
fn numbers(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Number(number) => Some(vec![number.as_f64()? as f32]),
        Value::Array(items) => match items.as_slice() {
            [inner @ Value::Array(_)] => numbers(inner),
            items => items.iter().map(|v| Some(v.as_f64()? as f32)).collect(),
        },
        _ => None,
    }
}

/// What of a picture's channels a slice takes.
enum ChannelSlice {
    Reverse,
    One(i64),
}

/// `x[..., ::-1]` and `x[..., 2]`.
fn channel_slice(layer: &Layer) -> Option<ChannelSlice> {
    let spec = layer.operands.iter().find_map(|operand| match operand {
        Operand::Other(spec) => spec.as_array(),
        _ => None,
    })?;
    let is_all = |v: &Value| v.is_null() || (v.is_object() && step(v) == Some(None));
    let (last, before) = spec.split_last()?;
    let is_ellipsis = |v: &Value| {
        v.get("class_name")
            .and_then(Value::as_str)
            .is_some_and(|c| c.eq_ignore_ascii_case("__ellipsis__") || c == "ellipsis")
            || v.as_str() == Some("Ellipsis")
    };
    let leads = match before {
        [one] => is_ellipsis(one),
        three => three.len() == 3 && three.iter().all(is_all),
    };
    if !leads {
        return None;
    }
    match last.as_i64() {
        Some(channel) => Some(ChannelSlice::One(channel)),
        None if step(last) == Some(Some(-1)) => Some(ChannelSlice::Reverse),
        None => None,
    }
}

/// The step of a slice from start to end; none of any other.
fn step(slice: &Value) -> Option<Option<i64>> {
    let fields = slice.get("config").unwrap_or(slice);
    let is_open = |key: &str| fields.get(key).is_none_or(Value::is_null);
    if !fields.is_object() || !is_open("start") || !is_open("stop") {
        return None;
    }
    Some(fields.get("step").and_then(Value::as_i64))
}
