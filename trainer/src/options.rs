//! Options that several commands share.

use crate::distributed::world;
use accel::Precision;
use anyhow::{anyhow, bail, ensure};
use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "wgpu"))]
use burn::tensor::DeviceKind;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use core::fmt::{Display, Formatter};
use network::architecture::Architecture;
use network::checkpoint::{Assumption, Checkpoint, MAX_SIDE};
use serde::Serialize;
use std::path::Path;
use zoo::Head;

/// Opens the model that a command works on. What its file does not tell is said on the standard error.
pub(crate) fn open_model(path: &Path, head: Head) -> anyhow::Result<Checkpoint> {
    let checkpoint = zoo::open(path, head)?;
    if let Some(line) = Assumption::line(&checkpoint.assumed) {
        let path = path.display();
        let what = "which makes a checkpoint of it";
        if !page::progress::is_quiet() {
            eprintln!("{path}: {line} to `convert {path} -o net.mpk`, {what}");
        }
    }
    Ok(checkpoint)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    /// Burn's fast CPU backend.
    Flex,
    /// Burn's portable CPU backend.
    Ndarray,
    /// The first NVIDIA GPU.
    Cuda,
    /// The best GPU with a Vulkan driver.
    Vulkan,
    /// The best GPU, by whatever interface the system has.
    Wgpu,
}

impl Display for Backend {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
        })
    }
}

/// How to compute.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// CPU threads; all cores where left out, in several processes this one's share of them.
    #[arg(long)]
    threads: Option<usize>,
    /// What computes.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    pub(crate) backend: Backend,
}

impl Machine {
    /// The device, with a pool of as many threads as were asked for.
    ///
    /// # Errors
    /// No threads, or a backend that is not in this build.
    pub(crate) fn device(&self) -> anyhow::Result<Device> {
        if let Some(threads) = self.threads.or_else(|| world().threads()) {
            ensure!(threads > 0, "--threads 0 cannot compute; pass at least 1");
            // The pool of this process is made once; a second run in it keeps the first's.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
        match self.backend {
            Backend::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "the only second opinion on flex's arithmetic")]
            Backend::Ndarray => Ok(Device::ndarray()),
            #[cfg(feature = "cuda")]
            Backend::Cuda => Ok(Device::cuda(0)),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => Ok(Device::vulkan(DeviceKind::DefaultDevice)),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
            #[cfg(not(all(
                feature = "ndarray",
                feature = "cuda",
                feature = "vulkan",
                feature = "wgpu"
            )))]
            other => bail!(
                "--backend {other}: not in this build; build trainer with `--features {other}`, or \
                 use --backend flex"
            ),
        }
    }
}

/// The architecture that `--arch` names, with a head of one class.
///
/// # Errors
/// An unknown name, with those that are known.
pub(crate) fn architecture(name: &str) -> anyhow::Result<Architecture> {
    Architecture::named(name, 1).map_err(|e| anyhow!("--arch {e}"))
}

/// Checks the side of the input in pixels, which `--size` sets.
///
/// # Errors
/// A side out of range, with the range.
pub(crate) fn check_size(side: u16) -> anyhow::Result<()> {
    ensure!((8..=MAX_SIDE).contains(&side), "--size {side} is not in 8..={MAX_SIDE}");
    Ok(())
}

/// Names of [`Precision`]s.
pub(crate) fn precision() -> impl TypedValueParser<Value = Precision> {
    let f32 = PossibleValue::new("f32").help("24 bits of precision");
    let bf16 = PossibleValue::new("bf16").help(
        "8 bits of precision and half the memory; fast where the processor multiplies them \
         (AVX-512 BF16)",
    );
    PossibleValuesParser::new([f32, bf16]).map(|name| match name.as_str() {
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    })
}

/// Checks that maps of this precision can be on the device.
///
/// # Errors
/// bf16 where there are no fast maps, with what to do.
pub(crate) fn check_precision(precision: Precision, device: &Device) -> anyhow::Result<()> {
    anyhow::ensure!(
        precision == Precision::F32 || accel::supports(device),
        "--precision {precision} needs the fast operators of --backend flex; pass --precision f32"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_to_train_is_told_so() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, said) in [
            ("models/resnet_8_cifar10.edge", "already converted: edge-classify --model runs it"),
            ("crates/picture/tests/fixtures/420.jpg", "a picture, where a model is wanted"),
            ("tests/fixtures/tflite/int8.tflite", "cannot be trained further"),
        ] {
            let error = open_model(&root.join(file), Head::Optional).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(said), "{error}");
        }
    }
}
