//! Training in several processes under Open MPI's `mpirun`, through the real program.
#![cfg(all(feature = "mpi", target_os = "linux"))]

mod pictures;

use core::time::Duration;
use network::checkpoint::EpochRecord;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use trainer::train::State;

const TRAINER: &str = env!("CARGO_BIN_EXE_trainer");
/// More than any machine gets through before it is stopped.
const ENDLESS: [&str; 4] = ["--batch", "8", "--epochs", "100000"];
/// Longest time that processes may take to notice that one of them has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of a run on the pictures in the folder `data`, in the folder `out`.
fn arguments(root: &Path, data: &str, out: &str, more: &[&str]) -> Vec<OsString> {
    let mut all: Vec<OsString> =
        ["train", "--size", "16", "--threads", "1", "--top-k", "1"].map(OsString::from).into();
    for (option, path) in [("--data", data), ("--out", out), ("-o", "model.mpk")] {
        all.extend([option.into(), root.join(path).into()]);
    }
    all.extend(more.iter().map(OsString::from));
    all
}

fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    command.arg("--oversubscribe");
    // As root, too, which containers often are.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

fn train(processes: usize, root: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = Command::new(TRAINER);
    if processes > 1 {
        command = mpirun();
        command.args(["-n", &processes.to_string(), TRAINER]);
    }
    command.args(arguments(root, "data", out, more));
    command
}

/// Waits for the end, which may not take longer than [`PATIENCE`].
fn finish(mut child: Child) -> Output {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Runs to a success.
fn completed(command: Command) -> String {
    let output = start(command).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Runs to a failure, without waiting for anything.
fn failed(command: Command) -> String {
    let output = finish(start(command));
    assert!(!output.status.success(), "{}", text(&output));
    text(&output)
}

fn state(root: &Path, out: &str) -> State {
    State::load(&root.join(out).join("state.mpk")).unwrap()
}

/// Largest difference of two runs' weights and statistics.
fn difference(a: &State, b: &State) -> f32 {
    assert!(a.last.tensors.keys().eq(b.last.tensors.keys()));
    let pairs = a.last.tensors.values().zip(b.last.tensors.values());
    let values = pairs.flat_map(|(a, b)| a.to_f32().into_iter().zip(b.to_f32()));
    values.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn sends(child: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &child.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The processes that `mpirun` started.
fn ranks(mpirun: &Child) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", mpirun.id())).unwrap();
    let children = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap())
        .collect::<String>();
    let mut ranks: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    ranks.sort_unstable();
    ranks
}

/// Whether the process exists and is not one that ended without anybody asking.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until the run has saved `epochs` more epochs.
fn saved(child: &mut Child, path: &Path, epochs: u32) {
    let epoch = || State::load(path).map_or(0, |state| state.epoch);
    let goal = epoch() + epochs;
    while epoch() < goal {
        assert!(child.try_wait().unwrap().is_none(), "ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// 46 training pictures in batches of 11: pairs and a middle one for two and for three processes,
/// and a last batch of two, which every process computes.
///
/// At a higher rate, a value that rounding moves across a ReLU's edge changes more than 1e-4, in
/// one process as well.
#[test]
fn processes_compute_what_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pictures::write(&root.join("data"), 31);
    let options = [
        ["--batch", "11"],
        ["--epochs", "17"],
        ["--accumulate", "2"],
        ["--val-split", "0.25"],
        ["--augment", "strong"],
        ["--dropout", "0.2"],
        ["--label-smoothing", "0.1"],
        ["--clip-norm", "1"],
        ["--ema", "0.9"],
        ["--seed", "4"],
    ];
    let options = options.as_flattened();
    let learning = [options, &["--lr", "2e-4"]].concat();
    completed(train(1, root, "still", &[options, &["--lr", "1e-12"]].concat()));
    completed(train(1, root, "1", &learning));
    let one = state(root, "1");
    assert_eq!(one.step, 51);
    let moved = difference(&one, &state(root, "still"));
    assert!(moved > 5e-3, "only {moved}");
    for processes in [2, 3] {
        let out = processes.to_string();
        let said = completed(train(processes, root, &out, &learning));
        // Not of its steps, which a loaded machine tells, too.
        assert_eq!(said.matches("epoch 17/17 loss").count(), 1, "{said}");
        let several = state(root, &out);
        assert_eq!(several.step, one.step);
        let error = difference(&several, &one);
        assert!(error <= 1e-4, "{processes} processes differ by {error}");
        for (one, several) in one.last.training.epochs.iter().zip(&several.last.training.epochs) {
            let figures = |r: &EpochRecord| {
                let measured = [r.val_loss, r.val_accuracy].map(Option::unwrap);
                [r.train_loss, r.train_accuracy, measured[0], measured[1]]
            };
            let close = |(a, b): (f64, f64)| (a - b).abs() <= 1e-4;
            let all = figures(one).into_iter().zip(figures(several)).all(close);
            assert!(all, "{processes} processes: {several:?} instead of {one:?}");
        }
    }
    completed(train(3, root, "again", &learning));
    let [first, second] = ["3", "again"].map(|out| state(root, out));
    assert!(first.last.tensors == second.last.tensors && first.memory == second.memory);
}

#[test]
fn a_killed_process_leaves_a_run_that_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pictures::write(&root.join("data"), 12);
    let path = root.join("run/state.mpk");
    let resume = [&ENDLESS[..], &["--resume"]].concat();
    // The last process, then the first, then mpirun itself as Ctrl-C does; each time the run
    // goes on with another number of processes.
    let mut options = &ENDLESS[..];
    for (processes, signal) in [(2, "-KILL"), (3, "-KILL"), (2, "-INT")] {
        let mut child = start(train(processes, root, "run", options));
        saved(&mut child, &path, 2);
        let ranks = ranks(&child);
        assert_eq!(ranks.len(), processes);
        let victim = match (signal, processes) {
            ("-INT", _) => child.id(),
            (_, 2) => ranks[1],
            _ => ranks[0],
        };
        sends(victim, signal);
        let output = finish(child);
        assert!(!output.status.success(), "{}", text(&output));
        let started = Instant::now();
        while ranks.iter().any(|rank| runs(*rank)) {
            assert!(started.elapsed() < PATIENCE, "a process goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        options = &resume;
    }
    let epoch = state(root, "run").epoch;
    assert!(epoch >= 6, "{epoch}");
    let mut child = start(train(1, root, "run", &resume));
    saved(&mut child, &path, 1);
    child.kill().unwrap();
    let said = text(&child.wait_with_output().unwrap());
    assert!(said.contains(&format!("resuming after epoch {epoch}")), "{said}");
}

#[test]
fn what_ends_one_process_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pictures::write(&root.join("data"), 12);

    let said = failed(train(3, root, "run", &["--batch", "5"]));
    assert!(said.contains("rank 0: --batch 5 shared by 3 processes"), "{said}");
    let said =
        failed(train(2, root, "run", &["--batch", "8", "--lr", "1e30", "--warmup-epochs", "0"]));
    assert!(said.contains("rank 0: epoch 1: the loss is"), "{said}");

    // The second process sees something else.
    let other = |data: &str, change: &[&str]| {
        let mut command = mpirun();
        let first = arguments(root, "data", "run", &ENDLESS);
        let second = arguments(root, data, "run", &[&ENDLESS[..], change].concat());
        command.args(["-n", "1", TRAINER]).args(first);
        command.args([":", "-n", "1", TRAINER]).args(second);
        failed(command)
    };
    let said = other("missing", &[]);
    assert!(said.contains("rank 1: ") && said.contains("missing: No such file"), "{said}");
    let said = other("data", &["--lr", "0.5"]);
    assert!(said.contains("rank 1: the options are not those of rank 0"), "{said}");
    pictures::write(&root.join("more"), 13);
    let said = other("more", &[]);
    assert!(said.contains("rank 1: the pictures"), "{said}");
}
