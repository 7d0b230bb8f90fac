//! Adaptive rounding: weights go up or down so that a layer's *output* changes least on real inputs,
//! not so that each weight does.
//!
//! With H = Σ x·xᵀ over the windows x that a layer really reads, the squared error of an output is
//! eᵀ·H·e, where e are the errors of its weights. H = (U + I)·D·(U + I)ᵀ with U strictly upper, so it
//! is Σ Dₖ·(eₖ + Σ_{j<k} eⱼ·Uⱼₖ)²: rounded one after the other, each weight takes the errors of those
//! before it into account (Frantar et al. 2022, in the form of Chee et al. 2023).

use super::calibrate::{CalibrationError, for_each_value};
use crate::int8::{int8_weights_of, run_len};
use artifact::layout::{MAX_PAIR, window_start};
use artifact::{Quant, Shape};
use network::graph::{Conv, Graph, NodeOp, ValueId};
use rayon::prelude::*;

/// Most windows that a layer is measured on.
const WINDOWS: usize = 4096;
/// Bytes of the maps that are kept at a time.
const MEMORY: usize = 512 << 20;
/// What is added to H's diagonal, of its mean: directions that the windows do not show.
const DAMPING: f64 = 0.01;

/// Rounds the weights of each convolution of `graph` to what `quants` make of them; `int8` is a device
/// file that has its maps. Steps stay those of the nearest rounding.
///
/// # Errors
/// A file that does not run.
pub(super) fn round_adaptively(
    graph: &Graph,
    quants: &[Quant],
    int8: &[u8],
    pictures: &[Vec<f32>],
    mut progress: impl FnMut(usize, usize),
) -> Result<Graph, CalibrationError> {
    let mut rounded = graph.clone();
    let is_conv = |id: &ValueId| matches!(graph.nodes[*id].op, NodeOp::Conv2d(_));
    let convs: Vec<ValueId> = (0..graph.nodes.len()).filter(is_conv).collect();
    let input = |id: ValueId| graph.nodes[id].inputs[0];
    let mut first = 0;
    while first < convs.len() {
        // As many layers at a time as memory has room for what they read.
        let mut bytes = 0;
        let fits = |id: &&ValueId| {
            bytes += graph.nodes[input(**id)].shape.len() * size_of::<f32>() * pictures.len();
            bytes <= MEMORY
        };
        let count = convs[first..].iter().take_while(fits).count().max(1);
        let group = &convs[first..first + count];
        let mut maps = vec![Vec::new(); graph.nodes.len()];
        for_each_value(
            int8,
            pictures,
            |_, value| {
                if group.iter().any(|&id| input(id) == value.index) {
                    maps[value.index].push(value.iter().collect::<Vec<f32>>());
                }
                Ok(())
            },
            |_| (),
        )?;
        for (i, &id) in group.iter().enumerate() {
            round_layer(graph, &mut rounded, id, quants, &maps[input(id)]);
            progress(first + i + 1, convs.len());
        }
        first += count;
    }
    Ok(rounded)
}

/// Rounds the weights of one convolution, which reads `maps`.
fn round_layer(
    graph: &Graph,
    rounded: &mut Graph,
    id: ValueId,
    quants: &[Quant],
    maps: &[Vec<f32>],
) {
    let node = &mut rounded.nodes[id];
    let NodeOp::Conv2d(conv) = &mut node.op else { return };
    let input = graph.nodes[node.inputs[0]].shape;
    let run = run_len(conv, input);
    let scales = int8_weights_of(graph, id, conv, quants).scales;
    let (row, outputs) = (conv.row_len(), conv.c_out() / usize::from(conv.groups));
    let windows = windows(conv, input, node.shape, maps);
    // The outputs of a group see the same numbers.
    let inputs: Vec<_> =
        (0..conv.c_out()).step_by(outputs).map(|first| conv.inputs_of(first)).collect();
    let groups = conv.weights.par_chunks_exact_mut(row * outputs).zip(scales.par_chunks(outputs));
    groups.zip(inputs).for_each(|((weights, scales), inputs)| {
        let seen: Vec<Vec<f32>> = windows
            .iter()
            .map(|w| {
                w.chunks_exact(input.c.into()).flat_map(|p| &p[inputs.clone()]).copied().collect()
            })
            .collect();
        let upper = upper_factor(second_moments(&seen));
        weights.par_chunks_exact_mut(row).zip(scales).for_each(|(weights, &scale)| {
            let values = round_row(weights, scale, run, &upper);
            weights.iter_mut().zip(values).for_each(|(w, q)| *w = f32::from(q) * scale);
        });
    });
    conv.weight_scales = scales;
}

/// Windows that a convolution reads, spread evenly over all its outputs, as rows; pixels outside of a
/// map are zeros.
fn windows(conv: &Conv, input: Shape, output: Shape, maps: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let all = output.pixels() * maps.len();
    let count = all.min(WINDOWS);
    let [h, w, c] = [input.h, input.w, input.c].map(usize::from);
    let window = |i: usize| {
        // At another place of each share, so that no column of the map is preferred.
        let at = (i * all / count + i * 79 % (all / count)).min(all - 1);
        let (map, pixel) = (&maps[at / output.pixels()], at % output.pixels());
        let columns = usize::from(output.w);
        let top = window_start(pixel / columns, conv.stride[0], conv.padding.top);
        let left = window_start(pixel % columns, conv.stride[1], conv.padding.left);
        let mut row = Vec::with_capacity(conv.row_len());
        for y in 0..usize::from(conv.filter[0]) {
            for x in 0..usize::from(conv.filter[1]) {
                let inside = |start: isize, step: usize, len: usize| {
                    usize::try_from(start + step as isize).ok().filter(|&at| at < len)
                };
                match (inside(top, y, h), inside(left, x, w)) {
                    (Some(y), Some(x)) => row.extend_from_slice(&map[(y * w + x) * c..][..c]),
                    _ => row.resize(row.len() + c, 0.0),
                }
            }
        }
        row
    };
    (0..count).into_par_iter().map(window).collect()
}

/// Σ x·xᵀ over the rows, a full symmetric matrix.
fn second_moments(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    /// Lines of the matrix that are summed together, for each of which all rows are read.
    const LINES: usize = 16;
    let len = rows.first().map_or(0, Vec::len);
    let mut matrix = vec![vec![0f64; len]; len];
    matrix.par_chunks_mut(LINES).enumerate().for_each(|(block, lines)| {
        let mut sums = vec![vec![0f32; len]; lines.len()];
        // Sums of f32 stay short.
        for part in rows.chunks(256) {
            sums.iter_mut().for_each(|line| line.fill(0.0));
            for x in part {
                for (i, line) in sums.iter_mut().enumerate() {
                    let factor = x[block * LINES + i];
                    line.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
                }
            }
            for (line, sums) in lines.iter_mut().zip(&sums) {
                line.iter_mut().zip(sums).for_each(|(sum, part)| *sum += f64::from(*part));
            }
        }
    });
    matrix
}

/// U of H = (U + I)·D·(U + I)ᵀ for H with some damping; column k as row k, its k first elements.
fn upper_factor(mut h: Vec<Vec<f64>>) -> Vec<Vec<f32>> {
    let len = h.len();
    let mean = (0..len).map(|i| h[i][i]).sum::<f64>() / len.max(1) as f64;
    let damping = (mean * DAMPING).max(f64::MIN_POSITIVE * 1e9);
    // Cholesky's factor L of H with rows and columns in reverse, from which U follows by reversing it.
    h.reverse();
    h.iter_mut().for_each(|row| row.reverse());
    for column in 0..len {
        let (above, below) = h.split_at_mut(column + 1);
        let pivot = &mut above[column];
        let square = dot(&pivot[..column], &pivot[..column]);
        let diagonal = (pivot[column] + damping - square).max(damping).sqrt();
        pivot[column] = diagonal;
        let pivot = &pivot[..column];
        below.par_iter_mut().with_min_len(64).for_each(|row| {
            row[column] = (row[column] - dot(&row[..column], pivot)) / diagonal;
        });
    }
    let element = |j: usize, k: usize| h[len - 1 - j][len - 1 - k];
    (0..len)
        .into_par_iter()
        .map(|k| (0..k).map(|j| (element(j, k) / element(k, k)) as f32).collect())
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    rest + sums.iter().sum::<f64>()
}

/// The weights of one output, in steps of `scale`; pairs of `run` weights that lie side by side stay
/// within [`MAX_PAIR`].
fn round_row(weights: &[f32], scale: f32, run: usize, upper: &[Vec<f32>]) -> Vec<i8> {
    let mut errors = vec![0f32; weights.len()];
    let mut values: Vec<i8> = Vec::with_capacity(weights.len());
    let target = |k: usize, errors: &[f32]| {
        let taken: f32 = upper[k].iter().zip(errors).map(|(u, e)| u * e).sum();
        weights[k] / scale + taken
    };
    let largest = f32::from(MAX_PAIR);
    for k in 0..weights.len() {
        let wanted = target(k, &errors);
        let (place, is_last) = (k % run, k % run + 1 == run);
        let bounded = if place % 2 == 1 {
            let first = f32::from(values[k - 1]);
            wanted.clamp(-largest - first, largest - first)
        } else if is_last {
            wanted
        } else {
            // Of what is too much for both, each gives half.
            let sum = wanted + weights[k + 1] / scale;
            wanted - sum.signum() * ((sum.abs() - largest) / 2.0).max(0.0)
        };
        let value = bounded.round().clamp(-127.0, 127.0);
        errors[k] = weights[k] / scale - value;
        values.push(value as i8);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::int8::quantize_at;
    use network::random::Rng;

    /// Correlated inputs, as pixels side by side are.
    fn inputs(len: usize, count: usize) -> Vec<Vec<f32>> {
        let mut rng = Rng::keyed(&[3]);
        let mut unit = || rng.below(2001) as f32 / 1000.0 - 1.0;
        let row = |_| {
            let shared = unit();
            (0..len).map(|_| shared + 0.3 * unit()).collect()
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn the_factor_is_that_of_the_matrix() {
        let len = 37;
        let mut h = second_moments(&inputs(len, 500));
        let upper = upper_factor(h.clone());
        let damping = (0..len).map(|i| h[i][i]).sum::<f64>() / len as f64 * DAMPING;
        (0..len).for_each(|i| h[i][i] += damping);
        let at = |j: usize, k: usize| match k.checked_sub(j) {
            None => 0.0,
            Some(0) => 1.0,
            Some(_) => f64::from(upper[k][j]),
        };
        // D from the diagonal of (U + I)·D·(U + I)ᵀ, the last first; then all of it.
        let mut d = vec![0.0; len];
        for k in (0..len).rev() {
            d[k] = h[k][k] - (k + 1..len).map(|m| at(k, m) * at(k, m) * d[m]).sum::<f64>();
            assert!(d[k] > 0.0);
        }
        for (i, row) in h.iter().enumerate() {
            for (j, wanted) in row.iter().enumerate() {
                let found: f64 = (0..len).map(|k| at(i, k) * d[k] * at(j, k)).sum();
                assert!((found - wanted).abs() < 1e-4 * h[0][0], "{i} {j}: {found} for {wanted}");
            }
        }
    }

    #[test]
    fn outputs_change_less_and_pairs_stay_small() {
        let (len, run) = (48, 16);
        let x = inputs(len, 600);
        let upper = upper_factor(second_moments(&x));
        let mut rng = Rng::keyed(&[5]);
        // With the smallest steps, pairs are too large and weights are clipped.
        for (scale, most) in [(0.0075, 1.0), (0.01, 0.5), (0.05, 0.5), (0.2, 0.5)] {
            let [mut adaptive, mut nearest] = [0.0; 2];
            // By chance, errors of a single row may cancel.
            for _ in 0..20 {
                let weights: Vec<f32> =
                    (0..len).map(|_| rng.below(2001) as f32 / 1000.0 - 1.0).collect();
                let error = |values: &[i8]| -> f64 {
                    let of = |x: &Vec<f32>| {
                        let terms = x.iter().zip(weights.iter().zip(values));
                        let sum: f32 =
                            terms.map(|(x, (w, q))| x * (w - scale * f32::from(*q))).sum();
                        f64::from(sum).powi(2)
                    };
                    x.iter().map(of).sum()
                };
                let values = round_row(&weights, scale, run, &upper);
                for pair in values.as_chunks::<2>().0 {
                    let sum = i16::from(pair[0]) + i16::from(pair[1]);
                    assert!(sum.abs() <= MAX_PAIR, "{pair:?}");
                }
                adaptive += error(&values);
                nearest += error(&quantize_at(&weights, run, scale).values);
            }
            assert!(adaptive < most * nearest, "steps of {scale}: {adaptive} for {nearest}");
        }
    }
}
