//! Convolutions, dense layers and pools.

use super::layers::Layer;
use super::writer::{Computed, Writer};
use artifact::text::AsPlain;
use formats::Array;
use formats::onnx as proto;
use proto::Attribute;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Window {
    #[serde(alias = "pool_size")]
    kernel_size: [i64; 2],
    strides: Option<[i64; 2]>,
    padding: String,
}

impl Writer<'_> {
    pub(super) fn conv(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        #[derive(Deserialize)]
        struct Settings {
            #[serde(default = "one")]
            dilation_rate: [i64; 2],
            #[serde(default = "single")]
            groups: i64,
        }
        fn one() -> [i64; 2] {
            [1; 2]
        }
        fn single() -> i64 {
            1
        }
        let Settings { dilation_rate, groups } = layer.settings()?;
        if groups != 1 {
            return Err(layer.misfit(&format!("{groups} groups, but only one is read")));
        }
        if dilation_rate != [1; 2] {
            return Err(layer.misfit("dilated, which is not read"));
        }
        let (kernel, bias) = self.weights(layer)?;
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
        let dims = [outputs, inputs, rows, columns];
        let parameters = self.parameters(&dims, &weights, bias);
        let y = self.node(layer, "Conv", x, &parameters, window(layer, false)?);
        self.activate(layer, Computed { is_map: true, ..y })
    }

    pub(super) fn dense(&mut self, layer: &Layer, x: Computed) -> Result<Computed, String> {
        let (kernel, bias) = self.weights(layer)?;
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
        let parameters = self.parameters(&dims, &weights, bias);
        let y = self.node(layer, operator, x, &parameters, attributes);
        self.activate(layer, y)
    }

    /// Kernel and bias of a layer.
    fn weights(&self, layer: &Layer) -> Result<(Array, Option<Array>), String> {
        if layer.setting("use_bias").as_bool() == Some(false) {
            let [kernel] = self.arrays.of(layer, ["kernel"])?;
            return Ok((kernel.clone(), None));
        }
        let [kernel, bias] = self.arrays.of(layer, ["kernel", "bias"])?;
        Ok((kernel.clone(), Some(bias.clone())))
    }

    /// Weights in ONNX' layout, and a bias for each of their outputs.
    fn parameters(&mut self, dims: &[usize], weights: &[f32], bias: Option<Array>) -> Vec<String> {
        let mut names = vec![self.floats("kernel", dims, weights)];
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
