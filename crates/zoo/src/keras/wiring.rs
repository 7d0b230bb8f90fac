//! Whole models of Keras Applications' MobileNets and EfficientNets, with whatever comes before and after
//! them: compared with the network that their layers' names suggest, layer by layer.

use super::arrays::Arrays;
use super::backbone::function;
use super::config::{DEFAULT_SIDE, activation, scaled};
use super::layers::{INPUT, Layer, Network, Operand};
use super::mobile::{Application, Told};
use super::names::Naming;
use super::passed_over::is_passed_over;
use super::windows::border;
use crate::{Head, Hints, ImportError};
use artifact::Preprocess;
use network::activation::Activation;
use network::blueprint::{Blueprint, HEAD, LayerOp, Pooling};
use network::checkpoint::{Assumption, Checkpoint};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The checkpoint of weights without their model; `None` where they are no MobileNet's or EfficientNet's.
pub(super) fn weights_alone(
    path: &Path,
    arrays: &Arrays,
    head: Head,
    hints: &Hints,
) -> Result<Option<Checkpoint>, ImportError> {
    let unsupported = |what: &str| ImportError::unsupported(path, what);
    let Some(application) = Application::of(arrays) else { return Ok(None) };
    let whole = "save the whole model: model.save(\"model.keras\")";
    if head == Head::Required && !application.has_head() {
        let what = "the weights of a MobileNet or EfficientNet without a head (include_top=False)";
        return Err(unsupported(&format!("{what}; {whole}")));
    }
    let told = application.usual();
    let config = told.and_then(|told| application.architecture(&name(path), &told, Pooling::Avg));
    let Some(config) = config else {
        let what = format!(
            "weights alone of a {:?} of {} blocks",
            application.naming,
            application.blocks()
        );
        let known = "of Keras Applications' own networks they are read";
        return Err(unsupported(&format!("{what}, but {known}; {whole}")));
    };
    let side = hints.size.unwrap_or(DEFAULT_SIDE);
    let raw = Preprocess::raw(side, side);
    if !application.pads_same(&config.blueprint(), raw) {
        return Err(unsupported(
            "MobileNet pads strided convolutions on one side, also where a map has an odd number of \
             rows or columns; take an --input-size that is a multiple of 32",
        ));
    }
    let preprocess = application.preprocess(raw);
    let assumed = Assumption::new(format!("pictures of {side}×{side}"), Hints::SIZE);
    let assumed = [Some(assumed).filter(|_| hints.size.is_none())];
    let assumed = assumed.into_iter().flatten().collect();
    application.checkpoint(path, config, preprocess, super::mobile::EPSILON, assumed).map(Some)
}

/// The checkpoint of a model; `None` where it is anything else than a MobileNet or EfficientNet between
/// scales and a head.
pub(super) fn whole(
    path: &Path,
    network: &Network,
    arrays: &Arrays,
    head: Head,
    hints: &Hints,
) -> Result<Option<Checkpoint>, ImportError> {
    let Some(mut application) = Application::of(arrays) else { return Ok(None) };
    let Some(model) = Model::of(network, &mut application, hints) else { return Ok(None) };
    if head == Head::Required && !application.has_head() {
        let what = "a model without a head (include_top=False); fine-tune it to some classes first";
        return Err(ImportError::unsupported(path, what));
    }
    let Some(mut config) = application.architecture(&name(path), &model.told, model.top.pooling)
    else {
        return Ok(None);
    };
    config.dropout = model.top.dropout;
    if config.check().is_err() || !model.computes(&config.blueprint(), application.naming) {
        return Ok(None);
    }
    let blueprint = config.blueprint();
    let Some(ids) = model.wired(&blueprint, &application) else { return Ok(None) };
    let Some(epsilon) = model.epsilon(&blueprint, &ids) else { return Ok(None) };
    if !model.windows_fit(&blueprint, &ids) {
        return Ok(None);
    }
    let stem = blueprint.layers.iter().position(|layer| layer.name == "stem_conv");
    let stem = stem.and_then(|stem| ids.get(&stem)).copied();
    let Some((preprocess, is_scaled)) = stem.and_then(|stem| model.prepared(arrays, stem)) else {
        return Ok(None);
    };
    let mut assumed = Vec::new();
    let preprocess = if is_scaled {
        preprocess
    } else if application.naming == Naming::EfficientNet {
        return Ok(None);
    } else {
        let what = "layers as in Keras Applications' MobileNet: taken for -1 to 1";
        assumed.push(Assumption::new(what, Assumption::STATISTICS));
        application.preprocess(preprocess)
    };
    if model.is_size_open && hints.size.is_none() {
        let (height, width) = (preprocess.height, preprocess.width);
        assumed.push(Assumption::new(format!("pictures of {height}×{width}"), Hints::SIZE));
    }
    application.checkpoint(path, config, preprocess, epsilon, assumed).map(Some)
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A model whose layers are known by name.
struct Model<'a> {
    network: &'a Network,
    told: Told,
    top: Top,
    raw: Preprocess,
    is_size_open: bool,
}

/// What comes after the last map.
struct Top {
    pooling: Pooling,
    hidden: Option<usize>,
    head: Option<usize>,
    dropout: f64,
}

impl<'a> Model<'a> {
    fn of(network: &'a Network, application: &mut Application<'_>, hints: &Hints) -> Option<Self> {
        let input = network.layers.iter().find(|layer| layer.class == INPUT)?;
        let [_, height, width, _] = input.input_dims().ok()?;
        let side = |side: Option<u16>| hints.size.or(side).unwrap_or(DEFAULT_SIDE);
        let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (id, layer) in network.layers.iter().enumerate() {
            layer.inputs().for_each(|input| readers.entry(input).or_default().push(id));
        }
        let by_name: HashMap<&str, usize> =
            network.layers.iter().enumerate().map(|(id, l)| (l.name.as_str(), id)).collect();
        let layer = |ours: &str| by_name.get(application.name(ours)?.as_str()).copied();
        // A function of V3's is made of several layers, or is one.
        let behind = |ours: &str| match readers.get(&layer(ours)?).map(Vec::as_slice) {
            Some(&[one]) => function_of(&network.layers[one]),
            Some([_, _]) if matches!(application.naming, Naming::V3 | Naming::OldV3) => {
                Some(Activation::HARD_SWISH)
            }
            _ => None,
        };
        let blocks = 0..application.blocks();
        let strides = blocks.clone().map(|n| {
            let strides = strides(&network.layers[layer(&format!("block{n}_depthwise_conv"))?])?;
            (strides[0] == strides[1]).then_some(strides[0])
        });
        let told = Told {
            strides: strides.collect::<Option<_>>()?,
            activations: blocks
                .map(|n| behind(&format!("block{n}_depthwise_bn")))
                .collect::<Option<_>>()?,
            activation: behind("stem_bn")?,
        };
        let top = Top::of(network, told.activation)?;
        for (ours, id) in [(HEAD, top.head), ("hidden", top.hidden)] {
            if let Some(id) = id {
                application.top.insert(ours, network.layers[id].name.clone());
            }
        }
        let raw = Preprocess::raw(side(height), side(width));
        let is_size_open = height.is_none() || width.is_none();
        Some(Self { network, told, top, raw, is_size_open })
    }

    /// Our layers' counterparts, if each reads those that it should, whatever has no weights between them.
    fn wired(&self, ours: &Blueprint, names: &Application<'_>) -> Option<BTreeMap<usize, usize>> {
        let layers = &self.network.layers;
        let mut known = HashMap::new();
        for (id, layer) in ours.layers.iter().enumerate().filter(|(_, l)| !l.parts().is_empty()) {
            // A head of zeros is made where there is none.
            let is_missing = layer.name == HEAD && self.top.head.is_none();
            if !is_missing {
                known.insert(names.name(&layer.name)?, id);
            }
        }
        let is_v3 = matches!(names.naming, Naming::V3 | Naming::OldV3);
        let is_constant = |layer: &Layer| layer.inputs().count() < layer.operands.len();
        let key = |id: usize| match layers[id].class.as_str() {
            INPUT => Some(Blueprint::INPUT),
            "Conv2D" | "DepthwiseConv2D" | "Dense" | "BatchNormalization" => {
                Some(known.get(&layers[id].name).copied().unwrap_or(usize::MAX))
            }
            // Of its functions.
            class if is_v3 && is_arithmetic(class) => None,
            class if is_silent(class) && (is_v3 || !is_constant(&layers[id])) => None,
            _ => Some(usize::MAX),
        };
        // What scales pictures may do nothing else.
        let inputs = |id: usize| layers[id].inputs().collect();
        let theirs = sources(layers.len(), inputs, |id| {
            key(id).filter(|k| *k != usize::MAX || !is_scale(&layers[id].class))
        });
        let mut found = BTreeMap::new();
        for (id, before) in theirs.iter().enumerate() {
            let is_strange = match key(id) {
                Some(usize::MAX) => {
                    !is_scale(&layers[id].class) || !before.iter().eq([&Blueprint::INPUT])
                }
                Some(ours) => found.insert(ours, id).is_some(),
                None => false,
            };
            if is_strange {
                return None;
            }
        }
        let weighted = |id: usize| {
            (id == Blueprint::INPUT || !ours.layers[id].parts().is_empty()).then_some(id)
        };
        let wanted = sources(ours.layers.len(), |id| ours.layers[id].inputs.clone(), weighted);
        let fits = |(&ours, &id): (&usize, &usize)| wanted[ours] == theirs[id];
        (found.len() == known.len() + 1 && found.iter().all(fits)).then_some(found)
    }

    /// Whether there are as many sums, products and functions as ours, and no others.
    fn computes(&self, ours: &Blueprint, naming: Naming) -> bool {
        let layers = &self.network.layers;
        let joined = |class: &str| {
            let of_layers = layers.iter().filter(|l| l.class == class && l.inputs().count() > 1);
            of_layers.count()
        };
        let number = |op: LayerOp| ours.layers.iter().filter(|layer| layer.op == op).count();
        if joined("Add") != number(LayerOp::Add) {
            return false;
        }
        // Its functions are made of products.
        if matches!(naming, Naming::V3 | Naming::OldV3) {
            return true;
        }
        let mut theirs: Vec<Activation> = layers.iter().filter_map(function_of).collect();
        let own = layers.iter().filter(|layer| layer.class != "Activation");
        theirs.extend(own.filter_map(|layer| function(layer.setting("activation")).ok()));
        theirs.retain(|function| !function.is_none());
        let functions = ours.layers.iter().filter_map(|layer| match layer.op {
            LayerOp::Activation(activation) => Some(activation),
            _ => None,
        });
        let wanted: Vec<Activation> = functions.collect();
        let count = |all: &[Activation], one| all.iter().filter(|other| **other == one).count();
        joined("Multiply") == number(LayerOp::Gate)
            && theirs.len() == wanted.len()
            && wanted.iter().all(|&one| count(&wanted, one) == count(&theirs, one))
    }

    /// The ε of all batch-norms, which have all of their parts.
    fn epsilon(&self, ours: &Blueprint, ids: &BTreeMap<usize, usize>) -> Option<f64> {
        let norms =
            ids.iter().filter(|(ours_id, _)| ours.layers[**ours_id].op == LayerOp::BatchNorm);
        let mut epsilon = None;
        for (_, &id) in norms {
            let layer = &self.network.layers[id];
            let is_off = |key: &str| layer.setting(key).as_bool() == Some(false);
            let found = layer.setting("epsilon").as_f64();
            if is_off("center") || is_off("scale") || (epsilon.is_some() && epsilon != found) {
                return None;
            }
            epsilon = found;
        }
        epsilon
    }

    /// Whether all windows stride and are padded as ours at the size of the input.
    fn windows_fit(&self, ours: &Blueprint, ids: &BTreeMap<usize, usize>) -> bool {
        let layers = &self.network.layers;
        let (mut height, mut width) = (usize::from(self.raw.height), usize::from(self.raw.width));
        let mut padded = 0;
        for (id, layer) in ours.layers.iter().enumerate() {
            let LayerOp::Conv(conv) = layer.op else { continue };
            let Some(theirs) = ids.get(&id).map(|&id| &layers[id]) else { return false };
            let window = conv.window;
            let same = [height, width].map(|side| {
                let (before, after) = window.padding.sides(side, window.filter, window.stride);
                [before as i64, after as i64]
            });
            let before = theirs.inputs().next().map(|input| &layers[input]);
            let border = match before.filter(|before| before.class == PAD).map(border) {
                Some(border) => {
                    padded += 1;
                    border.ok()
                }
                None => Some([[0; 2]; 2]),
            };
            let is_same = theirs.setting("padding").as_str() == Some("same");
            let is_padded = match is_same {
                true => border == Some([[0; 2]; 2]),
                false => border == Some(same),
            };
            let is_dilated = theirs.setting("dilation_rate").as_array();
            let is_dilated = is_dilated.is_some_and(|d| d.iter().any(|d| d.as_u64() != Some(1)));
            if !is_padded || is_dilated || strides(theirs) != Some([window.stride; 2]) {
                return false;
            }
            (height, width) = (height.div_ceil(window.stride), width.div_ceil(window.stride));
        }
        // Any other would pad what is not padded here.
        padded == layers.iter().filter(|layer| layer.class == PAD).count()
    }

    /// How pictures become what the stem reads, and whether the model itself scales them.
    fn prepared(&self, arrays: &Arrays, stem: usize) -> Option<(Preprocess, bool)> {
        let layers = &self.network.layers;
        let (mut chain, mut at) = (Vec::new(), stem);
        while layers[at].class != INPUT {
            let mut inputs = layers[at].inputs();
            at = inputs.next().filter(|_| inputs.next().is_none())?;
            chain.push(at);
        }
        let (mut p, mut is_scaled) = (self.raw, false);
        for layer in chain.iter().rev().map(|&id| &layers[id]) {
            if !is_scale(&layer.class) {
                continue;
            }
            let (scale, offset) = affine(layer, arrays)?;
            (p, is_scaled) = (scaled(p, scale, offset), true);
        }
        p.is_valid().then_some((p, is_scaled))
    }
}

impl Top {
    /// What comes behind a network of an activation.
    fn of(network: &Network, wanted: Activation) -> Option<Self> {
        let layers = &network.layers;
        let &[mut at] = network.outputs.as_slice() else { return None };
        let mut top = Self { pooling: Pooling::Avg, hidden: None, head: None, dropout: 0.0 };
        let before = |at: usize| layers[at].inputs().next();
        let is_linear = |layer: &Layer| {
            matches!(activation(layer.setting("activation")), Some("linear" | "softmax"))
        };
        let is_dense = |layer: &Layer| {
            let kernel = layer.setting("kernel_size").as_array();
            let is_pixel = kernel.is_some_and(|k| k.iter().all(|side| side.as_u64() == Some(1)));
            layer.class == "Dense" || (layer.class == "Conv2D" && is_pixel)
        };
        let skip = |mut at: usize, dropout: &mut f64| {
            while is_passed_over(&layers[at].class)
                || matches!(layers[at].class.as_str(), "Flatten" | "Reshape")
            {
                if let Some(rate) = layers[at].setting("rate").as_f64() {
                    *dropout = rate;
                }
                at = before(at)?;
            }
            Some(at)
        };
        at = skip(at, &mut top.dropout)?;
        while layers[at].class == "Softmax"
            || (layers[at].class == "Activation" && is_linear(&layers[at]))
        {
            at = skip(before(at)?, &mut top.dropout)?;
        }
        if is_dense(&layers[at]) {
            if !is_linear(&layers[at]) {
                return None;
            }
            top.head = Some(at);
            at = skip(before(at)?, &mut top.dropout)?;
            let mut found = function_of(&layers[at]);
            // A function of V3's ends in the product of what it reads with another.
            let is_product = layers[at].class == "Multiply";
            if found.is_some() || is_product {
                let inputs = layers[at].inputs().find(|&i| !is_product || is_dense(&layers[i]));
                at = skip(inputs?, &mut top.dropout)?;
            }
            if is_dense(&layers[at]) {
                found = found.or_else(|| function(layers[at].setting("activation")).ok());
                let found = if is_product { Some(Activation::HARD_SWISH) } else { found };
                if found != Some(wanted) {
                    return None;
                }
                top.hidden = Some(at);
                at = skip(before(at)?, &mut top.dropout)?;
            }
        }
        top.pooling = match layers[at].class.as_str() {
            "GlobalAveragePooling2D" | "GlobalAvgPool2D" => Pooling::Avg,
            "GlobalMaxPooling2D" | "GlobalMaxPool2D" => Pooling::Max,
            _ if top.head.is_none() => Pooling::Avg,
            _ => return None,
        };
        Some(top)
    }
}

/// What adds pixels around a map.
const PAD: &str = "ZeroPadding2D";

/// Whether layers of a class have no weights, and are where the network's are.
fn is_silent(class: &str) -> bool {
    const SILENT: &str = "Activation Add Flatten GlobalAveragePooling2D GlobalAvgPool2D GlobalMaxPooling2D \
                          GlobalMaxPool2D Multiply ReLU Reshape Softmax ZeroPadding2D";
    is_passed_over(class) || SILENT.split(' ').any(|silent| silent == class)
}

/// Whether layers of a class compute with a constant.
fn is_arithmetic(class: &str) -> bool {
    matches!(class, "Divide" | "Subtract" | "TrueDivide" | "TFOpLambda")
}

/// Whether layers of a class may scale pictures.
fn is_scale(class: &str) -> bool {
    is_arithmetic(class) || matches!(class, "Add" | "Multiply" | "Normalization" | "Rescaling")
}

/// The function of a layer that computes nothing else.
pub(super) fn function_of(layer: &Layer) -> Option<Activation> {
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

fn strides(layer: &Layer) -> Option<[usize; 2]> {
    #[derive(Deserialize)]
    struct Settings {
        strides: [usize; 2],
    }
    layer.settings::<Settings>().ok().map(|settings| settings.strides)
}

/// What a layer multiplies pictures by and then adds.
fn affine(layer: &Layer, arrays: &Arrays) -> Option<([f64; 3], [f64; 3])> {
    let each = |values: &[f32]| match *values {
        [all] => Some([f64::from(all); 3]),
        [r, g, b] => Some([r, g, b].map(f64::from)),
        _ => None,
    };
    if layer.class == "Rescaling" {
        let rescaling: super::config::Rescaling = layer.settings().ok()?;
        return Some(rescaling.numbers());
    }
    if layer.class == "Normalization" {
        let (mean, variance) = super::pictures::statistics(layer, arrays).ok()?;
        let scale = each(&variance)?.map(|v| 1.0 / v.sqrt().max(1e-7));
        let mean = each(&mean)?;
        return Some((scale, core::array::from_fn(|c| -mean[c] * scale[c])));
    }
    let [Operand::Layer(_), Operand::Constant(values)] = layer.operands.as_slice() else {
        return None;
    };
    let values = each(values)?;
    let function = layer.setting("function").as_str();
    Some(match function.unwrap_or(&layer.class) {
        "Add" | "math.add" | "__operators__.add" => ([1.0; 3], values),
        "Subtract" | "math.subtract" | "__operators__.sub" => ([1.0; 3], values.map(|v| -v)),
        "Multiply" | "math.multiply" | "__operators__.mul" => (values, [0.0; 3]),
        "Divide" | "TrueDivide" | "math.truediv" | "math.divide" | "__operators__.truediv" => {
            (values.map(|v| 1.0 / v), [0.0; 3])
        }
        _ => return None,
    })
}

/// Of each value, the nearest ones before it that have a key; whatever has none is passed through.
fn sources(
    len: usize,
    inputs: impl Fn(usize) -> Vec<usize>,
    key: impl Fn(usize) -> Option<usize>,
) -> Vec<BTreeSet<usize>> {
    let mut before: Vec<BTreeSet<usize>> = Vec::with_capacity(len);
    for id in 0..len {
        let mut found = BTreeSet::new();
        for input in inputs(id) {
            match key(input) {
                Some(key) => {
                    found.insert(key);
                }
                None => found.extend(before[input].iter().copied()),
            }
        }
        before.push(found);
    }
    before
}
