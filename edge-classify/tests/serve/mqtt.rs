//! Answers at a real broker, Mosquitto, where it is installed.

use super::service::{PATIENCE, Service, red};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(program: &str, args: &[&str], out: Stdio) -> Option<Broker> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(out).stderr(Stdio::null());
    command.spawn().ok().map(Broker)
}

fn start(config: &str) -> Option<Broker> {
    // Debian has it where only root looks.
    let broker = spawn("mosquitto", &["-c", config], Stdio::null());
    broker.or_else(|| spawn("/usr/sbin/mosquitto", &["-c", config], Stdio::null()))
}

#[test]
fn answers_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let config = format!("listener {port} 127.0.0.1\npassword_file {}\n", path("users"));
    fs::write(path("config"), config).unwrap();
    fs::write(path("password"), "secret\n").unwrap();
    let users = path("users");
    let hashed =
        Command::new("mosquitto_passwd").args(["-c", "-b", &users, "me", "secret"]).status();
    let made = hashed.is_ok_and(|status| status.success());
    // It gives up being root, and could not read what is root's alone.
    let _ = Command::new("chmod").args(["-R", "a+rX", &path("")]).status();
    let Some(broker) = made.then(|| start(&path("config"))).flatten() else {
        println!("skipped: mosquitto is not installed");
        return;
    };
    let login =
        ["-p", &port, "-u", "me", "-P", "secret", "-v", "-t", "a/b", "-t", "homeassistant/#"];
    let listen = || {
        let start = Instant::now();
        loop {
            let mut listener = spawn("mosquitto_sub", &login, Stdio::piped()).unwrap();
            let lines = BufReader::new(listener.0.stdout.take().unwrap()).lines();
            // It ends at once while the broker is not up yet.
            std::thread::sleep(core::time::Duration::from_millis(300));
            if listener.0.try_wait().unwrap().is_none() {
                return (listener, lines);
            }
            assert!(start.elapsed() < PATIENCE);
        }
    };
    let (_listener, mut lines) = listen();
    let url = format!("--mqtt=mqtt://me@127.0.0.1:{port}/a/b");
    let password = format!("--mqtt-password-file={}", path("password"));
    let service = Service::start(&[&url, &password, "--mqtt-discovery"]);
    let hello = lines.next().unwrap().unwrap();
    let (topic, message) = hello.split_once(' ').unwrap();
    assert_eq!(topic, "homeassistant/sensor/edge_classify_a_b/config");
    let message: serde_json::Value = serde_json::from_str(message).unwrap();
    assert_eq!(message["state_topic"], "a/b");
    for index in 0..100 {
        assert_eq!(service.post(&format!("?file={index}"), &red()).status, 200);
    }
    for index in 0..100 {
        let line = lines.next().unwrap().unwrap();
        let json: serde_json::Value =
            serde_json::from_str(line.strip_prefix("a/b ").unwrap()).unwrap();
        assert_eq!(
            (json["file"].as_str(), json["label"].as_str()),
            (Some(&*index.to_string()), Some("red"))
        );
        assert!(
            json["probability"].is_number() && json["ms"].is_number() && json["time"].is_string()
        );
    }

    // Pictures are answered without a broker, and published when it is back.
    drop(broker);
    service.until("it is missed", |s| s.lines().len() > 1);
    assert!(service.lines()[1].contains("it is tried again"), "{:?}", service.lines());
    assert_eq!(service.post("?file=late", &red()).label(), "red");
    let _broker = start(&path("config")).unwrap();
    let (_listener, mut lines) = listen();
    let late = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("a/b ")));
    assert!(late.unwrap().unwrap().contains("\"late\""));
    // What was answered last is published before the end.
    assert_eq!(service.post("?file=last", &red()).label(), "red");
    let (said, _) = service.stop();
    assert!(said[2].contains("answers again"), "{said:?}");
    let last = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("a/b ")));
    assert!(last.unwrap().unwrap().contains("\"last\""));
}
