//! The operations and their gradients on the Flex backend.

use super::{depthwise, planar, weight, winograd};
use crate::activation::Activation;
use crate::conv::{self, Source};
use crate::dispatch::Level;
use crate::element::{Element, LANES, Line};
use crate::extension::{Accelerated, Rule, Task, WithMoments};
use crate::frame::{Affine, Planes, Transform};
use crate::geometry::Geometry;
use crate::gradient::{ConvGradients, Kernels, MapGradient, Normalized};
use crate::norm::{self, Extent, Mask, MaskedSums, Moments, Norm, Part, PictureMoments};
use crate::pool::{self, MaxGradient, Window};
use crate::processes;
use crate::recycle::{self, Numbers};
use crate::step::{self, Adam, Sgd};
use crate::trace::{Note, noted};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use core::ops::Range;
use half::bf16;
use rayon::prelude::*;

/// Runs an expression with `$element` as the number type of a map.
macro_rules! with_element {
    ($tensor:expr, $element:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::BF16 => {
                type $element = bf16;
                $body
            }
            _ => {
                type $element = f32;
                $body
            }
        }
    };
}

fn tensor<E: Element>(numbers: Numbers<E>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(numbers.into_bytes(), Layout::contiguous(shape.into()), E::DTYPE)
}

/// A tensor that is not a map.
fn plain(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// A map of these pictures.
fn map<E: Element>(numbers: Numbers<E>, images: usize, planes: Planes) -> FlexTensor {
    tensor(numbers, [images, planes.blocks, planes.height, planes.width, LANES])
}

/// The values of a contiguous tensor.
fn values<E: Element>(tensor: &FlexTensor) -> &[E] {
    match tensor.as_slice() {
        Some(values) => values,
        None => panic!("accelerated operation on {:?} instead of {:?}", tensor.dtype(), E::DTYPE),
    }
}

/// The same tensor, copied where its values do not lie side by side.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The values of a map, to be overwritten where nobody else holds them.
fn into_values<E: Element>(map: FlexTensor) -> FlexTensor {
    let map = contiguous(map);
    let whole = map.shape().num_elements() * size_of::<E>();
    if map.is_unique() && map.bytes().len() == whole {
        return map;
    }
    let mut copy = recycle::take::<E>(map.shape().num_elements());
    copy.copy_from_slice(values::<E>(&map));
    tensor(copy, map.shape())
}

/// Contiguous statistics and parameters.
fn parameters(n: &Normalized<Flex>) -> [FlexTensor; 4] {
    [&n.mean, &n.variance, &n.gamma, &n.beta].map(FlexTensor::to_contiguous)
}

fn norm([mean, variance, gamma, beta]: &[FlexTensor; 4], rule: Rule) -> Norm<'_> {
    let [mean, variance, gamma, beta] = [mean, variance, gamma, beta].map(values);
    Norm { mean, variance, gamma, beta, epsilon: rule.epsilon, fixed: rule.fixed }
}

/// What is done with a map while it is read.
fn transform<'a>(
    n: Option<&Normalized<Flex>>,
    affine: Option<&'a [Affine]>,
) -> Option<Transform<'a>> {
    n.zip(affine).map(|(n, affine)| Transform { affine, activation: n.rule.activation })
}

fn statistics(moments: Moments) -> [FlexTensor; 2] {
    [moments.mean, moments.variance].map(|values| {
        let len = values.len();
        plain(values, [len])
    })
}

/// A convolution, with the moments of its result where they are wanted.
fn convolve<E: Element>(source: Source<'_, E>, w: &[f32], task: Task) -> WithMoments<Flex> {
    noted(|| Note::conv(&task.shape, None), || convolution(source, w, task))
}

fn convolution<E: Element>(source: Source<'_, E>, w: &[f32], task: Task) -> WithMoments<Flex> {
    let (level, shape) = (Level::detect(), &task.shape);
    let planes = shape.output();
    let extent = Extent { images: shape.images, channels: shape.c_out, planes };
    let pixels = planes.pixels();
    let mut parts = extent.parts();
    let y = match source {
        Source::Map { values, transform } if shape.depthwise => {
            let parts = task.moments.then_some(&mut parts[..]);
            depthwise::forward(level, shape, (values, transform), w, parts)
        }
        _ => {
            let after = |picture: &mut [Line<E>], parts: &mut [Part], rows: Range<usize>| {
                if !task.moments {
                    return;
                }
                let made = rows.start * planes.width..rows.end * planes.width;
                for (block, all) in picture.chunks_exact(pixels).zip(parts) {
                    let (picture, pixels) = (&block[made.clone()], made.len());
                    let mut own = [[[0.0; LANES]; 2]];
                    level.run(PictureMoments { picture, pixels, parts: &mut own });
                    norm::merge_moments(all, made.start, &own[0], pixels);
                }
            };
            if winograd::suits_products::<E>(level, shape) {
                let whole =
                    |y: &mut [Line<E>], parts: &mut [Part]| after(y, parts, 0..planes.height);
                winograd::forward(level, shape, source, w, &mut parts, whole)
            } else {
                conv::forward(level, shape, source, w, &mut parts, after)
            }
        }
    };
    let moments = if task.moments {
        norm::join_moments(&extent, &parts, processes::others())
    } else {
        Moments { mean: Vec::new(), variance: Vec::new() }
    };
    let [mean, variance] = statistics(moments);
    (map(y, shape.images, planes), mean, variance)
}

fn normalize<E: Element>(
    x: &FlexTensor,
    n: &Normalized<Flex>,
    residual: Option<&FlexTensor>,
) -> FlexTensor {
    let x = x.to_contiguous();
    let shape = x.shape();
    let residual = residual.map(FlexTensor::to_contiguous);
    let parameters = parameters(n);
    let norm = norm(&parameters, n.rule);
    let extent = Extent::of(&shape, norm.gamma.len());
    let residual = residual.as_ref().map(values::<E>);
    let affine = norm.affine();
    let (level, activation) = (Level::detect(), n.rule.activation);
    let apply = || norm::apply(level, &extent, &affine, values::<E>(&x), residual, activation);
    let kind = if residual.is_some() { "norm and sum" } else { "norm" };
    tensor(noted(|| Note::map(kind, &extent, false), apply), shape)
}

impl Accelerated for Flex {
    fn accel_conv(x: FlexTensor, w: FlexTensor, task: Task) -> WithMoments<Self> {
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let w = values(&w);
        if !task.shape.planar {
            with_element!(x, E => {
                convolve::<E>(Source::Map { values: values(&x), transform: None }, w, task)
            })
        } else if task.bf16 {
            convolve::<bf16>(Source::Pictures(values(&x)), w, task)
        } else {
            convolve::<f32>(Source::Pictures(values(&x)), w, task)
        }
    }

    fn accel_norm_conv(
        x: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        w: FlexTensor,
        (rule, task): (Rule, Task),
    ) -> WithMoments<Self> {
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let parameters = parameters(&Normalized { mean, variance, gamma, beta, rule });
        let affine = norm(&parameters, rule).affine();
        let transform = Some(Transform { affine: &affine, activation: rule.activation });
        with_element!(x, E => {
            convolve::<E>(Source::Map { values: values(&x), transform }, values(&w), task)
        })
    }

    fn accel_norm(
        x: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        rule: Rule,
    ) -> FlexTensor {
        let n = Normalized { mean, variance, gamma, beta, rule };
        with_element!(x, E => normalize::<E>(&x, &n, None))
    }

    fn accel_norm_add(
        x: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: FlexTensor,
        rule: Rule,
    ) -> FlexTensor {
        let n = Normalized { mean, variance, gamma, beta, rule };
        with_element!(x, E => normalize::<E>(&x, &n, Some(&residual)))
    }

    fn accel_norm_max(
        x: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        rule: Rule,
        window: Window,
    ) -> FlexTensor {
        let n = Normalized { mean, variance, gamma, beta, rule };
        Self::max(&x, &n, window).0
    }

    fn accel_moments(x: FlexTensor, channels: usize) -> (FlexTensor, FlexTensor) {
        let x = x.to_contiguous();
        let extent = Extent::of(&x.shape(), channels);
        let level = Level::detect();
        let moments = with_element!(x, E => norm::moments(level, &extent, processes::others(), values::<E>(&x)));
        let [mean, variance] = statistics(moments);
        (mean, variance)
    }

    fn accel_fork(x: FlexTensor) -> (FlexTensor, FlexTensor) {
        (x.clone(), x)
    }

    fn accel_root(_: FlexTensor, _: FlexTensor) -> FlexTensor {
        plain(vec![0.0], [1])
    }

    fn accel_sgd(
        weight: FlexTensor,
        gradient: FlexTensor,
        velocity: FlexTensor,
        step: Sgd,
    ) -> (FlexTensor, FlexTensor) {
        let [weight, gradient] = [weight, gradient].map(contiguous);
        let mut velocity = into_values::<f32>(velocity);
        let sources = [values(&weight), values(&gradient)];
        let velocities = velocity.storage_mut();
        let out = noted(Note::step, || step::sgd(Level::detect(), step, sources, velocities));
        (tensor(out, weight.shape()), velocity)
    }

    fn accel_adam(
        weight: FlexTensor,
        gradient: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        step: Adam,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [weight, gradient] = [weight, gradient].map(contiguous);
        let [mut mean, mut square] = [mean, square].map(into_values::<f32>);
        let sources = [values(&weight), values(&gradient)];
        let means = [mean.storage_mut(), square.storage_mut()];
        let out = noted(Note::step, || step::adam(Level::detect(), step, sources, means));
        (tensor(out, weight.shape()), mean, square)
    }

    fn accel_blend(average: FlexTensor, value: FlexTensor, share: f64) -> FlexTensor {
        let mut average = into_values::<f32>(average);
        let value = contiguous(value);
        step::blend(Level::detect(), average.storage_mut(), values(&value), share);
        average
    }

    fn accel_mean(x: FlexTensor, channels: usize) -> FlexTensor {
        let x = x.to_contiguous();
        let extent = Extent::of(&x.shape(), channels);
        let mean = || with_element!(x, E => pool::mean(&extent, values::<E>(&x)));
        let y = noted(|| Note::map("mean", &extent, false), mean);
        plain(y, [extent.images, channels])
    }

    fn accel_to_blocks(x: FlexTensor, bf16: bool) -> FlexTensor {
        let x = x.to_contiguous();
        let shape = x.shape();
        let planes = Planes { blocks: shape[1].div_ceil(LANES), height: shape[2], width: shape[3] };
        let extent = Extent { images: shape[0], channels: shape[1], planes };
        if bf16 {
            map(planar::to_blocks::<half::bf16>(&extent, values(&x)), shape[0], planes)
        } else {
            map(planar::to_blocks::<f32>(&extent, values(&x)), shape[0], planes)
        }
    }

    fn accel_from_blocks(x: FlexTensor, channels: usize) -> FlexTensor {
        let x = x.to_contiguous();
        let extent = Extent::of(&x.shape(), channels);
        let Planes { height, width, .. } = extent.planes;
        let y = with_element!(x, E => planar::from_blocks(&extent, values::<E>(&x)));
        plain(y, [extent.images, channels, height, width])
    }
}

/// The gradient of a normalization whose output's gradient is masked and summed.
fn map_gradient<E: Element>(
    extent: &Extent,
    norm: &Norm<'_>,
    x: &[E],
    mut dy: FlexTensor,
    parts: &[Part],
    residual: bool,
) -> MapGradient<Flex> {
    let level = Level::detect();
    let slopes = norm.slopes(extent, parts, processes::others());
    let (x, residual) = if residual {
        let dx = norm::input_slopes(level, extent, &slopes, x, values(&dy));
        (map(dx, extent.images, extent.planes), Some(dy))
    } else {
        norm::input_slopes_in_place(level, extent, &slopes, x, dy.storage_mut());
        (dy, None)
    };
    let channels = [extent.channels];
    MapGradient {
        x,
        gamma: plain(slopes.dgamma, channels),
        beta: plain(slopes.dbeta, channels),
        residual,
    }
}

/// Pictures that a convolution reads, how they are transformed, and the sums of their gradient.
type Summed<'a, E> = (&'a [Line<E>], Transform<'a>, &'a mut [Part]);

/// The input gradient of a convolution, of pictures `x` that are transformed masked and summed.
fn input_gradient<E: Element>(
    level: Level,
    shape: &Geometry,
    w: &[f32],
    dy: &[E],
    sums: Option<Summed<'_, E>>,
) -> Numbers<E> {
    let Some((pictures, transform, parts)) = sums else {
        let mut none = vec![(); shape.images];
        return if winograd::suits_products::<E>(level, shape) {
            winograd::input_gradient(level, shape, w, dy, &mut none, |_, _| {})
        } else {
            conv::input_gradient(level, shape, w, dy, &mut none, |_, _| {})
        };
    };
    let (planes, affine) = (shape.input(), transform.affine);
    let mask = Mask::of(affine, transform.activation);
    // Parts carry the number of their block, which tells the picture.
    let mut numbered: Vec<_> = parts.iter_mut().enumerate().collect();
    let after = |dy: &mut [Line<E>], parts: &mut [(usize, &mut Part)]| {
        let image = parts[0].0 / planes.blocks;
        let x = &pictures[image * planes.lines()..][..planes.lines()];
        let pixels = planes.pixels();
        let mut sums = vec![[[0.0; LANES]; 2]; planes.blocks];
        level.run(MaskedSums { x, mask, centers: affine, pixels, dy, parts: &mut sums });
        for ((_, part), sum) in parts.iter_mut().zip(sums) {
            **part = sum;
        }
    };
    if winograd::suits_products::<E>(level, shape) {
        winograd::input_gradient(level, shape, w, dy, &mut numbered, after)
    } else {
        conv::input_gradient(level, shape, w, dy, &mut numbered, after)
    }
}

impl Kernels for Flex {
    type Places = Vec<u8>;

    fn conv_gradients(
        shape: &Geometry,
        x: FlexTensor,
        n: Option<&Normalized<Self>>,
        w: FlexTensor,
        dy: FlexTensor,
        [of_x, of_w]: [bool; 2],
    ) -> ConvGradients<Self> {
        let [x, w, dy] = [x, w, dy].map(|t| t.to_contiguous());
        let level = Level::detect();
        let parameters = n.map(parameters);
        let norm = n.zip(parameters.as_ref()).map(|(n, p)| norm(p, n.rule));
        let affine = norm.map(|norm| norm.affine());
        let transform = transform(n, affine.as_deref());
        let extent = Extent { images: shape.images, channels: shape.c_in, planes: shape.input() };
        let mut parts = extent.parts();
        with_element!(dy, E => {
            let (weights, dy) = (values(&w), values::<E>(&dy));
            let joint = match (of_x && of_w, shape) {
                (_, Geometry { depthwise: true, .. }) => {
                    let input = (values(&x), transform);
                    Some(depthwise::gradients(level, shape, input, weights, dy, &mut parts))
                }
                (true, Geometry { planar: false, .. }) => {
                    let input = (values(&x), transform);
                    weight::both_gradients(level, shape, input, weights, dy, &mut parts)
                }
                _ => None,
            };
            let (dx, dw) = joint.map(|(dx, dw)| (Some(dx), Some(dw))).unwrap_or_else(|| {
                let source = if shape.planar {
                    Source::Pictures(values(&x))
                } else {
                    Source::Map { values: values::<E>(&x), transform }
                };
                let dw = of_w.then(|| {
                    if winograd::suits_weights::<E>(level, shape) {
                        let input = (values::<E>(&x), transform);
                        winograd::weight_gradient(level, shape, input, dy)
                    } else {
                        weight::weight_gradient(level, shape, source, dy)
                    }
                });
                let pictures = if shape.planar { &[] } else { values::<E>(&x).as_chunks().0 };
                let sums = transform.map(|transform| (pictures, transform, &mut parts[..]));
                (of_x.then(|| input_gradient(level, shape, weights, dy, sums)), dw)
            });
            let w = dw.map(|dw| tensor(dw, w.shape()));
            match (dx, norm) {
                (None, _) => ConvGradients { x: None, norm: None, w },
                (Some(dx), None) if shape.planar => {
                    let [height, width] = shape.size;
                    let dx = planar::from_blocks(&extent, &dx);
                    let x = Some(plain(dx, [shape.images, shape.c_in, height, width]));
                    ConvGradients { x, norm: None, w }
                }
                (Some(dx), None) => {
                    let x = Some(map(dx, extent.images, extent.planes));
                    ConvGradients { x, norm: None, w }
                }
                (Some(dx), Some(norm)) => {
                    let dx = map(dx, extent.images, extent.planes);
                    let found = map_gradient::<E>(&extent, &norm, values(&x), dx, &parts, false);
                    let norm = Some([found.gamma, found.beta]);
                    ConvGradients { x: Some(found.x), norm, w }
                }
            }
        })
    }

    fn norm_gradient(
        x: FlexTensor,
        n: &Normalized<Self>,
        y: Option<FlexTensor>,
        dy: FlexTensor,
        residual: bool,
    ) -> MapGradient<Self> {
        let x = x.to_contiguous();
        let level = Level::detect();
        let parameters = parameters(n);
        let norm = norm(&parameters, n.rule);
        let extent = Extent::of(&x.shape(), norm.gamma.len());
        let affine = norm.affine();
        let y = y.map(|y| y.to_contiguous());
        with_element!(dy, E => {
            let mut dy = into_values::<E>(dy);
            let mask = match (&y, n.rule.activation) {
                (Some(y), Activation::Clamp(bounds)) => {
                    // As it is stored where a number was clamped to it.
                    let bounds = bounds.map(|bound| E::number(bound).value());
                    Mask::Output(values::<E>(y).as_chunks().0, bounds)
                }
                _ => Mask::of(&affine, n.rule.activation),
            };
            let x = values::<E>(&x);
            let parts = norm::masked_sums(level, &extent, &affine, x, mask, dy.storage_mut());
            map_gradient::<E>(&extent, &norm, x, dy, &parts, residual)
        })
    }

    fn max(x: &FlexTensor, n: &Normalized<Self>, window: Window) -> (FlexTensor, Vec<u8>) {
        let x = x.to_contiguous();
        let parameters = parameters(n);
        let norm = norm(&parameters, n.rule);
        let extent = Extent::of(&x.shape(), norm.gamma.len());
        let planes = window.planes(&extent.planes);
        let affine = norm.affine();
        let transform = Transform { affine: &affine, activation: n.rule.activation };
        let level = Level::detect();
        with_element!(x, E => {
            let max = || pool::max(level, &extent, &window, transform, values::<E>(&x));
            let (y, places) = noted(|| Note::map("max pool", &extent, false), max);
            (map(y, extent.images, planes), places)
        })
    }

    fn max_gradient(
        x: FlexTensor,
        n: &Normalized<Self>,
        window: Window,
        places: &Vec<u8>,
        dy: FlexTensor,
    ) -> MapGradient<Self> {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let level = Level::detect();
        let parameters = parameters(n);
        let norm = norm(&parameters, n.rule);
        let affine = norm.affine();
        let extent = Extent::of(&x.shape(), norm.gamma.len());
        let planes = extent.planes;
        let (lines, out) = (planes.lines(), window.planes(&planes).lines());
        with_element!(dy, E => {
            let mut parts = extent.parts();
            let mut dx = recycle::take::<E>(extent.images * lines * LANES);
            let inputs = values::<E>(&x).par_chunks(lines * LANES);
            let outputs = values::<E>(&dy).par_chunks(out * LANES);
            let results = dx.par_chunks_mut(lines * LANES).zip(parts.par_chunks_mut(planes.blocks));
            let sources = inputs.zip(outputs).zip(places.par_chunks(out * LANES));
            let scratch = || vec![[0.0; LANES]; planes.pixels()];
            results.zip(sources).for_each_init(scratch, |scratch, ((dx, parts), ((x, dy), places))| {
                let dx = dx.as_chunks_mut().0;
                level.run(MaxGradient {
                    window: &window,
                    planes,
                    dy: dy.as_chunks().0,
                    places: places.as_chunks().0,
                    scratch,
                    dx,
                });
                level.run(MaskedSums {
                    x: x.as_chunks().0,
                    mask: Mask::of(&affine, n.rule.activation),
                    centers: &affine,
                    pixels: planes.pixels(),
                    dy: dx,
                    parts,
                });
            });
            let dx = map(dx, extent.images, planes);
            map_gradient::<E>(&extent, &norm, values(&x), dx, &parts, false)
        })
    }

    fn sum(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let b = contiguous(b);
        with_element!(a, E => {
            let mut a = into_values::<E>(a);
            norm::add_to(Level::detect(), a.storage_mut(), values::<E>(&b));
            a
        })
    }

    fn mean_gradient(map_shape: &Shape, bf16: bool, dy: FlexTensor) -> FlexTensor {
        let dy = dy.to_contiguous();
        let extent = Extent::of(map_shape, dy.shape()[1]);
        if bf16 {
            let dx = pool::mean_gradient::<half::bf16>(&extent, values(&dy));
            map(dx, extent.images, extent.planes)
        } else {
            let dx = pool::mean_gradient::<f32>(&extent, values(&dy));
            map(dx, extent.images, extent.planes)
        }
    }
}
