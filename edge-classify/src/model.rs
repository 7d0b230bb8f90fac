//! Model files and what runs them.

use crate::cli::Machine;
use anyhow::{Context, Result};
use core::num::NonZeroUsize;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey;
use memmap2::{Mmap, MmapOptions};
use runtime::workers::{Inline, Threads, Workers};
use runtime::{AlignedBuf, ArtifactError, HEADER_LEN, Isa, Model, PublicKey, file_len};
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
    Copied(AlignedBuf),
}

/// Whether the file may be written to while the model is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// The run is over at once: it is mapped, which takes half the time.
    Short,
    /// It is copied before it is checked, and stays as it was checked.
    Long,
}

impl ModelFile {
    /// The model in `path`, or the built-in one.
    pub(crate) fn open(path: Option<&Path>, duration: Use) -> Result<Self> {
        let Some(path) = path else {
            let bytes = crate::builtin::model()
                .context("this build has no built-in model; give one with --model FILE")?;
            return Ok(Self { bytes: Bytes::Builtin(bytes), name: "built-in model".into() });
        };
        let name = path.display().to_string();
        let bytes = read(path, duration).with_context(|| format!("model {name}"))?;
        Ok(Self { bytes, name })
    }

    /// Checks the file, and its signature where there is a key.
    pub(crate) fn parse(&self, key: Option<&PublicKey>) -> Result<Model<'_>> {
        let bytes = match &self.bytes {
            Bytes::Builtin(bytes) => *bytes,
            Bytes::Mapped(bytes) => bytes,
            Bytes::Copied(bytes) => bytes,
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

/// Reads a file, of which the header says how long it is; not more of what is no model.
fn read(path: &Path, duration: Use) -> Result<Bytes> {
    let mut file = File::open(path)?;
    let mut start = Vec::with_capacity(HEADER_LEN);
    (&mut file).take(HEADER_LEN as u64).read_to_end(&mut start)?;
    let needed = file_len(&start)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        // What a pipe announces is not taken before it comes.
        file.take((needed - HEADER_LEN) as u64 + 1).read_to_end(&mut start)?;
        return Ok(Bytes::Copied(AlignedBuf::from_slice(&start)));
    }
    let have = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if have < needed {
        return Err(ArtifactError::Truncated { needed, have }.into());
    }
    if have > needed {
        return Err(ArtifactError::TrailingBytes { extra: have - needed }.into());
    }
    if duration == Use::Short
        && let Some(map) = map(&file)
    {
        return Ok(Bytes::Mapped(map));
    }
    let mut bytes = AlignedBuf::zeroed(needed);
    let (head, rest) = bytes.split_at_mut(HEADER_LEN);
    head.copy_from_slice(&start);
    file.read_exact(rest)?;
    Ok(Bytes::Copied(bytes))
}

/// Maps a file, at once as a whole; `None` where the file system cannot.
#[expect(unsafe_code, reason = "a mapping changes where its file is changed in place")]
fn map(file: &File) -> Option<Mmap> {
    // SAFETY: as for every program that maps its model, nobody may write into the file while it
    // is in use, which is not for long. `convert` never does: it writes another file and renames it.
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
