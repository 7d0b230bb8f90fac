//! `convert`: see `convert --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    picture::silence_decoder_panics();
    ExitCode::from(convert::cli::run(std::env::args_os(), &mut page::terminal::stdout()))
}
