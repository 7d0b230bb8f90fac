//! Keras' layers as ONNX: maps are NCHW, and only what is flattened is turned to Keras' order.

use super::applications::Family;
use super::arrays::Arrays;
use super::config::DEFAULT_SIDE;
use super::layers::{INPUT, Layer, Network};
use super::passed_over::is_passed_over;
use super::writer::{Computed, Writer};
use artifact::Preprocess;
use formats::onnx as proto;
use network::activation::Activation;
use serde::Deserialize;

/// The version of ONNX's operators that is written: it has hard-swish, and reductions still name their
/// axes as attributes.
const OPSET: i64 = 14;

/// How often the numbers of a file may be written: layers may share them.
const COPIES: usize = 4;
/// Numbers that may be written beside those.
const ROOM: usize = 1 << 16;

/// Writes the nodes of a layer whose first operand is given, and tells what it computes.
type Write = fn(&mut Writer<'_>, &Layer, Computed) -> Result<Computed, String>;

/// Layers and operations that are read, besides inputs and those that are passed over.
const READ: [(&str, Write); 39] = [
    ("Activation", |w, layer, x| w.activate(layer, x)),
    ("Add", |w, layer, x| w.arithmetic(layer, "Add", x)),
    ("AveragePooling2D", |w, layer, x| w.pool(layer, "AveragePool", x)),
    ("BatchNormalization", |w, layer, x| w.batch_norm(layer, x)),
    ("CenterCrop", |w, layer, x| w.resize(layer, x)),
    ("Conv2D", |w, layer, x| w.conv(layer, x)),
    ("Dense", |w, layer, x| w.dense(layer, x)),
    ("DepthwiseConv2D", |w, layer, x| w.depthwise(layer, x)),
    ("Divide", |w, layer, x| w.arithmetic(layer, "Div", x)),
    ("Flatten", |w, layer, x| Ok(w.flatten(layer, x))),
    ("GetItem", |w, layer, x| w.slice(layer, x)),
    ("GlobalAveragePooling2D", |w, layer, x| w.reduce(layer, "ReduceMean", x)),
    ("GlobalMaxPooling2D", |w, layer, x| w.reduce(layer, "ReduceMax", x)),
    ("HardSigmoid", |w, layer, x| w.curve(layer, Activation::HARD_SIGMOID, x)),
    ("HardSilu", |w, layer, x| w.curve(layer, Activation::HARD_SWISH, x)),
    ("Max", |w, layer, x| w.reduce(layer, "ReduceMax", x)),
    ("MaxPooling2D", |w, layer, x| w.pool(layer, "MaxPool", x)),
    ("Mean", |w, layer, x| w.reduce(layer, "ReduceMean", x)),
    ("Multiply", |w, layer, x| w.arithmetic(layer, "Mul", x)),
    ("Normalization", |w, layer, x| w.normalize(layer, x)),
    ("RandomCrop", |w, layer, x| w.resize(layer, x)),
    ("ReLU", |w, layer, x| w.relu(layer, x)),
    ("Relu", |w, layer, x| w.curve(layer, Activation::RELU, x)),
    ("Relu6", |w, layer, x| w.curve(layer, Activation::RELU6, x)),
    ("Rescaling", |w, layer, x| w.rescale(layer, x)),
    ("Reshape", |w, layer, x| w.reshape(layer, x)),
    ("Resizing", |w, layer, x| w.resize(layer, x)),
    ("SeparableConv2D", |w, layer, x| w.separable(layer, x)),
    ("Sigmoid", |w, layer, x| w.curve(layer, Activation::SIGMOID, x)),
    ("Silu", |w, layer, x| w.curve(layer, Activation::SILU, x)),
    ("SlicingOpLambda", |w, layer, x| w.slice(layer, x)),
    ("Softmax", |w, layer, x| w.softmax(layer, x)),
    ("Stack", |w, layer, x| w.stack(layer, x)),
    ("Subtract", |w, layer, x| w.arithmetic(layer, "Sub", x)),
    ("TFOpLambda", |w, layer, x| w.function(layer, x)),
    ("TrueDivide", |w, layer, x| w.arithmetic(layer, "Div", x)),
    ("ZeroPadding2D", |w, layer, x| w.pad(layer, x)),
    // Old names of two of them.
    ("GlobalAvgPool2D", |w, layer, x| w.reduce(layer, "ReduceMean", x)),
    ("GlobalMaxPool2D", |w, layer, x| w.reduce(layer, "ReduceMax", x)),
];

/// A model as ONNX.
pub(super) struct Rewritten {
    pub(super) model: proto::Model,
    /// How pictures become its input: numbers 0..=255 as they are.
    pub(super) preprocess: Preprocess,
    /// Whether the model takes pictures of any size.
    pub(super) is_size_assumed: bool,
}

/// Rewrites a model whose input is `size` pixels high and wide, where that is given.
///
/// # Errors
/// Layers that are not read, and arrays that are missing or of other shapes.
pub(super) fn rewrite(
    network: &Network,
    arrays: &Arrays,
    family: Option<Family>,
    size: Option<u16>,
) -> Result<Rewritten, String> {
    check_classes(network)?;
    let mut writer = Writer {
        network,
        arrays,
        family,
        readers: network.readers(),
        graph: proto::Graph::default(),
        values: Vec::new(),
        sides: [None; 2],
        resized: None,
        written: 0,
    };
    let most = arrays.numbers().saturating_mul(COPIES).saturating_add(ROOM);
    for layer in &network.layers {
        let value = writer.layer(layer, size)?;
        if writer.written > most {
            return Err(layer.misfit("weights that far too many layers share; the file is damaged"));
        }
        writer.values.push(value);
    }
    let [height, width] = writer.sides.map(|side| side.unwrap_or(DEFAULT_SIDE));
    let is_size_assumed = writer.sides.contains(&None);
    let Writer { mut graph, values, resized, .. } = writer;
    let mut grey = false;
    for (layer, value) in network.layers.iter().zip(&values) {
        if layer.class == INPUT {
            grey = layer.channels()? == 1;
            let dims = [1, layer.channels()?, height.into(), width.into()];
            graph.input.push(proto::ValueInfo::tensor(&value.name, proto::FLOAT, &dims));
        }
    }
    for &output in &network.outputs {
        // An output has the name of its layer.
        let (old, new) = (&values[output].name, &network.layers[output].name);
        for name in graph.node.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
            if name == old {
                name.clone_from(new);
            }
        }
        graph.output.push(proto::ValueInfo::tensor(new, proto::FLOAT, &[]));
    }
    let model = proto::Model {
        opset_import: vec![proto::OperatorSet { domain: None, version: Some(OPSET) }],
        graph: Some(graph),
        ..Default::default()
    };
    let raw = resized.unwrap_or_else(|| Preprocess::raw(height, width));
    let preprocess = Preprocess { height, width, grey, ..raw };
    Ok(Rewritten { model, preprocess, is_size_assumed })
}

/// Names all layers that are not read.
fn check_classes(network: &Network) -> Result<(), String> {
    let is_read = |class: &str| class == INPUT || is_passed_over(class) || write(class).is_some();
    let strange = network.layers.iter().filter(|layer| !is_read(&layer.class));
    let mut strange: Vec<String> = strange.map(Layer::title).collect();
    if strange.is_empty() {
        return Ok(());
    }
    let more = strange.len().saturating_sub(crate::assemble::MAX_LISTED);
    strange.truncate(crate::assemble::MAX_LISTED);
    if more > 0 {
        strange.push(format!("and {more} more"));
    }
    Err(format!(
        "layers that are not read; networks of convolutions, batch-norms, activations, sums, pools and dense \
         layers are, and layers of one's own that are made of these if they come as ONNX: {}\n  {}",
        super::EXPORT,
        strange.join("\n  ")
    ))
}

fn write(class: &str) -> Option<Write> {
    READ.iter().find(|(read, _)| *read == class).map(|(_, write)| *write)
}

impl Layer {
    /// Channels of an input layer.
    fn channels(&self) -> Result<i64, String> {
        let [_, _, _, channels] = self.input_dims()?;
        match channels {
            Some(channels @ (1 | 3)) => Ok(channels.into()),
            _ => Err(self.misfit("expected pictures of 3 channels or 1, channels last")),
        }
    }

    /// The shape of what an input layer is given.
    pub(super) fn input_dims(&self) -> Result<[Option<u16>; 4], String> {
        #[derive(Deserialize)]
        struct Input {
            #[serde(alias = "batch_input_shape")]
            batch_shape: [Option<u16>; 4],
        }
        Ok(self.settings::<Input>()?.batch_shape)
    }
}

impl Writer<'_> {
    /// The next layer's result, `name` and all.
    fn layer(&mut self, layer: &Layer, size: Option<u16>) -> Result<Computed, String> {
        let format = layer.setting("data_format").as_str();
        if format == Some("channels_first") {
            return Err(layer.misfit(
                "channels first, but Keras' usual order is read; export the model to ONNX, which has \
                 either",
            ));
        }
        if layer.class == INPUT {
            let [_, height, width, _] = layer.input_dims()?;
            layer.channels()?;
            self.sides = [height, width].map(|side| size.or(side));
            return Ok(Computed { name: self.name(), is_map: true, is_picture: true });
        }
        let Some(x) = layer.inputs().next().map(|i| self.values[i].clone()) else {
            return Err(layer.misfit("reads nothing that depends on the picture"));
        };
        match write(&layer.class) {
            _ if is_passed_over(&layer.class) => Ok(x),
            Some(write) => write(self, layer, x),
            // Layers that are not read were named before.
            None => Err(layer.misfit("is not read")),
        }
    }
}
