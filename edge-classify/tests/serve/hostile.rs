//! Pictures that are out to break the service: refused, or classified, and never a fault.

use super::service::{Service, png};
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Each is answered with 200 or 422, and the service goes on.
fn hold(service: &Service, name: &str, file: &[u8]) -> u16 {
    let answer = service.post("", file);
    assert!(matches!(answer.status, 200 | 400 | 413 | 422), "{name}: {}", answer.text());
    answer.status
}

/// A PNG's chunk; the checksum is right.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for &byte in kind.iter().chain(data) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let len = (data.len() as u32).to_be_bytes();
    [&len, &kind[..], data, &(!crc).to_be_bytes()].concat()
}

/// A PNG that says how large it is, and has nothing to show for it.
fn claim(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let head = chunk(b"IHDR", &[&size[..], &[depth, color, 0, 0, 0]].concat());
    [&b"\x89PNG\r\n\x1a\n"[..], &head, &chunk(b"IDAT", b"x\x9c"), &chunk(b"IEND", b"")].concat()
}

#[test]
fn hostile_pictures() {
    let service = Service::start(&["--threads=1"]);
    let good = png([255, 0, 0], 60);
    for (name, file) in [
        ("claims 16384 x 16384", claim(16_384, 16_384, 8, 2)),
        ("claims all there is", claim(u32::MAX >> 1, u32::MAX >> 1, 16, 6)),
        ("claims nothing", claim(0, 0, 8, 2)),
        ("claims a long line", claim(1, 65_535, 8, 2)),
        ("one bit", claim(32_768, 32_768, 1, 0)),
        ("html", b"<!doctype html><img src=x>".to_vec()),
        ("one byte", b"\xff".to_vec()),
        ("jpeg's first bytes", b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec()),
        (
            "webp of nothing",
            b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/\xff\xff\xff\xff".to_vec(),
        ),
        ("gif of nothing", b"GIF89a\xff\xff\xff\xff\xff\0\0,\0\0\0\0\xff\xff\xff\xff\0".to_vec()),
        ("bmp of nothing", [&b"BM"[..], &[0xff; 60]].concat()),
        ("zip", b"PK\x03\x04".to_vec()),
    ] {
        assert_eq!(hold(&service, name, &file), 422, "{name}");
    }
    for end in 1..good.len() {
        // What is missing at the very end is no pixel.
        let status = hold(&service, "truncated", &good[..end]);
        assert!(status == 422 || end + 16 > good.len(), "{end}");
    }
    // One byte wrong, at each place.
    for at in 0..good.len() {
        let mut file = good.clone();
        file[at] = !file[at];
        hold(&service, &format!("byte {at}"), &file);
    }
    let fixtures = files(&repository().join("crates/picture/tests/fixtures"));
    assert!(fixtures.len() > 10);
    for path in fixtures {
        let file = fs::read(&path).unwrap();
        hold(&service, &path.display().to_string(), &file);
        for part in [2, 3] {
            let end = file.len() - file.len() / part;
            hold(&service, &path.display().to_string(), &file[..end]);
        }
    }
    assert_eq!(service.post("", &good).label(), "red");
    let faults = service.get("/metrics").text().contains("status=\"5");
    assert!(!faults, "{:?}", service.lines());
    let (lines, _) = service.stop();
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// Files that were found to hurt, where they are at hand.
#[test]
fn known_cases() {
    let shared = repository().join("../shared/cases");
    let cases = [files(&shared.join("hostile")), files(&shared.join("pictures"))].concat();
    if cases.is_empty() {
        println!("skipped: no cases in {}", shared.display());
        return;
    }
    let service = Service::start(&["--threads=1"]);
    for path in cases {
        let start = std::time::Instant::now();
        let status = hold(&service, &path.display().to_string(), &fs::read(&path).unwrap());
        println!("{status} in {:?}: {}", start.elapsed(), path.display());
    }
    assert_eq!(service.post("", &png([0, 0, 255], 8)).label(), "blue");
    service.stop();
}
