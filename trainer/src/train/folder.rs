//! Where a run writes, and nobody else.
//!
//! A [`Claim`] is a hidden file that the operating system keeps locked for as long as its process
//! lives, however that ends; in it stands who holds it. A [`Folder`] is a claimed folder of a run.
//! Of several processes that train together, the first one alone has it.

use super::State;
use super::lessons::FILE as LESSONS;
use super::state::StateError;
use core::time::Duration;
use network::file::write_atomic;
use page::progress::duration;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Start of the hidden files' names, as that of files that are being written.
const PREFIX: &str = ".writing-";

/// The file of a run's folder whose options repeat it.
pub const SETTINGS: &str = "run.toml";

/// Why a run may not write somewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Another process does.
    #[error("{path} is being written by {holder}; wait for it, or pass {option} with another name")]
    Held {
        /// File or folder.
        path: String,
        /// The other process.
        holder: String,
        /// What names the file or folder.
        option: &'static str,
    },
    /// A run lies there that has ended.
    #[error(
        "{dir} holds a finished run{epochs}; pass --overwrite to replace it, or --out with \
         another folder"
    )]
    Finished {
        /// Folder.
        dir: String,
        /// How long it was, if that is known.
        epochs: String,
    },
    /// A run lies there that can go on.
    #[error(
        "{dir} holds a run that stopped after epoch {epoch}; pass --resume to continue it, \
         --overwrite to start again, or --out with another folder"
    )]
    Stopped {
        /// Folder.
        dir: String,
        /// Its last whole epoch.
        epoch: u32,
    },
    /// There is nothing to go on with.
    #[error("{dir} holds no run to resume; leave --resume away or pass the run's --out")]
    Nothing {
        /// Folder.
        dir: String,
    },
    /// The state to go on with cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is not what it was when the run began.
    #[error("{path} was removed or replaced by others while this run trained")]
    Lost {
        /// File or folder.
        path: String,
    },
    /// It cannot be written to.
    #[error("{path}: cannot write here ({source}); pass {option} with another name")]
    Io {
        /// File or folder.
        path: String,
        /// Cause.
        source: io::Error,
        /// What names the file or folder.
        option: &'static str,
    },
}

/// The right to write a file or into a folder, until it is dropped or its process ends.
#[derive(Debug)]
pub struct Claim {
    /// Locked.
    file: File,
    lock: PathBuf,
    path: PathBuf,
}

impl Claim {
    /// Claims the file `path`, given by `option`, for the process that runs `command`, and makes
    /// its folder.
    ///
    /// # Errors
    /// Another process that has it, a folder that cannot be written to, and a `path` that is no
    /// regular file.
    pub fn file(path: &Path, option: &'static str, command: &str) -> Result<Self, FolderError> {
        let fail = |source| io_error(path, source, option);
        check_file(path).map_err(fail)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::take(path, path.with_file_name(format!("{PREFIX}{name}.lock")), option, command)
    }

    /// Claims the existing folder `dir`, named by `--out`.
    fn folder(dir: &Path, command: &str) -> Result<Self, FolderError> {
        Self::take(dir, lock_of(dir), "--out", command)
    }

    fn take(
        path: &Path,
        lock: PathBuf,
        option: &'static str,
        command: &str,
    ) -> Result<Self, FolderError> {
        let fail = |source| io_error(path, source, option);
        loop {
            let mut options = File::options();
            let mut file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&lock)
                .map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let (path, holder) = (path.display().to_string(), holder(&mut file));
                    return Err(FolderError::Held { path, holder, option });
                }
                // Some file systems have no locks; training there is better than not at all.
                Err(TryLockError::Error(_)) => {}
            }
            // Whoever had it may have removed the file since it was opened.
            if !is_same(&file, &lock) {
                continue;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let text = format!("{}\n{now}\n{command}\n", std::process::id());
            file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(fail)?;
            return Ok(Self { file, lock, path: path.into() });
        }
    }

    /// Checks that what was claimed is still there.
    ///
    /// # Errors
    /// Somebody has removed or replaced it.
    pub fn check(&self) -> Result<(), FolderError> {
        match is_same(&self.file, &self.lock) {
            true => Ok(()),
            false => Err(FolderError::Lost { path: self.path.display().to_string() }),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Still locked: nobody else can have this file yet.
        if self.check().is_ok() {
            let _ = std::fs::remove_file(&self.lock);
        }
    }
}

/// The file that is locked for a folder.
fn lock_of(dir: &Path) -> PathBuf {
    dir.join(format!("{PREFIX}run.lock"))
}

fn io_error(path: &Path, source: io::Error, option: &'static str) -> FolderError {
    FolderError::Io { path: path.display().to_string(), source, option }
}

/// Makes the folder of a file that is to be written.
///
/// # Errors
/// A folder that cannot be made, or something else than a regular file under that name.
pub fn check_file(path: &Path) -> io::Result<()> {
    // Folders are refused below.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return Err(io::Error::other("it is no regular file"));
    }
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    network::file::check_writable(path, 0)
}

/// Who wrote the lock file, in words.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let mut lines = text.lines();
    let mut number = || lines.next()?.parse::<u64>().ok();
    match (read, number(), number()) {
        (Ok(_), Some(process), Some(since)) => {
            let since = UNIX_EPOCH + Duration::from_secs(since);
            let time = SystemTime::now().duration_since(since).unwrap_or_default();
            let (time, command) = (duration(time.as_secs_f64()), lines.next().unwrap_or("?"));
            format!("process {process} (`{command}`, started {time} ago)")
        }
        // It has not said so yet, or this system does not let others read.
        _ => "another process".into(),
    }
}

/// Whether `path` still is the open file.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let key = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let both = file.metadata().and_then(|open| Ok(key(open) == key(std::fs::metadata(path)?)));
    both.unwrap_or(false)
}

/// Elsewhere, open files cannot be removed.
#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> bool {
    true
}

/// What is to become of a run that a folder holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays; only one that has no whole epoch yet makes room.
    Keep,
    /// It goes on.
    Resume,
    /// It makes room.
    Overwrite,
}

/// The folder of a run, in which no other one writes.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    claim: Claim,
    state: Option<State>,
    /// Options of the run.
    settings: Option<String>,
    /// Made for this run: removed again if nothing comes of it.
    is_new: bool,
}

impl Folder {
    /// Claims `dir`, and makes it where it is missing, for the process that runs `command`.
    ///
    /// # Errors
    /// Another run that is under way there; a run that is to be kept, or none that could go on;
    /// a folder that cannot be written to.
    pub fn open(dir: &Path, existing: Existing, command: &str) -> Result<Self, FolderError> {
        let name = || dir.display().to_string();
        let (is_new, path) = (!dir.exists(), dir.join("state.mpk"));
        if existing == Existing::Resume && is_new {
            return Err(FolderError::Nothing { dir: name() });
        }
        // Left by a process that was killed, maybe before it had a state.
        let begun = lock_of(dir).exists();
        std::fs::create_dir_all(dir).map_err(|source| io_error(dir, source, "--out"))?;
        let claim = Claim::folder(dir, command)?;
        let mut folder = Self { dir: dir.into(), claim, state: None, settings: None, is_new };
        match existing {
            Existing::Overwrite => {}
            Existing::Resume if path.exists() => folder.state = Some(State::load(&path)?),
            Existing::Resume if begun => {}
            Existing::Resume => return Err(FolderError::Nothing { dir: name() }),
            Existing::Keep => match State::load(&path) {
                Ok(state) if state.done() => {
                    let epochs = format!(" of {} epochs", state.epoch);
                    return Err(FolderError::Finished { dir: name(), epochs });
                }
                Ok(state) if state.epoch > 0 => {
                    return Err(FolderError::Stopped { dir: name(), epoch: state.epoch });
                }
                // An unreadable state is no run to protect, but a model is.
                Err(_) if dir.join("best.mpk").exists() => {
                    return Err(FolderError::Finished { dir: name(), epochs: String::new() });
                }
                _ => {}
            },
        }
        Ok(folder)
    }

    /// Claims `dir` or, with a number behind its name, the first such folder without a run that is
    /// finished or under way; to resume, the last one with a run that is neither.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn numbered(dir: &Path, existing: Existing, command: &str) -> Result<Self, FolderError> {
        let name = |number: u32| match number {
            1 => dir.to_path_buf(),
            _ => PathBuf::from(format!("{}-{number}", dir.display())),
        };
        match existing {
            Existing::Overwrite => Self::open(dir, existing, command),
            Existing::Keep => {
                let tried = (1..).map(|number| Self::open(&name(number), existing, command));
                let is_taken = |opened: &Result<Self, FolderError>| {
                    matches!(opened, Err(FolderError::Held { .. } | FolderError::Finished { .. }))
                };
                let mut free = tried.skip_while(is_taken);
                free.next().unwrap_or_else(|| Self::open(dir, existing, command))
            }
            Existing::Resume => {
                let last = (1..).take_while(|number| name(*number).exists()).last().unwrap_or(1);
                let mut all = (1..=last).rev().map(|n| Self::open(&name(n), existing, command));
                let can_go_on = |opened: &Result<Self, FolderError>| {
                    opened.as_ref().is_ok_and(|f| f.state.as_ref().is_none_or(|s| !s.done()))
                };
                all.find(can_go_on).unwrap_or_else(|| Self::open(&name(last), existing, command))
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The path of a file in it.
    ///
    /// # Errors
    /// Somebody has removed or replaced the folder.
    pub fn file(&self, name: &str) -> Result<PathBuf, FolderError> {
        self.claim.check()?;
        Ok(self.dir.join(name))
    }

    /// What [`SETTINGS`] is to hold once the run begins.
    pub fn keep_settings(&mut self, settings: String) {
        self.settings = Some(settings);
    }

    /// The state to go on with, once.
    pub(super) fn take_state(&mut self) -> Option<State> {
        self.state.take()
    }

    /// Begins a new run: what an older one left here is removed, but for what a teacher has said already
    /// where one `teaches` again.
    pub(super) fn clear(&self, teaches: bool) -> Result<(), FolderError> {
        let lessons = (!teaches).then_some(LESSONS);
        let left = ["state.mpk", "best.mpk", "last.mpk", "report.html", SETTINGS];
        for name in left.into_iter().chain(lessons) {
            let path = self.file(name)?;
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&path, source, "--out"));
                }
                _ => {}
            }
        }
        if let Some(settings) = &self.settings {
            let path = self.file(SETTINGS)?;
            let written = write_atomic(&path, settings.as_bytes());
            written.map_err(|source| io_error(&path, source, "--out"))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let only_the_lock = |mut entries: std::fs::ReadDir| {
            entries.all(|e| e.is_ok_and(|e| e.path() == self.claim.lock))
        };
        let is_ours = self.claim.check().is_ok();
        if self.is_new && is_ours && std::fs::read_dir(&self.dir).is_ok_and(only_the_lock) {
            let _ = std::fs::remove_file(&self.claim.lock);
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_its_holder_and_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/pets.mpk");
        let claim = |command| Claim::file(&path, "-o", command);
        let first = claim("trainer finetune --data a").unwrap();
        let error = claim("trainer train").unwrap_err().to_string();
        let process = format!("process {} (`trainer finetune --data a`", std::process::id());
        for what in ["pets.mpk is being written by", &process, "`, started ", "pass -o"] {
            assert!(error.contains(what), "{what}: {error}");
        }
        assert!(first.check().is_ok());
        drop(first);
        let second = claim("trainer train").unwrap();
        drop(second);
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0, "a claim leaves nothing behind");
    }

    #[test]
    fn what_cannot_be_written_is_no_claim() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| Claim::file(path, "-o", "").unwrap_err().to_string();
        assert!(error(dir.path()).contains("it is a folder"), "{}", error(dir.path()));
        std::fs::write(dir.path().join("file"), "").unwrap();
        let below = error(&dir.path().join("file/x.mpk"));
        assert!(below.contains("file/x.mpk: cannot write here"), "{below}");
        #[cfg(unix)]
        assert!(error(Path::new("/dev/null")).contains("no regular file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let first = Folder::open(&run, Existing::Keep, "a").unwrap();
        assert!(first.file("best.mpk").is_ok());
        std::fs::remove_dir_all(&run).unwrap();
        let second = Folder::open(&run, Existing::Keep, "b").unwrap();
        let error = first.file("best.mpk").unwrap_err().to_string();
        assert!(error.contains("removed or replaced"), "{error}");
        drop(first);
        assert!(second.file("best.mpk").is_ok());
        drop(second);
        assert!(!run.exists(), "a folder in which nothing came to be is removed");
    }

    #[test]
    fn folders_of_no_name_get_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("runs/net");
        let open = |existing| Folder::numbered(&base, existing, "a");
        let first = open(Existing::Keep).unwrap();
        let second = open(Existing::Keep).unwrap();
        assert_eq!(first.path(), base);
        assert_eq!(second.path(), dir.path().join("runs/net-2"));
        // A model without a state is a finished run, too.
        std::fs::write(first.file("best.mpk").unwrap(), "").unwrap();
        drop((first, second));
        assert_eq!(open(Existing::Keep).unwrap().path(), dir.path().join("runs/net-2"));
        assert_eq!(open(Existing::Overwrite).unwrap().path(), base);
        let error = Folder::open(&base, Existing::Keep, "a").unwrap_err().to_string();
        assert!(error.contains("finished run; pass --overwrite"), "{error}");
        let error = open(Existing::Resume).unwrap_err().to_string();
        assert!(error.contains("no run to resume"), "{error}");
    }
}
