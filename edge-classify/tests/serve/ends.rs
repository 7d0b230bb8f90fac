//! The program ends when it is asked to, and answers what has come before.

use super::service::{Answer, Service, png, red, request, slow_picture};
use core::time::Duration;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

#[test]
fn what_waits_is_answered() {
    for signal in ["TERM", "INT"] {
        let service = Service::start(&["--threads=1", "--queue=64"]);
        let (picture, rest) = (slow_picture(), png([0, 0, 255], 20));
        let whole = request("POST", "/classify", "", &picture);
        let mut streams: Vec<_> = (0..8).map(|_| service.connect()).collect();
        for stream in &mut streams {
            stream.write_all(&whole).unwrap();
        }
        // One is still being sent.
        let mut late = service.connect();
        let parts = request("POST", "/classify", "", &rest);
        late.write_all(&parts[..parts.len() - 10]).unwrap();
        // One is idle, one has said nothing yet.
        let mut idle = service.connect();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut idle = BufReader::new(idle);
        assert_eq!(Answer::read(&mut idle).status, 200);
        let silent = service.connect();
        service.until("pictures wait", |s| s.metric("edge_classify_queue_length") > 3.5);

        service.signal(signal);
        let start = Instant::now();
        while TcpStream::connect(service.address).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(10), "it still accepts");
            std::thread::sleep(Duration::from_millis(10));
        }
        late.write_all(&parts[parts.len() - 10..]).unwrap();
        for stream in streams {
            let answer = Answer::read(&mut BufReader::new(stream));
            assert_eq!(answer.label(), "green");
            assert_eq!(answer.header("connection"), Some("close"));
        }
        assert_eq!(Answer::read(&mut BufReader::new(late)).label(), "blue");
        assert!(Answer::try_read(&mut idle).is_none());
        drop(silent);
        let (status, lines, _) = service.wait();
        assert_eq!((status.code(), lines.len()), (Some(0), 1), "{lines:?}");
    }
}

#[test]
fn at_once_where_nothing_waits() {
    let service = Service::start(&[]);
    assert_eq!(service.post("", &red()).label(), "red");
    let _idle = [service.connect(), service.connect()];
    let start = Instant::now();
    service.stop();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

/// Who asks twice does not want to wait.
#[test]
fn a_second_signal_ends_it() {
    let service = Service::start(&["--timeout=60"]);
    let mut stream = service.connect();
    stream
        .write_all(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        .unwrap();
    service.until("it is connected", |s| s.metric("edge_classify_connections") > 1.5);
    service.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    service.signal("TERM");
    let (status, ..) = service.wait();
    assert_eq!(status.code(), Some(2));
}
