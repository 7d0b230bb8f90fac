//! The kernels as operations of Burn's Flex backend, with their place in the gradient graph.

use super::conv::{self, Geometry};
use super::dispatch::Level;
use super::norm::{self, Extent, Settings};
use crate::distributed;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// Output, batch mean and biased batch variance.
pub(super) type Normalized<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// Operations with a gradient, as the `Dispatch` backend offers them.
#[backend_extension(Autodiff, Flex)]
pub(super) trait Accelerated: Backend {
    /// Convolution.
    fn accel_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        stride: usize,
        pad: usize,
    ) -> FloatTensor<Self>;

    /// Batch normalization, then ReLU where `relu`.
    fn accel_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        relu: bool,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Batch normalization, then the addition of `residual`, then ReLU where `relu`.
    fn accel_norm_add(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        relu: bool,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// What the gradients of [`Accelerated`] are made of.
trait Kernels: Accelerated {
    fn input_gradient(
        shape: &Geometry,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn weight_gradient(
        shape: &Geometry,
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn norm_gradient(
        saved: Saved<Self>,
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
    ) -> NormGradient<Self>;
}

/// What the gradient of a normalization needs besides `x` and γ.
#[derive(Debug, Clone)]
struct Saved<B: Backend> {
    /// Output, where a ReLU followed.
    y: Option<FloatTensor<B>>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    epsilon: f64,
}

struct NormGradient<B: Backend> {
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    residual: FloatTensor<B>,
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// The values of a contiguous f32 tensor; `conv2d` and `batch_norm_relu` require f32.
fn values(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice() {
        Some(values) => values,
        None => panic!("accelerated operations take f32, not {:?}", tensor.dtype()),
    }
}

fn geometry(x: &Shape, w: &Shape, stride: usize, pad: usize) -> Geometry {
    Geometry {
        images: x[0],
        c_in: x[1],
        c_out: w[0],
        height: x[2],
        width: x[3],
        filter: w[2],
        stride,
        pad,
    }
}

fn extent(x: &Shape) -> Extent {
    Extent { images: x[0], channels: x[1], pixels: x[2] * x[3] }
}

fn settings(relu: bool, epsilon: f64) -> Settings<'static> {
    Settings { relu, epsilon, others: distributed::others() }
}

fn normalize(
    x: &FlexTensor,
    gamma: &FlexTensor,
    beta: &FlexTensor,
    residual: Option<&FlexTensor>,
    settings: Settings<'_>,
) -> Normalized<Flex> {
    let shape = x.shape();
    let [x, gamma, beta] = [x, gamma, beta].map(FlexTensor::to_contiguous);
    let residual = residual.map(FlexTensor::to_contiguous);
    let (y, mean, variance) = norm::forward(
        Level::detect(),
        &extent(&shape),
        settings,
        values(&x),
        [values(&gamma), values(&beta)],
        residual.as_ref().map(values),
    );
    let channels = Shape::from([shape[1]]);
    (tensor(y, shape), tensor(mean, channels.clone()), tensor(variance, channels))
}

impl Accelerated for Flex {
    fn accel_conv2d(x: FlexTensor, w: FlexTensor, stride: usize, pad: usize) -> FlexTensor {
        let shape = geometry(&x.shape(), &w.shape(), stride, pad);
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let y = conv::forward(Level::detect(), &shape, values(&x), values(&w));
        let (height, width) = shape.output();
        tensor(y, Shape::from([shape.images, shape.c_out, height, width]))
    }

    fn accel_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        relu: bool,
        epsilon: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        normalize(&x, &gamma, &beta, None, settings(relu, epsilon))
    }

    fn accel_norm_add(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: FlexTensor,
        relu: bool,
        epsilon: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        normalize(&x, &gamma, &beta, Some(&residual), settings(relu, epsilon))
    }
}

impl Kernels for Flex {
    fn input_gradient(shape: &Geometry, w: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (w, dy) = (w.to_contiguous(), dy.to_contiguous());
        let dx = conv::input_gradient(Level::detect(), shape, values(&w), values(&dy));
        tensor(dx, Shape::from([shape.images, shape.c_in, shape.height, shape.width]))
    }

    fn weight_gradient(shape: &Geometry, x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let dw = conv::weight_gradient(Level::detect(), shape, values(&x), values(&dy));
        tensor(dw, Shape::from([shape.c_out, shape.c_in, shape.filter, shape.filter]))
    }

    fn norm_gradient(
        saved: Saved<Self>,
        dy: FlexTensor,
        x: FlexTensor,
        gamma: FlexTensor,
    ) -> NormGradient<Self> {
        let shape = x.shape();
        let [x, gamma, mean, variance] =
            [x, gamma, saved.mean, saved.variance].map(|t| t.to_contiguous());
        let y = saved.y.map(|y| y.to_contiguous());
        // Where nobody else holds the output's gradient it is masked in place.
        let whole = shape.num_elements() * size_of::<f32>();
        let mut dy = if dy.is_contiguous() && dy.bytes().len() == whole {
            dy
        } else {
            let dy = dy.to_contiguous();
            tensor(values(&dy).to_vec(), shape.clone())
        };
        let gradients = norm::backward(
            Level::detect(),
            &extent(&shape),
            settings(y.is_some(), saved.epsilon),
            values(&x),
            y.as_ref().map(values),
            dy.storage_mut(),
            [&gamma, &mean, &variance].map(values),
        );
        let channels = Shape::from([shape[1]]);
        NormGradient {
            x: tensor(gradients.dx, shape),
            gamma: tensor(gradients.dgamma, channels.clone()),
            beta: tensor(gradients.dbeta, channels),
            residual: dy,
        }
    }
}

#[derive(Debug)]
struct Conv;

impl<B: Kernels> Backward<B, 2> for Conv {
    /// Checkpoints of `x` and `w`, and the sizes.
    type State = (NodeId, NodeId, Geometry);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradients.consume::<B>(&ops.node);
        let [x, w] = ops.parents;
        let (x_saved, w_saved, shape) = ops.state;
        let x_value: FloatTensor<B> = checkpointer.retrieve_node_output(x_saved);
        let w_value: FloatTensor<B> = checkpointer.retrieve_node_output(w_saved);
        if let Some(node) = x {
            gradients.register::<B>(node.id, B::input_gradient(&shape, w_value, dy.clone()));
        }
        if let Some(node) = w {
            gradients.register::<B>(node.id, B::weight_gradient(&shape, x_value, dy));
        }
    }
}

#[derive(Debug)]
struct Norm;

/// Checkpoints of `x` and γ, and the rest.
type NormState<B> = (NodeId, NodeId, Saved<B>);

impl<B: Kernels> Backward<B, 3> for Norm {
    type State = NormState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradients.consume::<B>(&ops.node);
        let [x, gamma, beta] = ops.parents;
        let (x_saved, gamma_saved, saved) = ops.state;
        let x_value = checkpointer.retrieve_node_output(x_saved);
        let gamma_value = checkpointer.retrieve_node_output(gamma_saved);
        let parts = B::norm_gradient(saved, dy, x_value, gamma_value);
        for (node, gradient) in [(x, parts.x), (gamma, parts.gamma), (beta, parts.beta)] {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Kernels> Backward<B, 4> for Norm {
    type State = NormState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradients.consume::<B>(&ops.node);
        let [x, gamma, beta, residual] = ops.parents;
        let (x_saved, gamma_saved, saved) = ops.state;
        let x_value = checkpointer.retrieve_node_output(x_saved);
        let gamma_value = checkpointer.retrieve_node_output(gamma_saved);
        let parts = B::norm_gradient(saved, dy, x_value, gamma_value);
        for (node, gradient) in
            [(x, parts.x), (gamma, parts.gamma), (beta, parts.beta), (residual, parts.residual)]
        {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

/// The saved part of a normalization that has just run.
fn saved<B: Backend>(done: &Normalized<B>, relu: bool, epsilon: f64) -> Saved<B> {
    let (y, mean, variance) = done;
    Saved { y: relu.then(|| y.clone()), mean: mean.clone(), variance: variance.clone(), epsilon }
}

impl<B: Kernels, C: CheckpointStrategy> Accelerated for Autodiff<B, C> {
    fn accel_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        stride: usize,
        pad: usize,
    ) -> FloatTensor<Self> {
        let shape = geometry(&x.shape(), &w.shape(), stride, pad);
        match Conv.prepare::<C>([x.node(), w.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&x), prepared.checkpoint(&w), shape);
                let y = B::accel_conv2d(x.into_primitive(), w.into_primitive(), stride, pad);
                prepared.finish(state, y)
            }
            OpsKind::UnTracked(prepared) => {
                let (x, w) = (x.into_primitive(), w.into_primitive());
                prepared.finish(B::accel_conv2d(x, w, stride, pad))
            }
        }
    }

    fn accel_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        relu: bool,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (y, mean, variance) = match Norm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let (x_node, gamma_node) = (prepared.checkpoint(&x), prepared.checkpoint(&gamma));
                let [x, gamma, beta] = [x, gamma, beta].map(|t| t.into_primitive());
                let done = B::accel_norm(x, gamma, beta, relu, epsilon);
                let state = (x_node, gamma_node, saved::<B>(&done, relu, epsilon));
                (prepared.finish(state, done.0), done.1, done.2)
            }
            OpsKind::UnTracked(prepared) => {
                let [x, gamma, beta] = [x, gamma, beta].map(|t| t.into_primitive());
                let done = B::accel_norm(x, gamma, beta, relu, epsilon);
                (prepared.finish(done.0), done.1, done.2)
            }
        };
        (y, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn accel_norm_add(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        relu: bool,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node(), residual.node()];
        let (y, mean, variance) = match Norm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let (x_node, gamma_node) = (prepared.checkpoint(&x), prepared.checkpoint(&gamma));
                let [x, gamma, beta, residual] =
                    [x, gamma, beta, residual].map(|t| t.into_primitive());
                let done = B::accel_norm_add(x, gamma, beta, residual, relu, epsilon);
                let state = (x_node, gamma_node, saved::<B>(&done, relu, epsilon));
                (prepared.finish(state, done.0), done.1, done.2)
            }
            OpsKind::UnTracked(prepared) => {
                let [x, gamma, beta, residual] =
                    [x, gamma, beta, residual].map(|t| t.into_primitive());
                let done = B::accel_norm_add(x, gamma, beta, residual, relu, epsilon);
                (prepared.finish(done.0), done.1, done.2)
            }
        };
        (y, Self::from_inner(mean), Self::from_inner(variance))
    }
}
