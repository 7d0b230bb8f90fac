//! What a run shows on terminals and in logs.
#![cfg(unix)]

mod pictures;

use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trainer");

/// The arguments of a short run below `root`.
fn arguments(root: &Path, name: &str) -> Vec<String> {
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let args = ["train", "--epochs", "2", "--batch", "8", "--size", "16", "--threads", "1"];
    let mut args: Vec<String> = args.map(String::from).into();
    args.extend(["--data".into(), path("data"), "--out".into(), path(name)]);
    args.extend(["-o".into(), path(&format!("{name}.mpk"))]);
    args
}

/// What the run writes to a terminal of `columns`.
fn on_terminal(root: &Path, columns: u32, variables: &[(&str, &str)]) -> String {
    let name = format!("{columns}{}", variables.iter().map(|(name, _)| *name).collect::<String>());
    let command =
        format!("stty cols {columns} rows 24; {PROGRAM} {}", arguments(root, &name).join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        script.env_remove(name);
    }
    script.env("TERM", "xterm").envs(variables.iter().copied());
    let output = script.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// What is seen of a line at its end, without colors.
fn seen(line: &str) -> String {
    let last = line.trim_end_matches('\r').rsplit('\r').next().unwrap();
    let mut parts = last.split("\x1b[");
    let first = parts.next().unwrap().to_owned();
    first + &parts.map(|part| part.split_once(['m', 'K']).unwrap().1).collect::<String>()
}

#[test]
fn lines_fit_and_colors_are_for_terminals_that_want_them() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 12);
    for columns in [60, 80] {
        let text = on_terminal(dir.path(), columns, &[]);
        assert!(text.contains("\x1b[32maccuracy "), "{text:?}");
        let lines: Vec<String> = text.lines().map(seen).collect();
        let fits = |line: &&String| line.chars().count() <= columns as usize;
        // A path may be longer than a line.
        let long: Vec<_> = lines.iter().filter(|l| !fits(l) && !l.contains('/')).collect();
        assert!(long.is_empty(), "{long:?}");
        assert_eq!(lines.iter().filter(|l| l.starts_with("epoch ")).count(), 2, "{lines:?}");
    }
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR_FORCE", "0")] {
        let text = on_terminal(dir.path(), 60, &[variable]);
        assert!(!text.contains("\x1b[3"), "{text:?}");
    }
    let log = Command::new(PROGRAM).args(arguments(dir.path(), "log")).output().unwrap();
    let log = String::from_utf8([log.stdout, log.stderr].concat()).unwrap();
    assert!(!log.contains(['\r', '\x1b']), "{log:?}");
    let epochs: Vec<_> = log.lines().filter(|l| l.starts_with("epoch ")).collect();
    assert_eq!(epochs.len(), 2, "{log}");
    assert!(epochs.iter().all(|line| line.chars().count() <= 80), "{epochs:?}");
}
