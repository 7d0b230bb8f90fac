//! What the programs say of themselves: examples that can be pasted, man pages, completions.

#[expect(dead_code, reason = "its `main` is for the command line")]
#[path = "../examples/manuals.rs"]
mod manuals;

use clap::Command;
use std::path::Path;

/// The commands below `command`, and it.
fn all(command: &Command) -> Vec<&Command> {
    command.get_subcommands().flat_map(all).chain([command]).collect()
}

#[test]
fn examples_parse_and_name_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for program in manuals::programs() {
        for command in all(&program).into_iter().filter(|c| c.get_name() != "serve") {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name}"));
            let is_ours = |line: &&str| line.trim().starts_with(program.get_name());
            let examples: Vec<&str> = examples.lines().filter(is_ours).collect();
            assert!(!examples.is_empty(), "{name}");
            for example in examples {
                let mut words: Vec<&str> = example.split_whitespace().collect();
                // What the file says.
                words.extend(example.contains("--config").then_some("--data=photos"));
                if let Err(error) = program.clone().try_get_matches_from(&words) {
                    assert!(!error.use_stderr(), "{example}: {error}");
                }
                for word in words
                    .iter()
                    .filter(|w| ["samples/", "models/"].iter().any(|s| w.starts_with(s)))
                {
                    assert!(root.join(word).exists(), "{example}: no {word}");
                }
            }
        }
    }
}

#[test]
fn each_program_has_pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    manuals::write(dir.path()).unwrap();
    for (file, said) in [
        ("trainer-finetune.1", "label\\-smoothing"),
        ("convert.1", "float\\-layers"),
        ("convert-inspect.1", "json"),
        ("edge-classify.1", "csv"),
        ("trainer.bash", "--config"),
        ("_convert", "--max-drop"),
        ("edge-classify.fish", "quiet"),
    ] {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(text.contains(said), "{file}: {text}");
    }
}
