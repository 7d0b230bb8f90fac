//! Recognizes the ResNet in a functional Keras model.
//!
//! Expected: input, convolutions (stem), perhaps a max-pool, residual blocks, pooling, Dense.
//! Every convolution may have a batch-norm; ReLU stands between convolutions and after sums.
//! The layers are read as they come, a [`ResNetConfig`] is made of them, and then they are
//! compared with it.

use super::config::{DEFAULT_SIDE, Rescaling, activation};
use super::functional::{Layer, Network};
use crate::padding::ConvPadding;
use crate::resnet::{BlockType, BottleneckStride, ConvSpec, Pooling, ResNetConfig};
use artifact::Preprocess;
use serde::Deserialize;
use serde_json::Value;

/// A convolution and what follows it.
pub(super) struct Unit<'a> {
    pub(super) conv: &'a Layer,
    /// Batch-norm and its ε.
    pub(super) norm: Option<(&'a Layer, f64)>,
    filters: usize,
    filter: usize,
    stride: usize,
}

/// A model in which a ResNet was recognized.
pub(super) struct Matched<'a> {
    pub(super) config: ResNetConfig,
    pub(super) preprocess: Preprocess,
    /// Every convolution with its canonical name.
    pub(super) units: Vec<(String, Unit<'a>)>,
    pub(super) head: &'a Layer,
}

/// A block's main path and its shortcut.
struct Block<'a> {
    main: Vec<Unit<'a>>,
    projection: Option<Unit<'a>>,
    add: &'a Layer,
}

/// Recognizes a ResNet.
///
/// # Errors
/// The first layer that does not fit, as text.
pub(super) fn recognize(name: String, network: &Network) -> Result<Matched<'_>, String> {
    let mut preprocess = input(network.input())?;
    let mut next = network.next(network.input())?;
    while next.class == "Rescaling" {
        preprocess = next.settings::<Rescaling>()?.after(preprocess);
        next = network.next(next)?;
    }
    let mut stem = Vec::new();
    let mut x;
    loop {
        let (unit, after) = unit(network, next)?;
        stem.push(unit);
        x = relu(after)?;
        match network.readers(x)[..] {
            [conv] if conv.class == "Conv2D" => next = conv,
            _ => break,
        }
    }
    let stem_pool = match network.readers(x)[..] {
        [pool] if pool.class == "MaxPooling2D" && network.readers(pool).len() > 1 => {
            max_pool(pool)?;
            x = pool;
            true
        }
        _ => false,
    };
    let mut blocks = Vec::new();
    while let [a, b] = network.readers(x)[..] {
        let block = block(network, a, b)?;
        x = relu(network.next(block.add)?)?;
        blocks.push(block);
    }
    let config = architecture(name, &stem, stem_pool, &blocks, x)?;
    let map = [preprocess.height, preprocess.width].map(|side| map_side(&config, side));
    let (pooling, pooled) = pooling(network, network.next(x)?, map)?;
    let (head, classes) = head(network, pooled)?;
    let config = ResNetConfig { pooling, classes, channels: preprocess.channels(), ..config };
    config.check()?;
    let units = name_units(&config, stem, blocks)?;
    Ok(Matched { config, preprocess, units, head })
}

fn input(layer: &Layer) -> Result<Preprocess, String> {
    #[derive(Deserialize)]
    struct Input {
        #[serde(alias = "batch_input_shape")]
        batch_shape: (Option<u16>, Option<u16>, Option<u16>, Option<u16>),
    }
    let Input { batch_shape: (_, height, width, channels) } = layer.settings()?;
    match channels {
        Some(1 | 3) => Ok(Preprocess {
            grey: channels == Some(1),
            ..Preprocess::raw(height.unwrap_or(DEFAULT_SIDE), width.unwrap_or(DEFAULT_SIDE))
        }),
        _ => Err(layer.misfit("expected pictures of 3 channels or 1, channels last")),
    }
}

/// A convolution with its batch-norm, and the layer that comes next.
fn unit<'a>(network: &'a Network, conv: &'a Layer) -> Result<(Unit<'a>, &'a Layer), String> {
    #[derive(Deserialize)]
    struct Conv {
        filters: usize,
        kernel_size: [usize; 2],
        strides: [usize; 2],
        padding: String,
        #[serde(default)]
        data_format: Option<String>,
        #[serde(default = "ones")]
        dilation_rate: [usize; 2],
        #[serde(default = "one")]
        groups: usize,
        #[serde(default)]
        activation: Value,
    }
    if conv.class != "Conv2D" {
        return Err(conv.misfit("expected a Conv2D"));
    }
    let c: Conv = conv.settings()?;
    let [filter, stride] = [c.kernel_size[0], c.strides[0]];
    // A 1×1 filter needs no padding.
    let fits = (c.padding == "same" || filter == 1)
        && c.kernel_size == [filter; 2]
        && c.strides == [stride; 2]
        && c.data_format.is_none_or(|format| format == "channels_last")
        && (c.dilation_rate, c.groups) == ([1; 2], 1)
        && activation(&c.activation) == Some("linear");
    if !fits {
        return Err(conv.misfit(
            "expected a square filter with padding \"same\", channels last, no dilation, no \
             groups and no activation",
        ));
    }
    let mut after = network.next(conv)?;
    let mut norm = None;
    if after.class == "BatchNormalization" {
        norm = Some((after, epsilon(after)?));
        after = network.next(after)?;
    }
    Ok((Unit { conv, norm, filters: c.filters, filter, stride }, after))
}

fn one() -> usize {
    1
}

fn ones() -> [usize; 2] {
    [1; 2]
}

fn epsilon(norm: &Layer) -> Result<f64, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Axis {
        One(i64),
        List([i64; 1]),
    }
    #[derive(Deserialize)]
    struct Norm {
        axis: Axis,
        epsilon: f64,
        center: bool,
        scale: bool,
    }
    let n: Norm = norm.settings()?;
    let (Axis::One(axis) | Axis::List([axis])) = n.axis;
    if !matches!(axis, 3 | -1) || !n.center || !n.scale {
        return Err(norm.misfit("expected one over channels, with center and scale"));
    }
    Ok(n.epsilon)
}

/// The layer itself, if it is a ReLU.
fn relu(layer: &Layer) -> Result<&Layer, String> {
    let settings: Value = layer.settings()?;
    let zero = |key| settings.get(key).is_none_or(|v| v.is_null() || v.as_f64() == Some(0.0));
    let is_relu = match layer.class.as_str() {
        "Activation" => settings.get("activation").and_then(activation) == Some("relu"),
        "ReLU" => {
            let unbounded = settings.get("max_value").is_none_or(Value::is_null);
            unbounded && zero("negative_slope") && zero("threshold")
        }
        _ => false,
    };
    if is_relu { Ok(layer) } else { Err(layer.misfit("expected a ReLU")) }
}

#[derive(Deserialize)]
struct Pool {
    pool_size: [usize; 2],
    strides: [usize; 2],
    padding: String,
}

fn max_pool(layer: &Layer) -> Result<(), String> {
    let pool: Pool = layer.settings()?;
    match (pool.pool_size, pool.strides, pool.padding.as_str()) {
        ([3, 3], [2, 2], "same") => Ok(()),
        _ => Err(layer.misfit("expected 3×3 with stride 2 and padding \"same\"")),
    }
}

/// The block whose paths start with `a` and `b`.
fn block<'a>(network: &'a Network, a: &'a Layer, b: &'a Layer) -> Result<Block<'a>, String> {
    let (mut main, add) = path(network, a)?;
    let (mut shortcut, other) = path(network, b)?;
    if !core::ptr::eq(add, other) {
        return Err(other.misfit("expected the sum of both paths of a block"));
    }
    if main.len() < shortcut.len() {
        (main, shortcut) = (shortcut, main);
    }
    let projection = shortcut.pop();
    match (main.len(), shortcut.first()) {
        (2 | 3, None) => Ok(Block { main, projection, add }),
        (_, Some(unit)) => Err(unit.conv.misfit("expected at most one on a shortcut")),
        (n, None) => Err(add.misfit(&format!("{n} convolutions on a block's path, not 2 or 3"))),
    }
}

/// Convolutions from `start` to the sum, with ReLUs between them.
fn path<'a>(network: &'a Network, start: &'a Layer) -> Result<(Vec<Unit<'a>>, &'a Layer), String> {
    let mut units = Vec::new();
    let mut layer = start;
    while layer.class != "Add" {
        if !units.is_empty() {
            layer = network.next(relu(layer)?)?;
        }
        let (unit, after) = unit(network, layer)?;
        units.push(unit);
        layer = after;
    }
    Ok((units, layer))
}

/// The network that has these layers, still without its head; `x` is the last one.
fn architecture(
    name: String,
    stem: &[Unit<'_>],
    stem_pool: bool,
    blocks: &[Block<'_>],
    x: &Layer,
) -> Result<ResNetConfig, String> {
    let (Some(first), Some(block)) = (stem.first(), blocks.first()) else {
        return Err(x.misfit("expected the two paths of a residual block after it"));
    };
    let (mut widths, mut counts, mut strides) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks {
        match counts.last_mut() {
            Some(count) if block.projection.is_none() => *count += 1,
            _ => {
                widths.push(block.main[0].filters);
                counts.push(1);
                strides.push(block.main.iter().map(|u| u.stride).max().unwrap_or(1));
            }
        }
    }
    Ok(ResNetConfig {
        name,
        channels: 3,
        input_conv_filters: stem.iter().map(|u| u.filters).collect(),
        input_conv_kernel_sizes: stem.iter().map(|u| u.filter).collect(),
        stem_stride: first.stride,
        stem_pool,
        stackwise_num_filters: widths,
        stackwise_num_blocks: counts,
        stackwise_num_strides: strides,
        block_type: match block.main.len() {
            2 => BlockType::BasicBlock,
            _ => BlockType::BottleneckBlock,
        },
        use_pre_activation: false,
        pooling: Pooling::Avg,
        dropout: 0.0,
        classes: 1,
        padding: ConvPadding::Same,
        expansion: 4,
        bottleneck_stride: BottleneckStride::default(),
    })
}

/// Rows or columns that reach the pooling.
fn map_side(config: &ResNetConfig, side: u16) -> usize {
    let pool = if config.stem_pool { 2 } else { 1 };
    let strides = [config.stem_stride, pool].into_iter();
    let strides = strides.chain(config.stackwise_num_strides.iter().copied());
    strides.fold(side.into(), |side, stride| side.div_ceil(stride.max(1)))
}

/// The pooling over the whole `map`, and the layer that comes next.
fn pooling<'a>(
    network: &'a Network,
    pool: &'a Layer,
    map: [usize; 2],
) -> Result<(Pooling, &'a Layer), String> {
    let (pooling, is_global) = match pool.class.as_str() {
        "GlobalAveragePooling2D" => (Pooling::Avg, true),
        "GlobalMaxPooling2D" => (Pooling::Max, true),
        "AveragePooling2D" => (Pooling::Avg, false),
        "MaxPooling2D" => (Pooling::Max, false),
        _ => return Err(pool.misfit("expected a block's two paths, or pooling")),
    };
    if !is_global && pool.settings::<Pool>()?.pool_size != map {
        return Err(pool.misfit(&format!("expected one over the whole map, {map:?}")));
    }
    let mut next = network.next(pool)?;
    // One pixel is flat already, and dropout is for training.
    while matches!(next.class.as_str(), "Flatten" | "Dropout") {
        next = network.next(next)?;
    }
    Ok((pooling, next))
}

/// The head and its classes. Heads here compute logits: a softmax that follows is left away.
fn head<'a>(network: &'a Network, dense: &'a Layer) -> Result<(&'a Layer, usize), String> {
    #[derive(Deserialize)]
    struct Dense {
        units: usize,
        #[serde(default)]
        activation: Value,
    }
    if dense.class != "Dense" {
        return Err(dense.misfit("expected a Dense"));
    }
    let Dense { units, activation: own } = dense.settings()?;
    if !matches!(activation(&own), Some("linear" | "softmax")) {
        return Err(dense.misfit("expected softmax or no activation"));
    }
    let is_softmax = |layer: &Layer| -> Result<bool, String> {
        let settings: Value = layer.settings()?;
        let named = settings.get("activation").and_then(activation) == Some("softmax");
        Ok(layer.class == "Softmax" || layer.class == "Activation" && named)
    };
    match network.readers(dense)[..] {
        [] => Ok((dense, units)),
        [last] if is_softmax(last)? && network.readers(last).is_empty() => Ok((dense, units)),
        [other, ..] => Err(other.misfit("expected nothing but a softmax after the head")),
    }
}

/// Gives every convolution its canonical name, if it is what `config` has under it.
fn name_units<'a>(
    config: &ResNetConfig,
    stem: Vec<Unit<'a>>,
    blocks: Vec<Block<'a>>,
) -> Result<Vec<(String, Unit<'a>)>, String> {
    let mut units = Vec::new();
    let mut add = |spec: ConvSpec, unit: Unit<'a>| {
        let found = (unit.filters, unit.filter, unit.stride);
        let wanted = (spec.c_out, spec.filter, spec.stride);
        if found != wanted {
            let text = |(filters, k, stride)| format!("{filters} filters {k}×{k}, stride {stride}");
            let what = format!("{}, expected {} here", text(found), text(wanted));
            return Err(unit.conv.misfit(&what));
        }
        units.push((spec.name, unit));
        Ok(())
    };
    for (spec, unit) in config.stem().into_iter().zip(stem) {
        add(spec, unit)?;
    }
    for (spec, block) in config.blocks().into_iter().zip(blocks) {
        if spec.convs.len() != block.main.len() {
            return Err(block.add.misfit("its block has another length than the first one"));
        }
        for (spec, unit) in spec.convs.into_iter().zip(block.main) {
            add(spec, unit)?;
        }
        match (spec.projection, block.projection) {
            (Some(spec), Some(unit)) => add(spec, unit)?,
            (None, None) => {}
            (Some(_), None) => {
                return Err(block.add.misfit("expected a 1×1 convolution on the shortcut"));
            }
            (None, Some(unit)) => {
                return Err(unit.conv.misfit("expected a shortcut without convolution"));
            }
        }
    }
    Ok(units)
}
