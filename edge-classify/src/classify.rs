//! The main command: a line or a JSON object for each picture.

use crate::cli::{Cli, MAX_TOP};
use crate::model::{ModelFile, read_key};
use crate::print::{self, Plain};
use crate::sources::{self, Skipped, Source};
use crate::watch::{self, Kept, Watch};
use crate::{EXIT_ANSWER, EXIT_ERROR, EXIT_NO_CLASS, npy};
use anyhow::{Context, Result, ensure};
use core::time::Duration;
use picture::Picture;
use runtime::classify::{Score, top_k};
use runtime::preprocess::for_each_pixel;
use runtime::{AlignedBuf, Model, Session};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

type Scores = heapless::Vec<Score, MAX_TOP>;

/// One picture's answer.
struct Answer {
    top: Scores,
    logits: Option<Vec<f32>>,
    times: Times,
}

/// What took how long.
#[derive(Clone, Copy, Default)]
struct Times {
    decode: Duration,
    preprocess: Duration,
    run: Duration,
}

/// An element of the JSON array.
#[derive(Serialize)]
struct Item<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<Class<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Class<'a> {
    label: &'a str,
    probability: f32,
}

#[derive(Serialize)]
struct Ms {
    decode: f64,
    preprocess: f64,
    run: f64,
}

/// Classifies what the command line names.
pub(crate) fn run(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8> {
    let file = ModelFile::open(cli.model.as_deref())?;
    let key = cli.key.as_deref().map(read_key).transpose()?;
    let model = file.parse(key.as_ref())?;
    let workers = cli.machine.workers()?;
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let session = Session::new(&model, &mut arena)?;
    let session = session.with_isa(cli.machine.isa()).with_workers(&*workers);
    let printer = Printer { cli, model, out, err, count: 0, code: EXIT_ANSWER };
    Classifier { cli, model, session, printer }.run()
}

struct Classifier<'a> {
    cli: &'a Cli,
    model: Model<'a>,
    session: Session<'a>,
    printer: Printer<'a>,
}

impl Classifier<'_> {
    fn run(mut self) -> Result<u8> {
        match &self.cli.tensor {
            Some(path) => self.tensor(path)?,
            None => {
                // First, so that nothing is missed while the others are classified.
                let watch = self.cli.watch.as_deref().map(Watch::new).transpose()?;
                self.printer.start()?;
                let mut skipped = Skipped::default();
                for source in sources::expand(&self.cli.files, &mut skipped) {
                    self.source(source)?;
                }
                self.printer.skipped(&mut skipped)?;
                if let Some(watch) = watch {
                    self.watch(watch)?;
                }
            }
        }
        self.printer.finish()
    }

    /// Classifies what appears in a folder; ends only by an error.
    fn watch(&mut self, mut watch: Watch<'_>) -> Result<()> {
        let mut kept = self.cli.keep.map(Kept::new);
        loop {
            self.printer.out.flush()?;
            std::thread::sleep(watch::PAUSE);
            for path in watch.next()? {
                let before = Kept::before(&path);
                let is_answered = self.source(Source::File(path.clone()))?;
                if let (true, Some(kept)) = (is_answered, &mut kept) {
                    self.printer.out.flush()?;
                    if let Err(e) = kept.add(path, before) {
                        writeln!(self.printer.err, "edge-classify: {}", Plain(&format!("{e:#}")))?;
                    }
                }
            }
            self.printer.skipped(&mut watch.skipped)?;
        }
    }

    /// Classifies a picture and tells whether there was an answer; its failure is printed, and only
    /// printing can fail.
    fn source(&mut self, source: Source) -> Result<bool> {
        let (name, picture, decode) = match source {
            Source::Stdin => {
                let start = Instant::now();
                let picture = picture::read(&mut io::stdin().lock());
                ("-".into(), picture.map_err(Into::into), start.elapsed())
            }
            Source::File(path) => {
                let start = Instant::now();
                let picture = picture::open(&path);
                (path.display().to_string(), picture.map_err(Into::into), start.elapsed())
            }
            Source::Failed(path, e) => (path.display().to_string(), Err(e), Duration::ZERO),
        };
        let answer =
            picture.and_then(|picture| Ok((self.picture(&picture, decode)?, picture.note)));
        let is_answered = answer.is_ok();
        match answer {
            Ok((answer, note)) => self.printer.answer(&name, &answer, note)?,
            Err(e) => self.printer.failure(&name, &e)?,
        }
        Ok(is_answered)
    }

    fn picture(&mut self, picture: &Picture, decode: Duration) -> Result<Answer> {
        let start = Instant::now();
        let mut input = self.session.input_mut();
        let preprocess = self.model.meta().preprocess;
        for_each_pixel(&preprocess, picture.view()?, |index, rgb| input.set_pixel(index, rgb));
        Ok(self.infer(Times { decode, preprocess: start.elapsed(), run: Duration::ZERO }))
    }

    /// Classifies each of a `.npy` file's inputs.
    fn tensor(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        let start = Instant::now();
        let file = std::fs::read(path).with_context(|| name.clone())?;
        let array = npy::parse(&file).with_context(|| name.clone())?;
        let s = self.model.input_shape();
        let want = [usize::from(s.h), usize::from(s.w), usize::from(s.c)];
        // The numbers of one channel lie the same wherever its dimension is, if there is one.
        let (shape, [h, w, c]) = (&array.shape[..], want);
        let grey = shape.ends_with(&[1, h, w]) || shape.len() <= 3 && shape.ends_with(&[h, w]);
        ensure!(
            shape.len() <= 4 && (shape.ends_with(&want) || c == 1 && grey),
            "{name}: shape {:?}, but the model wants {want:?} (height, width, channels), or several \
             of them",
            array.shape
        );
        let decode = start.elapsed();
        self.printer.start()?;
        for (i, values) in array.values.chunks_exact(want.iter().product()).enumerate() {
            let start = Instant::now();
            let mut input = self.session.input_mut();
            for (index, &value) in values.iter().enumerate() {
                input.set(index, value);
            }
            let times = Times { decode, preprocess: start.elapsed(), run: Duration::ZERO };
            let answer = self.infer(times);
            self.printer.answer(&format!("{name}[{i}]"), &answer, None)?;
        }
        Ok(())
    }

    /// Runs the model on the input that the session holds.
    fn infer(&mut self, times: Times) -> Answer {
        let start = Instant::now();
        let logits = self.session.run();
        let run = start.elapsed();
        let top = top_k(logits.iter(), self.cli.top);
        let logits = self.cli.logits.then(|| logits.iter().collect());
        Answer { top, logits, times: Times { run, ..times } }
    }
}

/// Writes answers as they come.
struct Printer<'a> {
    cli: &'a Cli,
    model: Model<'a>,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Elements written to the JSON array.
    count: usize,
    code: u8,
}

impl Printer<'_> {
    fn start(&mut self) -> Result<()> {
        if self.cli.logits {
            write!(self.out, "{{\"logits\":[")?;
        } else if self.cli.json && self.cli.watch.is_none() {
            write!(self.out, "[")?;
        }
        Ok(())
    }

    fn finish(self) -> Result<u8> {
        if self.cli.logits {
            writeln!(self.out, "]}}")?;
        } else if self.cli.json {
            writeln!(self.out, "{}]", if self.count > 0 { "\n" } else { "" })?;
        }
        self.out.flush()?;
        Ok(self.code)
    }

    fn answer(&mut self, name: &str, answer: &Answer, note: Option<&str>) -> Result<()> {
        let least = self.cli.threshold.unwrap_or(0.0);
        let model = self.model;
        let classes: Vec<Class<'_>> = (answer.top.iter())
            .filter(|s| s.probability >= least)
            .map(|s| Class { label: model.label(s.index), probability: s.probability })
            .collect();
        if self.cli.threshold.is_some() && classes.is_empty() {
            self.code = self.code.max(EXIT_NO_CLASS);
        }
        let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let Times { decode, preprocess, run } = answer.times;
        let ms = Ms { decode: ms(decode), preprocess: ms(preprocess), run: ms(run) };
        if let Some(logits) = &answer.logits {
            self.separator("")?;
            print::json(self.out, logits)?;
        } else if self.cli.json {
            let ms = self.cli.time.then_some(ms);
            self.item(&Item { file: name, classes: Some(classes), ms, note, error: None })?;
        } else {
            if let Some(note) = note {
                writeln!(self.err, "edge-classify: {}: {note}", Plain(name))?;
            }
            write!(self.out, "{}: ", Plain(name))?;
            for (i, Class { label, probability }) in classes.iter().enumerate() {
                let comma = if i > 0 { ", " } else { "" };
                write!(self.out, "{comma}{} {:.1} %", Plain(label), probability * 100.0)?;
            }
            if let (true, Some(best)) = (classes.is_empty(), answer.top.first()) {
                let (label, percent) = (Plain(model.label(best.index)), best.probability * 100.0);
                write!(
                    self.out,
                    "no class above the threshold (likeliest: {label} {percent:.1} %)"
                )?;
            }
            if self.cli.time {
                let Ms { decode, preprocess, run } = ms;
                write!(
                    self.out,
                    "  (decode {decode:.2} ms, preprocess {preprocess:.2} ms, run {run:.2} ms)"
                )?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn failure(&mut self, name: &str, error: &anyhow::Error) -> Result<()> {
        self.code = EXIT_ERROR;
        let error = format!("{error:#}");
        // Answers so far come first where both go to one place.
        self.out.flush()?;
        writeln!(self.err, "edge-classify: {}: {}", Plain(name), Plain(&error))?;
        if self.cli.logits {
            // Keeps rows and files in step.
            self.separator("")?;
            write!(self.out, "null")?;
        } else if self.cli.json {
            let error = Some(error.as_str());
            self.item(&Item { file: name, classes: None, ms: None, note: None, error })?;
        }
        Ok(())
    }

    /// Counts and names what was not classified.
    fn skipped(&mut self, skipped: &mut Skipped) -> Result<()> {
        let lines = skipped.take_lines();
        if !lines.is_empty() {
            self.out.flush()?;
        }
        for line in lines {
            writeln!(self.err, "edge-classify: {}", Plain(&line))?;
        }
        Ok(())
    }

    /// An element of the array, or a line of its own where there is no end.
    fn item(&mut self, item: &Item<'_>) -> Result<()> {
        if self.cli.watch.is_some() {
            print::json(self.out, item)?;
            return Ok(writeln!(self.out)?);
        }
        self.separator("\n")?;
        Ok(print::json(self.out, item)?)
    }

    /// What comes before an element of an array.
    fn separator(&mut self, line: &str) -> Result<()> {
        let comma = if self.count > 0 { "," } else { "" };
        self.count += 1;
        Ok(write!(self.out, "{comma}{line}")?)
    }
}
