//! How pictures are prepared for a network, as far as the network itself says it: by how its input is
//! stored, or by what it does to it first.

use artifact::Preprocess;
use network::graph::{Graph, NodeOp};

/// The preparation of pictures that `graph` takes; `None` where it does not tell.
pub(crate) fn preprocess_of(graph: &Graph) -> Option<Preprocess> {
    let shape = graph.input_shape();
    let grey = shape.c == 1;
    let raw = Preprocess { grey, ..Preprocess::raw(shape.h, shape.w) };
    let around = |mean: f32, deviation: f32| {
        let (mean, deviation) = ([mean; 3], [deviation; 3]);
        Preprocess { grey, ..Preprocess::normalized(shape.h, shape.w, mean, deviation) }
    };
    let unit = around(0.0, 1.0);
    if let Some(quant) = graph.nodes[0].quant {
        // The 256 numbers that it can be tell, where they are a picture's bytes, 0 to 1, or −1 to 1.
        let [low, high] = [-128, 127].map(|q| quant.dequantize(q));
        let is = |l: f32, h: f32| {
            let near = |a: f32, b: f32| (a - b).abs() <= quant.scale;
            near(low, l) && near(high, h)
        };
        if is(0.0, 255.0) {
            return Some(raw);
        } else if is(0.0, 1.0) {
            return Some(unit);
        } else if is(-1.0, 1.0) {
            return Some(around(0.5, 0.5));
        }
    }
    let (mean, deviation) = normalization(graph)?;
    // Of pictures from 0 to 1, neither can be larger than one; means of training pictures are
    // somewhere in the middle.
    let all =
        |numbers: &[f64], low: f64, high: f64| numbers.iter().all(|n| (low..=high).contains(n));
    if mean.iter().any(|m| *m > 2.0) || deviation.iter().all(|d| *d > 2.0) {
        Some(raw)
    } else if all(&mean, 0.2, 0.8) && all(&deviation, 0.1, 0.7) {
        Some(unit)
    } else {
        None
    }
}

/// Mean and deviation of each channel where the network begins with `(x − mean) / deviation`, in
/// whatever steps.
fn normalization(graph: &Graph) -> Option<(Vec<f64>, Vec<f64>)> {
    let channels = usize::from(graph.input_shape().c);
    let (mut factors, mut addends) = (vec![1.0; channels], vec![0.0; channels]);
    let mut value = 0;
    loop {
        let mut readers =
            (graph.nodes.iter().enumerate()).filter(|(_, n)| n.inputs.contains(&value));
        let (Some((id, node)), None) = (readers.next(), readers.next()) else { break };
        let NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon } = &node.op else { break };
        for c in 0..channels {
            let part = |values: &[f32]| f64::from(values[c]);
            let factor = part(gamma) / (part(variance) + f64::from(*epsilon)).sqrt();
            factors[c] *= factor;
            addends[c] = (addends[c] - part(mean)) * factor + part(beta);
        }
        value = id;
    }
    let is_some = value > 0 && factors.iter().all(|f| f.is_normal());
    let mean = addends.iter().zip(&factors).map(|(a, f)| -a / f).collect();
    is_some.then(|| (mean, factors.iter().map(|f| 1.0 / f.abs()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use artifact::{Quant, Shape};

    fn steps(steps: &[(f32, [f32; 3])]) -> Graph {
        let mut graph = Graph::new("steps", Shape::new(2, 2, 3));
        for (i, (factor, addend)) in steps.iter().enumerate() {
            let op = NodeOp::BatchNorm {
                gamma: vec![*factor; 3],
                beta: addend.to_vec(),
                mean: vec![0.0; 3],
                variance: vec![1.0; 3],
                epsilon: 0.0,
            };
            graph.push("step", op, &[i]).unwrap();
        }
        graph
    }

    #[test]
    fn the_network_tells_how_pictures_are_prepared() {
        let (raw, unit) =
            (Some(Preprocess::raw(2, 2)), Some(Preprocess::normalized(2, 2, [0.0; 3], [1.0; 3])));
        let imagenet = [-0.485, -0.456, -0.406];
        for (graph, want) in [
            (steps(&[]), None),
            // Rescaling(1 / 255), Rescaling(1 / 127.5, −1), in one step and two.
            (steps(&[(1.0 / 255.0, [0.0; 3])]), raw),
            (steps(&[(1.0 / 127.5, [-1.0; 3])]), raw),
            (steps(&[(1.0 / 127.5, [0.0; 3]), (1.0, [-1.0; 3])]), raw),
            // Caffe's means, and ImageNet's of bytes and of 0 to 1.
            (steps(&[(1.0, [-103.9, -116.8, -123.7])]), raw),
            (steps(&[(1.0 / 255.0, imagenet), (1.0 / 0.225, [0.0; 3])]), raw),
            (steps(&[(1.0, imagenet), (1.0 / 0.225, [0.0; 3])]), unit),
            (steps(&[(2.0, [-1.0; 3])]), unit),
            // A batch-norm of pictures that are normalized already.
            (steps(&[(0.9, [0.1, -0.2, 0.0])]), None),
            (steps(&[(0.0, [1.0; 3])]), None),
        ] {
            assert_eq!(preprocess_of(&graph), want, "{:?}", graph.nodes);
        }
        for (scale, zero_point, want) in [
            (1.0, -128, raw),
            (0.999_997_6, -128, raw),
            (1.0 / 255.0, -128, unit),
            (2.0 / 255.0, 0, Some(Preprocess::normalized(2, 2, [0.5; 3], [0.5; 3]))),
            (2.0 / 255.0, -1, Some(Preprocess::normalized(2, 2, [0.5; 3], [0.5; 3]))),
            (0.033, 1, None),
        ] {
            let mut graph = steps(&[]);
            graph.nodes[0].quant = Some(Quant { scale, zero_point });
            assert_eq!(preprocess_of(&graph), want, "{scale} {zero_point}");
        }
    }
}
