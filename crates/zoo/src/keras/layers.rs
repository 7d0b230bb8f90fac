//! The layers of a Keras model, functional or sequential, with those of the models in it, and
//! who reads whom.

use super::config::Object;
use artifact::text::AsPlain;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};

/// Most layers, those of models that are called several times counted each time.
const MAX_LAYERS: usize = 20_000;

/// How often a description may be copied: models may be called, and be in others.
const COPIES: usize = 16;
/// Bytes that may be copied beside it.
const ROOM: usize = 1 << 16;
/// Longest name of a layer.
const MAX_NAME_BYTES: usize = 1024;

/// One call of a layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) class: String,
    pub(super) name: String,
    config: Value,
    /// What it reads, in order.
    pub(super) operands: Vec<Operand>,
    /// The models that it is part of, from the outermost, and itself.
    pub(super) place: Vec<Segment>,
}

/// What a layer reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// The result of the layer with this number.
    Layer(usize),
    /// A number, or one for each channel.
    Constant(Vec<f32>),
    /// Anything else, such as a slice.
    Other(Value),
}

/// How one model's weight file calls one of its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The group of Keras 3, `conv2d_1`.
    pub(super) group: String,
    /// The layer's own name.
    pub(super) name: String,
}

impl Layer {
    /// Its settings.
    ///
    /// # Errors
    /// Settings that are missing or of another kind, as text.
    pub(super) fn settings<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_value(self.config.clone()).map_err(|e| self.misfit(&e.to_string()))
    }

    /// One of its settings, null where it is missing.
    pub(super) fn setting(&self, key: &str) -> &Value {
        self.config.get(key).unwrap_or(&Value::Null)
    }

    /// An error about this layer.
    pub(super) fn misfit(&self, what: &str) -> String {
        format!("{}: {what}", self.title())
    }

    /// Its name and class, for people.
    pub(super) fn title(&self) -> String {
        title(&self.name, &self.class)
    }

    /// The layers that it reads.
    pub(super) fn inputs(&self) -> impl Iterator<Item = usize> {
        self.operands.iter().filter_map(|operand| match operand {
            Operand::Layer(i) => Some(*i),
            _ => None,
        })
    }
}

/// A model of one input: its layers, each after those that it reads.
#[derive(Debug)]
pub(super) struct Network {
    /// The first one is the input.
    pub(super) layers: Vec<Layer>,
    /// What the model gives back.
    pub(super) outputs: Vec<usize>,
    /// Bytes of descriptions that may still be copied.
    room: usize,
}

impl Network {
    /// Reads a model's description.
    ///
    /// # Errors
    /// Models of other kinds, and layers that read what no layer before them computes.
    pub(super) fn new(model: &Object<Value>) -> Result<Self, String> {
        let room = model.config.to_string().len().saturating_mul(COPIES).saturating_add(ROOM);
        let mut network = Self { layers: Vec::new(), outputs: Vec::new(), room };
        network.outputs = network.append(&model.class_name, &model.config, &[], None)?;
        // What is left are the layers of a model that nobody calls.
        match network.layers.iter().filter(|layer| layer.class == "InputLayer").count() {
            1 => Ok(network),
            n => Err(format!("a model of {n} inputs, but one picture is wanted")),
        }
    }

    /// Appends the layers of a model that reads `input`, or has an input of its own, and gives
    /// its outputs.
    fn append(
        &mut self,
        class: &str,
        config: &Value,
        place: &[Segment],
        input: Option<usize>,
    ) -> Result<Vec<usize>, String> {
        // Files of old versions have nothing but the layers of a Sequential.
        let layers = config.as_array().or_else(|| config.get("layers")?.as_array());
        let is_sequence = class == "Sequential";
        let Some(layers) = layers.filter(|_| is_sequence || is_functional(class)) else {
            return Err(format!(
                "a {}, expected a functional or sequential model; {}",
                class.plain(),
                super::EXPORT
            ));
        };
        let mut last = input;
        if is_sequence && input.is_none() && !layers.first().is_some_and(is_input) {
            let first = layers.first().and_then(|l| l.get("config"));
            let shape = config
                .get("build_input_shape")
                .or_else(|| first?.get("batch_input_shape").or_else(|| first?.get("batch_shape")));
            let shape = shape.filter(|s| s.is_array()).ok_or(
                "a Sequential that does not say its input's shape; start it with \
                 keras.Input((height, width, 3)) and save it again",
            )?;
            let config = json!({ "batch_shape": shape });
            last = Some(self.push("InputLayer", "input", &config, Vec::new(), place.to_vec())?);
        }
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut calls = Calls::new();
        // Calls in the order of their layers. One that reads a later call of an earlier layer waits.
        let mut waiting = VecDeque::new();
        let mut is_bound = false;
        for described in layers {
            let text = |key: &str| described.get(key).and_then(Value::as_str);
            let config = described.get("config").unwrap_or(&Value::Null);
            let class = text("class_name").unwrap_or_default();
            let class = class.strip_prefix("keras_hub>").unwrap_or(class);
            let name = text("name").or_else(|| config.get("name")?.as_str()).unwrap_or(class);
            let segment = Segment { group: group(class, &mut numbers), name: name.to_owned() };
            if name.len() > MAX_NAME_BYTES {
                return Err(format!("a layer with a name of {} bytes", name.len()));
            }
            let place = [place, &[segment]].concat();
            // The settings, and where the layer is, are copied for each call.
            let cost = config.to_string().len();
            let cost = cost + place.iter().map(|s| s.group.len() + s.name.len()).sum::<usize>();
            self.spend(described.to_string().len() + cost)?;
            if class == "InputLayer" {
                let id = match input.or(last.filter(|_| is_sequence)) {
                    Some(input) if !is_bound => input,
                    Some(_) => return Err("a model of several inputs as a layer".into()),
                    None => self.push(class, name, config, Vec::new(), place)?,
                };
                is_bound = input.is_some();
                last = Some(id);
                calls.insert(name, vec![Some(vec![id])]);
                continue;
            }
            if is_sequence {
                let input = last.ok_or("a Sequential without input")?;
                let operands = vec![Operand::Layer(input)];
                last = self.call(class, name, config, operands, &place)?.first().copied();
                continue;
            }
            let nodes = described.get("inbound_nodes").and_then(Value::as_array);
            let nodes = nodes.map_or(&[][..], Vec::as_slice);
            calls.insert(name, vec![None; nodes.len()]);
            for (number, node) in nodes.iter().enumerate() {
                self.spend(cost)?;
                waiting.push_back(Waiting {
                    class,
                    name,
                    config,
                    place: place.clone(),
                    number,
                    node,
                });
            }
        }
        if is_sequence {
            return Ok(last.into_iter().collect());
        }
        let mut passed = 0;
        while let Some(call) = waiting.pop_front() {
            let title = || title(call.name, call.class);
            if !is_ready(call.node, &calls) {
                passed += 1;
                if passed > waiting.len() {
                    return Err(format!("{}: reads what no other layer computes", title()));
                }
                waiting.push_back(call);
                continue;
            }
            passed = 0;
            let operands = operands(call.node, &calls).map_err(|e| format!("{}: {e}", title()))?;
            let ids = self.call(call.class, call.name, call.config, operands, &call.place)?;
            if let Some(result) = calls.get_mut(call.name).and_then(|c| c.get_mut(call.number)) {
                *result = Some(ids);
            }
        }
        let outputs = config.get("output_layers").unwrap_or(&Value::Null);
        let mut found = Vec::new();
        tensors(outputs, &calls, &mut found)?;
        match found.is_empty() {
            true => Err("a model without outputs".into()),
            false => Ok(found),
        }
    }

    /// Counts bytes that are copied.
    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.room.checked_sub(bytes);
        self.room = left.ok_or("models that are called again and again; the file is damaged")?;
        Ok(())
    }

    /// Appends a layer, or the layers of a model, and gives its results.
    fn call(
        &mut self,
        class: &str,
        name: &str,
        config: &Value,
        operands: Vec<Operand>,
        place: &[Segment],
    ) -> Result<Vec<usize>, String> {
        let is_model = config.get("layers").is_some_and(Value::is_array) || class == "Sequential";
        if !is_model {
            return Ok(vec![self.push(class, name, config, operands, place.to_vec())?]);
        }
        match operands[..] {
            [Operand::Layer(input)] => self.append(class, config, place, Some(input)),
            _ => Err(format!("{}: expected one input", title(name, class))),
        }
    }

    fn push(
        &mut self,
        class: &str,
        name: &str,
        config: &Value,
        operands: Vec<Operand>,
        place: Vec<Segment>,
    ) -> Result<usize, String> {
        if self.layers.len() == MAX_LAYERS {
            return Err(format!("more than {MAX_LAYERS} layers"));
        }
        let (class, name, config) = (class.to_owned(), name.to_owned(), config.clone());
        self.layers.push(Layer { class, name, config, operands, place });
        Ok(self.layers.len() - 1)
    }

    /// How many layers read each; outputs are read once more.
    pub(super) fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.layers.len()];
        let inputs = self.layers.iter().flat_map(Layer::inputs);
        inputs.chain(self.outputs.iter().copied()).for_each(|i| readers[i] += 1);
        readers
    }
}

fn is_functional(class: &str) -> bool {
    matches!(class, "Functional" | "Model")
}

fn is_input(layer: &Value) -> bool {
    layer.get("class_name").and_then(Value::as_str) == Some("InputLayer")
}

/// The group of the next layer of a class: its name in snake case, numbered from the second on.
fn group(class: &str, numbers: &mut HashMap<String, usize>) -> String {
    let mut snake = String::new();
    let letters: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| letters[i]);
        let after = letters.get(i + 1);
        let starts = letter.is_ascii_uppercase()
            && before.is_some_and(|b| {
                b.is_ascii_lowercase() || after.is_some_and(char::is_ascii_lowercase)
            });
        if starts {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    let number = numbers.entry(snake.clone()).or_default();
    *number += 1;
    match *number {
        1 => snake,
        n => format!("{snake}_{}", n - 1),
    }
}

/// By name of a layer, the results of each of its calls that were appended already.
type Calls<'a> = HashMap<&'a str, Vec<Option<Vec<usize>>>>;

/// A call of a layer that is not appended yet.
struct Waiting<'a> {
    class: &'a str,
    name: &'a str,
    config: &'a Value,
    place: Vec<Segment>,
    /// Which one of the layer's calls.
    number: usize,
    node: &'a Value,
}

fn title(name: &str, class: &str) -> String {
    format!("layer `{}` ({})", name.plain(), class.plain())
}

/// Whether all that a call reads was appended.
fn is_ready(call: &Value, calls: &Calls<'_>) -> bool {
    if let Some((name, number)) = reference(call) {
        return results(name, number, calls).is_some();
    }
    match call {
        Value::Array(items) => items.iter().all(|item| is_ready(item, calls)),
        Value::Object(fields) => fields.values().all(|item| is_ready(item, calls)),
        _ => true,
    }
}

/// The results of a call. Those of models count from one in old versions.
fn results<'a>(name: &str, number: u64, calls: &'a Calls<'_>) -> Option<&'a [usize]> {
    match calls.get(name)?.as_slice() {
        [only] => only.as_deref(),
        several => several.get(usize::try_from(number).ok()?)?.as_deref(),
    }
}

/// What one call of a layer reads, in either of Keras' notations: `{"args": […], "kwargs": {…}}`,
/// and before Keras 3 `["name", 0, 0, {…}]`, or a list of these.
fn operands(call: &Value, calls: &Calls<'_>) -> Result<Vec<Operand>, String> {
    let mut found = Vec::new();
    match call {
        Value::Object(call) => {
            for argument in call.get("args").and_then(Value::as_array).into_iter().flatten() {
                operand(argument, calls, &mut found)?;
            }
            for (key, argument) in
                call.get("kwargs").and_then(Value::as_object).into_iter().flatten()
            {
                keyword(key, argument, calls, &mut found)?;
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_string) => {
            operand(call, calls, &mut found)?;
            for (key, argument) in items.get(3).and_then(Value::as_object).into_iter().flatten() {
                keyword(key, argument, calls, &mut found)?;
            }
        }
        Value::Array(items) => {
            for item in items {
                found.extend(operands(item, calls)?);
            }
        }
        _ => return Err("a call that is not understood".into()),
    }
    Ok(found)
}

/// An argument by name: what is computed with, not how.
fn keyword(
    key: &str,
    argument: &Value,
    calls: &Calls<'_>,
    found: &mut Vec<Operand>,
) -> Result<(), String> {
    let is_tensor = reference(argument).is_some();
    let computes =
        matches!(key, "x" | "y" | "x1" | "x2" | "bias" | "value" | "slice_spec" | "axis");
    let computes = computes && !argument.is_null();
    if is_tensor || computes { operand(argument, calls, found) } else { Ok(()) }
}

fn operand(argument: &Value, calls: &Calls<'_>, found: &mut Vec<Operand>) -> Result<(), String> {
    if let Some((name, number)) = reference(argument) {
        return match results(name, number, calls) {
            Some(&[id]) => {
                found.push(Operand::Layer(id));
                Ok(())
            }
            Some(_) => Err(format!("reads the model `{}` of several outputs", name.plain())),
            None => Err(format!("reads `{}`, which is no layer", name.plain())),
        };
    }
    if let Some(numbers) = constant(argument) {
        found.push(Operand::Constant(numbers));
        return Ok(());
    }
    match argument {
        Value::Array(items) if items.iter().any(|item| reference(item).is_some()) => {
            items.iter().try_for_each(|item| operand(item, calls, found))
        }
        other => {
            found.push(Operand::Other(other.clone()));
            Ok(())
        }
    }
}

/// The layer and the call whose result is meant.
fn reference(value: &Value) -> Option<(&str, u64)> {
    let history = match value {
        Value::Object(fields) if is_class(value, "__keras_tensor__") => {
            fields.get("config")?.get("keras_history")?
        }
        other => other,
    };
    match history.as_array()?.as_slice() {
        [Value::String(name), Value::Number(call), Value::Number(_), ..] => {
            Some((name, call.as_u64()?))
        }
        _ => None,
    }
}

fn is_class(value: &Value, class: &str) -> bool {
    value.get("class_name").and_then(Value::as_str) == Some(class)
}

/// A number, or one for each place of the last dimension.
fn constant(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Number(number) => Some(vec![number.as_f64()? as f32]),
        // Also what old versions wrap so: ["_CONSTANT_VALUE", -1, 127.5, {}].
        Value::Array(items) => match items.as_slice() {
            [Value::String(mark), _, number, ..] if mark == "_CONSTANT_VALUE" => constant(number),
            // Dimensions before the last one have one place.
            [inner @ Value::Array(_)] => constant(inner),
            [] => None,
            items => items.iter().map(|v| Some(v.as_f64()? as f32)).collect(),
        },
        Value::Object(_) if is_class(value, "__tensor__") || is_class(value, "__numpy__") => {
            constant(value.get("config")?.get("value")?)
        }
        _ => None,
    }
}

/// The results that a list of outputs names, in any of Keras' notations.
fn tensors(value: &Value, calls: &Calls<'_>, found: &mut Vec<usize>) -> Result<(), String> {
    if let Some((name, number)) = reference(value) {
        let ids = results(name, number, calls);
        let ids = ids.ok_or_else(|| format!("gives back `{}`, which is no layer", name.plain()))?;
        found.extend(ids);
        return Ok(());
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| tensors(item, calls, found)),
        Value::Object(fields) => fields.values().try_for_each(|item| tensors(item, calls, found)),
        _ => Ok(()),
    }
}
