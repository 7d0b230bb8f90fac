//! The graph of ONNX, node by node.

use super::applications::Family;
use super::arrays::Arrays;
use super::layers::{Layer, Network};
use artifact::Preprocess;
use formats::onnx as proto;
use proto::Attribute;

/// What a layer computes.
#[derive(Debug, Clone)]
pub(super) struct Computed {
    pub(super) name: String,
    /// Whether it is a map; else a row.
    pub(super) is_map: bool,
    /// Whether it still is the picture, perhaps scaled.
    pub(super) is_picture: bool,
}

/// Writes the graph of ONNX.
pub(super) struct Writer<'a> {
    pub(super) network: &'a Network,
    pub(super) arrays: &'a Arrays,
    /// The network of Keras Applications that takes the picture as it comes.
    pub(super) family: Option<Family>,
    /// How many layers read each.
    pub(super) readers: Vec<usize>,
    pub(super) graph: proto::Graph,
    /// Of each layer before the current one.
    pub(super) values: Vec<Computed>,
    /// Height and width of the input.
    pub(super) sides: [Option<u16>; 2],
    /// How a layer makes pictures have the input's size.
    pub(super) resized: Option<Preprocess>,
    /// Numbers of constants.
    pub(super) written: usize,
}

impl Writer<'_> {
    /// The name of what the next layer computes.
    pub(super) fn name(&self) -> String {
        format!("value {}", self.values.len())
    }

    /// One node that computes the layer, of `x` and of constants.
    pub(super) fn node(
        &mut self,
        layer: &Layer,
        operator: &str,
        x: Computed,
        constants: &[String],
        attributes: Vec<Attribute>,
    ) -> Computed {
        let name = self.name();
        let inputs = [&x.name].into_iter().chain(constants).map(String::as_str);
        self.push(operator, layer, &inputs.collect::<Vec<_>>(), &name, attributes);
        Computed { name, is_picture: false, ..x }
    }

    pub(super) fn push(
        &mut self,
        op_type: &str,
        layer: &Layer,
        inputs: &[&str],
        output: &str,
        attribute: Vec<Attribute>,
    ) {
        let path: Vec<&str> = layer.place.iter().map(|s| s.name.as_str()).collect();
        let name = path.join("/");
        let node = proto::Node::new(op_type, inputs, output);
        self.graph.node.push(proto::Node { name, attribute, ..node });
    }

    fn constant(&mut self, name: String, dims: &[usize], data_type: i32, raw: Vec<u8>) -> String {
        self.written += dims.iter().product::<usize>();
        let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        self.graph.initializer.push(proto::Tensor::raw(&name, &dims, data_type, raw));
        name
    }

    /// A constant of the next layer, under a name that says which `part` of it.
    pub(super) fn floats(&mut self, part: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(format!("{} {part}", self.name()), dims, proto::FLOAT, raw)
    }

    /// The same of integers.
    pub(super) fn ints(&mut self, part: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(format!("{} {part}", self.name()), &[values.len()], proto::INT64, raw)
    }

    /// A number for all channels of `x`, or one for each.
    pub(super) fn per_channel(&mut self, i: usize, x: &Computed, values: &[f32]) -> String {
        let dims = if x.is_map { vec![values.len(), 1, 1] } else { vec![values.len()] };
        self.floats(&format!("constant {i}"), &dims, values)
    }
}
