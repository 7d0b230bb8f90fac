//! What was downloaded before.

use crate::server::{COMMIT, Reply, Server, hash, huggingface};
use crate::{NAME, Place, WEIGHTS, assert_golden, preset, serve};
use std::path::Path;
#[cfg(not(unix))]
use std::path::PathBuf;

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
