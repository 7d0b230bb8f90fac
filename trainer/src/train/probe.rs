//! The best head for the features that a trained backbone has already: multinomial logistic
//! regression, with which fine-tuning then begins. Gradients of a random head would only disturb the
//! features (Kumar et al., *Fine-Tuning can Distort Pretrained Features*, 2022).

use rayon::prelude::*;
use std::collections::VecDeque;

/// Weight of half the squared length of weights, for features of mean length 1. From a tenth to
/// ten times as much are as good for 10 to 300 photos a class.
const DECAY: f64 = 2e-5;
/// Steps, at most.
const MAX_STEPS: usize = 200;
/// Length of the gradient at which the head is as good as found.
const TOLERANCE: f64 = 1e-5;
/// Steps that L-BFGS remembers.
const MEMORY: usize = 10;

/// Features of pictures, and what the pictures show.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// `[pictures, width]`.
    features: Vec<f32>,
    labels: Vec<u32>,
}

/// A dense layer.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    /// `[classes, width]`.
    pub(super) weight: Vec<f32>,
    /// `[classes]`.
    pub(super) bias: Vec<f32>,
}

impl Probe {
    /// Adds a batch: features `[N, width]` of pictures of classes `[N]`.
    pub(super) fn add(&mut self, features: &[f32], labels: &[u32]) {
        self.features.extend_from_slice(features);
        self.labels.extend_from_slice(labels);
    }

    /// Pictures.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The head that makes the mean cross-entropy least, where a picture of class `c` counts
    /// `weights[c]` times. The result does not depend on the number of threads.
    pub(super) fn solve(&self, weights: &[f32]) -> Head {
        let (classes, width) = (weights.len(), self.features.len() / self.labels.len().max(1));
        let squares: f64 = self.features.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = (self.labels.len() as f64 / squares.max(f64::MIN_POSITIVE)).sqrt();
        let problem = Problem { probe: self, weights, width, scale };
        // A row for each class: weights, then the bias.
        let solution = minimize(vec![0.0; classes * (width + 1)], |x| problem.at(x));
        let rows = || solution.chunks_exact(width + 1);
        Head {
            weight: rows()
                .flat_map(|row| row[..width].iter().map(|w| (w * scale) as f32))
                .collect(),
            bias: rows().map(|row| row[width] as f32).collect(),
        }
    }
}

struct Problem<'a> {
    probe: &'a Probe,
    /// Of the classes.
    weights: &'a [f32],
    width: usize,
    /// Makes features of mean length 1.
    scale: f64,
}

impl Problem<'_> {
    /// The loss and its gradient.
    fn at(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let Self { probe, weights, width, scale } = *self;
        let row = width + 1;
        let pictures = || probe.features.par_chunks_exact(width).zip(&probe.labels);
        let total: f64 = probe.labels.iter().map(|label| f64::from(weights[*label as usize])).sum();
        // Of each picture: its loss, and what each logit has too much.
        let (losses, excess): (Vec<f64>, Vec<Vec<f64>>) = pictures()
            .map(|(features, label)| {
                let logit = |row: &[f64]| {
                    let pairs = row.iter().zip(features);
                    row[width] + scale * pairs.map(|(w, f)| w * f64::from(*f)).sum::<f64>()
                };
                let mut p: Vec<f64> = x.chunks_exact(row).map(logit).collect();
                let label = *label as usize;
                let (highest, own) = (p.iter().copied().fold(f64::MIN, f64::max), p[label]);
                p.iter_mut().for_each(|p| *p = (*p - highest).exp());
                let sum: f64 = p.iter().sum();
                let share = f64::from(weights[label]) / total;
                p.iter_mut().for_each(|p| *p *= share / sum);
                p[label] -= share;
                (share * (sum.ln() + highest - own), p)
            })
            .unzip();
        let mut gradient = vec![0.0; x.len()];
        gradient.par_chunks_exact_mut(row).zip(x.par_chunks_exact(row)).enumerate().for_each(
            |(class, (gradient, x))| {
                for (features, excess) in probe.features.chunks_exact(width).zip(&excess) {
                    let by = excess[class] * scale;
                    let pairs = gradient.iter_mut().zip(features);
                    pairs.for_each(|(g, f)| *g += by * f64::from(*f));
                    gradient[width] += excess[class];
                }
                let pairs = gradient[..width].iter_mut().zip(x);
                pairs.for_each(|(g, w)| *g += DECAY * w);
            },
        );
        let squares: f64 = x.chunks_exact(row).map(|row| dot(&row[..width], &row[..width])).sum();
        (losses.iter().sum::<f64>() + DECAY / 2.0 * squares, gradient)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Where a convex function is least, from its value and gradient: L-BFGS (Nocedal 1980) with steps
/// that are halved until they help.
fn minimize(mut x: Vec<f64>, at: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Vec<f64> {
    let (mut value, mut gradient) = at(&x);
    // Steps and the changes of the gradient along them.
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::new();
    for _ in 0..MAX_STEPS {
        if dot(&gradient, &gradient).sqrt() <= TOLERANCE {
            break;
        }
        let direction = direction(&gradient, &memory);
        let slope = dot(&direction, &gradient);
        let step = |length: f64| -> Vec<f64> {
            x.iter().zip(&direction).map(|(x, d)| x + length * d).collect()
        };
        let lengths = (0..40).map(|halvings| 0.5f64.powi(halvings));
        let found = lengths.map(|length| (step(length), length)).find_map(|(there, length)| {
            let (next, gradient) = at(&there);
            (next <= value + 1e-4 * length * slope).then_some((there, next, gradient))
        });
        // None helps any more: rounding is larger than what is left.
        let Some((there, next, changed)) = found else { break };
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        let moved: (Vec<f64>, Vec<f64>) = (difference(&there, &x), difference(&changed, &gradient));
        if dot(&moved.0, &moved.1) > 0.0 {
            memory.push_back(moved);
        }
        if memory.len() > MEMORY {
            memory.pop_front();
        }
        (x, value, gradient) = (there, next, changed);
    }
    x
}

/// Minus the gradient, times the inverse of the curvature that the steps in `memory` have met.
fn direction(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let add = |to: &mut [f64], by: f64, v: &[f64]| {
        to.iter_mut().zip(v).for_each(|(to, v)| *to += by * v);
    };
    let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::new();
    for (step, change) in memory.iter().rev() {
        let factor = dot(step, &d) / dot(step, change);
        add(&mut d, -factor, change);
        factors.push(factor);
    }
    if let Some((step, change)) = memory.back() {
        let curvature = dot(step, change) / dot(change, change);
        d.iter_mut().for_each(|d| *d *= curvature);
    }
    for ((step, change), factor) in memory.iter().zip(factors.into_iter().rev()) {
        let other = dot(change, &d) / dot(step, change);
        add(&mut d, factor - other, step);
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::random::Rng;

    #[test]
    fn the_least_of_a_valley_is_found() {
        // Rosenbrock's function curves; its least is at 1, 1.
        let at = |x: &[f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            (a * a + 100.0 * b * b, vec![-2.0 * a - 400.0 * b * x[0], 200.0 * b])
        };
        let found = minimize(vec![-1.2, 1.0], at);
        assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let (probe, weights) = (clusters(3, 5, 12), [1.0, 0.5, 2.0]);
        let problem = Problem { probe: &probe, weights: &weights, width: 5, scale: 0.7 };
        let mut rng = Rng::keyed(&[4]);
        let x: Vec<f64> = (0..18).map(|_| rng.normal()).collect();
        let (_, gradient) = problem.at(&x);
        for (i, g) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[i] += by;
                problem.at(&x).0
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - g).abs() < 1e-8, "{i}: {g}, but {slope}");
        }
    }

    #[test]
    fn clusters_are_told_apart_whatever_the_scale_of_features() {
        let probe = clusters(4, 6, 80);
        let head = probe.solve(&[1.0; 4]);
        let right = probe.features.chunks_exact(6).zip(&probe.labels).filter(|(features, label)| {
            let logit = |c: usize| -> f32 {
                let row = &head.weight[c * 6..(c + 1) * 6];
                head.bias[c] + row.iter().zip(*features).map(|(w, f)| w * f).sum::<f32>()
            };
            (0..4).max_by(|a, b| logit(*a).total_cmp(&logit(*b))) == Some(**label as usize)
        });
        assert_eq!(right.count(), 80);
        let features = probe.features.iter().map(|f| f * 1024.0).collect();
        let larger = Probe { features, labels: probe.labels.clone() }.solve(&[1.0; 4]);
        for (a, b) in head.weight.iter().zip(&larger.weight) {
            assert!((a - b * 1024.0).abs() < 1e-3 * a.abs().max(1.0), "{a} {b}");
        }
    }

    /// Points around one corner for each class.
    fn clusters(classes: u32, width: usize, pictures: u32) -> Probe {
        let mut rng = Rng::keyed(&[7]);
        let mut probe = Probe::default();
        for i in 0..pictures {
            let near = |j| if j == (i % classes) as usize { 2.0 } else { 0.0 };
            let features: Vec<f32> =
                (0..width).map(|j| (near(j) + 0.3 * rng.normal()) as f32).collect();
            probe.add(&features, &[i % classes]);
        }
        probe
    }
}
