//! Servers that break off, fall silent, redirect, lie or refuse.

use crate::server::{COMMIT, Reply, Request, Server, hash};
use crate::{NAME, Place, WEIGHTS, assert_golden, preset, serve, serve_but, serve_with};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::PathBuf;

/// Breaks off the weights after a part, unless a request continues there.
fn breaking(stall: bool) -> Server {
    serve_with("GET", WEIGHTS, move |request, mut reply| {
        if request.from().is_none() {
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
    let server =
        serve_with("GET", WEIGHTS, move |_, reply| match first.swap(false, Ordering::Relaxed) {
            true => Reply { sent: Some(1000), ..reply },
            false => Reply::body(preset().remove(WEIGHTS).unwrap()),
        });
    let place = Place::new(&server.address);
    place.open(NAME).unwrap_err();
    assert_golden(&place.open(NAME).unwrap(), "resnet_tiny");
}

#[test]
fn a_wrong_part_is_refused() {
    let server = serve_with("GET", WEIGHTS, |request, reply| match request.from() {
        None => Reply { sent: Some(1000), ..reply },
        Some(_) => reply.with("Content-Range", "bytes 5-9/10"),
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
    let server = serve_with("GET", WEIGHTS, |_, mut reply| {
        reply.body[1000] ^= 1;
        reply
    });
    let place = Place::new(&server.address);
    let wanted = hash(WEIGHTS, &preset()[WEIGHTS]);
    place.fails(NAME, WEIGHTS, &["has the hash", &wanted, "deleted", "run again"]);
    place.fails(NAME, &wanted, &[]);
    let parts = |f: &PathBuf| f.extension().is_some_and(|e| e == "incomplete");
    assert!(!place.files().iter().any(parts));

    // Small files have Git's hash.
    let server = serve_with("GET", "config.json", |_, mut reply| {
        reply.body[0] = b' ';
        reply
    });
    Place::new(&server.address).fails(NAME, "config.json", &["has the hash", "run again"]);
}

#[test]
fn false_sizes_are_found_out() {
    let announce = |method: &'static str, header: &'static str, value: &'static str| {
        serve_with(method, WEIGHTS, move |_, reply| reply.with(header, value))
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
    let server = serve_with("GET", WEIGHTS, |_, mut reply| {
        reply.body.push(0);
        reply.with("Content-Length", "")
    });
    let words = ["sends more than 489568 bytes", "try again"];
    Place::new(&server.address).fails(NAME, WEIGHTS, &words);

    // A configuration that would fill the memory.
    let size = |_: &Request, reply: Reply| reply.with("X-Linked-Size", "100000000");
    let server = serve_with("HEAD", "config.json", size);
    Place::new(&server.address).fails(NAME, "config.json", &["100000000 bytes", "at most"]);
}

#[test]
fn hashes_and_commits_that_are_none_are_refused() {
    for etag in ["", "\"../../../../outside\"", "\"5\""] {
        let server = serve_with("HEAD", WEIGHTS, move |_, reply| reply.with("ETag", etag));
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
        let server = serve_with("GET", WEIGHTS, move |_, _| Reply::status(status));
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

/// The cache of [`kills_are_continued`]'s child, and the server.
const CHILD: [&str; 2] = ["EDGE_TEST_CACHE", "EDGE_TEST_SERVER"];

/// Not a test by itself: what [`kills_are_continued`] kills.
#[test]
fn child_of_kills_are_continued() {
    let [Ok(cache), Ok(server)] = CHILD.map(std::env::var) else { return };
    let mut place = Place::new(&server);
    place.hub.huggingface.cache = cache.into();
    // What it says is of no interest: it will be killed, or is done.
    let _ = place.open(NAME);
}

/// A download that is killed ten times ends with the same files, and leaves nothing else.
#[test]
fn kills_are_continued() {
    // Each request gets another part, then silence.
    let server = serve_with("GET", WEIGHTS, |request, mut reply| {
        (reply.sent, reply.stall) = (Some(40_000), request.from() < Some(400_000));
        if !reply.stall {
            reply.sent = None;
        }
        reply
    });
    let place = Place::new(&server.address);
    let cache = &place.hub.huggingface.cache;
    let values = [cache.to_str().unwrap(), &server.address];
    for kill in 0..10 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "faults::child_of_kills_are_continued"])
            .envs(CHILD.into_iter().zip(values));
        let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 + kill * 15));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    server.requests();
    let whole = serve(preset());
    let mut after = Place::new(&whole.address);
    after.hub.huggingface.cache = cache.clone();
    assert_golden(&after.open(NAME).unwrap(), "resnet_tiny");
    let continued = whole.requests().iter().filter_map(|r| r.from()).max();
    assert!(continued > Some(40_000), "{continued:?}");
    let is_left = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".incomplete") || name.starts_with(".writing-")
    };
    assert_eq!(place.files().iter().find(is_left), None);
}
