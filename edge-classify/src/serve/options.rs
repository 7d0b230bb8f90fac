//! The command line of `serve`.

use crate::cli::Machine;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use core::net::SocketAddr;
use core::num::{NonZeroU32, NonZeroUsize};
use core::time::Duration;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
POST /classify takes a picture as it is, or several as a form (curl -F
file=@x.jpg), and answers as --json prints. GET / is a page for people, GET
/openapi.json describes the rest. SIGTERM and Ctrl-C answer what has come,
then end with status 0.

Examples:
  edge-classify serve
  edge-classify serve --model models/mobilenet_v2.edge --results answers.csv
  edge-classify serve --listen 0.0.0.0:8080 --token-file token.txt
docs/serve.md has more.";

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Address and port to listen on; one that other machines reach needs a token
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(super) listen: SocketAddr,

    /// Model to use instead of the built-in one (an .edge file); when the file changes, the new one is
    /// used from the next picture on
    #[arg(long, value_name = "FILE")]
    pub(super) model: Option<PathBuf>,

    /// Refuse a model that is not signed with the key that belongs to this public key (Ed25519, PEM)
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(super) key: Option<PathBuf>,

    /// Token that requests must have (Authorization: Bearer TOKEN); others may see it in the list of
    /// processes
    #[arg(long, conflicts_with = "token_file")]
    pub(super) token: Option<String>,

    /// File with the token alone
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Listen on an address that others reach without any token
    #[arg(long, conflicts_with_all = ["token", "token_file"])]
    pub(super) no_token: bool,

    /// Speak TLS: certificate chain (PEM)
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,

    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,

    /// Most MiB of a request
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(super) max_body: u32,

    /// Most connections at a time
    #[arg(long, value_name = "N", default_value = "64")]
    pub(super) max_connections: NonZeroUsize,

    /// Most pictures that wait for a thread; also the most in one request
    #[arg(long, value_name = "N", default_value = "64")]
    pub(super) queue: NonZeroUsize,

    /// Most time in which a request's head, and then its body, has to come
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    pub(super) timeout: NonZeroU32,

    /// Also append time, name, likeliest class, probability and milliseconds of each picture to this
    /// file (.csv or .jsonl)
    #[arg(long, value_name = "FILE")]
    pub(super) results: Option<PathBuf>,

    #[cfg(feature = "mqtt")]
    #[command(flatten)]
    pub(super) mqtt: super::mqtt::Options,

    #[command(flatten)]
    pub(super) machine: Machine,
}

impl Options {
    /// The token to ask for.
    ///
    /// # Errors
    /// Where others could connect and nobody said whether they may.
    pub(super) fn token(&self) -> Result<Option<String>> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("--token-file {}", path.display()))?;
                text.trim().to_string()
            }
            (None, None) if self.no_token || self.listen.ip().is_loopback() => return Ok(None),
            (None, None) => bail!(
                "--listen {}: other machines reach this address; give --token-file FILE with a \
                 secret that they have to know, or --no-token where everybody may use it",
                self.listen
            ),
        };
        ensure!(
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()),
            "the token must be letters, digits and signs of ASCII without spaces, at least one"
        );
        Ok(Some(token))
    }

    /// What requests are held to.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            body: self.max_body as usize * (1 << 20),
            pictures: self.queue.get(),
            connections: self.max_connections.get(),
            time: Duration::from_secs(self.timeout.get().into()),
        }
    }
}

/// What requests are held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of a request's body.
    pub(super) body: usize,
    /// Pictures that wait, and pictures in one request.
    pub(super) pictures: usize,
    pub(super) connections: usize,
    /// For a head, and for a body.
    pub(super) time: Duration,
}
