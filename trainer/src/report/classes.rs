//! What a confusion matrix says of each class.

use core::cmp::Reverse;

/// Figures of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ClassFigures {
    /// Index into the labels.
    pub(super) class: usize,
    /// Pictures of the class.
    pub(super) pictures: usize,
    /// Of these, answered right.
    pub(super) right: usize,
    /// Pictures of any class that were taken for this one.
    pub(super) answered: usize,
    /// The class that its pictures were most taken for, and how many were.
    pub(super) taken_for: Option<(usize, usize)>,
}

impl ClassFigures {
    /// Share of the class's pictures found, which is its accuracy; `None` without pictures.
    pub(super) fn recall(&self) -> Option<f64> {
        share(self.right, self.pictures)
    }

    /// Share of the answers with this class that are right; `None` where it was never answered.
    pub(super) fn precision(&self) -> Option<f64> {
        share(self.right, self.answered)
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// All classes, the one with the lowest recall first, those without pictures last.
pub(super) fn worst_first(confusion: &[Vec<usize>]) -> Vec<ClassFigures> {
    let mut answered = vec![0; confusion.len()];
    for row in confusion {
        answered.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
    }
    let figures = |(class, row): (usize, &Vec<usize>)| ClassFigures {
        class,
        pictures: row.iter().sum(),
        right: row.get(class).copied().unwrap_or(0),
        answered: answered[class],
        taken_for: mistakes(class, row).max_by_key(|(other, n)| (*n, Reverse(*other))),
    };
    let mut all: Vec<_> = confusion.iter().enumerate().map(figures).collect();
    let recall = |c: &ClassFigures| c.recall().unwrap_or(f64::INFINITY);
    all.sort_by(|a, b| recall(a).total_cmp(&recall(b)));
    all
}

/// The `most` most frequent `(class, answer, pictures)` with a wrong answer.
pub(super) fn confused(confusion: &[Vec<usize>], most: usize) -> Vec<(usize, usize, usize)> {
    let of = |(class, row): (usize, &'_ Vec<usize>)| {
        mistakes(class, row).map(|(answer, n)| (class, answer, n)).collect::<Vec<_>>()
    };
    let mut pairs: Vec<_> = confusion.iter().enumerate().flat_map(of).collect();
    pairs.sort_by_key(|(class, answer, n)| (Reverse(*n), *class, *answer));
    pairs.truncate(most);
    pairs
}

/// The wrong answers of a row that occurred.
fn mistakes(class: usize, row: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let cells = row.iter().copied().enumerate();
    cells.filter(move |(answer, n)| *answer != class && *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_equal_the_hand_computed_ones() {
        // Class 0: 3 of 4 found; 5 pictures were taken for it. Class 2 has no pictures.
        let confusion = [vec![3, 1, 0], vec![2, 2, 1], vec![0, 0, 0]];
        let figures = worst_first(&confusion);
        assert_eq!(figures.iter().map(|f| f.class).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(figures[0].recall(), Some(0.4));
        assert_eq!(figures[0].precision(), Some(2.0 / 3.0));
        assert_eq!(figures[0].taken_for, Some((0, 2)));
        assert_eq!((figures[1].recall(), figures[1].precision()), (Some(0.75), Some(0.6)));
        assert_eq!((figures[2].recall(), figures[2].precision()), (None, Some(0.0)));
        assert_eq!(figures[2].taken_for, None);
        assert_eq!(confused(&confusion, 2), [(1, 0, 2), (0, 1, 1)]);
    }
}
