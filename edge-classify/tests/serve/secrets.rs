//! Who may ask: loopback alone, tokens, TLS.

use super::corner::corner_model;
use super::service::{Answer, Service, red, request};
use std::fs;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Runs the program in process, which has to fail before it listens.
fn refusal(args: &[&str]) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["edge-classify", "serve"].iter().chain(args);
    assert_eq!(edge_classify::run(args, &mut out, &mut err), edge_classify::EXIT_ERROR);
    String::from_utf8(err).unwrap()
}

#[test]
fn loopback_unless_told_otherwise() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(edge_classify::run(["edge-classify", "serve", "--help"], &mut out, &mut err), 0);
    let help = String::from_utf8(out).unwrap();
    assert!(help.contains("[default: 127.0.0.1:8080]"), "{help}");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let err = refusal(&["--listen", address]);
        assert!(err.contains("--token-file FILE") && err.contains("--no-token"), "{err}");
    }
    // Only those are asked that others reach.
    let service = Service::start(&[]);
    assert!(service.address.ip().is_loopback());
    service.stop();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let err = refusal(&["--listen", &address]);
    assert!(err.contains(&format!("--listen {address}: ")), "{err}");
}

#[test]
fn options_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("empty"), "\n").unwrap();
    fs::write(path("model.edge"), "no model").unwrap();
    for (args, want) in [
        (&["--token-file", &path("none")][..], "--token-file"),
        (&["--token-file", &path("empty")], "at least one"),
        (&["--token", "a b"], "without spaces"),
        (&["--token", "a", "--no-token"], "cannot be used with"),
        (&["--tls-cert", &path("empty")], "--tls-key"),
        (&["--tls-cert", &path("empty"), "--tls-key", &path("empty")], "no certificate"),
        (&["--model", &path("model.edge")], "model.edge: truncated"),
        (&["--key", &path("empty")], "--model"),
        (&["--results", &path("x.txt")], ".csv or .jsonl"),
        (&["--results", &path("none/x.csv")], "--results"),
        (&["--max-body", "0"], "1..=512"),
        (&["--queue", "0"], "0"),
        (&["--listen", "8080"], "8080"),
    ] {
        let err = refusal(args);
        assert!(err.contains(want), "{args:?}: {err}");
    }
}

#[test]
fn tokens() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("corner.edge"), corner_model(["red", "green", "blue"])).unwrap();
    fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    let service = Service::start_in(folder, &["--token-file=@/token"]);
    let picture = red();
    for (header, status) in [
        ("", 401),
        ("Authorization: Bearer s3cre\r\n", 401),
        ("Authorization: Bearer s3cret2\r\n", 401),
        ("Authorization: Bearer \r\n", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: Basic s3cret\r\n", 401),
        ("Authorization: s3cret\r\n", 401),
        ("Authorization: Bearer s3cret\r\n", 200),
        ("authorization: bearer s3cret\r\n", 200),
    ] {
        let answer = service.send("POST", "/classify", header, &picture);
        assert_eq!(answer.status, status, "{header}");
        assert_eq!(service.send("GET", "/metrics", header, b"").status, status, "{header}");
        if status == 401 {
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(answer.error().contains("Authorization: Bearer TOKEN"));
        }
    }
    // A wrong token learns no more than that: not whether the request was a good one.
    assert_eq!(service.send("POST", "/classify?top=0", "", b"").status, 401);
    for open in ["/", "/healthz", "/openapi.json"] {
        assert_eq!(service.get(open).status, 200, "{open}");
    }
    service.stop();
}

/// Pages of other sites cannot use what only this machine reaches.
#[test]
fn other_sites() {
    let service = Service::start(&[]);
    for (site, status) in
        [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
    {
        let header = format!("Sec-Fetch-Site: {site}\r\n");
        assert_eq!(service.send("POST", "/classify", &header, &red()).status, status, "{site}");
    }
    assert_eq!(service.get("/").header("access-control-allow-origin"), None);
    // Nor by a name that leads to this machine.
    let names = |service: &Service, name: &str| {
        let whole = format!("GET /metrics HTTP/1.1\r\nHost: {name}\r\n\r\n");
        service.raw(whole.as_bytes()).status
    };
    for (name, status) in [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("app.localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("rebound.example", 403),
        ("rebound.example:8080", 403),
        ("localhost.example", 403),
        ("127.0.0.1.example", 403),
    ] {
        assert_eq!(names(&service, name), status, "{name}");
    }
    service.stop();
    let service = Service::start(&["--token=secret"]);
    assert_eq!(names(&service, "rebound.example"), 401);
    service.stop();
}

#[test]
fn tls() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/fixtures");
    let path = |name: &str| fixtures.join(name).display().to_string();
    let cert = path("localhost.pem");
    let service =
        Service::start(&["--timeout=2", "--tls-cert", &cert, "--tls-key", &path("localhost.key")]);
    assert!(service.lines()[0].contains("https://127.0.0.1:"), "{:?}", service.lines());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // One that never shakes hands does not keep others from it.
    let silent = service.connect();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(client, service.connect());
    stream.write_all(&request("POST", "/classify", "", &red())).unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(&mut stream)).label(), "red");
    drop(stream);
    // What does not speak TLS gets no answer that is one.
    let mut plain = service.connect();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut first = [0; 4];
    let read = std::io::Read::read(&mut plain, &mut first).unwrap_or(0);
    assert_ne!(&first[..read], b"HTTP");
    assert_eq!(std::io::Read::read(&mut &silent, &mut first).unwrap_or(0), 0);
    service.stop();
}
