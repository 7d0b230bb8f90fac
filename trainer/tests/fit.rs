//! A search of the network that suits a board, of small pictures: what it writes fits, and it goes on where it
//! was stopped.

use runtime::{AlignedBuf, Model};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/fashion")
}

/// What `trainer fit` says with these options, in `dir`.
fn fit(dir: &Path, options: &[&str]) -> Result<Value, String> {
    let [run, model] = ["run", "board.mpk"].map(|name| dir.join(name).display().to_string());
    let data = samples().display().to_string();
    let args = ["trainer", "fit", "--data", &data, "--out", &run, "-o", &model, "--json"];
    let mut out = Vec::new();
    trainer::run([&args[..], options].concat(), &mut out).map_err(|e| format!("{e:#}"))?;
    Ok(serde_json::from_slice(&out).expect("JSON"))
}

#[test]
fn what_is_found_fits_and_a_search_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        ["--ram", "28K", "--flash", "120K", "--epochs", "1", "--finalists", "1", "--size", "32"];
    let told = fit(dir.path(), &options).unwrap();
    let candidates = told["candidates"].as_array().unwrap();
    assert!(candidates.len() >= 2, "{told:#}");
    for candidate in candidates {
        let takes = |what: &str| candidate["takes"][what].as_u64().unwrap();
        assert!(takes("ram") <= 28 << 10 && takes("flash") <= 120 << 10, "{candidate:#}");
        assert!(candidate["takes"]["seconds"].as_f64().unwrap() > 1e-3, "{candidate:#}");
    }
    // As exactly as it was said, by the file that was written.
    let file = AlignedBuf::from_slice(&fs::read(dir.path().join("board.edge")).unwrap());
    let model = Model::new(&file).unwrap();
    let takes = &told["best"]["takes"];
    assert_eq!(takes["ram"].as_u64().unwrap(), model.arena_len() as u64 + (5 << 10));
    assert_eq!(takes["flash"].as_u64().unwrap(), file.len() as u64 + (42 << 10));
    assert_eq!((model.panel_width(), model.labels().count()), (4, 10));
    let page = fs::read_to_string(dir.path().join("board.html")).unwrap();
    assert!(page.contains("What fits") && page.contains("<svg"), "{page}");

    let again = fit(dir.path(), &options).unwrap_err();
    assert!(again.contains("holds a search; pass --resume"), "{again}");
    // All that was found out is known, and the same files are written.
    let before = fs::read(dir.path().join("board.edge")).unwrap();
    fs::remove_file(dir.path().join("board.edge")).unwrap();
    let resumed = fit(dir.path(), &[&options[..], &["--resume"]].concat()).unwrap();
    assert_eq!(resumed["candidates"], told["candidates"]);
    assert_eq!(resumed["trained"], told["trained"]);
    assert_eq!(fs::read(dir.path().join("board.edge")).unwrap(), before);
    // Another search in its place begins anew, also with its networks.
    let anew = options.map(|option| if option == "1" { "2" } else { option });
    let anew = fit(dir.path(), &[&anew[..], &["--overwrite"]].concat()).unwrap();
    assert_eq!(anew["trained"].as_array().unwrap().len(), 2, "{anew:#}");
    let other = ["--ram", "27K", "--flash", "120K", "--resume"];
    let other = fit(dir.path(), &other).unwrap_err();
    assert!(other.contains("of another board"), "{other}");
}

#[test]
fn what_cannot_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (options, said) in [
        (&["--ram", "1K"][..], "no network fits: the one of least memory"),
        (&["--board", "nucleo-f446"], "did you mean nucleo-f446re"),
        (&["--board", "pi4", "--latency", "5"], "write 50ms or 2s"),
        (&["--board", "pi4", "--mhz", "0"], "--mhz 0"),
        (&["--board", "pi4", "--finalists", "0"], "--finalists 0"),
        (&["--board", "pi4", "--boards", "missing.toml"], "--boards missing.toml"),
        (&["--board", "pi4", "--start-size", "16"], "for finetune"),
        (&["--board", "pi4", "--resume"], "no search to resume"),
        (&[], "--board"),
    ] {
        let error = fit(dir.path(), options).unwrap_err();
        assert!(error.contains(said), "{options:?}: {error}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
