//! The demonstration of the boards on this machine, whose logits theirs must equal:
//! `cargo run --release -- MODEL`.

use runtime::{AlignedBuf, Model};
use std::process::ExitCode;

struct Host;

impl demo::Board for Host {
    fn write(&mut self, text: &str) {
        print!("{text}");
    }

    fn instructions(&mut self) -> Option<u32> {
        None
    }

    fn stack(&mut self) -> Option<usize> {
        None
    }
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("error: name a model that `convert --target cortex-m` made");
        return ExitCode::from(2);
    };
    let result = (|| {
        let file = AlignedBuf::from_slice(&std::fs::read(&path).map_err(|e| e.to_string())?);
        let arena_len = Model::new(&file).map_err(|e| e.to_string())?.arena_len();
        demo::run(&mut Host, &file, &mut AlignedBuf::zeroed(arena_len)).map_err(str::to_owned)
    })();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {}: {what}", path.display());
            ExitCode::FAILURE
        }
    }
}
