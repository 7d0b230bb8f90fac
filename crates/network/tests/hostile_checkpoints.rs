//! Checkpoints that are cut, damaged or forged: a clear error with the path in it, and no
//! more memory than the file's own size calls for.
#![expect(unsafe_code, reason = "measuring allocations needs a global allocator")]

mod counting;

use artifact::Preprocess;
use network::architecture::Architecture;
use network::architecture::resnet::ResNetConfig;
use network::checkpoint::{Checkpoint, Draft, Sample, Tensor, VERSION};

const PATH: &str = "models/forged.mpk";

fn resnet(draft: &mut Draft) -> &mut ResNetConfig {
    draft.config.family.resnet_mut().unwrap()
}

/// The smallest network that has every kind of tensor.
fn sound() -> Draft {
    let mut config = Architecture::by_name("resnet_8_cifar", 2).unwrap();
    let family = config.family.resnet_mut().unwrap();
    family.input_conv_filters = vec![2];
    family.stackwise_num_filters = vec![2, 3];
    family.stackwise_num_blocks = vec![1, 1];
    family.stackwise_num_strides = vec![1, 2];
    let half = |(name, shape): (String, Vec<usize>)| {
        let values = vec![0.5; shape.iter().product()];
        (name, Tensor::from_f32(&shape, &values))
    };
    let tensors = config.blueprint().tensors().map(half).collect();
    let preprocess = Preprocess::normalized(8, 8, [0.5; 3], [0.25; 3]);
    let samples = vec![Sample { label: 1, png: vec![1, 2, 3] }];
    Draft { samples, ..Draft::new(config, vec!["cat".into(), "dog".into()], preprocess, tensors) }
}

fn bytes(draft: &Draft) -> Vec<u8> {
    rmp_serde::to_vec_named(draft).unwrap()
}

/// The error's text, which must name the file.
fn error_of(bytes: &[u8]) -> String {
    let text = Checkpoint::from_bytes(bytes, PATH).expect_err("accepted").to_string();
    assert!(text.starts_with(PATH) && text.len() > PATH.len() + 8, "{text}");
    text
}

/// The error of a checkpoint after `spoil`.
fn refused(spoil: impl FnOnce(&mut Draft)) -> String {
    let mut checkpoint = sound();
    spoil(&mut checkpoint);
    error_of(&bytes(&checkpoint))
}

fn tensor<'a>(checkpoint: &'a mut Draft, name: &str) -> &'a mut Tensor {
    checkpoint.tensors.get_mut(name).unwrap()
}

/// Bytes allocated while reading, in all.
fn allocated(bytes: &[u8]) -> usize {
    counting::allocated(|| Checkpoint::from_bytes(bytes, PATH)).0
}

#[test]
fn sound_checkpoint_is_accepted() {
    let checkpoint = sound();
    assert_eq!(
        Checkpoint::from_bytes(&bytes(&checkpoint), PATH).unwrap(),
        checkpoint.check().unwrap()
    );
}

#[test]
fn no_bytes_and_eight_bytes() {
    assert!(error_of(&[]).contains("truncated"));
    assert!(error_of(&bytes(&sound())[..8]).contains("truncated"));
}

#[test]
fn truncated_at_every_byte() {
    let whole = bytes(&sound());
    for len in 0..whole.len() {
        error_of(&whole[..len]);
    }
}

#[test]
fn bit_flips_never_panic() {
    let mut file = bytes(&sound());
    let limit = 64 * file.len() + (8 << 20);
    for bit in 0..file.len() * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        let (asked, result) = counting::allocated(|| Checkpoint::from_bytes(&file, PATH));
        if let Err(error) = result {
            assert!(error.to_string().starts_with(PATH), "{error}");
        }
        assert!(asked < limit, "bit {bit}: {asked} bytes");
        file[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn wrong_format_and_version() {
    assert!(refused(|c| c.format = "other.mpk".into()).contains("other.mpk"));
    assert!(refused(|c| c.version = VERSION + 1).contains("update"));
    assert!(refused(|c| c.version = u32::MAX).contains("update"));
    // A well-known file of another kind.
    error_of(b"\x89PNG\r\n\x1a\n0000");
    error_of(b"<!DOCTYPE html><html>");
}

#[test]
fn sizes_and_samples_beyond_what_is_read() {
    for side in [1025, 20_000, 65_535] {
        assert!(refused(|c| c.preprocess.width = side).contains("at most 1024 a side"));
        assert!(refused(|c| c.preprocess.height = side).contains("at most 1024 a side"));
    }
    let text = refused(|c| {
        (c.preprocess.height, c.preprocess.width) = (1024, 1024);
        c.samples = vec![Sample { label: 0, png: Vec::new() }; 86];
    });
    assert!(text.contains("86 stored samples"), "{text}");
}

#[test]
fn missing_tensor() {
    let text = refused(|c| {
        c.tensors.remove("predictions.bias");
    });
    assert!(text.contains("predictions.bias") && text.contains("missing"), "{text}");
}

#[test]
fn tensor_of_the_wrong_shape() {
    for shape in [vec![], vec![0], vec![3], vec![2, 1], vec![usize::MAX, 2], vec![1 << 40; 4]] {
        let text = refused(|c| tensor(c, "predictions.bias").shape = shape);
        assert!(text.contains("predictions.bias") && text.contains("expected [2]"), "{text}");
    }
}

#[test]
fn tensor_of_the_wrong_length() {
    for len in [0, 1, 7, 9, 4096] {
        let text = refused(|c| tensor(c, "predictions.bias").data.resize(len, 0));
        assert!(text.contains("predictions.bias"), "{text}");
    }
}

#[test]
fn weights_that_are_no_numbers() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let text = refused(|c| {
            tensor(c, "conv1_conv.weight").data[..4].copy_from_slice(&bad.to_le_bytes());
        });
        assert!(text.contains("conv1_conv.weight") && text.contains("NaN"), "{text}");
    }
}

#[test]
fn label_count_differs_from_the_classes() {
    assert!(refused(|c| c.labels.truncate(1)).contains("1 labels for 2 classes"));
    assert!(refused(|c| c.labels.push("bird".into())).contains("3 labels for 2 classes"));
    assert!(refused(|c| c.labels.clear()).contains("0 labels for 2 classes"));
    assert!(refused(|c| c.config.classes = usize::MAX).contains("classes"));
}

#[test]
fn empty_and_long_labels() {
    assert!(refused(|c| c.labels[1].clear()).contains("label 1"));
    assert!(refused(|c| c.labels[0] = "x".repeat(65_536)).contains("label 0"));
}

#[test]
fn labels_that_are_not_utf8() {
    let mut file = bytes(&sound());
    let at = file.windows(3).position(|w| w == b"dog").unwrap();
    file[at] = 0xff;
    error_of(&file);
}

#[test]
fn preprocessing_that_is_no_number_or_empty() {
    assert!(refused(|c| c.preprocess.scale[0] = f32::NAN).contains("preprocessing"));
    assert!(refused(|c| c.preprocess.height = 0).contains("preprocessing"));
}

#[test]
fn architectures_out_of_range() {
    refused(|c| resnet(c).input_conv_filters = vec![usize::MAX]);
    refused(|c| resnet(c).input_conv_kernel_sizes = vec![2]);
    refused(|c| resnet(c).stackwise_num_filters = vec![0, 3]);
    refused(|c| resnet(c).stackwise_num_blocks = vec![1, usize::MAX]);
    refused(|c| resnet(c).stackwise_num_strides = vec![1, 0]);
    refused(|c| resnet(c).stackwise_num_strides.clear());
    refused(|c| resnet(c).stem_stride = 0);
}

#[test]
fn families_are_told_apart() {
    let mut written = serde_json::to_value(sound().config).unwrap();
    // As all files were before there were others.
    assert_eq!(written.get("family"), None);
    let read = |value| serde_json::from_value::<Architecture>(value).map_err(|e| e.to_string());
    assert_eq!(read(written.clone()), Ok(sound().config));
    written["family"] = "resnext".into();
    assert!(read(written.clone()).unwrap_err().contains("family `resnext`"));
    written.as_object_mut().unwrap().remove("family");
    written["stem_stride"] = "two".into();
    assert!(read(written).unwrap_err().contains("expected usize"));
}

#[test]
fn architecture_of_very_many_stacks() {
    // A few bytes per stack announce hundreds of layers each, which nobody must expand.
    let mut checkpoint = sound();
    let family = resnet(&mut checkpoint);
    family.stackwise_num_filters = vec![2; 2000];
    family.stackwise_num_blocks = vec![256; 2000];
    family.stackwise_num_strides = vec![1; 2000];
    let file = bytes(&checkpoint);
    error_of(&file);
    let asked = allocated(&file);
    assert!(asked < 4 << 20, "{asked} bytes for a file of {}", file.len());
}

#[test]
fn forged_lengths_allocate_little() {
    let small = bytes(&sound());
    let usual = allocated(&small);
    // Every marker with a length of 16 or 32 bits (bin, ext, str, array, map), laid over every
    // byte of a sound file: what follows it is far shorter than it claims.
    let markers = [0xc5, 0xc6, 0xc8, 0xc9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf];
    for at in 0..small.len().saturating_sub(5) {
        for marker in markers {
            let mut file = small.clone();
            file[at] = marker;
            file[at + 1..at + 5].fill(0xff);
            let asked = allocated(&file);
            assert!(asked < usual + (8 << 20), "{asked} bytes for {marker:#x} at {at}");
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    for marker in [0x91, 0x81] {
        error_of(&vec![marker; 1 << 20]);
    }
}

#[test]
fn file_that_is_missing_or_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none.mpk"), folder.path().to_path_buf()] {
        let text = Checkpoint::load(&path).unwrap_err().to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
    }
}
