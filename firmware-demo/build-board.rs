//! Build script of every board: puts the linker its memory.x, made of memory.ld, and a checked model where
//! the program does. `EDGE_MODEL=path/to/other.edge cargo run --release` takes another one; with
//! `EDGE_RAM=128K EDGE_FLASH=512K` the linker allows no more, as on a smaller chip.

use runtime::{AlignedBuf, Dtype, Model};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Not of one name: a linker looks into the current folder first.
    let memory = fs::read_to_string("memory.ld").expect("memory.ld is read");
    fs::write(out.join("memory.x"), limited(&memory)).expect("memory.x is written");
    // Names of interrupts, where no crate of the chip has them.
    if Path::new("device.x").exists() {
        fs::copy("device.x", out.join("device.x")).expect("device.x is copied");
    }
    println!("cargo:rustc-link-search={}", out.display());
    // The script of riscv-rt wants it first, that of cortex-m-rt includes it.
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch.starts_with("riscv")) {
        println!("cargo:rustc-link-arg=-Tmemory.x");
    }
    println!("cargo:rustc-link-arg=-Tlink.x");
    println!("cargo:rustc-link-arg=--nmagic");
    println!("cargo:rerun-if-changed=memory.ld");

    let model = env::var_os("EDGE_MODEL").map_or_else(
        || Path::new("../../models/resnet_8_cifar10.cortex-m.edge").into(),
        PathBuf::from,
    );
    let checked = fs::read(&model).map_err(|e| e.to_string()).and_then(|file| {
        let file = AlignedBuf::from_slice(&file);
        let found = Model::new(&file).map_err(|e| e.to_string())?;
        if (found.dtype(), found.panel_width()) != (Dtype::I8, 4) {
            return Err("no int8 model for microcontrollers; use convert --target cortex-m".into());
        }
        if found.has_float_layers() && env::var_os("CARGO_FEATURE_FLOAT").is_none() {
            return Err("some layers are floats; build with --features float".into());
        }
        fs::write(out.join("model.edge"), &*file).map_err(|e| e.to_string())
    });
    if let Err(e) = checked {
        eprintln!("error: {}: {e}", model.display());
        std::process::exit(1);
    }
    println!("cargo:rerun-if-changed={}", model.display());
    println!("cargo:rerun-if-env-changed=EDGE_MODEL");
}

/// memory.ld with the lengths that `EDGE_RAM` and `EDGE_FLASH` say.
fn limited(memory: &str) -> String {
    let line = |line: &str| {
        let name = line.split_whitespace().next().unwrap_or("");
        let variable = format!("EDGE_{name}");
        match (line.find("LENGTH ="), env::var(&variable)) {
            (Some(at), Ok(length)) if line.contains("ORIGIN") => {
                format!("{}LENGTH = {length}\n", &line[..at])
            }
            _ => format!("{line}\n"),
        }
    };
    for variable in ["EDGE_RAM", "EDGE_FLASH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    memory.lines().map(line).collect()
}
