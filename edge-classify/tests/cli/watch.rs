//! `edge-classify --watch`.

use crate::{BLUE, GREEN, RED, corner_model, encode, file_name};
use core::time::Duration;
use edge_classify::EXIT_ERROR;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::SystemTime;
use tempfile::TempDir;

/// A picture of one color.
fn save(folder: &Path, name: &str, color: Rgb<u8>) {
    let picture = encode(RgbImage::from_pixel(4, 4, color), ImageFormat::Png);
    fs::write(folder.join(name), picture).unwrap();
}

/// The real program, since it only ends when it is killed.
struct Watching {
    /// What it watches.
    folder: PathBuf,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(dir: &Path, options: [&str; 2]) -> Self {
        fs::write(dir.join("corner.edge"), corner_model(["red", "green", "blue"])).unwrap();
        fs::create_dir(dir.join("camera")).unwrap();
        save(&dir.join("camera"), "before.png", RED);
        Self::watch(dir, options)
    }

    fn watch(dir: &Path, options: [&str; 2]) -> Self {
        let (model, folder) = (dir.join("corner.edge"), dir.join("camera"));
        let mut program = Command::new(env!("CARGO_BIN_EXE_edge-classify"));
        program.arg("--model").arg(&model).arg("--watch").arg(&folder).arg("--json").args(options);
        // Named, so that it is known when the folder is watched.
        program.arg(folder.join("before.png"));
        let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { folder, child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// The answer to another picture.
    fn answer(&mut self, name: &str, color: Rgb<u8>) -> Value {
        save(&self.folder, name, color);
        self.next()
    }
}

#[test]
fn watches_a_folder() {
    let dir = TempDir::new().unwrap();
    let mut watching = Watching::start(dir.path(), ["--top", "1"]);
    let said = |item: &Value| {
        let label = item["classes"][0]["label"].as_str().unwrap_or("none").to_owned();
        (file_name(item).to_owned(), label)
    };
    // The picture that was named; from now on the folder is watched.
    assert_eq!(said(&watching.next()), ("before.png".into(), "red".into()));
    for (color, label) in [(GREEN, "green"), (BLUE, "blue")] {
        assert_eq!(said(&watching.answer("new.png", color)), ("new.png".into(), label.into()));
    }
    // Whatever the camera's clock says.
    let (day, now) = (Duration::from_secs(86_400), SystemTime::now());
    for (name, time) in [("late.png", now + day), ("new.png", now - day), ("early.png", now - day)]
    {
        save(dir.path(), name, RED);
        let file = fs::File::open(dir.path().join(name)).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
        fs::rename(dir.path().join(name), watching.folder.join(name)).unwrap();
        assert_eq!(said(&watching.next()), (name.into(), "red".into()));
    }
    fs::write(watching.folder.join("notes.txt"), "no picture's name").unwrap();
    fs::write(watching.folder.join("broken.jpg"), "no picture").unwrap();
    let item = watching.next();
    assert_eq!(file_name(&item), "broken.jpg");
    assert!(item["error"].as_str().unwrap().contains("not a picture"), "{item}");
    fs::remove_dir_all(&watching.folder).unwrap();
    let mut child = watching.child;
    assert_eq!(child.wait().unwrap().code(), Some(i32::from(EXIT_ERROR)));
    let mut complaint = String::new();
    child.stderr.unwrap().read_to_string(&mut complaint).unwrap();
    assert!(complaint.contains("camera"), "{complaint}");
    assert!(complaint.contains("skipped 1 file") && complaint.contains("notes.txt"), "{complaint}");
}

/// What is written over the model, as `cp` and `scp` do, changes no answer of the run.
#[test]
fn keeps_the_model_that_it_checked() {
    let dir = TempDir::new().unwrap();
    let mut watching = Watching::start(dir.path(), ["--top", "1"]);
    let model = dir.path().join("corner.edge");
    let len = fs::metadata(&model).unwrap().len();
    watching.next();
    for (i, bytes) in [vec![0xff; len as usize], Vec::new()].into_iter().enumerate() {
        // In place: the same file, not another one of the same name.
        let mut file = fs::OpenOptions::new().write(true).truncate(bytes.is_empty()).open(&model);
        file.as_mut().unwrap().write_all(&bytes).unwrap();
        let item = watching.answer(&format!("{i}.png"), GREEN);
        assert_eq!(item["classes"][0]["label"], "green", "{item}");
    }
    watching.child.kill().unwrap();
    watching.child.wait().unwrap();
}

/// Killed at any moment, it has deleted nothing that it had not answered, and starts again.
#[test]
fn kills_lose_no_picture() {
    let dir = TempDir::new().unwrap();
    let mut watching = Watching::start(dir.path(), ["--keep", "100"]);
    let folder = watching.folder.clone();
    let count = || fs::read_dir(&folder).unwrap().count();
    for kill in 1..=5u64 {
        watching.next();
        for i in 0..20 {
            save(&folder, &format!("{kill}-{i}.png"), BLUE);
        }
        std::thread::sleep(Duration::from_millis(kill * 37));
        watching.child.kill().unwrap();
        watching.child.wait().unwrap();
        assert_eq!(count() as u64, 1 + 20 * kill);
        watching = Watching::watch(dir.path(), ["--keep", "100"]);
    }
    watching.child.kill().unwrap();
    watching.child.wait().unwrap();
}

/// Only what was answered is deleted, and of that not the newest.
#[test]
fn keeps_the_newest_of_a_folder() {
    let dir = TempDir::new().unwrap();
    let mut watching = Watching::start(dir.path(), ["--keep", "2"]);
    assert_eq!(file_name(&watching.next()), "before.png");
    fs::write(watching.folder.join("broken.jpg"), "no picture").unwrap();
    fs::write(watching.folder.join("notes.txt"), "text").unwrap();
    assert_eq!(file_name(&watching.next()), "broken.jpg");
    // Deleted after the answer, before the next look.
    for name in ["1.png", "2.png", "3.png", "4.png", "5.png"] {
        assert_eq!(file_name(&watching.answer(name, BLUE)), name);
    }
    let mut left: Vec<_> = fs::read_dir(&watching.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "3.png")
        .collect();
    left.sort();
    assert_eq!(left, ["4.png", "5.png", "before.png", "broken.jpg", "notes.txt"]);
    watching.child.kill().unwrap();
    watching.child.wait().unwrap();
}
