//! Reading of fixtures, for the tests of whole paths.

use network::architecture::resnet::ResNetConfig;
use network::checkpoint::{Checkpoint, Draft};
use std::path::{Path, PathBuf};

/// A file or folder in `tests/fixtures`.
pub fn fixture(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A fixture's bytes.
///
/// # Panics
/// Where it cannot be read.
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = fixture(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Dimensions and values of a C-ordered f32 `.npy` fixture.
///
/// # Panics
/// Where it is something else.
pub fn npy(path: impl AsRef<Path>) -> (Vec<usize>, Vec<f32>) {
    let bytes = read(path);
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..10 + header_len]);
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
    let (shape, _) = shape.unwrap_or_else(|| panic!("{header}"));
    let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    let (values, _) = bytes[10 + header_len..].as_chunks();
    (shape, values.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// A checkpoint after a change.
///
/// # Panics
/// Where its parts do not fit any more.
pub fn changed(checkpoint: Checkpoint, change: impl FnOnce(&mut Draft)) -> Checkpoint {
    let mut draft = checkpoint.into_draft();
    change(&mut draft);
    draft.check().unwrap()
}

/// The config of a ResNet.
///
/// # Panics
/// Where it is none.
pub fn resnet(checkpoint: &Checkpoint) -> &ResNetConfig {
    checkpoint.config.family.resnet().unwrap()
}
