//! Coefficients from counts: non-negative least squares of relative errors.

use super::terms::{TERMS, Terms};

/// An operator that was counted.
#[derive(Debug, Clone)]
pub struct Row {
    /// How often its loops run.
    pub terms: Terms,
    /// Instructions.
    pub count: f64,
}

/// Coefficients, not negative, that make the relative errors of `rows` least, a row weighing as its share
/// of instructions.
///
/// Coordinate descent; terms that no row has get 0.
pub fn fit(rows: &[Row]) -> Terms {
    /// Rounds; the error changes in its tenth digit by then.
    const ROUNDS: usize = 200_000;
    // Weighs 1 / count² · count.
    let weight = |row: &Row| 1.0 / row.count.max(1.0);
    let mut gram = [[0.0; TERMS.len()]; TERMS.len()];
    let mut target = [0.0; TERMS.len()];
    for row in rows {
        for ((target, gram), term) in target.iter_mut().zip(&mut gram).zip(row.terms) {
            *target += weight(row) * term * row.count;
            gram.iter_mut()
                .zip(row.terms)
                .for_each(|(to, other)| *to += weight(row) * term * other);
        }
    }
    let mut x = [0.0; TERMS.len()];
    for _ in 0..ROUNDS {
        for i in 0..TERMS.len() {
            if gram[i][i] > 0.0 {
                let rest: f64 = (0..TERMS.len()).map(|j| gram[i][j] * x[j]).sum();
                x[i] = f64::max(0.0, x[i] + (target[i] - rest) / gram[i][i]);
            }
        }
    }
    x
}
