//! Which pictures of each batch one of several processes computes.
//!
//! A batch is shared by pairs of pictures as far from its start as from its end, because those
//! are what mixing blends: no process has to make a picture that it does not compute. Where
//! there are fewer than two pictures for each process, which statistics of its own need, every
//! process computes the whole batch, and all count an equal part of it.

use anyhow::ensure;

/// One process's share of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Number of the process, from 0.
    pub rank: usize,
    /// Processes that share a batch.
    pub processes: usize,
}

impl Share {
    /// Of a process that is alone.
    pub const WHOLE: Self = Self { rank: 0, processes: 1 };

    /// Whether `batch` pictures are enough.
    ///
    /// # Errors
    /// Fewer than two for each process.
    pub fn check(self, batch: usize) -> anyhow::Result<()> {
        ensure!(
            batch >= 2 * self.processes,
            "--batch {batch} shared by {} processes: each needs at least 2 pictures for batch \
             statistics; pass --batch {} or more, or start fewer processes",
            self.processes,
            2 * self.processes
        );
        Ok(())
    }

    /// Places of this process's pictures in a batch of `count`, from 0, rising. The picture as
    /// far from the end of this list is also the one as far from the end of the batch.
    pub fn places(self, count: usize) -> Vec<usize> {
        if self.everyone_computes(count) {
            return (0..count).collect();
        }
        let pairs = count / 2;
        let bound = |rank| rank * pairs / self.processes;
        let front = bound(self.rank)..bound(self.rank + 1);
        // The first process never has more pairs than another.
        let middle = (count % 2 == 1 && self.rank == 0).then_some(pairs);
        let back = front.clone().rev().map(|place| count - 1 - place);
        front.chain(middle).chain(back).collect()
    }

    /// Pictures that all processes together compute for a batch of `count`, the same one
    /// counted once for each that computes it.
    pub fn computed(self, count: usize) -> usize {
        if self.everyone_computes(count) { count * self.processes } else { count }
    }

    fn everyone_computes(self, count: usize) -> bool {
        count < 2 * self.processes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_the_batch_and_are_symmetric() {
        for processes in 1..9 {
            for count in 0..70 {
                let share = |rank| Share { rank, processes };
                let mut all = Vec::new();
                let mut sizes = Vec::new();
                for rank in 0..processes {
                    let places = share(rank).places(count);
                    for (place, partner) in places.iter().zip(places.iter().rev()) {
                        assert_eq!(place + partner, count - 1, "{places:?} of {count}");
                    }
                    sizes.push(places.len());
                    all.extend(places);
                }
                assert_eq!(all.len(), share(0).computed(count));
                let (least, most) = (sizes.iter().min(), sizes.iter().max());
                assert!(most.zip(least).is_some_and(|(m, l)| m - l <= 2), "{sizes:?}");
                if count < 2 * processes {
                    assert!(share(0).check(count).is_err());
                    assert!(sizes.iter().all(|size| *size == count), "{sizes:?}");
                    continue;
                }
                assert!(share(0).check(count).is_ok());
                assert!(sizes.iter().all(|size| *size >= 2), "{sizes:?}");
                all.sort_unstable();
                assert!(all.into_iter().eq(0..count));
            }
        }
    }

    #[test]
    fn one_process_computes_the_batch_as_it_is() {
        for count in 0..9 {
            assert!(Share::WHOLE.places(count).into_iter().eq(0..count));
        }
    }
}
