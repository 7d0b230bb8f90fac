//! A `.tar.gz` of a stranger, unpacked into a folder that holds nothing else: plain files below
//! it, of bounded number and size, are written; anything else is an error.

use crate::{MAX_FILE_BYTES, max_bytes};
use artifact::text::AsPlain;
use flate2::read::GzDecoder;
use std::fs::{File, create_dir_all};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};

/// Most members; a model has about ten.
const MAX_MEMBERS: usize = 1000;

/// Unpacks the archive at `path` into `folder`.
///
/// # Errors
/// What was found and what was wanted.
pub(super) fn unpack(path: &Path, folder: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    // All files together are no larger than one may be: an archive is of one model.
    let mut unpacked = GzDecoder::new(file).take(MAX_FILE_BYTES);
    let broken = |e: std::io::Error| format!("not a whole .tar.gz ({e})");
    let mut archive = Archive::new(&mut unpacked);
    let entries = archive.entries().map_err(broken)?;
    // Raw: else an extension of any length would be read into memory. They hold names of over
    // 100 bytes and times, neither of which a model needs.
    for (i, entry) in entries.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        if i >= MAX_MEMBERS {
            return Err(format!("more than {MAX_MEMBERS} members"));
        }
        let bytes = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&bytes).plain().to_string();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XHeader | EntryType::XGlobalHeader => continue,
            other => return Err(format!("the member `{name}` is no file but a {other:?}")),
        }
        let inside = entry.path().ok().and_then(|path| below(&path));
        let inside =
            inside.ok_or_else(|| format!("the member `{name}` leads out of its folder"))?;
        let (size, limit) = (entry.size(), max_bytes(&name));
        if size > limit {
            return Err(format!("the member `{name}` has {size} bytes, more than {limit}"));
        }
        let target = folder.join(inside);
        let mut write = || -> std::io::Result<u64> {
            create_dir_all(target.parent().unwrap_or(folder))?;
            let mut file = File::create_new(&target)?;
            let written = std::io::copy(&mut entry, &mut file)?;
            file.sync_all()?;
            Ok(written)
        };
        let written = write().map_err(|e| format!("the member `{name}`: {e}"))?;
        if written != size {
            return Err(format!("the member `{name}` has {written} bytes instead of {size}"));
        }
    }
    // The checksum comes after the last member.
    std::io::copy(&mut unpacked, &mut std::io::sink()).map_err(broken)?;
    Ok(())
}

/// A member's path, if it leads only downwards.
fn below(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    inside.file_name().is_some().then_some(inside)
}
