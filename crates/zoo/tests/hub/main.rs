//! Downloads from hubs that work, and from all kinds that do not.
#![cfg(feature = "hub")]

mod cache;
mod faults;
mod kaggle;
#[path = "../server/mod.rs"]
mod server;

use core::time::Duration;
use hub::{Authorization, Hub, Service};
use network::checkpoint::Checkpoint;
use page::progress::Progress;
use server::{COMMIT, Reply, Request, Server, huggingface};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zoo::{Head, load, open_from};

type Files = BTreeMap<String, Vec<u8>>;

const WEIGHTS: &str = "model.weights.h5";
const NAME: &str = "hf://keras/resnet_tiny";

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras").join(path)
}

/// The golden preset.
fn preset() -> Files {
    let files = std::fs::read_dir(fixture("v1_basic/preset")).unwrap().map(Result::unwrap);
    let read = |file: std::fs::DirEntry| {
        (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
    };
    files.map(read).collect()
}

/// A hub at an address, with an empty cache.
struct Place {
    hub: Hub,
    cache: TempDir,
}

impl Place {
    fn new(endpoint: &str) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let service = |folder: &str, authorization| Service {
            endpoint: endpoint.into(),
            cache: cache.path().join(folder),
            authorization: Some(authorization),
        };
        let hub = Hub {
            huggingface: service("hf", Authorization::Bearer("secret".into())),
            kaggle: service("kaggle", Authorization::Basic("me".into(), "secret".into())),
            offline: false,
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(10),
        };
        Self { hub, cache }
    }

    fn open(&self, name: &str) -> Result<Checkpoint, String> {
        self.open_saying(name).0
    }

    /// The model, and what was shown meanwhile.
    fn open_saying(&self, name: &str) -> (Result<Checkpoint, String>, String) {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, false);
        let model = open_from(&self.hub, Path::new(name), Head::Required, &mut progress);
        (model.map_err(|e| e.to_string()), String::from_utf8(out).unwrap())
    }

    /// An error that names a file, what happened and what to do, after which no file of that
    /// name is in the cache.
    #[track_caller]
    fn fails(&self, name: &str, file: &str, words: &[&str]) {
        let error = self.open(name).unwrap_err();
        for word in words.iter().chain([&file]) {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
        assert!(!error.contains("secret"), "{error}");
        for path in self.files() {
            assert!(!path.ends_with(file), "{} is there", path.display());
        }
    }

    fn snapshot(&self) -> PathBuf {
        let folder = "hf/models--keras--resnet_tiny/snapshots";
        self.cache.path().join(folder).join(COMMIT)
    }

    /// All files of the caches.
    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.cache.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { &mut folders } else { &mut files }.push(path);
            }
        }
        // Marks of files that do not exist.
        files.retain(|f| !f.components().any(|part| part.as_os_str() == ".no_exist"));
        files
    }
}

fn golden() -> Checkpoint {
    load(&fixture("v1_basic/preset"), Head::Required).unwrap()
}

#[track_caller]
fn assert_golden(checkpoint: &Checkpoint, name: &str) {
    let golden = golden();
    assert!(checkpoint.tensors == golden.tensors);
    assert_eq!(checkpoint.preprocess, golden.preprocess);
    assert_eq!(checkpoint.config.name, name);
}

fn serve(files: Files) -> Server {
    Server::start(move |request| huggingface(&files, request))
}

/// Serves the golden preset, but for what `fault` makes of a request.
fn serve_but(fault: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Server {
    let files = preset();
    Server::start(move |request| fault(request, huggingface(&files, request)))
}

/// The same of requests for one file.
fn serve_with(
    method: &'static str,
    file: &'static str,
    fault: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    serve_but(move |request, reply| match request.is(method, file) {
        true => fault(request, reply),
        false => reply,
    })
}

#[test]
fn a_preset_of_hugging_face_is_the_local_one() {
    let server = serve(preset());
    let place = Place::new(&server.address);
    let (model, shown) = place.open_saying(NAME);
    assert_golden(&model.unwrap(), "resnet_tiny");
    assert!(shown.contains("model.weights.h5: 489.6 kB in "), "{shown}");
    let requests = server.requests();
    assert!(requests[0].path == "/keras/resnet_tiny/resolve/main/config.json");
    assert!(requests.iter().all(|r| r.headers["authorization"] == "Bearer secret"));
    let got: Vec<&str> = requests.iter().filter(|r| r.method == "GET").map(Request::file).collect();
    let wanted = ["config.json", "task.json", "image_converter.json", "task.weights.h5", WEIGHTS];
    assert_eq!(got, wanted);
    // The second time, only the branch's commit is asked for.
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
    assert_eq!(server.requests().len(), 1);
    // A commit never changes.
    assert_golden(&place.open(&format!("{NAME}@{COMMIT}")).unwrap(), "resnet_tiny");
    assert!(server.requests().is_empty());
}

#[test]
fn a_bare_preset_name_is_kerass_on_hugging_face() {
    let server = serve(preset());
    let place = Place::new(&server.address);
    assert_golden(&place.open("resnet_18_imagenet").unwrap(), "resnet_18_imagenet");
    assert!(server.requests()[0].path.starts_with("/keras/resnet_18_imagenet/resolve/main/"));
}

#[test]
fn a_revision_may_be_a_branch_with_slashes() {
    let server = serve(preset());
    Place::new(&server.address).open(&format!("{NAME}@refs/pr/1")).unwrap();
    assert_eq!(server.requests()[0].path, "/keras/resnet_tiny/resolve/refs%2Fpr%2F1/config.json");
}

#[test]
fn shards_are_all_fetched() {
    let mut files = preset();
    let whole = files.remove(WEIGHTS).unwrap();
    files.insert("model_00000.weights.h5".into(), whole);
    let index = r#"{"weight_map": {"/layers/conv2d/vars": "model_00000.weights.h5"}}"#;
    files.insert("model.weights.json".into(), index.into());
    let place = Place::new(&serve(files.clone()).address);
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");

    let index = r#"{"weight_map": {"/layers/conv2d/vars": "../../../../etc/passwd"}}"#;
    files.insert("model.weights.json".into(), index.into());
    let place = Place::new(&serve(files.clone()).address);
    place.fails(NAME, "passwd", &["model.weights.json", "outside of its folder"]);

    let index = r#"{"weight_map": {"/layers/conv2d/vars": ["model_00000.weights.h5", "gone.h5"]}}"#;
    files.insert("model.weights.json".into(), index.into());
    let place = Place::new(&serve(files).address);
    place.fails(NAME, "gone.h5", &["404", "incomplete", "choose another"]);
}

#[test]
fn a_model_of_timm_loads() {
    let config = r#"{"architecture": "resnet10", "pretrained_cfg": {"input_size": [3, 96, 96],
        "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;
    let weights = std::fs::read(fixture("v1_basic/weights_timm_names.safetensors")).unwrap();
    let files = [("config.json", config.into()), ("model.safetensors", weights)];
    let server = serve(files.map(|(name, bytes)| (name.into(), bytes)).into());
    let model = Place::new(&server.address).open("hf://timm/resnet10.tiny").unwrap();
    assert!(model.tensors == golden().tensors);
    assert_eq!((model.config.name.as_str(), model.preprocess.height), ("resnet10.tiny", 96));
    assert_eq!(server.requests().iter().filter(|r| r.method == "GET").count(), 2);
}

#[test]
fn of_other_architectures_only_the_configuration_is_fetched() {
    let mut files = preset();
    files.insert("config.json".into(), r#"{"class_name": "BertBackbone", "config": {}}"#.into());
    let server = serve(files);
    let error = Place::new(&server.address).open(NAME).unwrap_err();
    assert!(error.contains("config.json") && error.contains("BertBackbone"), "{error}");
    assert!(server.requests().iter().all(|r| r.file() == "config.json"));
}
