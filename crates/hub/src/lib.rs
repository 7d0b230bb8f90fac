//! Models by name instead of path: `hf://owner/name`, `kaggle://owner/model/framework/variation`
//! and KerasHub's preset names.
//!
//! A [`Reference`] is what a name says; [`Hub::fetch`] makes a folder of it that
//! importers load. Downloads lie in the caches of `huggingface_hub` and `kagglehub`, in
//! their layout: what Python has fetched is found, and the other way round. A file is written
//! under another name, which a broken download leaves and the next one continues, and gets its
//! own when its size and hash are right.

#[cfg(feature = "download")]
mod archive;
mod folder;
#[cfg(feature = "download")]
mod http;
#[cfg(feature = "download")]
mod huggingface;
#[cfg(feature = "download")]
mod kaggle;
mod reference;

pub use folder::{Kind, shards};
pub use reference::Reference;

use core::fmt;
use core::time::Duration;
use page::progress::Progress;
use std::path::{Path, PathBuf};

/// Largest file that is downloaded or unpacked: the weights of ResNet-200 have 0.3 GB.
#[cfg(feature = "download")]
const MAX_FILE_BYTES: u64 = 2 << 30;
/// Largest file that is read as JSON.
#[cfg(feature = "download")]
const MAX_JSON_BYTES: u64 = 16 << 20;

/// Why a model cannot be had by its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a path nor a preset.
    #[error(
        "`{name}`: no such file or folder, and no KerasHub preset such as resnet_50_imagenet \
         either{meant}; check the spelling, or name a model of a hub as hf://owner/name"
    )]
    Unknown {
        /// What was named.
        name: String,
        /// A question for what was meant.
        meant: String,
    },
    /// A hub's name that is not well formed.
    #[error("`{name}`: not a model's name; write {wanted}")]
    Malformed {
        /// What was named.
        name: String,
        /// The form that it should have.
        wanted: &'static str,
    },
    /// Built without the feature `hub`.
    #[error(
        "{model}: built without the feature `hub`, so nothing can be downloaded; name a local \
         folder with the model's files"
    )]
    Disabled {
        /// Model.
        model: String,
    },
    /// Offline, and not in the cache.
    #[error(
        "{model}: {file} is not in {cache}, and HF_HUB_OFFLINE forbids to download it; unset it \
         once, or fetch the model where there is a network and copy the cache"
    )]
    Offline {
        /// Model.
        model: String,
        /// What is missing.
        file: String,
        /// Where it was looked for.
        cache: String,
    },
    /// The server cannot be reached, or went silent before it answered.
    #[error("{file}: no answer from {url}: {problem}; check the network{remedy}")]
    Unreachable {
        /// File.
        file: String,
        /// Address.
        url: String,
        /// What happened.
        problem: String,
        /// What else to do.
        remedy: &'static str,
    },
    /// The server answered with an error.
    #[error("{file}: {url} answered {status}{code}; {remedy}")]
    Status {
        /// File.
        file: String,
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// The hub's own code.
        code: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An answer that makes no sense, or that is not accepted.
    #[error("{file}: {url} {problem}; {remedy}")]
    Answer {
        /// File.
        file: String,
        /// Address.
        url: String,
        /// What was found and what was wanted.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A download broke off.
    #[error(
        "{file}: {problem} after {have} of {want} bytes from {url}; run again to continue from there"
    )]
    Broken {
        /// File.
        file: String,
        /// Address.
        url: String,
        /// What happened.
        problem: String,
        /// Bytes that lie in the cache.
        have: u64,
        /// Bytes that it should have.
        want: String,
    },
    /// A finished download is not what it should be.
    #[error("{file}: {problem}; it has been deleted, run again to download it anew")]
    Damaged {
        /// File.
        file: String,
        /// What was found and what was wanted.
        problem: String,
    },
    /// The cache cannot be read or written.
    #[error("{path}: {source}; check the cache's permissions and space, or set {variable}")]
    Io {
        /// File or folder.
        path: String,
        /// Environment variable that moves the cache.
        variable: &'static str,
        /// Cause.
        source: std::io::Error,
    },
}

/// Who asks; never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// A token, as Hugging Face has them.
    Bearer(String),
    /// A user's name and key, as Kaggle has them.
    Basic(String, String),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}

/// Where one hub is and where its downloads go.
#[derive(Debug, Clone)]
pub struct Service {
    /// Address, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Folder of the downloads.
    pub cache: PathBuf,
    /// Needed for models that are not public.
    pub authorization: Option<Authorization>,
}

/// The hubs, and how patient to be with them.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Hugging Face.
    pub huggingface: Service,
    /// Kaggle.
    pub kaggle: Service,
    /// Use the caches only.
    pub offline: bool,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub stall_timeout: Duration,
}

impl Hub {
    /// The hubs as the environment describes them, with the variables of `huggingface_hub` and
    /// `kagglehub`: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`,
    /// `KAGGLE_API_ENDPOINT`, `KAGGLEHUB_CACHE`, `KAGGLE_USERNAME` and `KAGGLE_KEY`.
    pub fn from_env() -> Self {
        let home = std::env::home_dir().unwrap_or_default();
        Self::from_variables(&home, |name| std::env::var(name).ok())
    }

    /// [`Self::from_env`] with the variables that `value` knows.
    pub fn from_variables(home: &Path, value: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| value(name).filter(|v| !v.trim().is_empty());
        let address = |name, default: &str| {
            value(name).unwrap_or_else(|| default.into()).trim_end_matches('/').to_owned()
        };
        let folder = |name: &str| value(name).map(PathBuf::from);
        let cache_home = folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = folder("HF_HOME").unwrap_or_else(|| cache_home.join("huggingface"));
        let hf_cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        // Where `hf auth login` leaves it.
        let login = || std::fs::read_to_string(hf_home.join("token")).ok();
        let token = value("HF_TOKEN").or_else(login).filter(|t| !t.trim().is_empty());
        let is_true = |v: String| ["1", "ON", "YES", "TRUE"].contains(&&*v.to_uppercase());
        Self {
            huggingface: Service {
                endpoint: address("HF_ENDPOINT", "https://huggingface.co"),
                authorization: token.map(|t| Authorization::Bearer(t.trim().into())),
                cache: hf_cache.unwrap_or_else(|| hf_home.join("hub")),
            },
            kaggle: Service {
                endpoint: address("KAGGLE_API_ENDPOINT", "https://www.kaggle.com"),
                cache: folder("KAGGLEHUB_CACHE")
                    .unwrap_or_else(|| home.join(".cache").join("kagglehub")),
                authorization: value("KAGGLE_USERNAME")
                    .zip(value("KAGGLE_KEY"))
                    .map(|(user, key)| Authorization::Basic(user, key)),
            },
            offline: value("HF_HUB_OFFLINE").is_some_and(is_true),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }

    /// The folder of a model, after downloading what the cache lacks of it.
    ///
    /// # Errors
    /// Everything that networks, servers and disks do; each error says what to do about it.
    #[cfg(feature = "download")]
    pub fn fetch(
        &self,
        model: &Reference,
        progress: &mut Progress<'_>,
    ) -> Result<PathBuf, HubError> {
        match model {
            Reference::HuggingFace(model) => huggingface::fetch(self, model, progress),
            Reference::Kaggle(model) => kaggle::fetch(self, model, progress),
        }
    }

    /// The folder of a model, which this build cannot download.
    ///
    /// # Errors
    /// [`HubError::Disabled`].
    #[cfg(not(feature = "download"))]
    pub fn fetch(&self, model: &Reference, _: &mut Progress<'_>) -> Result<PathBuf, HubError> {
        Err(HubError::Disabled { model: model.to_string() })
    }
}

/// Most bytes that a file may have.
#[cfg(feature = "download")]
fn max_bytes(name: &str) -> u64 {
    if name.ends_with(".json") { MAX_JSON_BYTES } else { MAX_FILE_BYTES }
}

/// Waits until no other process downloads the same; dropping the file ends the lock.
#[cfg(feature = "download")]
fn lock(path: &Path, what: &str, progress: &mut Progress<'_>) -> std::io::Result<std::fs::File> {
    let lock = std::fs::File::create(path)?;
    if matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        progress.note(&format!("{what}: waiting for another process that downloads it"));
        // Where a file system has no locks, hashes tell what two writers have mixed up.
        let _ = lock.lock();
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_that_of_the_python_packages() {
        let home = Path::new("/home/me");
        let hub = Hub::from_variables(home, |_| None);
        assert_eq!(hub.huggingface.endpoint, "https://huggingface.co");
        assert_eq!(hub.huggingface.cache, home.join(".cache/huggingface/hub"));
        assert_eq!(hub.kaggle.endpoint, "https://www.kaggle.com");
        assert_eq!(hub.kaggle.cache, home.join(".cache/kagglehub"));
        assert!(!hub.offline && hub.huggingface.authorization.is_none());

        let hub = Hub::from_variables(home, |name| {
            let value = match name {
                "HF_ENDPOINT" => "https://mirror/",
                "HF_HOME" => "/data/hf",
                "HF_TOKEN" => "hf_secret",
                "HF_HUB_OFFLINE" => "1",
                "KAGGLE_API_ENDPOINT" => "http://localhost:1",
                "KAGGLEHUB_CACHE" => "/data/kaggle",
                _ => return None,
            };
            Some(value.into())
        });
        assert_eq!(hub.huggingface.endpoint, "https://mirror");
        assert_eq!(hub.huggingface.cache, Path::new("/data/hf/hub"));
        assert_eq!(hub.kaggle.cache, Path::new("/data/kaggle"));
        assert_eq!(hub.kaggle.endpoint, "http://localhost:1");
        assert!(hub.offline && hub.huggingface.authorization.is_some());
        assert!(!format!("{hub:?}").contains("secret"));
    }

    #[cfg(not(feature = "download"))]
    #[test]
    fn a_build_that_cannot_download_says_so() {
        let name = Path::new("hf://keras/resnet_18_imagenet");
        let error = zoo::open(name, zoo::Head::Required).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("hf://keras/resnet_18_imagenet") && error.contains("local folder"));
    }
}
