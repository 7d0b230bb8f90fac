//! A running program, and a client that holds each answer to the description.

use super::corner::corner_model;
use core::net::SocketAddr;
use core::time::Duration;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with the model that names the color in the upper left.
pub(crate) struct Service {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the program; `@/` in arguments is replaced by the folder.
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("corner.edge"), corner_model(["red", "green", "blue"]))
            .unwrap();
        Self::start_in(folder, args)
    }

    pub(crate) fn start_in(folder: TempDir, args: &[&str]) -> Self {
        let at = folder.path().to_str().unwrap().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_edge-classify"))
            .args(["serve", "--listen=127.0.0.1:0", &format!("--model={at}/corner.edge")])
            .args(args.iter().map(|arg| arg.replace("@/", &format!("{at}/"))))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        stderr.read_line(&mut first).unwrap();
        let address = first.split_once("://").and_then(|(_, rest)| rest.split(',').next());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("{first}"));
        let lines = Arc::new(Mutex::new(vec![first.trim_end().to_string()]));
        let to = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| to.lock().unwrap().push(line));
        });
        Self { folder, address, child, lines, reader: Some(reader) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request's bytes on a connection of their own.
    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A service that has refused already does not read to the end.
        let _ = stream.write_all(request);
        Answer::read(&mut BufReader::new(stream))
    }

    /// A request with headers as they are, each with its line end.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let answer = self.raw(&request(method, target, headers, body));
        answer.check(method, target);
        answer
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, "", b"")
    }

    /// Classifies a picture.
    pub(crate) fn post(&self, query: &str, picture: &[u8]) -> Answer {
        let target = format!("/classify{query}");
        self.send("POST", &target, "Content-Type: image/png\r\n", picture)
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    }

    /// Waits until something holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end; what was said on the way.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>, TempDir) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let folder = core::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (status, self.lines(), folder)
    }

    /// Ends the program, which has to end well.
    pub(crate) fn stop(self) -> (Vec<String>, TempDir) {
        self.signal("TERM");
        let (status, lines, folder) = self.wait();
        assert_eq!(status.code(), Some(0), "{lines:?}");
        (lines, folder)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already, or a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\nConnection: \
         close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What the service has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(stream: &mut impl BufRead) -> Self {
        Self::try_read(stream).expect("an answer")
    }

    /// `None` where the connection ends without one.
    pub(crate) fn try_read(stream: &mut impl BufRead) -> Option<Self> {
        let mut line = || {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            (!line.is_empty()).then(|| line.trim_end().to_string())
        };
        let first = line()?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok());
        let status = status.unwrap_or_else(|| panic!("{first}"));
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_string()));
        }
        if status == 100 {
            return Self::try_read(stream);
        }
        let mut answer = Self { status, headers, body: Vec::new() };
        let len = answer.header("content-length").and_then(|len| len.parse().ok());
        answer.body = vec![0; len.expect("a length")];
        stream.read_exact(&mut answer.body).ok()?;
        Some(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The sentence of a refusal.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).into()
    }

    /// The likeliest label of the only picture.
    pub(crate) fn label(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()[0]["classes"][0]["label"].as_str().unwrap().into()
    }

    /// Holds an answer to `openapi.json`, and each refusal to its form.
    fn check(&self, method: &str, target: &str) {
        let path = target.split('?').next().unwrap();
        let operation = &DESCRIPTION["paths"][path][method.to_lowercase()];
        if operation.is_object() {
            let mut response = &operation["responses"][self.status.to_string()];
            if let Some(name) = response["$ref"].as_str() {
                response = DESCRIPTION.pointer(&name[1..]).unwrap();
            }
            assert!(response.is_object(), "{method} {target}: {} is not described", self.status);
            let kind = self.header("content-type").unwrap().split(';').next().unwrap();
            assert!(response["content"][kind].is_object(), "{method} {target}: {kind}");
        }
        if self.status >= 400 {
            let error = self.error();
            assert!(error.len() > 10, "{method} {target}: {error}");
            assert_eq!(self.header("content-type"), Some("application/json"));
        }
    }
}

/// The description of the service.
pub(crate) static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/serve/openapi.json")).unwrap());

/// A PNG of one color.
pub(crate) fn png(color: [u8; 3], side: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = DynamicImage::from(RgbImage::from_pixel(side, side, Rgb(color)));
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) fn red() -> Vec<u8> {
    png([255, 0, 0], 4)
}

/// A picture that takes a while.
pub(crate) fn slow_picture() -> Vec<u8> {
    png([0, 255, 0], 5000)
}

/// A form with files, and its content type.
pub(crate) fn form(files: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--bound--\r\n");
    ("Content-Type: multipart/form-data; boundary=bound\r\n".into(), body)
}
