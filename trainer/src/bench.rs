//! `bench`: the speed and the memory of training steps.
//!
//! A step is what training does with a batch: forward, cross-entropy, backward, SGD with
//! momentum; pictures are neither read nor augmented. Every step learns the same made-up batch,
//! so the loss must fall; where it does not, something is wrong and no time is reported.

use crate::layers::Layers;
use crate::memory::peak_mb;
use crate::net::{Init, Network};
use crate::options::{Backend, Machine, architecture, check_size};
use crate::train::{Optimizer, OptimizerConfig, Rule, cross_entropy, targets};
use accel::Precision;
use anyhow::{Context, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use clap::builder::PossibleValuesParser;
use core::fmt::{Display, Formatter};
use network::architecture::Architecture;
use network::random::{Rng, fnv1a};
use page::terminal::{Output, Voice};
use serde::Serialize;
use std::time::Instant;

/// Steps before the clock counts: the first ones fill caches and the allocator's lists, and the
/// optimizer has no velocity to update yet.
const WARM_UP: usize = 2;
/// Small enough for every architecture to learn a batch from its first step on.
const RATE: f64 = 0.01;
const RULE: Rule = Rule::Sgd { momentum: 0.9, nesterov: false };
/// Of weights, pictures and labels.
const SEED: u64 = 0;

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Architecture, such as resnet_8_cifar or resnet_18; with a head for CIFAR-10's 10 or for
    /// ImageNet's 1000 classes.
    #[arg(long)]
    arch: String,
    /// Input side in pixels; the architecture's own where left out.
    #[arg(long, value_name = "PIXELS")]
    size: Option<u16>,
    /// Pictures per step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Steps to measure, after two to warm up.
    #[arg(long, value_name = "N", default_value_t = 8)]
    steps: usize,
    /// Numbers that it computes with.
    #[arg(long, value_parser = crate::options::precision(), default_value_t = Precision::F32)]
    precision: Precision,
    /// Use the backend's own operators only, to compare with.
    #[arg(long)]
    stock: bool,
    /// Keep only the maps between blocks for the backward pass, and compute the others again.
    #[arg(long)]
    checkpointing: bool,
    /// Instruction set to compute with; the processor's best where left out.
    #[arg(long, value_parser = PossibleValuesParser::new(accel::instruction_sets()))]
    isa: Option<String>,
    /// Also print how long each operator takes, and how near that is to what the inner loop of
    /// convolutions reaches alone. Operators of one kind and size are one line.
    #[arg(long, conflicts_with_all = ["json", "stock"])]
    layers: bool,
    #[command(flatten)]
    pub(crate) voice: Voice,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    arch: &'a str,
    /// Side of the pictures in pixels.
    size: u16,
    batch: usize,
    steps: usize,
    threads: usize,
    backend: Backend,
    precision: Precision,
    /// The backend's own operators did it all.
    stock: bool,
    /// Maps within blocks were computed again.
    checkpointing: bool,
    /// From the median step.
    images_per_s: f64,
    step_ms: StepMs,
    /// The process's peak; none where the system does not say.
    peak_mb: Option<f64>,
}

#[derive(Debug, Serialize)]
struct StepMs {
    median: f64,
    min: f64,
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} at {}x{}, batch {}: {:.1} images/s; step median {:.1} ms, fastest {:.1} ms of {} \
             on {} thread(s) with {}{} in {}",
            self.arch,
            self.size,
            self.size,
            self.batch,
            self.images_per_s,
            self.step_ms.median,
            self.step_ms.min,
            self.steps,
            self.threads,
            if self.stock { "stock " } else { "" },
            self.backend,
            self.precision,
        )?;
        self.peak_mb.map_or(Ok(()), |mb| write!(f, "; peak memory {mb:.0} MB"))
    }
}

/// Measures and prints one line.
///
/// # Errors
/// Options out of range, and a network that does not learn.
pub(crate) fn run(args: &Bench, out: &mut Output<'_>) -> anyhow::Result<()> {
    let mut config = architecture(&args.arch)?;
    let size = args.size.unwrap_or(config.native_size());
    check_size(size)?;
    ensure!(
        (2..=4096).contains(&args.batch),
        "--batch {} is not in 2..=4096; batch statistics need at least 2",
        args.batch
    );
    ensure!(args.steps > 0, "--steps 0 measures nothing; pass at least 1");
    config.classes = config.native_classes();
    if args.stock {
        accel::disable();
    }
    if let Some(isa) = &args.isa {
        ensure!(accel::use_instruction_set(isa), "--isa {isa}: this process uses another already");
    }
    let device = args.machine.device()?;
    crate::options::check_precision(args.precision, &device)?;
    let Measured { mut ms, layers } = measure(&config, args, size, &device)?;
    ms.sort_by(f64::total_cmp);
    let step_ms = StepMs { median: ms[ms.len() / 2], min: ms[0] };
    let report = Report {
        arch: &args.arch,
        size,
        batch: args.batch,
        steps: args.steps,
        threads: rayon::current_num_threads(),
        backend: args.machine.backend,
        precision: args.precision,
        stock: !accel::supports(&device),
        checkpointing: args.checkpointing,
        images_per_s: 1e3 * args.batch as f64 / step_ms.median,
        step_ms,
        peak_mb: peak_mb(),
    };
    if out.is_json() {
        out.json(&serde_json::to_string(&report).context("cannot write JSON")?)?;
    } else {
        writeln!(out.answer(), "{report}")?;
    }
    if args.layers {
        layers.write(accel::trace::peak_gmacs(args.precision), out.answer())?;
    }
    Ok(())
}

/// What steps took after the warm-up.
struct Measured {
    /// Milliseconds of each.
    ms: Vec<f64>,
    layers: Layers,
}

/// Steps, checked to have learnt.
fn measure(
    config: &Architecture,
    args: &Bench,
    size: u16,
    device: &Device,
) -> anyhow::Result<Measured> {
    let device = device.clone().autodiff();
    let mut net = Network::new(config, Init::he(SEED), &device).map_err(anyhow::Error::msg)?;
    net.set_precision(args.precision);
    let mut optimizer = Optimizer::new(OptimizerConfig::plain(RULE));
    // As normalized pictures: mean 0, variance 1.
    let mut rng = Rng::keyed(&[SEED, fnv1a(b"bench")]);
    let shape = [args.batch, config.channels, usize::from(size), usize::from(size)];
    let pixels: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    let labels: Vec<u32> = (0..args.batch).map(|_| rng.below(config.classes) as u32).collect();
    let pictures = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
    let target = targets(&labels, config.classes, 0.0, &device);
    let (mut ms, mut losses, mut layers) = (Vec::new(), Vec::new(), Layers::default());
    if args.layers {
        accel::trace::take();
    }
    for _ in 0..args.steps.saturating_add(WARM_UP) {
        let started = Instant::now();
        let forward = net.forward_pass(pictures.clone(), args.checkpointing);
        let cost = cross_entropy(net.classify(forward.features()), target.clone());
        let mut gradients = cost.backward();
        for part in forward.backward(&net, &mut gradients) {
            optimizer.gather(&mut net, part);
        }
        optimizer.step(&mut net, gradients, RATE);
        // Waits for what the device may still compute.
        let loss = cost.into_scalar::<f32>();
        let whole = started.elapsed();
        ms.push(1e3 * whole.as_secs_f64());
        ensure!(loss.is_finite(), "{}: the loss became {loss}; no time is reported", config.name);
        losses.push(loss);
        if args.layers {
            layers.add(&accel::trace::take(), whole);
        }
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    ensure!(
        last < first,
        "{}: the loss went from {first} to {last} and should fall; no time is reported, try more \
         --steps",
        config.name
    );
    Ok(Measured { ms: ms.split_off(WARM_UP), layers })
}
