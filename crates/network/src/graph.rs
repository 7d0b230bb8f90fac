//! The float model on the host: a short list of named nodes in execution order.
//!
//! Everything before the device file works on this one type: a checkpoint becomes a
//! [`Graph`], which is optimized, measured by quantization and lowered by the planner.
//! [`evaluate`](crate::evaluate) says what a graph means; every faster implementation is tested against it.

use crate::activation::Activation;
use artifact::layout::padding_fits;
use artifact::{Padding, PoolKind, Quant, Shape, output_len};
use core::ops::Range;

/// Index of the node that produces a value; node 0 is the input.
pub type ValueId = usize;

/// A float model.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Architecture or file name.
    pub name: String,
    /// Nodes in topological order; node 0 is the input, the last one computes the logits.
    pub nodes: Vec<Node>,
}

/// One operation and the value it produces.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Layer name, for people and for error messages.
    pub name: String,
    /// What is computed.
    pub op: NodeOp,
    /// Operands; each is smaller than the node's own index.
    pub inputs: Vec<ValueId>,
    /// Shape of the value produced.
    pub shape: Shape,
    /// How int8 stores the value, where a quantized source has decided that.
    pub quant: Option<Quant>,
}

/// What a [`Node`] computes.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeOp {
    /// The normalized picture, NHWC; only node 0.
    Input,
    /// Convolution or dense layer: `inputs[0]` is x, `inputs[1]` the residual if there is one.
    Conv2d(Conv),
    /// Batch-norm with fixed statistics, `(x − mean) / √(variance + epsilon) · gamma + beta`.
    BatchNorm {
        /// Factor per channel.
        gamma: Vec<f32>,
        /// Addend per channel.
        beta: Vec<f32>,
        /// Mean per channel.
        mean: Vec<f32>,
        /// Variance per channel, not negative.
        variance: Vec<f32>,
        /// Added to the variance; positive.
        epsilon: f32,
    },
    /// A batch-norm that could not be folded, `x · factor + addend` per channel.
    Affine {
        /// Factor per channel.
        factor: Vec<f32>,
        /// Addend per channel.
        addend: Vec<f32>,
        /// Of each number, afterwards.
        activation: Activation,
    },
    /// A function of each number.
    Activation(Activation),
    /// Sum of two values of the same shape.
    Add,
    /// `x · s` per channel: `inputs[0]` is x, `inputs[1]` is s, one pixel of as many channels.
    Gate {
        /// Of each number, afterwards.
        activation: Activation,
    },
    /// The same value; its reader has another number format than what computes it.
    Cast,
    /// Pooling; taps outside the map are skipped, so an average is over real pixels only.
    /// A global pool has the filter of the whole map.
    Pool2d {
        /// Maximum or mean.
        kind: PoolKind,
        /// Window rows and columns.
        filter: [u16; 2],
        /// Vertical and horizontal stride.
        stride: [u16; 2],
        /// Padding.
        padding: Padding,
    },
}

/// A convolution, `activation(x ∗ weights + bias + residual)`; a dense layer is a 1×1 convolution of a
/// 1×1 map. Its output channels are as many as its biases.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// Weights, OHWI, where I counts the channels of a group.
    pub weights: Vec<f32>,
    /// Bias per output channel, zeros where the layer has none.
    pub bias: Vec<f32>,
    /// Filter rows and columns.
    pub filter: [u16; 2],
    /// Vertical and horizontal stride.
    pub stride: [u16; 2],
    /// Padding with zeros.
    pub padding: Padding,
    /// Parts of the channels that do not see each other: input and output channels of a part are those
    /// of the same number, counted by parts.
    pub groups: u16,
    /// Of each sum, at the end.
    pub activation: Activation,
    /// Add a second input before the activation.
    pub residual: bool,
    /// What a quantized source rounds the convolution to before it adds the second input.
    pub sum_quant: Option<Quant>,
    /// Of each output channel, the size of a step of its weights, where a quantized source has
    /// decided that, and zero where int8 has no such steps here; else empty.
    pub weight_scales: Vec<f32>,
}

impl Conv {
    /// Of one group and stride 1, without padding, residual or activation.
    pub fn new(weights: Vec<f32>, bias: Vec<f32>, filter: [u16; 2]) -> Self {
        Self {
            weights,
            bias,
            filter,
            stride: [1; 2],
            padding: Padding::default(),
            groups: 1,
            activation: Activation::None,
            residual: false,
            sum_quant: None,
            weight_scales: Vec::new(),
        }
    }

    /// Output channels.
    pub fn c_out(&self) -> usize {
        self.bias.len()
    }

    /// Weights of one output channel.
    pub fn row_len(&self) -> usize {
        self.weights.len() / self.c_out().max(1)
    }

    /// Channels of the input that an output channel sees.
    pub fn inputs_of(&self, output: usize) -> Range<usize> {
        let inputs = self.row_len() / taps(self.filter).max(1);
        let outputs = (self.c_out() / usize::from(self.groups)).max(1);
        let first = output / outputs * inputs;
        first..first + inputs
    }
}

/// Why nodes do not form a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The checkpoint contradicts itself.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// A node reads a value that does not exist before it.
    #[error("node `{node}` reads value {input}, which no earlier node produces")]
    UnknownInput {
        /// Node name.
        node: String,
        /// The operand.
        input: ValueId,
    },
    /// Operands, weights or sizes do not fit together.
    #[error("node `{node}`: {what}")]
    Mismatch {
        /// Node name.
        node: String,
        /// What was found and what was wanted.
        what: String,
    },
}

impl Node {
    /// Multiply-accumulates of one picture: those of convolutions, one per element of a
    /// per-channel operation; pools, sums and clamps count nothing.
    pub fn macs(&self) -> u64 {
        match &self.op {
            NodeOp::Conv2d(conv) => (self.shape.pixels() * conv.weights.len()) as u64,
            NodeOp::BatchNorm { .. } | NodeOp::Affine { .. } | NodeOp::Gate { .. } => {
                self.shape.len() as u64
            }
            _ => 0,
        }
    }
}

impl NodeOp {
    /// Name of the operation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Conv2d(conv) if conv.groups > 1 => "grouped_conv2d",
            Self::Conv2d(_) => "conv2d",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Affine { .. } => "affine",
            Self::Activation(activation) => activation.name(),
            Self::Add => "add",
            Self::Gate { .. } => "gate",
            Self::Cast => "cast",
            Self::Pool2d { kind: PoolKind::Max, .. } => "max_pool2d",
            Self::Pool2d { kind: PoolKind::Average, .. } => "avg_pool2d",
        }
    }

    /// See [`Graph::parameters`].
    fn parameters(&self) -> usize {
        match self {
            Self::Conv2d(conv) => conv.weights.len() + conv.bias.len(),
            Self::BatchNorm { gamma, .. } => 4 * gamma.len(),
            Self::Affine { factor, .. } => 2 * factor.len(),
            _ => 0,
        }
    }

    /// The function of its results that is a part of it.
    pub const fn activation_mut(&mut self) -> Option<&mut Activation> {
        match self {
            Self::Conv2d(Conv { activation, .. })
            | Self::Affine { activation, .. }
            | Self::Gate { activation } => Some(activation),
            _ => None,
        }
    }

    /// The function of its results that it ends by, or that it is.
    pub const fn activation(&self) -> Option<Activation> {
        match self {
            Self::Conv2d(Conv { activation, .. })
            | Self::Affine { activation, .. }
            | Self::Gate { activation }
            | Self::Activation(activation) => Some(*activation),
            _ => None,
        }
    }

    const fn arity(&self) -> usize {
        match self {
            Self::Input => 0,
            Self::Conv2d(conv) => 1 + conv.residual as usize,
            Self::Add | Self::Gate { .. } => 2,
            _ => 1,
        }
    }

    /// Shape of the result on operands of these shapes, or what is wrong with them.
    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs.len() != self.arity() {
            return Err(format!("{} operands, expected {}", inputs.len(), self.arity()));
        }
        let per_channel = |x: Shape, parts: &[&Vec<f32>]| match parts
            .iter()
            .find(|p| p.len() != usize::from(x.c))
        {
            Some(p) => Err(format!("{} parameters for {} channels", p.len(), x.c)),
            None => Ok(x),
        };
        match (self, inputs) {
            (Self::Conv2d(conv), [x, rest @ ..]) => {
                let map = window_map(*x, conv.filter, conv.stride, conv.padding)?;
                let c = u16::try_from(conv.bias.len()).ok().filter(|c| *c > 0);
                let c = c.ok_or_else(|| {
                    format!("{} output channels, expected 1..=65535", conv.bias.len())
                })?;
                let groups = conv.groups;
                if groups == 0 || x.c % groups != 0 || c % groups != 0 {
                    return Err(format!("{groups} groups of {} and {c} channels", x.c));
                }
                let inputs = usize::from(x.c / groups);
                let expected = conv.bias.len() * taps(conv.filter) * inputs;
                if conv.weights.len() != expected {
                    return Err(format!("{} weights, expected {expected}", conv.weights.len()));
                }
                let shape = Shape { c, ..map };
                match rest {
                    [r] if *r != shape => Err(format!("residual {r:?} on an output {shape:?}")),
                    _ => Ok(shape),
                }
            }
            (Self::BatchNorm { gamma, beta, mean, variance, epsilon }, [x]) => {
                if variance.iter().any(|v| v.is_nan() || v + epsilon <= 0.0) {
                    return Err("a variance is negative".into());
                }
                per_channel(*x, &[gamma, beta, mean, variance])
            }
            (Self::Affine { factor, addend, .. }, [x]) => per_channel(*x, &[factor, addend]),
            (Self::Activation(_) | Self::Cast, [x]) => Ok(*x),
            (Self::Add, [a, b]) if a == b => Ok(*a),
            (Self::Add, [a, b]) => Err(format!("adds {a:?} and {b:?}")),
            (Self::Gate { .. }, [x, s]) if *s == (Shape { h: 1, w: 1, ..*x }) => Ok(*x),
            (Self::Gate { .. }, [x, s]) => Err(format!("multiplies {x:?} by {s:?}")),
            (Self::Pool2d { filter, stride, padding, .. }, [x]) => {
                window_map(*x, *filter, *stride, *padding)
            }
            _ => Err("only the first node is an input".into()),
        }
    }
}

/// Numbers whose last dimension counts three colors, in the opposite order.
pub fn reverse_rgb(numbers: &mut [f32], colors: usize) -> Result<(), String> {
    if colors != 3 {
        return Err(format!("its input has {colors} channels; colors are three"));
    }
    numbers.chunks_exact_mut(3).for_each(<[f32]>::reverse);
    Ok(())
}

/// Pixels of a filter.
fn taps(filter: [u16; 2]) -> usize {
    usize::from(filter[0]) * usize::from(filter[1])
}

/// Shape of sliding a window over `x`, with the channels of `x`.
fn window_map(
    x: Shape,
    filter: [u16; 2],
    stride: [u16; 2],
    padding: Padding,
) -> Result<Shape, String> {
    let Padding { top, left, bottom, right } = padding;
    // Every window then covers at least one real pixel.
    if !padding_fits(padding, filter[0], filter[1]) {
        return Err(format!("padding {padding:?} is not smaller than the filter {filter:?}"));
    }
    match (
        output_len(x.h, top, bottom, filter[0], stride[0]),
        output_len(x.w, left, right, filter[1], stride[1]),
    ) {
        (Some(h), Some(w)) => Ok(Shape { h, w, c: x.c }),
        _ => Err(format!(
            "filter {filter:?} with stride {stride:?} does not fit a map of {}×{}; \
             use a larger input",
            x.h, x.w
        )),
    }
}

impl Graph {
    /// A graph of nothing but its input.
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        let node = Node {
            name: "input".into(),
            op: NodeOp::Input,
            inputs: Vec::new(),
            shape: input,
            quant: None,
        };
        Self { name: name.into(), nodes: vec![node] }
    }

    /// Appends a node and computes its shape.
    ///
    /// # Errors
    /// Operands that do not exist, or shapes and parameters that do not fit together.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        op: NodeOp,
        inputs: &[ValueId],
    ) -> Result<ValueId, GraphError> {
        let name = name.into();
        let mut shapes = Vec::with_capacity(inputs.len());
        for &input in inputs {
            match self.nodes.get(input) {
                Some(node) => shapes.push(node.shape),
                None => return Err(GraphError::UnknownInput { node: name, input }),
            }
        }
        let mismatch = |what| GraphError::Mismatch { node: name.clone(), what };
        let shape = op.output_shape(&shapes).map_err(mismatch)?;
        if shape.is_empty() || shape.checked_len().is_none() {
            return Err(mismatch(format!("produces an empty or too large value, {shape:?}")));
        }
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), shape, quant: None });
        Ok(self.nodes.len() - 1)
    }

    /// Shape of the input picture.
    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    /// The value of the logits: the last node.
    pub fn output(&self) -> ValueId {
        self.nodes.len() - 1
    }

    /// Makes a network whose input has red and blue in each other's place one whose input has them in
    /// theirs: what reads them gets its weights in the other order.
    ///
    /// # Errors
    /// Another number of channels than three, or a network that does more with them than convolve,
    /// scale, clamp and pool.
    pub fn reverse_channels(&mut self) -> Result<(), String> {
        let mut is_reversed = vec![false; self.nodes.len()];
        is_reversed[0] = true;
        let c = usize::from(self.input_shape().c);
        for (id, node) in self.nodes.iter_mut().enumerate() {
            let reversed: Vec<bool> = node.inputs.iter().map(|&i| is_reversed[i]).collect();
            if !reversed.contains(&true) {
                continue;
            }
            match &mut node.op {
                NodeOp::Conv2d(conv) if reversed[1..] != [true] && conv.groups == 1 => {
                    reverse_rgb(&mut conv.weights, c)?;
                    continue;
                }
                NodeOp::BatchNorm { gamma, beta, mean, variance, .. } => {
                    for part in [gamma, beta, mean, variance] {
                        reverse_rgb(part, c)?;
                    }
                }
                NodeOp::Affine { factor, addend, .. } => {
                    reverse_rgb(factor, c)?;
                    reverse_rgb(addend, c)?;
                }
                NodeOp::Activation(_) | NodeOp::Cast | NodeOp::Pool2d { .. } => {}
                NodeOp::Add if reversed == [true; 2] => {}
                _ => return Err(format!("`{}` mixes colors with others", node.name)),
            }
            is_reversed[id] = true;
        }
        Ok(())
    }

    /// How many operands of other nodes each value is; the output counts as read once more.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for &input in self.nodes.iter().flat_map(|n| &n.inputs) {
            uses[input] += 1;
        }
        uses[self.output()] += 1;
        uses
    }

    /// Multiply-accumulates of one picture, see [`Node::macs`].
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(Node::macs).sum()
    }

    /// Numbers stored: weights, biases (also those that are zero) and per-channel parameters.
    pub fn parameters(&self) -> u64 {
        self.nodes.iter().map(|node| node.op.parameters() as u64).sum()
    }
}
