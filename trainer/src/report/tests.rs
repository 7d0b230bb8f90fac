//! Whole pages.

use super::*;
use crate::data::{CacheSize, Dataset, Pictures, ReadOptions};
use crate::train::{Answer, calibration, ece};
use artifact::Preprocess;
use network::architecture::Architecture;
use network::checkpoint::TrainingRecord;
use std::collections::BTreeMap;

const HOSTILE: &str = "\"'><script>alert(1)</script>\u{202e}\nx";
const SECTIONS: [&str; 7] =
    ["summary", "curves", "confusion", "classes", "mistakes", "calibration", "run"];

fn checkpoint(classes: usize, epochs: u32) -> Draft {
    let mut labels: Vec<String> = (1..classes).map(|i| format!("class {i}")).collect();
    labels.push(HOSTILE.into());
    let epoch = |epoch| EpochRecord {
        epoch,
        learning_rate: 0.1,
        train_loss: 1.0 / f64::from(epoch),
        train_accuracy: 0.5,
        val_loss: None,
        val_accuracy: None,
        val_top_k_accuracy: None,
        seconds: 1.0,
        wait_seconds: 0.25,
    };
    let config = Architecture::by_name("resnet_8_cifar", classes).unwrap();
    let preprocess = Preprocess::normalized(32, 32, [0.5; 3], [0.25; 3]);
    Draft {
        training: TrainingRecord {
            dataset: HOSTILE.into(),
            options: [("lr".into(), HOSTILE.into())].into(),
            epochs: (1..=epochs).map(epoch).collect(),
            ..TrainingRecord::default()
        },
        ..Draft::new(config, labels, preprocess, BTreeMap::new())
    }
}

/// `n` pictures of noise, of which every third is answered wrong.
fn measured(classes: usize, n: usize) -> (Evaluation, Pictures) {
    let answer = |i: usize| {
        let label = i % classes;
        let class = if i.is_multiple_of(3) { (label + 1) % classes } else { label };
        let probability = (i % 100) as f32 / 100.0;
        Answer { label: label as u32, class: class as u32, probability }
    };
    let answers: Vec<_> = (0..n).map(answer).collect();
    let mut confusion = vec![vec![0; classes]; classes];
    answers.iter().for_each(|a| confusion[a.label as usize][a.class as usize] += 1);
    let mut pictures = Pictures::new(Preprocess::normalized(32, 32, [0.5; 3], [0.25; 3]));
    for (i, answer) in answers.iter().enumerate() {
        let noise = |at: usize| ((i * 3072 + at).wrapping_mul(2_654_435_761) >> 9) as u8;
        pictures.push(&(0..3072).map(noise).collect::<Vec<_>>(), answer.label, 0);
    }
    let evaluation = Evaluation {
        pictures: n,
        loss: 1.0,
        accuracy: 2.0 / 3.0,
        top_k: 1,
        top_k_accuracy: 2.0 / 3.0,
        confusion,
        ece: ece(&calibration(&answers)),
        answers,
    };
    (evaluation, pictures)
}

fn html(checkpoint: &Draft, measured: Option<&(Evaluation, Pictures)>) -> String {
    let report = Report {
        model: Path::new("/somewhere/<b>.mpk"),
        command: HOSTILE,
        data: DataFacts {
            name: HOSTILE.into(),
            notes: vec![HOSTILE.into()],
            root: "/somewhere".into(),
            chose: true,
        },
        checkpoint,
        epochs: &checkpoint.training.epochs,
        measured: measured.map(|(evaluation, pictures)| (evaluation, pictures)),
        seconds: 1.0,
    };
    report.html().unwrap()
}

/// Every opened element is closed, nothing runs, and nothing is loaded.
fn check(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1).map(|t| t.split('>').next().unwrap()) {
        let name = tag.split([' ', '\n']).next().unwrap();
        if let Some(closed) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "<{tag}>");
        } else if !["!DOCTYPE", "meta", "img", "wbr"].contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!["script", "link", "iframe", "object", "a"].contains(&name), "<{tag}>");
    }
    assert_eq!(open, [""; 0]);
    for load in html.split("src=\"").skip(1) {
        assert!(load.starts_with("data:image/"), "{}", &load[..40]);
    }
    for word in ["href", "url(", "@import", "srcset", "https:", "\u{202e}"] {
        assert!(!html.contains(word), "{word}");
    }
    let addresses = html.matches("http:").count();
    assert_eq!(addresses, html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
}

#[test]
fn pages_are_well_formed_small_and_harmless() {
    for classes in [2, 10, 30, 31, 1000] {
        let data = measured(classes, 2000);
        let html = html(&checkpoint(classes, 200), Some(&data));
        check(&html);
        for section in SECTIONS {
            assert!(html.contains(&format!("id=\"{section}\"")), "{classes}: {section}");
        }
        assert!(html.contains("&#60;script&#62;"), "the label is shown");
        assert!(!html.contains("/somewhere"), "folders are private");
        assert_eq!(html.matches("<img").count(), 24);
        assert_eq!(html.contains("class=\"matrix\""), classes <= 30, "{classes}");
    }
}

#[test]
fn short_and_unmeasured_runs_have_a_page() {
    for epochs in [0, 1, 2] {
        let checkpoint = checkpoint(2, epochs);
        let page = html(&checkpoint, None);
        check(&page);
        assert!(page.contains("there are no validation pictures"));
        assert_eq!(page.contains("waiting for pictures"), epochs > 0);
        assert_eq!(page.contains("<polyline"), epochs > 0);
        check(&html(&checkpoint, Some(&measured(2, 0))));
        check(&html(&checkpoint, Some(&measured(2, 1))));
    }
}

#[test]
fn numbers_of_a_damaged_record_do_no_harm() {
    let mut checkpoint = checkpoint(2, 3);
    let epochs = &mut checkpoint.training.epochs;
    epochs[0].train_loss = f64::NAN;
    epochs[1].learning_rate = f64::INFINITY;
    epochs[2] = EpochRecord { epoch: u32::MAX, train_accuracy: -1e300, ..epochs[2].clone() };
    check(&html(&checkpoint, None));
}

#[test]
fn a_page_says_what_its_figures_are_worth() {
    let mut checkpoint = checkpoint(2, 9);
    for (epoch, loss) in checkpoint.training.epochs.iter_mut().zip([5, 4, 3, 4, 5, 6, 6, 7, 7]) {
        epoch.val_loss = Some(f64::from(loss) / 10.0);
    }
    let all = checkpoint.training.epochs.clone();
    checkpoint.training.epochs.truncate(3);
    checkpoint.training.base = "resnet_20_cifar (cifar-10)".into();
    let (evaluation, pictures) = measured(2, 300);
    let page = |chose, epochs| {
        let notes = Vec::new();
        let report = Report {
            model: Path::new("m.mpk"),
            command: "trainer finetune",
            data: DataFacts { name: "pets".into(), notes, root: PathBuf::new(), chose },
            checkpoint: &checkpoint,
            epochs,
            measured: Some((&evaluation, &pictures)),
            seconds: 1.0,
        };
        report.html().unwrap()
    };
    let text = page(true, &all);
    check(&text);
    for what in [
        "66.7 % of 300 pictures",
        "between 61.2 % and 71.8 %",
        "The best of 9 epochs on these 300 pictures",
        "It overfits from epoch 4 on: the validation loss rises from 0.300 to 0.700",
        "resnet_20_cifar (cifar-10)",
        "32×32 pixels",
        "class=\"chosen\"",
        "the model&#39;s epoch",
    ] {
        let what = what.replace("&#39;", "'");
        assert!(text.contains(&what), "{what}");
    }
    let text = page(false, &all[..3]);
    assert!(!text.contains("The best of") && !text.contains("overfits"));
    assert_eq!(view::overfitting(&all[..5]), None, "two epochs are chance");
}

#[test]
fn the_surest_mistakes_come_first() {
    let answer = |class, probability| Answer { label: 0, class, probability };
    let answers = [answer(1, 0.5), answer(0, 0.9), answer(1, 0.8), answer(2, f32::NAN)];
    assert_eq!(view::most_confident_first(&answers)[1..], [2, 0]);
}

#[test]
fn the_version_of_burn_is_true() {
    let lock = include_str!("../../../Cargo.lock");
    assert!(lock.contains(&format!("name = \"burn\"\nversion = \"{}\"", view::BURN)));
}

/// Two classes of eight pictures.
fn photos(root: &Path) {
    for (class, level) in [("<b>bright", 200), ("dark", 20)] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for i in 0..8 {
            let pixel = image::Rgb([level + i, level, level]);
            let path = root.join(class).join(format!("{i}.png"));
            image::RgbImage::from_pixel(20, 20, pixel).save(path).unwrap();
        }
    }
}

#[test]
fn mistakes_name_their_files_and_show_them() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let config = Architecture::named("resnet_8_cifar", 2).unwrap();
    let checkpoint = network::init::random_checkpoint(config, 32, 0).unwrap();
    let options = ReadOptions {
        preprocess: checkpoint.preprocess,
        val_split: 0.0,
        seed: 0,
        classes: None,
        cache: CacheSize::All,
    };
    let data = Dataset::read(dir.path(), &options).unwrap();
    let wrong = |label: &u32| Answer { label: *label, class: 1 - *label, probability: 0.9 };
    let evaluation = Evaluation {
        answers: data.train.labels.iter().map(wrong).collect(),
        ..measured(2, data.train.len()).0
    };
    let report = Report {
        model: Path::new("m.mpk"),
        command: "trainer eval",
        data: DataFacts::new(&data, dir.path()),
        checkpoint: &checkpoint,
        epochs: &[],
        measured: Some((&evaluation, &data.train)),
        seconds: 1.0,
    };
    let page = report.html().unwrap();
    check(&page);
    for name in ["dark/3.png", "&#60;b&#62;bright/7.png"] {
        // As text, and as the title of the picture.
        assert_eq!(page.matches(name).count(), 2, "{name}");
    }
    // Each with what speaks for its answer.
    assert_eq!(page.matches("<img").count(), 32);
    assert_eq!(page.matches("alt=\"what speaks for").count(), 16);
}

#[test]
fn commands_write_their_pages() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    photos(&dir.path().join("photos"));
    let run = |command: &str, options: &[&str]| {
        let data = path("photos");
        let mut args = vec!["trainer", command];
        if command != "schedule" {
            args.extend(["--data", &data]);
        }
        args.extend(options);
        let mut out = Vec::new();
        let result = crate::run(args, &mut out).map(|_| String::from_utf8(out).unwrap());
        result.map_err(|e| e.to_string())
    };
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();

    let (model, folder) = (path("m.mpk"), path("run"));
    let options = ["--epochs", "1", "--val-split", "0.4", "--out", &folder, "-o", &model];
    let text = run("finetune", &options).unwrap();
    assert!(text.contains("report.html"), "{text}");
    let page = read("run/report.html");
    check(&page);
    for section in SECTIONS {
        assert!(page.contains(&format!("id=\"{section}\"")), "{section}");
    }
    assert!(page.contains("trainer finetune --data"));

    run("eval", &["--model", &model, "--report", &path("eval.html")]).unwrap();
    check(&read("eval.html"));
    let error = run("eval", &["--model", &model, "--report", &path("eval.pdf")]).unwrap_err();
    assert!(error.contains("ends in .html"), "{error}");

    let text = run("show", &["-n", "3", "-o", &path("g.html")]).unwrap();
    assert!(text.contains("dark       6 training, 2 validation"), "{text}");
    check(&read("g.html"));
    assert_eq!(read("g.html").matches("<img").count(), 6);
    run("show", &["--augment", "-n", "3", "--size", "64", "-o", &path("a.html")]).unwrap();
    check(&read("a.html"));
    assert!(read("a.html").matches("<img").count() >= 3 * 3);
    assert!(read("a.html").contains("<wbr>="), "long titles are broken before their value");
    assert!(run("show", &["-o", &path("g.png")]).unwrap_err().contains("ends in .html"));

    let text = run("schedule", &["--epochs", "4", "-o", &path("s.svg")]).unwrap();
    assert!(text.contains("learning rate"), "{text}");
    assert!(read("s.svg").contains("<polyline"));
    assert!(run("schedule", &["--lr", "0"]).unwrap_err().contains("--lr"));
}
