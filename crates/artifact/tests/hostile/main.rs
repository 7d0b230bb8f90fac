//! Any bytes give `Ok` or a clear `Err`: files that are cut, damaged or forged.

mod bytes;
mod numbers;
mod records;
#[path = "../small_model/mod.rs"]
mod small_model;

use artifact::{ArtifactError, Dtype};
use small_model::Parts;

fn sound() -> Parts {
    Parts::sound(Dtype::I8, 4)
}

fn file() -> Vec<u8> {
    sound().file().unwrap()
}

/// The error of a small int8 model after `spoil`.
fn refused(spoil: impl FnOnce(&mut Parts)) -> ArtifactError {
    let mut parts = sound();
    spoil(&mut parts);
    parts.file().expect_err("a spoiled model was accepted")
}

#[track_caller]
fn refuses(error: ArtifactError, spoil: impl FnOnce(&mut Parts)) {
    refuses_of(error, sound(), spoil);
}

/// The same of another model.
#[track_caller]
fn refuses_of(error: ArtifactError, mut parts: Parts, spoil: impl FnOnce(&mut Parts)) {
    spoil(&mut parts);
    assert_eq!(parts.file(), Err(error));
}
