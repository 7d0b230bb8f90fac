//! Directories of transformers' ResNets and MobileNets, as `save_pretrained` writes them: `config.json`, weights, and
//! `preprocessor_config.json`.

use super::families::Rules;
use super::{folder_name, torch_weights};
use crate::json;
use crate::{Head, Hints, ImportError, torch};
use artifact::text::AsPlain;
use artifact::{Interpolation, Preprocess};
use network::architecture::resnet::BottleneckStride;
use network::checkpoint::{Assumption, Checkpoint};
use network::imagenet;
use network::padding::ConvPadding;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Config {
    model_type: String,
    #[serde(default = "relu")]
    hidden_act: String,
    #[serde(default)]
    downsample_in_first_stage: bool,
    #[serde(default)]
    downsample_in_bottleneck: bool,
    #[serde(default)]
    depths: Vec<usize>,
    /// Of MobileNets.
    #[serde(default = "yes")]
    tf_padding: bool,
    /// ε of their batch-norms.
    layer_norm_eps: Option<f64>,
    /// Less than 32 where later blocks are dilated.
    output_stride: Option<usize>,
    #[serde(default)]
    id2label: BTreeMap<usize, String>,
}

fn relu() -> String {
    "relu".into()
}

#[derive(Deserialize)]
struct Processor {
    size: Value,
    #[serde(default)]
    crop_size: Value,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    #[serde(default = "yes")]
    do_normalize: bool,
    /// Pillow's number of a filter.
    resample: Option<u8>,
}

fn yes() -> bool {
    true
}

/// Reads a directory; the input is prepared as for timm's models: cropped to the aspect, whatever
/// `crop_pct` says.
pub(crate) fn folder(dir: &Path, head: Head, hints: &Hints) -> Result<Checkpoint, ImportError> {
    let config_path = dir.join("config.json");
    let config: Config = json(&config_path)?;
    let refused = |what: String| Err(ImportError::unsupported(&config_path, what));
    let activation = match config.model_type.as_str() {
        "resnet" => "relu",
        "mobilenet_v1" | "mobilenet_v2" => "relu6",
        other => {
            return refused(format!(
                "the architecture `{}`, but of transformers' only resnet, mobilenet_v1 and \
                 mobilenet_v2 are imported; this makes ONNX of it: optimum-cli export onnx --model \
                 {} onnx",
                other.plain(),
                dir.display()
            ));
        }
    };
    if config.hidden_act != activation {
        let name = config.hidden_act.plain();
        return refused(format!("the activation `{name}`, but only {activation} is read"));
    }
    if let Some(stride) = config.output_stride.filter(|stride| *stride != 32) {
        return refused(format!("output_stride {stride}, which dilates, but only 32 is read"));
    }
    let (told, rules) = told(&config, hints);
    let (weights, bytes) = torch_weights(dir)?;
    let mut draft = torch::ruled(&weights, &bytes, head, &told, rules)?.into_draft();
    draft.config.name = folder_name(dir);
    draft.assumed.retain(|a| a.option == Assumption::STATISTICS || a.option == Hints::SIZE);
    let processor = dir.join("preprocessor_config.json");
    if processor.is_file() {
        draft.preprocess =
            preprocess(json(&processor)?).filter(Preprocess::is_valid).ok_or_else(|| {
                ImportError::unsupported(&processor, "no size, or a mean or std of zero")
            })?;
        draft.assumed.clear();
    }
    let classes = draft.config.classes;
    // Names that nobody gave are numbered.
    let is_named = |label: &String| !label.starts_with("LABEL_");
    if config.id2label.len() == classes && config.id2label.values().any(is_named) {
        draft.labels = config.id2label.into_values().collect();
    } else {
        draft.labels = imagenet::labels_of(classes);
    }
    draft.check().map_err(|what| ImportError::unsupported(dir, what))
}

/// What a config says that tensors do not show.
fn told(config: &Config, hints: &Hints) -> (Hints, Option<Rules>) {
    if config.model_type != "resnet" {
        let padding = match config.tf_padding {
            true => ConvPadding::Same,
            false => ConvPadding::Symmetric,
        };
        let epsilon = config.layer_norm_eps.filter(|e| *e > 0.0).unwrap_or(1e-3);
        return (hints.clone(), Some(Rules { padding, epsilon }));
    }
    let strided = |stack: usize| u8::from(stack > 0 || config.downsample_in_first_stage) + 1;
    let told = Hints {
        stem_pool: Some(true),
        stem_stride: Some(2),
        stack_strides: Some((0..config.depths.len()).map(strided).collect()),
        bottleneck_stride: Some(match config.downsample_in_bottleneck {
            true => BottleneckStride::First,
            false => BottleneckStride::Second,
        }),
        ..hints.clone()
    };
    (told, None)
}

fn preprocess(processor: Processor) -> Option<Preprocess> {
    let sides = |size: &Value| {
        let side = |key: &str| size.get(key)?.as_u64().and_then(|s| u16::try_from(s).ok());
        let square = side("shortest_edge").or_else(|| u16::try_from(size.as_u64()?).ok());
        square.map(|s| [s, s]).or_else(|| Some([side("height")?, side("width")?]))
    };
    let [height, width] = sides(&processor.crop_size).or_else(|| sides(&processor.size))?;
    let (mean, std) = match processor.do_normalize {
        true => (processor.image_mean?, processor.image_std?),
        false => ([0.0; 3], [1.0; 3]),
    };
    Some(Preprocess {
        interpolation: match processor.resample {
            Some(0) => Interpolation::Nearest,
            Some(1) => Interpolation::Lanczos3,
            Some(3) => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        },
        antialias: false,
        ..Preprocess::normalized(height, width, mean, std)
    })
}
