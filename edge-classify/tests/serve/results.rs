//! Results that are kept.

use super::corner::corner_model;
use super::service::{Service, form, red};
use std::fs;

/// What a client calls its picture.
const NAMES: [&str; 5] = [
    "plain.png",
    "a\",\"b.png",
    "=cmd|'/c calc'!A0",
    "\u{1b}[2J\u{202e}gnp.exe",
    "x%0d%0aforged,row",
];

/// Sends each name, and something that is no picture.
fn fill(service: &Service) {
    for name in NAMES {
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        assert_eq!(service.post(&format!("?file={name}"), &red()).status, 200);
    }
    assert_eq!(service.post("?file=new%0d%0aline", &red()).status, 200);
    let picture = red();
    let (kind, body) = form(&[("one.png", &picture), ("no.png", b"text")]);
    assert_eq!(service.send("POST", "/classify", &kind, &body).status, 200);
}

fn start(file: &str) -> Service {
    let folder = tempfile::tempdir().unwrap();
    let model = corner_model(["=red\n\"1\"", "green", "blue"]);
    fs::write(folder.path().join("corner.edge"), model).unwrap();
    Service::start_in(folder, &[&format!("--results=@/{file}"), "--threads=1"])
}

#[test]
fn csv() {
    let service = start("r.csv");
    fill(&service);
    let (_, folder) = service.stop();
    // It is appended to, and the head is there once.
    let service = Service::start_in(folder, &["--results=@/r.csv"]);
    assert_eq!(service.post("", &red()).status, 200);
    let (_, folder) = service.stop();
    let text = fs::read_to_string(folder.path().join("r.csv")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "time,file,label,probability,ms,error");
    assert_eq!(lines.len(), 1 + NAMES.len() + 4, "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text}");
    let label = "\"'=red\\u{a}\"\"1\"\"\"";
    for (line, name) in lines[1..].iter().zip([
        "\"plain.png\"",
        "\"a\"\",\"\"b.png\"",
        "\"'=cmd|'/c calc'!A0\"",
        "\"\\u{1b}[2J\\u{202e}gnp.exe\"",
        "\"x%0d%0aforged,row\"",
        "\"new\\u{d}\\u{a}line\"",
        "\"one.png\"",
    ]) {
        let (time, rest) = line.split_once(',').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        let want = format!("{name},{label},1.0000,");
        assert!(rest.starts_with(&want), "{rest}\n{want}");
        assert!(rest.ends_with(",\"\""), "{rest}");
    }
    assert!(lines[8].contains(",\"no.png\",\"\",,"), "{}", lines[8]);
    assert!(lines[8].contains("\"not a picture in a format"), "{}", lines[8]);
}

#[test]
fn jsonl() {
    let service = start("r.jsonl");
    fill(&service);
    let (_, folder) = service.stop();
    let text = fs::read_to_string(folder.path().join("r.jsonl")).unwrap();
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text}");
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = rows.iter().map(|row| row["file"].as_str().unwrap()).collect();
    assert_eq!(names[..NAMES.len()], NAMES);
    assert_eq!(names[NAMES.len()..], ["new\r\nline", "one.png", "no.png"]);
    assert_eq!(rows[0]["label"], "=red\n\"1\"");
    assert!(rows[0]["probability"].as_f64().unwrap() > 0.99 && rows[0]["ms"].is_number());
    assert!(rows[7]["label"].is_null() && rows[7]["error"].is_string());
}

/// A disk that is full costs rows, not answers; one line says so.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let model = corner_model(["red", "green", "blue"]);
    fs::write(folder.path().join("corner.edge"), model).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("r.jsonl")).unwrap();
    let service = Service::start_in(folder, &["--results=@/r.jsonl"]);
    for _ in 0..3 {
        assert_eq!(service.post("", &red()).label(), "red");
    }
    assert!((service.metric("edge_classify_results_unwritten_total") - 3.0).abs() < 0.1);
    let (lines, _) = service.stop();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("--results: "), "{lines:?}");
}
