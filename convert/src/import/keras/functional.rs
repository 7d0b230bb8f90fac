//! The layers of a functional Keras model, and who reads whom.

use super::config::Object;
use artifact::text::AsPlain;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;

/// One layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) class: String,
    pub(super) name: String,
    config: Value,
    /// Layers that read it, all of which come later.
    readers: Vec<usize>,
}

impl Layer {
    /// Its settings.
    ///
    /// # Errors
    /// Settings that are missing or of another kind, as text.
    pub(super) fn settings<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_value(self.config.clone()).map_err(|e| self.misfit(&e.to_string()))
    }

    /// An error about this layer.
    pub(super) fn misfit(&self, what: &str) -> String {
        let (name, class) = (self.name.plain(), self.class.plain());
        format!("layer `{name}` ({class}): {what}")
    }
}

/// A model of one input and one output.
#[derive(Debug)]
pub(super) struct Network {
    layers: Vec<Layer>,
}

impl Network {
    /// Reads a model's description.
    ///
    /// # Errors
    /// Models of other kinds, and layers that read what no layer before them computes.
    pub(super) fn new(model: Object<Value>) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Model {
            layers: Vec<Described>,
        }
        #[derive(Deserialize)]
        struct Described {
            class_name: String,
            #[serde(default)]
            name: String,
            config: Value,
            #[serde(default)]
            inbound_nodes: Value,
        }
        if !matches!(model.class_name.as_str(), "Functional" | "Model") {
            let class = model.class_name.plain();
            return Err(format!("a {class}, expected a functional model"));
        }
        let model: Model = serde_json::from_value(model.config).map_err(|e| e.to_string())?;
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut layers: Vec<Layer> = Vec::new();
        for described in model.layers {
            let name = match described.config.get("name").and_then(Value::as_str) {
                Some(name) if described.name.is_empty() => name.to_owned(),
                _ => described.name,
            };
            let layer = Layer {
                class: described.class_name,
                name,
                config: described.config,
                readers: Vec::new(),
            };
            let number = layers.len();
            for input in inputs(&described.inbound_nodes) {
                // Whoever follows readers then comes to an end.
                match numbers.get(input) {
                    Some(&input) => layers[input].readers.push(number),
                    None => return Err(layer.misfit("reads a layer that does not precede it")),
                }
            }
            if (number == 0) != (layer.class == "InputLayer") {
                return Err(layer.misfit("expected one InputLayer, before all others"));
            }
            numbers.insert(layer.name.clone(), number);
            layers.push(layer);
        }
        match layers.is_empty() {
            true => Err("a model without layers".into()),
            false => Ok(Self { layers }),
        }
    }

    /// The input layer.
    pub(super) fn input(&self) -> &Layer {
        &self.layers[0]
    }

    /// The layers that read one.
    pub(super) fn readers(&self, layer: &Layer) -> Vec<&Layer> {
        layer.readers.iter().map(|i| &self.layers[*i]).collect()
    }

    /// The only layer that reads one.
    ///
    /// # Errors
    /// None or several.
    pub(super) fn next(&self, layer: &Layer) -> Result<&Layer, String> {
        match layer.readers[..] {
            [next] => Ok(&self.layers[next]),
            _ => {
                let found = layer.readers.len();
                Err(layer.misfit(&format!("{found} layers read it, expected one")))
            }
        }
    }
}

/// The layers that a layer reads, in either of Keras' notations: `["name", 0, 0, {}]`, and since
/// Keras 3 `{"keras_history": ["name", 0, 0]}`.
fn inputs(nodes: &Value) -> Vec<&str> {
    match nodes {
        Value::Array(items) => match items[..] {
            [Value::String(ref name), Value::Number(_), ..] => vec![name],
            _ => items.iter().flat_map(inputs).collect(),
        },
        Value::Object(fields) => fields.values().flat_map(inputs).collect(),
        _ => Vec::new(),
    }
}
