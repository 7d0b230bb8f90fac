//! What is to be known of a data set beside what reading it says: what costs nothing to find out.

use super::Dataset;
use std::collections::HashSet;

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
        let again = |(digest, label): &(&u64, &u32)| !seen.insert((**digest, **label));
        let repeated = self.train.digests.iter().zip(&self.train.labels).filter(again).count();
        let others: HashSet<u64> =
            [&self.train, &self.val].iter().flat_map(|p| &p.digests).copied().collect();
        let told = self.test.digests.iter().filter(|digest| others.contains(digest)).count();
        let mut parts = Vec::new();
        if repeated > 0 {
            let noun = if repeated == 1 { "picture is" } else { "pictures are" };
            parts.push(format!("{repeated} training {noun} there once more in the same class"));
        }
        if told > 0 {
            let noun = if told == 1 { "picture is" } else { "pictures are" };
            parts.push(format!("{told} test {noun} known from training or validation"));
        }
        (!parts.is_empty())
            .then(|| format!("{}: `trainer doctor DIR` names them", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use crate::{CacheSize, Dataset, ReadOptions};
    use artifact::Preprocess;
    use std::path::Path;

    /// So many pictures of a class in a part, of other colors in each part.
    fn pictures(root: &Path, part: &str, class: &str, count: u8) {
        let folder = root.join(part).join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..count {
            let color = image::Rgb([i, class.len() as u8, part.len() as u8]);
            image::RgbImage::from_pixel(9, 9, color).save(folder.join(format!("{i}.png"))).unwrap();
        }
    }

    fn checkup(root: &Path) -> Vec<String> {
        let preprocess = Preprocess::raw(8, 8);
        let options = ReadOptions {
            preprocess,
            val_split: 0.0,
            seed: 0,
            classes: None,
            cache: CacheSize::Auto,
        };
        Dataset::read(root, &options).unwrap().checkup()
    }

    #[test]
    fn two_lines_say_what_is_cheap_to_find() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (part, classes) in
            [("train", [("cat", 8), ("doggy", 8)]), ("test", [("cat", 2), ("doggy", 2)])]
        {
            classes.into_iter().for_each(|(class, count)| pictures(root, part, class, count));
        }
        assert!(checkup(root).is_empty());
        std::fs::copy(root.join("train/cat/0.png"), root.join("train/cat/again.png")).unwrap();
        std::fs::copy(root.join("train/cat/0.png"), root.join("test/cat/again.png")).unwrap();
        pictures(root, "train", "doggy", 60);
        let said = checkup(root);
        let [imbalance, copies] = &said[..] else { panic!("{said:?}") };
        for what in ["`doggy` has 60 training pictures and `cat` 9", "--class-weights balanced"] {
            assert!(imbalance.contains(what), "{imbalance}");
        }
        for what in ["1 training picture is there once more", "1 test picture is known"] {
            assert!(copies.contains(what), "{copies}");
        }
        // What no run would begin with is there to be looked at.
        std::fs::create_dir(root.join("train/fox")).unwrap();
        let options = ReadOptions {
            preprocess: Preprocess::raw(8, 8),
            val_split: 0.2,
            seed: 0,
            classes: None,
            cache: CacheSize::Auto,
        };
        assert!(Dataset::read(root, &options).is_err());
        let data = Dataset::examine(root, &options, &|_, _| ()).unwrap();
        assert_eq!((data.labels.len(), data.train.len(), data.val.len()), (3, 69, 0));
        assert_eq!(data.train.sizes[0], [9, 9]);
    }
}
