//! What heads say of pictures that they were not fitted to.
//!
//! Pictures are dealt to folds, each class evenly, copies of a picture always to one: a copy with a
//! wrong label would vouch for it. For each fold, a head is fitted to the features of the others
//! ([`Probe`]) and asked about its pictures.

use super::seen::Seen;
use crate::train::balanced_weights;
use crate::train::probe::{Fitting, Probe};
use network::random::{Rng, fnv1a};
use page::progress::Counter;

/// Folds of few pictures, where each one more to learn from tells, and of more than [`MANY`]; fewer where no
/// class has as many.
const FOLDS: [usize; 2] = [10, 5];
const MANY: usize = 2000;
/// Products in fitting a head, about, or it is fitted to fewer pictures: some ten seconds on two threads.
const MOST_PRODUCTS: usize = 60_000_000_000;
/// Pictures of a class that it is fitted to in any case, and steps.
const FEWEST: [usize; 2] = [8, 15];
/// A strict head: one that explains each label, as the best for training does, would believe
/// wrong ones, too. Of 1e-3, 2e-4 and 2e-5, this decay finds the most wrong labels of clothes, photos
/// and CIFAR-10.
const FITTING: Fitting = Fitting { decay: 1e-3, steps: 60 };

/// What is said of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// The likeliest of the classes that it is not filed under.
    pub(super) other: u32,
    /// Its probability.
    pub(super) probability: f32,
    /// The logarithm of how many times likelier that is than the class that it is filed under.
    pub(super) margin: f32,
}

impl Verdict {
    /// Whether the class that it is filed under is the likeliest.
    pub(super) fn agrees(&self) -> bool {
        self.margin <= 0.0
    }

    /// Of logits `[classes]` of a picture of class `label`; `None` without another class.
    fn of(logits: &[f32], label: u32) -> Option<Self> {
        let own = *logits.get(label as usize)?;
        let highest = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        let others = (0u32..).zip(logits).filter(|(class, _)| *class != label);
        let (other, logit) = others.max_by(|a, b| a.1.total_cmp(b.1))?;
        Some(Self { other, probability: (logit - highest).exp() / sum, margin: logit - own })
    }
}

/// Which pictures are asked about together.
#[derive(Debug)]
pub(super) struct Folds {
    /// The fold of each picture.
    of: Vec<usize>,
    /// How many there are.
    count: usize,
    classes: usize,
    labels: Vec<u32>,
    seed: u64,
}

impl Folds {
    /// Deals pictures of the `classes` that are their `labels`; those with one number in `groups`
    /// stay together.
    pub(super) fn new(labels: &[u32], groups: &[usize], classes: usize, seed: u64) -> Self {
        let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
        let mut seen = vec![false; labels.len()];
        for (i, group) in groups.iter().enumerate() {
            if !core::mem::replace(&mut seen[*group], true) {
                by_class[labels[i] as usize].push(*group);
            }
        }
        let most = by_class.iter().map(Vec::len).max().unwrap_or(0);
        let folds = FOLDS[usize::from(labels.len() > MANY)];
        let count = folds.min(most).max(1);
        let mut rng = Rng::keyed(&[seed, fnv1a(b"folds")]);
        let (mut fold_of_group, mut next) = (vec![0; labels.len()], 0);
        for members in &mut by_class {
            rng.shuffle(members);
            for group in members {
                fold_of_group[*group] = next % count;
                next += 1;
            }
        }
        let of = groups.iter().map(|group| fold_of_group[*group]).collect();
        Self { of, count, classes, labels: labels.to_vec(), seed }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many pictures of each class a head is fitted to at most, and in how many steps, so that many classes take
    /// no hours.
    fn bounds(&self, width: usize) -> (usize, usize) {
        // Forward and backward, of one picture of each class.
        let step = (2 * self.classes * self.classes * (width + 1)).max(1);
        let most = MOST_PRODUCTS / step / FITTING.steps;
        let steps = MOST_PRODUCTS / step / most.max(FEWEST[0]);
        (most.max(FEWEST[0]), steps.clamp(FEWEST[1], FITTING.steps))
    }

    /// The pictures outside of fold `fold`: of each class `share` of those that there are, or of `most`, and at
    /// least one.
    fn training(&self, fold: usize, share: f64, most: usize) -> Vec<usize> {
        let mut by_class = vec![Vec::new(); self.classes];
        let others = self.of.iter().enumerate().filter(|(_, of)| **of != fold);
        others.for_each(|(i, _)| by_class[self.labels[i] as usize].push(i));
        let mut rng = Rng::keyed(&[self.seed, fnv1a(b"share"), fold as u64]);
        let mut chosen = Vec::new();
        for members in &mut by_class {
            rng.shuffle(members);
            let wanted = (members.len().min(most) as f64 * share).ceil() as usize;
            chosen.extend(members.iter().take(wanted));
        }
        chosen.sort_unstable();
        chosen
    }

    /// Of each picture what a head says that was fitted to `share` of the pictures outside of its
    /// fold, 0..=1; `None` where there is nothing to compare with: no other picture of its class. Also how many pictures the heads were fitted to, in the mean.
    pub(super) fn ask(
        &self,
        seen: &Seen,
        share: f64,
        progress: (&Counter, usize, usize),
    ) -> (Vec<Option<Verdict>>, f64) {
        let (counter, before, all) = progress;
        let mut verdicts = vec![None; self.of.len()];
        let mut fitted = 0;
        let (most, steps) = self.bounds(seen.width);
        for fold in 0..self.count {
            counter.show(before + fold, all);
            let training = self.training(fold, share, most);
            fitted += training.len();
            let mut probe = Probe::default();
            let mut counts = vec![0; self.classes];
            for i in &training {
                probe.add(seen.of(*i), &[self.labels[*i]]);
                counts[self.labels[*i] as usize] += 1;
            }
            if training.is_empty() {
                continue;
            }
            let head = probe.solve(&balanced_weights(&counts), Fitting { steps, ..FITTING });
            let asked = self.of.iter().enumerate().filter(|(_, of)| **of == fold);
            for (i, _) in asked.filter(|(i, _)| counts[self.labels[*i] as usize] > 0) {
                let mut logits = head.logits(seen.of(i));
                // Of a class without pictures nothing is known.
                let unknown = logits.iter_mut().zip(&counts).filter(|(_, count)| **count == 0);
                unknown.for_each(|(logit, _)| *logit = f32::NEG_INFINITY);
                verdicts[i] = Verdict::of(&logits, self.labels[i]);
            }
        }
        (verdicts, fitted as f64 / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_have_all_classes_and_whole_groups() {
        // Classes of 20, 7 and 1; pictures 0 to 3 are copies of one.
        let labels: Vec<u32> = [vec![0; 20], vec![1; 7], vec![2]].concat();
        let groups: Vec<usize> = (0..28).map(|i| if i < 4 { 0 } else { i }).collect();
        let folds = Folds::new(&labels, &groups, 3, 5);
        assert_eq!(folds.len(), FOLDS[0]);
        assert!(folds.of[..4].iter().all(|of| *of == folds.of[0]));
        for fold in 0..FOLDS[0] {
            let of_class = |class: u32| {
                let pairs = folds.of.iter().zip(&labels);
                pairs.filter(|(of, label)| **of == fold && **label == class).count()
            };
            assert!((1..=6).contains(&of_class(0)) && of_class(1) <= 1);
            let all = folds.training(fold, 1.0, 100);
            assert!(all.iter().all(|i| folds.of[*i] != fold));
            let quarter = folds.training(fold, 0.25, 100);
            assert!(quarter.iter().all(|i| all.contains(i)) && quarter.len() < all.len() / 2);
            let few = folds.training(fold, 1.0, 2);
            assert!(few.len() <= 6, "{few:?}");
        }
        // Many classes take fewer pictures, then fewer steps.
        let bounds = |classes| Folds::new(&[0, 1], &[0, 1], classes, 0).bounds(1280);
        assert!(bounds(2).0 > 90_000 && bounds(100).0 < 50);
        assert_eq!((bounds(100).1, bounds(1000)), (FITTING.steps, (FEWEST[0], FEWEST[1])));
    }

    #[test]
    fn verdicts_compare_with_the_likeliest_other_class() {
        let verdict = Verdict::of(&[1.0, 3.0, 2.0], 1).unwrap();
        assert!(verdict.agrees() && verdict.other == 2 && verdict.margin == -1.0);
        let verdict = Verdict::of(&[1.0, 3.0, 2.0], 0).unwrap();
        assert!(!verdict.agrees() && verdict.other == 1 && verdict.margin == 2.0);
        assert!((verdict.probability - 0.665).abs() < 1e-3);
        assert_eq!(Verdict::of(&[1.0], 0), None);
    }
}
