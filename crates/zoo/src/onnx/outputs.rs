//! Which output of a file is a score for each class.
//!
//! Files often give more: the features that the scores are computed of, as a map or a row, or the
//! number of the best class. What is told by names, by how each is computed, and by which is computed
//! of which decides; where that does not, the user is asked.

use artifact::text::AsPlain;
use formats::onnx as proto;
use network::nearest::suggestion;
use std::collections::{HashMap, HashSet};

/// How well an output looks like scores.
#[derive(Debug)]
struct Candidate<'a> {
    info: &'a proto::ValueInfo,
    points: i32,
}

/// The output that `wanted` names, or the one that is a score for each class.
pub(super) fn choose<'a>(
    file: &'a proto::Graph,
    wanted: Option<&str>,
    classes: Option<usize>,
) -> Result<&'a proto::ValueInfo, String> {
    let list = || {
        let names: Vec<String> = file.output.iter().map(describe).collect();
        names.join(", ")
    };
    if let Some(wanted) = wanted {
        let found = file.output.iter().find(|o| o.name == wanted);
        return found.ok_or_else(|| {
            let meant = suggestion(wanted, file.output.iter().map(|o| &o.name));
            format!("no output `{}`{}; there are {}", wanted.plain(), meant.plain(), list())
        });
    }
    match &file.output[..] {
        [] => Err("no output".into()),
        [one] => Ok(one),
        outputs => {
            let walk = Walk::new(file);
            let mut candidates: Vec<Candidate<'_>> =
                outputs.iter().map(|info| walk.judge(info, outputs, classes)).collect();
            candidates.sort_by_key(|c| -c.points);
            match &candidates[..] {
                [best, next, ..] if best.points > next.points.max(0) => Ok(best.info),
                _ => Err(format!(
                    "several outputs, {}; name the one that is a score for each class by \
                     --output-node",
                    list()
                )),
            }
        }
    }
}

/// What is said of the choice: nothing where there was none.
pub(super) fn note(file: &proto::Graph, chosen: &proto::ValueInfo) -> Option<String> {
    let others = file.output.iter().filter(|o| o.name != chosen.name);
    let others: Vec<String> = others.map(describe).collect();
    if others.is_empty() {
        return None;
    }
    Some(format!(
        "of several outputs {} is taken for the scores of the classes, not {}; --output-node names \
         another",
        describe(chosen),
        others.join(", ")
    ))
}

fn describe(info: &proto::ValueInfo) -> String {
    let name = info.name.plain();
    match dims(info) {
        Some(dims) => {
            let dims: Vec<String> =
                dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
            format!("`{name}` [{}]", dims.join(", "))
        }
        None => format!("`{name}`"),
    }
}

/// The dimensions that the file declares; `None` for those that it leaves open.
fn dims(info: &proto::ValueInfo) -> Option<Vec<Option<i64>>> {
    let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    Some(shape.dim.iter().map(|d| d.dim_value.filter(|&d| d > 0)).collect())
}

/// Nodes that an output depends on, by the names that they compute.
pub(super) fn needed<'a>(file: &'a proto::Graph, output: &'a str) -> HashSet<&'a str> {
    Walk::new(file).sources(output)
}

struct Walk<'a> {
    nodes: HashMap<&'a str, &'a proto::Node>,
    constants: HashSet<&'a str>,
}

impl<'a> Walk<'a> {
    fn new(file: &'a proto::Graph) -> Self {
        let named = |node: &'a proto::Node| node.output.iter().map(move |o| (o.as_str(), node));
        Self {
            nodes: file.node.iter().flat_map(named).collect(),
            constants: file.initializer.iter().map(|t| t.name.as_str()).collect(),
        }
    }

    /// All that `name` is computed of, and itself.
    fn sources(&self, name: &'a str) -> HashSet<&'a str> {
        let (mut seen, mut open) = (HashSet::new(), vec![name]);
        while let Some(name) = open.pop() {
            if !name.is_empty()
                && seen.insert(name)
                && let Some(node) = self.nodes.get(name)
            {
                open.extend(node.input.iter().map(String::as_str));
                let branches = node.attribute.iter().filter_map(|a| a.g.as_ref());
                for branch in branches {
                    inside(branch, &mut open);
                }
            }
        }
        seen
    }

    fn judge(
        &self,
        info: &'a proto::ValueInfo,
        outputs: &'a [proto::ValueInfo],
        classes: Option<usize>,
    ) -> Candidate<'a> {
        let element = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()?.elem_type);
        let is_float = element.is_none_or(|e| {
            // Not yet known, or quantized, or a float.
            matches!(
                e,
                0 | proto::FLOAT
                    | proto::FLOAT16
                    | proto::DOUBLE
                    | proto::BFLOAT16
                    | proto::UINT8
                    | proto::INT8
            )
        });
        let dims = dims(info).unwrap_or_default();
        let longs = dims.iter().skip(1).flatten().filter(|&&d| d > 1).count();
        let mut points = match self.end(&info.name) {
            End::Probabilities => 5,
            End::Dense => 3,
            End::Other => 0,
            End::NoScore => -20,
        };
        if !is_float || longs > 1 {
            points -= 20;
        }
        let name = info.name.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if says(&["logit", "prob", "score", "softmax", "class", "predict", "label", "cls"]) {
            points += 2;
        }
        if says(&["embed", "feat", "hidden", "pool", "aux", "penult"]) {
            points -= 2;
        }
        // The features that scores are computed of are no scores.
        let is_inside = outputs.iter().any(|other| {
            other.name != info.name
                && !matches!(self.end(&other.name), End::NoScore)
                && self.sources(&other.name).contains(info.name.as_str())
        });
        if is_inside {
            points -= 4;
        }
        let len = dims.last().copied().flatten();
        if classes.is_some() && len.and_then(|d| usize::try_from(d).ok()) == classes {
            points += 10;
        }
        Candidate { info, points }
    }

    /// How a value is computed, looking through what does not change its order.
    fn end(&self, name: &str) -> End {
        let (mut name, mut is_probability) = (name, false);
        // As long as the longest chain.
        for _ in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(name) else { break };
            let constant = |i: &String| self.constants.contains(i.as_str()) || self.is_constant(i);
            let next = match node.op_type.as_str() {
                "Softmax" | "LogSoftmax" => {
                    is_probability = true;
                    node.input.first()
                }
                "Identity" | "Cast" | "Dropout" | "Reshape" | "Flatten" | "Squeeze"
                | "Unsqueeze" | "QuantizeLinear" | "DequantizeLinear" | "Log" | "Transpose" => {
                    node.input.first()
                }
                "Add" | "Sub" | "Mul" | "Div" => match &node.input[..] {
                    [a, b] if constant(b) => Some(a),
                    [a, b] if constant(a) => Some(b),
                    _ => break,
                },
                "Gemm" | "MatMul" if !is_probability => return End::Dense,
                "ArgMax" | "ArgMin" | "TopK" | "ReduceMax" | "ReduceMin" | "ReduceL2" | "Equal"
                | "Greater" | "NonZero" => return End::NoScore,
                _ => break,
            };
            match next {
                Some(next) => name = next,
                None => break,
            }
        }
        if is_probability { End::Probabilities } else { End::Other }
    }

    /// Whether a value is a constant under another name.
    fn is_constant(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| {
            node.op_type == "Constant"
                || (matches!(node.op_type.as_str(), "DequantizeLinear" | "Identity" | "Cast")
                    && node.input.first().is_some_and(|i| self.constants.contains(i.as_str())))
        })
    }
}

/// Names that a branch reads.
fn inside<'a>(graph: &'a proto::Graph, open: &mut Vec<&'a str>) {
    for node in &graph.node {
        open.extend(node.input.iter().map(String::as_str));
        for branch in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            inside(branch, open);
        }
    }
    open.extend(graph.output.iter().map(|o| o.name.as_str()));
}

/// The last layer of an output.
enum End {
    /// A softmax.
    Probabilities,
    /// A dense layer without an activation.
    Dense,
    /// What is computed of scores, but none.
    NoScore,
    Other,
}
