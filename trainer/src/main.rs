//! The `trainer` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    picture::silence_decoder_panics();
    match trainer::run(std::env::args_os(), &mut convert::terminal::stdout()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            convert::terminal::print_error("trainer", &convert::cli::describe(&error));
            ExitCode::from(2)
        }
    }
}
