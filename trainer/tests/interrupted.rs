//! What a killed process or a full disk leaves behind is a run that goes on; what two runs at a time
//! leave behind are two runs.
#![cfg(unix)]

mod pictures;

use core::time::Duration;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// More than any machine gets through before it is stopped.
const EPOCHS: &str = "100000";

/// The command, in a shell that first does `limit`.
fn train(root: &Path, limit: &str, more: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{limit} exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_trainer"));
    command.args(["train", "--epochs", EPOCHS, "--batch", "8", "--size", "16", "--threads", "1"]);
    command.arg("--data").arg(root.join("data"));
    command.arg("--out").arg(root.join("run")).arg("-o").arg(root.join("model.mpk"));
    command.args(more);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Resumes the run with the state `before`, until it has a later one.
fn goes_on(root: &Path, before: &[u8]) {
    let mut child = train(root, "", &["--resume"]).stdout(Stdio::piped()).spawn().unwrap();
    while std::fs::read(root.join("run/state.mpk")).unwrap() == before {
        assert!(child.try_wait().unwrap().is_none(), "did not resume");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output).contains("resuming after epoch"), "{}", text(&output));
}

#[test]
fn a_killed_run_and_a_full_disk_leave_a_run_that_resumes() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 12);
    let state = dir.path().join("run/state.mpk");
    for kill in 0..6u64 {
        let resume: &[&str] = if kill == 0 { &[] } else { &["--resume"] };
        let mut child = train(dir.path(), "", resume).stdout(Stdio::null()).spawn().unwrap();
        let known = std::fs::metadata(&state).and_then(|m| m.modified()).ok();
        let written = || std::fs::metadata(&state).and_then(|m| m.modified()).ok() != known;
        while !written() {
            assert!(child.try_wait().unwrap().is_none(), "ended before its first epoch");
            std::thread::sleep(Duration::from_millis(1));
        }
        // At other moments of the epoch each time, writing among them.
        std::thread::sleep(Duration::from_millis(kill * 3));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let before = std::fs::read(&state).unwrap();

    // With the signal ignored, a file beyond the limit fails as on a full disk.
    let full = train(dir.path(), "trap '' XFSZ; ulimit -f 20;", &["--resume"]).output().unwrap();
    let said = text(&full);
    assert_eq!(full.status.code(), Some(2), "{said}");
    let named = ["best.mpk: ", "last.mpk: "].iter().any(|file| said.contains(file));
    assert!(said.contains("resuming after epoch") && named, "{said}");
    assert_eq!(std::fs::read(&state).unwrap(), before);
    let names = std::fs::read_dir(dir.path().join("run")).unwrap();
    let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    // A killed process may leave a temporary file, never one under another name.
    let ours = |n: &String| n.ends_with(".mpk") || n == "run.toml" || n.starts_with(".writing-");
    assert!(names.iter().all(ours), "{names:?}");

    goes_on(dir.path(), &before);
}

/// What a clock makes of a folder's files that is set back by a year.
fn set_clock_back(folder: &Path) {
    let year = Duration::from_secs(365 * 24 * 3600);
    let later = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now() + year);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_clock_back(&path);
        }
        std::fs::File::open(path).unwrap().set_times(later).unwrap();
    }
}

/// Killed again and again, at any moment from its start to its end, and with the clock set back, a run ends with the
/// bytes that one has that was left alone.
#[test]
fn sixty_kills_change_no_byte() {
    const KILLS: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    pictures::write(&path("data"), 12);
    let command = |name: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args([
            "train",
            "--epochs",
            "100",
            "--batch",
            "8",
            "--size",
            "16",
            "--threads",
            "1",
        ]);
        command.args(["--data", "data", "--out", name, "-o", &format!("{name}.mpk")]).args(more);
        command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let began = std::time::Instant::now();
    assert!(command("whole", &[]).status().unwrap().success());
    let longest = began.elapsed().as_millis() as u64 / 4;
    let is_whole = || {
        for file in [".mpk", "/best.mpk", "/last.mpk"] {
            let read = |name: &str| std::fs::read(path(&format!("{name}{file}"))).unwrap();
            assert!(read("whole") == read("killed"), "{file}");
        }
        for folder in [dir.path().to_owned(), path("killed")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with(".writing-"), "litter: {name}");
            }
        }
        std::fs::remove_dir_all(path("killed")).unwrap();
        std::fs::remove_file(path("killed.mpk")).unwrap();
    };
    let (mut random, mut kills, mut resumed) = (1u64, 0, 0);
    let begun = || path("killed/.writing-run.lock").exists();
    let resume = |is_begun: bool| if is_begun { &["--resume"][..] } else { &[] };
    // Also where it was killed behind its last step.
    let is_finished = || path("killed.mpk").exists() && !begun();
    while kills < KILLS {
        if is_finished() {
            is_whole();
        }
        let is_begun = begun();
        let mut child = command("killed", resume(is_begun)).spawn().unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_millis((random >> 33) % longest.max(1)));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            is_whole();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        (kills, resumed) = (kills + 1, resumed + u32::from(is_begun));
        if kills.is_multiple_of(5) {
            set_clock_back(dir.path());
        }
    }
    assert!(resumed > KILLS / 2, "{resumed} were resumed");
    if !is_finished() {
        assert!(command("killed", resume(begun())).status().unwrap().success());
    }
    is_whole();
}

/// SIGTERM, as a service manager sends it, ends a run as Ctrl-C does.
#[test]
fn a_terminated_run_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 12);
    let mut command = train(dir.path(), "", &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !dir.path().join("run/state.mpk").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let said = text(&child.wait_with_output().unwrap());
    assert!(said.contains("interrupted in epoch") && said.contains("--resume"), "{said}");
    let before = std::fs::read(dir.path().join("run/state.mpk")).unwrap();
    goes_on(dir.path(), &before);
}

/// Without memory for pictures, each epoch needs the files.
#[test]
fn a_lost_picture_ends_a_run_that_resumes_once_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 12);
    let (state, picture) = (dir.path().join("run/state.mpk"), dir.path().join("data/dark/3.png"));
    let mut child = train(dir.path(), "", &["--cache", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !state.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before its first epoch");
        std::thread::sleep(Duration::from_millis(1));
    }
    let bytes = std::fs::read(&picture).unwrap();
    std::fs::remove_file(&picture).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("dark/3.png: ") && said.contains("restore it"), "{said}");
    assert!(said.contains("in memory: 0 of 24 pictures (--cache 0)"), "{said}");

    let before = std::fs::read(&state).unwrap();
    let other = train(dir.path(), "", &["--resume"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2), "{}", text(&other));
    assert!(text(&other).contains("other pictures"), "{}", text(&other));
    std::fs::write(&picture, bytes).unwrap();
    // How much memory there is changes no picture, and need not stay the same.
    goes_on(dir.path(), &before);
}

/// Starts a run and waits until it trains.
fn started(root: &Path, more: &[&str]) -> std::process::Child {
    let state = root.join("run/state.mpk");
    let mut child = train(root, "", more).stdout(Stdio::null()).spawn().unwrap();
    while !state.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before its first epoch");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn a_second_run_is_refused_by_the_name_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 12);
    let mut first = started(dir.path(), &[]);
    for more in [&["--overwrite"][..], &["--resume"], &[]] {
        let second = train(dir.path(), "", more).output().unwrap();
        let said = text(&second);
        assert_eq!(second.status.code(), Some(2), "{said}");
        let process = format!("process {} (`trainer train --epochs {EPOCHS}", first.id());
        for what in ["run is being written by", &process, "--out with another name"] {
            assert!(said.contains(what), "{what}: {said}");
        }
    }
    // Another folder, but the same model in the end.
    let other = dir.path().join("other");
    let mut command = train(dir.path(), "", &[]);
    let said = text(&command.arg("--out").arg(&other).output().unwrap());
    assert!(said.contains("cannot be used multiple times"), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.args(["train", "--data"]).arg(dir.path().join("data")).arg("--out").arg(&other);
    let said = text(&command.arg("-o").arg(dir.path().join("model.mpk")).output().unwrap());
    assert!(said.contains("model.mpk is being written by process"), "{said}");
    assert!(!other.exists(), "nothing came of it");
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock died with its process.
    let state = std::fs::read(dir.path().join("run/state.mpk")).unwrap();
    goes_on(dir.path(), &state);
}

#[test]
fn a_run_whose_folder_vanishes_says_so() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 12);
    let state = dir.path().join("run/state.mpk");
    let mut child = train(dir.path(), "", &[]).stderr(Stdio::piped()).spawn().unwrap();
    while !state.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before its first epoch");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::rename(dir.path().join("run"), dir.path().join("elsewhere")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("was removed or replaced by others"), "{}", text(&output));
    // What it had saved is whole, and goes on where it belongs.
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("run")).unwrap();
    let before = std::fs::read(&state).unwrap();
    goes_on(dir.path(), &before);
}

#[test]
fn runs_without_a_folder_get_one_each() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 6);
    let run = |model: &str, epochs: &str, seed: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["finetune", "--data", "data", "--threads", "1", "--patience", "0"]);
        command.args(["--epochs", epochs, "--seed", seed, "-o", model]).current_dir(dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let folder = |number: &str| dir.path().join(format!("runs/finetune-resnet_20_cifar{number}"));
    let mut first = run("a.mpk", EPOCHS, "0").spawn().unwrap();
    while !folder("").join("best.mpk").exists() {
        assert!(first.try_wait().unwrap().is_none(), "ended early");
        std::thread::sleep(Duration::from_millis(1));
    }
    // At the same time, and once more when that one is finished.
    for number in ["-2", "-3"] {
        let said = text(&run("b.mpk", "1", number.trim_start_matches('-')).output().unwrap());
        assert!(said.contains(&format!("run in runs/finetune-resnet_20_cifar{number}")), "{said}");
        let same = |a: &Path, b: &Path| std::fs::read(a).unwrap() == std::fs::read(b).unwrap();
        assert!(same(&dir.path().join("b.mpk"), &folder(number).join("best.mpk")));
        assert_eq!(said.contains("b.mpk is there already"), number == "-3", "{said}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!dir.path().join("a.mpk").exists());
    // What stopped is not replaced in silence, and is what goes on.
    let said = text(&run("a.mpk", "1", "0").output().unwrap());
    assert!(said.contains("holds a run that stopped after epoch"), "{said}");
    let mut resumed = run("a.mpk", EPOCHS, "0").arg("--resume").spawn().unwrap();
    let before = std::fs::read(folder("").join("state.mpk")).unwrap();
    while std::fs::read(folder("").join("state.mpk")).unwrap() == before {
        assert!(resumed.try_wait().unwrap().is_none(), "did not resume");
        std::thread::sleep(Duration::from_millis(5));
    }
    resumed.kill().unwrap();
    resumed.wait().unwrap();
}

#[test]
fn outputs_are_checked_before_training() {
    let dir = tempfile::tempdir().unwrap();
    pictures::write(&dir.path().join("data"), 6);
    std::fs::write(dir.path().join("file"), "").unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["train", "--data", "data", "--epochs", EPOCHS]).args(more);
        let output = command.current_dir(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        text(&output)
    };
    for (more, what) in [
        (["-o", "data"], "data: cannot write here (it is a folder, not a file)"),
        (["-o", "file/x.mpk"], "file/x.mpk: cannot write here"),
        (["-o", "x.edge"], "-o x.edge: only mpk can be written"),
        (["-o", "/dev/null"], "no regular file"),
        (["--out", "file"], "file: cannot write here"),
        // Nobody writes there, not even root.
        #[cfg(target_os = "linux")]
        (["--out", "/proc/run"], "/proc/run: cannot write here"),
        #[cfg(target_os = "linux")]
        (["-o", "/proc/run.mpk"], "/proc/run.mpk: cannot write here"),
        (["--predict", "gone.jpg"], "--predict gone.jpg"),
        (["--predict", "data"], "--predict data"),
    ] {
        let said = run(&more);
        assert!(said.contains(what), "{more:?}: {said}");
        assert!(!said.contains("epoch"), "{more:?}: {said}");
    }
}
