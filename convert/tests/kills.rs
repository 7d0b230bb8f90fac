//! What a killed conversion leaves: the old file or the new one, and nothing else after the next one.
#![cfg(unix)]

use core::time::Duration;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.mpk");

fn convert(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
    command.args(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Kills `args` so many times at any moment; `output` is always that of before or of a whole run.
fn killed(args: &[&str], output: &str, kills: u32) {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    assert!(convert(dir.path(), args).status().unwrap().success());
    let longest = began.elapsed().as_micros() as u64 * 5 / 4;
    let read = || std::fs::read(dir.path().join(output)).unwrap();
    let whole = read();
    let mut random = 1u64;
    for _ in 0..kills {
        std::fs::write(dir.path().join(output), "old").unwrap();
        let mut child = convert(dir.path(), args).spawn().unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((random >> 33) % longest));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = read();
        assert!(found == b"old" || found == whole, "{output}: {} bytes", found.len());
    }
    assert!(convert(dir.path(), args).status().unwrap().success());
    assert!(read() == whole);
    let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with(".writing-")), "{names:?}");
}

#[test]
fn device_files_are_old_or_new() {
    killed(&[MODEL, "-o", "m.edge", "--no-verify"], "m.edge", 20);
}

#[test]
fn pages_are_old_or_new() {
    killed(&["report", MODEL, "-o", "page.html"], "page.html", 10);
}
