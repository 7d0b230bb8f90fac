//! The operations' place in the gradient graph.

use crate::element::LANES;
use crate::extension::{Accelerated, Rule, Task, WithMoments};
use crate::geometry::Geometry;
use crate::norm::Extent;
use crate::pool::Window;
use crate::step::{Adam, Sgd};
use crate::trace::{Note, noted};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{DType, Shape};
use std::sync::{Arc, Mutex, PoisonError};

/// Statistics and parameters of a normalization.
#[derive(Debug, Clone)]
pub(super) struct Normalized<B: Backend> {
    pub(super) mean: FloatTensor<B>,
    pub(super) variance: FloatTensor<B>,
    pub(super) gamma: FloatTensor<B>,
    pub(super) beta: FloatTensor<B>,
    pub(super) rule: Rule,
}

/// Gradient of a normalization.
#[derive(Debug)]
pub(super) struct MapGradient<B: Backend> {
    pub(super) x: FloatTensor<B>,
    pub(super) gamma: FloatTensor<B>,
    pub(super) beta: FloatTensor<B>,
    pub(super) residual: Option<FloatTensor<B>>,
}

/// Gradients of a convolution, those that are wanted, and of a normalization in front of it.
#[derive(Debug)]
pub(super) struct ConvGradients<B: Backend> {
    pub(super) x: Option<FloatTensor<B>>,
    /// Of γ and β.
    pub(super) norm: Option<[FloatTensor<B>; 2]>,
    pub(super) w: Option<FloatTensor<B>>,
}

/// What the gradients of [`Accelerated`] are made of.
pub(super) trait Kernels: Accelerated {
    /// Where in each window the largest value was.
    type Places: Send + Sync + core::fmt::Debug + 'static;

    /// `n`: how the input was normalized; `wants`: the gradient with respect to the input, the
    /// weights.
    fn conv_gradients(
        shape: &Geometry,
        x: FloatTensor<Self>,
        n: Option<&Normalized<Self>>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        wants: [bool; 2],
    ) -> ConvGradients<Self>;

    /// `y`: the output, where [`Rule::reads_output`].
    fn norm_gradient(
        x: FloatTensor<Self>,
        n: &Normalized<Self>,
        y: Option<FloatTensor<Self>>,
        dy: FloatTensor<Self>,
        residual: bool,
    ) -> MapGradient<Self>;

    fn max(
        x: &FloatTensor<Self>,
        n: &Normalized<Self>,
        window: Window,
    ) -> (FloatTensor<Self>, Self::Places);

    fn max_gradient(
        x: FloatTensor<Self>,
        n: &Normalized<Self>,
        window: Window,
        places: &Self::Places,
        dy: FloatTensor<Self>,
    ) -> MapGradient<Self>;

    /// Of two gradients of a map.
    fn sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    fn mean_gradient(map: &Shape, bf16: bool, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Puts `y` into the graph, with `state` where somebody will ask for its gradient.
fn track<B: Backend, C: CheckpointStrategy, O: Backward<B, N>, const N: usize>(
    operation: OpsKind<O, B, O::State, C, N>,
    y: FloatTensor<B>,
    state: impl FnOnce() -> O::State,
) -> FloatTensor<Autodiff<B, C>> {
    match operation {
        OpsKind::Tracked(prepared) => prepared.finish(state(), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}

/// [`Kernels::conv_gradients`], noted.
fn conv_gradients<B: Kernels>(
    shape: &Geometry,
    (x, n): (FloatTensor<B>, Option<&Normalized<B>>),
    w: FloatTensor<B>,
    dy: FloatTensor<B>,
    wants: [bool; 2],
) -> ConvGradients<B> {
    let number = wants.into_iter().filter(|wanted| *wanted).count();
    let gradients = || B::conv_gradients(shape, x, n, w, dy, wants);
    noted(|| Note::conv(shape, Some(number)), gradients)
}

/// [`Kernels::norm_gradient`], noted.
fn norm_gradient<B: Kernels>(
    (x, n, y): NormState<B>,
    dy: FloatTensor<B>,
    residual: bool,
) -> MapGradient<B> {
    let extent = Extent::of(&x.shape(), n.gamma.shape()[0]);
    let kind = if residual { "norm and sum" } else { "norm" };
    let gradient = || B::norm_gradient(x, &n, y, dy, residual);
    noted(|| Note::map(kind, &extent, true), gradient)
}

#[derive(Debug)]
struct Conv;

impl<B: Kernels> Backward<B, 2> for Conv {
    /// Input, weights and sizes.
    type State = (FloatTensor<B>, FloatTensor<B>, Geometry);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let (x, w, shape) = ops.state;
        let [x_node, w_node] = ops.parents.map(|node| node.map(|node| node.id));
        let wants = [x_node.is_some(), w_node.is_some()];
        let found = conv_gradients::<B>(&shape, (x, None), w, dy, wants);
        register::<B>(gradients, [(x_node, found.x), (w_node, found.w)]);
    }
}

#[derive(Debug)]
struct NormConv;

impl<B: Kernels> Backward<B, 4> for NormConv {
    /// Input, its normalization, weights and sizes.
    type State = (FloatTensor<B>, Normalized<B>, FloatTensor<B>, Geometry);

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let (x, n, w, shape) = ops.state;
        let [x_node, gamma, beta, w_node] = ops.parents.map(|node| node.map(|node| node.id));
        let of_input = x_node.is_some() || gamma.is_some() || beta.is_some();
        let wants = [of_input, w_node.is_some()];
        let found = conv_gradients::<B>(&shape, (x, Some(&n)), w, dy, wants);
        register::<B>(gradients, [(x_node, found.x), (w_node, found.w)]);
        let norm = found.norm.into_iter().flatten().map(Some);
        register::<B>(gradients, [gamma, beta].into_iter().zip(norm));
    }
}

fn register<B: Backend>(
    gradients: &mut Gradients,
    pairs: impl IntoIterator<Item = (Option<NodeId>, Option<FloatTensor<B>>)>,
) {
    for (node, gradient) in pairs {
        if let (Some(node), Some(gradient)) = (node, gradient) {
            gradients.register::<B>(node, gradient);
        }
    }
}

impl<B: Backend> MapGradient<B> {
    /// Of input, γ, β and residual.
    fn register(self, gradients: &mut Gradients, [x, gamma, beta, residual]: [Option<NodeId>; 4]) {
        let own = [(x, Some(self.x)), (gamma, Some(self.gamma)), (beta, Some(self.beta))];
        register::<B>(gradients, own.into_iter().chain([(residual, self.residual)]));
    }
}

#[derive(Debug)]
struct Norm;

/// Input, its normalization and the output, where [`Rule::reads_output`].
type NormState<B> = (FloatTensor<B>, Normalized<B>, Option<FloatTensor<B>>);

impl<B: Kernels> Backward<B, 3> for Norm {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [x_node, gamma, beta] = ops.parents.map(|node| node.map(|node| node.id));
        let found = norm_gradient(ops.state, dy, false);
        found.register(gradients, [x_node, gamma, beta, None]);
    }
}

impl<B: Kernels> Backward<B, 4> for Norm {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [x_node, gamma, beta, residual] = ops.parents.map(|node| node.map(|node| node.id));
        let found = norm_gradient(ops.state, dy, true);
        found.register(gradients, [x_node, gamma, beta, residual]);
    }
}

#[derive(Debug)]
struct NormMax;

impl<B: Kernels> Backward<B, 3> for NormMax {
    /// Input, its normalization, the window and where the largest values were.
    type State = (FloatTensor<B>, Normalized<B>, Window, Arc<B::Places>);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let (x, n, window, places) = ops.state;
        let [x_node, gamma, beta] = ops.parents.map(|node| node.map(|node| node.id));
        let extent = Extent::of(&x.shape(), n.gamma.shape()[0]);
        let gradient = || B::max_gradient(x, &n, window, &places, dy);
        let found = noted(|| Note::map("max pool", &extent, true), gradient);
        found.register(gradients, [x_node, gamma, beta, None]);
    }
}

#[derive(Debug)]
struct Mean;

impl<B: Kernels> Backward<B, 1> for Mean {
    /// Shape of the map, and whether it is bf16.
    type State = (Shape, bool);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [node] = ops.parents.map(|node| node.map(|node| node.id));
        let (shape, bf16) = ops.state;
        let extent = Extent::of(&shape, dy.shape()[1]);
        let gradient = || B::mean_gradient(&shape, bf16, dy);
        let dx = noted(|| Note::map("mean", &extent, true), gradient);
        register::<B>(gradients, [(node, Some(dx))]);
    }
}

/// One of two uses of a map. Gradients that meet at a node are added by the backend's own
/// operation, on one thread; these meet here.
#[derive(Debug)]
struct Fork;

impl<B: Kernels> Backward<B, 1> for Fork {
    /// The gradient of the use whose turn comes first.
    type State = Arc<Mutex<Option<FloatTensor<B>>>>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [node] = ops.parents.map(|node| node.map(|node| node.id));
        let mut first = ops.state.lock().unwrap_or_else(PoisonError::into_inner);
        match first.take() {
            None => *first = Some(dy),
            Some(other) => {
                let extent = Extent::of(&dy.shape(), dy.shape()[1] * LANES);
                let sum = noted(|| Note::map("sum", &extent, true), || B::sum(dy, other));
                register::<B>(gradients, [(node, Some(sum))]);
            }
        }
    }
}

#[derive(Debug)]
struct Root;

impl<B: Kernels> Backward<B, 1> for Root {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let _ = gradients.consume::<B>(&ops.node);
        let [node] = ops.parents.map(|node| node.map(|node| node.id));
        register::<B>(gradients, [(node, Some(ops.state))]);
    }
}

#[derive(Debug)]
struct ToBlocks;

impl<B: Kernels> Backward<B, 1> for ToBlocks {
    /// Channels.
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [node] = ops.parents.map(|node| node.map(|node| node.id));
        let channels = ops.state;
        register::<B>(gradients, [(node, Some(B::accel_from_blocks(dy, channels)))]);
    }
}

#[derive(Debug)]
struct FromBlocks;

impl<B: Kernels> Backward<B, 1> for FromBlocks {
    /// Whether the map is bf16.
    type State = bool;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [node] = ops.parents.map(|node| node.map(|node| node.id));
        let bf16 = ops.state;
        register::<B>(gradients, [(node, Some(B::accel_to_blocks(dy, bf16)))]);
    }
}

fn is_bf16(tensor: &impl TensorMetadata) -> bool {
    tensor.dtype() == DType::BF16
}

impl<B: Kernels, C: CheckpointStrategy> Accelerated for Autodiff<B, C> {
    fn accel_conv(x: FloatTensor<Self>, w: FloatTensor<Self>, task: Task) -> WithMoments<Self> {
        let operation = Conv.prepare::<C>([x.node(), w.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let (y, mean, variance) = B::accel_conv(x.clone(), w.clone(), task);
        let y = track(operation, y, || (x, w, task.shape));
        (y, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn accel_norm_conv(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        w: FloatTensor<Self>,
        (rule, task): (Rule, Task),
    ) -> WithMoments<Self> {
        let nodes = [x.node(), gamma.node(), beta.node(), w.node()];
        let operation = NormConv.prepare::<C>(nodes).compute_bound().stateful();
        let [x, mean, variance, gamma, beta, w] =
            [x, mean, variance, gamma, beta, w].map(|t| t.into_primitive());
        let n = Normalized::<B> { mean, variance, gamma, beta, rule };
        let Normalized { mean, variance, gamma, beta, .. } = n.clone();
        let (y, own_mean, own_variance) =
            B::accel_norm_conv(x.clone(), mean, variance, gamma, beta, w.clone(), (rule, task));
        let y = track(operation, y, || (x, n, w, task.shape));
        (y, Self::from_inner(own_mean), Self::from_inner(own_variance))
    }

    fn accel_norm(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let operation = Norm.prepare::<C>(nodes).compute_bound().stateful();
        let [x, mean, variance, gamma, beta] =
            [x, mean, variance, gamma, beta].map(|t| t.into_primitive());
        let n = Normalized::<B> { mean, variance, gamma, beta, rule };
        let Normalized { mean, variance, gamma, beta, .. } = n.clone();
        let y = B::accel_norm(x.clone(), mean, variance, gamma, beta, rule);
        let output = rule.reads_output().then(|| y.clone());
        track(operation, y, || (x, n, output))
    }

    fn accel_norm_add(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node(), residual.node()];
        let operation = Norm.prepare::<C>(nodes).compute_bound().stateful();
        let [x, mean, variance, gamma, beta, residual] =
            [x, mean, variance, gamma, beta, residual].map(|t| t.into_primitive());
        let n = Normalized::<B> { mean, variance, gamma, beta, rule };
        let Normalized { mean, variance, gamma, beta, .. } = n.clone();
        let y = B::accel_norm_add(x.clone(), mean, variance, gamma, beta, residual, rule);
        let output = rule.reads_output().then(|| y.clone());
        track(operation, y, || (x, n, output))
    }

    fn accel_norm_max(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        rule: Rule,
        window: Window,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let operation = NormMax.prepare::<C>(nodes).compute_bound().stateful();
        let [x, mean, variance, gamma, beta] =
            [x, mean, variance, gamma, beta].map(|t| t.into_primitive());
        let n = Normalized::<B> { mean, variance, gamma, beta, rule };
        let (y, places) = B::max(&x, &n, window);
        track(operation, y, || (x, n, window, Arc::new(places)))
    }

    fn accel_moments(
        x: FloatTensor<Self>,
        channels: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (mean, variance) = B::accel_moments(x.into_primitive(), channels);
        (Self::from_inner(mean), Self::from_inner(variance))
    }

    fn accel_fork(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let first = Arc::new(Mutex::new(None));
        let [one, other] = [0, 1].map(|_| Fork.prepare::<C>([x.node()]).compute_bound().stateful());
        let (x, again) = B::accel_fork(x.into_primitive());
        (track(one, x, || first.clone()), track(other, again, || first.clone()))
    }

    fn accel_root(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let operation = Root.prepare::<C>([x.node()]).compute_bound().stateful();
        let (x, dy) = (x.into_primitive(), dy.into_primitive());
        track(operation, B::accel_root(x, dy.clone()), || dy)
    }

    fn accel_sgd(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: Sgd,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [weight, gradient, velocity] = [weight, gradient, velocity].map(|t| t.into_primitive());
        let (weight, velocity) = B::accel_sgd(weight, gradient, velocity, step);
        (Self::from_inner(weight), Self::from_inner(velocity))
    }

    fn accel_adam(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: Adam,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [weight, gradient, mean, square] =
            [weight, gradient, mean, square].map(|t| t.into_primitive());
        let (weight, mean, square) = B::accel_adam(weight, gradient, mean, square, step);
        (Self::from_inner(weight), Self::from_inner(mean), Self::from_inner(square))
    }

    fn accel_blend(
        average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        share: f64,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::accel_blend(average.into_primitive(), value.into_primitive(), share))
    }

    fn accel_mean(x: FloatTensor<Self>, channels: usize) -> FloatTensor<Self> {
        let operation = Mean.prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        let state = (x.shape(), is_bf16(&x));
        track(operation, B::accel_mean(x, channels), || state)
    }

    fn accel_to_blocks(x: FloatTensor<Self>, bf16: bool) -> FloatTensor<Self> {
        let operation = ToBlocks.prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        let channels = x.shape()[1];
        track(operation, B::accel_to_blocks(x, bf16), || channels)
    }

    fn accel_from_blocks(x: FloatTensor<Self>, channels: usize) -> FloatTensor<Self> {
        let operation = FromBlocks.prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        let bf16 = is_bf16(&x);
        track(operation, B::accel_from_blocks(x, channels), || bf16)
    }
}
