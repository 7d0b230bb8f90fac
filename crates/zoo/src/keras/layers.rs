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
/// The class of what a picture comes in by.
pub(super) const INPUT: &str = "InputLayer";

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
        match network.layers.iter().filter(|layer| layer.class == INPUT).count() {
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
        match (class, layers) {
            ("Sequential", Some(layers)) => self.sequence(config, layers, place, input),
            ("Functional" | "Model", Some(layers)) => self.graph(config, layers, place, input),
            _ => Err(format!(
                "a {}, expected a functional or sequential model; {}",
                class.plain(),
                super::EXPORT
            )),
        }
    }

    fn sequence(
        &mut self,
        config: &Value,
        layers: &[Value],
        place: &[Segment],
        input: Option<usize>,
    ) -> Result<Vec<usize>, String> {
        let mut last = input;
        if input.is_none() && !layers.first().is_some_and(|first| is_class(first, INPUT)) {
            let config = json!({ "batch_shape": implied_shape(config, layers.first())? });
            let place = place.to_vec();
            let layer =
                Described { class: INPUT, name: "input", config: &config, place, calls: &[] };
            last = Some(self.push(&layer, Vec::new())?);
        }
        let mut numbers = HashMap::new();
        let mut is_bound = false;
        for layer in layers {
            let layer = self.described(layer, place, &mut numbers)?;
            if layer.class == INPUT {
                last = Some(self.bind(&layer, input.or(last), is_bound)?);
                is_bound = input.is_some();
                continue;
            }
            let input = last.ok_or("a Sequential without input")?;
            last = self.call(&layer, vec![Operand::Layer(input)])?.first().copied();
        }
        Ok(last.into_iter().collect())
    }

    fn graph(
        &mut self,
        config: &Value,
        layers: &[Value],
        place: &[Segment],
        input: Option<usize>,
    ) -> Result<Vec<usize>, String> {
        let mut numbers = HashMap::new();
        let described = layers.iter().map(|layer| self.described(layer, place, &mut numbers));
        let layers: Vec<Described<'_>> = described.collect::<Result<_, _>>()?;
        let mut results = Results::new();
        // Calls in the order of their layers. One that reads a later call of an earlier layer waits.
        let mut waiting = VecDeque::new();
        let mut is_bound = false;
        for layer in &layers {
            if layer.class == INPUT {
                let id = self.bind(layer, input, is_bound)?;
                is_bound = input.is_some();
                results.insert(layer.name, vec![Some(vec![id])]);
                continue;
            }
            results.insert(layer.name, vec![None; layer.calls.len()]);
            let calls = layer.calls.iter().enumerate();
            waiting.extend(calls.map(|(number, call)| (layer, number, call)));
        }
        let mut passed = 0;
        while let Some((layer, number, call)) = waiting.pop_front() {
            if !is_ready(call, &results) {
                passed += 1;
                if passed > waiting.len() {
                    return Err(format!("{}: reads what no other layer computes", layer.title()));
                }
                waiting.push_back((layer, number, call));
                continue;
            }
            passed = 0;
            let operands = operands(call, &results);
            let operands = operands.map_err(|e| format!("{}: {e}", layer.title()))?;
            let ids = self.call(layer, operands)?;
            if let Some(result) = results.get_mut(layer.name).and_then(|c| c.get_mut(number)) {
                *result = Some(ids);
            }
        }
        let mut found = Vec::new();
        tensors(config.get("output_layers").unwrap_or(&Value::Null), &results, &mut found)?;
        match found.is_empty() {
            true => Err("a model without outputs".into()),
            false => Ok(found),
        }
    }

    /// The next layer of the model at `place`, which has `numbers` of each class before it.
    fn described<'a>(
        &mut self,
        layer: &'a Value,
        place: &[Segment],
        numbers: &mut HashMap<String, usize>,
    ) -> Result<Described<'a>, String> {
        let text = |key: &str| layer.get(key).and_then(Value::as_str);
        let config = layer.get("config").unwrap_or(&Value::Null);
        let class = text("class_name").unwrap_or_default();
        let class = class.strip_prefix("keras_hub>").unwrap_or(class);
        let name = text("name").or_else(|| config.get("name")?.as_str()).unwrap_or(class);
        if name.len() > MAX_NAME_BYTES {
            return Err(format!("a layer with a name of {} bytes", name.len()));
        }
        let segment = Segment { group: group(class, numbers), name: name.to_owned() };
        let place = [place, &[segment]].concat();
        let calls = layer.get("inbound_nodes").and_then(Value::as_array);
        let calls = calls.map_or(&[][..], Vec::as_slice);
        // The settings, and where the layer is, are copied for each call.
        let cost = config.to_string().len();
        let cost = cost + place.iter().map(|s| s.group.len() + s.name.len()).sum::<usize>();
        self.spend(layer.to_string().len().saturating_add(cost.saturating_mul(1 + calls.len())))?;
        Ok(Described { class, name, config, place, calls })
    }

    /// Counts bytes that are copied.
    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.room.checked_sub(bytes);
        self.room = left.ok_or("models that are called again and again; the file is damaged")?;
        Ok(())
    }

    /// Makes an input layer what the model reads, or appends it where the model reads nothing.
    fn bind(
        &mut self,
        layer: &Described<'_>,
        input: Option<usize>,
        is_bound: bool,
    ) -> Result<usize, String> {
        match input {
            Some(input) if !is_bound => Ok(input),
            Some(_) => Err("a model of several inputs as a layer".into()),
            None => self.push(layer, Vec::new()),
        }
    }

    /// Appends a layer, or the layers of a model, and gives its results.
    fn call(
        &mut self,
        layer: &Described<'_>,
        operands: Vec<Operand>,
    ) -> Result<Vec<usize>, String> {
        let Described { class, config, .. } = *layer;
        let is_model = config.get("layers").is_some_and(Value::is_array) || class == "Sequential";
        match operands[..] {
            _ if !is_model => Ok(vec![self.push(layer, operands)?]),
            [Operand::Layer(input)] => self.append(class, config, &layer.place, Some(input)),
            _ => Err(format!("{}: expected one input", layer.title())),
        }
    }

    fn push(&mut self, layer: &Described<'_>, operands: Vec<Operand>) -> Result<usize, String> {
        if self.layers.len() == MAX_LAYERS {
            return Err(format!("more than {MAX_LAYERS} layers"));
        }
        self.layers.push(Layer {
            class: layer.class.to_owned(),
            name: layer.name.to_owned(),
            config: layer.config.clone(),
            operands,
            place: layer.place.clone(),
        });
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

/// The shape of the input that a Sequential does not list.
fn implied_shape<'a>(config: &'a Value, first: Option<&'a Value>) -> Result<&'a Value, String> {
    let first = first.and_then(|layer| layer.get("config"));
    let shape = config
        .get("build_input_shape")
        .or_else(|| first?.get("batch_input_shape").or_else(|| first?.get("batch_shape")));
    shape.filter(|shape| shape.is_array()).ok_or_else(|| {
        "a Sequential that does not say its input's shape; start it with \
         keras.Input((height, width, 3)) and save it again"
            .into()
    })
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
type Results<'a> = HashMap<&'a str, Vec<Option<Vec<usize>>>>;

/// A layer as its model describes it.
struct Described<'a> {
    class: &'a str,
    name: &'a str,
    config: &'a Value,
    place: Vec<Segment>,
    calls: &'a [Value],
}

impl Described<'_> {
    fn title(&self) -> String {
        title(self.name, self.class)
    }
}

fn title(name: &str, class: &str) -> String {
    format!("layer `{}` ({})", name.plain(), class.plain())
}

/// Whether all that a call reads was appended.
fn is_ready(call: &Value, done: &Results<'_>) -> bool {
    if let Some((name, number)) = reference(call) {
        return results(name, number, done).is_some();
    }
    match call {
        Value::Array(items) => items.iter().all(|item| is_ready(item, done)),
        Value::Object(fields) => fields.values().all(|item| is_ready(item, done)),
        _ => true,
    }
}

/// The results of a call. Those of models count from one in old versions.
fn results<'a>(name: &str, number: u64, done: &'a Results<'_>) -> Option<&'a [usize]> {
    match done.get(name)?.as_slice() {
        [only] => only.as_deref(),
        several => several.get(usize::try_from(number).ok()?)?.as_deref(),
    }
}

/// What one call of a layer reads, in either of Keras' notations: `{"args": […], "kwargs": {…}}`,
/// and before Keras 3 `["name", 0, 0, {…}]`, or a list of these.
fn operands(call: &Value, done: &Results<'_>) -> Result<Vec<Operand>, String> {
    let mut found = Vec::new();
    match call {
        Value::Object(call) => {
            for argument in call.get("args").and_then(Value::as_array).into_iter().flatten() {
                operand(argument, done, &mut found)?;
            }
            for (key, argument) in
                call.get("kwargs").and_then(Value::as_object).into_iter().flatten()
            {
                keyword(key, argument, done, &mut found)?;
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_string) => {
            operand(call, done, &mut found)?;
            for (key, argument) in items.get(3).and_then(Value::as_object).into_iter().flatten() {
                keyword(key, argument, done, &mut found)?;
            }
        }
        Value::Array(items) => {
            for item in items {
                found.extend(operands(item, done)?);
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
    done: &Results<'_>,
    found: &mut Vec<Operand>,
) -> Result<(), String> {
    let is_tensor = reference(argument).is_some();
    let computes =
        matches!(key, "x" | "y" | "x1" | "x2" | "bias" | "value" | "slice_spec" | "axis");
    let computes = computes && !argument.is_null();
    if is_tensor || computes { operand(argument, done, found) } else { Ok(()) }
}

fn operand(argument: &Value, done: &Results<'_>, found: &mut Vec<Operand>) -> Result<(), String> {
    if let Some((name, number)) = reference(argument) {
        return match results(name, number, done) {
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
            items.iter().try_for_each(|item| operand(item, done, found))
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
fn tensors(value: &Value, done: &Results<'_>, found: &mut Vec<usize>) -> Result<(), String> {
    if let Some((name, number)) = reference(value) {
        let ids = results(name, number, done);
        let ids = ids.ok_or_else(|| format!("gives back `{}`, which is no layer", name.plain()))?;
        found.extend(ids);
        return Ok(());
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| tensors(item, done, found)),
        Value::Object(fields) => fields.values().try_for_each(|item| tensors(item, done, found)),
        _ => Ok(()),
    }
}
