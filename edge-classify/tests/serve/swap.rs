//! The model changes while pictures are classified.

use super::corner::corner_model;
use super::service::{Answer, Service, red};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer, SigningKey};
use std::fs;
use std::io::{BufReader, Write};

/// As programs replace files: another one takes its name.
fn replace(service: &Service, bytes: &[u8]) {
    fs::write(service.path("new"), bytes).unwrap();
    fs::rename(service.path("new"), service.path("corner.edge")).unwrap();
}

fn label(service: &Service) -> String {
    service.post("?top=1", &red()).label()
}

/// Each request of eight clients is answered, by the old model or the new one, and at last by the new.
#[test]
fn no_request_is_lost() {
    let service = Service::start(&["--queue=100"]);
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = service.connect();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let file = red();
                let head = format!(
                    "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                    file.len()
                );
                let one = [head.as_bytes(), &file].concat();
                while !is_over.load(Relaxed) {
                    stream.write_all(&one).unwrap();
                    let label = Answer::read(&mut reader).label();
                    assert!(label.starts_with("red"), "{label}");
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        for round in 0..5 {
            let name = format!("red{round}");
            // Of another size each time.
            let names = [&name[..], "green", &"blue".repeat(round + 1)];
            match round % 2 {
                0 => replace(&service, &corner_model(names)),
                _ => fs::write(service.path("corner.edge"), corner_model(names)).unwrap(),
            }
            service.until(&name, |s| label(s) == name);
        }
        is_over.store(true, Relaxed);
    });
    assert!(count.load(Relaxed) > 500, "{count:?}");
    assert!((service.metric("edge_classify_model_swaps_total") - 5.0).abs() < 0.1);
    let faults = service.get("/metrics").text();
    assert!(!faults.contains("status=\"4") && !faults.contains("status=\"5"), "{faults}");
    let (lines, _) = service.stop();
    assert_eq!(lines.len(), 6, "{lines:?}");
}

#[test]
fn what_is_no_model_is_refused() {
    let service = Service::start(&[]);
    let refusals = |s: &Service| s.metric("edge_classify_model_refusals_total").round() as usize;
    let good = corner_model(["red2", "green", "blue"]);
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    let wrong = [&b"no model"[..], b"", &good[..good.len() - 1], &broken, &[0; 4096]];
    for (index, bytes) in wrong.iter().enumerate() {
        replace(&service, bytes);
        service.until("it is refused", |s| refusals(s) == index + 1);
        assert_eq!(label(&service), "red");
    }
    // Gone for a while, then whole.
    fs::remove_file(service.path("corner.edge")).unwrap();
    std::thread::sleep(core::time::Duration::from_millis(1200));
    assert_eq!(label(&service), "red");
    replace(&service, &good);
    service.until("it is taken", |s| label(s) == "red2");
    assert_eq!(refusals(&service), wrong.len());
    let (lines, _) = service.stop();
    let refused = lines.iter().filter(|l| l.ends_with("the model before it stays in use")).count();
    assert_eq!((refused, lines.len()), (wrong.len(), wrong.len() + 2), "{lines:?}");
}

/// A new model has to be signed by the same key.
#[test]
fn signatures_are_asked_for_again() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let sign = |key: &SigningKey, labels| {
        let sign = |bytes: &[u8]| key.sign(bytes).to_bytes();
        artifact::writer::rewrite(&corner_model(labels), Some(sign)).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let pem = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    fs::write(folder.path().join("key.pem"), pem).unwrap();
    let file = folder.path().join("corner.edge");
    fs::write(&file, sign(&key, ["red", "green", "blue"])).unwrap();
    let service = Service::start_in(folder, &["--key=@/key.pem"]);
    let refused = [
        corner_model(["red1", "green", "blue"]),
        sign(&SigningKey::from_bytes(&[8; 32]), ["red2", "green", "blue"]),
    ];
    for (index, bytes) in refused.iter().enumerate() {
        replace(&service, bytes);
        service.until("it is refused", |s| {
            s.metric("edge_classify_model_refusals_total") > index as f64 + 0.5
        });
        assert_eq!(label(&service), "red");
    }
    replace(&service, &sign(&key, ["red3", "green", "blue"]));
    service.until("it is taken", |s| label(s) == "red3");
    service.stop();
}
