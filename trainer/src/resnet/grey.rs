//! From a network of colors to one of luma.
//!
//! Of a grey picture with luma `l`, channel `c` of the input is `l · scale[c] + offset[c]`, so that a
//! filter's tap adds `l · Σ w[c] · scale[c] + Σ w[c] · offset[c]`. The first sum is the tap's only weight,
//! divided by the scale of luma; the second, less what luma's own offset adds, is the same for every
//! pixel, and the batch-norm behind takes it off its mean.

use network::checkpoint::{Checkpoint, Tensor};

/// Makes a network's input the luma of pictures. Of grey ones it computes the same as before, but for
/// windows that leave the picture where the channels have different means: there, one padding stands
/// for three.
pub fn make_grey(checkpoint: &mut Checkpoint) {
    let Checkpoint { config, preprocess, tensors, .. } = checkpoint;
    if config.channels == 1 {
        return;
    }
    config.channels = 1;
    let colors = core::mem::replace(preprocess, config.preprocess(*preprocess));
    let stem = config.stem();
    let shape = [stem[0].c_out, stem[0].filter, stem[0].filter, 1];
    // Version 2 normalizes its last stem convolution in the first block.
    let norm = match config.use_pre_activation && stem.len() == 1 {
        true => format!("{}_pre_activation_bn.mean", config.blocks()[0].name),
        false => "conv1_bn.mean".into(),
    };
    let Some(filters) = tensors.get_mut(&format!("{}.weight", stem[0].name)) else { return };
    let (mut weights, mut added) = (Vec::new(), vec![0.0; shape[0]]);
    let taps = filters.to_f32();
    for (tap, w) in taps.as_chunks::<3>().0.iter().enumerate() {
        let sum = |by: [f32; 3]| (0..3).map(|c| f64::from(w[c]) * f64::from(by[c])).sum::<f64>();
        let weight = sum(colors.scale) / f64::from(preprocess.scale[0]);
        added[tap / (shape[1] * shape[2])] +=
            sum(colors.offset) - weight * f64::from(preprocess.offset[0]);
        weights.push(weight as f32);
    }
    *filters = Tensor::from_f32(&shape, &weights);
    if let Some(mean) = tensors.get_mut(&norm) {
        let less = |(mean, added): (&f32, &f64)| (f64::from(*mean) - added) as f32;
        let means: Vec<f32> = mean.to_f32().iter().zip(&added).map(less).collect();
        *mean = Tensor::from_f32(&[means.len()], &means);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::to_planes;
    use crate::train::network;
    use artifact::Preprocess;
    use burn::tensor::{Device, Tensor as BurnTensor, TensorData};
    use network::init::random_checkpoint;
    use network::random::Rng;
    use network::resnet::ResNetConfig;
    use runtime::preprocess::RgbView;

    /// Logits of a grey picture.
    fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
        let mut rng = Rng::keyed(&[3]);
        let pixels: Vec<u8> = (0..32 * 32).flat_map(|_| [rng.below(256) as u8; 3]).collect();
        let view = RgbView::new(&pixels, 32, 32, 32 * 3).unwrap();
        let p = checkpoint.preprocess;
        let mut planes = vec![0.0; p.channels() * 32 * 32];
        to_planes(&p, view, &mut planes);
        let data = TensorData::new(planes, [1, p.channels(), 32, 32]);
        let device = Device::flex();
        let net = network(checkpoint, &device).unwrap();
        net.forward(BurnTensor::<4>::from_data(data, &device)).into_data().iter().collect()
    }

    #[test]
    fn grey_networks_say_the_same_of_grey_pictures() {
        // With one mean, padding is the same grey in every channel.
        for (name, means, bound) in [
            ("resnet_8_cifar", [0.4; 3], 1e-4),
            ("resnet_8_cifar", [0.491, 0.482, 0.446], 0.05),
            ("resnet_vd_18", [0.4; 3], 1e-4),
            ("resnet_v2_50", [0.4; 3], 1e-4),
        ] {
            let config = ResNetConfig::named(name, 5).unwrap();
            let mut checkpoint = random_checkpoint(config, 32, 7).unwrap();
            checkpoint.preprocess = Preprocess::normalized(32, 32, means, [0.25, 0.2, 0.3]);
            let before = logits(&checkpoint);
            make_grey(&mut checkpoint);
            checkpoint.check().unwrap();
            assert!(checkpoint.preprocess.grey);
            let largest = before.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            for (a, b) in logits(&checkpoint).iter().zip(&before) {
                assert!((a - b).abs() <= bound * largest, "{name}: {a}, before {b} of {largest}");
            }
            let again = checkpoint.clone();
            make_grey(&mut checkpoint);
            assert_eq!(checkpoint, again);
        }
    }
}
