//! What is to be known of a data set beside what reading it says: what costs nothing to find out.

use super::Dataset;
use std::collections::{HashMap, HashSet};

/// So many times as many pictures of one class as of another are worth saying.
const IMBALANCE: usize = 5;

impl Dataset {
    /// At most two lines, none of which [`notes`](Self::notes) say: classes that are much smaller than
    /// others, and files that are there more than once.
    pub fn checkup(&self) -> Vec<String> {
        self.imbalance().into_iter().chain(self.copies()).collect()
    }

    fn imbalance(&self) -> Option<String> {
        let counts = self.train.counts(self.labels.len());
        let named = || self.labels.iter().zip(&counts).filter(|(_, count)| **count > 0);
        let (most, many) = named().max_by_key(|(_, count)| **count)?;
        let (fewest, few) = named().min_by_key(|(_, count)| **count)?;
        (*many >= IMBALANCE * few).then(|| {
            format!(
                "`{most}` has {many} training pictures and `{fewest}` {few}: add some of these, or \
                 pass --class-weights balanced"
            )
        })
    }

    /// Those within a class, and between the test and all others.
    fn copies(&self) -> Option<String> {
        let mut seen = HashSet::new();
        let again =
            |(digest, label): &(&u64, &u32)| !seen.insert((**digest, **label));
        let repeated = self.train.digests.iter().zip(&self.train.labels).filter(again).count();
        let others: HashMap<u64, ()> =
            [&self.train, &self.val].iter().flat_map(|p| &p.digests).map(|d| (*d, ())).collect();
        let told = self.test.digests.iter().filter(|digest| others.contains_key(digest)).count();
        let mut parts = Vec::new();
        if repeated > 0 {
            let noun = if repeated == 1 { "picture is" } else { "pictures are" };
            parts.push(format!("{repeated} training {noun} there once more in the same class"));
        }
        if told > 0 {
            let noun = if told == 1 { "picture is" } else { "pictures are" };
            parts.push(format!("{told} test {noun} known from training or validation"));
        }
        (!parts.is_empty()).then(|| format!("{}: `trainer doctor` names them", parts.join(", ")))
    }
}
