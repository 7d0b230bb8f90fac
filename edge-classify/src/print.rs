//! Text that a terminal may be shown, and JSON.

pub(crate) use runtime::text::Plain;

use runtime::text::PlainJson;
use serde::Serialize;
use std::io::{self, Write};

/// Writes one JSON value on one line, harmless on a terminal.
pub(crate) fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    write!(out, "{}", PlainJson(&serde_json::to_string(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::text::is_obeyed;

    const NASTY: &str = "a\u{1b}[31m\u{202e}\n\0\u{9b}é猫\u{7f}";

    #[test]
    fn plain_text_has_nothing_to_obey() {
        let text = Plain(NASTY).to_string();
        assert_eq!(text, "a\\u{1b}[31m\\u{202e}\\u{a}\\u{0}\\u{9b}é猫\\u{7f}");
    }

    #[test]
    fn json_reads_back() {
        let mut out = Vec::new();
        json(&mut out, &[NASTY]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(is_obeyed));
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [NASTY]);
    }
}
