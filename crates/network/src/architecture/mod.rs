//! The families of networks, and what they have in common.

pub mod mobilenet;
pub mod resnet;

use crate::blueprint::{Blueprint, HEAD, LayerOp, Pooling};
use crate::nearest::suggestion;
use artifact::Preprocess;
use artifact::text::AsPlain;
use mobilenet::MobileNetConfig;
use resnet::ResNetConfig;
use serde::{Deserialize, Deserializer, Serialize};

/// Mean and standard deviation of CIFAR-10's pixels.
const CIFAR_STATISTICS: [[f32; 3]; 2] = [[0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]];
/// Mean and standard deviation of ImageNet's pixels.
pub const IMAGENET_STATISTICS: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// How pictures become inputs of `side` × `side` pixels: normalized by CIFAR-10's statistics
/// where they are as small, else by ImageNet's.
pub fn default_preprocess(side: u16) -> Preprocess {
    let [mean, std] = if side <= 64 { CIFAR_STATISTICS } else { IMAGENET_STATISTICS };
    Preprocess::normalized(side, side, mean, std)
}

/// A family's configs by name.
type Named<Config> = [(&'static str, fn() -> Config)];

/// A network without weights: pictures, the layers of a family, a head.
///
/// In files, a family's fields stand beside the others. Without `family` it is a ResNet's, as all were
/// once, and as ResNets are still written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Name for people, e.g. `resnet_18`.
    pub name: String,
    /// Channels of the picture: 3, or 1 of grey.
    #[serde(default = "rgb", skip_serializing_if = "is_rgb")]
    pub channels: usize,
    /// Pooling before the head.
    pub pooling: Pooling,
    /// Share of the features that training leaves out before the layer of the scores, 0..1.
    #[serde(default)]
    pub dropout: f64,
    /// Classes of the head.
    pub classes: usize,
    /// The layers between picture and head.
    #[serde(flatten)]
    pub family: Family,
}

/// The layers between picture and head, by family.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "family")]
pub enum Family {
    /// Networks of depthwise convolutions: MobileNets, EfficientNets.
    #[serde(rename = "mobilenet")]
    MobileNet(MobileNetConfig),
    /// Residual networks.
    #[serde(untagged)]
    ResNet(ResNetConfig),
}

impl Family {
    /// The config of a ResNet; `None` of other families.
    pub fn resnet(&self) -> Option<&ResNetConfig> {
        match self {
            Self::ResNet(config) => Some(config),
            Self::MobileNet(_) => None,
        }
    }

    /// As [`Self::resnet`].
    pub fn resnet_mut(&mut self) -> Option<&mut ResNetConfig> {
        match self {
            Self::ResNet(config) => Some(config),
            Self::MobileNet(_) => None,
        }
    }
}

/// Whether a number of channels is the usual one, which files leave out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_rgb(channels: &usize) -> bool {
    *channels == rgb()
}

const fn rgb() -> usize {
    3
}

impl<'de> Deserialize<'de> for Family {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The family's fields are read once it is known; an error then names the field.
        let value = serde_json::Value::deserialize(deserializer)?;
        let read = match value.get("family").map(|family| family.as_str().unwrap_or_default()) {
            None => ResNetConfig::deserialize(&value).map(Self::ResNet),
            Some("mobilenet") => MobileNetConfig::deserialize(&value).map(Self::MobileNet),
            Some(other) => Err(serde::de::Error::custom(format!(
                "family `{other}`, which this build does not know; update"
            ))),
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl Architecture {
    /// All names that [`Self::by_name`] knows but for presets and for MobileNets of other widths.
    pub fn names() -> Vec<&'static str> {
        let names = resnet::NAMED.iter().map(|(name, _)| *name);
        names.chain(mobilenet::presets::names()).collect()
    }

    /// Of colors, with average pooling, without dropout.
    pub fn new(name: &str, classes: usize, family: Family) -> Self {
        let (name, pooling) = (name.into(), Pooling::Avg);
        Self { name, channels: rgb(), pooling, dropout: 0.0, classes, family }
    }

    /// A named architecture with a head of `classes`: one of [`Self::names`], or a KerasHub
    /// preset's name, such as `resnet_vd_50_ssld_v2_imagenet`. A MobileNet's may end in its width in
    /// percent, as `mobilenet_v2_060`.
    pub fn by_name(name: &str, classes: usize) -> Option<Self> {
        resnet::by_name(name, classes).or_else(|| mobilenet::presets::by_name(name, classes))
    }

    /// As [`Self::by_name`].
    ///
    /// # Errors
    /// A name that is not known, with those that are.
    pub fn named(name: &str, classes: usize) -> Result<Self, String> {
        Self::by_name(name, classes).ok_or_else(|| {
            let (names, meant) = (Self::names(), suggestion(name, Self::names()));
            format!("{}: not known{meant}; use one of {}", name.plain(), names.join(", "))
        })
    }

    /// Classes of the data set that the architecture was designed for: CIFAR-10's or ImageNet's.
    pub fn native_classes(&self) -> usize {
        if self.native_size() == 32 { 10 } else { 1000 }
    }

    /// Input side in pixels that the architecture was designed for.
    pub fn native_size(&self) -> u16 {
        match &self.family {
            Family::ResNet(config) => config.native_size(),
            Family::MobileNet(config) => config.native_size(&self.name),
        }
    }

    /// `p` for this network: of a grey one the luma of pictures, with the mean of the channels'
    /// means and deviations.
    #[must_use]
    pub fn preprocess(&self, p: Preprocess) -> Preprocess {
        if self.channels != 1 {
            return p;
        }
        let [scale, offset] = [p.scale, p.offset].map(|values| values.map(f64::from));
        let deviation = scale.iter().map(|s| 1.0 / s).sum::<f64>() / 3.0;
        let mean = scale.iter().zip(&offset).map(|(s, o)| -o / s).sum::<f64>() / 3.0;
        let (scale, offset) = ((1.0 / deviation) as f32, (-mean / deviation) as f32);
        Preprocess { scale: [scale; 3], offset: [offset; 3], grey: true, ..p }
    }

    /// Checks lengths and ranges.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub fn check(&self) -> Result<(), String> {
        match &self.family {
            Family::ResNet(config) => config.check()?,
            Family::MobileNet(config) => config.check()?,
        }
        if ![1, 3].contains(&self.channels) {
            return Err(format!("pictures of {} channels, expected 3 or 1", self.channels));
        }
        if !(1..=65_535).contains(&self.classes) {
            return Err(format!("{} classes, expected 1..=65535", self.classes));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("dropout {} is not in 0..1", self.dropout));
        }
        Ok(())
    }

    /// The network's layers.
    pub fn blueprint(&self) -> Blueprint {
        let mut net = Blueprint::new(&self.name, self.channels);
        let features = match &self.family {
            Family::ResNet(config) => config.backbone(&mut net),
            Family::MobileNet(config) => config.backbone(&mut net),
        };
        let mut x = net.per_channel("pooler", LayerOp::GlobalPool(self.pooling), features);
        if let Family::MobileNet(config) = &self.family {
            x = config.hidden(&mut net, x);
        }
        net.dense(HEAD, x, self.classes);
        net
    }
}
