//! Uploads that are too large, too slow, too many, or break off.

use super::service::{Answer, Service, form, png, red, request, slow_picture};
use core::time::Duration;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::time::Instant;

#[test]
fn oversized() {
    let service = Service::start(&["--max-body=1", "--queue=3"]);
    let large = vec![0; (1 << 20) + 1];
    let answer = service.post("", &large);
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("more than 1 MiB"), "{}", answer.error());
    // Not announced.
    let mut body = format!("{:x}\r\n", large.len()).into_bytes();
    body.extend([&large[..], b"\r\n0\r\n\r\n"].concat());
    let head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(service.raw(&[head.as_bytes(), &body].concat()).status, 413);
    // Announced alone: refused before it is sent.
    let head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(service.raw(head.as_bytes()).status, 413);
    // The most that fits.
    assert_eq!(service.post("", &large[1..]).status, 422);
    // Too many pictures at once, however small.
    let picture = red();
    let (kind, body) = form(&[("x", &picture[..]); 4]);
    let answer = service.send("POST", "/classify", &kind, &body);
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("more than 3 files"), "{}", answer.error());
    let (kind, body) = form(&[("x", &picture[..]); 3]);
    assert_eq!(service.send("POST", "/classify", &kind, &body).status, 200);
    let headers = "x: y\r\n".repeat(200);
    let answer = service.raw(&request("GET", "/healthz", &headers, b""));
    assert_eq!(answer.status, 431);
    assert!(answer.error().contains("send fewer"));
    service.stop();
}

/// Neither a head nor a body that comes slowly keeps others from being answered, with one thread.
#[test]
fn slow() {
    let service = Service::start(&["--timeout=2", "--threads=1"]);
    let start = Instant::now();
    let mut slow: Vec<_> = (0..20).map(|_| service.connect()).collect();
    for (index, stream) in slow.iter_mut().enumerate() {
        let head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n";
        let body = if index % 2 == 0 { "" } else { "Content-Length: 1000\r\n\r\nabc" };
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(service.post("", &red()).label(), "red");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "slow clients are waited for");
    for stream in slow {
        // A trickle is no progress.
        let mut drip = stream.try_clone().unwrap();
        let dripping = std::thread::spawn(move || {
            while drip.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let answer = Answer::read(&mut BufReader::new(&stream));
        assert_eq!(answer.status, 408);
        assert!(answer.error().contains("2 seconds"), "{}", answer.error());
        stream.shutdown(Shutdown::Both).unwrap();
        dripping.join().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    // Those that say nothing at all just end.
    let stream = service.connect();
    assert!(Answer::try_read(&mut BufReader::new(stream)).is_none());
    service.stop();
}

/// Who asks and never reads is left.
#[test]
fn unread() {
    let service = Service::start(&["--timeout=1"]);
    let mut stream = service.connect();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let many = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    // Until nothing more is taken.
    for _ in 0..100 {
        if stream.write_all(&many).is_err() {
            break;
        }
    }
    service.until("it is left", |s| s.metric("edge_classify_connections") < 1.5);
    service.stop();
}

#[test]
fn truncated() {
    let service = Service::start(&["--threads=1"]);
    let file = red();
    let whole = request("POST", "/classify", "Content-Type: image/png\r\n", &file);
    for end in (0..whole.len()).step_by(7) {
        let mut stream = service.connect();
        stream.write_all(&whole[..end]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        if let Some(answer) = Answer::try_read(&mut BufReader::new(stream)) {
            assert!((400..500).contains(&answer.status), "{end}: {}", answer.status);
        }
    }
    // Gone without a word, also while a picture is classified.
    for _ in 0..50 {
        drop(service.connect());
        let mut stream = service.connect();
        stream.write_all(&whole).unwrap();
    }
    // The service learns of it in its own time.
    service.until("they are gone", |s| s.get("/healthz").status == 200);
    service.until("they are gone", |s| s.metric("edge_classify_connections") < 2.5);
    let (kind, body) = form(&[("x.png", &file)]);
    for end in [0, 1, 50, body.len() - 5] {
        assert_eq!(service.send("POST", "/classify", &kind, &body[..end]).status, 400, "{end}");
    }
    assert_eq!(service.post("", &red()).label(), "red");
    service.stop();
}

/// Whoever comes when the queue is full is told to come again; all others are answered.
#[test]
fn concurrent() {
    let service = Service::start(&["--threads=1", "--queue=2"]);
    let picture = slow_picture();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..16).map(|_| scope.spawn(|| service.post("?top=1", &picture))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let busy: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!((1..=15).contains(&busy.len()), "{}", busy.len());
    for answer in &busy {
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.error().contains("again in a second"));
    }
    for answer in answers.iter().filter(|answer| answer.status != 503) {
        assert_eq!(answer.label(), "green");
    }
    service.until("the queue is empty", |s| s.metric("edge_classify_queue_length") < 0.5);
    let count = service.metric("edge_classify_requests_total{status=\"503\"}");
    assert!((count - busy.len() as f64).abs() < 0.1, "{count}");
    service.stop();
}

#[test]
fn connections() {
    let service = Service::start(&["--max-connections=2"]);
    let held = [service.connect(), service.connect()];
    service.until("two are connected", |s| {
        let answer = s.raw(&request("GET", "/healthz", "", b""));
        let is_full = answer.status == 503;
        assert!(!is_full || answer.error().contains("again in a second"));
        is_full
    });
    drop(held);
    service.until("there is room again", |s| s.get("/healthz").status == 200);
    service.stop();
}

/// What many send at once is bounded together: eight of the largest.
#[test]
fn memory_for_uploads() {
    let service = Service::start(&["--max-body=1", "--max-connections=40", "--timeout=20"]);
    let mut streams: Vec<_> = (0..30).map(|_| service.connect()).collect();
    let body = vec![0; (1 << 20) - 1];
    let head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1048576\r\n\r\n";
    for stream in &mut streams {
        // All but the last byte: those that find no room are answered meanwhile.
        let _ = stream.write_all(&[head.as_bytes(), &body].concat());
    }
    let statuses: Vec<u16> = streams
        .into_iter()
        .map(|mut stream| {
            let _ = stream.write_all(b"\0");
            Answer::read(&mut BufReader::new(stream)).status
        })
        .collect();
    let count = |status| statuses.iter().filter(|&&s| s == status).count();
    assert!(count(422) >= 1 && count(503) >= 15, "{statuses:?}");
    assert_eq!(count(422) + count(503), 30, "{statuses:?}");
    assert_eq!(service.post("", &png([255, 0, 0], 9)).label(), "red");
    service.stop();
}
