//! What PyTorch's packages call things, family by family, in both directions.
//!
//! A family says by which tensors its networks are known ([`FAMILIES`]) and what its layers are called;
//! all tensors follow.

mod mobilenet;
mod resnet;

pub(super) use mobilenet::{is_known as is_mobilenet, rules, written_rules};
pub(super) use resnet::names::add_parameterless_shortcuts;

use crate::Hints;
use artifact::text::AsPlain;
use network::architecture::{Architecture, Family};
use network::blueprint::{BATCH_NORM_EPSILON, LayerOp};
use network::checkpoint::Assumption;
use network::padding::ConvPadding;
use std::collections::BTreeMap;

/// Shapes of tensors by name.
pub(super) type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// What the networks of a family are known by among the tensors of a file.
#[derive(Debug)]
pub(super) struct Traces {
    /// A tensor of the stem, and one of the first block of the same network.
    pub(super) stems: &'static [[&'static str; 2]],
    /// How the names of all tensors before the head start.
    pub(super) backbone: &'static [&'static str],
    /// Usual names of the head.
    pub(super) head: &'static [&'static str],
    /// What follows from shapes, and from hints where they do not say; a head adds its classes.
    pub(super) architecture: fn(&Source<'_>, &mut Vec<Assumption>) -> Result<Known, String>,
}

/// A state dict, and what is said of it elsewhere.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The network's name, as the file's.
    pub(super) name: &'a str,
    pub(super) shapes: &'a Shapes<'a>,
    pub(super) hints: &'a Hints,
    /// `None` where nobody says.
    pub(super) rules: Option<Rules>,
}

/// What tensors never show, and configs say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) padding: ConvPadding,
    /// Of batch-norms.
    pub(super) epsilon: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { padding: ConvPadding::Symmetric, epsilon: BATCH_NORM_EPSILON }
    }
}

/// A network whose layers are known.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: Architecture,
    pub(super) names: Names,
    /// Of its batch-norms.
    pub(super) epsilon: f64,
}

/// All families, by all ways of naming them.
pub(super) fn families() -> impl Iterator<Item = &'static Traces> {
    core::iter::once(&resnet::TRACES).chain(&mobilenet::TRACES)
}

impl Traces {
    /// Whether a name is one of the network's layers before the head.
    pub(super) fn is_backbone(&self, name: &str) -> bool {
        self.backbone.iter().any(|start| name.starts_with(start))
    }
}

/// What a state dict does not say, readers take for granted.
pub(super) fn check(config: &Architecture) -> Result<(), &'static str> {
    match &config.family {
        Family::ResNet(resnet) => resnet::names::check(resnet, config.pooling),
        Family::MobileNet(mobilenet) => mobilenet::check(mobilenet, config.pooling),
    }
}

/// Padding of a network.
pub(super) fn padding(config: &Architecture) -> ConvPadding {
    match &config.family {
        Family::ResNet(resnet) => resnet.padding,
        Family::MobileNet(mobilenet) => mobilenet.padding,
    }
}

/// Whether what is dense here is a 1×1 convolution where it has this name.
pub(super) fn is_convolution(theirs: &str) -> bool {
    // timm's v2 head.
    theirs == "head.fc.weight" || mobilenet::is_convolution(theirs)
}

/// Parts of a batch-norm, ours and theirs.
const NORM: [(&str, &str); 4] =
    [("gamma", "weight"), ("beta", "bias"), ("mean", "running_mean"), ("variance", "running_var")];
/// Parts of every other layer.
const PLAIN: [(&str, &str); 2] = [("weight", "weight"), ("bias", "bias")];

/// A layer with tensors.
#[derive(Debug)]
struct Row {
    ours: String,
    /// The first is written, all are read.
    theirs: Vec<String>,
    parts: &'static [(&'static str, &'static str)],
}

/// Names of an architecture's tensors.
#[derive(Debug)]
pub(super) struct Names(Vec<Row>);

impl Names {
    /// Those that are written.
    pub(super) fn of(config: &Architecture) -> Self {
        match &config.family {
            Family::ResNet(resnet) => {
                Self::new(config, |layer| resnet::names::names(layer, resnet))
            }
            Family::MobileNet(mobilenet) => mobilenet::written(config, mobilenet),
        }
    }

    /// Where layers are called what `theirs` says.
    fn new(config: &Architecture, theirs: impl Fn(&str) -> Vec<String>) -> Self {
        let layers = config.blueprint().layers.into_iter();
        let named = layers.filter(|layer| !layer.parts().is_empty()).map(|layer| Row {
            theirs: theirs(&layer.name),
            parts: if layer.op == LayerOp::BatchNorm { &NORM } else { &PLAIN },
            ours: layer.name,
        });
        Self(named.collect())
    }

    /// Our name of a tensor; `None` where there is none.
    pub(super) fn canonical(&self, name: &str) -> Option<String> {
        let (layer, part) = name.rsplit_once('.')?;
        let row = self.0.iter().find(|row| row.theirs.iter().any(|theirs| theirs == layer))?;
        let (ours, _) = row.parts.iter().find(|(_, theirs)| *theirs == part)?;
        Some(format!("{}.{ours}", row.ours))
    }

    /// The name in PyTorch's packages of one of our tensors; `None` where there is none.
    pub(super) fn torch(&self, name: &str) -> Option<String> {
        let (layer, part) = name.rsplit_once('.')?;
        let row = self.0.iter().find(|row| row.ours == layer)?;
        let (_, theirs) = row.parts.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("{}.{theirs}", row.theirs.first()?))
    }
}

/// An error's text: whose tensors have these names is not known.
pub(super) fn unknown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.take(5).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        names = "none".into();
    }
    format!(
        "neither a ResNet nor a MobileNet or EfficientNet as torchvision, timm or transformers have \
         them; its tensors are {}, …; as ONNX (torch.onnx.export) other networks are read, too",
        names.plain()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for architecture in Architecture::names() {
            let config = Architecture::named(architecture, 10).unwrap();
            if check(&config).is_err() {
                continue;
            }
            let names = Names::of(&config);
            for (name, _) in config.blueprint().tensors() {
                let theirs = names.torch(&name).unwrap();
                assert_eq!(names.canonical(&theirs), Some(name), "{theirs}");
            }
        }
    }
}
