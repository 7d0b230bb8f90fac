//! Keras' layers as ONNX: maps are NCHW, and only what is flattened is turned to Keras' order.

use super::applications::Family;
use super::arrays::Arrays;
use super::config::{Converter, DEFAULT_SIDE, activation};
use super::layers::{Layer, Network, Operand};
use artifact::Preprocess;
use artifact::text::AsPlain;
use formats::Array;
use formats::onnx as proto;
use proto::Attribute;
use serde::Deserialize;
use serde_json::{Value, json};

/// The version of ONNX's operators that is written: reductions still name their axes as attributes.
const OPSET: i64 = 13;

/// How often the numbers of a file may be written: layers may share them.
const COPIES: usize = 4;
/// Numbers that may be written beside those.
const ROOM: usize = 1 << 16;

/// Layers that do nothing to a picture once a model is trained.
const PASSED_OVER: [&str; 37] = [
    "ActivityRegularization",
    "AlphaDropout",
    "AugMix",
    "Cast",
    "CutMix",
    "Dropout",
    "Equalization",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "MaxNumBoundingBoxes",
    "MixUp",
    "RandAugment",
    "RandomApply",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHeight",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomWidth",
    "RandomZoom",
    "Solarization",
    "SpatialDropout2D",
];

/// Other layers and operations that are read.
const READ: [&str; 33] = [
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "CenterCrop",
    "Conv2D",
    "Dense",
    "Divide",
    "Flatten",
    "GetItem",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "InputLayer",
    "Max",
    "MaxPooling2D",
    "Mean",
    "Multiply",
    "Normalization",
    "RandomCrop",
    "ReLU",
    "Relu",
    "Rescaling",
    "Reshape",
    "Resizing",
    "SlicingOpLambda",
    "Softmax",
    "Stack",
    "Subtract",
    "TFOpLambda",
    "TrueDivide",
    "ZeroPadding2D",
    // Old names of two of them.
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
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
        if layer.class == "InputLayer" {
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

/// Whether a layer of this class does nothing to a picture once a model is trained.
pub(super) fn is_passed_over(class: &str) -> bool {
    PASSED_OVER.contains(&class)
}

/// Names all layers that are not read.
fn check_classes(network: &Network) -> Result<(), String> {
    let is_read = |class: &str| READ.contains(&class) || is_passed_over(class);
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
        "layers that are not read; networks of convolutions, batch-norms, ReLUs, sums, pools and dense \
         layers are, and layers of one's own that are made of these if they come as ONNX: {}\n  {}",
        super::EXPORT,
        strange.join("\n  ")
    ))
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

    fn input_dims(&self) -> Result<[Option<u16>; 4], String> {
        #[derive(Deserialize)]
        struct Input {
            #[serde(alias = "batch_input_shape")]
            batch_shape: [Option<u16>; 4],
        }
        Ok(self.settings::<Input>()?.batch_shape)
    }
}

/// What a layer computes.
#[derive(Debug, Clone)]
struct Computed {
    name: String,
    /// Whether it is a map; else a row.
    is_map: bool,
    /// Whether it still is the picture, perhaps scaled.
    is_picture: bool,
}

/// Writes the graph of ONNX.
struct Writer<'a> {
    network: &'a Network,
    arrays: &'a Arrays,
    /// The network of Keras Applications that takes the picture as it comes.
    family: Option<Family>,
    /// How many layers read each.
    readers: Vec<usize>,
    graph: proto::Graph,
    /// Of each layer before the current one.
    values: Vec<Computed>,
    /// Height and width of the input.
    sides: [Option<u16>; 2],
    /// How a layer makes pictures have the input's size.
    resized: Option<Preprocess>,
    /// Numbers of constants.
    written: usize,
}

#[derive(Deserialize)]
struct Window {
    #[serde(alias = "pool_size")]
    kernel_size: [i64; 2],
    strides: Option<[i64; 2]>,
    padding: String,
}

impl Writer<'_> {
    /// The next layer's result, `name` and all.
    fn layer(&mut self, layer: &Layer, size: Option<u16>) -> Result<Computed, String> {
        let name = format!("value {}", self.values.len());
        let format = layer.setting("data_format").as_str();
        if format == Some("channels_first") {
            return Err(layer.misfit(
                "channels first, but Keras' usual order is read; export the model to ONNX, which has \
                 either",
            ));
        }
        if layer.class == "InputLayer" {
            let [_, height, width, _] = layer.input_dims()?;
            layer.channels()?;
            self.sides = [height, width].map(|side| size.or(side));
            return Ok(Computed { name, is_map: true, is_picture: true });
        }
        let inputs: Vec<Computed> = layer.inputs().map(|i| self.values[i].clone()).collect();
        let Some(x) = inputs.first().cloned() else {
            return Err(layer.misfit("reads nothing that depends on the picture"));
        };
        let map = |is_map| Computed { name: name.clone(), is_map, is_picture: false };
        let x_name = x.name.as_str();
        match layer.class.as_str() {
            class if is_passed_over(class) => return Ok(x),
            "Resizing" | "CenterCrop" | "RandomCrop" => return self.resize(layer, x),
            "Conv2D" => {
                let y = self.conv(layer, &x)?;
                return self.activate(layer, y, &name);
            }
            "Dense" => {
                let y = self.dense(layer, &x)?;
                return self.activate(layer, y, &name);
            }
            "Activation" => return self.activate(layer, x, &name),
            "BatchNormalization" => self.batch_norm(layer, x_name, &name)?,
            "ReLU" => {
                let is_zero = |key: &str| {
                    let value = layer.setting(key);
                    value.is_null() || value.as_f64() == Some(0.0)
                };
                if !layer.setting("max_value").is_null() {
                    let most = layer.setting("max_value");
                    return Err(layer.misfit(&format!("clamps at {most}, but only a ReLU is read")));
                }
                if !is_zero("negative_slope") || !is_zero("threshold") {
                    return Err(layer.misfit("a leaky ReLU, but only a plain one is read"));
                }
                self.push("Relu", layer, &[x_name], &name, Vec::new());
            }
            "Relu" => self.push("Relu", layer, &[x_name], &name, Vec::new()),
            "Softmax" => {
                if !matches!(layer.setting("axis").as_i64(), None | Some(-1)) {
                    return Err(layer.misfit("a softmax that is not over classes"));
                }
                self.push("Softmax", layer, &[x_name], &name, Vec::new());
            }
            "ZeroPadding2D" => {
                let sides: [[i64; 2]; 2] = layer.settings::<Padding>()?.padding;
                let [[top, bottom], [left, right]] = sides;
                let pads = [0, 0, top, left, 0, 0, bottom, right];
                let pads = self.constant(&format!("{name} pads"), &[8], Numbers::Ints(&pads));
                self.push("Pad", layer, &[x_name, &pads], &name, Vec::new());
            }
            "MaxPooling2D" => self.pool(layer, "MaxPool", x_name, &name)?,
            "AveragePooling2D" => self.pool(layer, "AveragePool", x_name, &name)?,
            "GlobalAveragePooling2D" | "GlobalAvgPool2D" | "Mean" => {
                return self.reduce(layer, "ReduceMean", &x, name);
            }
            "GlobalMaxPooling2D" | "GlobalMaxPool2D" | "Max" => {
                return self.reduce(layer, "ReduceMax", &x, name);
            }
            "Flatten" => return Ok(self.flatten(layer, &x, name)),
            "Reshape" => {
                let target = layer.setting("target_shape").as_array().map_or(0, Vec::len);
                if target != 1 {
                    let what = "only one to a row is read; Flatten does the same";
                    return Err(layer.misfit(what));
                }
                return Ok(self.flatten(layer, &x, name));
            }
            "Rescaling" => {
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
                self.affine(layer, &x, &name, [("Mul", scale), ("Add", offset)]);
                return Ok(Computed { name, ..x });
            }
            "Normalization" => {
                self.normalize(layer, &x, &name)?;
                return Ok(Computed { name, ..x });
            }
            "GetItem" | "SlicingOpLambda" => {
                let order = channel_slice(layer).ok_or_else(|| {
                    layer.misfit("a slice, but only channels in reverse are read")
                })?;
                if let ChannelSlice::Reverse = order {
                    self.reverse(layer, x_name, &name);
                    return Ok(Computed { name, ..x });
                }
                // One channel is for the Stack that reads it.
                let id = self.values.len();
                let stacks = self.network.layers.iter().filter(|l| l.class == "Stack");
                if stacks.flat_map(Layer::inputs).filter(|i| *i == id).count() != self.readers[id] {
                    return Err(layer.misfit("takes one channel alone"));
                }
                return Ok(x);
            }
            "Stack" => {
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
                        self.reverse(layer, x_name, &name);
                        return Ok(Computed { name, ..x });
                    }
                    _ => return Err(layer.misfit("stacks others than channels in reverse")),
                }
            }
            "Add" | "Subtract" | "Multiply" | "Divide" | "TrueDivide" => {
                let operator = match layer.class.as_str() {
                    "Add" => "Add",
                    "Subtract" => "Sub",
                    "Multiply" => "Mul",
                    _ => "Div",
                };
                return self.arithmetic(layer, operator, &x, name);
            }
            "TFOpLambda" => {
                let function = layer.setting("function").as_str().unwrap_or_default();
                let operator = match function {
                    "math.add" | "__operators__.add" | "nn.bias_add" => "Add",
                    "math.subtract" | "__operators__.sub" => "Sub",
                    "math.multiply" | "__operators__.mul" => "Mul",
                    "math.truediv" | "math.divide" | "__operators__.truediv" => "Div",
                    "nn.relu" => {
                        self.push("Relu", layer, &[x_name], &name, Vec::new());
                        return Ok(Computed { name, is_picture: false, ..x });
                    }
                    "cast" | "identity" => return Ok(x),
                    other => {
                        let what = format!(
                            "the function {} is not read; {}",
                            other.plain(),
                            super::EXPORT
                        );
                        return Err(layer.misfit(&what));
                    }
                };
                return self.arithmetic(layer, operator, &x, name);
            }
            // Layers that are not read were named before.
            _ => return Err(layer.misfit("is not read")),
        }
        Ok(map(x.is_map))
    }

    fn push(
        &mut self,
        op_type: &str,
        layer: &Layer,
        inputs: &[&str],
        output: &str,
        attribute: Vec<Attribute>,
    ) {
        let path: Vec<&str> = layer.place.iter().map(|s| s.name.as_str()).collect();
        self.graph.node.push(proto::Node {
            input: inputs.iter().map(|&i| i.into()).collect(),
            output: vec![output.into()],
            name: path.join("/"),
            op_type: op_type.into(),
            attribute,
            ..Default::default()
        });
    }

    fn constant(&mut self, name: &str, dims: &[usize], numbers: Numbers<'_>) -> String {
        self.written += dims.iter().product::<usize>();
        let (data_type, raw_data) = match numbers {
            Numbers::Floats(v) => (proto::FLOAT, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Numbers::Ints(v) => (proto::INT64, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        self.graph.initializer.push(proto::Tensor {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(data_type),
            name: name.into(),
            raw_data,
            ..Default::default()
        });
        name.into()
    }

    /// A number for all channels of `x`, or one for each.
    fn per_channel(&mut self, name: &str, x: &Computed, values: &[f32]) -> String {
        let dims = if x.is_map { vec![values.len(), 1, 1] } else { vec![values.len()] };
        self.constant(name, &dims, Numbers::Floats(values))
    }

    /// Operations with constants, one after the other; the last one computes `name`.
    fn affine<const N: usize>(
        &mut self,
        layer: &Layer,
        x: &Computed,
        name: &str,
        steps: [(&str, Vec<f32>); N],
    ) {
        let mut before = x.name.clone();
        for (i, (operator, values)) in steps.into_iter().enumerate() {
            let output = if i + 1 == N { name.into() } else { format!("{name} {i}") };
            let constant = self.per_channel(&format!("{name} constant {i}"), x, &values);
            self.push(operator, layer, &[&before, &constant], &output, Vec::new());
            before = output;
        }
    }

    /// Turns red and blue.
    fn reverse(&mut self, layer: &Layer, x: &str, name: &str) {
        let order = self.constant(&format!("{name} order"), &[3], Numbers::Ints(&[2, 1, 0]));
        self.push("Gather", layer, &[x, &order], name, vec![Attribute::int("axis", 1)]);
    }

    /// A sum of layers, or arithmetic with a constant.
    fn arithmetic(
        &mut self,
        layer: &Layer,
        operator: &str,
        x: &Computed,
        name: String,
    ) -> Result<Computed, String> {
        let mut names = Vec::new();
        let mut is_picture = x.is_picture;
        for (i, operand) in layer.operands.iter().enumerate() {
            names.push(match operand {
                Operand::Layer(id) => self.values[*id].name.clone(),
                Operand::Constant(values) => {
                    self.per_channel(&format!("{name} constant {i}"), x, values)
                }
                Operand::Other(_) => return Err(layer.misfit("computes with what is no number")),
            });
        }
        is_picture &= layer.inputs().count() == 1;
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
        Ok(Computed { name, is_map: x.is_map, is_picture })
    }

    /// The activation of a layer's settings.
    fn activate(&mut self, layer: &Layer, x: Computed, name: &str) -> Result<Computed, String> {
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
        let output = format!("{name} activated");
        self.push(operator, layer, &[&x.name], &output, Vec::new());
        Ok(Computed { name: output, is_picture: false, ..x })
    }

    fn conv(&mut self, layer: &Layer, x: &Computed) -> Result<Computed, String> {
        #[derive(Deserialize)]
        struct Settings {
            #[serde(default = "one")]
            dilation_rate: [i64; 2],
            #[serde(default = "single")]
            groups: i64,
            use_bias: bool,
        }
        fn one() -> [i64; 2] {
            [1; 2]
        }
        fn single() -> i64 {
            1
        }
        let Settings { dilation_rate, groups, use_bias } = layer.settings()?;
        if groups != 1 {
            return Err(layer.misfit(&format!("{groups} groups, but only one is read")));
        }
        if dilation_rate != [1; 2] {
            return Err(layer.misfit("dilated, which is not read"));
        }
        let (kernel, bias) = self.weights(layer, use_bias)?;
        let [rows, columns, inputs, outputs] = kernel.shape[..] else {
            return Err(layer.misfit(&format!("a kernel of shape {:?}", kernel.shape)));
        };
        // HWIO to OIHW; of a network that wants blue first, the first layer's inputs are turned.
        let turned = self.family.is_some_and(|f| f.takes_bgr() && f.first_layer(layer));
        let mut weights = Vec::with_capacity(kernel.values.len());
        for o in 0..outputs {
            for i in 0..inputs {
                let i = if turned { inputs - 1 - i } else { i };
                for tap in 0..rows * columns {
                    weights.push(kernel.values[(tap * inputs + i) * outputs + o]);
                }
            }
        }
        let name = format!("value {}", self.values.len());
        let dims = [outputs, inputs, rows, columns];
        let weights = self.constant(&format!("{name} kernel"), &dims, Numbers::Floats(&weights));
        let mut operands = vec![x.name.clone(), weights];
        if let Some(bias) = bias {
            operands.push(self.constant(
                &format!("{name} bias"),
                &[outputs],
                Numbers::Floats(&bias.values),
            ));
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        let attributes = window(layer, false)?;
        self.push("Conv", layer, &operands, &name, attributes);
        Ok(Computed { name, is_map: true, is_picture: false })
    }

    /// Kernel and bias of a layer.
    fn weights(&self, layer: &Layer, use_bias: bool) -> Result<(Array, Option<Array>), String> {
        let (kernel, bias) = if use_bias {
            let [kernel, bias] = self.arrays.of(layer, ["kernel", "bias"])?;
            (kernel, Some(bias))
        } else {
            let [kernel] = self.arrays.of(layer, ["kernel"])?;
            (kernel, None)
        };
        Ok((kernel.clone(), bias.cloned()))
    }

    fn dense(&mut self, layer: &Layer, x: &Computed) -> Result<Computed, String> {
        let (kernel, bias) =
            self.weights(layer, layer.setting("use_bias").as_bool() != Some(false))?;
        let [inputs, outputs] = kernel.shape[..] else {
            return Err(layer.misfit(&format!("a kernel of shape {:?}", kernel.shape)));
        };
        let name = format!("value {}", self.values.len());
        let columns = |o: usize| kernel.values.iter().skip(o).step_by(outputs.max(1)).copied();
        let weights: Vec<f32> = (0..outputs).flat_map(columns).collect();
        // Of each pixel, where it reads a map.
        let (operator, dims) = match x.is_map {
            true => ("Conv", vec![outputs, inputs, 1, 1]),
            false => ("Gemm", vec![outputs, inputs]),
        };
        let weights = self.constant(&format!("{name} kernel"), &dims, Numbers::Floats(&weights));
        let mut operands = vec![x.name.clone(), weights];
        if let Some(bias) = bias {
            operands.push(self.constant(
                &format!("{name} bias"),
                &[outputs],
                Numbers::Floats(&bias.values),
            ));
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        let attributes = if x.is_map { Vec::new() } else { vec![Attribute::int("transB", 1)] };
        self.push(operator, layer, &operands, &name, attributes);
        Ok(Computed { name, is_map: x.is_map, is_picture: false })
    }

    fn batch_norm(&mut self, layer: &Layer, x: &str, name: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Settings {
            axis: Value,
            epsilon: f32,
            center: bool,
            scale: bool,
        }
        let Settings { axis, epsilon, center, scale } = layer.settings()?;
        let axis = axis.as_array().and_then(|a| a.first()).unwrap_or(&axis).as_i64();
        if !matches!(axis, Some(3 | -1 | 1)) || (axis == Some(1) && self.is_map_of(x)) {
            return Err(layer.misfit("expected one over channels, which come last"));
        }
        let of = self.arrays;
        let none = None;
        let [gamma, beta, mean, variance] = match (scale, center) {
            (true, true) => {
                of.of(layer, ["gamma", "beta", "moving_mean", "moving_variance"])?.map(Some)
            }
            (true, false) => {
                let [gamma, mean, variance] =
                    of.of(layer, ["gamma", "moving_mean", "moving_variance"])?.map(Some);
                [gamma, none, mean, variance]
            }
            (false, true) => {
                let [beta, mean, variance] =
                    of.of(layer, ["beta", "moving_mean", "moving_variance"])?.map(Some);
                [none, beta, mean, variance]
            }
            (false, false) => {
                let [mean, variance] = of.of(layer, ["moving_mean", "moving_variance"])?.map(Some);
                [none, none, mean, variance]
            }
        };
        let channels = mean.map_or(0, |m| m.values.len());
        let mut operands = vec![x.to_owned()];
        for (part, values, default) in [
            ("gamma", gamma, 1.0),
            ("beta", beta, 0.0),
            ("mean", mean, 0.0),
            ("variance", variance, 1.0),
        ] {
            let values = values.map_or_else(|| vec![default; channels], |a| a.values.clone());
            let dims = [values.len()];
            operands.push(self.constant(
                &format!("{name} {part}"),
                &dims,
                Numbers::Floats(&values),
            ));
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        let attributes = vec![Attribute::float("epsilon", epsilon)];
        self.push("BatchNormalization", layer, &operands, name, attributes);
        Ok(())
    }

    fn is_map_of(&self, name: &str) -> bool {
        self.values.iter().any(|v| v.name == name && v.is_map)
    }

    fn pool(&mut self, layer: &Layer, operator: &str, x: &str, name: &str) -> Result<(), String> {
        let attributes = window(layer, true)?;
        self.push(operator, layer, &[x], name, attributes);
        Ok(())
    }

    /// A pool of the whole map.
    fn reduce(
        &mut self,
        layer: &Layer,
        operator: &str,
        x: &Computed,
        name: String,
    ) -> Result<Computed, String> {
        let axis = layer.setting("axis");
        let axes = axis.as_array().map(|axes| axes.iter().filter_map(Value::as_i64));
        let wanted = [vec![1, 2], vec![-3, -2]];
        let fits = axes.is_none_or(|axes| wanted.contains(&axes.collect::<Vec<_>>()));
        let is_operation = matches!(layer.class.as_str(), "Mean" | "Max");
        if !x.is_map || !fits || (is_operation && !axis.is_array()) {
            return Err(layer.misfit("expected one over rows and columns of a map"));
        }
        let keeps = layer.setting("keepdims").as_bool() == Some(true);
        let attributes =
            vec![Attribute::ints("axes", &[2, 3]), Attribute::int("keepdims", keeps.into())];
        self.push(operator, layer, &[&x.name], &name, attributes);
        Ok(Computed { name, is_map: keeps, is_picture: false })
    }

    fn flatten(&mut self, layer: &Layer, x: &Computed, name: String) -> Computed {
        if !x.is_map {
            return x.clone();
        }
        let turned = format!("{name} nhwc");
        let order = vec![Attribute::ints("perm", &[0, 2, 3, 1])];
        self.push("Transpose", layer, &[&x.name], &turned, order);
        self.push("Flatten", layer, &[&turned], &name, Vec::new());
        Computed { name, is_map: false, is_picture: false }
    }

    fn normalize(&mut self, layer: &Layer, x: &Computed, name: &str) -> Result<(), String> {
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
        self.affine(layer, x, name, [("Sub", mean), ("Div", deviation)]);
        Ok(())
    }

    /// A layer that makes pictures have its size: the model's own, whatever comes in.
    fn resize(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
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

/// Numbers of a constant.
enum Numbers<'a> {
    Floats(&'a [f32]),
    Ints(&'a [i64]),
}

/// `[[top, bottom], [left, right]]`, or shorter.
#[derive(Deserialize)]
struct Padding {
    #[serde(deserialize_with = "padding")]
    padding: [[i64; 2]; 2],
}

fn padding<'de, D: serde::Deserializer<'de>>(from: D) -> Result<[[i64; 2]; 2], D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        All(i64),
        Axes([i64; 2]),
        Sides([[i64; 2]; 2]),
    }
    Ok(match Form::deserialize(from)? {
        Form::All(all) => [[all; 2]; 2],
        Form::Axes(axes) => axes.map(|axis| [axis; 2]),
        Form::Sides(sides) => sides,
    })
}

/// Filter, strides and padding of a convolution or, with its filter as an attribute, a pool.
fn window(layer: &Layer, is_pool: bool) -> Result<Vec<Attribute>, String> {
    let Window { kernel_size, strides, padding } = layer.settings()?;
    let rule = match padding.to_ascii_lowercase().as_str() {
        "same" => "SAME_UPPER",
        "valid" => "VALID",
        other => return Err(layer.misfit(&format!("padding {}", other.plain()))),
    };
    let strides = strides.unwrap_or(if is_pool { kernel_size } else { [1; 2] });
    let rule = Attribute { name: "auto_pad".into(), s: rule.into(), ..Default::default() };
    let mut attributes = vec![Attribute::ints("strides", &strides), rule];
    if is_pool {
        attributes.push(Attribute::ints("kernel_shape", &kernel_size));
    }
    Ok(attributes)
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
