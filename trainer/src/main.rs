//! The `trainer` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    picture::silence_decoder_panics();
    match trainer::run(std::env::args_os(), &mut page::terminal::stdout()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            page::terminal::print_error("trainer", &page::terminal::describe(&error));
            ExitCode::from(2)
        }
    }
}
