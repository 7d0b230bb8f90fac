//! Statistics by which a device tells pictures that are like none of the calibration, see [`artifact::known`].
//!
//! They are those of the very bytes that the device computes. Rows are the classes that the model itself names,
//! so that labels are not needed. Variances are shared by all rows, and never less than a share of the mean one:
//! of a channel that hardly moved, few pictures say little.
//!
//! The threshold is a quantile of distances to the statistics of *other* pictures (cross-validation): within
//! its own statistics, each picture is closer than any new one will be.

use super::calibrate::{CalibrationError, for_each_value};
use artifact::known::distance;
use artifact::writer::{Statistics, with_known};
use artifact::{Artifact, ArtifactError, Dtype};
use serde::Serialize;

/// Fewest pictures that statistics are made of.
const LEAST: usize = 10;
/// Below this, the threshold is a guess.
const FEW: usize = 50;
/// Parts of the pictures, each of which is measured by the statistics of the others.
const FOLDS: usize = 10;
/// Most bytes of means and weights, unless one mean alone takes more.
const MAX_BYTES: usize = 4096;

/// The share of known pictures that may be taken for unknown, 0.001..=0.2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

impl core::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        match percent {
            Some(percent) if (0.1..=20.0).contains(&percent) => Ok(Self(percent / 100.0)),
            _ => Err("want a share of pictures from 0.1% to 20%, such as 1%".into()),
        }
    }
}

/// Why a model cannot tell unknown pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownError {
    /// The device file is not readable.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// It does not run.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Too little to measure on.
    #[error(
        "--unknown wants at least {LEAST} calibration pictures, there are {have}; pass --calibration DIR with \
         photos like those it will see"
    )]
    TooFew {
        /// Pictures.
        have: usize,
    },
    /// The last layer reads no pooled features.
    #[error(
        "--unknown wants a last layer that reads one pixel of int8 and leaves it as it is; here it is {found}; \
         leave --unknown out, or keep the last layers out of --float-layers"
    )]
    NoFeatures {
        /// What the last layer is and reads.
        found: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unknown {
    /// Pictures that the statistics are of.
    pub pictures: usize,
    /// Mean features.
    pub rows: usize,
    /// Features of a picture.
    pub features: usize,
    /// Bytes of means and weights.
    pub bytes: usize,
    /// The largest distance of what is known.
    pub threshold: u64,
    /// The share asked for.
    pub rate: f64,
    /// The share of pictures beyond a threshold that was chosen without them.
    pub false_alarms: f64,
    /// Classes, in index order, of which no two pictures were there, so that they have no mean.
    pub missing: Vec<usize>,
}

impl Unknown {
    /// One line for people.
    pub fn text(&self) -> String {
        format!(
            "unknown pictures: {} from {} pictures; {:.1} % of them are beyond a threshold that was chosen without \
             them ({:.1} % asked for)",
            describe_means(self.rows, self.features, self.bytes),
            self.pictures,
            self.false_alarms * 100.0,
            self.rate * 100.0
        )
    }

    /// What is to be known of it, a line each; `labels` are the model's.
    pub fn warnings(&self, labels: &[String]) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.pictures < FEW {
            warnings.push(format!(
                "{} pictures are few to tell unknown ones by; pass --calibration DIR with {FEW} or more",
                self.pictures
            ));
        }
        if let Some(first) = self.missing.first().and_then(|&class| labels.get(class)) {
            let more = match self.missing.len() {
                1 => String::new(),
                n => format!(" and {} other classes", n - 1),
            };
            warnings.push(format!(
                "fewer than two calibration pictures look like {first}{more}: such pictures may count as unknown"
            ));
        }
        warnings
    }
}

/// Statistics in words: rows of features, and the bytes that they take with their weights.
pub(crate) fn describe_means(rows: usize, features: usize, bytes: usize) -> String {
    let means = if rows == 1 { "one mean".into() } else { format!("{rows} class means") };
    format!("{means} of {features} features ({bytes} bytes)")
}

/// What the device computes of a picture.
struct Seen {
    /// What its last operator reads.
    features: Vec<i8>,
    /// The class that it names; then the row that it belongs to.
    row: usize,
}

/// An int8 device file that can tell unknown pictures, and what came of it. `pictures` are inputs, NHWC,
/// normalized; `progress` is called after each one with the number done and the total.
///
/// # Errors
/// Too few pictures, a last operator that reads no pixel of int8, an unusable file.
pub fn tell_unknown(
    edge: &[u8],
    pictures: &[Vec<f32>],
    rate: Rate,
    mut progress: impl FnMut(usize, usize),
) -> Result<(Vec<u8>, Unknown), UnknownError> {
    if pictures.len() < LEAST {
        return Err(UnknownError::TooFew { have: pictures.len() });
    }
    check(edge)?;
    let mut seen = observe(edge, pictures, |done| progress(done, pictures.len()))?;
    let classes = Artifact::parse(edge)?.meta().label_count as usize;
    let missing = assign_rows(&mut seen, classes);
    let rows = seen.iter().map(|s| s.row + 1).max().unwrap_or(1);
    let whole = Fit::new(seen.iter(), rows, None);
    let held_out = held_out(&seen, rows, whole.unit);
    let all: Vec<u64> = held_out.iter().flatten().copied().collect();
    let threshold = quantile(all.clone(), rate).max(1);
    let alarms: usize = (held_out.iter().enumerate())
        .map(|(fold, distances)| {
            let others = held_out.iter().enumerate().filter(|(other, _)| *other != fold);
            let limit = quantile(others.flat_map(|(_, d)| d).copied().collect(), rate);
            distances.iter().filter(|d| **d > limit).count()
        })
        .sum();
    let usual = (all.iter().sum::<u64>() / all.len() as u64).max(1);
    let unknown = Unknown {
        pictures: seen.len(),
        rows,
        features: whole.weights.len(),
        bytes: whole.means.len() + whole.weights.len(),
        threshold,
        rate: rate.0,
        false_alarms: alarms as f64 / all.len() as f64,
        missing: if rows > 1 { missing } else { Vec::new() },
    };
    let Fit { means, weights, .. } = whole;
    Ok((with_known(edge, &Statistics { means, weights, threshold, usual })?, unknown))
}

/// Refuses a file whose last operator reads no pixel of int8 that is there when it has run.
fn check(edge: &[u8]) -> Result<(), UnknownError> {
    let artifact = Artifact::parse(edge)?;
    let header = artifact.header();
    let Some(last) = artifact.ops().last() else { return Err(ArtifactError::NoOutput.into()) };
    let (input, shape) = (last.input(), last.input().shape);
    let one = [1u8].repeat(usize::from(shape.c));
    // The reader knows what else would be wrong.
    let probe = Statistics { means: vec![0; one.len()], weights: one, threshold: 1, usual: 1 };
    if input.dtype(header.dtype) == Dtype::I8 && with_known(edge, &probe).is_ok() {
        return Ok(());
    }
    let format = if input.dtype(header.dtype) == Dtype::I8 { "int8" } else { "floats" };
    let found = format!("`{}` of {}×{}×{} in {format}", last.name(), shape.h, shape.w, shape.c);
    Err(UnknownError::NoFeatures { found })
}

/// Runs the file on each picture.
fn observe(
    edge: &[u8],
    pictures: &[Vec<f32>],
    done: impl FnMut(usize),
) -> Result<Vec<Seen>, UnknownError> {
    let artifact = Artifact::parse(edge)?;
    let Some(place) = artifact.ops().last().map(|op| op.input()) else {
        return Err(ArtifactError::NoOutput.into());
    };
    let last = artifact.header().op_count;
    let mut seen: Vec<Seen> = Vec::with_capacity(pictures.len());
    let mut features = Vec::new();
    for_each_value(
        edge,
        pictures,
        |_, value| {
            if value.index == last {
                let mut best = (0, f32::NEG_INFINITY);
                for (class, logit) in value.iter().enumerate() {
                    best = if logit > best.1 { (class, logit) } else { best };
                }
                seen.push(Seen { features: core::mem::take(&mut features), row: best.0 });
            } else if value.place == place {
                features = value.iter().map(|v| place.quant.quantize(v)).collect();
            }
            Ok(())
        },
        done,
    )?;
    Ok(seen)
}

/// Turns classes into rows: one for each class of which there are two pictures, or one for all where there
/// would be too many or none. Returns the classes that have none.
fn assign_rows(seen: &mut [Seen], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    seen.iter().for_each(|s| counts[s.row] += 1);
    let (present, missing): (Vec<usize>, Vec<usize>) =
        (0..classes).partition(|&class| counts[class] > 1);
    let features = seen.first().map_or(0, |s| s.features.len());
    let is_shared = present.is_empty() || (present.len() + 1) * features > MAX_BYTES;
    for s in &mut *seen {
        // Of a class with one picture, it is near some other row, or far from all.
        let row = present.iter().position(|&class| class == s.row).unwrap_or(0);
        s.row = if is_shared { 0 } else { row };
    }
    missing
}

/// Statistics of some pictures.
struct Fit {
    means: Vec<i8>,
    weights: Vec<u8>,
    /// Weight of an inverse variance of one.
    unit: f64,
}

impl Fit {
    /// Statistics in `unit`, or in the one that makes the largest weight 255.
    fn new<'s>(
        seen: impl Iterator<Item = &'s Seen> + Clone,
        rows: usize,
        unit: Option<f64>,
    ) -> Self {
        /// Rounding of features and means to whole steps, `1/12` each.
        const ROUNDING: f64 = 1.0 / 6.0;
        /// Of the mean variance, what is added to each.
        const SHARE: f64 = 0.1;
        let channels = seen.clone().next().map_or(0, |s| s.features.len());
        let mut counts = vec![0usize; rows];
        let mut sums = vec![0i64; rows * channels];
        for s in seen.clone() {
            counts[s.row] += 1;
            let sums = &mut sums[s.row * channels..][..channels];
            sums.iter_mut().zip(&s.features).for_each(|(sum, &x)| *sum += i64::from(x));
        }
        let mean = |i: usize| sums[i] as f64 / counts[i / channels].max(1) as f64;
        let means: Vec<f64> = (0..sums.len()).map(mean).collect();
        let mut squares = vec![0.0; channels];
        for s in seen.clone() {
            let means = &means[s.row * channels..][..channels];
            for ((square, &x), mean) in squares.iter_mut().zip(&s.features).zip(means) {
                *square += (f64::from(x) - mean).powi(2);
            }
        }
        let freedom = seen.count().saturating_sub(rows).max(1) as f64;
        let least = ROUNDING + SHARE * squares.iter().sum::<f64>() / freedom / channels as f64;
        let inverse: Vec<f64> = squares.iter().map(|s| 1.0 / (s / freedom + least)).collect();
        let unit = unit
            .unwrap_or_else(|| 255.0 / inverse.iter().fold(f64::MIN_POSITIVE, |a, b| a.max(*b)));
        Self {
            means: means.iter().map(|m| m.round() as i8).collect(),
            weights: inverse.iter().map(|i| (i * unit).round() as u8).collect(),
            unit,
        }
    }

    fn distance(&self, features: &[i8]) -> u64 {
        let bytes =
            |numbers: &[i8]| -> Vec<u8> { numbers.iter().map(|n| n.cast_unsigned()).collect() };
        distance(&bytes(features), 0, &bytes(&self.means), &self.weights)
    }
}

/// Distances of the pictures of each fold to the statistics of all others.
fn held_out(seen: &[Seen], rows: usize, unit: f64) -> Vec<Vec<u64>> {
    // In turn within each row, so that every fold has some of all.
    let mut next = vec![0; rows];
    let folds: Vec<usize> = seen
        .iter()
        .map(|s| {
            next[s.row] += 1;
            (next[s.row] + s.row) % FOLDS
        })
        .collect();
    let fold = |fold: usize| {
        let part = |is_in: bool| {
            seen.iter().zip(&folds).filter(move |(_, f)| (**f == fold) == is_in).map(|(s, _)| s)
        };
        let others = Fit::new(part(false), rows, Some(unit));
        part(true).map(|s| others.distance(&s.features)).collect()
    };
    (0..FOLDS).map(fold).collect()
}

/// The distance that at most a share `rate` of new pictures exceeds, as far as `distances` can tell: of `n`, one
/// of `n + 1` places is the next one's, each as likely.
fn quantile(mut distances: Vec<u64>, rate: Rate) -> u64 {
    distances.sort_unstable();
    let rank = ((distances.len() + 1) as f64 * (1.0 - rate.0)).ceil() as usize;
    distances.get(rank.clamp(1, distances.len().max(1)) - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shares_in_percent() {
        for (text, want) in [("1%", 0.01), ("0.1%", 0.001), ("20 %", 0.2)] {
            let Rate(rate) = text.parse().unwrap();
            assert!((rate - want).abs() < 1e-12, "{text}");
        }
        for text in ["1", "0%", "0.05%", "21%", "-1%", "NaN%", "", "%", "one%"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn quantiles_count_the_picture_that_is_to_come() {
        let distances = |n: u64| (1..=n).rev().collect::<Vec<u64>>();
        for (n, rate, want) in [(99, 0.01, 99), (199, 0.01, 198), (65, 0.01, 65), (9, 0.2, 8)] {
            assert_eq!(quantile(distances(n), Rate(rate)), want, "{n} {rate}");
        }
        assert_eq!(quantile(Vec::new(), Rate(0.01)), 0);
    }

    /// Pictures of two classes; the second channel varies ten times as much as the first, the third never.
    fn pictures() -> Vec<Seen> {
        let one = |i: i32| {
            let (row, step) = ((i % 2) as usize, (i / 2 % 5 - 2) as i8);
            Seen { features: vec![row as i8 * 50 + step, step * 10, 3], row }
        };
        (0..60).map(one).collect()
    }

    #[test]
    fn classes_become_rows_as_far_as_there_is_room() {
        let mut seen = pictures();
        assert!(assign_rows(&mut seen, 3) == [2] && seen[1].row == 1);
        let fit = Fit::new(seen.iter(), 2, None);
        assert_eq!(fit.means, [0, 0, 3, 50, 0, 3]);
        assert!(fit.weights[2] == 255 && fit.weights[0] > fit.weights[1], "{:?}", fit.weights);
        assert_eq!(fit.distance(&[50, 0, 3]), 0);
        let distances = held_out(&seen, 2, fit.unit);
        assert_eq!(distances.iter().map(Vec::len).sum::<usize>(), seen.len());
        let far = fit.distance(&[25, 0, 3]);
        assert!(distances.iter().flatten().all(|d| *d < far), "{distances:?}, {far}");
        // A class of one picture has no row of its own; many classes of many channels share one.
        seen[0].row = 2;
        assert_eq!(assign_rows(&mut seen, 3), [2]);
        assert!(seen.iter().all(|s| s.row < 2));
        let wide = |row| Seen { features: vec![0; 1500], row };
        let mut seen: Vec<Seen> = (0..10).map(|i| wide(i % 2)).collect();
        assert!(assign_rows(&mut seen, 2).is_empty() && seen.iter().all(|s| s.row == 0));
    }
}
