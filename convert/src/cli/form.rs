//! What is written, and which options mean something to it: what an output would ignore is refused
//! by name, before anything is done.

use super::{check_ending, ends_in};
use crate::pipeline::Quantize;
use Form::{Checkpoint, Edge, Onnx, Preset, StateDict};
use anyhow::{Result, ensure};
use std::path::Path;

/// A kind of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The device file.
    Edge,
    /// For other engines.
    Onnx,
    /// The weights as they are, with all that is known of them.
    Checkpoint,
    /// The weights as PyTorch names them.
    StateDict,
    /// The weights as KerasHub keeps them.
    Preset,
}

const COMPUTED: &[Form] = &[Edge, Onnx];

/// Options that not all outputs heed: the forms that do, and whether only as int8.
const LIMITED: &[(&str, &[Form], bool)] = &[
    ("quantize", COMPUTED, false),
    ("no-winograd", &[Edge], false),
    ("fixed-point", &[Edge], true),
    ("target", &[Edge], false),
    ("board", &[Edge], false),
    ("boards", &[Edge], false),
    ("ram", &[Edge], false),
    ("flash", &[Edge], false),
    ("onnx-integers", &[Onnx], true),
    ("labels", &[Edge, Onnx, Checkpoint, StateDict], false),
    ("calibration", COMPUTED, true),
    ("calibration-pictures", COMPUTED, true),
    ("calibration-method", COMPUTED, true),
    ("adaptive-rounding", COMPUTED, true),
    ("float-layers", COMPUTED, true),
    ("unknown", &[Edge], true),
    ("eval", COMPUTED, false),
    ("max-drop", COMPUTED, true),
    ("min-accuracy", COMPUTED, false),
];

impl Form {
    /// That of `output`.
    ///
    /// # Errors
    /// Endings that are not written.
    pub(super) fn of(output: &Path, is_preset: bool) -> Result<Self> {
        if is_preset {
            return Ok(Preset);
        }
        let endings = [Edge, Onnx, Checkpoint, StateDict];
        check_ending(output, &endings.map(|form| &form.name()[1..]))?;
        let is = |form: &Self| ends_in(output, &form.name()[1..]);
        Ok(endings.into_iter().find(is).unwrap_or(Edge))
    }

    /// Whether it is computed of the weights, which the others hold as they are.
    pub(super) fn is_computed(self) -> bool {
        COMPUTED.contains(&self)
    }

    /// How it is asked for.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Edge => ".edge",
            Onnx => ".onnx",
            Checkpoint => ".mpk",
            StateDict => ".safetensors",
            Preset => "--keras-preset",
        }
    }

    /// Refuses the first of the options `given` that an output of this form and number format
    /// would ignore.
    pub(super) fn check(self, given: &[String], quantize: Quantize) -> Result<()> {
        for &(option, forms, only_int8) in LIMITED {
            if !given.iter().any(|name| name == option) {
                continue;
            }
            let others: Vec<&str> = forms.iter().map(|form| form.name()).collect();
            ensure!(
                forms.contains(&self),
                "--{option} means nothing to {}; leave it out, or write {}",
                self.name(),
                others.join(" or ")
            );
            ensure!(
                !only_int8 || quantize == Quantize::Int8,
                "--{option} is for int8; leave it out, or pass --quantize int8"
            );
        }
        ensure!(
            (self, quantize) != (Onnx, Quantize::Bf16),
            "ONNX has no weights in bf16; use --quantize fp16"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::convert::convert_file;
    use crate::cli::{Cli, parse};
    use clap::CommandFactory;
    use page::terminal::{Output, Voice};

    /// What converting a file that is not there says.
    fn refusal(args: &[&str]) -> String {
        let args =
            ["convert", "missing.mpk"].iter().chain(args).map(Into::into).collect::<Vec<_>>();
        let (cli, given) = parse(&args).unwrap();
        let mut nowhere = std::io::sink();
        let out = &mut Output::new(&mut nowhere, Voice::default());
        convert_file(&cli.convert, &given, out).unwrap_err().to_string()
    }

    #[test]
    fn what_an_output_would_ignore_is_refused_before_anything_is_done() {
        const ALL: &str = "edge onnx mpk safetensors preset";
        let options = [
            ("--quantize fp16", "edge onnx"),
            ("--no-winograd", "edge"),
            ("--target host", "edge"),
            ("--board pico", "edge"),
            ("--boards boards.toml --board pico", "edge"),
            ("--ram 32K", "edge"),
            ("--flash 32K", "edge"),
            ("--fixed-point --quantize int8", "edge"),
            ("--onnx-integers --quantize int8", "onnx"),
            ("--labels Cargo.toml", "edge onnx mpk safetensors"),
            ("--input-size 32", ALL),
            ("--stem-pool", ALL),
            ("--stem-stride 1", ALL),
            ("--stack-strides 1,2", ALL),
            ("--bottleneck-stride 1x1", ALL),
            ("--state-dict model", ALL),
            ("--output-node y", ALL),
            ("--channels bgr", ALL),
            ("--mean 0", ALL),
            ("--std 1", ALL),
            ("--calibration . --quantize int8", "edge onnx"),
            ("--calibration-pictures 9 --quantize int8", "edge onnx"),
            ("--calibration-method mse --quantize int8", "edge onnx"),
            ("--adaptive-rounding --quantize int8", "edge onnx"),
            ("--float-layers 1 --quantize int8", "edge onnx"),
            ("--unknown 1% --quantize int8", "edge"),
            ("--no-verify", ALL),
            ("--eval .", "edge onnx"),
            ("--max-drop 1 --eval . --quantize int8", "edge onnx"),
            ("--min-accuracy 1 --eval .", "edge onnx"),
        ];
        for argument in Cli::command().get_arguments().filter_map(|a| a.get_long()) {
            let known = |(option, _): &(&str, _)| option[2..].split(' ').next() == Some(argument);
            let is_form = ["output", "keras-preset", "config", "quiet", "json", "help", "version"]
                .contains(&argument);
            assert!(is_form || options.iter().any(known), "--{argument}: which forms heed it?");
        }
        for (option, forms) in options {
            let option: Vec<&str> = option.split(' ').collect();
            for form in ALL.split(' ') {
                let file = format!("m.{form}");
                let mut output = vec!["-o", &file];
                output.extend((form == "preset").then_some("--keras-preset"));
                let said = refusal(&[&option[..], &output].concat());
                let is_heeded = forms.split(' ').any(|heeding| heeding == form);
                assert_eq!(said.contains("missing.mpk"), is_heeded, "{option:?}, {form}: {said}");
                assert_eq!(said.contains(" means nothing to "), !is_heeded, "{said}");
                if is_heeded && option.ends_with(&["--quantize", "int8"]) {
                    let floats = [&option[..option.len() - 1], &["none"], &output].concat();
                    let said = refusal(&floats);
                    assert!(said.starts_with(option[0]) && said.contains("is for int8"), "{said}");
                }
            }
        }
    }

    #[test]
    fn refusals_name_the_remedy() {
        for (args, want) in [
            (
                "-o m.mpk --eval d",
                "--eval means nothing to .mpk; leave it out, or write .edge or .onnx",
            ),
            ("-o m.onnx --ram 9K", "--ram means nothing to .onnx; leave it out, or write .edge"),
            (
                "-o m.onnx --calibration d",
                "--calibration is for int8; leave it out, or pass --quantize int8",
            ),
            (
                "--target cortex-m --quantize fp16",
                "microcontrollers have no kernels for files of F16; use --quantize int8, with --float-layers or --max-drop for layers that it hurts, or leave --target out",
            ),
            ("-o m.onnx --quantize bf16", "ONNX has no weights in bf16; use --quantize fp16"),
        ] {
            assert_eq!(refusal(&args.split(' ').collect::<Vec<_>>()), want);
        }
    }
}
