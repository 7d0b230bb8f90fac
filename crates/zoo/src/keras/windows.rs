//! Convolutions, dense layers and pools.

use super::layers::Layer;
use super::writer::{Computed, Writer};
use artifact::text::AsPlain;
use formats::Array;
use formats::onnx as proto;
use proto::Attribute;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Window {
    #[serde(alias = "pool_size")]
    kernel_size: [i64; 2],
    strides: Option<[i64; 2]>,
    padding: String,
}

/// Kernel, bias and parts of a convolution whose channels do not see each other.
struct Kernel<'a> {
    /// Rows, columns, inputs of one part, outputs.
    array: Cow<'a, Array>,
    bias: Option<&'a Array>,
    groups: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn conv(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let groups = layer.setting("groups").as_u64().unwrap_or(1) as usize;
        let (kernel, bias) = self.weights(layer, &["kernel"])?;
        let kernel = Kernel { array: Cow::Borrowed(kernel), bias, groups };
        let y = self.slid(layer, x, &kernel, "", window(layer, false)?)?;
        self.activate(layer, y)
    }

    /// A convolution of each channel by itself.
    pub(super) fn depthwise(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        // Before Keras 3, the array had its own name.
        let (kernel, bias) = self.weights(layer, &["kernel", "depthwise_kernel"])?;
        let kernel = by_channel(layer, kernel, bias)?;
        let y = self.slid(layer, x, &kernel, "", window(layer, false)?)?;
        self.activate(layer, y)
    }

    /// One of each channel by itself, and then one of each pixel.
    pub(super) fn separable(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let variables = ["depthwise_kernel", "pointwise_kernel", "bias"];
        let has_bias = layer.setting("use_bias").as_bool() != Some(false);
        let arrays = self.arrays.all(layer, &variables[..2 + usize::from(has_bias)])?;
        let kernel = by_channel(layer, arrays[0], None)?;
        let y = self.slid(layer, x, &kernel, " depthwise", window(layer, false)?)?;
        let array = Cow::Borrowed(arrays[1]);
        let kernel = Kernel { array, bias: arrays.get(2).copied(), groups: 1 };
        let y = self.slid(layer, y, &kernel, "", Vec::new())?;
        self.activate(layer, y)
    }

    /// A convolution; `part` tells it from others of its layer.
    fn slid(
        &mut self,
        layer: &Layer,
        x: Computed,
        kernel: &Kernel<'_>,
        part: &str,
        mut attributes: Vec<Attribute>,
    ) -> Result<Computed, String> {
        // One number is that of rows and columns.
        let rate = layer.setting("dilation_rate");
        let rates = rate.as_array().map_or(core::slice::from_ref(rate), Vec::as_slice);
        let rate = |i: usize| rates.get(i).or(rates.first()).and_then(Value::as_i64).unwrap_or(1);
        if [rate(0), rate(1)] != [1; 2] {
            attributes.push(Attribute::ints("dilations", &[rate(0), rate(1)]));
        }
        let Kernel { array, bias, groups } = kernel;
        let [rows, columns, inputs, outputs] = array.shape[..] else {
            return Err(layer.misfit(&format!("a kernel of shape {:?}", array.shape)));
        };
        // HWIO to OIHW; of a network that wants blue first, the first layer's inputs are turned.
        let turned = self.family.is_some_and(|f| f.takes_bgr() && f.first_layer(layer));
        let mut weights = Vec::with_capacity(array.values.len());
        for o in 0..outputs {
            for i in 0..inputs {
                let i = if turned { inputs - 1 - i } else { i };
                for tap in 0..rows * columns {
                    weights.push(array.values[(tap * inputs + i) * outputs + o]);
                }
            }
        }
        let dims = [outputs, inputs, rows, columns];
        if *groups != 1 {
            attributes.push(Attribute::int("group", *groups as i64));
        }
        let parameters = self.parameters(part, &dims, &weights, *bias);
        let output = format!("{}{part}", self.name());
        let operands = [&x.name].into_iter().chain(&parameters).map(String::as_str);
        self.push("Conv", layer, &operands.collect::<Vec<_>>(), &output, attributes);
        Ok(Computed { name: output, is_map: true, is_picture: false })
    }

    pub(super) fn dense(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let (kernel, bias) = self.weights(layer, &["kernel"])?;
        let [inputs, outputs] = kernel.shape[..] else {
            return Err(layer.misfit(&format!("a kernel of shape {:?}", kernel.shape)));
        };
        let columns = |o: usize| kernel.values.iter().skip(o).step_by(outputs.max(1)).copied();
        let weights: Vec<f32> = (0..outputs).flat_map(columns).collect();
        // Of each pixel, where it reads a map.
        let (operator, dims, attributes) = match x.is_map {
            true => ("Conv", vec![outputs, inputs, 1, 1], Vec::new()),
            false => ("Gemm", vec![outputs, inputs], vec![Attribute::int("transB", 1)]),
        };
        let parameters = self.parameters("", &dims, &weights, bias);
        let y = self.node(layer, operator, x, &parameters, attributes);
        self.activate(layer, y)
    }

    /// Kernel, by one of its names, and bias of a layer.
    fn weights(
        &self,
        layer: &Layer,
        kernels: &[&str],
    ) -> Result<(&'a Array, Option<&'a Array>), String> {
        let has_bias = layer.setting("use_bias").as_bool() != Some(false);
        let all =
            |kernel: &&str| self.arrays.all(layer, &[kernel, "bias"][..1 + usize::from(has_bias)]);
        let mut found = kernels.iter().map(all);
        let first = found.next().unwrap_or_else(|| Ok(Vec::new()));
        match found.fold(first, Result::or)?.as_slice() {
            [kernel, bias @ ..] => Ok((kernel, bias.first().copied())),
            [] => Err(layer.misfit("has no kernel")),
        }
    }

    /// Weights in ONNX' layout, and a bias for each of their outputs.
    fn parameters(
        &mut self,
        part: &str,
        dims: &[usize],
        weights: &[f32],
        bias: Option<&Array>,
    ) -> Vec<String> {
        let mut names = vec![self.floats(&format!("kernel{part}"), dims, weights)];
        names.extend(bias.map(|bias| self.floats("bias", &dims[..1], &bias.values)));
        names
    }

    pub(super) fn pad(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let [[top, bottom], [left, right]] = border(layer)?;
        let pads = self.ints("pads", &[0, 0, top, left, 0, 0, bottom, right]);
        Ok(self.node(layer, "Pad", x, &[pads], Vec::new()))
    }

    pub(super) fn pool(
        &mut self,
        layer: &Layer,
        operator: &str,
        x: Computed,
    ) -> Result<Computed, String> {
        Ok(self.node(layer, operator, x, &[], window(layer, true)?))
    }

    /// A pool of the whole map.
    pub(super) fn reduce(
        &mut self,
        layer: &Layer,
        operator: &str,
        x: Computed,
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
        Ok(Computed { is_map: keeps, ..self.node(layer, operator, x, &[], attributes) })
    }
}

/// A kernel of each channel by itself: rows, columns, channels, outputs of each.
fn by_channel<'a>(
    layer: &Layer,
    kernel: &Array,
    bias: Option<&'a Array>,
) -> Result<Kernel<'a>, String> {
    let [rows, columns, groups, each] = kernel.shape[..] else {
        return Err(layer.misfit(&format!("a kernel of shape {:?}", kernel.shape)));
    };
    let shape = vec![rows, columns, 1, groups * each];
    let array = Cow::Owned(Array { shape, values: kernel.values.clone() });
    Ok(Kernel { array, bias, groups })
}

/// The pixels that a `ZeroPadding2D` adds: `[[top, bottom], [left, right]]`.
pub(super) fn border(layer: &Layer) -> Result<[[i64; 2]; 2], String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        All(i64),
        Axes([i64; 2]),
        Sides([[i64; 2]; 2]),
    }
    #[derive(Deserialize)]
    struct Padding {
        padding: Form,
    }
    Ok(match layer.settings::<Padding>()?.padding {
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
