//! Directories of timm, as its `push_to_hf_hub` writes them: `config.json` and
//! `model.safetensors` or `pytorch_model.bin`.

use super::families::{is_mobilenet, rules};
use super::{folder_name, torch_weights};
use crate::json;
use crate::{Head, Hints, ImportError, torch};
use artifact::text::AsPlain;
use artifact::{Interpolation, Preprocess};
use network::blueprint::Pooling;
use network::checkpoint::Checkpoint;
use network::imagenet;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Config {
    architecture: String,
    pretrained_cfg: Pretrained,
    #[serde(alias = "labels")]
    label_names: Option<Vec<String>>,
    /// `avg`, or what was chosen instead.
    global_pool: Option<String>,
    /// What was changed of the architecture.
    #[serde(default)]
    model_args: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Pretrained {
    /// Channels, height, width.
    input_size: [u16; 3],
    interpolation: String,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Reads a directory; the input is prepared as KerasHub does for such a model: cropped to the
/// aspect, whatever `crop_pct` says, and resized without antialias.
pub(crate) fn folder(dir: &Path, head: Head, hints: &Hints) -> Result<Checkpoint, ImportError> {
    let config_path = dir.join("config.json");
    let config: Config = json(&config_path)?;
    let refused = |what: String| Err(ImportError::unsupported(&config_path, what));
    if !is_plain_resnet(&config.architecture) && !is_mobilenet(&config.architecture) {
        return refused(format!(
            "the architecture `{}`, but of timm's only ResNets such as resnet18, resnet50d, \
             wide_resnet50_2 or resnetv2_50, and MobileNets and EfficientNets such as \
             mobilenetv2_100, mobilenetv3_small_100, tf_efficientnet_b0 or efficientnet_lite0 are \
             imported",
            config.architecture.plain()
        ));
    }
    let known = ["num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate"];
    let is_default = |(name, value): &(&String, &Value)| {
        known.contains(&name.as_str()) || name.as_str() == "output_stride" && **value == 32
    };
    if let Some((name, value)) = config.model_args.iter().find(|arg| !is_default(arg)) {
        let (name, value) = (name.plain(), value.to_string());
        return refused(format!(
            "the argument `{name}` ({}), which changes what the tensors do not show; as ONNX \
             (torch.onnx.export) it is read as it is",
            value.plain()
        ));
    }
    let pool = config.model_args.get("global_pool").and_then(Value::as_str);
    let pooling = match pool.or(config.global_pool.as_deref()) {
        None | Some("avg" | "" | "fast") => Pooling::Avg,
        Some("max") => Pooling::Max,
        Some(other) => {
            return refused(format!("pooling `{}`, but avg or max is read", other.plain()));
        }
    };
    let (weights, bytes) = torch_weights(dir)?;
    let told = Some(rules(&config.architecture));
    let mut draft = torch::ruled(&weights, &bytes, head, hints, told)?.into_draft();
    // The architecture says it.
    draft.assumed.clear();
    draft.config.pooling = pooling;
    draft.config.name = folder_name(dir);
    let p = config.pretrained_cfg;
    let [_, height, width] = p.input_size;
    let normalized = Preprocess::normalized(height, width, p.mean, p.std);
    draft.preprocess = Preprocess {
        interpolation: match p.interpolation.as_str() {
            "nearest" => Interpolation::Nearest,
            "bicubic" => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        },
        antialias: false,
        ..draft.config.preprocess(normalized)
    };
    if !draft.preprocess.is_valid() {
        let what = "an empty input_size, or a mean or std that is no number or zero";
        return Err(ImportError::unsupported(&config_path, what));
    }
    let classes = draft.config.classes;
    // Without a head, there is nothing to name.
    let names = config.label_names.filter(|_| classes > 1);
    draft.labels = names.unwrap_or_else(|| imagenet::labels_of(classes));
    draft.check().map_err(|what| ImportError::unsupported(dir, what))
}

/// Whether the tensors of an architecture say all about it: variants with other poolings,
/// attention or normalization can have the same names.
fn is_plain_resnet(architecture: &str) -> bool {
    let kinds = [("resnetv2_", ""), ("wide_resnet", "_2"), ("tv_resnet", ""), ("resnet", "")];
    let depth = kinds
        .iter()
        .find_map(|(before, after)| architecture.strip_prefix(before)?.strip_suffix(after));
    // Of version 2 a deep stem and a mean before the shortcut are not read.
    let stems: &[char] =
        if architecture.starts_with("resnetv2_") { &[] } else { &['c', 'd', 's', 't'] };
    let depth = depth.map(|depth| depth.strip_suffix(stems).unwrap_or(depth));
    depth.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, architecture: &str, more: &str) {
        let config = format!(
            r#"{{"architecture": "{architecture}", "num_classes": 5, {more} "pretrained_cfg": {{
                "input_size": [3, 96, 64], "interpolation": "bicubic", "crop_pct": 0.95,
                "mean": [0.5, 0.25, 0.5], "std": [0.5, 0.5, 0.25]}}}}"#
        );
        std::fs::write(dir.join("config.json"), config).unwrap();
    }

    #[test]
    fn a_folder_of_timm_has_its_own_preprocessing() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras");
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("resnet10.tiny");
        std::fs::create_dir(&dir).unwrap();
        let weights = fixtures.join("v1_basic/weights_timm_names.safetensors");
        std::fs::copy(weights, dir.join("model.safetensors")).unwrap();
        write(&dir, "resnet10", "");
        let load = || crate::load(&dir, crate::Head::Required);
        let checkpoint = load().unwrap();
        let keras = crate::keras::preset(&fixtures.join("v1_basic/preset"), crate::Head::Required);
        assert!(checkpoint.tensors == keras.unwrap().tensors);
        assert_eq!(checkpoint.config.name, "resnet10.tiny");
        let p = checkpoint.preprocess;
        assert_eq!((p.height, p.width, p.antialias), (96, 64, false));
        assert_eq!(p.interpolation, Interpolation::Bicubic);
        assert_eq!(p.scale, [0.5, 0.5, 0.25].map(|std| 1.0 / (255.0 * std)));
        assert_eq!(p.offset, [-1.0, -0.5, -2.0]);

        let names: Vec<String> = (0..checkpoint.config.classes).map(|i| format!("n{i}")).collect();
        write(&dir, "resnet10", &format!("\"label_names\": {names:?},"));
        assert_eq!(load().unwrap().labels, names);
        write(&dir, "resnet10", "\"label_names\": [\"one\"],");
        assert!(load().unwrap_err().to_string().contains("resnet10.tiny"));
    }

    #[test]
    fn other_architectures_with_such_names_are_refused() {
        for plain in
            ["resnet18", "resnet50d", "resnet14t", "resnet101s", "wide_resnet50_2", "resnetv2_101"]
        {
            assert!(is_plain_resnet(plain), "{plain}");
        }
        let dir = tempfile::tempdir().unwrap();
        for other in [
            "resnetblur50",
            "resnetaa50d",
            "seresnet50",
            "resnet50_gn",
            "resnetv2_50d",
            "resnext50",
            "mobilenetv1_100h",
            "mobilenetv3_rw",
            "mnasnet_100",
            "efficientnet_b1_pruned",
            "efficientnet_blur_b0",
            "tf_efficientnet_cc_b0_4e",
            "tf_efficientnetv2_b0",
            "vit",
            "",
        ] {
            write(dir.path(), other, "");
            let error =
                folder(dir.path(), Head::Required, &Hints::default()).unwrap_err().to_string();
            assert!(error.contains("config.json") && error.contains(&format!("`{other}`")));
            assert!(error.contains("efficientnet_lite0 are imported"), "{error}");
        }
    }
}
