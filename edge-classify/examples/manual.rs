//! Writes the man pages and the completions of bash, zsh and fish into a folder, for packages.

use clap_complete::{Shell, generate_to};
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| "target/manual".into()));
    fs::create_dir_all(&folder)?;
    clap_mangen::generate_to(edge_classify::command(), &folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut edge_classify::command(), "edge-classify", &folder)?;
    }
    Ok(())
}
