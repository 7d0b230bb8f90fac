//! `trainer fit`: the network that suits a board, and photos.
//!
//! Whatever was trained and is at hand is cut to its first blocks (`network::shortened`) and shown pictures of
//! several sizes. What each of these *candidates* takes on the board is known before anything is trained: memory and
//! flash exactly, by the planner and the writer; time by `convert::cost`. How well it will tell the classes apart is
//! guessed by heads on what it sees already (`guess`); the best few are fine-tuned, converted and measured in int8.

mod candidates;
mod guess;
mod journal;
mod words;

pub(crate) use candidates::{Candidate, Milliseconds, Takes};
pub(crate) use guess::{ask, features};
pub(crate) use journal::{Guess, Trained};
pub(crate) use words::describe;

use crate::builtin::{Builtin, Target};
use crate::cli::{Given, STOP, Task, read, settings, stop_on_interrupt, tuning};
use crate::net;
use crate::options::open_model;
use crate::report;
use crate::train::{Claim, Existing, Folder, Run, SETTINGS, check_file, duration};
use anyhow::{Context, bail, ensure};
use artifact::Preprocess;
use artifact::text::AsPlain;
use candidates::{Base, Limits};
use clap::Args;
use convert::accuracy::predict;
use convert::board::{Board, Boards};
use convert::budget::Bytes;
use convert::cost::Core;
use convert::pipeline::{self, Options};
use core::sync::atomic::Ordering;
use core::time::Duration;
use dataset::samples::stored_samples;
use dataset::{Dataset, Glance};
use journal::Journal;
use network::checkpoint::{Checkpoint, TrainingRecord};
use network::file::write_atomic;
use network::model::FloatModel;
use page::progress::Counter;
use page::terminal::{Output, Role};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use zoo::Head;

#[derive(Debug, Args)]
pub(crate) struct Fit {
    /// What it is to run on, such as nucleo-f446re, pico or pi4; a wrong name lists all.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["core", "ram", "flash"])]
    board: Option<String>,
    /// File of more boards, written as convert/boards.toml.
    #[arg(long, value_name = "FILE")]
    boards: Option<PathBuf>,
    /// What computes, instead of the board's; without a board, cortex-m4.
    #[arg(long, value_enum)]
    core: Option<Core>,
    /// Its clock in megahertz; without a board, 100.
    #[arg(long)]
    mhz: Option<f64>,
    /// Memory for the model, such as 64K, of which 5K are for the stack.
    #[arg(long, value_name = "BYTES")]
    ram: Option<Bytes>,
    /// Flash for the model, such as 256K, of which 42K are for code.
    #[arg(long, value_name = "BYTES")]
    flash: Option<Bytes>,
    /// The longest that a picture may take, such as 50ms or 2s, by an estimate.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    latency: Option<Duration>,
    /// Another trained network to choose from, of the kinds that `finetune --model` takes; may be repeated.
    #[arg(long = "from", value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// How many of the most promising networks are trained.
    #[arg(long, value_name = "N", default_value_t = 3)]
    finalists: usize,
    #[command(flatten)]
    pub(crate) task: Task,
}

/// A time such as `50ms` or `2s`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no time; write 50ms or 2s");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').ok_or_else(bad)?, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * unit).ok().filter(|time| !time.is_zero()).ok_or_else(bad)
}

/// Epochs of fine-tuning on few pictures, most often.
const EPOCHS: u32 = 6;

/// What is looked for.
pub(crate) struct Wanted {
    /// The board's name, or what was said instead.
    pub(crate) name: String,
    pub(crate) board: Board,
    pub(crate) limits: Limits,
}

impl Fit {
    /// The board, with what the command line says instead.
    fn wanted(&self) -> anyhow::Result<Wanted> {
        let mut boards = Boards::known();
        if let Some(file) = &self.boards {
            boards.add(file).map_err(|e| anyhow::anyhow!("--boards {e}"))?;
        }
        let unnamed = Board {
            core: Core::CortexM4,
            mhz: 100.0,
            ram: None,
            flash: None,
            threads: 1,
            nj_per_cycle: None,
        };
        let known = self.board.as_deref().map(|name| boards.named(name)).transpose();
        let known = known.map_err(|e| anyhow::anyhow!("--board {e}"))?.unwrap_or(unnamed);
        let board = Board {
            core: self.core.unwrap_or(known.core),
            mhz: self.mhz.unwrap_or(known.mhz),
            ram: self.ram.or(known.ram),
            flash: self.flash.or(known.flash),
            ..known
        };
        ensure!(
            board.mhz.is_finite() && board.mhz > 0.0,
            "--mhz {}: pass a number above 0",
            board.mhz
        );
        let limits = Limits { ram: board.ram, flash: board.flash, latency: self.latency };
        let name = self.board.clone().unwrap_or_else(|| board.core.name());
        Ok(Wanted { name, board, limits })
    }

    /// The folder of the search: that of `--out`, or the first free one of the board's name.
    fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let learning = &self.task.learning;
        let numbered = |number: u32| match number {
            1 => PathBuf::from(format!("runs/fit-{name}")),
            _ => PathBuf::from(format!("runs/fit-{name}-{number}")),
        };
        let is_taken = |dir: &PathBuf| Journal::path(dir).exists();
        let mut all = (1..).map(numbered);
        let dir = match &learning.out {
            Some(dir) => dir.clone(),
            None if learning.resume || learning.overwrite => {
                all.take_while(is_taken).last().unwrap_or_else(|| numbered(1))
            }
            None => all.find(|dir| !is_taken(dir)).unwrap_or_else(|| numbered(1)),
        };
        let name = dir.display();
        match (is_taken(&dir), learning.resume, learning.overwrite) {
            (true, false, false) => bail!(
                "{name} holds a search; pass --resume to go on with it, --overwrite to start again, \
                 or --out with another folder"
            ),
            (false, true, _) => {
                bail!("{name} holds no search to resume; leave --resume away or pass its --out")
            }
            _ => Ok(dir),
        }
    }

    fn read(&self, preprocess: Preprocess, out: &mut Output<'_>) -> anyhow::Result<Dataset> {
        let Task { common, chance, .. } = &self.task;
        read(common, chance, preprocess, None, &TrainingRecord::default(), out)
    }

    /// What a search depends on.
    fn settings(&self, wanted: &Wanted, networks: &[Checkpoint], data: &Dataset) -> String {
        let networks: Vec<String> = networks.iter().map(|network| network.origin()).collect();
        let Wanted { board, limits, .. } = wanted;
        let Task { chance, distill, .. } = &self.task;
        format!("{} {board:?} {limits:?} {networks:?} {chance:?} {distill:?}", data.fingerprint)
    }

    /// The trained networks to choose from.
    fn networks(&self, glance: &Glance) -> anyhow::Result<Vec<Checkpoint>> {
        let mut found = Vec::new();
        for target in [Target::CortexM, Target::Host] {
            found.push(Builtin::for_pictures(glance.side, target).open()?);
        }
        for path in &self.models {
            found.push(open_model(path, Head::Optional)?);
        }
        match self.task.learning.grey {
            true => found.into_iter().map(net::make_grey).collect::<Result<_, _>>(),
            false => Ok(found),
        }
        .map_err(anyhow::Error::msg)
    }
}

/// All of a search.
struct Search<'a> {
    args: &'a Fit,
    given: Given<'a>,
    wanted: Wanted,
    bases: Vec<Base>,
    glance: Glance,
    folder: Folder,
    /// What all of it depends on.
    settings: String,
    journal: Journal,
}

/// Searches, trains and writes the model, its device file and the page.
pub(crate) fn run(args: &Fit, given: Given<'_>, out: &mut Output<'_>) -> anyhow::Result<()> {
    let started = Instant::now();
    let wanted = args.wanted()?;
    let learning = &args.task.learning;
    ensure!(args.finalists > 0, "--finalists 0 trains nothing; pass at least 1");
    ensure!(
        learning.start_size.is_none() && learning.predict.is_empty() && learning.classes.is_none(),
        "--start-size, --predict and --classes are for finetune"
    );
    let model = &learning.model_out;
    report::check_extension("-o", model, "mpk")?;
    let [edge, page] = ["edge", "html"].map(|ending| model.with_extension(ending));
    for path in [&edge, &page] {
        check_file(path).with_context(|| format!("-o {}", path.display()))?;
    }
    // Now, not after minutes of searching.
    args.task.distill.open()?;
    let (command, _) = &given;
    let claim = Claim::file(model, "-o", command)?;
    let glance = Glance::at(&args.task.common.data)?;
    let dir = args.place(&wanted.name)?;
    let networks = args.networks(&glance)?;
    let folder = Folder::open(&dir, Existing::Overwrite, command)?;
    stop_on_interrupt();
    // The classes, and what is wrong with the folder.
    let data = args.read(networks[0].preprocess, out)?;
    ensure!(!data.val.is_empty(), "no validation pictures to choose by; leave --val-split 0 away");
    let settings = args.settings(&wanted, &networks, &data);
    let base = |network| Base::new(network, learning.size, &data.labels);
    let bases = networks.into_iter().map(base).collect();
    drop(data);
    let journal = Journal::default();
    let mut search = Search { args, given, wanted, bases, glance, folder, settings, journal };
    let finished = search.run(out)?;
    claim.check()?;
    finished.checkpoint.save(model)?;
    write_atomic(&edge, &finished.edge).with_context(|| edge.display().to_string())?;
    let html = report::fit(&report::Fitted {
        wanted: &search.wanted,
        guesses: search.journal.guesses(),
        trained: search.journal.trained(),
        best: finished.trained,
        extent: &finished.extent,
        validation: &finished.validation,
        test: finished.test,
        command: &search.given.0,
        seconds: started.elapsed().as_secs_f64(),
    })?;
    page::save(&html, &page)?;
    let best = &search.journal.trained()[finished.trained];
    words::end(&search.wanted, best, [model, &edge, &page], &finished, out)?;
    writeln!(out, "{} in all", duration(started.elapsed().as_secs_f64()))?;
    out.tell("board", search.wanted.board)?;
    out.tell("model", page::told(model))?;
    out.tell("edge", page::told(&edge))?;
    out.tell("page", page::told(&page))?;
    out.tell("best", best)?;
    out.tell("test_accuracy", finished.test)?;
    out.tell("trained", search.journal.trained())?;
    out.tell("candidates", search.journal.guesses())?;
    out.tell("seconds", started.elapsed().as_secs_f64())?;
    Ok(out.finish()?)
}

/// What a search ends with.
pub(crate) struct Finished {
    checkpoint: Checkpoint,
    edge: Vec<u8>,
    /// Which of those that were trained.
    trained: usize,
    /// Int8 accuracy on pictures that chose nothing, and how many those are.
    pub(crate) test: Option<(f64, usize)>,
    pub(crate) extent: String,
    pub(crate) validation: String,
}

/// A network that was trained and converted.
struct Converted {
    checkpoint: Checkpoint,
    edge: Vec<u8>,
    takes: Takes,
}

impl Search<'_> {
    fn run(&mut self, out: &mut Output<'_>) -> anyhow::Result<Finished> {
        let candidates = self.candidates(out)?;
        let resume = self.args.task.learning.resume;
        self.journal = Journal::open(&self.folder, &self.settings, resume)?;
        self.guess(&candidates, out)?;
        let order = self.journal.best(&candidates);
        let finalists: Vec<Candidate> = order.into_iter().take(self.args.finalists).collect();
        words::finalists(&finalists, &self.journal, out)?;
        let (mut best, mut last): (Option<(f64, usize, Converted)>, Option<Dataset>) = (None, None);
        for (number, candidate) in finalists.iter().enumerate() {
            let [n, of] = [number + 1, finalists.len()];
            writeln!(out, "{} ({n} of {of})", Role::Good.paint(candidate.name.plain()))?;
            let (data, converted) = self.train(candidate, out)?;
            let place = match self.journal.place(&candidate.name) {
                Some(place) => place,
                None => self.measure(candidate, &data, &converted)?,
            };
            let trained = &self.journal.trained()[place];
            let accuracy = trained.int8;
            words::trained(trained, out)?;
            let fits = self.wanted.limits.exceeded(&converted.takes).is_none();
            if fits && best.as_ref().is_none_or(|(before, ..)| accuracy > *before) {
                (best, last) = (Some((accuracy, place, converted)), Some(data));
            }
        }
        let (Some((_, trained, converted)), Some(data)) = (best, last) else {
            bail!("none of the trained networks fits any more; pass --finalists with more")
        };
        let test =
            (!data.test.is_empty()).then(|| predict(&converted.edge, &data.test)).transpose()?;
        Ok(Finished {
            checkpoint: converted.checkpoint,
            edge: converted.edge,
            trained,
            test: test.map(|said| (said.accuracy(&data.test.labels), data.test.len())),
            extent: data.extent(),
            validation: data.validation.to_string(),
        })
    }

    /// The candidates that the board has room and time for.
    fn candidates(&self, out: &mut Output<'_>) -> anyhow::Result<Vec<Candidate>> {
        let (mut fitting, mut smallest) = (Vec::new(), None::<Candidate>);
        let counter = Counter::new("measuring what networks take");
        let all: usize = self.bases.iter().map(|base| base.len()).sum();
        let mut done = 0;
        for (index, base) in self.bases.iter().enumerate() {
            for cut in 0..base.len() {
                // Larger pictures take more of everything.
                for &side in &base.sides {
                    check_stopped()?;
                    let candidate = Candidate::new(index, base, cut, side, &self.wanted.board)?;
                    if smallest.as_ref().is_none_or(|s| candidate.takes.ram < s.takes.ram) {
                        smallest = Some(candidate.clone());
                    }
                    match self.wanted.limits.exceeded(&candidate.takes) {
                        None => fitting.push(candidate),
                        Some(_) => break,
                    }
                }
                done += 1;
                counter.show(done, all);
            }
        }
        drop(counter);
        words::candidates(&self.wanted, &fitting, out)?;
        match smallest.filter(|_| fitting.is_empty()) {
            Some(s) => bail!(
                "no network fits: the one of least memory, {}, takes {}; raise the limits or pass \
                 --from with smaller networks",
                s.name.plain(),
                s.takes
            ),
            None => Ok(fitting),
        }
    }

    /// Guesses how well the candidates will do, those of one size of pictures after another.
    fn guess(&mut self, candidates: &[Candidate], out: &mut Output<'_>) -> anyhow::Result<()> {
        let device = self.args.task.common.machine.device()?;
        let mut sides: Vec<u16> = candidates.iter().map(|c| c.side).collect();
        sides.sort_unstable();
        sides.dedup();
        let learning = &self.args.task.learning;
        let seed = self.args.task.chance.seed;
        // Multiply-accumulates and seconds so far, until it was said how long all takes.
        let mut measured = Some((0.0, 0.0));
        for side in sides {
            for (index, base) in self.bases.iter().enumerate() {
                let open = candidates.iter().filter(|c| {
                    (c.side, c.base) == (side, index) && self.journal.guessed(&c.name).is_none()
                });
                let open: Vec<&Candidate> = open.collect();
                // Pictures take long to read.
                if open.is_empty() {
                    continue;
                }
                let mut silent = std::io::sink();
                let mut silent = Output::new(&mut silent, self.args.task.voice);
                let data = self.args.read(base.preprocess(side), &mut silent)?;
                let some = data.train.stratified(guess::MOST, seed);
                let pictures = data.train.select(&some);
                for candidate in open {
                    check_stopped()?;
                    let began = Instant::now();
                    let draft = base.at(candidate.cut, side);
                    let (accuracy, loss) = guess::guess(&draft, &pictures, seed, &device)?;
                    if let Some((macs, seconds)) = &mut measured {
                        *macs += candidate.takes.macs as f64 * pictures.len() as f64;
                        *seconds += began.elapsed().as_secs_f64();
                    }
                    self.journal.add_guess(&self.folder, Guess::new(candidate, accuracy, loss))?;
                }
                if let Some((macs, seconds)) = measured.filter(|(_, seconds)| *seconds > 0.0) {
                    measured = None;
                    let epochs = learning.epochs.unwrap_or(EPOCHS);
                    let rate = macs / seconds;
                    let work = words::Work { looked_at: pictures.len(), rate, epochs };
                    words::duration_of(candidates, &data, self.args.finalists, &work, out)?;
                }
            }
        }
        Ok(())
    }

    /// Fine-tunes a candidate, or reads what a run before has made of it, and converts it.
    fn train(
        &self,
        candidate: &Candidate,
        out: &mut Output<'_>,
    ) -> anyhow::Result<(Dataset, Converted)> {
        let Task { chance, learning, common, distill, .. } = &self.args.task;
        let base = &self.bases[candidate.base];
        let preprocess = base.preprocess(candidate.side);
        let data = self.args.read(preprocess, out)?;
        let start = base.at(candidate.cut, candidate.side).check().map_err(anyhow::Error::msg)?;
        let defaults = tuning(learning, &preprocess, &self.glance)?;
        let recipe = learning.recipe(chance.seed, &defaults).map_err(anyhow::Error::msg)?;
        let mut config = start.config.clone();
        config.dropout = learning.dropout.unwrap_or(config.dropout);
        let dir = self.folder.path().join(&candidate.name);
        let (command, given) = &self.given;
        // Of a search that begins anew, nothing goes on.
        let existing = match learning.resume && dir.join("state.mpk").exists() {
            true => Existing::Resume,
            false => Existing::Overwrite,
        };
        let mut folder = Folder::open(&dir, existing, command)?;
        folder.keep_settings(settings(given, &dir.join(SETTINGS)));
        let teach = |teacher| distill.teaching(teacher, &data, preprocess, common.cache, out);
        let teaching = distill.open()?.map(teach).transpose()?;
        let mut run = Run {
            config,
            preprocess,
            recipe,
            base: Some(&start),
            teaching: teaching.as_ref(),
            folder: Some(folder),
            device: common.machine.device()?,
            checkpointing: learning.checkpointing,
            top_k: 1,
            terminal: out.is_terminal(),
            stop: &STOP,
        };
        let checkpoint = run.train(data.clone(), out)?;
        let model = FloatModel::from_checkpoint(&checkpoint)?;
        let pictures = stored_samples(&model.samples, &model.preprocess)?;
        let options = Options { target: self.wanted.board.target(), ..Options::default() };
        let counter = Counter::new("converting");
        let converted =
            pipeline::convert(&model, &pictures, options, |done, all| counter.show(done, all))?;
        drop(counter);
        let takes = Takes::of(&converted, &self.wanted.board)?;
        let edge = converted.emitted.bytes;
        Ok((data, Converted { checkpoint, edge, takes }))
    }

    /// Measures a trained candidate on the validation pictures, and notes it down; where in the journal.
    fn measure(
        &mut self,
        candidate: &Candidate,
        data: &Dataset,
        converted: &Converted,
    ) -> anyhow::Result<usize> {
        let counter = Counter::new("measuring in int8");
        let said = predict(&converted.edge, &data.val)?;
        drop(counter);
        let int8 = said.accuracy(&data.val.labels);
        let epochs = &converted.checkpoint.training.epochs;
        let float = epochs.last().and_then(|epoch| epoch.val_accuracy).unwrap_or(0.0);
        let trained = Trained {
            name: candidate.name.clone(),
            takes: converted.takes.clone(),
            float,
            int8,
            pictures: data.val.len(),
        };
        self.journal.add_trained(&self.folder, trained)
    }
}

/// Refuses to go on after Ctrl-C.
fn check_stopped() -> anyhow::Result<()> {
    ensure!(
        !STOP.load(Ordering::Relaxed),
        "stopped; the same command with --resume goes on from here"
    );
    Ok(())
}
