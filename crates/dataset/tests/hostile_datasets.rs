//! Folders of pictures with things in them that are no pictures.
#![cfg(unix)]

use artifact::Preprocess;
use dataset::{CacheSize, Dataset, ReadOptions};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

fn picture(path: &Path, color: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(9, 9, image::Rgb([color; 3])).save(path).unwrap();
}

/// Two classes of two pictures each.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, file) in ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"].iter().enumerate() {
        picture(&dir.path().join(file), i as u8);
    }
    dir
}

fn read(root: &Path) -> Result<Dataset, String> {
    read_with(root, CacheSize::Auto)
}

fn read_with(root: &Path, cache: CacheSize) -> Result<Dataset, String> {
    let preprocess = Preprocess::raw(8, 8);
    let options = ReadOptions { preprocess, val_split: 0.0, seed: 1, classes: None, cache };
    Dataset::read(root, &options).map_err(|e| e.to_string())
}

#[test]
fn pipes_and_devices_are_not_opened() {
    let dir = folder();
    let pipe = dir.path().join("cat/pipe.png");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("/dev/zero", dir.path().join("dog/zero.png")).unwrap();
    let data = read(dir.path()).unwrap();
    assert_eq!((data.train.len(), data.skipped.len()), (4, 0));
}

#[test]
fn files_that_vanish_are_named() {
    let dir = folder();
    symlink("gone", dir.path().join("cat/link.png")).unwrap();
    let data = read(dir.path()).unwrap();
    assert_eq!(data.train.len(), 4);
    assert!(data.skipped[0].path.ends_with("link.png"), "{:?}", data.skipped);
}

/// What was decoded once and is needed again.
#[test]
fn files_that_are_no_longer_what_they_were() {
    let dir = folder();
    let file = dir.path().join("cat/1.png");
    let data = read_with(dir.path(), CacheSize::Bytes(0)).unwrap();
    let (before, stored) = (data.train.get(1).unwrap(), std::fs::read(&file).unwrap());
    let error = |what: &str| {
        let error = data.train.get(1).unwrap_err().to_string();
        assert!(error.contains("cat/1.png") && error.contains("restore it"), "{error}");
        assert!(error.contains(what), "{error}");
    };
    // Another picture, as large and as old.
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    picture(&file, 77);
    std::fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    error("changed");
    std::fs::write(&file, &stored[..stored.len() / 2]).unwrap();
    error("changed");
    std::fs::remove_file(&file).unwrap();
    error("No such file");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    error("no regular file");
    std::fs::remove_file(&file).unwrap();
    // The same bytes are the same picture, whenever they were written.
    std::fs::write(&file, stored).unwrap();
    assert_eq!(data.train.get(1).unwrap(), before);
    // In memory nothing is lost.
    let data = read_with(dir.path(), CacheSize::All).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(data.train.get(1).unwrap(), before);
}

#[test]
fn files_that_may_not_be_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    let secret = dir.path().join("cat/secret.png");
    picture(&secret, 9);
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(&secret).is_ok() {
        println!("SKIPPED: this user may read everything");
        return;
    }
    let data = read(dir.path()).unwrap();
    assert_eq!(data.train.len(), 4);
    assert!(data.skipped[0].path.ends_with("secret.png"), "{:?}", data.skipped);
}

#[test]
fn names_that_are_not_utf8() {
    let dir = folder();
    // A picture keeps its place whatever it is called; a class needs a label.
    let odd = dir.path().join("cat").join(OsStr::from_bytes(b"\xff.png"));
    std::fs::rename(dir.path().join("cat/1.png"), odd).unwrap();
    assert_eq!(read(dir.path()).unwrap().train.len(), 4);
    std::fs::create_dir(dir.path().join(OsStr::from_bytes(b"\xfe"))).unwrap();
    let error = read(dir.path()).unwrap_err();
    assert!(error.contains("not UTF-8") && error.contains("rename"), "{error}");
}

#[test]
fn hidden_folders_and_leftovers_are_no_classes() {
    let dir = folder();
    picture(&dir.path().join(".thumbnails/0.png"), 5);
    picture(&dir.path().join("__MACOSX/0.png"), 5);
    picture(&dir.path().join("cat/._0.png"), 5);
    let data = read(dir.path()).unwrap();
    assert_eq!((data.labels.len(), data.train.len()), (2, 4));
}

#[test]
fn a_circle_of_links_ends() {
    let dir = folder();
    symlink(".", dir.path().join("cat/self")).unwrap();
    symlink("b", dir.path().join("dog/a")).unwrap();
    symlink("a", dir.path().join("dog/b")).unwrap();
    assert_eq!(read(dir.path()).unwrap().train.len(), 4);
}
