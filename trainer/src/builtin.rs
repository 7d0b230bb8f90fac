//! The networks that fine-tuning starts from where nobody names one.

use clap::ValueEnum;
use network::checkpoint::{Checkpoint, CheckpointError};

/// What the finished model is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// PCs, phones and Raspberry Pis.
    Host,
    /// Arm Cortex-M microcontrollers.
    CortexM,
}

/// A network that is compiled in; `models/README.md` tells their origin.
pub(crate) struct Builtin {
    file: &'static [u8],
    /// Side in pixels at which it sees pictures, where that is not the one it was trained at.
    pub(crate) side: Option<u16>,
}

macro_rules! builtin {
    ($name:literal, $side:expr) => {
        Builtin { file: include_bytes!(concat!("../../models/", $name, ".mpk")), side: $side }
    };
}

/// MobileNetV2 at 224², which knows ImageNet.
static PHOTOS: Builtin = builtin!("mobilenet_v2", None);
/// MobileNetV1 with a quarter of the channels, which knows ImageNet: at 128², at which it was
/// trained, 4 points fewer cats and dogs are told apart than at 192².
static SMALL_PHOTOS: Builtin = builtin!("mobilenet_v1_025", Some(192));
/// ResNet-20 at 32², which knows CIFAR-10.
static ICONS: Builtin = builtin!("resnet_20_cifar10", None);
/// ResNet-8 at 32², which knows CIFAR-10.
static SMALL_ICONS: Builtin = builtin!("resnet_8_cifar10", None);

/// Pictures up to this side in pixels lose nothing in CIFAR-10's 32×32 pixels that a network of
/// photos would see.
pub(crate) const ICON_SIDE: usize = 40;

impl Builtin {
    /// For pictures whose longer side in pixels is `side`, where that is known.
    pub(crate) fn for_pictures(side: Option<usize>, target: Target) -> &'static Self {
        match (side.is_some_and(|side| side <= ICON_SIDE), target) {
            (false, Target::Host) => &PHOTOS,
            (false, Target::CortexM) => &SMALL_PHOTOS,
            (true, Target::Host) => &ICONS,
            (true, Target::CortexM) => &SMALL_ICONS,
        }
    }

    /// The network.
    ///
    /// # Errors
    /// None that a user can cause: the files are tested.
    pub(crate) fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::from_bytes(self.file, "the built-in model")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_choose_their_network() {
        let name =
            |side, target| Builtin::for_pictures(side, target).open().unwrap().config.name.clone();
        for (side, host, cortex_m) in [
            (Some(28), "resnet_20_cifar", "resnet_8_cifar"),
            (Some(32), "resnet_20_cifar", "resnet_8_cifar"),
            (Some(64), "mobilenet_v2_1.0_224_quant", "mobilenet_v1_0.25_128_quant"),
            (None, "mobilenet_v2_1.0_224_quant", "mobilenet_v1_0.25_128_quant"),
        ] {
            assert_eq!(name(side, Target::Host), host);
            assert_eq!(name(side, Target::CortexM), cortex_m);
        }
    }
}
