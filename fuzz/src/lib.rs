//! What the targets of importers share.

use std::path::PathBuf;
use std::sync::LazyLock;
use zoo::{Head, Hints, Imported, open_any};

/// Any bytes as a file of another's model: refused, or consistent.
pub fn import(data: &[u8], extension: &str) {
    static FOLDER: LazyLock<PathBuf> =
        LazyLock::new(|| tempfile::tempdir().expect("a folder for the file").keep());
    let path = FOLDER.join("model").with_extension(extension);
    std::fs::write(&path, data).expect("the folder is ours");
    match open_any(&path, Head::Optional, &Hints::default()) {
        Ok(Imported::Checkpoint(checkpoint)) => checkpoint.fits().expect("reading has checked it"),
        Ok(Imported::Graph(model)) => assert!(model.preprocess.is_valid()),
        Err(error) => assert!(error.to_string().contains("model.")),
    }
}
