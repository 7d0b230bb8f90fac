//! `.bpk` files, written here by Burn's own writer, are the models they were made of.

use burn_pack::{Bytes, DType, Tensor, Writer};
use edge_tests::{fixture, read, resnet};
use network::checkpoint::Checkpoint;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use zoo::torch::to_safetensors;
use zoo::{Head, load};

/// A tensor's name, shape and numbers.
type Named = (String, Vec<usize>, Vec<u8>);

/// The model as a `.bpk` file; `change` may rename its tensors and turn them.
fn packed(checkpoint: &Checkpoint, change: impl Fn(&str, &TensorView<'_>) -> Named) -> Vec<u8> {
    let state_dict = to_safetensors(checkpoint).unwrap();
    let mut tensors = SafeTensors::deserialize(&state_dict).unwrap().tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let tensors = tensors.iter().map(|(name, view)| {
        let (name, shape, data) = change(name, view);
        Tensor::new(name, DType::F32, shape, None, Bytes::from_bytes_vec(data))
    });
    Writer::new(tensors.collect()).into_bytes().unwrap().to_vec()
}

fn unchanged(name: &str, view: &TensorView<'_>) -> Named {
    (name.into(), view.shape().to_vec(), view.data().to_vec())
}

/// As Burn's modules of torchvision's networks are named.
fn as_in_burn(name: &str, view: &TensorView<'_>) -> Named {
    let (layer, part) = name.rsplit_once('.').unwrap();
    let of_norm = layer.contains("bn") || layer.ends_with("downsample.1");
    let part = match part {
        "weight" if of_norm => "gamma",
        "bias" if of_norm => "beta",
        other => other,
    };
    let layer = layer.replace("downsample.0", "downsample.conv");
    let layer = layer.replace("downsample.1", "downsample.bn");
    let layer = match layer.split_once('.') {
        Some((stack, rest)) if stack.starts_with("layer") => format!("{stack}.blocks.{rest}"),
        _ => layer,
    };
    let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
    if let [outputs, inputs] = shape[..] {
        let number = |i, o| &view.data()[4 * (o * inputs + i)..][..4];
        let column = |i| (0..outputs).flat_map(move |o| number(i, o).iter().copied());
        data = (0..inputs).flat_map(column).collect();
        shape = vec![inputs, outputs];
    }
    (format!("{layer}.{part}"), shape, data)
}

fn import(bytes: &[u8]) -> Result<Checkpoint, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bpk");
    std::fs::write(&path, bytes).unwrap();
    load(&path, Head::Required).map_err(|e| e.to_string())
}

#[test]
fn both_ways_of_naming_are_read() {
    for model in ["v1_basic", "v1_bottleneck", "vd_bottleneck"] {
        let preset = load(&fixture(format!("keras/{model}/preset")), Head::Required).unwrap();
        let torch = import(&packed(&preset, unchanged)).unwrap();
        assert!(torch.tensors == preset.tensors, "{model}");
        assert_eq!(resnet(&torch).block_type, resnet(&preset).block_type);
        if model != "vd_bottleneck" {
            let burn = import(&packed(&preset, as_in_burn)).unwrap();
            assert!(burn == torch, "{model}");
        }
    }
}

/// `fixtures/burn/tiny.bpk` is what Burn's writer makes of `fixtures/torch/tiny.pt`.
#[test]
fn the_fixture_is_burns() {
    let tiny = load(&fixture("torch/tiny.pt"), Head::Required).unwrap();
    assert!(packed(&tiny, unchanged) == read("burn/tiny.bpk"));
    assert!(import(&read("burn/tiny.bpk")).unwrap().tensors == tiny.tensors);
}

#[test]
fn what_does_not_fit_is_listed() {
    let tiny = load(&fixture("torch/tiny.pt"), Head::Required).unwrap();
    let renamed = packed(&tiny, |name, view| {
        let (name, shape, data) = unchanged(name, view);
        (name.replace("layer1.0.bn1.bias", "layer1.0.bn9.bias"), shape, data)
    });
    let error = import(&renamed).unwrap_err();
    assert!(error.contains("`stack0_block0_1_bn.beta` [4] is missing"), "{error}");
    let mut newer = packed(&tiny, unchanged);
    newer[4] = 2;
    assert!(import(&newer).unwrap_err().contains("burnpack version 2"));
}
