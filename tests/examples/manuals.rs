//! Writes the man pages and the completions of bash, zsh and fish of the three programs into a folder.

use clap_complete::{Shell, generate_to};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The programs.
pub(crate) fn programs() -> [clap::Command; 3] {
    [trainer::command(), convert::cli::command(), edge_classify::command()]
}

/// Writes all into `folder`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for program in programs() {
        clap_mangen::generate_to(program.clone(), folder)?;
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut program.clone(), &name, folder)?;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    write(&PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| "target/manuals".into())))
}
