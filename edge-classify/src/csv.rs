//! Tables for spreadsheets, as RFC 4180 describes them.

use crate::classify::{Class, Ms};
use runtime::text::Plain;
use std::io::{self, Write};

/// A text in quotes. What a terminal or a reader of CSV would obey is written as an escape, so that a
/// name ends no row; what a spreadsheet would compute gets an apostrophe before it, which makes it text.
pub(crate) fn cell(text: &str) -> String {
    let plain = Plain(text).to_string();
    let is_formula = plain.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    let guard = if is_formula { "'" } else { "" };
    format!("\"{guard}{}\"", plain.replace('"', "\"\""))
}

/// The table's columns: `top` classes, distances where the model `knows` some, and times where they are `timed`.
pub(crate) fn head(out: &mut dyn Write, top: usize, knows: bool, timed: bool) -> io::Result<()> {
    write!(out, "file,label,probability")?;
    (2..=top).try_for_each(|k| write!(out, ",label{k},probability{k}"))?;
    let distance = if knows { ",distance" } else { "" };
    let times = if timed { ",decode_ms,preprocess_ms,run_ms" } else { "" };
    write!(out, "{distance}{times},error\r\n")
}

/// What is said of a picture.
pub(crate) struct Row<'a> {
    pub(crate) file: &'a str,
    pub(crate) classes: &'a [Class<'a>],
    /// Of a table with distances that of this picture, if it has one.
    pub(crate) distance: Option<Option<f32>>,
    /// Of a table with times those of this picture, if it has any.
    pub(crate) ms: Option<Option<Ms>>,
    pub(crate) error: &'a str,
}

impl Row<'_> {
    /// Writes it, with room for `top` classes.
    pub(crate) fn write(&self, out: &mut dyn Write, top: usize) -> io::Result<()> {
        write!(out, "{}", cell(self.file))?;
        for k in 0..top {
            match self.classes.get(k) {
                Some(class) => write!(out, ",{},{}", cell(class.label), class.probability)?,
                None => write!(out, ",,")?,
            }
        }
        match self.distance {
            Some(Some(distance)) => write!(out, ",{distance}")?,
            Some(None) => write!(out, ",")?,
            None => {}
        }
        match &self.ms {
            Some(Some(ms)) => write!(out, ",{},{},{}", ms.decode, ms.preprocess, ms.run)?,
            Some(None) => write!(out, ",,,")?,
            None => {}
        }
        let error = if self.error.is_empty() { String::new() } else { cell(self.error) };
        write!(out, ",{error}\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_any_name() {
        for (text, want) in [
            ("a.jpg", "\"a.jpg\""),
            ("a\",\"b", "\"a\"\",\"\"b\""),
            ("a\r\n2020,forged", "\"a\\u{d}\\u{a}2020,forged\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("  @SUM(1)", "\"'  @SUM(1)\""),
            ("\u{1b}[2J\u{202e}", "\"\\u{1b}[2J\\u{202e}\""),
            ("猫-1", "\"猫-1\""),
        ] {
            assert_eq!(cell(text), want);
        }
    }
}
