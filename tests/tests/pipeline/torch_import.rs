//! State dicts of PyTorch compute here what they compute there.

use artifact::Preprocess;
use convert::optimize::optimize;
use edge_tests::{changed, fixture, npy, read, resnet};
use network::architecture::resnet::BlockType;
use network::checkpoint::{Assumption, Checkpoint, TrainingRecord};
use network::evaluate::evaluate;
use zoo::torch::to_safetensors;
use zoo::{Head, Hints, Imported, load, open_any};

fn import(file: &str) -> Result<Checkpoint, String> {
    load(&fixture(file), Head::Required).map_err(|e| e.to_string())
}

#[test]
fn both_formats_of_torch_save_match_pytorch() {
    let (_, picture) = npy("torch/input.npy");
    let (_, logits) = npy("torch/logits.npy");
    for (file, tolerance) in [
        ("tiny.pt", 1e-5),
        ("tiny.th", 1e-5),
        ("tiny_half.pt", 0.02),
        ("training.pt", 1e-5),
        ("training.pth.tar", 1e-5),
    ] {
        let checkpoint = import(&format!("torch/{file}")).unwrap();
        assert_eq!(resnet(&checkpoint).stackwise_num_blocks, [1, 2, 1]);
        let line = Assumption::line(&checkpoint.assumed).unwrap();
        let average = "the weights under `last.network.module`, not `state_dict_ema.module`";
        assert_eq!(line.contains(average), file.starts_with("training"), "{line}");
        assert_eq!((checkpoint.preprocess.height, resnet(&checkpoint).stem_pool), (32, false));
        let mut graph = checkpoint.graph().unwrap();
        optimize(&mut graph);
        for (a, b) in evaluate(&graph, &picture).iter().zip(&logits) {
            assert!((a - b).abs() <= tolerance, "{file}: {a}, PyTorch has {b}");
        }
    }
}

/// The golden ResNets under timm's names are those under Keras' names.
#[test]
fn timm_names_are_known() {
    for model in ["v1_basic", "v2_bottleneck", "vd_bottleneck"] {
        let torch = import(&format!("keras/{model}/weights_timm_names.safetensors")).unwrap();
        let keras = import(&format!("keras/{model}/preset")).unwrap();
        assert!(torch.tensors == keras.tensors, "{model}: other tensors");
        let (t, k) = (resnet(&torch), resnet(&keras));
        assert_eq!((t.block_type, t.use_pre_activation), (k.block_type, k.use_pre_activation));
        assert_eq!(t.stackwise_num_strides, k.stackwise_num_strides);
        assert_eq!(
            torch.preprocess,
            Preprocess::normalized(224, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225],)
        );
    }
    let vd = import("keras/vd_bottleneck/weights_timm_names.safetensors").unwrap();
    assert_eq!(resnet(&vd).block_type, BlockType::BottleneckBlockVd);
}

/// What is written as a state dict is read again, with labels and preprocessing.
#[test]
fn state_dicts_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let back = dir.path().join("back.safetensors");
    let ours = fixture("../../models/resnet_8_cifar10.mpk");
    let presets = ["v1_basic", "v1_bottleneck", "v2_bottleneck", "vd_bottleneck"];
    let presets = presets.map(|model| fixture(format!("keras/{model}/preset")));
    for path in presets.into_iter().chain([fixture("torch/tiny.pt"), ours]) {
        // The rest is what a state dict does not hold.
        let checkpoint = changed(load(&path, Head::Required).unwrap(), |draft| {
            draft.config.name = "back".into();
            draft.samples.clear();
            draft.assumed.clear();
            draft.training = TrainingRecord::default();
        });
        std::fs::write(&back, to_safetensors(&checkpoint).unwrap()).unwrap();
        assert!(load(&back, Head::Required).unwrap() == checkpoint, "{}", path.display());
    }
    let legacy = import("keras_legacy/even.h5").unwrap();
    let error = to_safetensors(&legacy).unwrap_err().to_string();
    assert!(error.contains("TensorFlow's padding"), "{error}");
}

/// A state dict runs at any size; its own is a guess.
#[test]
fn the_input_size_is_whatever_is_asked_for() {
    for (file, side) in [("torch/tiny.pt", 48), ("keras/v1_basic/preset", 64)] {
        let hints = Hints { size: Some(side), ..Hints::default() };
        let Imported::Checkpoint(c) = open_any(&fixture(file), Head::Required, &hints).unwrap()
        else {
            panic!("{file} is no checkpoint")
        };
        assert_eq!((c.preprocess.height, c.preprocess.width), (side, side), "{file}");
        let graph = c.graph().unwrap();
        assert_eq!((graph.input_shape().h, graph.input_shape().w), (side, side));
        assert!(!Assumption::line(&c.assumed).is_some_and(|line| line.contains("pixels")));
    }
    // Pictures of the old size are of no use.
    let ours = fixture("../../models/resnet_8_cifar10.mpk");
    let hints = Hints { size: Some(40), ..Hints::default() };
    let Imported::Checkpoint(c) = open_any(&ours, Head::Required, &hints).unwrap() else {
        panic!("no checkpoint")
    };
    assert_eq!((c.preprocess.height, c.samples.len()), (40, 0));
    // A graph has the size that its file says.
    let hints = Hints { size: Some(33), ..Hints::default() };
    let tflite = fixture("tflite/int8.tflite");
    let error = open_any(&tflite, Head::Required, &hints).unwrap_err().to_string();
    assert!(error.contains("--input-size 33 cannot change"), "{error}");
    // What the file says itself is not said otherwise in silence.
    let hints = Hints { stem_pool: Some(true), ..Hints::default() };
    for file in ["tflite/int8.tflite", "keras_legacy/even.h5"] {
        let error = open_any(&fixture(file), Head::Required, &hints).unwrap_err().to_string();
        assert!(error.contains("--stem-pool is for state dicts"), "{error}");
    }
}

#[test]
fn what_is_no_state_dict_is_refused() {
    let error = import("torch/module.pt").unwrap_err();
    assert!(error.contains("`torch.nn.modules.container.Sequential`"), "{error}");
    assert!(
        error.contains(".state_dict(), \"weights.pth\")") && error.contains("module.pt"),
        "{error}"
    );

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.bin");
    for file in ["torch/tiny.pt", "torch/tiny.th", "keras/v1_basic/weights_timm_names.safetensors"]
    {
        let whole = read(file);
        // Densely at the start, where the headers are, and then here and there.
        let cuts = (0..2000).chain((2000..whole.len()).step_by(997));
        for cut in cuts.filter(|c| *c < whole.len()) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(load(&path, Head::Required).is_err(), "{file} cut to {cut} bytes");
        }
        for bit in (0..16_000).step_by(7).chain((16_000..whole.len() * 8).step_by(7919)) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            // Weights may differ; what is accepted must be consistent.
            if let Ok(checkpoint) = load(&path, Head::Required) {
                checkpoint.into_draft().check().unwrap();
            }
        }
    }
}
