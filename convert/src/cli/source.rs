//! The model and the pictures that are named.

use crate::optimize::optimize;
use crate::pipeline::{Converted, Options, with_floats};
use crate::quantize::{Method, Rate, tell_unknown};
use anyhow::{Context, Result, anyhow, bail};
use artifact::Preprocess;
use artifact::meta::MAX_LABEL_BYTES;
use artifact::text::AsPlain;
use clap::{Args, ValueEnum};
use dataset::samples::{normalize, stored_samples};
use dataset::{CacheSize, Dataset, ReadOptions};
use hub::Reference;
use network::checkpoint::Assumption;
use network::graph::{Graph, ValueId};
use network::model::FloatModel;
use network::nearest::suggestion;
use page::progress::Counter;
use page::terminal::{Output, Role};
use std::io::Write;
use std::path::{Path, PathBuf};
use zoo::{Head, Hints, Imported};

/// What a model does not say itself.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Class names in index order, one per line, for a model that brings none
    #[arg(long, value_name = "FILE")]
    pub(super) labels: Option<PathBuf>,
    #[command(flatten)]
    pub(super) hints: Hints,
    /// Mean of the training pictures, red, green and blue in 0..1, or one number: pictures are
    /// prepared as (v / 255 − mean) / std instead of as the model says
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    pub(super) mean: Option<Vec<f32>>,
    /// Their standard deviation; 0.00392157 (1/255) with a mean of 0 leaves values 0 to 255
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub(super) std: Option<Vec<f32>>,
}

/// What int8 is measured on, and how.
#[derive(Debug, Args)]
pub(super) struct Calibration {
    /// Pictures to measure int8 ranges on: any folder that `trainer` reads, or pictures without
    /// classes; the samples stored in the checkpoint where left out
    #[arg(long, value_name = "DIR")]
    pub(super) calibration: Option<PathBuf>,
    /// Most calibration pictures
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(super) calibration_pictures: usize,
    /// How int8 ranges follow from what was measured
    #[arg(long, value_enum, default_value_t = MethodArg::Auto)]
    pub(super) calibration_method: MethodArg,
    /// Round int8 weights so that layers' outputs change least on the calibration pictures, not so
    /// that each weight does; kept where it brings the logits closer. Takes minutes for large models;
    /// small ones with depthwise convolutions have it anyway
    #[arg(long)]
    pub(super) adaptive_rounding: bool,
    /// Layers of an int8 model to compute in floats, with f16 weights: names or numbers (#) of the
    /// table, which `convert inspect` prints, too; comma between
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    float_layers: Vec<String>,
    /// Let the device tell pictures that are like none of the calibration pictures: by statistics of their
    /// features, so that about this share of pictures like them counts as unknown, such as 1%
    #[arg(long, value_name = "RATE")]
    unknown: Option<Rate>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum MethodArg {
    /// For each activation the one of these that changes the logits least (mse for large networks)
    Auto,
    /// Smallest mean squared error
    Mse,
    /// Smallest to largest value
    MinMax,
    /// All but 0.01 % of the values
    Percentile,
    /// Smallest Kullback–Leibler divergence
    Entropy,
}

/// Refuses a file or folder that is not there.
pub(super) fn check_exists(option: &str, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::metadata(path).map(drop).with_context(|| format!("{option} {}", path.display()))
}

impl Calibration {
    /// Refuses pictures that are not there.
    pub(super) fn check(&self) -> Result<()> {
        check_exists("--calibration", self.calibration.as_deref())
    }

    pub(super) fn method(&self) -> Method {
        match self.calibration_method {
            MethodArg::Auto => Method::Auto,
            MethodArg::Mse => Method::Mse,
            MethodArg::MinMax => Method::MinMax,
            MethodArg::Percentile => Method::Percentile,
            MethodArg::Entropy => Method::Entropy,
        }
    }

    /// The nodes that `--float-layers` names.
    fn float_nodes(&self, graph: &Graph) -> Result<Vec<ValueId>> {
        let find = |name: &String| {
            let by_name = graph.nodes.iter().skip(1).position(|n| n.name == *name);
            let by_number = || name.parse().ok().filter(|number| *number < graph.nodes.len() - 1);
            by_name.or_else(by_number).map(|layer| layer + 1).with_context(|| {
                let names: Vec<&str> =
                    graph.nodes.iter().skip(1).map(|n| n.name.as_str()).collect();
                format!(
                    "--float-layers: no layer `{}`{}; there are 0 to {}: {}",
                    name.plain(),
                    suggestion(name, &names).plain(),
                    names.len() - 1,
                    names.join(", ").plain()
                )
            })
        };
        self.float_layers.iter().map(find).collect()
    }

    /// Refuses layers that there are not, before anything is measured.
    pub(super) fn check_layers(&self, model: &FloatModel) -> Result<()> {
        if self.float_layers.is_empty() {
            return Ok(());
        }
        let mut graph = model.graph.clone();
        optimize(&mut graph);
        self.float_nodes(&graph).map(drop)
    }

    /// Gives the device file what it tells unknown pictures by, where that is asked for, and says what came of
    /// it in the lines that are returned.
    pub(super) fn with_unknown(
        &self,
        converted: &mut Converted,
        pictures: &[Vec<f32>],
        model: &FloatModel,
        out: &mut Output<'_>,
    ) -> Result<Vec<String>> {
        let Some(rate) = self.unknown else { return Ok(Vec::new()) };
        if converted.int8.is_none() {
            let note = "--unknown is for int8: this file tells no unknown pictures";
            out.note(Role::Warning, note)?;
            return Ok(vec![note.into()]);
        }
        let counter = Counter::new("measuring what is known");
        let progress = |done, total| counter.show(done, total);
        let (bytes, unknown) = tell_unknown(&converted.emitted.bytes, pictures, rate, progress)?;
        drop(counter);
        converted.emitted.bytes = bytes;
        let mut lines = vec![unknown.text()];
        writeln!(out, "{}", lines[0])?;
        for warning in unknown.warnings(&model.labels) {
            let warning = warning.plain().to_string();
            out.note(Role::Warning, &warning)?;
            lines.push(warning);
        }
        out.tell("unknown", &unknown)?;
        Ok(lines)
    }

    /// What was converted, with the layers in floats that are asked for.
    pub(super) fn with_float_layers(
        &self,
        converted: Converted,
        model: &FloatModel,
        options: Options,
    ) -> Result<Converted> {
        let nodes = self.float_nodes(&converted.graph)?;
        if nodes.is_empty() {
            return Ok(converted);
        }
        let Some(int8) = &converted.int8 else { bail!("--float-layers is for int8 models") };
        if converted.has_floats() {
            bail!(
                "--float-layers: the model leaves layers in floats itself; with --calibration those \
                 become int8, and only what is named here stays in floats"
            );
        }
        Ok(with_floats(&converted.graph, int8, &nodes, model, options)?)
    }
}

/// Opens a model; what `source` says goes before what the file does. What neither says is named.
pub(super) fn open_model(path: &Path, source: &Source, out: &mut Output<'_>) -> Result<Imported> {
    Ok(match zoo::open_any(path, Head::Required, &source.hints)? {
        Imported::Checkpoint(found) => {
            let mut draft = found.into_draft();
            source.tell(&mut draft.labels, &mut draft.preprocess)?;
            if source.mean.is_some() || source.std.is_some() {
                draft.assumed.retain(|a| a.option != Assumption::STATISTICS);
            }
            if let Some(line) = Assumption::line(&draft.assumed) {
                let path = path.display().to_string();
                out.note(Role::Warning, &format!("{}: {line}", path.plain()))?;
            }
            let checkpoint = draft.check().map_err(|e| anyhow!("{}: {e}", path.display()))?;
            Imported::Checkpoint(Box::new(checkpoint))
        }
        Imported::Graph(mut model) => {
            source.tell(&mut model.labels, &mut model.preprocess)?;
            Imported::Graph(model)
        }
    })
}

impl Source {
    /// Refuses labels that are not there.
    pub(super) fn check(&self) -> Result<()> {
        check_exists("--labels", self.labels.as_deref())
    }

    /// Replaces what the user says.
    fn tell(&self, labels: &mut Vec<String>, preprocess: &mut Preprocess) -> Result<()> {
        if let Some(file) = &self.labels {
            *labels = read_labels(file, labels.len())?;
        }
        if self.mean.is_some() || self.std.is_some() {
            let [zeros, ones] = [[0.0; 3], [1.0; 3]];
            let (mean, std) = (rgb(&self.mean, zeros)?, rgb(&self.std, ones)?);
            let Preprocess { scale, offset, .. } =
                Preprocess::normalized(preprocess.height, preprocess.width, mean, std);
            *preprocess = Preprocess { scale, offset, ..*preprocess };
            if !preprocess.is_valid() {
                bail!("--mean {mean:?} and --std {std:?} give no finite numbers");
            }
        }
        Ok(())
    }
}

/// The float model of either kind; says where its preprocessing is a guess.
pub(super) fn float_model(
    imported: &Imported,
    path: &Path,
    source: &Source,
    out: &mut Output<'_>,
) -> Result<FloatModel> {
    let model = imported.to_float_model().with_context(|| path.display().to_string())?;
    for note in &model.notes {
        out.note(Role::Warning, &format!("{}: {note}", path.display().to_string().plain()))?;
    }
    if model.is_preprocess_assumed && source.mean.is_none() && source.std.is_none() {
        let p = model.preprocess;
        let taken = match ((p.scale, p.offset) == ([1.0; 3], [0.0; 3]), p.grey) {
            (true, _) => "values 0 to 255 as they are",
            (false, true) => "grey from 0 to 1",
            (false, false) => "ImageNet's mean and deviation",
        };
        let note = format!(
            "{} does not say how pictures are prepared: taken for {taken}; --mean and --std are \
             for others",
            path.display().to_string().plain()
        );
        out.note(Role::Warning, &note)?;
    }
    Ok(model)
}

/// The input's name with `.edge`; beside it where it is a file or folder, here where it is a
/// hub's.
pub(super) fn default_output(input: &Path) -> PathBuf {
    match Reference::of(input) {
        Ok(Some(model)) => format!("{}.edge", model.model_name()).into(),
        _ => input.with_extension("edge"),
    }
}

/// Reads a file of class names; empty lines at the end do not count.
fn read_labels(file: &Path, classes: usize) -> Result<Vec<String>> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(name)?;
    let labels: Vec<String> = text.trim_end().lines().map(|l| l.trim().to_owned()).collect();
    if labels.len() != classes {
        bail!("{}: {} names, but the model has {classes} classes", name(), labels.len());
    }
    if let Some(at) = labels.iter().position(|l| l.is_empty() || l.len() > MAX_LABEL_BYTES) {
        bail!("{}: line {} is empty or longer than {MAX_LABEL_BYTES} bytes", name(), at + 1);
    }
    Ok(labels)
}

/// Three numbers, or one for all channels.
fn rgb(numbers: &Option<Vec<f32>>, default: [f32; 3]) -> Result<[f32; 3]> {
    match numbers.as_deref() {
        None => Ok(default),
        Some(&[all]) => Ok([all; 3]),
        Some(&[r, g, b]) => Ok([r, g, b]),
        Some(other) => bail!("{other:?}, but one number or three are wanted"),
    }
}

/// Normalized pictures to measure on.
pub(super) fn calibration_pictures(
    args: &Calibration,
    model: &FloatModel,
    out: &mut Output<'_>,
) -> Result<Vec<Vec<f32>>> {
    let Some(dir) = &args.calibration else {
        let mut samples = stored_samples(&model.samples, &model.preprocess)?;
        samples.truncate(args.calibration_pictures);
        return Ok(samples);
    };
    let options = ReadOptions {
        preprocess: model.preprocess,
        val_split: 0.0,
        seed: model.training.seed,
        classes: None,
        cache: CacheSize::Auto,
    };
    let counter = Counter::new("reading pictures");
    let data = Dataset::read_unlabelled(dir, &options, &|done, total| counter.show(done, total))?;
    drop(counter);
    for note in data.notes() {
        out.note(Role::Warning, &note.plain().to_string())?;
    }
    let chosen = data.train.stratified(args.calibration_pictures, options.seed);
    let picture = |i: &usize| Ok(normalize(&data.train.get(*i)?, &model.preprocess));
    chosen.iter().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::default_output;
    use std::path::Path;

    #[test]
    fn models_of_hubs_are_converted_to_here() {
        for (input, output) in [
            ("runs/best.mpk", "runs/best.edge"),
            ("hf://timm/resnet18.a1_in1k", "resnet18.a1_in1k.edge"),
            ("kaggle://keras/resnet/keras/resnet_18_imagenet/2", "resnet_18_imagenet.edge"),
            ("resnet_18_imagenet", "resnet_18_imagenet.edge"),
        ] {
            assert_eq!(default_output(Path::new(input)), Path::new(output));
        }
    }
}
