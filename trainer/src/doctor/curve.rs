//! What more pictures would bring: accuracy with a quarter, a half and all of them, and the power law
//! `error = a · pictures^−c` through these (Hestness et al., *Deep Learning Scaling is Predictable*,
//! 2017). How sure that is follows from drawing the pictures anew, many times.

use super::folds::Verdict;
use network::random::{Rng, fnv1a};
use serde::Serialize;

/// Shares of the pictures that heads are fitted to.
pub(super) const SHARES: [f64; 3] = [0.25, 0.5, 1.0];
/// What is to be gained: one point of a hundred.
const POINT: f64 = 0.01;
/// How often the pictures are drawn anew.
const DRAWS: usize = 400;
/// Fewer pictures than that tell no curve.
const FEWEST: usize = 40;
/// As many times more pictures are no advice any more.
const MOST_TIMES: f64 = 20.0;

/// Accuracy with some of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Pictures that heads were fitted to.
    pub(crate) pictures: f64,
    /// Share right of the others, 0..=1.
    pub(crate) accuracy: f64,
    /// Half of the interval that has the accuracy on others of their kind with 95 %.
    pub(crate) error: f64,
}

/// What more pictures would bring.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Forecast {
    /// There are too few to tell.
    Unknown,
    /// Less than a point is left.
    Done,
    /// Nothing that could be told from chance, or not before there are many times as many.
    Flat,
    /// One point more with that many more pictures, in the median; 80 % of the draws lie between `low`
    /// and `high`.
    More {
        /// Pictures.
        pictures: f64,
        /// Pictures.
        low: f64,
        /// Pictures.
        high: f64,
    },
}

/// Accuracy over the number of pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Curve {
    pub(crate) points: Vec<Point>,
    pub(crate) forecast: Forecast,
}

impl Curve {
    /// Of what heads said that were fitted to so many pictures, the fewest first.
    pub(super) fn of(asked: &[(Vec<Option<Verdict>>, f64)], seed: u64) -> Self {
        let counts: Vec<f64> = asked.iter().map(|(_, fitted)| *fitted).collect();
        // Those that all heads were asked about: whether each was right.
        let pictures = asked.first().map_or(0, |(verdicts, _)| verdicts.len());
        let right = |i: usize| -> Option<Vec<bool>> {
            asked.iter().map(|(verdicts, _)| verdicts[i].map(|v| v.agrees())).collect()
        };
        let rows: Vec<Vec<bool>> = (0..pictures).filter_map(right).collect();
        let n = rows.len().max(1) as f64;
        let point = |(share, pictures): (usize, &f64)| {
            let accuracy = rows.iter().filter(|row| row[share]).count() as f64 / n;
            let error = 1.96 * (accuracy * (1.0 - accuracy) / n).sqrt();
            Point { pictures: *pictures, accuracy, error }
        };
        let points: Vec<Point> = match rows.is_empty() {
            true => Vec::new(),
            false => counts.iter().enumerate().map(point).collect(),
        };
        let forecast = forecast(&rows, &counts, seed);
        Self { points, forecast }
    }
}

fn forecast(rows: &[Vec<bool>], counts: &[f64], seed: u64) -> Forecast {
    let Some(all) = counts.last().copied() else { return Forecast::Unknown };
    if rows.len() < FEWEST || counts.len() < 2 || counts[0] * 1.5 > all {
        return Forecast::Unknown;
    }
    let wrong = |row: &&Vec<bool>| row.last() == Some(&false);
    if (rows.iter().filter(wrong).count() as f64) < POINT * rows.len() as f64 {
        return Forecast::Done;
    }
    let mut rng = Rng::keyed(&[seed, fnv1a(b"curve")]);
    let mut more: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut errors = vec![0.0; counts.len()];
            for _ in 0..rows.len() {
                let row = &rows[rng.below(rows.len())];
                let wrong = errors.iter_mut().zip(row).filter(|(_, right)| !**right);
                wrong.for_each(|(error, _)| *error += 1.0);
            }
            // Half a mistake, so that none has a logarithm, too.
            let share = |wrong: f64| (wrong + 0.5) / (rows.len() as f64 + 1.0);
            let errors: Vec<f64> = errors.into_iter().map(share).collect();
            for_a_point(counts, &errors)
        })
        .collect();
    more.sort_by(f64::total_cmp);
    let [low, pictures, high] =
        [0.1, 0.5, 0.9].map(|share| more[(share * (DRAWS - 1) as f64) as usize]);
    match high <= MOST_TIMES * all {
        true => Forecast::More { pictures, low, high },
        false => Forecast::Flat,
    }
}

/// How many more pictures than the last of `counts` make one point less of the error, by the power law that
/// is nearest to the logarithms; infinity where it does not fall.
fn for_a_point(counts: &[f64], errors: &[f64]) -> f64 {
    let xs: Vec<f64> = counts.iter().map(|count| count.max(1.0).ln()).collect();
    let ys: Vec<f64> = errors.iter().map(|error| error.ln()).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (x, y) = (mean(&xs), mean(&ys));
    let products: f64 = xs.iter().zip(&ys).map(|(a, b)| (a - x) * (b - y)).sum();
    let squares: f64 = xs.iter().map(|a| (a - x).powi(2)).sum();
    let exponent = -products / squares;
    let (Some(all), Some(last)) = (counts.last(), xs.last()) else { return f64::INFINITY };
    let error = (y - exponent * (last - x)).exp();
    if exponent <= 0.0 || exponent.is_nan() || error <= POINT {
        return f64::INFINITY;
    }
    all * ((error / (error - POINT)).powf(1.0 / exponent) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What heads fitted to 100, 200 and 400 pictures say of 1000 where so many are wrong.
    fn curve(wrong: [usize; 3]) -> Curve {
        let verdict = |is_right: bool| {
            let margin = if is_right { -2.0 } else { 2.0 };
            Some(Verdict { other: 1, probability: 0.5, margin })
        };
        let asked: Vec<_> = wrong
            .iter()
            .zip([100.0, 200.0, 400.0])
            .map(|(wrong, fitted)| ((0..1000).map(|i| verdict(i >= *wrong)).collect(), fitted))
            .collect();
        Curve::of(&asked, 1)
    }

    #[test]
    fn curves_are_followed_as_far_as_they_can_be() {
        // The error halves with each doubling: from 10 to 9 % takes 400 · (10/9 − 1) more.
        let found = curve([400, 200, 100]);
        assert_eq!(found.points[2].accuracy, 0.9);
        assert!((found.points[2].error - 0.0186).abs() < 1e-3);
        let Forecast::More { pictures, low, high } = found.forecast else { panic!("{found:?}") };
        assert!((pictures - 44.4).abs() < 5.0 && low < pictures, "{found:?}");
        assert!(high > pictures && high < 70.0, "{found:?}");
        for (wrong, want) in [
            ([100, 100, 100], Forecast::Flat),
            ([90, 100, 110], Forecast::Flat),
            ([60, 20, 9], Forecast::Done),
        ] {
            assert_eq!(curve(wrong).forecast, want, "{wrong:?}");
        }
        assert_eq!(Curve::of(&[], 1).forecast, Forecast::Unknown);
    }
}
