//! Tables that show what is in a model and what it costs.

use crate::optimize::optimize;
use crate::quantize::describe_means;
use artifact::layout::{activation_bytes, has_columns};
use artifact::text::AsPlain;
use artifact::{Artifact, Clamp, Header, Op, Place, Shape};
use core::fmt::Write;
use network::architecture::Architecture;
use network::checkpoint::{Assumption, Checkpoint, Validation};
use network::graph::Graph;
use network::model::FloatModel;
use serde_json::{Value, json};

/// An architecture's optimized layers, of zeros.
fn layers(config: &Architecture, input: Shape) -> Option<Graph> {
    let mut graph = config.blueprint().graph(input, |_, len| Ok(vec![0.0; len])).ok()?;
    optimize(&mut graph);
    Some(graph)
}

fn shape(place: Place) -> String {
    let s = place.shape;
    format!("{}×{}×{}", s.h, s.w, s.c)
}

/// The layers' names where the architecture is a known one, for [`edge_table`]; else none.
pub fn layer_names(artifact: &Artifact<'_>) -> Vec<String> {
    let meta = artifact.meta();
    let layers = Architecture::by_name(meta.name, meta.label_count as usize)
        .and_then(|config| layers(&config, meta.input.shape));
    let mut nodes = layers.iter().flat_map(|graph| graph.nodes.iter().skip(1));
    let mut names = Vec::new();
    for op in artifact.ops() {
        if matches!(op, Op::Cast(_)) {
            names.push(String::new());
            continue;
        }
        match nodes.next() {
            Some(node) if node.shape.c == op.output().shape.c => names.push(node.name.clone()),
            _ => return Vec::new(),
        }
    }
    if nodes.next().is_some() { Vec::new() } else { names }
}

/// Operators with shapes, bytes and multiply-accumulates, then the map of the arena:
/// what lies where while each operator runs.
///
/// `names` are the operators' layer names, where they are known. Casts have no number: a layer's is
/// the same with and without.
pub fn edge_table(artifact: &Artifact<'_>, names: &[&str]) -> String {
    let header = artifact.header();
    let meta = artifact.meta();
    let mut out = String::new();
    let labels: Vec<&str> = artifact.labels().take(5).collect();
    let more = if meta.label_count > 5 { ", …" } else { "" };
    let _ = writeln!(
        out,
        "{}: {:?}, panels of {}, input {}, {} classes ({}{more})",
        meta.name.plain(),
        header.dtype,
        header.nr,
        shape(meta.input),
        meta.label_count,
        labels.join(", ").plain(),
    );
    for (what, text) in
        [("data set", meta.dataset), ("metrics", meta.metrics), ("made by", meta.tool)]
    {
        if !text.is_empty() {
            let _ = writeln!(out, "{what}: {}", text.plain());
        }
    }
    let width = names.iter().map(|n| n.len()).max().unwrap_or(0);
    let _ = writeln!(
        out,
        "\n{:>3}  {:width$}  {:<11} {:>14} {:>14} {:>8} {:>10} {:>12}  arena bytes",
        "#", "", "operator", "input", "output", "filter", "weights B", "MACs"
    );
    let mut numbers = 0..;
    for (i, op) in artifact.ops().enumerate() {
        let number = match op {
            Op::Cast(_) => String::new(),
            _ => numbers.next().map_or(String::new(), |number: usize| number.to_string()),
        };
        let name = names.get(i).copied().unwrap_or("");
        let name = name.plain();
        let _ = writeln!(out, "{number:>3}  {name:width$}  {}", edge_row(header, &op));
    }
    let weights: u32 = artifact.ops().map(|op| op.weight_bytes()).sum();
    let macs: u64 = artifact.ops().map(|op| op.macs()).sum();
    let _ = writeln!(
        out,
        "\nfile {} bytes (weights {weights}), arena {} bytes, {macs} multiply-accumulates a picture",
        header.file_len(),
        header.arena_len,
    );
    if let Some(known) = artifact.known() {
        let _ = writeln!(
            out,
            "unknown pictures: farther than {} from {}, usually {}",
            known.threshold,
            describe_means(
                known.rows.into(),
                known.features.shape.c.into(),
                (known.means.len + known.weights.len) as usize,
            ),
            known.usual,
        );
    }
    out
}

/// A shape as JSON has it.
fn hwc(s: Shape) -> [u16; 3] {
    [s.h, s.w, s.c]
}

/// What [`edge_table`] shows, for machines.
pub fn edge_facts(artifact: &Artifact<'_>, names: &[&str]) -> Value {
    let (header, meta) = (artifact.header(), artifact.meta());
    let operators = artifact.ops().enumerate().map(|(i, op)| {
        json!({
            "name": names.get(i).filter(|name| !name.is_empty()),
            "operator": op.name(),
            "input": hwc(op.input().shape),
            "output": hwc(op.output().shape),
            "weight_bytes": op.weight_bytes(),
            "macs": op.macs(),
        })
    });
    let known = artifact.known().map(|known| {
        json!({
            "means": known.rows,
            "features": known.features.shape.c,
            "bytes": known.means.len + known.weights.len,
            "threshold": known.threshold,
            "usual": known.usual,
        })
    });
    json!({
        "name": meta.name,
        "dtype": format!("{:?}", header.dtype),
        "panel": header.nr,
        "input": hwc(meta.input.shape),
        "labels": artifact.labels().collect::<Vec<_>>(),
        "data_set": meta.dataset,
        "metrics": meta.metrics,
        "made_by": meta.tool,
        "file_bytes": header.file_len(),
        "arena_bytes": header.arena_len,
        "weight_bytes": artifact.ops().map(|op| op.weight_bytes()).sum::<u32>(),
        "macs": artifact.ops().map(|op| op.macs()).sum::<u64>(),
        "known": known,
        "operators": operators.collect::<Vec<_>>(),
    })
}

/// What [`graph_table`] shows, for machines.
pub fn graph_facts(model: &FloatModel) -> Value {
    let graph = &model.graph;
    let layers = graph.nodes.iter().map(|node| {
        let quant = node.quant.map(|q| json!({"scale": q.scale, "zero_point": q.zero_point}));
        json!({
            "name": node.name,
            "operator": node.op.name(),
            "output": hwc(node.shape),
            "quant": quant,
        })
    });
    json!({
        "name": graph.name,
        "input": hwc(graph.input_shape()),
        "labels": model.labels,
        "parameters": graph.parameters(),
        "macs": graph.macs(),
        "layers": layers.collect::<Vec<_>>(),
        "notes": model.notes,
    })
}

/// What [`checkpoint_table`] shows, for machines.
pub fn checkpoint_facts(c: &Checkpoint) -> Value {
    let (p, t) = (&c.preprocess, &c.training);
    let tensors = c.tensors.iter().map(|(name, t)| json!({"name": name, "shape": t.shape}));
    json!({
        "architecture": c.config.name,
        "input": [usize::from(p.height), usize::from(p.width), p.channels()],
        "labels": c.labels,
        "numbers": c.numbers(),
        "samples": c.samples.len(),
        "assumed": Assumption::line(&c.assumed),
        "data_set": t.dataset,
        "fingerprint": t.fingerprint,
        "seed": t.seed,
        "started_from": t.base,
        "validated_on": t.validation.to_string(),
        "options": t.options,
        "epochs": t.epochs,
        "tensors": tensors.collect::<Vec<_>>(),
    })
}

/// An operator in [`edge_table`], without number and name.
fn edge_row(header: &Header, op: &Op) -> String {
    let text = |[[rows, columns], [stride, _]]: [[u16; 2]; 2]| format!("{rows}×{columns}/{stride}");
    let output = op.output();
    let dtype = output.dtype(header.dtype);
    let lines = op.lines();
    let kept = Shape { h: if lines > 0 { lines } else { output.shape.h }, ..output.shape };
    let end = output.offset as usize + activation_bytes(kept, dtype, header.nr).unwrap_or_default();
    let turns = match lines {
        0 => String::new(),
        lines => format!(" {lines} lines at a time"),
    };
    let in_place = op.operands().into_iter().flatten().any(|p| p.offset == output.offset);
    format!(
        "{:<11} {:>14} {:>14} {:>8} {:>10} {:>12}  {}..{end}{}{}{}{}{turns}{}",
        op.name(),
        shape(op.input()),
        shape(output),
        op.window().map_or(String::new(), text),
        op.weight_bytes(),
        op.macs(),
        output.offset,
        if in_place { " in place" } else { "" },
        if op.residual().is_some() { " +r" } else { "" },
        match op.clamp() {
            Clamp::None => String::new(),
            Clamp::Relu => " relu".into(),
            Clamp::Bounds { low, high } => format!(" clamp {low}..{high}"),
        },
        if op.scratch().is_some() && !has_columns(dtype, header.nr) { " winograd" } else { "" },
        if dtype == header.dtype || matches!(op, Op::Cast(_)) { "" } else { " in floats" },
    )
}

/// The layers of a model that is no checkpoint.
pub fn graph_table(model: &FloatModel) -> String {
    let graph = &model.graph;
    let text = |s: Shape| format!("{}×{}×{}", s.h, s.w, s.c);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}: {} layers, {} parameters, {} multiply-accumulates, input {}",
        graph.name.plain(),
        graph.nodes.len() - 1,
        graph.parameters(),
        graph.macs(),
        text(graph.input_shape()),
    );
    let _ = writeln!(out, "labels: {}", model.labels.join(", ").plain());
    for node in &graph.nodes {
        let quant = node.quant.map_or(String::new(), |q| {
            format!("  int8 in steps of {}, zero at {}", q.scale, q.zero_point)
        });
        let name = node.name.plain().to_string();
        let _ =
            writeln!(out, "  {name:<40} {:<11} {:>12}{quant}", node.op.name(), text(node.shape));
    }
    out
}

/// Architecture, labels, tensors and training record of a checkpoint.
pub fn checkpoint_table(c: &Checkpoint) -> String {
    let mut out = String::new();
    let parameters = c.numbers();
    let p = &c.preprocess;
    let _ = writeln!(
        out,
        "{}: {} tensors, {parameters} numbers, input {}×{}×{} ({:?}, {:?}), {} calibration samples",
        c.config.name.plain(),
        c.tensors.len(),
        p.height,
        p.width,
        p.channels(),
        p.fit,
        p.interpolation,
        c.samples.len(),
    );
    if let Some(line) = Assumption::line(&c.assumed) {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "labels: {}", c.labels.join(", ").plain());
    let t = &c.training;
    if !t.dataset.is_empty() {
        let _ = writeln!(
            out,
            "data set: {} (fingerprint {}), seed {}",
            t.dataset.plain(),
            t.fingerprint.plain(),
            t.seed
        );
    }
    if !t.base.is_empty() {
        let _ = writeln!(out, "started from: {}", t.base.plain());
    }
    if t.validation != Validation::Unknown {
        let _ = writeln!(out, "validated on: {}", t.validation.to_string().plain());
    }
    for (key, value) in &t.options {
        let _ = writeln!(out, "  --{} {}", key.plain(), value.plain());
    }
    for e in &t.epochs {
        let val =
            e.val_accuracy.map_or(String::new(), |a| format!("  validation {:.2} %", a * 100.0));
        let _ = writeln!(
            out,
            "  epoch {:>3}: loss {:.4}, training {:.2} %{val}",
            e.epoch,
            e.train_loss,
            e.train_accuracy * 100.0
        );
    }
    for (name, tensor) in &c.tensors {
        let _ = writeln!(out, "  {:40} {:?}", name.plain(), tensor.shape);
    }
    out
}
