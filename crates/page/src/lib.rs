//! What all pages share: they are one file, and no text in them can do anything.
//!
//! The templates escape every value. Their head forbids the page to load or run anything, and
//! [`finish`] makes characters visible that would turn or break the text around them.

pub mod config;
pub mod progress;
pub mod terminal;
mod thumbnail;

pub use thumbnail::Thumbnail;

use anyhow::Context;
use artifact::text::is_obeyed;
use askama::Template;
use core::fmt::Write;
use network::file::write_atomic;
use std::ffi::OsString;
use std::path::Path;

/// The page as text.
///
/// # Errors
/// A template that cannot be written.
pub fn finish(template: &impl Template) -> anyhow::Result<String> {
    let html = template.render().context("cannot write the page")?;
    let mut out = String::with_capacity(html.len());
    for c in html.chars() {
        if c != '\n' && is_obeyed(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

/// Writes the page, making its folder.
///
/// # Errors
/// A folder or file that cannot be made.
pub fn save(html: &str, path: &Path) -> anyhow::Result<()> {
    let cannot = || format!("{}: cannot write this page", path.display());
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).with_context(cannot)?;
    }
    write_atomic(path, html.as_bytes()).with_context(cannot)
}

/// Checks that the name of an output, given by `option`, says what is written into it.
///
/// # Errors
/// Another extension.
pub fn check_extension(option: &str, path: &Path, extension: &str) -> anyhow::Result<()> {
    let found = path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
    anyhow::ensure!(
        found,
        "{option} {}: only {extension} can be written; pass a name that ends in .{extension}",
        path.display()
    );
    Ok(())
}

/// A path as machines are told it, whatever its bytes are.
pub fn told(path: &Path) -> String {
    path.display().to_string()
}

/// The arguments as one would type them, the program without its folder.
pub fn command_line(args: &[OsString]) -> String {
    let program = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let rest = args.iter().skip(1).map(OsString::as_os_str);
    let all = core::iter::once(program).chain(rest);
    all.map(|arg| quoted(&arg.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.into();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Template)]
    #[template(source = "<p title=\"{{ text }}\">{{ text }}</p>", ext = "html")]
    struct Paragraph {
        text: &'static str,
    }

    #[test]
    fn hostile_text_is_only_text() {
        let text = "\"'><script>alert(1)</script>\u{202e}gpj.exe\u{2066}\u{7}";
        let html = finish(&Paragraph { text }).unwrap();
        for bad in ["<script", "\"'", "'>", "\u{202e}", "\u{2066}", "\u{7}"] {
            assert!(!html.contains(bad), "{bad:?} in {html}");
        }
        assert!(html.contains(r"\u{202e}gpj.exe\u{2066}\u{7}"), "{html}");
        assert_eq!(finish(&Paragraph { text: "кот 猫" }).unwrap().matches("кот 猫").count(), 2);
    }

    #[test]
    fn commands_can_be_typed_again() {
        let args = ["/opt/bin/trainer", "eval", "--data=a b", "", "it's", "größe/x.mpk"];
        let args = args.map(OsString::from);
        let want = r"trainer eval '--data=a b' '' 'it'\''s' größe/x.mpk";
        assert_eq!(command_line(&args), want);
        assert_eq!(command_line(&[]), "''");
    }
}
