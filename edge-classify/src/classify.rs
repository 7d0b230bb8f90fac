//! The main command: a line or a JSON object for each picture.

use crate::cli::{Cli, MAX_TOP};
use crate::csv::{self, Row};
use crate::drift::Drift;
use crate::heatmap::{self, HeatMap};
use crate::model::{ModelFile, Use, read_key};
use crate::print::{self, Plain};
use crate::sources::{self, Skipped, Source};
use crate::teach::PatchFile;
use crate::watch::{self, Kept, Watch};
use crate::{EXIT_ANSWER, EXIT_ERROR, EXIT_NO_CLASS, npy};
use anyhow::{Context, Result, ensure};
use core::time::Duration;
use picture::Picture;
use runtime::classify::{Score, top_k};
use runtime::heat::Contrast;
use runtime::preprocess::for_each_pixel;
use runtime::teach::Taught;
use runtime::{AlignedBuf, Distance, Model, Session};
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

type Scores = heapless::Vec<Score, MAX_TOP>;

/// One picture's answer.
struct Answer {
    top: Scores,
    distance: Option<Distance>,
    logits: Option<Vec<f32>>,
    heatmap: Option<HeatMap>,
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
pub(crate) struct Item<'a> {
    pub(crate) file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) classes: Option<Vec<Class<'a>>>,
    /// Of the threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) distance: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unknown: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ms: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heatmap: Option<&'a HeatMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
}

impl<'a> Item<'a> {
    /// Of a picture that was classified.
    pub(crate) fn classified(
        file: &'a str,
        classes: Vec<Class<'a>>,
        distance: Option<Distance>,
    ) -> Self {
        Self {
            file,
            classes: Some(classes),
            distance: distance.map(|d| d.ratio()),
            unknown: distance.map(|d| !d.is_known()),
            ms: None,
            heatmap: None,
            note: None,
            error: None,
        }
    }

    /// Of one that could not be.
    pub(crate) fn failed(file: &'a str, error: &'a str) -> Self {
        let nothing = Self::classified(file, Vec::new(), None);
        Self { classes: None, error: Some(error), ..nothing }
    }
}

#[derive(Serialize)]
pub(crate) struct Class<'a> {
    pub(crate) label: &'a str,
    pub(crate) probability: f32,
}

#[derive(Serialize)]
pub(crate) struct Ms {
    pub(crate) decode: f64,
    pub(crate) preprocess: f64,
    pub(crate) run: f64,
}

/// A picture's name, and its answer with what is to be said of it.
type Outcome = (String, Result<(Answer, Option<&'static str>)>);

/// Outcomes that a thread may be ahead.
const AHEAD: usize = 16;

/// Classifies what the command line names.
pub(crate) fn run(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8> {
    // A signature is that of the bytes that run, a night's or a folder's answers are of one model.
    let is_short = cli.key.is_none()
        && cli.watch.is_none()
        && matches!(&cli.files[..], [] | [_])
        && !cli.files.iter().any(|path| path.is_dir());
    let duration = if is_short { Use::Short } else { Use::Long };
    let file = ModelFile::open(cli.model.as_deref(), duration)?;
    let key = cli.key.as_deref().map(read_key).transpose()?;
    let model = file.parse(key.as_ref())?;
    let patch = cli.patch.as_deref().map(PatchFile::open).transpose()?;
    let patch_key = cli.patch_key.as_deref().map(read_key).transpose()?;
    let patch_key = patch_key.as_ref().or(key.as_ref());
    let taught = patch.as_ref().map(|patch| patch.parse(&model, patch_key)).transpose()?;
    let taught = taught.as_ref();
    let drift = Drift::default();
    let mut printer = Printer { cli, model, taught, out, err, count: 0, code: EXIT_ANSWER, drift };
    if cli.tensor.is_none() {
        // First, so that nothing is missed while the others are classified.
        let watch = cli.watch.as_deref().map(Watch::new).transpose()?;
        printer.start()?;
        let mut skipped = Skipped::default();
        let sources = sources::expand(&cli.files, &mut skipped);
        let targets = heatmap::targets(cli, &model, &sources)?;
        match &sources[..] {
            [] => {}
            [one] => engine(cli, model, taught, |engine| {
                printer.outcome(engine.source(one, targets.first()))?;
                Ok(())
            })?,
            _ => batch(&mut printer, &sources, &targets)?,
        }
        printer.skipped(&mut skipped)?;
        if let Some(watch) = watch {
            engine(cli, model, taught, |engine| engine.watch(&mut printer, watch))?;
        }
    } else if let Some(path) = &cli.tensor {
        engine(cli, model, taught, |engine| engine.tensor(&mut printer, path))?;
    }
    printer.finish()
}

/// Whole pictures on each thread, which takes less time than parts of each picture on all: most of
/// it is decoding. Answers come in the order of the sources.
fn batch(printer: &mut Printer<'_>, sources: &[Source], targets: &[PathBuf]) -> Result<()> {
    let (cli, model, taught) = (printer.cli, printer.model, printer.taught);
    let threads = cli.machine.threads().min(sources.len());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let answers: Vec<_> = (0..threads)
            .map(|first| {
                let (send, receive) = std::sync::mpsc::sync_channel(AHEAD);
                scope.spawn(move || {
                    let mut arena = AlignedBuf::zeroed(heatmap::arena_len(cli, &model)?);
                    let session = Session::new(&model, &mut arena)?.with_isa(cli.machine.isa());
                    let mut engine = Engine::new(cli, model, taught, session)?;
                    for (i, source) in sources.iter().enumerate().skip(first).step_by(threads) {
                        let outcome = engine.source(source, targets.get(i));
                        // Printing failed, and says so.
                        let Ok(()) = send.send(outcome) else { break };
                    }
                    anyhow::Ok(())
                });
                receive
            })
            .collect();
        for index in 0..sources.len() {
            printer.outcome(answers[index % threads].recv()?)?;
        }
        anyhow::Ok(())
    })?;
    let (count, seconds) = (sources.len(), start.elapsed().as_secs_f64());
    printer.out.flush()?;
    let rate = count as f64 / seconds.max(1e-9);
    printer.note(&format!(
        "{count} pictures in {seconds:.1} s, {rate:.0} images/s on {threads} thread(s)"
    ))
}

/// Runs `work` with all threads on each picture.
fn engine<'m>(
    cli: &'m Cli,
    model: Model<'m>,
    taught: Option<&'m Taught<'m>>,
    work: impl FnOnce(&mut Engine<'_>) -> Result<()>,
) -> Result<()> {
    let workers = cli.machine.workers()?;
    let mut arena = AlignedBuf::zeroed(heatmap::arena_len(cli, &model)?);
    let session = Session::new(&model, &mut arena)?;
    let session = session.with_isa(cli.machine.isa()).with_workers(&*workers);
    work(&mut Engine::new(cli, model, taught, session)?)
}

/// What classifies a picture.
struct Engine<'a> {
    cli: &'a Cli,
    model: Model<'a>,
    taught: Option<&'a Taught<'a>>,
    session: Session<'a>,
    contrast: Option<Contrast>,
}

impl<'a> Engine<'a> {
    fn new(
        cli: &'a Cli,
        model: Model<'a>,
        taught: Option<&'a Taught<'a>>,
        session: Session<'a>,
    ) -> Result<Self> {
        let contrast = heatmap::contrast(cli, &model)?;
        let session = if contrast.is_some() { session.with_heat()? } else { session };
        Ok(Self { cli, model, taught, session, contrast })
    }

    /// Classifies what appears in a folder; ends only by an error.
    fn watch(&mut self, printer: &mut Printer<'_>, mut watch: Watch<'_>) -> Result<()> {
        let mut kept = self.cli.keep.map(Kept::new);
        loop {
            printer.out.flush()?;
            std::thread::sleep(watch::PAUSE);
            for path in watch.next()? {
                let before = Kept::before(&path);
                let is_answered =
                    printer.outcome(self.source(&Source::File(path.clone()), None))?;
                if let (true, Some(kept)) = (is_answered, &mut kept) {
                    printer.out.flush()?;
                    if let Err(e) = kept.add(path, before) {
                        writeln!(printer.err, "edge-classify: {}", Plain(&format!("{e:#}")))?;
                    }
                }
            }
            printer.skipped(&mut watch.skipped)?;
        }
    }

    /// Classifies a picture; its heat map goes to `target`.
    fn source(&mut self, source: &Source, target: Option<&PathBuf>) -> Outcome {
        let start = Instant::now();
        let (name, picture) = match source {
            Source::Stdin => ("-".into(), picture::read(&mut io::stdin().lock())),
            Source::File(path) => (path.display().to_string(), picture::open(path)),
            Source::Failed(path, e) => {
                return (path.display().to_string(), Err(anyhow::anyhow!("{e:#}")));
            }
        };
        let decode = start.elapsed();
        let answer = picture.map_err(Into::into).and_then(|picture| {
            let mut answer = self.picture(&picture, decode)?;
            if let (Some(target), Some(contrast)) = (target, &self.contrast) {
                let class = heatmap::class(self.cli, &self.model, &answer.top)?;
                let (model, view) = (&self.model, picture.view()?);
                let sides = [view.height(), view.width()];
                let map = HeatMap::new(contrast, &self.session, model, sides, class)?;
                map.save(view, model, target)?;
                answer.heatmap = Some(map);
            }
            Ok((answer, picture.note))
        });
        (name, answer)
    }

    fn picture(&mut self, picture: &Picture, decode: Duration) -> Result<Answer> {
        let start = Instant::now();
        let mut input = self.session.input_mut();
        let preprocess = self.model.meta().preprocess;
        for_each_pixel(&preprocess, picture.view()?, |index, rgb| input.set_pixel(index, rgb));
        Ok(self.infer(Times { decode, preprocess: start.elapsed(), run: Duration::ZERO }))
    }

    /// Classifies each of a `.npy` file's inputs.
    fn tensor(&mut self, printer: &mut Printer<'_>, path: &Path) -> Result<()> {
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
        printer.start()?;
        for (i, values) in array.values.chunks_exact(want.iter().product()).enumerate() {
            let start = Instant::now();
            let mut input = self.session.input_mut();
            for (index, &value) in values.iter().enumerate() {
                input.set(index, value);
            }
            let times = Times { decode, preprocess: start.elapsed(), run: Duration::ZERO };
            let answer = self.infer(times);
            printer.answer(&format!("{name}[{i}]"), &answer, None)?;
        }
        Ok(())
    }

    /// Runs the model on the input that the session holds.
    fn infer(&mut self, times: Times) -> Answer {
        let start = Instant::now();
        let logits = self.session.run();
        let run = start.elapsed();
        let (top, keep) = (self.cli.top, self.cli.logits);
        let mut answer = Answer {
            top: top_k(logits.iter(), top),
            distance: None,
            logits: keep.then(|| logits.iter().collect()),
            heatmap: None,
            times: Times { run, ..times },
        };
        match self.taught.and_then(|taught| self.session.taught(taught)) {
            None => answer.distance = self.session.distance(),
            Some(scores) => {
                answer.top = top_k(scores.iter(), top);
                answer.distance = Some(scores.distance());
                answer.logits = keep.then(|| scores.iter().collect());
            }
        }
        answer
    }
}

/// Writes answers as they come.
struct Printer<'a> {
    cli: &'a Cli,
    model: Model<'a>,
    taught: Option<&'a Taught<'a>>,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Elements written to the JSON array.
    count: usize,
    code: u8,
    drift: Drift,
}

impl<'a> Printer<'a> {
    fn start(&mut self) -> Result<()> {
        if self.cli.logits {
            write!(self.out, "{{\"logits\":[")?;
        } else if self.cli.json && self.cli.watch.is_none() {
            write!(self.out, "[")?;
        } else if self.cli.csv {
            csv::head(self.out, self.cli.top, self.model.has_known(), self.cli.time)?;
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

    /// Writes an answer and tells whether it is one; a picture's failure is printed, and only
    /// printing can fail.
    fn outcome(&mut self, (name, answer): Outcome) -> Result<bool> {
        let is_answered = answer.is_ok();
        match answer {
            Ok((answer, note)) => self.answer(&name, &answer, note)?,
            Err(e) => self.failure(&name, &e)?,
        }
        Ok(is_answered)
    }

    /// Name of a class.
    fn label(&self, index: usize) -> &'a str {
        self.taught.map_or_else(|| self.model.label(index), |taught| taught.label(index))
    }

    fn answer(&mut self, name: &str, answer: &Answer, note: Option<&str>) -> Result<()> {
        let least = self.cli.threshold.unwrap_or(0.0);
        let classes: Vec<Class<'_>> = (answer.top.iter())
            .filter(|s| s.probability >= least)
            .map(|s| Class { label: self.label(s.index), probability: s.probability })
            .collect();
        let is_unknown = answer.distance.is_some_and(|d| !d.is_known());
        if self.cli.threshold.is_some() && (classes.is_empty() || is_unknown) {
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
            let heatmap = answer.heatmap.as_ref();
            let item = Item::classified(name, classes, answer.distance);
            self.item(&Item { ms, heatmap, note, ..item })?;
        } else if self.cli.csv {
            let ms = self.cli.time.then_some(Some(ms));
            let distance = answer.distance.map(|d| Some(d.ratio()));
            let row = Row { file: name, classes: &classes, distance, ms, error: "" };
            row.write(self.out, self.cli.top)?;
        } else {
            if let Some(note) = note {
                self.note(&format!("{name}: {note}"))?;
            }
            self.line(name, answer, &classes, is_unknown, &ms)?;
        }
        match answer.distance.and_then(|d| self.drift.add(&d)) {
            Some(line) if self.cli.watch.is_some() => self.note(&line),
            _ => Ok(()),
        }
    }

    /// An answer as people read it.
    fn line(
        &mut self,
        name: &str,
        answer: &Answer,
        classes: &[Class<'_>],
        is_unknown: bool,
        ms: &Ms,
    ) -> Result<()> {
        write!(self.out, "{}: ", Plain(name))?;
        let best = answer.top.first();
        let best = best.map(|s| (Plain(self.label(s.index)), s.probability * 100.0));
        match best {
            Some((label, percent)) if is_unknown => {
                write!(self.out, "unknown (nearest: {label}, {percent:.0} %)")?;
            }
            Some((label, percent)) if classes.is_empty() => {
                write!(
                    self.out,
                    "no class above the threshold (likeliest: {label} {percent:.1} %)"
                )?;
            }
            _ => {
                for (i, Class { label, probability }) in classes.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(self.out, "{comma}{} {:.1} %", Plain(label), probability * 100.0)?;
                }
            }
        }
        if self.cli.time {
            let Ms { decode, preprocess, run } = ms;
            write!(
                self.out,
                "  (decode {decode:.2} ms, preprocess {preprocess:.2} ms, run {run:.2} ms)"
            )?;
        }
        Ok(writeln!(self.out)?)
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
            self.item(&Item::failed(name, &error))?;
        } else if self.cli.csv {
            let ms = self.cli.time.then_some(None);
            let distance = self.model.has_known().then_some(None);
            let row = Row { file: name, classes: &[], distance, ms, error: &error };
            row.write(self.out, self.cli.top)?;
        }
        Ok(())
    }

    /// Says what is neither an answer nor an error.
    fn note(&mut self, text: &str) -> Result<()> {
        if !self.cli.quiet {
            writeln!(self.err, "edge-classify: {}", Plain(text))?;
        }
        Ok(())
    }

    /// Counts and names what was not classified.
    fn skipped(&mut self, skipped: &mut Skipped) -> Result<()> {
        let lines = skipped.take_lines();
        if !lines.is_empty() {
            self.out.flush()?;
        }
        lines.iter().try_for_each(|line| self.note(line))
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
