//! What state dicts of ours have beside tensors.

use artifact::Preprocess;
use network::padding::ConvPadding;
use serde::{Deserialize, Serialize};

/// The metadata entry with [`Travelling`] as JSON; PyTorch ignores it.
pub(crate) const METADATA: &str = "edge_resnet";

/// What a state dict has no tensors for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Travelling {
    pub(crate) labels: Vec<String>,
    pub(crate) preprocess: Preprocess,
    /// Of its convolutions.
    #[serde(default)]
    pub(crate) padding: ConvPadding,
}
