//! `--config FILE`: a TOML file of long options, which the command line goes before.

use anyhow::{Context, Result, anyhow, bail};
use artifact::text::AsPlain;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use core::fmt::Write;
use network::file;
use network::nearest::suggestion;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The option that names the file.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// TOML file of long options, such as `epochs = 20`, with paths as on the command line, which goes
    /// before it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What is asked of a program once, not of each run like it.
const OF_ONE_RUN: &[&str] =
    &["config", "help", "json", "out", "overwrite", "quiet", "resume", "version"];

/// A command line with what its file says.
#[derive(Debug)]
pub struct Arguments {
    /// Options of the file first.
    pub all: Vec<OsString>,
    /// Lines of the file's options that are in force.
    lines: BTreeMap<String, usize>,
    path: PathBuf,
}

impl Arguments {
    /// `typed`, with the options of the file that they name, if any; `command` describes them.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, or has options that there are not, with its line.
    pub fn new(typed: Vec<OsString>, command: &Command) -> Result<Self> {
        let mut all = Self { all: typed, lines: BTreeMap::new(), path: PathBuf::new() };
        // What is wrong with the command line is said where it is parsed with the file's options.
        let lenient = command.clone().ignore_errors(true);
        let Ok(matches) = lenient.try_get_matches_from(&all.all) else { return Ok(all) };
        let (given, command, place) = match matches.subcommand() {
            Some((name, given)) => match command.find_subcommand(name) {
                Some(command) => (given, command, 2),
                None => return Ok(all),
            },
            None => (&matches, command, 1),
        };
        let Ok(Some(path)) = given.try_get_one::<PathBuf>("config") else { return Ok(all) };
        all.path.clone_from(path);
        let name = || path.display().to_string();
        let text = String::from_utf8(file::read(path).with_context(name)?).with_context(name)?;
        let options = all.options(&text, given, command)?;
        all.all.splice(place..place, options);
        Ok(all)
    }

    /// Where in the file something is.
    fn line(&self, text: &str, at: usize) -> String {
        format!("{}:{}", self.path.display(), line(text, at))
    }

    /// The options of the file that nobody typed, as one would type them.
    fn options(
        &mut self,
        text: &str,
        given: &ArgMatches,
        command: &Command,
    ) -> Result<Vec<OsString>> {
        let table = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            anyhow!("{}: {}", self.line(text, at), e.message())
        })?;
        let is_typed =
            |arg: &Arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let mut options = Vec::new();
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            let place = self.line(text, key.span().start);
            let arg = find(command, name).ok_or_else(|| {
                let meant = suggestion(name, command.get_arguments().filter_map(key_of));
                anyhow!("{place}: no option `{}`{}", name.plain(), meant.plain())
            })?;
            let excludes = |a: &Arg, b: &Arg| {
                command.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id())
            };
            let typed = command.get_arguments().filter(|other| is_typed(other));
            let mut typed = typed.filter(|other| excludes(arg, other) || excludes(other, arg));
            if is_typed(arg) || typed.next().is_some() {
                continue;
            }
            options.extend(
                typed_as(arg, value.get_ref())
                    .with_context(|| format!("{place}: {}", name.plain()))?,
            );
            self.lines.insert(name.to_owned(), line(text, key.span().start));
        }
        Ok(options)
    }

    /// An error of the command line, with the line of the file where its option stands there.
    pub fn describe(&self, error: &clap::Error) -> String {
        let text = error.to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        let arg = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(arg)) => Some(arg),
            Some(ContextValue::Strings(args)) => args.first(),
            _ => None,
        };
        self.placed(arg.map_or("", String::as_str), text)
    }

    /// An error that starts with an option, with the line of the file where that stands there.
    pub fn placed(&self, option: &str, error: &str) -> String {
        let ends = |c: char| c.is_whitespace() || "=<[>]:".contains(c);
        let option = option.trim_start_matches(['<', '[']);
        let key = option.trim_start_matches("--").split(ends).next().unwrap_or_default();
        match self.lines.get(key).or_else(|| self.lines.get(&key.to_lowercase())) {
            Some(line) => format!("{}:{line}: {error}", self.path.display()),
            None => error.into(),
        }
    }
}

/// Line of a place in a text, from 1.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// What the file calls an option: its long name, or what stands for it in the usage.
fn key_of(arg: &Arg) -> Option<&str> {
    let name = arg.get_long().or_else(|| arg.is_positional().then(|| arg.get_id().as_str()));
    name.filter(|name| !["config", "help", "version"].contains(name))
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        let is_alias = || arg.get_all_aliases().is_some_and(|all| all.contains(&name));
        key_of(arg).is_some_and(|key| key == name || is_alias())
    })
}

/// A value of the file as one would type it.
fn typed_as(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<OsString>> {
    let takes_none = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let one = |value: &DeValue<'_>| -> Result<OsString> {
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            other => bail!("{} is no value of an option", other.type_str()),
        };
        let name = arg.get_long().map_or(String::new(), |name| format!("--{name}="));
        Ok(format!("{name}{text}").into())
    };
    match value {
        DeValue::Boolean(true) if takes_none => {
            Ok(vec![format!("--{}", arg.get_long().unwrap_or_default()).into()])
        }
        DeValue::Boolean(false) if takes_none => Ok(Vec::new()),
        _ if takes_none => bail!("true or false is wanted"),
        DeValue::Array(all) if is_list => all.iter().map(|value| one(value.get_ref())).collect(),
        DeValue::Array(_) => bail!("one value is wanted, not several"),
        value => Ok(vec![one(value)?]),
    }
}

/// The options that were given to a run, as a file that repeats it by `--config`.
pub fn repeating(command: &str, description: &Command, given: &ArgMatches, name: &Path) -> String {
    let mut text = format!("# `{command} --config {}` repeats this run.\n", name.display());
    for arg in description.get_arguments() {
        let id = arg.get_id().as_str();
        let is_given = given.value_source(id) == Some(ValueSource::CommandLine);
        let Some(key) = key_of(arg).filter(|key| is_given && !OF_ONE_RUN.contains(key)) else {
            continue;
        };
        let values: Vec<String> = match given.get_raw(id) {
            _ if matches!(arg.get_action(), ArgAction::SetTrue) => vec!["true".into()],
            Some(values) => values.map(|value| quoted(&value.to_string_lossy())).collect(),
            None => continue,
        };
        // Writing to a string cannot fail.
        let _ = match arg.get_action() {
            ArgAction::Append => writeln!(text, "{key} = [{}]", values.join(", ")),
            _ => writeln!(text, "{key} = {}", values.join(", ")),
        };
    }
    text
}

/// A number as it is, any other text as a string of TOML, whose escapes are those of JSON.
fn quoted(value: &str) -> String {
    let is_number = |text: &str| {
        let digits = text.trim_start_matches('-');
        !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && DeTable::parse(&format!("x = {text}")).is_ok()
    };
    if is_number(value) { value.into() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let option = |name: &'static str| Arg::new(name).long(name);
        let run = Command::new("run")
            .arg(option("config").value_parser(clap::value_parser!(PathBuf)))
            .arg(option("epochs").value_parser(clap::value_parser!(u32)))
            .arg(option("lr").value_parser(clap::value_parser!(f64)).required(true))
            .arg(option("augment").alias("changes"))
            .arg(option("no-augment").action(ArgAction::SetTrue).conflicts_with("augment"))
            .arg(option("predict").action(ArgAction::Append))
            .arg(option("mean").action(ArgAction::Append).value_delimiter(','))
            .arg(option("out"))
            .arg(Arg::new("model"));
        Command::new("program").subcommand(run)
    }

    /// The command line `typed`, with a file.
    fn with(file: &str, typed: &str) -> Result<ArgMatches, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, file).unwrap();
        let typed = typed.replace('@', path.to_str().unwrap());
        let typed = typed.split(' ').map(OsString::from).collect();
        let name = |text: String| text.replace(path.to_str().unwrap(), "c.toml");
        let arguments = Arguments::new(typed, &command());
        let arguments = arguments.map_err(|e| name(crate::terminal::describe(&e)))?;
        let matches = command().try_get_matches_from(&arguments.all);
        let matches = matches.map_err(|e| name(arguments.describe(&e)))?;
        Ok(matches.subcommand().unwrap().1.clone())
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = "# a comment\nepochs = 3\nlr = 1e-3\naugment = 'flip'\nmodel = \"m.mpk\"\n\
                    predict = ['a b.jpg', 'c.jpg']\nmean = [0.5, 1]\n";
        let run = with(file, "program run --config @").unwrap();
        assert_eq!(run.get_one::<u32>("epochs"), Some(&3));
        assert_eq!(run.get_one::<f64>("lr"), Some(&1e-3));
        assert_eq!(run.get_one::<String>("model").unwrap(), "m.mpk");
        let all = |id| run.get_many::<String>(id).unwrap().cloned().collect::<Vec<_>>();
        assert_eq!(
            (all("predict"), all("mean")),
            (vec!["a b.jpg".into(), "c.jpg".into()], vec!["0.5".into(), "1".into()])
        );
        let typed = "program run --config @ --epochs 5 --no-augment --predict d.jpg n.mpk";
        let run = with(file, typed).unwrap();
        assert_eq!(run.get_one::<u32>("epochs"), Some(&5));
        assert_eq!(run.get_one::<String>("augment"), None);
        assert_eq!(run.get_many::<String>("predict").unwrap().len(), 1);
        assert_eq!(run.get_one::<String>("model").unwrap(), "n.mpk");
        let flags = with("lr = 1\nno-augment = true", "program run --config @").unwrap();
        assert!(flags.get_flag("no-augment"));
        let alias = with("lr = 1\nchanges = 'x'", "program run --config @").unwrap();
        assert_eq!(alias.get_one::<String>("augment").unwrap(), "x");
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (file, want) in [
            ("lr = 1\nepoch = 3", "c.toml:2: no option `epoch` (did you mean epochs?)"),
            ("config = 'd.toml'", "c.toml:1: no option `config`"),
            ("lr = 1\n\nepochs = 'many'", "c.toml:3: invalid value 'many' for '--epochs"),
            ("lr = 1\nepochs = [1, 2]", "c.toml:2: epochs: one value is wanted, not several"),
            ("lr = 1\nepochs = {}", "c.toml:2: epochs: table is no value of an option"),
            ("lr = 1\nno-augment = 'yes'", "c.toml:2: no-augment: true or false is wanted"),
            ("lr = 1\nlr = 2", "c.toml:2: duplicate key"),
            ("lr = ", "c.toml:1: "),
            ("epochs = 3", "the following required arguments were not provided:\n  --lr"),
        ] {
            let error = with(file, "program run --config @").unwrap_err();
            assert!(error.starts_with(want), "{file:?}: {error}");
        }
        let error = with("", "program run --lr 1 --config none.toml").unwrap_err();
        assert!(error.starts_with("none.toml: "), "{error}");
    }

    #[test]
    fn a_run_is_repeated() {
        let typed = "program run --lr 1e-3 --epochs 3 --no-augment --out run --predict \
                     it's\"\\\u{1b}.jpg m.mpk";
        let given = with("", typed).unwrap();
        let command = command();
        let description = command.find_subcommand("run").unwrap();
        let text = repeating("program run", description, &given, Path::new("run/run.toml"));
        assert_eq!(
            text,
            "# `program run --config run/run.toml` repeats this run.\nepochs = 3\n\
             lr = \"1e-3\"\nno-augment = true\npredict = [\"it's\\\"\\\\\\u001b.jpg\"]\n\
             model = \"m.mpk\"\n"
        );
        let again = with(&text, "program run --config @ --out other").unwrap();
        for arg in description.get_arguments() {
            let id = arg.get_id().as_str();
            if !["config", "out"].contains(&id) {
                let raw = |m: &ArgMatches| {
                    m.get_raw(id).map(|all| all.map(OsString::from).collect::<Vec<_>>())
                };
                assert_eq!(raw(&given), raw(&again), "{id}");
            }
        }
    }
}
