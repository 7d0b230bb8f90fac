//! The names that PyTorch's packages give an architecture's tensors, in both directions.
//!
//! A family says what its layers are called (`resnet::names`); all tensors follow.

mod resnet;

pub(super) use resnet::add_parameterless_shortcuts;

use network::architecture::{Architecture, Family};
use network::blueprint::LayerOp;

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
    pub(super) fn of(config: &Architecture) -> Self {
        let layers = config.blueprint().layers.into_iter();
        let row = |layer: network::blueprint::Layer| Row {
            theirs: match &config.family {
                Family::ResNet(config) => resnet::names(&layer.name, config),
            },
            parts: if layer.op == LayerOp::BatchNorm { &NORM } else { &PLAIN },
            ours: layer.name,
        };
        Self(layers.filter(|layer| !layer.parts().is_empty()).map(row).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for architecture in Architecture::NAMES {
            let config = Architecture::named(architecture, 10).unwrap();
            let names = Names::of(&config);
            for (name, _) in config.blueprint().tensors() {
                let theirs = names.torch(&name).unwrap();
                assert_eq!(names.canonical(&theirs), Some(name), "{theirs}");
            }
        }
    }
}
