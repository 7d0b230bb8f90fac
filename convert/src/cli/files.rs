//! What is done with single files: looking into them, making, signing and upgrading them.

use super::check_ending;
use crate::inspect::{
    checkpoint_facts, checkpoint_table, edge_facts, edge_table, graph_facts, graph_table,
    layer_names,
};
use anyhow::{Context, Result, anyhow};
use artifact::text::AsPlain;
use artifact::writer::rewrite;
use artifact::{Artifact, patch};
use clap::Args;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use network::architecture::Architecture;
use network::checkpoint::{self, Checkpoint};
use network::file::{self, write_atomic};
use network::init::random_checkpoint;
use page::terminal::Output;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use zoo::{Head, Hints, Imported};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Architecture, such as resnet_50 or resnet_8_cifar
    #[arg(value_name = "ARCH")]
    architecture: String,
    /// Side of the input in pixels [default: 32 for CIFAR's architectures, else 224]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(8..=1024))]
    size: Option<u16>,
    /// Classes [default: 10 for CIFAR's architectures, else 1000]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// One input channel, the luma of pictures
    #[arg(long)]
    grey: bool,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output [default: the architecture's name with .mpk]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// Device file (.edge), or classes that one was taught (.patch)
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Private key, PEM (PKCS #8)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The signed file [default: the file itself is replaced]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    /// Device file (.edge) or checkpoint (.mpk)
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The new file [default: the model itself is replaced]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Whether a file is one of ours for devices. A damaged one is, too, and is told so by its reader.
fn is_edge(path: &Path) -> bool {
    let mut start = [0; artifact::header::MAGIC.len()];
    path.extension().is_some_and(|e| e == "edge")
        || path.is_file()
            && std::fs::File::open(path)
                .and_then(|mut file| file.read_exact(&mut start))
                .is_ok_and(|()| start == artifact::header::MAGIC)
}

pub(super) fn sign(args: &SignArgs, out: &mut dyn Write) -> Result<bool> {
    let output = args.output.as_ref().unwrap_or(&args.model);
    let name = |path: &Path| path.display().to_string();
    let bytes = file::read(&args.model).with_context(|| name(&args.model))?;
    let is_patch = bytes.starts_with(&patch::MAGIC);
    if args.output.is_some() {
        check_ending(output, if is_patch { &["patch"] } else { &["edge"] })?;
    }
    let pem = std::fs::read_to_string(&args.key).with_context(|| name(&args.key))?;
    let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| {
        anyhow::anyhow!(
            "{}: no private key of Ed25519 in PEM, as `openssl genpkey -algorithm ed25519` writes it",
            name(&args.key)
        )
    })?;
    let sign = |bytes: &[u8]| key.sign(bytes).to_bytes();
    let signed = match is_patch {
        true => patch::resign(&bytes, sign).map_err(anyhow::Error::from),
        false => rewrite(&bytes, Some(sign)).map_err(anyhow::Error::from),
    };
    let signed = signed.with_context(|| name(&args.model))?;
    write_atomic(output, &signed).with_context(|| name(output))?;
    let public: String =
        key.verifying_key().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    writeln!(out, "{}: signed; the public key is {public}", output.display().to_string().plain())?;
    Ok(true)
}

pub(super) fn upgrade(args: &UpgradeArgs, out: &mut dyn Write) -> Result<bool> {
    let name = args.model.display().to_string();
    let output = args.output.as_ref().unwrap_or(&args.model);
    let (old, newest) = if is_edge(&args.model) {
        let bytes = file::read(&args.model).with_context(|| name.clone())?;
        let new = rewrite(&bytes, None::<fn(&[u8]) -> _>).with_context(|| name.clone())?;
        let old = u32::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let newest = u32::from(u16::from_le_bytes([new[8], new[9]]));
        // What is as new as can be keeps its signature.
        if old < newest || args.output.is_some() {
            write_atomic(output, &new).with_context(|| output.display().to_string())?;
        }
        (old, newest)
    } else {
        let checkpoint = Checkpoint::load(&args.model)?;
        let old = checkpoint.version;
        if old < checkpoint::VERSION || args.output.is_some() {
            let newest = checkpoint.edit(|draft| {
                draft.version = checkpoint::VERSION;
                Ok(())
            });
            newest.map_err(|what| anyhow!("{name}: {what}"))?.save(output)?;
        }
        (old, checkpoint::VERSION)
    };
    let what = if old < newest { "upgraded to" } else { "already of" };
    writeln!(out, "{}: {what} version {newest}", output.display().to_string().plain())?;
    Ok(true)
}

pub(super) fn inspect(path: &Path, hints: &Hints, out: &mut Output<'_>) -> Result<bool> {
    let name = path.display().to_string();
    if is_edge(path) {
        let bytes = file::read(path).with_context(|| name.clone())?;
        let artifact = Artifact::parse(&bytes).with_context(|| name)?;
        let names = layer_names(&artifact);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if !out.is_json() {
            write!(out.answer(), "{}", edge_table(&artifact, &names))?;
        }
        out.tell("device_file", edge_facts(&artifact, &names))?;
    } else {
        let (kind, table, facts) = match zoo::open_any(path, Head::Optional, hints)? {
            Imported::Checkpoint(c) => ("checkpoint", checkpoint_table(&c), checkpoint_facts(&c)),
            Imported::Graph(model) => ("network", graph_table(&model), graph_facts(&model)),
        };
        if !out.is_json() {
            write!(out.answer(), "{table}")?;
        }
        out.tell(kind, facts)?;
    }
    Ok(true)
}

pub(super) fn init(args: &InitArgs, out: &mut dyn Write) -> Result<bool> {
    let output = args.output.clone().unwrap_or_else(|| format!("{}.mpk", args.architecture).into());
    check_ending(&output, &["mpk"])?;
    let mut config = Architecture::named(&args.architecture, 1).map_err(anyhow::Error::msg)?;
    let side = config.native_size();
    config.classes = args.classes.unwrap_or(config.native_classes());
    config.channels = if args.grey { 1 } else { config.channels };
    let checkpoint = random_checkpoint(config, args.size.unwrap_or(side), args.seed)
        .map_err(anyhow::Error::msg)?;
    checkpoint.save(&output)?;
    let (name, numbers) = (&args.architecture, checkpoint.numbers());
    writeln!(out, "{}: {name} with {numbers} random values", output.display().to_string().plain())?;
    Ok(true)
}
