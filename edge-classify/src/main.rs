//! The program: its work is in the library, so that tests run it in process.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    picture::silence_decoder_panics();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let code = edge_classify::run(std::env::args_os(), &mut out, &mut std::io::stderr());
    match out.flush() {
        Ok(()) => ExitCode::from(code),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(e) => {
            eprintln!("edge-classify: standard output: {e}");
            ExitCode::from(edge_classify::EXIT_ERROR)
        }
    }
}
