//! The nearest of many vectors, without comparing all with all.
//!
//! Every vector belongs to the cell of the pivot that is nearest to it, one of as many pictures
//! drawn at random as there are cells, and is compared with those of a few cells alone. For `n` vectors
//! in cells of about [`CELL`] that are `n · (n / CELL + PROBED · CELL)` products of the vectors'
//! length: of 100,000 vectors of 64 numbers 20 · 10⁹ multiplications, some seconds. Up to [`CELL`] vectors
//! are one cell, and nothing is missed.

use network::random::Rng;
use rayon::prelude::*;

/// Vectors of a cell, about.
const CELL: usize = 1024;
/// Cells that are searched for each vector.
const PROBED: usize = 3;

/// For each of the vectors `[n, width]`, all of one length, up to `most` others with the largest
/// products, the largest first.
pub(super) fn nearest(vectors: &[f32], width: usize, most: usize) -> Vec<Vec<u32>> {
    let rows: Vec<&[f32]> = vectors.chunks_exact(width.max(1)).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    Rng::keyed(&[rows.len() as u64]).shuffle(&mut order);
    let pivots: Vec<usize> = order.into_iter().take(rows.len().div_ceil(CELL)).collect();
    let near: Vec<Vec<u32>> = rows
        .par_iter()
        .map(|row| best(row, pivots.iter().map(|p| rows[*p]).zip(0..), PROBED))
        .collect();
    let mut cells = vec![Vec::new(); pivots.len()];
    for (i, near) in near.iter().enumerate() {
        if let Some(cell) = near.first() {
            cells[*cell as usize].push(i as u32);
        }
    }
    let search = |(i, near): (usize, &Vec<u32>)| {
        let members = near.iter().flat_map(|cell| &cells[*cell as usize]);
        let others = members.filter(|other| **other as usize != i);
        best(rows[i], others.map(|other| (rows[*other as usize], *other)), most)
    };
    near.par_iter().enumerate().map(search).collect()
}

/// The numbers of up to `most` rows with the largest products with `with`, the largest first.
fn best<'a>(with: &[f32], rows: impl Iterator<Item = (&'a [f32], u32)>, most: usize) -> Vec<u32> {
    let mut found: Vec<(f32, u32)> = Vec::with_capacity(most + 1);
    for (row, number) in rows {
        let product = product(with, row);
        if found.len() == most && found.last().is_some_and(|last| last.0 >= product) {
            continue;
        }
        let place = found.partition_point(|(other, _)| *other >= product);
        found.insert(place, (product, number));
        found.truncate(most);
    }
    found.into_iter().map(|(_, number)| number).collect()
}

/// The sum of products, in eight parts so that the compiler makes vectors of them.
pub(super) fn product(a: &[f32], b: &[f32]) -> f32 {
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors in pairs that are close together.
    fn pairs(count: usize, width: usize) -> Vec<f32> {
        let mut rng = Rng::keyed(&[3]);
        let mut vectors = Vec::new();
        for _ in 0..count {
            let base: Vec<f64> = (0..width).map(|_| rng.normal()).collect();
            for _ in 0..2 {
                let near: Vec<f64> = base.iter().map(|v| v + 0.1 * rng.normal()).collect();
                let length = near.iter().map(|v| v * v).sum::<f64>().sqrt();
                vectors.extend(near.iter().map(|v| (v / length) as f32));
            }
        }
        vectors
    }

    #[test]
    fn partners_are_found_in_one_cell_and_in_many() {
        for (count, least) in [(1, 1.0), (100, 1.0), (4 * CELL, 0.95)] {
            let found = nearest(&pairs(count, 16), 16, 3);
            let right = |(i, near): &(usize, &Vec<u32>)| near.first() == Some(&(*i as u32 ^ 1));
            let right = found.iter().enumerate().filter(right).count();
            assert!(right as f64 >= least * 2.0 * count as f64, "{right} of {}", 2 * count);
            assert!(found.iter().all(|near| near.len() == 3.min(2 * count - 1)));
        }
        assert!(nearest(&[], 4, 3).is_empty());
        assert_eq!(nearest(&[1.0, 0.0], 2, 3), [[0u32; 0]]);
    }
}
