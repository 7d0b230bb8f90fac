//! Models of others that are cut, damaged or forged: a clear error with the path in it, and no
//! more memory than the file's own size calls for.
#![expect(unsafe_code, reason = "measuring allocations needs a global allocator")]

#[path = "../../network/tests/counting/mod.rs"]
mod counting;

use std::path::{Path, PathBuf};
use zoo::{Head, Hints, Imported, open_any};

/// One file of each kind, small enough to be read some hundred times.
const FILES: [&str; 7] = [
    "keras/v2_bottleneck/classifier.keras",
    "keras_legacy/odd.h5",
    "burn/tiny.bpk",
    "tflite/int8.tflite",
    "torch/training.pt",
    "torch/tiny.th",
    "keras/v1_basic/weights_timm_names.safetensors",
];

fn fixture(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A place for files of the extension that `file` has.
fn place(file: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model").with_extension(Path::new(file).extension().unwrap());
    (dir, path)
}

/// The error of these bytes, `None` where they are accepted; never a panic.
fn error_of(path: &Path, bytes: &[u8]) -> Option<String> {
    std::fs::write(path, bytes).unwrap();
    let (asked, result) = counting::allocated(|| open_any(path, Head::Required, &Hints::default()));
    assert!(asked < 64 * bytes.len() + (8 << 20), "{asked} bytes for a file of {}", bytes.len());
    match result {
        Ok(Imported::Checkpoint(checkpoint)) => {
            checkpoint.into_draft().check().unwrap();
            None
        }
        Ok(Imported::Graph(model)) => {
            assert!(model.preprocess.is_valid());
            None
        }
        Err(error) => {
            let (error, path) = (error.to_string(), path.display().to_string());
            assert!(error.starts_with(&path) && error.len() > path.len() + 8, "{error}");
            Some(error)
        }
    }
}

#[test]
fn cut_files_are_refused() {
    for file in FILES {
        let (whole, (_dir, path)) = (fixture(file), place(file));
        let starts = (0..64).chain((64..4096).step_by(97));
        let ends = whole.len() - 64..whole.len();
        for len in starts.chain((4096..whole.len()).step_by(whole.len() / 200)).chain(ends) {
            let error = error_of(&path, &whole[..len]);
            assert!(error.is_some(), "{file} is accepted after {len} bytes");
        }
        assert_eq!(error_of(&path, &whole), None, "{file}");
    }
}

#[test]
fn bit_flips_never_panic() {
    for file in FILES {
        let (mut bytes, (_dir, path)) = (fixture(file), place(file));
        let bits = bytes.len() * 8;
        // Densely where headers are, at both ends, and here and there between.
        let ends = (0..6000).step_by(37).chain((bits - 6000..bits).step_by(37));
        for bit in ends.chain((6000..bits - 6000).step_by(bits / 300)) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            error_of(&path, &bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn compressed_members_are_named() {
    let file = FILES[0];
    let (mut bytes, (_dir, path)) = (fixture(file), place(file));
    // The method stands 10 bytes after the start of each entry of the directory.
    let entries: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    for at in entries {
        bytes[at + 10] = 8;
    }
    let error = error_of(&path, &bytes).unwrap();
    assert!(error.contains("`config.json`: compressed"), "{error}");
}

#[test]
fn sizes_in_the_directory_are_not_believed() {
    let file = FILES[0];
    let (mut bytes, (_dir, path)) = (fixture(file), place(file));
    let entries: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    for at in entries {
        // Compressed and plain size, 4 GiB less two bytes.
        bytes[at + 20..at + 28].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff]);
    }
    error_of(&path, &bytes).unwrap();
}

/// Lists that are kept at every length, dicts that hold each other, names that are shared.
#[test]
fn pickles_share_what_they_keep() {
    let (_dir, path) = place("x.th");
    // What torch.save writes before the state dict.
    let start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02";
    let kept: Vec<u8> =
        (0..20_000u32).flat_map(|i| [&b"Nar"[..], &i.to_le_bytes()].concat()).collect();
    let name = [&b"X\0\0\x02\0"[..], &[b'n'; 0x20000], b"q\0"].concat();
    let named = b"h\0}q\x01(h\0h\x01u".repeat(5000);
    let lists = b"]".repeat(200_000);
    for body in
        [[b"]", &kept[..]].concat(), [&b"}("[..], &name, b"N", &named, b"u"].concat(), lists]
    {
        let bytes = [&start[..], &body, b".\x80\x02]."].concat();
        error_of(&path, &bytes).unwrap();
    }
}

/// A directory whose entries all lead to the largest member.
#[test]
fn members_that_lie_upon_each_other_are_refused() {
    let (mut bytes, (_dir, path)) = (fixture("torch/tiny.pt"), place("x.pt"));
    let at = |bytes: &[u8], from: usize, len: usize| -> usize {
        bytes[from..from + len].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
    };
    let entries: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    let storages = entries.iter().copied().filter(|e| {
        let name = &bytes[e + 46..e + 46 + at(&bytes, e + 28, 2)];
        name.windows(6).any(|part| part == b"/data/")
    });
    let storages: Vec<usize> = storages.collect();
    let largest = *storages.iter().max_by_key(|e| at(&bytes, **e + 24, 4)).unwrap();
    for entry in storages {
        // Checksum and sizes, and where the member begins.
        bytes.copy_within(largest + 16..largest + 28, entry + 16);
        bytes.copy_within(largest + 42..largest + 46, entry + 42);
    }
    let error = error_of(&path, &bytes).unwrap();
    assert!(error.contains("lie upon each other") || error.contains("overlap"), "{error}");
}
