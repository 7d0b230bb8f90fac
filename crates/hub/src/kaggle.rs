//! Kaggle's hub, in the cache layout of `kagglehub`:
//!
//! ```text
//! models/owner/model/framework/variation/<version>/…
//!                                       /<version>.complete    empty: all files are there
//!                                       /<version>.archive.incomplete
//! ```

use crate::http::{Client, Source, Words};
use crate::reference::KaggleModel;
use crate::{Hub, HubError, archive};
use page::progress::Progress;
use serde::Deserialize;
use std::fs::{File, create_dir_all, remove_dir_all, remove_file, rename};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

static WORDS: Words = Words {
    unreachable: ", and KAGGLE_API_ENDPOINT if it is set",
    refused: "if the model's name is right, it needs a login: accept its terms on its page and \
              set KAGGLE_USERNAME and KAGGLE_KEY",
    cache_variable: "KAGGLEHUB_CACHE",
};

/// The folder of a model's files.
pub(super) fn fetch(
    hub: &Hub,
    model: &KaggleModel,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, HubError> {
    let KaggleModel { owner, model: name, framework, variation, .. } = model;
    let path = format!("models/{owner}/{name}/{framework}/{variation}");
    let folder = hub.kaggle.cache.join(&path);
    let client = Client::new(hub, &hub.kaggle, &WORDS);
    let address = format!("{}/api/v1/{path}", hub.kaggle.endpoint);
    let version = match (model.version, hub.offline) {
        (Some(version), _) => Ok(version),
        (None, true) => newest_cached(&folder).ok_or_else(|| offline(model, &folder)),
        (None, false) => newest(&client, &address).or_else(|error| {
            // Without a network, what was here yesterday is better than nothing.
            let cached = newest_cached(&folder);
            match (error, cached) {
                (error @ HubError::Unreachable { .. }, Some(version)) => {
                    progress.note(&format!("{error}; using version {version}, which is here"));
                    Ok(version)
                }
                (error, _) => Err(error),
            }
        }),
    }?;
    let cache = Version { client, folder, version };
    if cache.is_complete() {
        return Ok(cache.file(""));
    }
    if hub.offline {
        return Err(offline(model, &cache.folder));
    }
    cache.download(model, &format!("{address}/{version}/download"), progress)
}

fn offline(model: &KaggleModel, folder: &Path) -> HubError {
    let version = model.version.map_or("any version".into(), |v| format!("version {v}"));
    HubError::Offline {
        model: model.to_string(),
        file: version,
        cache: folder.display().to_string(),
    }
}

/// The newest version on the hub.
fn newest(client: &Client, address: &str) -> Result<u32, HubError> {
    #[derive(Deserialize)]
    struct Instance {
        #[serde(rename = "versionNumber")]
        version: u32,
    }
    let url = format!("{address}/get");
    let source = Source { file: "the model's newest version", url: &url };
    let text = client.text(source)?;
    let instance: Result<Instance, _> = serde_json::from_slice(&text);
    let instance = instance.map_err(|e| source.refuse(format!("does not tell it ({e})")));
    Ok(instance?.version)
}

/// The newest version that is in the cache.
fn newest_cached(folder: &Path) -> Option<u32> {
    let version = |entry: std::fs::DirEntry| -> Option<u32> {
        entry.file_name().to_str()?.strip_suffix(".complete")?.parse().ok()
    };
    let complete = std::fs::read_dir(folder).ok()?.flatten().filter_map(version);
    complete.filter(|version| folder.join(version.to_string()).is_dir()).max()
}

/// A model's version in the cache.
struct Version {
    client: Client,
    folder: PathBuf,
    version: u32,
}

impl Version {
    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.version))
    }

    fn is_complete(&self) -> bool {
        self.file(".complete").is_file() && self.file("").is_dir()
    }

    fn download(
        &self,
        model: &KaggleModel,
        url: &str,
        progress: &mut Progress<'_>,
    ) -> Result<PathBuf, HubError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |e| self.client.io(&path, e)
        };
        let folder = self.file("");
        create_dir_all(&self.folder).map_err(io(&self.folder))?;
        let lock = self.file(".lock");
        let _lock = crate::lock(&lock, &model.to_string(), progress).map_err(io(&lock))?;
        if self.is_complete() {
            return Ok(folder);
        }
        let file = format!("{}.tar.gz", model.variation);
        let partial = self.file(".archive.incomplete");
        self.client.download(Source { file: &file, url }, &partial, None, progress)?;
        let temporary = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&self.folder);
        let temporary = temporary.map_err(io(&self.folder))?;
        if let Err(problem) = archive::unpack(&partial, temporary.path()) {
            let _ = remove_file(&partial);
            return Err(HubError::Damaged { file, problem });
        }
        // What kagglehub leaves when it is stopped.
        match remove_dir_all(&folder) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(self.client.io(&folder, e)),
            _ => {}
        }
        rename(temporary.path(), &folder).map_err(io(&folder))?;
        File::create(self.file(".complete")).map_err(io(&folder))?;
        remove_file(&partial).map_err(io(&partial))?;
        Ok(folder)
    }
}
