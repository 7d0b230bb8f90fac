//! What somebody may have meant who wrote a name that is not known.

/// From which likeness on, 0..=1, a name is worth asking for.
const ENOUGH: f64 = 0.8;

/// The one of the `known` names that is most like `typed`, if any is like it.
pub fn nearest<T: AsRef<str>>(typed: &str, known: impl IntoIterator<Item = T>) -> Option<T> {
    let likeness = |name: &T| strsim::jaro(&typed.to_lowercase(), &name.as_ref().to_lowercase());
    let all = known.into_iter().map(|name| (likeness(&name), name));
    let like = all.filter(|(likeness, _)| *likeness >= ENOUGH);
    like.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, name)| name)
}

/// A question that follows an error: ` (did you mean resnet_18?)`, or nothing.
pub fn suggestion<T: AsRef<str>>(typed: &str, known: impl IntoIterator<Item = T>) -> String {
    let name = nearest(typed, known);
    name.map_or(String::new(), |name| format!(" (did you mean {}?)", name.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_like_a_name_is_taken_for_it() {
        let known = ["resnet_18", "resnet_50", "mobilenet_v2", "stem.conv"];
        for (typed, want) in [
            ("resnt_18", Some("resnet_18")),
            ("ResNet-50", Some("resnet_50")),
            ("mobilnetv2", Some("mobilenet_v2")),
            ("stem_conv", Some("stem.conv")),
            ("", None),
            ("vit", None),
        ] {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
        assert_eq!(suggestion("resnt_18", known), " (did you mean resnet_18?)");
        assert_eq!(suggestion("vit", known), "");
    }
}
