//! Model files and what runs them.

use crate::cli::Machine;
use anyhow::{Context, Result};
use core::num::NonZeroUsize;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey;
use memmap2::{Mmap, MmapOptions};
use runtime::workers::{Inline, Threads, Workers};
use runtime::{AlignedBuf, Isa, Model, PublicKey};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The bytes of a model and where they came from.
pub(crate) struct ModelFile {
    bytes: Bytes,
    name: String,
}

enum Bytes {
    Builtin(&'static [u8]),
    Mapped(Mmap),
    Loaded(AlignedBuf),
}

impl ModelFile {
    /// The model in `path`, or the built-in one.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            let bytes = crate::builtin::model()
                .context("this build has no built-in model; give one with --model FILE")?;
            return Ok(Self { bytes: Bytes::Builtin(bytes), name: "built-in model".into() });
        };
        let name = path.display().to_string();
        let bytes = load(path).with_context(|| format!("model {name}"))?;
        Ok(Self { bytes, name })
    }

    /// Checks the file, and its signature where there is a key.
    pub(crate) fn parse(&self, key: Option<&PublicKey>) -> Result<Model<'_>> {
        let bytes = match &self.bytes {
            Bytes::Builtin(bytes) => *bytes,
            Bytes::Mapped(bytes) => &bytes[..],
            Bytes::Loaded(bytes) => &bytes[..],
        };
        let model = match key {
            Some(key) => Model::new_signed(bytes, key),
            None => Model::new(bytes),
        };
        model.with_context(|| format!("model {}", self.name))
    }
}

/// Reads a public key.
pub(crate) fn read_key(path: &Path) -> Result<PublicKey> {
    let name = || path.display().to_string();
    let pem = std::fs::read_to_string(path).with_context(name)?;
    let key = VerifyingKey::from_public_key_pem(&pem)
        .ok()
        .and_then(|key| PublicKey::from_bytes(key.as_bytes()));
    key.with_context(|| {
        format!(
            "{}: no public key of Ed25519 in PEM, as `openssl pkey -in private.pem -pubout` writes it",
            name()
        )
    })
}

/// Maps a file, at once as a whole; reads what cannot be mapped, such as a pipe.
fn load(path: &Path) -> std::io::Result<Bytes> {
    let mut file = File::open(path)?;
    if file.metadata()?.is_file()
        && let Some(map) = map(&file)
    {
        return Ok(Bytes::Mapped(map));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Bytes::Loaded(AlignedBuf::from_slice(&bytes)))
}

/// `None` where the file system cannot, or the file is empty.
#[expect(unsafe_code, reason = "a mapping changes where its file is changed in place")]
fn map(file: &File) -> Option<Mmap> {
    // SAFETY: as for every program that maps its model, nobody may write into the file while it
    // is in use. `convert` never does: it writes another file and renames it.
    unsafe { MmapOptions::new().populate().map(file) }.ok()
}

impl Machine {
    /// The threads asked for, or one for each CPU.
    pub(crate) fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(all, NonZeroUsize::get)
    }

    /// That many threads.
    pub(crate) fn workers(&self) -> Result<Box<dyn Workers>> {
        match self.threads() {
            1 => Ok(Box::new(Inline)),
            n => Ok(Box::new(Threads::new(n).with_context(|| format!("--threads {n}"))?)),
        }
    }

    /// The instruction set asked for, or the best one.
    pub(crate) fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::detect)
    }
}
