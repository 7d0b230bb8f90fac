//! What a model's name says.

use crate::HubError;
use core::fmt;
use network::architecture::Architecture;
use network::nearest::suggestion;
use std::path::Path;

/// Forms of names.
const HF_FORM: &str = "hf://owner/name or hf://owner/name@revision";
const KAGGLE_FORM: &str = "kaggle://owner/model/framework/variation, with /version or without";

/// A model of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Of Hugging Face.
    HuggingFace(HuggingFaceModel),
    /// Of Kaggle.
    Kaggle(KaggleModel),
}

/// `hf://owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HuggingFaceModel {
    pub(super) owner: String,
    pub(super) name: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
}

/// `kaggle://owner/model/framework/variation/version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KaggleModel {
    pub(super) owner: String,
    pub(super) model: String,
    pub(super) framework: String,
    pub(super) variation: String,
    /// The newest where left out.
    pub(super) version: Option<u32>,
}

impl Reference {
    /// What `name` refers to; `None` where it is a path.
    ///
    /// # Errors
    /// Malformed names, and names that are nothing at all.
    pub fn of(name: &Path) -> Result<Option<Self>, HubError> {
        let text = name.to_str().unwrap_or_default();
        let malformed = |wanted| HubError::Malformed { name: text.into(), wanted };
        if let Some(id) = text.strip_prefix("hf://") {
            let model = huggingface(id).ok_or_else(|| malformed(HF_FORM))?;
            return Ok(Some(Self::HuggingFace(model)));
        }
        if let Some(id) = text.strip_prefix("kaggle://") {
            let model = kaggle(id).ok_or_else(|| malformed(KAGGLE_FORM))?;
            return Ok(Some(Self::Kaggle(model)));
        }
        if !matches!(name.try_exists(), Ok(false)) {
            return Ok(None);
        }
        if text.ends_with("_imagenet") && Architecture::by_name(text, 1).is_some() {
            return Ok(huggingface(&format!("keras/{text}")).map(Self::HuggingFace));
        }
        let presets = Architecture::names().into_iter().map(|known| format!("{known}_imagenet"));
        let presets = presets.filter(|preset| Architecture::by_name(preset, 1).is_some());
        Err(HubError::Unknown {
            name: name.display().to_string(),
            meant: suggestion(text, presets),
        })
    }

    /// What to call the model without its hub.
    pub fn model_name(&self) -> &str {
        match self {
            Self::HuggingFace(model) => &model.name,
            Self::Kaggle(model) => &model.variation,
        }
    }
}

fn huggingface(id: &str) -> Option<HuggingFaceModel> {
    let (id, revision) = id.split_once('@').unwrap_or((id, "main"));
    let (owner, name) = id.split_once('/')?;
    let whole = is_segment(owner) && is_segment(name) && revision.split('/').all(is_segment);
    let [owner, name, revision] = [owner, name, revision].map(str::to_owned);
    whole.then_some(HuggingFaceModel { owner, name, revision })
}

fn kaggle(id: &str) -> Option<KaggleModel> {
    let parts: Vec<&str> = id.split('/').collect();
    let (model, version) = match &parts[..] {
        [model @ .., version] if model.len() == 4 => (model, Some(version.parse().ok()?)),
        model => (model, None),
    };
    let &[owner, name, framework, variation] = model else { return None };
    let whole = model.iter().all(|part| is_segment(part));
    let [owner, model, framework, variation] =
        [owner, name, framework, variation].map(str::to_owned);
    whole.then_some(KaggleModel { owner, model, framework, variation, version })
}

/// Whether a text is safe as part of an address and of a path: the hubs' alphabet, and not `.`
/// or `..`.
fn is_segment(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with('.')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HuggingFace(model) => model.fmt(f),
            Self::Kaggle(model) => model.fmt(f),
        }
    }
}

impl fmt::Display for HuggingFaceModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}/{}", self.owner, self.name)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl fmt::Display for KaggleModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, model, framework, variation, version } = self;
        write!(f, "kaggle://{owner}/{model}/{framework}/{variation}")?;
        version.map_or(Ok(()), |version| write!(f, "/{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_say() {
        for (name, meaning, model) in [
            ("hf://timm/resnet18.a1_in1k", "hf://timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
            ("hf://a/b@refs/pr/1", "hf://a/b@refs/pr/1", "b"),
            ("resnet_50_imagenet", "hf://keras/resnet_50_imagenet", "resnet_50_imagenet"),
            (
                "resnet_vd_50_ssld_v2_imagenet",
                "hf://keras/resnet_vd_50_ssld_v2_imagenet",
                "resnet_vd_50_ssld_v2_imagenet",
            ),
            ("kaggle://keras/resnet/keras/r18", "kaggle://keras/resnet/keras/r18", "r18"),
            ("kaggle://keras/resnet/keras/r18/2", "kaggle://keras/resnet/keras/r18/2", "r18"),
        ] {
            let reference = Reference::of(Path::new(name)).unwrap().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.model_name()), (meaning, model));
        }
        assert_eq!(Reference::of(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap(), None);
    }

    #[test]
    fn names_that_lead_out_of_the_cache_are_refused() {
        for name in [
            "hf://",
            "hf://a",
            "hf://a/b/c",
            "hf://../b",
            "hf://a/..",
            "hf://a/b@",
            "hf://a/b@../x",
            "hf://a/b?x=y",
            "kaggle://a/b/c",
            "kaggle://a/b/c/d/newest",
            "kaggle://a/b/c/../1",
            "kaggle://a/b/c/d/1/2",
        ] {
            let error = Reference::of(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("write "), "{error}");
        }
    }

    #[test]
    fn what_is_neither_path_nor_preset_is_told_so() {
        for name in ["resnet_51_imagenet", "resnet_50", "models/none.mpk"] {
            let error = Reference::of(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("no such file or folder"), "{error}");
            assert!(error.contains("no KerasHub preset"), "{error}");
        }
        let error = Reference::of(Path::new("resnet50_imagenet")).unwrap_err().to_string();
        assert!(error.contains("(did you mean resnet_50_imagenet?)"), "{error}");
    }
}
