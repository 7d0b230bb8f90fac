//! `classify`: what a model says of photos, before any conversion.

use crate::data::to_planes;
use crate::options::open_model;
use crate::train;
use anyhow::Context;
use artifact::text::AsPlain;
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use network::checkpoint::Checkpoint;
use network::imagenet;
use page::terminal::{Output, Voice, describe};
use runtime::classify::{Score, top_k};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use zoo::Head;

/// Most classes printed for a picture.
pub(crate) const MAX_TOP: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct Classify {
    /// Pictures.
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,
    /// Model: a checkpoint (.mpk), a KerasHub preset (directory or name), a PyTorch state dict,
    /// hf://owner/name or kaggle://owner/model/framework/variation.
    #[arg(long, alias = "model", value_name = "MODEL")]
    preset: PathBuf,
    /// Classes to print, likeliest first.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    top: u8,
    #[command(flatten)]
    pub(crate) voice: Voice,
}

/// One class of one picture.
#[derive(Debug, Serialize)]
struct Class<'a> {
    /// WordNet id, for ImageNet's classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    wnid: Option<&'a str>,
    name: &'a str,
    /// The model's output.
    score: f32,
    /// Softmax of the scores.
    probability: f32,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<Class<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Classifies the photos; status 2 where one of them cannot be read.
pub(crate) fn run(args: &Classify, out: &mut Output<'_>) -> anyhow::Result<u8> {
    let checkpoint = open_model(&args.preset, Head::Required)?;
    let names = names(&checkpoint);
    let answers = answers(&checkpoint, &names, &args.photos, args.top.into())?;
    if out.is_json() {
        out.json(&serde_json::to_string_pretty(&answers).context("cannot write JSON")?)?;
    } else {
        answers.iter().try_for_each(|answer| print(answer, out.answer()))?;
    }
    Ok(if answers.iter().any(|a| a.error.is_some()) { 2 } else { 0 })
}

/// Prints the `top` classes of each photo; returns them as JSON.
pub(crate) fn photos(
    checkpoint: &Checkpoint,
    photos: &[PathBuf],
    top: usize,
    out: &mut dyn Write,
) -> anyhow::Result<serde_json::Value> {
    let names = names(checkpoint);
    let answers = answers(checkpoint, &names, photos, top)?;
    answers.iter().try_for_each(|answer| print(answer, out))?;
    Ok(serde_json::to_value(answers)?)
}

/// WordNet id, for ImageNet's classes, and name of each class: the guide's
/// `decode_predictions`.
fn names(checkpoint: &Checkpoint) -> Vec<(Option<&str>, &str)> {
    match checkpoint.labels == imagenet::labels() {
        true => imagenet::classes().map(|(wnid, name)| (Some(wnid), name)).collect(),
        false => checkpoint.labels.iter().map(|name| (None, name.as_str())).collect(),
    }
}

fn answers<'a>(
    checkpoint: &Checkpoint,
    names: &[(Option<&'a str>, &'a str)],
    photos: &[PathBuf],
    top: usize,
) -> anyhow::Result<Vec<Answer<'a>>> {
    let device = Device::flex();
    let net = train::network(checkpoint, &device)?;
    let answer = |photo: &PathBuf| {
        let file = photo.display().to_string();
        match scores(checkpoint, &net, photo, top, &device) {
            Ok(scores) => {
                let class = |s: &Score| {
                    let (wnid, name) = names.get(s.index).copied().unwrap_or((None, ""));
                    Class { wnid, name, score: s.logit, probability: s.probability }
                };
                Answer { file, classes: Some(scores.iter().map(class).collect()), error: None }
            }
            Err(e) => Answer { file, classes: None, error: Some(describe(&e)) },
        }
    };
    Ok(photos.iter().map(answer).collect())
}

fn scores(
    checkpoint: &Checkpoint,
    net: &crate::net::Network,
    photo: &Path,
    top: usize,
    device: &Device,
) -> anyhow::Result<heapless::Vec<Score, MAX_TOP>> {
    let picture = picture::open(photo)?;
    let p = &checkpoint.preprocess;
    let (height, width) = (usize::from(p.height), usize::from(p.width));
    let mut x = vec![0.0; p.channels() * height * width];
    to_planes(p, picture.view()?, &mut x);
    let shape = [1, p.channels(), height, width];
    let x = Tensor::<4>::from_data(TensorData::new(x, shape), device);
    let logits: Vec<f32> = net.forward(x).into_data().iter::<f32>().collect();
    Ok(top_k(logits.into_iter(), top))
}

fn print(answer: &Answer<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    if let Some(error) = &answer.error {
        return writeln!(out, "{}: {}", answer.file.plain(), error.plain());
    }
    writeln!(out, "{}", answer.file.plain())?;
    let classes = answer.classes.as_deref().unwrap_or_default();
    let width = classes.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    for c in classes {
        let wnid = c.wnid.map_or(String::new(), |w| format!("{w}  "));
        let name = c.name.plain();
        let percent = 100.0 * c.probability;
        writeln!(out, "  {wnid}{name:width$}  {:8.3}  {percent:5.1} %", c.score)?;
    }
    Ok(())
}
