//! Training that sees what int8 will do ("quantization-aware"): weights and maps are rounded to the
//! steps that the device has, and gradients pass through the rounding as if it were not there, but
//! not where a value is clipped (Jacob et al. 2018).
//!
//! Weights are rounded as the converter rounds them; a batch-norm that is folded later multiplies a
//! row and its step alike. A map's range is a running mean of the extremes of batches.

use burn::tensor::Tensor;
use network::int8::{quant_of_range, quantize_channel};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Share of a range that a batch decides.
const SHARE: f32 = 0.02;

/// The ranges of a network's maps, by the layer that writes them.
#[derive(Debug)]
pub(crate) struct Rounding {
    ranges: Mutex<BTreeMap<String, [f32; 2]>>,
}

impl Rounding {
    pub(super) fn new(ranges: BTreeMap<String, [f32; 2]>) -> Self {
        Self { ranges: Mutex::new(ranges) }
    }

    pub(super) fn ranges(&self) -> BTreeMap<String, [f32; 2]> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The range of map `name` after a batch whose extremes are `seen`; of a network that is only
    /// used, `None` is seen. Nothing of a map that no batch has shown yet.
    pub(super) fn range(&self, name: &str, seen: Option<[f32; 2]>) -> Option<[f32; 2]> {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = seen else { return ranges.get(name).copied() };
        let range = ranges.entry(name.into()).or_insert(seen);
        for (end, seen) in range.iter_mut().zip(seen) {
            *end += (seen - *end) * SHARE;
        }
        Some(*range)
    }
}

/// `x` in the 256 steps of a range.
pub(super) fn rounded<const D: usize>(x: Tensor<D>, [low, high]: [f32; 2]) -> Tensor<D> {
    let quant = quant_of_range(low, high);
    let clipped = x.clamp(quant.dequantize(-128), quant.dequantize(127));
    let steps = clipped.clone().detach().div_scalar(quant.scale).round().mul_scalar(quant.scale);
    let change = steps - clipped.clone().detach();
    clipped + change
}

/// Smallest and largest value.
pub(super) fn extremes<const D: usize>(x: &Tensor<D>) -> [f32; 2] {
    let x = x.clone().inner();
    [x.clone().min().into_scalar(), x.max().into_scalar()]
}

/// Weights `[O, …]` rounded as the device stores them; `row`: where each weight of an output lies,
/// in the order of the device, which keeps `run` of them side by side.
pub(super) fn rounded_weights<const D: usize>(
    weight: Tensor<D>,
    order: &[usize],
    run: usize,
) -> Tensor<D> {
    let device = weight.device();
    let mut data = weight.clone().inner().into_data();
    let Ok(values) = data.as_mut_slice::<f32>() else { return weight };
    let mut row = vec![0.0; order.len()];
    for weights in values.chunks_exact_mut(order.len()) {
        for (value, &at) in row.iter_mut().zip(order) {
            *value = weights[at];
        }
        let (steps, scale) = quantize_channel(&row, run, 0.0);
        for (step, &at) in steps.iter().zip(order) {
            // What is added to the weight.
            weights[at] = f32::from(*step) * scale - weights[at];
        }
    }
    weight + Tensor::from_data(data, &device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Init, Network, save_tensors};
    use artifact::Preprocess;
    use burn::module::Module;
    use burn::tensor::{Device, TensorData};
    use convert::pipeline::{Options, convert};
    use convert::quantize::Method;
    use network::architecture::Architecture;
    use network::checkpoint::Draft;
    use network::model::FloatModel;
    use network::random::Rng;
    use runtime::{AlignedBuf, Model, Session};

    fn device() -> Device {
        Device::flex().autodiff()
    }

    #[test]
    fn gradients_pass_where_nothing_is_clipped() {
        let x = Tensor::<1>::from_data(TensorData::from([-2.0f32, 0.011, 0.499, 3.0]), &device());
        let x = x.require_grad();
        let y = rounded(x.clone(), [0.0, 2.55]);
        let values: Vec<f32> = y.clone().into_data().iter::<f32>().collect();
        for (value, wanted) in values.iter().zip([0.0, 0.01, 0.5, 2.55]) {
            assert!((value - wanted).abs() < 1e-6, "{values:?}");
        }
        let gradients = y.sum().backward();
        let gradient: Vec<f32> = x.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
        assert_eq!(gradient, [0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn weights_are_those_of_the_device() {
        // Two outputs of three weights, the second output a hundred times smaller.
        let values = [1.0f32, -0.3, 0.123, 0.01, -0.003, 0.00123];
        let weight = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [2, 3]), &device());
        let weight = weight.require_grad();
        let y = rounded_weights(weight.clone(), &[2, 0, 1], 3);
        let found: Vec<f32> = y.clone().into_data().iter::<f32>().collect();
        for row in 0..2 {
            let order: Vec<f32> = [2, 0, 1].iter().map(|i| values[row * 3 + i]).collect();
            let (steps, scale) = quantize_channel(&order, 3, 0.0);
            for (step, at) in steps.iter().zip([2, 0, 1]) {
                assert!((found[row * 3 + at] - f32::from(*step) * scale).abs() < 1e-7);
            }
        }
        let gradients = y.sum().backward();
        let gradient: Vec<f32> =
            weight.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
        assert_eq!(gradient, [1.0; 6]);
    }

    #[test]
    fn ranges_follow_the_batches() {
        let rounding = Rounding::new(BTreeMap::new());
        assert_eq!(rounding.range("a", None), None);
        assert_eq!(rounding.range("a", Some([-1.0, 1.0])), Some([-1.0, 1.0]));
        assert_eq!(rounding.range("a", Some([-1.0, 2.0])), Some([-1.0, 1.02]));
        assert_eq!(rounding.range("a", None), Some([-1.0, 1.02]));
        assert_eq!(rounding.range("b", None), None);
        let again = Rounding::new(rounding.ranges());
        assert_eq!(again.range("a", None), Some([-1.0, 1.02]));
    }

    /// A network that rounds computes nearly what int8 makes of it, and so do its copies.
    #[test]
    fn networks_compute_as_the_device_will() {
        const PICTURES: usize = 12;
        let config = Architecture::named("resnet_8_cifar", 10).unwrap();
        let mut net = Network::new(&config, Init::he(4), &device()).unwrap();
        net.set_rounding(Some(BTreeMap::new()));
        // Bytes, as the input of the device has them.
        let mut rng = Rng::keyed(&[4]);
        let values: Vec<f32> = (0..PICTURES * 3 * 32 * 32)
            .map(|i| {
                // Each picture and channel has a brightness of its own, or all would be alike.
                let base = (i / 1024 * 37 % 200) as f32;
                (base + rng.below(56) as f32) / 127.5 - 1.0
            })
            .collect();
        let planar = |device: &Device| {
            Tensor::<4>::from_data(TensorData::new(values.clone(), [PICTURES, 3, 32, 32]), device)
        };
        // Running statistics and ranges become those of the batch.
        for _ in 0..60 {
            net.forward(planar(&device()));
        }
        let used = net.valid();
        let numbers = |x: Tensor<2>| x.into_data().iter::<f32>().collect::<Vec<f32>>();
        let rounded = numbers(used.forward(planar(&Device::flex())));
        let mut plain = net.valid();
        plain.set_rounding(None);
        let plain = numbers(plain.forward(planar(&Device::flex())));

        let preprocess = Preprocess::normalized(32, 32, [0.5; 3], [0.5; 3]);
        let labels = (0..10).map(|i| i.to_string()).collect();
        let checkpoint =
            Draft::new(config, labels, preprocess, save_tensors(&net)).check().unwrap();
        let pictures: Vec<Vec<f32>> = values
            .chunks_exact(3 * 1024)
            .map(|p| (0..p.len()).map(|i| p[i % 3 * 1024 + i / 3]).collect())
            .collect();
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        let options = Options { method: Method::MinMax, ..Options::default() };
        let converted = convert(&model, &pictures, options, |_, _| ()).unwrap();
        let file = AlignedBuf::from_slice(&converted.emitted.bytes);
        let device = Model::new(&file).unwrap();
        let mut arena = AlignedBuf::zeroed(device.arena_len());
        let mut session = Session::new(&device, &mut arena).unwrap();
        let mut int8 = Vec::new();
        for picture in &pictures {
            let mut input = session.input_mut();
            picture.iter().enumerate().for_each(|(i, v)| input.set(i, *v));
            int8.extend(session.run().iter());
        }
        let distance = |a: &[f32], b: &[f32]| {
            let square = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            (square / b.iter().map(|b| b.powi(2)).sum::<f32>()).sqrt()
        };
        assert!(distance(&rounded, &plain) > 1e-3, "nothing is rounded");
        let apart = distance(&rounded, &int8);
        assert!(apart < 0.04, "{apart} of int8, which is {} from floats", distance(&int8, &plain));
    }
}
