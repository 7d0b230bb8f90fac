//! From a network of colors to one of luma.
//!
//! Of a grey picture with luma `l`, channel `c` of the input is `l · scale[c] + offset[c]`, so that a
//! filter's tap adds `l · Σ w[c] · scale[c] + Σ w[c] · offset[c]`. The first sum is the tap's only weight,
//! divided by the scale of luma; the second, less what luma's own offset adds, is the same for every
//! pixel, and the batch-norm behind takes it off its mean.

use network::blueprint::LayerOp;
use network::checkpoint::{Checkpoint, Tensor};

/// A network whose input is the luma of pictures. Of grey ones it computes the same as before, but for
/// windows that leave the picture where the channels have different means: there, one padding stands
/// for three.
///
/// # Errors
/// A network that cannot be changed so, as text.
pub fn make_grey(checkpoint: Checkpoint) -> Result<Checkpoint, String> {
    if checkpoint.config.channels == 1 {
        return Ok(checkpoint);
    }
    checkpoint.edit(|draft| {
        let net = draft.config.blueprint();
        let (stem, conv) = net.convs().next().ok_or("it has no convolution")?;
        let norm = net.layers.iter().find(|layer| layer.op == LayerOp::BatchNorm);
        draft.config.channels = 1;
        let (colors, luma) = (draft.preprocess, draft.config.preprocess(draft.preprocess));
        draft.preprocess = luma;
        let filters = draft.tensors.get_mut(&format!("{}.weight", stem.name));
        let filters = filters.ok_or("it has no first layer")?;
        let (mut weights, mut added) = (Vec::new(), vec![0.0; conv.c_out]);
        let (values, filter) = (filters.to_f32(), conv.window.filter);
        for (tap, w) in values.as_chunks::<3>().0.iter().enumerate() {
            let sum =
                |by: [f32; 3]| (0..3).map(|c| f64::from(w[c]) * f64::from(by[c])).sum::<f64>();
            let weight = sum(colors.scale) / f64::from(luma.scale[0]);
            added[tap / (filter * filter)] +=
                sum(colors.offset) - weight * f64::from(luma.offset[0]);
            weights.push(weight as f32);
        }
        *filters = Tensor::from_f32(&[conv.c_out, filter, filter, 1], &weights);
        // The first batch-norm takes it off: the stem's, or the first block's.
        let mean = norm.and_then(|norm| draft.tensors.get_mut(&format!("{}.mean", norm.name)));
        if let Some(mean) = mean {
            let less = |(mean, added): (&f32, &f64)| (f64::from(*mean) - added) as f32;
            let means: Vec<f32> = mean.to_f32().iter().zip(&added).map(less).collect();
            *mean = Tensor::from_f32(&[means.len()], &means);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::to_planes;
    use crate::train::network;
    use artifact::Preprocess;
    use burn::tensor::{Device, Tensor as BurnTensor, TensorData};
    use network::architecture::Architecture;
    use network::init::random_checkpoint;
    use network::random::Rng;
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
            let config = Architecture::named(name, 5).unwrap();
            let checkpoint = random_checkpoint(config, 32, 7).unwrap().edit(|draft| {
                draft.preprocess = Preprocess::normalized(32, 32, means, [0.25, 0.2, 0.3]);
                Ok(())
            });
            let checkpoint = checkpoint.unwrap();
            let before = logits(&checkpoint);
            let checkpoint = make_grey(checkpoint).unwrap();
            assert!(checkpoint.preprocess.grey);
            let largest = before.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            for (a, b) in logits(&checkpoint).iter().zip(&before) {
                assert!((a - b).abs() <= bound * largest, "{name}: {a}, before {b} of {largest}");
            }
            assert_eq!(make_grey(checkpoint.clone()).unwrap(), checkpoint);
        }
    }
}
