//! Hugging Face's hub, in the cache layout of `huggingface_hub`:
//!
//! ```text
//! models--owner--name/refs/main               the commit that a branch or tag was at
//!                    /snapshots/<commit>/…    links to
//!                    /blobs/<hash>            and <hash>.incomplete
//!                    /.no_exist/<commit>/…    empty: files that the commit lacks
//! .locks/models--owner--name/<hash>.lock
//! ```
//!
//! A commit never changes, so that only a branch or tag costs a request once its files are here.
//! Weights come last: where they are, all the rest of a model is.

use crate::http::{Answer, Client, Source, Words};
use crate::reference::HuggingFaceModel;
use crate::{Hub, HubError};
use crate::{Kind, shards};
use artifact::text::AsPlain;
use network::file::write_atomic;
use page::progress::Progress;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, create_dir_all};
use std::io::Read;
use std::path::{Path, PathBuf};

static WORDS: Words = Words {
    unreachable: ", and HF_ENDPOINT if it is set",
    refused: "if the model's name is right, it needs a login: accept its terms on its page and \
              set HF_TOKEN",
    cache_variable: "HF_HOME",
};

/// Small files of a KerasHub preset; all but the first may be missing.
const KERAS_FILES: [&str; 5] =
    ["config.json", "metadata.json", "task.json", "preprocessor.json", "image_converter.json"];

/// The folder of a model's files.
pub(super) fn fetch(
    hub: &Hub,
    model: &HuggingFaceModel,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, HubError> {
    let name = format!("models--{}--{}", model.owner, model.name);
    let folder = hub.huggingface.cache.join(&name);
    if hub.offline {
        return cached(&folder, model).map_err(|file| HubError::Offline {
            model: model.to_string(),
            file,
            cache: folder.display().to_string(),
        });
    }
    let locks = hub.huggingface.cache.join(".locks").join(name);
    let client = Client::new(hub, &hub.huggingface, &WORDS);
    let mut repository = Repository { hub, model, client, folder, locks, commit: String::new() };
    match repository.find_commit() {
        Ok(commit) => repository.commit = commit,
        // Without a network, what was here yesterday is better than nothing.
        Err(error @ HubError::Unreachable { .. }) => {
            let Ok(snapshot) = cached(&repository.folder, model) else { return Err(error) };
            progress.note(&format!("{error}; using the files of the last download"));
            return Ok(snapshot);
        }
        Err(error) => return Err(error),
    }
    let snapshot = repository.fetch(progress)?;
    // Only now: a broken update must not hide what was here before.
    if !is_commit(&model.revision) {
        let path = repository.folder.join("refs").join(&model.revision);
        repository.write(&path, repository.commit.as_bytes())?;
    }
    Ok(snapshot)
}

/// The folder of a model that the cache has whole, or the name of the file that it lacks.
fn cached(folder: &Path, model: &HuggingFaceModel) -> Result<PathBuf, String> {
    let commit = match is_commit(&model.revision) {
        true => Some(model.revision.clone()),
        false => std::fs::read_to_string(folder.join("refs").join(&model.revision)).ok(),
    };
    let commit = commit.filter(|commit| is_commit(commit));
    let commit = commit.ok_or_else(|| format!("the revision {}", model.revision))?;
    let snapshot = folder.join("snapshots").join(commit);
    let here = |name: &str| match snapshot.join(name).is_file() {
        true => Ok(()),
        false => Err(name.to_owned()),
    };
    here("config.json")?;
    match Kind::of(&snapshot) {
        Some(Kind::Keras) => here("model.weights.h5").or_else(|whole| {
            here("model.weights.json").map_err(|_| whole)?;
            let names = shards(&snapshot.join("model.weights.json")).map_err(|e| e.to_string())?;
            names.iter().try_for_each(|name| here(name))
        })?,
        Some(Kind::Timm | Kind::Transformers) => {
            here("model.safetensors")
                .or_else(|safe| here("pytorch_model.bin").map_err(|_| safe))?;
        }
        None => {}
    }
    Ok(snapshot)
}

/// Whether a text is the id of a commit.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A model's repository at one commit.
struct Repository<'a> {
    hub: &'a Hub,
    model: &'a HuggingFaceModel,
    client: Client,
    folder: PathBuf,
    locks: PathBuf,
    commit: String,
}

impl Repository<'_> {
    /// The commit that the model's revision is at.
    fn find_commit(&self) -> Result<String, HubError> {
        let revision = &self.model.revision;
        if is_commit(revision) {
            return Ok(revision.clone());
        }
        let url = self.url(revision, "config.json");
        let source = Source { file: "config.json", url: &url };
        let answer = self.client.head(source)?;
        let commit = answer.first_header("x-repo-commit").unwrap_or_default();
        if !is_commit(commit) {
            let commit = commit.plain();
            return Err(source.refuse(format!("says `{commit}` is its commit, not 40 hex digits")));
        }
        Ok(commit.to_owned())
    }

    /// Fetches the files that are read, and no others.
    fn fetch(&self, progress: &mut Progress<'_>) -> Result<PathBuf, HubError> {
        let snapshot = self.folder.join("snapshots").join(&self.commit);
        let [config, others @ ..] = KERAS_FILES;
        self.required(config, progress)?;
        match Kind::of(&snapshot) {
            Some(Kind::Timm | Kind::Transformers) => {
                self.file("preprocessor_config.json", progress)?;
                let safe = "model.safetensors";
                if !self.file(safe, progress)? && !self.file("pytorch_model.bin", progress)? {
                    self.required(safe, progress)?;
                }
            }
            Some(Kind::Keras) => {
                for name in others {
                    self.file(name, progress)?;
                }
                if snapshot.join("task.json").is_file() {
                    self.file("task.weights.h5", progress)?;
                }
                let index = "model.weights.json";
                if !self.file("model.weights.h5", progress)? && self.file(index, progress)? {
                    let path = snapshot.join(index);
                    let names = shards(&path).map_err(|e| HubError::Damaged {
                        file: index.into(),
                        problem: e.to_string(),
                    })?;
                    names.iter().try_for_each(|name| self.required(name, progress))?;
                }
            }
            // The importer says why it cannot read this; no need to download more.
            None => {}
        }
        Ok(snapshot)
    }

    fn url(&self, revision: &str, file: &str) -> String {
        let HuggingFaceModel { owner, name, .. } = self.model;
        // A branch may have slashes, which would end it in an address.
        let revision = revision.replace('/', "%2F");
        format!("{}/{owner}/{name}/resolve/{revision}/{file}", self.hub.huggingface.endpoint)
    }

    fn required(&self, name: &str, progress: &mut Progress<'_>) -> Result<(), HubError> {
        if self.file(name, progress)? {
            return Ok(());
        }
        Err(HubError::Status {
            file: name.into(),
            url: self.url(&self.commit, name),
            status: 404,
            code: String::new(),
            remedy: "the model is incomplete; choose another, or another revision of it",
        })
    }

    /// Fetches a file, unless it is here; whether the model has it.
    fn file(&self, name: &str, progress: &mut Progress<'_>) -> Result<bool, HubError> {
        let path = self.folder.join("snapshots").join(&self.commit).join(name);
        if path.is_file() {
            return Ok(true);
        }
        let missing = self.folder.join(".no_exist").join(&self.commit).join(name);
        if missing.is_file() {
            return Ok(false);
        }
        let url = self.url(&self.commit, name);
        let source = Source { file: name, url: &url };
        match self.client.head(source) {
            Ok(answer) => self.download(source, &answer, &path, progress)?,
            Err(HubError::Status { status: 404, code, .. }) => {
                // Any other reason may pass.
                if code.contains("EntryNotFound") {
                    self.write(&missing, b"")?;
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn download(
        &self,
        source: Source<'_>,
        answer: &Answer,
        path: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), HubError> {
        let own = |name| if answer.is_redirect() { None } else { answer.header(name) };
        let etag = answer.first_header("x-linked-etag").or_else(|| own("etag")).unwrap_or_default();
        let hash = Hash::from_etag(etag).ok_or_else(|| {
            let etag = etag.plain();
            source.refuse(format!("has the ETag `{etag}`, neither a SHA-256 nor a Git hash"))
        })?;
        let size = answer.first_header("x-linked-size").or_else(|| own("content-length"));
        let size = size.and_then(|size| size.parse().ok());

        let blob = self.folder.join("blobs").join(hash.text());
        let lock = self.locks.join(format!("{}.lock", hash.text()));
        self.make_parent(&lock)?;
        let _lock = crate::lock(&lock, source.file, progress);
        let _lock = _lock.map_err(|e| self.client.io(&lock, e))?;
        if path.is_file() {
            // Another process was faster, and may be reading what a new link would replace.
            return Ok(());
        }
        if !blob.is_file() {
            let partial = blob.with_extension("incomplete");
            self.make_parent(&partial)?;
            self.client.download(source, &partial, size, progress)?;
            let found = hash.of_file(&partial).map_err(|e| self.client.io(&partial, e))?;
            if found != hash {
                let _ = std::fs::remove_file(&partial);
                return Err(HubError::Damaged {
                    file: source.file.into(),
                    problem: format!(
                        "what {} sent has the hash {}, but {} was wanted",
                        source.url,
                        found.text(),
                        hash.text()
                    ),
                });
            }
            std::fs::rename(&partial, &blob).map_err(|e| self.client.io(&blob, e))?;
        }
        self.make_parent(path)?;
        link(&blob, path).map_err(|e| self.client.io(path, e))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), HubError> {
        self.make_parent(path)?;
        write_atomic(path, bytes).map_err(|e| self.client.io(path, e))
    }

    fn make_parent(&self, path: &Path) -> Result<(), HubError> {
        let parent = path.parent().unwrap_or(path);
        create_dir_all(parent).map_err(|e| self.client.io(parent, e))
    }
}

/// Gives a blob its name in a snapshot.
fn link(blob: &Path, path: &Path) -> std::io::Result<()> {
    // A link to a blob that was deleted.
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(path)?;
    }
    #[cfg(unix)]
    {
        let hash = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), path)
    }
    // Elsewhere links need rights that users lack; `huggingface_hub` also moves the file then.
    #[cfg(not(unix))]
    std::fs::rename(blob, path)
}

/// What the hub's ETags are: the SHA-256 of large files, Git's hash of small ones.
#[derive(Debug, PartialEq, Eq)]
enum Hash {
    Sha256(String),
    Git(String),
}

impl Hash {
    fn from_etag(etag: &str) -> Option<Self> {
        let text = etag.trim_start_matches("W/").trim_matches('"');
        match text.len() {
            64 if is_hex(text) => Some(Self::Sha256(text.into())),
            40 if is_hex(text) => Some(Self::Git(text.into())),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        let (Self::Sha256(text) | Self::Git(text)) = self;
        text
    }

    /// The same kind of hash of a file.
    fn of_file(&self, path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        match self {
            Self::Sha256(_) => Ok(Self::Sha256(digest(Sha256::new(), &mut file)?)),
            Self::Git(_) => {
                let size = file.metadata()?.len();
                let start = Sha1::new_with_prefix(format!("blob {size}\0"));
                Ok(Self::Git(digest(start, &mut file)?))
            }
        }
    }
}

/// The hash, in hex, of what has been hashed and the rest of a file.
fn digest(mut hash: impl Digest, file: &mut File) -> std::io::Result<String> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object hello` and `sha256sum hello`.
        for etag in [
            "\"ce013625030ba8dba906f756967f9e9ca394464a\"",
            "W/\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
        ] {
            let hash = Hash::from_etag(etag).unwrap();
            assert_eq!(hash.of_file(&path).unwrap(), hash);
        }
        for etag in ["", "\"../../../../../../../../etc/passwd/////////\"", "\"abc\""] {
            assert_eq!(Hash::from_etag(etag), None);
        }
    }
}
