//! Text out of files, which may be anything, shown to people.

use core::fmt::{self, Write};

/// Shows text as it is, but for characters that a terminal or a page would obey: those are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = 0;
        for c in self.0.chars() {
            if is_obeyed(c) {
                write!(f, "{}", c.escape_unicode())?;
                shown += c.escape_unicode().count();
            } else {
                f.write_char(c)?;
                shown += 1;
            }
        }
        // As wide as was asked for, left-aligned: names stand in tables.
        for _ in shown..f.width().unwrap_or(0) {
            f.write_char(' ')?;
        }
        Ok(())
    }
}

/// As [`Plain`], of text of several lines: their ends are kept.
#[derive(Debug, Clone, Copy)]
pub struct PlainLines<'a>(pub &'a str);

impl fmt::Display for PlainLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.0.split('\n').enumerate() {
            write!(f, "{}{}", if i > 0 { "\n" } else { "" }, Plain(line))?;
        }
        Ok(())
    }
}

/// Shows JSON, which reads back as the same value: `\u` escapes for what a terminal would obey.
#[derive(Debug, Clone, Copy)]
pub struct PlainJson<'a>(pub &'a str);

impl fmt::Display for PlainJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // All such characters have 16 bits, and but for line ends are only found inside strings.
            match is_obeyed(c) && c != '\n' {
                true => write!(f, "\\u{:04x}", u32::from(c))?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// [`Plain`] as a method.
pub trait AsPlain {
    /// Shows the text without what would be obeyed.
    fn plain(&self) -> Plain<'_>;
}

impl AsPlain for str {
    fn plain(&self) -> Plain<'_> {
        Plain(self)
    }
}

/// Whether `c` changes what is shown around it: control characters, line separators and marks of
/// writing direction.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn names_are_shown_as_they_are() {
        for name in ["it's", "\"quoted\" \\ back", "größe 猫 🐈", "e\u{301}"] {
            assert_eq!(format!("{}", name.plain()), name);
        }
        let nasty = "a\u{1b}[31m\u{202e}\n\0\u{9b}\u{7f}\u{feff}";
        let shown = r"a\u{1b}[31m\u{202e}\u{a}\u{0}\u{9b}\u{7f}\u{feff}";
        assert_eq!(format!("{}", nasty.plain()), shown);
        assert_eq!(format!("{:6}|{:2}|", "it's".plain(), "it's".plain()), "it's  |it's|");
    }

    #[test]
    fn lines_and_json_keep_what_they_are_made_of() {
        let nasty = "{\n \"a\u{1b}\u{202e}\u{9b}\": 1\n}";
        assert_eq!(format!("{}", PlainLines(nasty)), "{\n \"a\\u{1b}\\u{202e}\\u{9b}\": 1\n}");
        assert_eq!(format!("{}", PlainJson(nasty)), "{\n \"a\\u001b\\u202e\\u009b\": 1\n}");
    }
}
