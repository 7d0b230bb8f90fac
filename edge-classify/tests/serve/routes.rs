//! What is answered where.

use super::corner::red_model;
use super::service::{Answer, DESCRIPTION, Service, form, png, red, request};
use std::io::{BufReader, Write};

#[test]
fn pictures_are_classified() {
    let service = Service::start(&[]);
    let line = &service.lines()[0];
    assert!(
        line.contains("listening on http://127.0.0.1:") && line.contains("(3 classes)"),
        "{line}"
    );
    let answer = service.post("", &red());
    assert_eq!(answer.label(), "red");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let item = &answer.json()[0];
    assert_eq!((item["file"].as_str(), item.get("ms")), (Some("-"), None));
    assert_eq!(item["classes"].as_array().unwrap().len(), 3);

    let item = &service.post("?top=1&time=true&file=a%20b.png", &red()).json()[0];
    assert_eq!(item["file"], "a b.png");
    assert_eq!(item["classes"].as_array().unwrap().len(), 1);
    assert!(item["ms"]["decode"].is_number() && item["ms"]["run"].is_number());
    // As with the command line: none is as likely.
    let grey = service.post("?threshold=0.9", &png([9; 3], 2)).json();
    assert_eq!(grey[0]["classes"].as_array().unwrap().len(), 0);

    let (green, blue) = (png([0, 255, 0], 3), png([0, 0, 255], 3));
    let (kind, body) = form(&[("g.png", &green), ("no.png", b"<html>"), ("b.png", &blue)]);
    let json = service.send("POST", "/classify", &kind, &body).json();
    let labels: Vec<_> =
        json.as_array().unwrap().iter().map(|i| i["classes"][0]["label"].as_str()).collect();
    assert_eq!(labels, [Some("green"), None, Some("blue")]);
    assert!(json[1]["error"].as_str().unwrap().contains("a web page"));
    assert_eq!(json[1]["file"], "no.png");

    let (kind, body) = form(&[("x.png", b"<html>"), ("y.png", b"")]);
    let answer = service.send("POST", "/classify", &kind, &body);
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["pictures"][1]["file"], "y.png");
    service.stop();
}

/// Where it is asked for and the network has any; the answer is held to its description.
#[test]
fn heat_maps_come_with_the_answer() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.edge");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(models, folder.path().join("corner.edge")).unwrap();
    let service = Service::start_in(folder, &[]);
    assert_eq!(service.post("", &red()).json()[0].get("heatmap"), None);
    let item = &service.post("?heatmap=true", &red()).json()[0];
    assert_eq!(item["heatmap"]["class"], item["classes"][0]["label"]);
    assert_eq!(item["heatmap"]["values"].as_array().unwrap().len(), 64);
    service.stop();
    let service = Service::start(&[]);
    assert_eq!(service.post("?heatmap=true", &red()).json()[0].get("heatmap"), None);
    service.stop();
}

/// The same values as those of the command line, in the same form.
#[test]
fn answers_are_those_of_the_command_line() {
    let service = Service::start(&[]);
    std::fs::write(service.path("p.png"), red()).unwrap();
    let path = service.path("p.png").display().to_string();
    let model = service.path("corner.edge").display().to_string();
    let args = ["edge-classify", "--json", "--top=2", "--model", &model, &path];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(edge_classify::run(args, &mut out, &mut err), 0);
    let name: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    let answer = service.post(&format!("?top=2&file={name}"), &red());
    assert_eq!(answer.text(), String::from_utf8(out).unwrap());
    service.stop();
}

/// What is unknown is said, and where that goes on, once.
#[test]
fn unknown_pictures_and_drift() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corner.edge"), red_model()).unwrap();
    let service = Service::start_in(folder, &["--results=@/r.jsonl"]);
    assert!((service.metric("edge_classify_drift_ratio") - 1.0).abs() < 1e-6);
    let described = &DESCRIPTION["components"]["schemas"]["Item"]["properties"];
    let drifts = |picture: &[u8], count: usize, is_unknown: bool| {
        for _ in 0..count {
            let item = &service.post("", picture).json()[0];
            assert_eq!(item["unknown"], is_unknown, "{item}");
            assert_eq!(item["distance"].as_f64().unwrap() > 1.0, is_unknown, "{item}");
            assert!(item.as_object().unwrap().keys().all(|key| described[key].is_object()));
        }
        service.metric("edge_classify_drift_ratio")
    };
    assert!(drifts(&red(), 2, false) < 1.0);
    assert!(drifts(&png([0, 255, 0], 2), 20, true) > 1.5);
    assert!(drifts(&red(), 60, false) < 1.25);
    let (lines, folder) = service.stop();
    let said: Vec<&String> = lines.iter().filter(|line| line.contains("drift")).collect();
    assert!(said.len() == 2 && said[1].contains("drift is over"), "{lines:?}");
    let kept = std::fs::read_to_string(folder.path().join("r.jsonl")).unwrap();
    assert!(kept.lines().nth(3).unwrap().contains("\"unknown\":true"), "{kept}");
}

#[test]
fn the_description_is_true() {
    let service = Service::start(&[]);
    assert_eq!(service.get("/openapi.json").json(), *DESCRIPTION);
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = service.send(method, path, "", b"");
            match operations.get(method.to_lowercase()) {
                Some(_) => assert!(![404, 405].contains(&answer.status), "{method} {path}"),
                None => {
                    assert_eq!(answer.status, 405, "{method} {path}");
                    assert!(answer.header("allow").is_some(), "{method} {path}");
                }
            }
        }
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(service.get(path).header(name), Some(value), "{path}");
        }
        assert!(service.get(path).header("content-security-policy").is_some());
    }
    // Parameters that are described are taken, others and other values are not.
    let taken = [
        "top=1",
        "top=100",
        "threshold=0",
        "threshold=1",
        "time=false",
        "heatmap=true",
        "file=x",
        "",
    ];
    for query in taken {
        assert_eq!(service.post(&format!("?{query}"), &red()).status, 200, "{query}");
    }
    for (query, want) in [
        ("top=0", "from 1 to 100"),
        ("top=101", "from 1 to 100"),
        ("top=", "from 1 to 100"),
        ("threshold=nan", "from 0 to 1"),
        ("threshold=1.1", "from 0 to 1"),
        ("time=1", "true or false"),
        ("topp=1", "unknown parameter"),
    ] {
        let answer = service.post(&format!("?{query}"), &red());
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.error().contains(want), "{query}: {}", answer.error());
    }
    service.stop();
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let service = Service::start(&[]);
    let page = service.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let html = page.text();
    assert!(!html.contains("@STYLE@") && !html.contains("@SCRIPT@"));
    for address in ["http://", "https://", "src=\"//", "@import", "url("] {
        assert!(!html.contains(address), "{address}");
    }
    service.stop();
}

#[test]
fn wrong_content_types() {
    let service = Service::start(&[]);
    let file = red();
    for (kind, status, want) in [
        ("image/jpeg", 200, ""),
        ("IMAGE/PNG; q=1", 200, ""),
        ("application/octet-stream", 200, ""),
        ("application/json", 415, "image/jpeg"),
        ("application/x-www-form-urlencoded", 415, "-F file=@"),
        ("text/plain", 415, "image/jpeg"),
        ("multipart/mixed; boundary=x", 415, "multipart/form-data"),
        ("multipart/form-data", 400, "boundary"),
        ("multipart/form-data; boundary=x", 400, "boundary"),
        ("\u{7f}", 400, ""),
    ] {
        let headers = format!("Content-Type: {kind}\r\n");
        if kind == "\u{7f}" {
            assert!(
                (400..500)
                    .contains(&service.raw(&request("POST", "/classify", &headers, &file)).status)
            );
            continue;
        }
        let answer = service.send("POST", "/classify", &headers, &file);
        assert_eq!(answer.status, status, "{kind}");
        assert!(answer.text().contains(want), "{kind}: {}", answer.text());
    }
    assert_eq!(service.send("POST", "/classify", "", &file).label(), "red");
    assert_eq!(service.post("", b"").status, 400);
    let (kind, body) = form(&[]);
    let answer = service.send("POST", "/classify", &kind, &body);
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("no picture"), "{}", answer.error());
    service.stop();
}

#[test]
fn path_tricks_lead_nowhere() {
    let service = Service::start(&[]);
    let long = format!("/{}", "a".repeat(60_000));
    for target in [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/classify/",
        "//classify",
        "/./classify",
        "/%63lassify",
        "/classify%00",
        "/classify;x",
        "/CLASSIFY",
        "/page.html",
        "/corner.edge",
        "/healthz/../metrics",
        "/\\..\\..",
        &long,
    ] {
        for method in ["GET", "POST"] {
            let answer = service.send(method, target, "", b"");
            assert_eq!(answer.status, 404, "{method} {}", &target[..target.len().min(40)]);
        }
    }
    for line in [
        "GET /\0 HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/9.9",
        "GET",
        "\u{16}\u{3}\u{1}",
        "G\u{1b}[2J / HTTP/1.1",
        &format!("GET /{} HTTP/1.1", "a".repeat(70_000)),
    ] {
        let answer = service.raw(format!("{line}\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!((400..500).contains(&answer.status), "{line}: {answer:?}");
        assert!(answer.error().len() > 10);
    }
    // A proxy's form of an address means the path alone.
    assert_eq!(service.send("GET", "http://elsewhere.example/healthz", "", b"").status, 200);
    assert_eq!(service.raw(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 404);
    service.stop();
}

#[test]
fn a_connection_serves_many() {
    let service = Service::start(&[]);
    let mut stream = service.connect();
    let one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Three at once, then a picture.
    stream.write_all(&one.repeat(3)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        let json = Answer::read(&mut reader).json();
        assert_eq!((json["status"].as_str(), json["classes"].as_u64()), (Some("ok"), Some(3)));
    }
    let file = red();
    let head = format!(
        "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        file.len()
    );
    for _ in 0..5 {
        stream.write_all(&[head.as_bytes(), &file].concat()).unwrap();
        assert_eq!(Answer::read(&mut reader).label(), "red");
    }
    assert!(service.metric("edge_classify_connections") >= 2.0);
    assert!(service.metric("process_resident_memory_bytes") > 1e6);
    assert!(
        (service.metric("edge_classify_pictures_total{outcome=\"classified\"}") - 5.0).abs() < 0.1
    );
    service.stop();
}
