//! The thousand classes of ImageNet, in the order of every pretrained head.

use std::collections::HashMap;

/// Lines of `index`, WordNet id and name, tab-separated, after one of headings.
static TABLE: &str = include_str!("../data/imagenet_classes.tsv");

/// WordNet id and name of each class, in index order. Two names stand twice (crane, maillot).
pub fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().skip(1).filter_map(|line| {
        let mut fields = line.split('\t').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

/// A label for each class: its name, with the WordNet id where a name stands twice.
pub fn labels() -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    classes().for_each(|(_, name)| *count.entry(name).or_default() += 1);
    let label = |(id, name): (&str, &'static str)| match count[name] {
        1 => name.to_owned(),
        _ => format!("{name} ({id})"),
    };
    classes().map(label).collect()
}

/// Labels for a head that brings none: ImageNet's for a thousand classes, and for one more, with which
/// TensorFlow's networks have "background" before them; else numbers.
pub fn labels_of(classes: usize) -> Vec<String> {
    match classes {
        1000 => labels(),
        1001 => core::iter::once("background".into()).chain(labels()).collect(),
        n => (0..n).map(|i| format!("class {i}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_thousand_different_labels() {
        let labels = labels();
        assert_eq!(labels.len(), 1000);
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!((labels[0].as_str(), labels[283].as_str()), ("tench", "Persian_cat"));
        assert_eq!(labels[134], "crane (n02012849)");
        assert_eq!(classes().nth(283), Some(("n02123394", "Persian_cat")));
    }
}
