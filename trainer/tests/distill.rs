//! One network teaches another.

mod pictures;

use std::path::Path;

/// What it writes to standard output, or why it does not.
fn said(args: &[&str]) -> Result<String, String> {
    let mut out = Vec::new();
    trainer::run(["trainer"].iter().chain(args), &mut out)
        .map_err(|error| page::terminal::describe(&error))?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_model_teaches_a_smaller_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [data, more, teacher, device] = ["data", "more", "teacher.mpk", "teacher.edge"].map(path);
    pictures::write(Path::new(&data), 12);
    pictures::write(Path::new(&more), 14);
    // The first twelve of each class are the same pictures.
    let common = ["train", "--data", &data, "--epochs", "2", "--batch", "8"];
    let run = path("taught");
    said(&[&common[..], &["--size", "32", "--out", &run, "-o", &teacher]].concat()).unwrap();
    let args = ["convert", "--quantize", "none", &teacher, "-o", &device];
    assert_eq!(convert::cli::run(args, &mut Vec::new()), 0);

    let small = |out: &str, more: &[&str]| {
        let (out, model) = (path(out), path(&format!("{out}.mpk")));
        let own = ["--size", "16", "--out", &out, "-o", &model];
        said(&[&common[..], &own, more].concat()).map(|said| (said, std::fs::read(model).unwrap()))
    };
    let (text, by_checkpoint) = small("a", &["--teacher", &teacher, "--seed", "5"]).unwrap();
    for what in [
        "teacher: resnet_8_cifar, 32×32 pixels, counts 90 %, temperature 2\n",
        // Whatever the student's seed.
        "those that the model was not trained on (seed 0, 20 %)",
    ] {
        assert!(text.contains(what), "{what} in {text}");
    }
    let taught = ["--teacher", &device, "--unlabelled", &more, "--temperature", "3"];
    let (text, by_device) = small("b", &taught).unwrap();
    for what in [
        "temperature 3\n",
        "unlabelled pictures are validation pictures; they are left out",
        "unlabelled pictures are among the labelled ones; they are left out",
        "4 unlabelled pictures: 24 an epoch, 20 of them labelled",
    ] {
        assert!(text.contains(what), "{what} in {text}");
    }
    assert!(by_checkpoint != by_device);
    assert!(small("b", &[&taught[..], &["--overwrite"]].concat()).unwrap().1 == by_device);

    for (args, what) in [
        (&["--unlabelled", &more][..], "--unlabelled needs a teacher"),
        (&["--temperature", "3"], "--temperature needs a teacher"),
        (&["--teacher-weight", "1"], "--teacher-weight needs a teacher"),
        (&["--teacher", &teacher, "--teacher-weight", "0"], "--teacher-weight 0 is not above 0"),
        (&["--teacher", &teacher, "--temperature", "0"], "--temperature 0 is not in 0.1..=100"),
        (&["--teacher", &teacher, "--unlabelled", "nowhere"], "--unlabelled nowhere: "),
        (&["--teacher", &more], "--teacher "),
        (
            &["--teacher", "../models/resnet_8_cifar10.mpk"],
            "the teacher knows 10 classes (airplane",
        ),
    ] {
        let error = small("c", args).unwrap_err();
        assert!(error.contains(what), "{args:?}: {error}");
        assert!(!Path::new(&path("c.mpk")).exists());
    }
}
