//! Directories of timm, as its `push_to_hf_hub` writes them: `config.json` and
//! `model.safetensors`.

use super::keras::json;
use super::{ImportError, imagenet, torch};
use crate::checkpoint::Checkpoint;
use artifact::{Interpolation, Preprocess};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Config {
    architecture: String,
    pretrained_cfg: Pretrained,
    #[serde(alias = "labels")]
    label_names: Option<Vec<String>>,
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
pub(super) fn folder(dir: &Path) -> Result<Checkpoint, ImportError> {
    let config_path = dir.join("config.json");
    let config: Config = json(&config_path)?;
    if !is_plain_resnet(&config.architecture) {
        let name = config.architecture.escape_debug();
        return Err(ImportError::unsupported(
            &config_path,
            format!(
                "the architecture `{name}`, but of timm's only ResNets such as resnet18, resnet50d \
                 or resnetv2_50 are imported"
            ),
        ));
    }
    let weights = dir.join("model.safetensors");
    let bytes = std::fs::read(&weights)
        .map_err(|source| ImportError::Io { path: weights.display().to_string(), source })?;
    let mut checkpoint = torch::state_dict(&weights, &bytes)?;
    let canonical = dir.canonicalize().ok();
    let name = canonical.as_deref().and_then(Path::file_name).unwrap_or_default();
    checkpoint.config.name = name.to_string_lossy().into_owned();
    let p = config.pretrained_cfg;
    let [_, height, width] = p.input_size;
    let normalized = Preprocess::normalized(height, width, p.mean, p.std);
    checkpoint.preprocess = Preprocess {
        interpolation: match p.interpolation.as_str() {
            "nearest" => Interpolation::Nearest,
            "bicubic" => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        },
        antialias: false,
        ..checkpoint.config.preprocess(normalized)
    };
    if !checkpoint.preprocess.is_valid() {
        let what = "an empty input_size, or a mean or std that is no number or zero";
        return Err(ImportError::unsupported(&config_path, what));
    }
    let classes = checkpoint.config.classes;
    checkpoint.labels = config.label_names.unwrap_or_else(|| imagenet::labels_of(classes));
    checkpoint.check().map_err(|what| ImportError::unsupported(dir, what))?;
    Ok(checkpoint)
}

/// Whether the tensors of an architecture say all about it: variants with other poolings,
/// attention or normalization can have the same names.
fn is_plain_resnet(architecture: &str) -> bool {
    let depth = match architecture.strip_prefix("resnetv2_") {
        Some(depth) => depth,
        None => {
            let rest = architecture.strip_prefix("resnet").unwrap_or_default();
            rest.strip_suffix('d').unwrap_or(rest)
        }
    };
    !depth.is_empty() && depth.bytes().all(|b| b.is_ascii_digit())
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
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/keras");
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("resnet10.tiny");
        std::fs::create_dir(&dir).unwrap();
        let weights = fixtures.join("v1_basic/weights_timm_names.safetensors");
        std::fs::copy(weights, dir.join("model.safetensors")).unwrap();
        write(&dir, "resnet10", "");
        let load = || super::super::load(&dir, super::super::Head::Required);
        let checkpoint = load().unwrap();
        let keras = super::super::keras::preset(
            &fixtures.join("v1_basic/preset"),
            super::super::Head::Required,
        );
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
        for plain in ["resnet18", "resnet50d", "resnetv2_101"] {
            assert!(is_plain_resnet(plain), "{plain}");
        }
        let dir = tempfile::tempdir().unwrap();
        for other in ["resnetblur50", "seresnet50", "resnet50_gn", "resnetv2_50d_evos", "vit", ""] {
            write(dir.path(), other, "");
            let error = folder(dir.path()).unwrap_err().to_string();
            assert!(error.contains("config.json") && error.contains(&format!("`{other}`")));
            assert!(error.contains("resnetv2_50 are imported"), "{error}");
        }
    }
}
