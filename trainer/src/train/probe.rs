//! The best head for the features that a trained backbone has already: multinomial logistic
//! regression, with which fine-tuning then begins. Gradients of a random head would only disturb the
//! features (Kumar et al., *Fine-Tuning can Distort Pretrained Features*, 2022).

use rayon::prelude::*;
use std::collections::VecDeque;

/// Length of the gradient at which the head is as good as found.
const TOLERANCE: f64 = 1e-5;
/// Steps that L-BFGS remembers.
const MEMORY: usize = 10;

/// How a head is fitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fitting {
    /// Weight of half the squared length of weights, for features of mean length 1.
    pub(crate) decay: f64,
    /// Steps, at most.
    pub(crate) steps: usize,
}

impl Fitting {
    /// To begin training with. From a tenth to ten times the decay are as good for 10 to 300 photos
    /// a class.
    pub(crate) const EXACT: Self = Self { decay: 2e-5, steps: 200 };
}

/// Features of pictures, and what the pictures show.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// `[pictures, width]`.
    features: Vec<f32>,
    labels: Vec<u32>,
    /// `[pictures, classes]`: how much each picture counts as which class; empty where labels alone tell.
    targets: Vec<f32>,
}

/// A dense layer.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    /// `[classes, width]`.
    pub(crate) weight: Vec<f32>,
    /// `[classes]`.
    pub(crate) bias: Vec<f32>,
}

impl Head {
    /// Features `[width]` of a picture to logits `[classes]`.
    pub(crate) fn logits(&self, features: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(features.len().max(1)).zip(&self.bias);
        rows.map(|(row, bias)| bias + row.iter().zip(features).map(|(w, f)| w * f).sum::<f32>())
            .collect()
    }
}

impl Probe {
    /// Adds a batch: features `[N, width]` of pictures of classes `[N]`.
    pub(crate) fn add(&mut self, features: &[f32], labels: &[u32]) {
        self.features.extend_from_slice(features);
        self.labels.extend_from_slice(labels);
    }

    /// As [`Self::add`], of pictures that count as each class by `targets`, `[N, classes]`, whatever they are
    /// labelled. Either all pictures have such or none.
    pub(crate) fn add_taught(&mut self, features: &[f32], labels: &[u32], targets: &[f32]) {
        self.add(features, labels);
        self.targets.extend_from_slice(targets);
    }

    /// Pictures that were added.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The head that makes the mean cross-entropy least, where a picture of class `c` counts
    /// `weights[c]` times. The result does not depend on the number of threads.
    pub(crate) fn solve(&self, weights: &[f32], fitting: Fitting) -> Head {
        let (classes, width) = (weights.len(), self.features.len() / self.labels.len().max(1));
        let squares: f64 = self.features.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = (self.labels.len() as f64 / squares.max(f64::MIN_POSITIVE)).sqrt();
        let problem = Problem { probe: self, weights, width, scale, decay: fitting.decay };
        // A row for each class: weights, then the bias.
        let solution = minimize(vec![0.0; classes * (width + 1)], fitting.steps, |x| problem.at(x));
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
    decay: f64,
}

impl Problem<'_> {
    /// The loss and its gradient.
    fn at(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let Self { probe, weights, width, scale, decay } = *self;
        let row = width + 1;
        let classes = weights.len();
        let taught = |i: usize| probe.targets.get(i * classes..(i + 1) * classes);
        let mass = |i: usize| match taught(i) {
            Some(row) => row.iter().map(|t| f64::from(*t)).sum(),
            None => f64::from(weights[probe.labels[i] as usize]),
        };
        let total: f64 = (0..probe.len()).map(mass).sum();
        // Of each picture: its loss, and what each logit has too much.
        let (losses, excess): (Vec<f64>, Vec<Vec<f64>>) = probe
            .features
            .par_chunks_exact(width)
            .enumerate()
            .map(|(i, features)| {
                let logit = |row: &[f64]| {
                    let pairs = row.iter().zip(features);
                    row[width] + scale * pairs.map(|(w, f)| w * f64::from(*f)).sum::<f64>()
                };
                let logits: Vec<f64> = x.chunks_exact(row).map(logit).collect();
                let highest = logits.iter().copied().fold(f64::MIN, f64::max);
                let mut p: Vec<f64> = logits.iter().map(|z| (z - highest).exp()).collect();
                let sum: f64 = p.iter().sum();
                let share = mass(i) / total;
                p.iter_mut().for_each(|p| *p *= share / sum);
                let Some(targets) = taught(i) else {
                    let label = probe.labels[i] as usize;
                    p[label] -= share;
                    return (share * (sum.ln() + highest - logits[label]), p);
                };
                let mut loss = share * (sum.ln() + highest);
                for ((p, z), target) in p.iter_mut().zip(&logits).zip(targets) {
                    *p -= f64::from(*target) / total;
                    loss -= f64::from(*target) / total * z;
                }
                (loss, p)
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
                pairs.for_each(|(g, w)| *g += decay * w);
            },
        );
        let squares: f64 = x.chunks_exact(row).map(|row| dot(&row[..width], &row[..width])).sum();
        (losses.iter().sum::<f64>() + decay / 2.0 * squares, gradient)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Where a convex function is least, from its value and gradient: L-BFGS (Nocedal 1980) with steps
/// that are halved until they help, `steps` of them at most.
fn minimize(mut x: Vec<f64>, steps: usize, at: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Vec<f64> {
    let (mut value, mut gradient) = at(&x);
    // Steps and the changes of the gradient along them.
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::new();
    for _ in 0..steps {
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
        // Ten thousand times as steep in one direction as in another, and no parabola.
        let at = |x: &[f64]| {
            let steep = |i: usize| 10f64.powi(i as i32);
            let away: f64 = x.iter().map(|x| x - 1.0).sum();
            let sum: f64 = x.iter().enumerate().map(|(i, x)| steep(i) * (x - 1.0).powi(2)).sum();
            let slope = |(i, x): (usize, &f64)| steep(i) * (x - 1.0) + 4.0 * away.powi(3);
            (sum / 2.0 + away.powi(4), x.iter().enumerate().map(slope).collect())
        };
        let found = minimize(vec![-1.2, 1.0, 3.0, 0.0, 2.0], Fitting::EXACT.steps, at);
        assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let mut probe = clusters(3, 5, 12);
        gradients_are_right(&probe);
        let mut rng = Rng::keyed(&[3]);
        probe.targets = rng.around(3 * 12, 0.4, 0.4);
        gradients_are_right(&probe);
    }

    fn gradients_are_right(probe: &Probe) {
        let weights = [1.0, 0.5, 2.0];
        let problem = Problem { probe, weights: &weights, width: 5, scale: 0.7, decay: 2e-5 };
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
        let head = probe.solve(&[1.0; 4], Fitting::EXACT);
        let right =
            probe.features.chunks_exact(6).zip(&probe.labels).filter(|(features, label)| {
                crate::train::argmax(&head.logits(features)) == **label as usize
            });
        assert_eq!(right.count(), 80);
        let features = probe.features.iter().map(|f| f * 1024.0).collect();
        // What counts as its class alone is as if it were labelled so.
        let one_hot = |label: u32| (0..4).map(move |class| f32::from(class == label));
        let targets: Vec<f32> = probe.labels.iter().copied().flat_map(one_hot).collect();
        let labels = vec![9; 80];
        let taught = Probe { features: probe.features.clone(), labels, targets };
        assert!(taught.solve(&[1.0; 4], Fitting::EXACT) == head);
        let larger = Probe { features, labels: probe.labels.clone(), targets: Vec::new() };
        let larger = larger.solve(&[1.0; 4], Fitting::EXACT);
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
