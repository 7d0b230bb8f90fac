//! Text that a terminal may be shown, and JSON.

pub(crate) use runtime::text::Plain;

use runtime::text::is_obeyed;
use serde::Serialize;
use std::io::{self, Write};

/// Writes one JSON value on one line, with `\u` escapes as in [`Plain`]: it reads back as the
/// same value, and is harmless on a terminal.
pub(crate) fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        // All such characters have 16 bits, and are only found inside strings.
        if is_obeyed(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    out.write_all(escaped.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

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
