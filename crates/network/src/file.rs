//! Files that are read within bounds, and written whole or not at all.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, TempDir};

/// Start of the names of what is being written.
const PREFIX: &str = ".writing-";
/// End of them.
const SUFFIX: &str = ".tmp";

/// Longest file that is read as a whole.
pub const MAX_FILE: u64 = 4 << 30;

/// Reads a file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// Whatever the file system says, and longer files, before they are read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut bytes = Vec::new();
    if len <= MAX_FILE {
        bytes.try_reserve_exact(len as usize).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // What is no regular file has no length.
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    }
    if len.max(bytes.len() as u64) > MAX_FILE {
        let what = format!("longer than any model that is read ({} GiB)", MAX_FILE >> 30);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// Writes a temporary file in the same folder, syncs it and renames it over `path`. A file that it replaces
/// keeps its permissions, a link keeps leading there, and what is no regular file, such as a pipe or
/// `/dev/stdout`, is written to as it is. Also removes what killed processes have left in that folder.
///
/// # Errors
/// Whatever the file system says; then `path` is as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &followed(path)?;
    let before = fs::metadata(path).ok();
    if before.as_ref().is_some_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    let dir = folder(path);
    sweep(dir);
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    let permissions = before.map_or_else(default_permissions, |meta| Some(meta.permissions()));
    if let Some(permissions) = &permissions {
        builder.permissions(permissions.clone());
    }
    let mut file = held(|| {
        let file = builder.tempfile_in(dir)?;
        let is_held = is_held(file.as_file(), file.path());
        Ok((file, is_held))
    })?;
    file.write_all(bytes)?;
    if let Some(permissions) = permissions.filter(|_| path.exists()) {
        // Which the process's mask may have narrowed.
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(dir);
    Ok(())
}

/// Whether [`write_atomic`] could write about `bytes` to `path` now, before hours of work that would be lost
/// otherwise.
///
/// # Errors
/// A folder under that name, one that is missing, that cannot be written to, or that is on a full disk.
pub fn check_writable(path: &Path, bytes: u64) -> io::Result<()> {
    let path = &followed(path)?;
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(io::Error::other("it is a folder, not a file")),
        Ok(meta) if !meta.is_file() => return Ok(()),
        _ => {}
    }
    check_folder(folder(path), bytes)
}

/// Whether a new file or folder of about `bytes` would fit into the folder `dir`.
///
/// # Errors
/// Those of [`check_writable`].
pub fn check_folder(dir: &Path, bytes: u64) -> io::Result<()> {
    if !dir.is_dir() {
        let what = format!("there is no folder {}; make it before", dir.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(dir)?;
    match free_bytes(dir) {
        Some(free) if free < bytes => {
            let what = format!("{free} bytes are free on that disk, and about {bytes} are needed");
            Err(io::Error::new(io::ErrorKind::StorageFull, what))
        }
        _ => Ok(()),
    }
}

/// What is free on a folder's disk, where the system tells.
#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// What is free on a folder's disk, where the system tells.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Makes a folder whole or not at all: `fill` writes into another one, which then gets the name `dir`.
///
/// # Errors
/// Those of `fill`, and whatever the file system says, which `io` takes.
pub fn make_folder<E>(
    dir: &Path,
    io: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let parent = folder(dir);
    sweep(parent);
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o777));
    }
    let (temporary, _lock) = held(|| {
        let temporary: TempDir = builder.tempdir_in(parent)?;
        let lock = File::open(temporary.path()).ok();
        let is_held = lock.as_ref().is_none_or(|lock| is_held(lock, temporary.path()));
        Ok(((temporary, lock), is_held))
    })
    .map_err(&io)?;
    fill(temporary.path())?;
    // Removed with all that is in it where that fails.
    fs::rename(temporary.path(), dir).map_err(&io)?;
    let _ = temporary.keep();
    sync_folder(parent);
    Ok(())
}

/// What `make` makes, again until nobody else has swept it before it was locked.
fn held<T>(make: impl Fn() -> io::Result<(T, bool)>) -> io::Result<T> {
    loop {
        if let (made, true) = make()? {
            return Ok(made);
        }
    }
}

/// Locks what was just made; false where another process is sweeping it. Some file systems have no locks:
/// nothing is swept there, either.
fn is_held(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Ok(()) => path.exists(),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => true,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a link leads, also one to what is not there yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    const MOST: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..MOST {
        match fs::read_link(&path) {
            // A pipe's or a terminal's has no path; opened by its own name it is what it was.
            Ok(_) if fs::metadata(&path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) => {
                return Ok(path);
            }
            Ok(target) => path = folder(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("links that lead in a circle"))
}

/// Those of a new file: what the process's mask leaves of these.
fn default_permissions() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    return None;
}

/// So that the name lasts, too, where folders can be synced.
fn sync_folder(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

/// Removes what processes that were killed have left half-written in a folder: a living one keeps its
/// file locked.
fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !(name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            continue;
        }
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if !meta.is_file() && !meta.is_dir() {
            continue;
        }
        // Locked until it is gone, so that whoever has just made it sees that.
        let Some(_lock) = File::open(&path).ok().filter(|file| file.try_lock().is_ok()) else {
            continue;
        };
        let _ = match meta.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_replaced_keeps_its_permissions_and_links_lead_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("private"), "old").unwrap();
        fs::set_permissions(path("private"), Permissions::from_mode(0o600)).unwrap();
        symlink("private", path("link")).unwrap();
        symlink("link", path("link2")).unwrap();
        symlink("later", path("dangling")).unwrap();
        symlink("circle", path("circle")).unwrap();
        for name in ["private", "link", "link2"] {
            write_atomic(&path(name), name.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(path("private")).unwrap(), name);
            assert_eq!(mode(&path("private")), 0o600, "{name}");
        }
        assert!(path("link2").is_symlink() && path("link").is_symlink());
        write_atomic(&path("dangling"), b"new").unwrap();
        assert!(path("dangling").is_symlink());
        assert_eq!(fs::read_to_string(path("later")).unwrap(), "new");
        assert!(write_atomic(&path("circle"), b"new").is_err());
        // As the mask of this process leaves them.
        fs::write(path("plain"), "").unwrap();
        assert_eq!(mode(&path("later")), mode(&path("plain")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 7, "no litter");
    }

    #[test]
    fn files_too_long_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long.onnx");
        File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read(Path::new("/dev/null")).unwrap().is_empty());
    }

    #[test]
    fn devices_and_pipes_are_written_to() {
        write_atomic(Path::new("/dev/null"), b"nothing").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(status.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write_atomic(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn writers_and_sweepers_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = dir.path().join(format!("{thread}"));
                scope.spawn(move || {
                    for i in 0..200 {
                        write_atomic(&path, format!("{i}").as_bytes()).unwrap();
                        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{i}"));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_was_left_is_swept_and_what_is_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path(".writing-left.tmp"), "half").unwrap();
        fs::write(path(".writing-made.tmp"), "").unwrap();
        fs::write(path(".writing-run.lock"), "123").unwrap();
        let mut other = File::create(path(".writing-other.tmp")).unwrap();
        other.lock().unwrap();
        other.write_all(b"half").unwrap();
        write_atomic(&path("x"), b"x").unwrap();
        let left = |name| path(name).exists();
        assert!(!left(".writing-left.tmp") && !left(".writing-made.tmp"));
        assert!(left(".writing-other.tmp"));
        assert!(left(".writing-run.lock"));
        drop(other);
        make_folder(&path("folder"), |e| e, |dir| fs::write(dir.join("y"), "y")).unwrap();
        assert!(!left(".writing-other.tmp"));
        assert_eq!(fs::read_to_string(path("folder/y")).unwrap(), "y");
        let failed = |dir: &Path| {
            fs::write(dir.join("z"), "z")?;
            Err(io::Error::other("full"))
        };
        make_folder(&path("second"), |e| e, failed).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no litter");
    }

    #[test]
    fn what_could_not_be_written_is_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        check_writable(&path("new"), 1).unwrap();
        fs::write(path("old"), "").unwrap();
        check_writable(&path("old"), 1).unwrap();
        for (name, bytes, want) in [
            ("", 1, "it is a folder"),
            ("none/new", 1, "there is no folder "),
            ("new", u64::MAX, "bytes are free on that disk, and about"),
        ] {
            let error = check_writable(&path(name), bytes).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "leaves nothing behind");
        #[cfg(unix)]
        check_writable(Path::new("/dev/null"), u64::MAX).unwrap();
    }
}
