//! A topology without weights: what an architecture's config says, layer by layer.
//!
//! A family makes it, and all else follows from it: names and shapes of tensors, the [`Graph`], the
//! modules that are trained, where a training step may be cut, the maps of a pyramid, and the naming
//! tables of other packages. A [`Graph`] has one node for each layer, with the same name and number.

use crate::activation::Activation;
use crate::graph::{Conv, Graph, GraphError, NodeOp};
use crate::padding::ConvPadding;
use artifact::{Padding, PoolKind, Shape};
use serde::{Deserialize, Serialize};

/// Batch-norm ε of every layer.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// The layer of the scores.
pub const HEAD: &str = "predictions";

/// Index of a layer; layer 0 is the input.
pub type LayerId = usize;

/// Layers in execution order.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// Name of the architecture.
    pub name: String,
    /// Layer 0 is the input, the last one makes the scores of its pooled features.
    pub layers: Vec<Layer>,
    /// Values through which everything passes: all that comes later depends on no earlier one.
    /// The first is the stem's, then each block's.
    pub cuts: Vec<LayerId>,
    /// Values of the last block at each size, or of the stem where there is no block: KerasHub's pyramid,
    /// P1, P2, … of a stem that strides once, else P2, P3, …
    pub stages: Vec<LayerId>,
}

/// One layer and the value that it makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name, such as `stack0_block0_1_conv`; its tensors are `<name>.<part>`.
    pub name: String,
    /// What it computes.
    pub op: LayerOp,
    /// What it reads; each is smaller than the layer's own index.
    pub inputs: Vec<LayerId>,
    /// Channels of its value.
    pub channels: usize,
}

/// What a [`Layer`] computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerOp {
    /// The normalized picture.
    Input,
    /// Convolution without bias; part `weight`, `[c_out, filter, filter, c_in / groups]`.
    Conv(ConvSpec),
    /// Normalization per channel, with ε = [`BATCH_NORM_EPSILON`]; parts `gamma`, `beta`, `mean`,
    /// `variance`, each `[channels]`.
    BatchNorm,
    /// A function of each number.
    Activation(Activation),
    /// Sum of two values.
    Add,
    /// Product of a map and a pooled value of as many channels.
    Gate,
    /// Largest or mean of the pixels of a window that there are.
    Pool {
        /// Which.
        kind: PoolKind,
        /// The window.
        window: WindowSpec,
    },
    /// One number for each channel.
    GlobalPool(Pooling),
    /// `x · weightᵀ + bias`; parts `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`.
    Dense {
        /// Features.
        inputs: usize,
        /// Numbers computed of them.
        outputs: usize,
    },
}

/// A square window that slides over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpec {
    /// Rows and columns.
    pub filter: usize,
    /// Pixels from one to the next.
    pub stride: usize,
    /// Pixels outside.
    pub padding: ConvPadding,
}

/// A convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Its filter.
    pub window: WindowSpec,
    /// Parts of the channels that do not see each other; as many as channels where each is by itself.
    pub groups: usize,
}

/// Pooling before the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the map.
    Avg,
    /// Largest value of the map.
    Max,
}

impl Layer {
    /// Parts of the layer's tensors, with their shapes.
    pub fn parts(&self) -> Vec<(&'static str, Vec<usize>)> {
        match self.op {
            LayerOp::Conv(ConvSpec { c_in, c_out, window, groups }) => {
                vec![("weight", vec![c_out, window.filter, window.filter, c_in / groups])]
            }
            LayerOp::BatchNorm => {
                ["gamma", "beta", "mean", "variance"].map(|p| (p, vec![self.channels])).into()
            }
            LayerOp::Dense { inputs, outputs } => {
                vec![("weight", vec![outputs, inputs]), ("bias", vec![outputs])]
            }
            LayerOp::Input
            | LayerOp::Activation(_)
            | LayerOp::Add
            | LayerOp::Gate
            | LayerOp::Pool { .. }
            | LayerOp::GlobalPool(_) => Vec::new(),
        }
    }
}

impl Blueprint {
    /// The input's layer.
    pub const INPUT: LayerId = 0;

    /// Of nothing but an input.
    pub fn new(name: &str, channels: usize) -> Self {
        let input =
            Layer { name: "input".into(), op: LayerOp::Input, inputs: Vec::new(), channels };
        Self { name: name.into(), layers: vec![input], cuts: Vec::new(), stages: Vec::new() }
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        op: LayerOp,
        inputs: &[LayerId],
        channels: usize,
    ) -> LayerId {
        let inputs = inputs.to_vec();
        self.layers.push(Layer { name: name.into(), op, inputs, channels });
        self.layers.len() - 1
    }

    /// Appends a convolution to `c_out` channels.
    pub fn conv(
        &mut self,
        name: impl Into<String>,
        x: LayerId,
        c_out: usize,
        window: WindowSpec,
    ) -> LayerId {
        let conv = ConvSpec { c_in: self.layers[x].channels, c_out, window, groups: 1 };
        self.push(name, LayerOp::Conv(conv), &[x], c_out)
    }

    /// Appends a convolution of each channel by itself.
    pub fn depthwise(
        &mut self,
        name: impl Into<String>,
        x: LayerId,
        window: WindowSpec,
    ) -> LayerId {
        let channels = self.layers[x].channels;
        let conv = ConvSpec { c_in: channels, c_out: channels, window, groups: channels };
        self.per_channel(name, LayerOp::Conv(conv), x)
    }

    /// Appends what leaves channels as they are.
    pub fn per_channel(&mut self, name: impl Into<String>, op: LayerOp, x: LayerId) -> LayerId {
        self.push(name, op, &[x], self.layers[x].channels)
    }

    /// Appends a batch-norm.
    pub fn batch_norm(&mut self, name: impl Into<String>, x: LayerId) -> LayerId {
        self.per_channel(name, LayerOp::BatchNorm, x)
    }

    /// Appends a function of each number.
    pub fn activation(
        &mut self,
        name: impl Into<String>,
        x: LayerId,
        activation: Activation,
    ) -> LayerId {
        self.per_channel(name, LayerOp::Activation(activation), x)
    }

    /// Appends `max(x, 0)`.
    pub fn relu(&mut self, name: impl Into<String>, x: LayerId) -> LayerId {
        self.activation(name, x, Activation::RELU)
    }

    /// Appends a pool.
    pub fn pool(
        &mut self,
        name: impl Into<String>,
        x: LayerId,
        kind: PoolKind,
        window: WindowSpec,
    ) -> LayerId {
        self.per_channel(name, LayerOp::Pool { kind, window }, x)
    }

    /// Appends a sum.
    pub fn add(&mut self, name: impl Into<String>, a: LayerId, b: LayerId) -> LayerId {
        self.push(name, LayerOp::Add, &[a, b], self.layers[a].channels)
    }

    /// Appends the product of a map and of a factor for each of its channels.
    pub fn gate(&mut self, name: impl Into<String>, map: LayerId, factors: LayerId) -> LayerId {
        self.push(name, LayerOp::Gate, &[map, factors], self.layers[map].channels)
    }

    /// Appends a dense layer, on a pooled value.
    pub fn dense(&mut self, name: impl Into<String>, x: LayerId, outputs: usize) -> LayerId {
        let inputs = self.layers[x].channels;
        self.push(name, LayerOp::Dense { inputs, outputs }, &[x], outputs)
    }

    /// The layer of a name.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    /// The convolutions in execution order.
    pub fn convs(&self) -> impl Iterator<Item = (&Layer, ConvSpec)> {
        self.layers.iter().filter_map(|layer| match layer.op {
            LayerOp::Conv(conv) => Some((layer, conv)),
            _ => None,
        })
    }

    /// Numbers that the layer of the scores reads.
    pub fn features(&self) -> usize {
        match self.layers.last().map(|layer| layer.op) {
            Some(LayerOp::Dense { inputs, .. }) => inputs,
            _ => 0,
        }
    }

    /// Names and shapes of all tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.layers.iter().flat_map(|layer| {
            layer.parts().into_iter().map(|(part, shape)| (format!("{}.{part}", layer.name), shape))
        })
    }

    /// How many layers read each value.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.layers.len()];
        self.layers.iter().flat_map(|layer| &layer.inputs).for_each(|&x| uses[x] += 1);
        uses
    }

    /// The layer that alone reads a value; `None` where there are several.
    pub fn reader(&self, x: LayerId) -> Option<LayerId> {
        let mut readers = (0..self.layers.len()).filter(|&y| self.layers[y].inputs.contains(&x));
        readers.next().filter(|_| readers.next().is_none())
    }

    /// The network for pictures of `input`'s size, nothing folded or fused, with the numbers that
    /// `tensor` has for each name: as many as it is asked for.
    ///
    /// # Errors
    /// Those of `tensor`, and an input too small for the network.
    pub fn graph(
        &self,
        input: Shape,
        mut tensor: impl FnMut(String, usize) -> Result<Vec<f32>, GraphError>,
    ) -> Result<Graph, GraphError> {
        let mut graph = Graph::new(&self.name, input);
        for layer in &self.layers[1..] {
            let parts = layer.parts();
            let mut part = |part: &str| {
                let shape = parts.iter().find(|(name, _)| *name == part).map(|(_, shape)| shape);
                tensor(format!("{}.{part}", layer.name), shape.map_or(0, |s| s.iter().product()))
            };
            let map = graph.nodes[layer.inputs[0]].shape;
            let op = match layer.op {
                LayerOp::Input => continue,
                LayerOp::Conv(ConvSpec { c_out, window, groups, .. }) => {
                    let (filter, stride, padding) = window.over(map);
                    let plain = Conv::new(part("weight")?, vec![0.0; c_out], filter);
                    NodeOp::Conv2d(Conv { stride, padding, groups: groups as u16, ..plain })
                }
                LayerOp::BatchNorm => NodeOp::BatchNorm {
                    gamma: part("gamma")?,
                    beta: part("beta")?,
                    mean: part("mean")?,
                    variance: part("variance")?,
                    epsilon: BATCH_NORM_EPSILON as f32,
                },
                LayerOp::Activation(activation) => NodeOp::Activation(activation),
                LayerOp::Add => NodeOp::Add,
                LayerOp::Gate => NodeOp::Gate { activation: Activation::None },
                LayerOp::Pool { kind, window } => {
                    let (filter, stride, padding) = window.over(map);
                    NodeOp::Pool2d { kind, filter, stride, padding }
                }
                LayerOp::GlobalPool(pooling) => NodeOp::Pool2d {
                    kind: match pooling {
                        Pooling::Avg => PoolKind::Average,
                        Pooling::Max => PoolKind::Max,
                    },
                    filter: [map.h, map.w],
                    stride: [1; 2],
                    padding: Padding::default(),
                },
                LayerOp::Dense { .. } => {
                    NodeOp::Conv2d(Conv::new(part("weight")?, part("bias")?, [1; 2]))
                }
            };
            graph.push(&layer.name, op, &layer.inputs)?;
        }
        Ok(graph)
    }
}

impl WindowSpec {
    /// Filter, stride and padding of the window on a map; those of a checked config fit.
    fn over(self, map: Shape) -> ([u16; 2], [u16; 2], Padding) {
        let Self { filter, stride, padding } = self;
        let sides = |size: u16| padding.sides(size.into(), filter, stride);
        let ((top, bottom), (left, right)) = (sides(map.h), sides(map.w));
        let padding =
            Padding { top: top as u8, left: left as u8, bottom: bottom as u8, right: right as u8 };
        ([filter as u16; 2], [stride as u16; 2], padding)
    }
}

#[cfg(test)]
mod tests {
    use crate::architecture::Architecture;

    #[test]
    fn everything_passes_through_the_cuts() {
        for name in Architecture::names() {
            let blueprint = Architecture::named(name, 7).unwrap().blueprint();
            assert!(!blueprint.cuts.is_empty() && blueprint.cuts.is_sorted(), "{name}");
            for &cut in &blueprint.cuts {
                let later = blueprint.layers.iter().enumerate().skip(cut + 1);
                for (id, layer) in later {
                    assert!(layer.inputs.iter().all(|&x| x >= cut), "{name}: {id} behind {cut}");
                }
            }
            assert!(blueprint.stages.iter().all(|stage| blueprint.cuts.contains(stage)), "{name}");
        }
    }
}
