//! Output that fits a terminal: lines are folded between words, those that change are cut.

use artifact::text::{AsPlain, PlainJson};
use core::fmt::{self, Display, Formatter};
use core::sync::atomic::{AtomicBool, Ordering};
use serde::Serialize;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
#[cfg(unix)]
use std::os::fd::AsFd;

/// Columns of a terminal that does not tell.
const USUAL: usize = 80;
/// In front of what follows a fold.
const INDENT: &str = "  ";

/// What a piece of text is for, which colors tell on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing came of it.
    Error,
    /// Something to know before the answer is used.
    Warning,
    /// What was asked for.
    Good,
    /// What need not be read.
    Dim,
}

/// Whether the output that the program has takes colors; tests and files have none.
static COLORS: AtomicBool = AtomicBool::new(false);

/// Whether an environment with these `variable`s wants colors on its terminal.
fn wants_colors(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is = |name, value: &str| variable(name).is_some_and(|found| found == value);
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && !is("TERM", "dumb")
        && !is("CLICOLOR", "0")
        && !is("CLICOLOR_FORCE", "0")
}

/// Whether `out` takes colors.
fn has_colors(out: &impl IsTerminal) -> bool {
    out.is_terminal() && wants_colors(|name| std::env::var_os(name))
}

impl Role {
    /// The text in this role's color where the program's output takes colors, else as it is.
    pub fn paint<T: Display>(self, text: T) -> Painted<T> {
        Painted { role: COLORS.load(Ordering::Relaxed).then_some(self), text }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[33m",
            Self::Good => "\x1b[32m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// A text with a color or without.
#[derive(Debug)]
pub struct Painted<T> {
    role: Option<Role>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.role {
            Some(role) => write!(f, "{}{}\x1b[0m", role.code(), self.text),
            None => self.text.fmt(f),
        }
    }
}

/// Columns of a text, in which colors take none.
fn columns(text: &str) -> usize {
    let is_shown = |part: &str| part.split_once('m').map_or(0, |(_, shown)| shown.chars().count());
    let mut parts = text.split("\x1b[");
    parts.next().map_or(0, |first| first.chars().count()) + parts.map(is_shown).sum::<usize>()
}

/// The program's output, folded and in colors where it is a terminal.
pub fn stdout() -> Folded<io::Stdout> {
    let out = io::stdout();
    COLORS.store(has_colors(&out), Ordering::Relaxed);
    Folded { width: width(&out), out, line: Vec::new() }
}

/// What is no answer, folded where it is a terminal.
pub fn stderr() -> Folded<io::Stderr> {
    let out = io::stderr();
    Folded { width: width(&out), out, line: Vec::new() }
}

/// Prints an error of `program`, folded where that is a terminal.
pub fn print_error(program: &str, error: &str) {
    let mut folded = stderr();
    let role = has_colors(&io::stderr()).then_some(Role::Error);
    let program = Painted { role, text: format!("{program}:") };
    // Indented, so that what stands in a name is not taken for another message.
    let lines: Vec<String> = error.split('\n').map(|line| line.plain().to_string()).collect();
    let text = lines.join("\n  ");
    // There is nowhere else to say that this failed.
    let _ = writeln!(folded, "{program} {text}").and_then(|()| folded.flush());
}

/// Columns of the terminal that `out` is; `None` where it is none.
#[cfg(unix)]
fn width(out: &(impl IsTerminal + AsFd)) -> Option<usize> {
    /// Less is no terminal to read on.
    const LEAST: usize = 20;
    if !out.is_terminal() {
        return None;
    }
    // There is no safe call for it in the standard library; `stty` asks its input.
    let asked = || {
        let terminal = out.as_fd().try_clone_to_owned().ok()?;
        let mut stty = std::process::Command::new("stty");
        let said = stty.arg("size").stdin(terminal).stderr(std::process::Stdio::null()).output();
        let said = String::from_utf8(said.ok()?.stdout).ok()?;
        said.split_whitespace().nth(1)?.parse().ok()
    };
    Some(asked().filter(|columns| *columns >= LEAST).unwrap_or(USUAL))
}

/// Columns of the terminal that `out` is; `None` where it is none.
#[cfg(not(unix))]
fn width(out: &impl IsTerminal) -> Option<usize> {
    out.is_terminal().then_some(USUAL)
}

/// How much a program says, and to whom.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Voice {
    /// Say nothing but the answer, and errors
    #[arg(long)]
    pub quiet: bool,
    /// Answer with one JSON document; all else goes to standard error
    #[arg(long)]
    pub json: bool,
}

/// What a program says. What is written here is for people who watch, who may not want to; the answer
/// is [`answer`](Self::answer), for machines [`json`](Self::json).
pub struct Output<'a> {
    out: &'a mut dyn Write,
    voice: Voice,
    /// For people, where `out` is for machines.
    people: Option<Folded<io::Stderr>>,
    notes: Vec<String>,
    facts: Map<String, Value>,
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("voice", &self.voice).finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    /// With answers to `out`. Counters and downloads are silent where `voice` is.
    pub fn new(out: &'a mut dyn Write, voice: Voice) -> Self {
        crate::progress::set_quiet(voice.quiet);
        let people = voice.json.then(|| {
            COLORS.store(has_colors(&io::stderr()), Ordering::Relaxed);
            stderr()
        });
        Self { out, voice, people, notes: Vec::new(), facts: Map::new() }
    }

    /// Whether a machine is to read the answer.
    pub fn is_json(&self) -> bool {
        self.voice.json
    }

    /// Whether people watch on a terminal.
    pub fn is_terminal(&self) -> bool {
        if self.voice.json { io::stderr().is_terminal() } else { io::stdout().is_terminal() }
    }

    /// For the answer in words.
    pub fn answer(&mut self) -> &mut dyn Write {
        if self.voice.json { self } else { self.out }
    }

    /// A line that machines are told, too, among the notes.
    ///
    /// # Errors
    /// A closed output.
    pub fn note(&mut self, role: Role, text: &str) -> io::Result<()> {
        if self.voice.json {
            self.notes.push(text.into());
        }
        writeln!(self, "{}", role.paint(text))
    }

    /// Tells machines, in the document that [`finish`](Self::finish) writes.
    ///
    /// # Errors
    /// What JSON cannot say.
    pub fn tell(&mut self, name: &str, fact: impl Serialize) -> io::Result<()> {
        if self.voice.json {
            self.facts.insert(name.into(), serde_json::to_value(fact)?);
        }
        Ok(())
    }

    /// Answers machines with all that they were told.
    ///
    /// # Errors
    /// A closed output.
    pub fn finish(&mut self) -> io::Result<()> {
        let notes = core::mem::take(&mut self.notes);
        self.tell("notes", notes)?;
        let facts = core::mem::take(&mut self.facts);
        if self.voice.json { self.json(&serde_json::to_string_pretty(&facts)?) } else { Ok(()) }
    }

    /// Answers a machine, harmlessly on a terminal.
    ///
    /// # Errors
    /// A closed output.
    pub fn json(&mut self, json: &str) -> io::Result<()> {
        writeln!(self.out, "{}", PlainJson(json))
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.people {
            _ if self.voice.quiet => Ok(bytes.len()),
            Some(people) => people.write(bytes),
            None => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.people {
            Some(people) => people.flush(),
            None => self.out.flush(),
        }
    }
}

/// Folds lines that are too long for a terminal, and cuts those that start with a carriage return,
/// which the next one replaces.
#[derive(Debug)]
pub struct Folded<W: Write> {
    out: W,
    /// Columns; nothing is changed without.
    width: Option<usize>,
    /// What has no end yet.
    line: Vec<u8>,
}

/// Takes the cursor to the start of an empty line.
const ERASE: &str = "\r\x1b[K";

impl<W: Write> Folded<W> {
    /// Writes a line, or the start of one, without its end.
    fn put(&mut self, line: &[u8], width: usize) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        let (erase, text) = match text.strip_prefix(ERASE) {
            Some(text) => (ERASE, text),
            None => ("", &*text),
        };
        write!(self.out, "{erase}")?;
        match text.strip_prefix('\r') {
            // A terminal may go on to the next line once its last column is full.
            Some(text) => {
                let shown: String =
                    text.trim_end_matches("\x1b[K").chars().take(width - 1).collect();
                write!(self.out, "\r{shown}\x1b[K")
            }
            None => write!(self.out, "{}", fold(text, width)),
        }
    }
}

impl<W: Write> Write for Folded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(width) = self.width else { return self.out.write(bytes) };
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if let Some(line) = self.line.strip_suffix(b"\n").map(<[u8]>::to_vec) {
                self.line.clear();
                self.put(&line, width)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let (Some(width), false) = (self.width, self.line.is_empty()) {
            let line = core::mem::take(&mut self.line);
            self.put(&line, width)?;
        }
        self.out.flush()
    }
}

impl<W: Write> Drop for Folded<W> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Breaks a line between words, not before a percent sign; one word may be longer than the line.
fn fold(line: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    let mut rest = line;
    while !rest.is_empty() {
        // Spaces at the start, and between columns of a table, stay.
        let mut ends = rest.match_indices(' ').map(|(at, _)| at + 1);
        let end = ends.find(|end| !rest[*end..].starts_with('%')).unwrap_or(rest.len());
        let (word, next) = rest.split_at(end);
        let bare = columns(word.trim_end());
        if column > INDENT.len() && bare > 0 && column + bare > width {
            out.truncate(out.trim_end().len());
            out.push('\n');
            out.push_str(INDENT);
            column = INDENT.len();
        }
        out.push_str(word);
        column += columns(word);
        rest = next;
    }
    out
}

/// An error and its causes in one line, each said once: the texts of many errors hold those of
/// their causes already.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    fn written(width: Option<usize>, parts: &[&str]) -> String {
        let mut out = Vec::new();
        let mut folded = Folded { out: &mut out, width, line: Vec::new() };
        for part in parts {
            folded.write_all(part.as_bytes()).unwrap();
            folded.flush().unwrap();
        }
        drop(folded);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_folded_between_words() {
        let line =
            "epoch 1/30 loss 0.6931 acc 50.0 %, val 0.6931 acc 52.00 %, 3 s, 1234 images/s\n";
        for width in [30, 60, 80] {
            let text = written(Some(width), &[line]);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.lines().all(|line| !line.trim_start().starts_with('%')), "{text}");
            let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
            assert_eq!(words(&text), words(line));
        }
        assert_eq!(written(Some(80), &[line]), line);
        assert_eq!(written(None, &[line]), line);
        assert_eq!(written(Some(20), &["a     b  c\n"]), "a     b  c\n");
        let long = "0123456789abcdefghijklmnopq.jpg: damaged\n";
        assert_eq!(written(Some(20), &[long]), long.replace(": d", ":\n  d"));
    }

    #[test]
    fn colors_take_no_columns_and_are_for_terminals_that_want_them() {
        let painted = |text| Painted { role: Some(Role::Good), text }.to_string();
        assert_eq!(painted("a b"), "\x1b[32ma b\x1b[0m");
        let line = format!("{} and {}\n", painted("four"), painted("seven of them"));
        let folded = written(Some(20), &[&line]);
        assert_eq!(folded, "\x1b[32mfour\x1b[0m and \x1b[32mseven of\n  them\x1b[0m\n");
        assert_eq!(Role::Error.paint("not a terminal").to_string(), "not a terminal");
        for (variables, wanted) in [
            ("", true),
            ("NO_COLOR=", true),
            ("NO_COLOR=1", false),
            ("TERM=dumb", false),
            ("TERM=xterm", true),
            ("CLICOLOR=0", false),
            ("CLICOLOR_FORCE=0", false),
            ("CLICOLOR_FORCE=1", true),
        ] {
            let set = variables.split_once('=');
            let variable = |name: &str| set.filter(|(n, _)| *n == name).map(|(_, v)| v.into());
            assert_eq!(wants_colors(variable), wanted, "{variables}");
        }
    }

    #[test]
    fn lines_that_change_are_cut() {
        let step = "\repoch 1/30 step 3/19, 18 s left, loss 0.0244\x1b[K";
        let text = written(Some(24), &[step, "\r\x1b[Kepoch 1/30\n"]);
        assert_eq!(text, "\repoch 1/30 step 3/19, 1\x1b[K\r\x1b[Kepoch 1/30\n");
        assert_eq!(written(None, &[step]), step);
    }

    #[test]
    fn causes_are_said_once() {
        let error = Err::<(), _>(anyhow!("no such file")).context("m.mpk: no such file");
        assert_eq!(describe(&error.unwrap_err()), "m.mpk: no such file");
        let error = Err::<(), _>(anyhow!("disk full")).context("cannot save").unwrap_err();
        assert_eq!(describe(&error), "cannot save: disk full");
    }
}
