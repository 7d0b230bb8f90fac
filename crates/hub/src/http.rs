//! Requests that trust nobody: redirects are followed by hand, so that they are bounded and the
//! token stays with its host; a server that falls silent is left; and what comes is written
//! under another name until it is whole.

use crate::{Authorization, Hub, HubError, Service, max_bytes};
use artifact::text::AsPlain;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use core::time::Duration;
use page::progress::Progress;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body};

/// Most redirects followed; the hubs need two.
const MAX_REDIRECTS: usize = 5;
/// Largest answer that is kept in memory.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 16;

/// What a hub's messages say.
pub(super) struct Words {
    /// What else to do where it cannot be reached, after a comma.
    pub(super) unreachable: &'static str,
    /// What to do where it answers 401 or 403.
    pub(super) refused: &'static str,
    /// Environment variable that moves its cache.
    pub(super) cache_variable: &'static str,
}

/// A hub's server.
pub(super) struct Client {
    agent: Agent,
    authorization: Option<String>,
    stall_timeout: Duration,
    words: &'static Words,
}

/// One file to be had.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Its name, for messages.
    pub(super) file: &'a str,
    /// Its address.
    pub(super) url: &'a str,
}

impl Source<'_> {
    /// The error of an answer that is not accepted.
    pub(super) fn refuse(&self, problem: impl Into<String>) -> HubError {
        HubError::Answer {
            file: self.file.into(),
            url: self.url.into(),
            problem: problem.into(),
            remedy: "try again, and check HF_ENDPOINT or KAGGLE_API_ENDPOINT if set",
        }
    }
}

/// An answer and the headers of the redirects that led to it.
pub(super) struct Answer {
    redirects: Vec<HeaderMap>,
    response: Response<Body>,
}

impl Answer {
    /// A header of the answer itself.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// A header that a redirect may have, too: the first.
    pub(super) fn first_header(&self, name: &str) -> Option<&str> {
        let mut all = self.redirects.iter().chain([self.response.headers()]);
        all.find_map(|headers| headers.get(name))?.to_str().ok()
    }

    /// Whether this is a redirect that has not been followed.
    pub(super) fn is_redirect(&self) -> bool {
        self.response.status().is_redirection()
    }
}

impl Client {
    pub(super) fn new(hub: &Hub, service: &Service, words: &'static Words) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("edge-resnet/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(hub.connect_timeout))
            .timeout_connect(Some(hub.connect_timeout))
            .timeout_recv_response(Some(hub.stall_timeout))
            .timeout_per_read(Some(hub.stall_timeout))
            .timeout_per_write(Some(hub.stall_timeout));
        let authorization = service.authorization.as_ref().map(|who| match who {
            Authorization::Bearer(token) => format!("Bearer {token}"),
            Authorization::Basic(user, key) => {
                format!("Basic {}", BASE64.encode(format!("{user}:{key}")))
            }
        });
        let agent = config.build().into();
        Self { agent, authorization, stall_timeout: hub.stall_timeout, words }
    }

    /// The headers of a file. A redirect to another host, where large files lie, ends the way:
    /// what the hub says of the file is on it.
    pub(super) fn head(&self, source: Source<'_>) -> Result<Answer, HubError> {
        let answer = self.send(source, Method::HEAD, 0, false)?;
        self.check(source, &answer)?;
        Ok(answer)
    }

    /// A short text.
    pub(super) fn text(&self, source: Source<'_>) -> Result<Vec<u8>, HubError> {
        let answer = self.send(source, Method::GET, 0, true)?;
        self.check(source, &answer)?;
        let mut bytes = Vec::new();
        let body = answer.response.into_body().into_reader();
        let read = body.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
        read.map_err(|e| self.unreachable(source, self.problem(&e.into())))?;
        Ok(bytes)
    }

    /// Downloads a file to `partial`, after what lies there; `size` is what it should have.
    pub(super) fn download(
        &self,
        source: Source<'_>,
        partial: &Path,
        size: Option<u64>,
        progress: &mut Progress<'_>,
    ) -> Result<(), HubError> {
        let io = |e| self.io(partial, e);
        let limit = max_bytes(source.file);
        let too_large = |size| {
            source.refuse(format!("announces {size} bytes, but such a file has at most {limit}"))
        };
        if let Some(size) = size.filter(|size| *size > limit) {
            return Err(too_large(size));
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(partial).map_err(io)?;
        let mut have = file.metadata().map_err(io)?.len();
        if have > size.unwrap_or(limit) {
            file.set_len(0).map_err(io)?;
            have = 0;
        }
        if size == Some(have) && have > 0 {
            return Ok(());
        }
        let mut answer = self.send(source, Method::GET, have, true)?;
        if have > 0 && answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            answer = self.send(source, Method::GET, 0, true)?;
        }
        self.check(source, &answer)?;
        if answer.response.status() == StatusCode::PARTIAL_CONTENT {
            let range = answer.header("content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                let range = range.plain();
                return Err(source.refuse(format!("sends `{range}` instead of bytes {have}-")));
            }
        } else {
            // A server that does not know ranges starts from the beginning.
            file.set_len(0).map_err(io)?;
            have = 0;
        }
        let rest = answer.header("content-length").and_then(|n| n.parse::<u64>().ok());
        let announced = rest.and_then(|rest| have.checked_add(rest));
        if let (Some(size), Some(announced)) = (size, announced)
            && size != announced
        {
            let problem = format!("announces {announced} bytes, but the file has {size}");
            return Err(source.refuse(problem));
        }
        let total = size.or(announced);
        if let Some(total) = total.filter(|total| *total > limit) {
            return Err(too_large(total));
        }
        progress.start(source.file, have, total);
        let copied = self.copy(source, answer, (&mut file, partial), (have, total), progress);
        copied.inspect_err(|_| progress.stop())?;
        file.sync_all().map_err(io)?;
        progress.finish();
        Ok(())
    }

    /// Appends a body to a file that has `have` of `total` bytes.
    fn copy(
        &self,
        source: Source<'_>,
        answer: Answer,
        (file, path): (&mut File, &Path),
        (mut have, total): (u64, Option<u64>),
        progress: &mut Progress<'_>,
    ) -> Result<(), HubError> {
        let broken = |have, problem: String| HubError::Broken {
            file: source.file.into(),
            url: source.url.into(),
            problem,
            have,
            want: total.map_or("an unknown number of".into(), |total| total.to_string()),
        };
        let limit = total.unwrap_or(max_bytes(source.file));
        let mut body = answer.response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let n = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(broken(have, self.problem(&e.into()))),
            };
            if have + n as u64 > limit {
                return Err(source.refuse(format!("sends more than {limit} bytes")));
            }
            file.write_all(&chunk[..n]).map_err(|e| self.io(path, e))?;
            have += n as u64;
            progress.advance(n as u64);
        }
        match total {
            Some(total) if have < total => Err(broken(have, "the server hung up".into())),
            _ => Ok(()),
        }
    }

    /// Sends a request for the bytes from `from` on and follows its redirects; those to other
    /// hosts only where it may `leave`, and without the authorization.
    fn send(
        &self,
        source: Source<'_>,
        method: Method,
        from: u64,
        leave: bool,
    ) -> Result<Answer, HubError> {
        let mut url =
            absolute(source.url).ok_or_else(|| source.refuse("is no address of http or https"))?;
        let mut authorization = self.authorization.as_deref();
        let mut redirects = Vec::new();
        loop {
            // Sizes and hashes are those of the file, not of a packed form of it.
            let mut request = Request::builder().header("accept-encoding", "identity");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let request = request.method(method.clone()).uri(&url).body(());
            let request = request.map_err(|e| self.unreachable(source, e.to_string()))?;
            let response = self.agent.run(request);
            let response = response.map_err(|e| self.unreachable(source, self.problem(&e)))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { redirects, response });
            }
            let location = response.headers().get("location").and_then(|l| l.to_str().ok());
            let next = location.and_then(|location| join(&url, location));
            let next = next.ok_or_else(|| source.refuse("redirects to no address"))?;
            if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(source.refuse("redirects to an address without encryption"));
            }
            if (next.scheme(), next.authority()) != (url.scheme(), url.authority()) {
                if !leave {
                    return Ok(Answer { redirects, response });
                }
                authorization = None;
            }
            if redirects.len() == MAX_REDIRECTS {
                let problem = format!("redirects more than {MAX_REDIRECTS} times");
                return Err(source.refuse(problem));
            }
            redirects.push(response.headers().clone());
            url = next;
        }
    }

    /// Errors that the server tells.
    fn check(&self, source: Source<'_>, answer: &Answer) -> Result<(), HubError> {
        let status = answer.response.status();
        let remedy = match status.as_u16() {
            200..=299 | 301 | 302 | 303 | 307 | 308 => return Ok(()),
            401 | 403 => self.words.refused,
            404 | 410 => "check the model's name and version on the hub's page",
            429 => "it has had too many requests; wait some minutes",
            500.. => "it has a problem of its own; try again later",
            _ => "try again, and check HF_ENDPOINT or KAGGLE_API_ENDPOINT if set",
        };
        let code = answer.first_header("x-error-code");
        let code = code.map_or(String::new(), |code| format!(" ({})", code.plain()));
        Err(HubError::Status {
            file: source.file.into(),
            url: source.url.into(),
            status: status.as_u16(),
            code,
            remedy,
        })
    }

    fn problem(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => {
                format!("nothing came for {} s", self.stall_timeout.as_secs_f64())
            }
            other => other.to_string(),
        }
    }

    fn unreachable(&self, source: Source<'_>, problem: String) -> HubError {
        HubError::Unreachable {
            file: source.file.into(),
            url: source.url.into(),
            problem,
            remedy: self.words.unreachable,
        }
    }

    /// The error of a cache that cannot be read or written.
    pub(super) fn io(&self, path: &Path, source: std::io::Error) -> HubError {
        let path = path.display().to_string();
        HubError::Io { path, variable: self.words.cache_variable, source }
    }
}

/// An address with a host.
fn absolute(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()).then_some(uri)
}

/// Where a redirect from `base` leads.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    match location.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => absolute(&format!("{scheme}:{location}")),
        Some(_) => absolute(&format!("{scheme}://{authority}{location}")),
        None => absolute(location),
    }
}
