//! Downloads from hubs that work, and from all kinds that do not.
#![cfg(feature = "hub")]

mod server;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use flate2::Compression;
use flate2::write::GzEncoder;
use hub::{Authorization, Hub, Service};
use network::checkpoint::Checkpoint;
use page::progress::Progress;
use server::{COMMIT, Reply, Request, Server, hash, huggingface};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zoo::{Head, load, open_from};

type Files = BTreeMap<String, Vec<u8>>;

const WEIGHTS: &str = "model.weights.h5";
const NAME: &str = "hf://keras/resnet_tiny";
const KAGGLE: &str = "kaggle://keras/resnet/keras/resnet_tiny";

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
    let place = Place::new(&server.address);
    place.open(&format!("{NAME}@refs/pr/1")).unwrap();
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

/// Breaks off the weights after a part, unless a request continues there.
fn breaking(stall: bool) -> Server {
    serve_but(move |request, mut reply| {
        if request.is("GET", WEIGHTS) && request.from().is_none() {
            (reply.sent, reply.stall) = (Some(100_000), stall);
        }
        reply
    })
}

#[test]
fn a_broken_download_continues() {
    let server = breaking(false);
    let place = Place::new(&server.address);
    place.fails(NAME, WEIGHTS, &["100000 of 489568 bytes", "run again to continue"]);
    server.requests();
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
    let gets: Vec<_> = server.requests().into_iter().filter(|r| r.method == "GET").collect();
    assert_eq!((gets.len(), gets[0].from()), (1, Some(100_000)));
    assert!(place.files().iter().all(|f| f.extension().is_none_or(|e| e != "incomplete")));
}

#[test]
fn a_server_that_falls_silent_is_left_and_continued() {
    let server = breaking(true);
    let mut place = Place::new(&server.address);
    place.hub.stall_timeout = Duration::from_millis(500);
    let words = ["nothing came for 0.5 s", "100000 of 489568", "run again to continue"];
    place.fails(NAME, WEIGHTS, &words);
    place.hub.stall_timeout = Duration::from_secs(10);
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
}

#[test]
fn a_server_that_never_answers_is_left() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_secs(20));
        Reply::status(200)
    });
    let mut place = Place::new(&server.address);
    place.hub.stall_timeout = Duration::from_millis(300);
    place.fails(NAME, "config.json", &["no answer", "nothing came for 0.3 s", "check the network"]);
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let first = AtomicBool::new(true);
    let server = serve_but(move |request, mut reply| {
        if request.is("GET", WEIGHTS) {
            if first.swap(false, Ordering::Relaxed) {
                reply.sent = Some(1000);
            } else {
                reply = Reply::body(preset().remove(WEIGHTS).unwrap());
            }
        }
        reply
    });
    let place = Place::new(&server.address);
    place.open(NAME).unwrap_err();
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
}

#[test]
fn a_wrong_part_is_refused() {
    let server = serve_but(|request, mut reply| {
        if request.is("GET", WEIGHTS) {
            match request.from() {
                None => reply.sent = Some(1000),
                Some(_) => reply = reply.with("Content-Range", "bytes 5-9/10"),
            }
        }
        reply
    });
    let place = Place::new(&server.address);
    place.open(NAME).unwrap_err();
    place.fails(NAME, WEIGHTS, &["bytes 5-9/10", "bytes 1000-", "try again"]);
}

#[test]
fn a_part_that_fits_no_more_is_thrown_away() {
    let server = serve_but(|request, reply| match request.from() {
        Some(_) => Reply::status(416),
        None => reply,
    });
    let place = Place::new(&server.address);
    let folder = place.cache.path().join("hf/models--keras--resnet_tiny/blobs");
    std::fs::create_dir_all(&folder).unwrap();
    let hash = hash(WEIGHTS, &preset()[WEIGHTS]);
    std::fs::write(folder.join(format!("{hash}.incomplete")), "old").unwrap();
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
}

#[test]
fn redirects_are_followed_without_the_token() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = serve(preset());
        let target = elsewhere.address.clone();
        let server = serve_but(move |request, reply| {
            if request.path.contains("/inside/") {
                return reply;
            }
            if !request.file().ends_with(".h5") {
                // As for small files: to the same host, without the host's name.
                return Reply::redirect(status, format!("/inside/{}", request.file()));
            }
            let etag = reply.headers.iter().find(|(name, _)| name == "ETag").unwrap().1.clone();
            Reply::redirect(status, format!("{target}{}", request.path))
                .with("X-Repo-Commit", COMMIT)
                .with("X-Linked-Etag", etag)
                .with("X-Linked-Size", preset()[request.file()].len().to_string())
        });
        let place = Place::new(&server.address);
        assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
        assert!(server.requests().iter().all(|r| r.headers.contains_key("authorization")));
        let elsewhere = elsewhere.requests();
        assert_eq!(elsewhere.len(), 2);
        assert!(elsewhere.iter().all(|r| r.method == "GET"));
        assert!(elsewhere.iter().all(|r| !r.headers.contains_key("authorization")));
    }
}

#[test]
fn redirects_have_an_end() {
    let server = Server::start(|request| Reply::redirect(302, request.path.clone()));
    let place = Place::new(&server.address);
    place.fails(NAME, "config.json", &["redirects more than 5 times", "HF_ENDPOINT"]);
    assert_eq!(server.requests().len(), 6);
    for location in ["", "file:///etc/passwd", "not an address"] {
        let server = Server::start(move |_| Reply::redirect(302, location));
        let place = Place::new(&server.address);
        place.fails(NAME, "config.json", &["redirects to no address", "HF_ENDPOINT"]);
    }
}

#[test]
fn a_false_hash_is_found_out() {
    let server = serve_but(|request, mut reply| {
        if request.is("GET", WEIGHTS) {
            reply.body[1000] ^= 1;
        }
        reply
    });
    let place = Place::new(&server.address);
    let wanted = hash(WEIGHTS, &preset()[WEIGHTS]);
    place.fails(NAME, WEIGHTS, &["has the hash", &wanted, "deleted", "run again"]);
    place.fails(NAME, &wanted, &[]);
    let parts = |f: &PathBuf| f.extension().is_some_and(|e| e == "incomplete");
    assert!(!place.files().iter().any(parts));

    // Small files have Git's hash.
    let server = serve_but(|request, mut reply| {
        if request.is("GET", "config.json") {
            reply.body[0] = b' ';
        }
        reply
    });
    Place::new(&server.address).fails(NAME, "config.json", &["has the hash", "run again"]);
}

#[test]
fn false_sizes_are_found_out() {
    let announce = |method: &'static str, header: &'static str, value: &'static str| {
        serve_but(move |request, reply| match request.is(method, WEIGHTS) {
            true => reply.with(header, value),
            false => reply,
        })
    };
    let server = announce("HEAD", "X-Linked-Size", "489567");
    let words = ["announces 489568 bytes", "the file has 489567", "try again"];
    Place::new(&server.address).fails(NAME, WEIGHTS, &words);
    let server = announce("HEAD", "X-Linked-Size", "99999999999");
    let words = ["announces 99999999999 bytes", "at most", "try again"];
    Place::new(&server.address).fails(NAME, WEIGHTS, &words);
    let server = announce("HEAD", "X-Linked-Size", "18446744073709551615");
    Place::new(&server.address).fails(NAME, WEIGHTS, &["at most"]);
    let server = announce("GET", "Content-Length", "18446744073709551615");
    Place::new(&server.address).fails(NAME, WEIGHTS, &[]);

    // Without a length, until the server hangs up: more than there should be.
    let server = serve_but(|request, mut reply| {
        if request.is("GET", WEIGHTS) {
            reply.body.push(0);
            reply = reply.with("Content-Length", "");
        }
        reply
    });
    let words = ["sends more than 489568 bytes", "try again"];
    Place::new(&server.address).fails(NAME, WEIGHTS, &words);

    // A configuration that would fill the memory.
    let server = serve_but(|request, reply| match request.is("HEAD", "config.json") {
        true => reply.with("X-Linked-Size", "100000000"),
        false => reply,
    });
    Place::new(&server.address).fails(NAME, "config.json", &["100000000 bytes", "at most"]);
}

#[test]
fn hashes_and_commits_that_are_none_are_refused() {
    for etag in ["", "\"../../../../outside\"", "\"5\""] {
        let server = serve_but(move |request, reply| match request.is("HEAD", WEIGHTS) {
            true => reply.with("ETag", etag),
            false => reply,
        });
        let place = Place::new(&server.address);
        place.fails(NAME, WEIGHTS, &["neither a SHA-256 nor a Git hash", "HF_ENDPOINT"]);
    }
    for commit in ["", "../../../../outside", "main"] {
        let server = serve_but(move |_, reply| reply.with("X-Repo-Commit", commit));
        let place = Place::new(&server.address);
        place.fails(NAME, "config.json", &["40 hex digits", "HF_ENDPOINT"]);
        assert!(place.files().is_empty());
    }
}

#[test]
fn errors_of_the_server_say_what_to_do() {
    for (status, remedy) in [
        (401, "HF_TOKEN"),
        (403, "accept its terms"),
        (404, "check the model's name"),
        (429, "wait some minutes"),
        (500, "try again later"),
        (418, "HF_ENDPOINT"),
    ] {
        let server = Server::start(move |_| Reply::status(status).with("X-Error-Code", "Code"));
        let place = Place::new(&server.address);
        place.fails(NAME, "config.json", &[&format!("answered {status} (Code)"), remedy]);
        let server = serve_but(move |request, reply| match request.is("GET", WEIGHTS) {
            true => Reply::status(status),
            false => reply,
        });
        let place = Place::new(&server.address);
        place.fails(NAME, WEIGHTS, &[&format!("answered {status}"), remedy]);
    }
}

#[test]
fn what_is_no_http_is_refused() {
    let server = Server::start(|_| Reply::status(999).with("Content-Length", "-5"));
    Place::new(&server.address).fails(NAME, "config.json", &[]);
    Place::new("gopher://localhost").fails(NAME, "config.json", &["no address", "HF_ENDPOINT"]);
    Place::new("http://127.0.0.1:1").fails(NAME, "config.json", &["no answer", "HF_ENDPOINT"]);
}

#[test]
fn offline_only_the_cache_counts() {
    let server = serve(preset());
    let mut place = Place::new(&server.address);
    place.hub.offline = true;
    place.fails(NAME, "the revision main", &[NAME, "HF_HUB_OFFLINE", "unset it"]);
    assert!(server.requests().is_empty());
    place.hub.offline = false;
    place.open(NAME).unwrap();
    server.requests();
    place.hub.offline = true;
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
    std::fs::remove_file(place.snapshot().join(WEIGHTS)).unwrap();
    place.fails(NAME, WEIGHTS, &[NAME, "HF_HUB_OFFLINE", "unset it"]);
    assert!(server.requests().is_empty());
}

#[test]
fn without_a_network_the_last_download_counts() {
    let place = Place::new(&serve(preset()).address);
    place.open(NAME).unwrap();
    let mut cut_off = Place::new("http://127.0.0.1:1");
    cut_off.hub.huggingface.cache = place.hub.huggingface.cache.clone();
    let (model, shown) = cut_off.open_saying(NAME);
    assert_golden(&model.unwrap(), "resnet_tiny");
    assert!(shown.contains("no answer") && shown.contains("the last download"), "{shown}");
}

#[test]
fn a_broken_update_leaves_the_last_download() {
    let mut place = Place::new(&serve(preset()).address);
    place.open(NAME).unwrap();
    let mut files = preset();
    files.insert(WEIGHTS.into(), b"other weights".into());
    let server = Server::start(move |request| match request.is("GET", WEIGHTS) {
        true => Reply::status(500),
        false => huggingface(&files, request).with("X-Repo-Commit", "f".repeat(40)),
    });
    place.hub.huggingface.endpoint = server.address.clone();
    place.open(NAME).unwrap_err();
    place.hub.offline = true;
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
}

/// `huggingface_hub` lays its files out in the same way.
#[test]
fn what_python_has_downloaded_is_found() {
    let mut place = Place::new("http://127.0.0.1:1");
    place.hub.offline = true;
    let folder = place.cache.path().join("hf/models--keras--resnet_tiny");
    for folder in [folder.join("refs"), folder.join("blobs"), place.snapshot()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
    for (name, bytes) in preset() {
        let hash = hash(&name, &bytes);
        std::fs::write(folder.join("blobs").join(&hash), bytes).unwrap();
        #[cfg(unix)]
        let link = std::os::unix::fs::symlink;
        #[cfg(not(unix))]
        let link = |from: PathBuf, to: PathBuf| {
            std::fs::copy(folder.join("blobs").join(from.file_name().unwrap()), to)
        };
        link(Path::new("../../blobs").join(hash), place.snapshot().join(name)).unwrap();
    }
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
}

#[test]
fn two_at_once_download_once() {
    let server = serve(preset());
    let place = Place::new(&server.address);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_golden(&place.open(NAME).unwrap(), "resnet_tiny"));
        }
    });
    let weights = server.requests().iter().filter(|r| r.is("GET", WEIGHTS)).count();
    assert_eq!(weights, 1);
}

/// A `.tar.gz` of members: type, name and contents.
fn archive<'a>(members: impl IntoIterator<Item = (tar::EntryType, &'a str, &'a [u8])>) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (kind, name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        // By hand: the library refuses to write what it would refuse to read.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if kind.is_symlink() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn good_archive() -> Vec<u8> {
    let files = preset();
    archive(files.iter().map(|(name, bytes)| (tar::EntryType::Regular, &**name, &**bytes)))
}

/// What Kaggle answers: the newest version, and a redirect to where the archive lies.
fn kaggle(archive: Vec<u8>) -> (Server, Server) {
    let store = Server::start(move |request| Reply::body(archive.clone()).part(request));
    let target = store.address.clone();
    let server = Server::start(move |request| match request.file() {
        "get" => Reply::body(r#"{"id": 5, "versionNumber": 3, "framework": "keras"}"#),
        "download" => Reply::redirect(302, format!("{target}/archive?signature=x")),
        _ => Reply::status(404),
    });
    (server, store)
}

#[test]
fn a_model_of_kaggle_is_the_local_one() {
    let (server, store) = kaggle(good_archive());
    let mut place = Place::new(&server.address);
    assert_golden(&place.open(KAGGLE).unwrap(), "resnet_tiny");
    let requests = server.requests();
    let paths: Vec<&str> = requests.iter().map(|r| r.path.as_str()).collect();
    let model = "/api/v1/models/keras/resnet/keras/resnet_tiny";
    assert_eq!(paths, [format!("{model}/get"), format!("{model}/3/download")]);
    assert!(requests.iter().all(|r| r.headers["authorization"] == "Basic bWU6c2VjcmV0"));
    assert!(store.requests().iter().all(|r| !r.headers.contains_key("authorization")));
    let folder = place.cache.path().join("kaggle/models/keras/resnet/keras/resnet_tiny");
    assert!(folder.join("3.complete").is_file() && folder.join("3/config.json").is_file());
    assert!(!folder.join("3.archive.incomplete").exists());
    // A version never changes.
    assert_golden(&place.open(&format!("{KAGGLE}/3")).unwrap(), "resnet_tiny");
    assert!(server.requests().is_empty());
    // The newest that is here, where there is no network.
    place.hub.kaggle.endpoint = "http://127.0.0.1:1".into();
    let (model, shown) = place.open_saying(KAGGLE);
    assert!(model.is_ok() && shown.contains("using version 3"), "{shown}");
    place.hub.offline = true;
    assert_golden(&place.open(KAGGLE).unwrap(), "resnet_tiny");
    let words = [KAGGLE, "HF_HUB_OFFLINE", "unset it"];
    place.fails(&format!("{KAGGLE}/4"), "version 4", &words);
}

#[test]
fn a_broken_archive_continues() {
    let whole = good_archive();
    let server = Server::start(move |request| {
        let mut reply = Reply::body(whole.clone()).part(request);
        reply.sent = request.from().is_none().then_some(100_000);
        reply
    });
    let place = Place::new(&server.address);
    let name = format!("{KAGGLE}/1");
    place.fails(&name, "resnet_tiny.tar.gz", &["100000 of ", "run again to continue"]);
    assert_golden(&place.open(&name).unwrap(), "resnet_tiny");
    assert_eq!(server.requests().last().unwrap().from(), Some(100_000));
}

#[test]
fn archives_cannot_leave_their_folder() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    for (kind, name, problem) in [
        (Regular, "../outside", "leads out of its folder"),
        (Regular, "a/../../outside", "leads out of its folder"),
        (Regular, "/tmp/outside", "leads out of its folder"),
        (Regular, "", "leads out of its folder"),
        (Symlink, "config.json", "is no file but a Symlink"),
        (Link, "config.json", "is no file but a Link"),
        (Char, "config.json", "is no file but a Char"),
    ] {
        let (server, _store) = kaggle(archive([(kind, name, &b"x"[..])]));
        let place = Place::new(&server.address);
        let shown = format!("`{name}`");
        let words = [&*shown, problem, "deleted", "run again"];
        place.fails(&format!("{KAGGLE}/1"), "resnet_tiny.tar.gz", &words);
        // Nothing but the lock.
        let files = place.files();
        assert!(files.len() == 1 && files[0].ends_with("1.lock"), "{files:?}");
    }
}

#[test]
fn damaged_archives_are_found_out() {
    let whole = good_archive();
    let mut flipped = whole.clone();
    // The checksum of the gzip format.
    let at = flipped.len() - 8;
    flipped[at] ^= 1;
    let mut huge = tar::Header::new_ustar();
    huge.set_path("model.weights.h5").unwrap();
    huge.set_size(7 << 30);
    huge.set_cksum();
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gz, huge.as_bytes()).unwrap();
    let many: Vec<String> = (0..1001).map(|i| format!("f{i}")).collect();
    let many = many.iter().map(|name| (tar::EntryType::Regular, &**name, &b""[..]));
    let twice = [(tar::EntryType::Regular, "f", &b""[..]); 2];
    for (bytes, problem) in [
        (whole[..whole.len() / 2].to_vec(), ""),
        (flipped, "not a whole .tar.gz"),
        (b"no archive".to_vec(), "not a whole .tar.gz"),
        (gz.finish().unwrap(), "has 7516192768 bytes, more than"),
        (archive(many), "more than 1000 members"),
        (archive(twice), "`f`"),
    ] {
        let (server, _store) = kaggle(bytes);
        let place = Place::new(&server.address);
        let words = [problem, "deleted", "run again"];
        place.fails(&format!("{KAGGLE}/1"), "resnet_tiny.tar.gz", &words);
        assert_eq!(place.files().len(), 1, "{problem}");
    }
}

#[test]
fn errors_of_kaggle_say_what_to_do() {
    for (status, remedy) in [
        (401, "KAGGLE_USERNAME and KAGGLE_KEY"),
        (403, "accept its terms"),
        (404, "name"),
        (502, "later"),
    ] {
        let server = Server::start(move |_| Reply::status(status));
        let place = Place::new(&server.address);
        let words = [&format!("answered {status}"), remedy];
        place.fails(&format!("{KAGGLE}/1"), "resnet_tiny.tar.gz", &words);
        place.fails(KAGGLE, "newest version", &words);
    }
    let server = Server::start(|_| Reply::body("<html>"));
    Place::new(&server.address).fails(KAGGLE, "newest version", &["does not tell", "try again"]);
}
