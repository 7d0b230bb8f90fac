//! Kaggle's archives.

use crate::server::{Reply, Server};
use crate::{Place, assert_golden, preset};
use flate2::Compression;
use flate2::write::GzEncoder;

const NAME: &str = "kaggle://keras/resnet/keras/resnet_tiny";

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
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
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
    assert_golden(&place.open(&format!("{NAME}/3")).unwrap(), "resnet_tiny");
    assert!(server.requests().is_empty());
    // The newest that is here, where there is no network.
    place.hub.kaggle.endpoint = "http://127.0.0.1:1".into();
    let (model, shown) = place.open_saying(NAME);
    assert!(model.is_ok() && shown.contains("using version 3"), "{shown}");
    place.hub.offline = true;
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
    let words = [NAME, "HF_HUB_OFFLINE", "unset it"];
    place.fails(&format!("{NAME}/4"), "version 4", &words);
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
    let name = format!("{NAME}/1");
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
        place.fails(&format!("{NAME}/1"), "resnet_tiny.tar.gz", &words);
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
        place.fails(&format!("{NAME}/1"), "resnet_tiny.tar.gz", &words);
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
        place.fails(&format!("{NAME}/1"), "resnet_tiny.tar.gz", &words);
        place.fails(NAME, "newest version", &words);
    }
    let server = Server::start(|_| Reply::body("<html>"));
    Place::new(&server.address).fails(NAME, "newest version", &["does not tell", "try again"]);
}
