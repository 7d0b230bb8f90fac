//! Classifies pictures with an `.edge` model: decode, preprocess, run, print.
//!
//! ```
//! let (mut out, mut err) = (Vec::new(), Vec::new());
//! let code = edge_classify::run(["edge-classify", "no-such.jpg"], &mut out, &mut err);
//! assert_eq!(code, edge_classify::EXIT_ERROR);
//! ```

mod bench;
mod builtin;
mod classify;
mod cli;
mod compare;
mod csv;
mod drift;
mod heatmap;
mod model;
mod npy;
mod print;
#[cfg(feature = "serve")]
mod serve;
mod sources;
mod teach;
mod times;
#[cfg(feature = "tract")]
mod tract;
mod watch;

use clap::Parser;
use runtime::text::PlainLines;
use std::ffi::OsString;
use std::io::Write;

/// Every picture has an answer.
pub const EXIT_ANSWER: u8 = 0;
/// `--threshold` was given and some picture has no class that likely.
pub const EXIT_NO_CLASS: u8 = 1;
/// Some picture, or the whole run, failed.
pub const EXIT_ERROR: u8 = 2;

/// The command line's description, for man pages and completions.
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// Runs the program: `args` with its name first, answers to `out`, complaints to `err`.
/// Returns the exit status.
pub fn run<A>(args: impl IntoIterator<Item = A>, out: &mut dyn Write, err: &mut dyn Write) -> u8
where
    A: Into<OsString> + Clone,
{
    let cli = match cli::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // What was typed may be the name of a file.
            let text = e.to_string();
            let text = PlainLines(&text);
            let (written, code) = if e.use_stderr() {
                (write!(err, "{text}"), EXIT_ERROR)
            } else {
                (write!(out, "{text}"), EXIT_ANSWER)
            };
            return if written.is_ok() { code } else { EXIT_ERROR };
        }
    };
    let outcome = match &cli.command {
        Some(cli::Command::Bench(options)) => bench::run(options, out),
        Some(cli::Command::Teach(options)) => teach::run(options, out, &mut *err),
        #[cfg(feature = "serve")]
        Some(cli::Command::Serve(options)) => serve::run(options, err),
        #[cfg(not(feature = "serve"))]
        Some(cli::Command::Serve { .. }) => Err(anyhow::anyhow!(
            "this build has no `serve`; build it with cargo build --release -p edge-classify \
             --features serve"
        )),
        None => classify::run(&cli, out, err),
    };
    match outcome {
        Ok(code) => code,
        // Whoever reads the answers has stopped reading (`| head`): nothing to complain of.
        Err(e) if is_broken_pipe(&e) => EXIT_ANSWER,
        Err(e) => {
            // There is nowhere left to report a failure to report.
            let _ = writeln!(err, "edge-classify: {}", print::Plain(&format!("{e:#}")));
            EXIT_ERROR
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
