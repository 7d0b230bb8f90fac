//! `--unknown`, through the program.

use artifact::Artifact;
use convert::cli::run;
use std::fs;
use std::path::{Path, PathBuf};

/// Converts a model of the repository: the exit status, what was said, and the file.
fn convert(model: &str, args: &[&str]) -> (u8, String, Option<Vec<u8>>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.edge");
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let mut all = vec!["convert".into(), text(root.join(model)), "-o".into(), text(output.clone())];
    all.extend(args.iter().map(|arg| arg.replace('@', &text(root.clone()))));
    let mut out = Vec::new();
    let code = run(all, &mut out);
    (code, String::from_utf8(out).unwrap(), fs::read(output).ok())
}

const RESNET_8: &str = "models/resnet_8_cifar10.mpk";

#[test]
fn statistics_are_added_to_the_same_file() {
    for target in ["host", "cortex-m"] {
        let (_, _, plain) = convert(RESNET_8, &["--target", target]);
        let (code, said, file) = convert(RESNET_8, &["--target", target, "--unknown", "5%"]);
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("10 class means of 64 features (704 bytes) from 256 pictures"),
            "{said}"
        );
        let (plain, file) = (plain.unwrap(), file.unwrap());
        let [plain, known] = [&plain, &file].map(|file| Artifact::parse(file).unwrap());
        assert!(plain.known().is_none() && known.header().version == 9);
        assert!(plain.ops().eq(known.ops()) && plain.labels().eq(known.labels()));
        let record = known.known().unwrap();
        assert!(record.rows == 10 && record.usual < record.threshold, "{record:?}");
        // The same network in integers is at the same distances, whatever it is converted for.
        if target == "cortex-m" {
            let (_, _, host) = convert(RESNET_8, &["--fixed-point", "--unknown", "5%"]);
            let host = host.unwrap();
            let host = *Artifact::parse(&host).unwrap().known().unwrap();
            assert_eq!((host.threshold, host.usual), (record.threshold, record.usual));
        }
    }
}

#[test]
fn what_cannot_tell_is_refused() {
    for args in [
        // Three pictures.
        &["--unknown=1%", "--calibration=@/samples/pictures"][..],
        &["--unknown=1%", "--float-layers=predictions"],
        &["--unknown=1"],
        &["--unknown=1%", "--quantize=fp16"],
    ] {
        let (code, said, file) = convert(RESNET_8, args);
        assert!(code == 2 && file.is_none(), "{args:?}: {said}");
    }
}

#[test]
fn reports_say_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(RESNET_8);
    let (page, mut out) = (dir.path().join("r.html"), Vec::new());
    let args = ["convert", "report", model.to_str().unwrap(), "--unknown", "1%", "-o"];
    assert_eq!(run(args.iter().copied().chain(page.to_str()), &mut out), 0);
    let page = fs::read_to_string(page).unwrap();
    for text in [String::from_utf8(out).unwrap(), page] {
        assert!(text.contains("unknown pictures: 10 class means"), "{}", text.len());
    }
}
