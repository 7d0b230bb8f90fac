//! What a model's folder is, and which files belong to it.

use artifact::text::AsPlain;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Most files that weights are split into; by default, Keras starts another after 10 GB.
const MAX_SHARDS: usize = 64;

/// What a folder with a `config.json` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A KerasHub preset of a ResNet.
    Keras,
    /// A model of timm.
    Timm,
    /// A model of transformers.
    Transformers,
}

impl Kind {
    /// The kind of a folder; `None` where it is of no kind that is imported.
    pub fn of(dir: &Path) -> Option<Self> {
        let text = std::fs::read(dir.join("config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let has = |key: &str| config.get(key).is_some();
        match config.get("class_name") {
            Some(class) => (class == "ResNetBackbone").then_some(Self::Keras),
            None if has("architecture") => Some(Self::Timm),
            None => has("model_type").then_some(Self::Transformers),
        }
    }
}

/// The weight files that an index names, all in its own folder.
///
/// # Errors
/// An index that cannot be read, and names that lead elsewhere, as text.
pub fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, Files>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Files {
        One(String),
        Several(Vec<String>),
    }
    let at = |what: &dyn core::fmt::Display| format!("{}: {what}", index.display());
    let text = std::fs::read(index).map_err(|e| at(&e))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| at(&e))?;
    let names = parsed.weight_map.into_values().flat_map(|files| match files {
        Files::One(name) => vec![name],
        Files::Several(names) => names,
    });
    let names: BTreeSet<String> = names
        .map(|name| match Path::new(&name).file_name() {
            // The index may not lead out of the folder.
            Some(file) if file == name.as_str() => Ok(name),
            _ => Err(at(&format_args!("names the file `{}` outside of its folder", name.plain()))),
        })
        .collect::<Result<_, _>>()?;
    match names.len() {
        0..=MAX_SHARDS => Ok(names),
        n => {
            let what = format!("names {n} files, but weights are split into at most {MAX_SHARDS}");
            Err(at(&what))
        }
    }
}
