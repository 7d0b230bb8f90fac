//! `convert`: see `convert --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(convert::cli::run(std::env::args_os(), &mut std::io::stdout().lock()))
}
