//! A hub on a loopback port, with whatever faults a test wants.

use core::time::Duration;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The commit that every repository is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    /// The file that is asked for.
    pub(crate) fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    pub(crate) fn is(&self, method: &str, file: &str) -> bool {
        self.method == method && self.file() == file
    }

    /// First byte that is wanted.
    pub(crate) fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that are sent.
    pub(crate) sent: Option<usize>,
    /// Fall silent afterwards instead of hanging up.
    pub(crate) stall: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::status(status).with("Location", location)
    }

    /// Adds a header, or replaces it.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The part that a request asks for.
    pub(crate) fn part(mut self, request: &Request) -> Self {
        if let Some(from) = request.from() {
            let total = self.body.len();
            self.status = 206;
            self.body.drain(..from);
            return self.with("Content-Range", format!("bytes {from}-{}/{total}", total - 1));
        }
        self
    }
}

pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler) = (requests.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (seen.clone(), handler.clone());
                std::thread::spawn(move || answer(stream.unwrap(), &seen, &*handler));
            }
        });
        Self { address, requests }
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        core::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn answer(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    handler: &dyn Fn(&Request) -> Reply,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let request = Request { method, path, headers };
    seen.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    let mut text = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        text += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in reply.headers.iter().filter(|(_, value)| !value.is_empty()) {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).ok()?;
    if request.method != "HEAD" {
        let sent = reply.sent.unwrap_or(reply.body.len());
        stream.write_all(&reply.body[..sent]).ok()?;
    }
    if reply.stall {
        std::thread::sleep(Duration::from_secs(20));
    }
    Some(())
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The hash that the hub knows a file by.
pub(crate) fn hash(name: &str, bytes: &[u8]) -> String {
    match name.ends_with(".json") {
        true => hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len()))
            .chain_update(bytes)
            .finalize()),
        false => hex(&Sha256::digest(bytes)),
    }
}

/// What Hugging Face answers for one of `files`.
pub(crate) fn huggingface(files: &BTreeMap<String, Vec<u8>>, request: &Request) -> Reply {
    let name = request.file();
    let Some(bytes) = files.get(name) else {
        return Reply::status(404).with("X-Error-Code", "EntryNotFound");
    };
    Reply::body(bytes.clone())
        .part(request)
        .with("X-Repo-Commit", COMMIT)
        .with("ETag", format!("\"{}\"", hash(name, bytes)))
}
