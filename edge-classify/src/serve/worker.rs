//! A thread that classifies: it has an arena and a session of its own, and takes whole pictures.

use super::App;
use super::model::Loaded;
use super::queue::{Answer, Job, Next, Outcome};
use super::results::Record;
use crate::cli::MAX_TOP;
use crate::heatmap::HeatMap;
use crate::times::to_ms;
use core::panic::AssertUnwindSafe;
use runtime::classify::{Score, top_k};
use runtime::heat::{self, Contrast};
use runtime::preprocess::for_each_pixel;
use runtime::{AlignedBuf, Isa, Model, Session};
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Instant;

/// Classifies until the queue is closed and empty.
pub(super) fn run(app: &App, isa: Isa) {
    // A panic costs the request in hand its answer, never the thread.
    while catch_unwind(AssertUnwindSafe(|| with_model(app, isa))).unwrap_or(true) {}
}

/// Classifies until the model changes, or to the end: `false`.
fn with_model(app: &App, isa: Isa) -> bool {
    let loaded: Arc<Loaded> = app.queue.model();
    let Ok(model) = loaded.model() else { return false };
    let heat_len = heat::arena_len(&model);
    let mut arena = AlignedBuf::zeroed(heat_len.unwrap_or(model.arena_len()));
    let Ok(mut session) = Session::new(&model, &mut arena) else { return false };
    if heat_len.is_ok() {
        let Ok(kept) = session.with_heat() else { return false };
        session = kept;
    }
    let session = session.with_isa(isa);
    let mut classifier = Classifier { model, session, contrast: None };
    loop {
        match app.queue.next(&loaded) {
            Next::Job(job) if job.reply.is_closed() => {}
            Next::Job(job) => answer(app, &loaded, &mut classifier, job),
            Next::Swap => return true,
            Next::Stop => return false,
        }
    }
}

/// A model, and what it takes to run it.
struct Classifier<'a> {
    model: Model<'a>,
    session: Session<'a>,
    /// Made for the first heat map.
    contrast: Option<Contrast>,
}

fn answer(app: &App, loaded: &Loaded, classifier: &mut Classifier<'_>, job: Job) {
    let start = Instant::now();
    let Job { file, name, top, heatmap, _memory, reply } = job;
    let outcome = classify(classifier, &file, top, heatmap);
    let time = start.elapsed();
    app.metrics.picture(outcome.is_ok(), time);
    let distance = outcome.as_ref().ok().and_then(|answer| answer.distance);
    if let Some(line) = distance.and_then(|distance| loaded.add(&distance)) {
        app.say(line);
    }
    app.record(&Record::new(&name, &outcome, to_ms(time)));
    // What was sent is let go before the client can send the next.
    drop((file, _memory));
    // Nobody may wait any more.
    let _ = reply.send(outcome);
}

fn classify(classifier: &mut Classifier<'_>, file: &[u8], top: usize, heatmap: bool) -> Outcome {
    let Classifier { model, session, .. } = classifier;
    let start = Instant::now();
    let picture = picture::decode(file).map_err(|e| e.to_string())?;
    let view = picture.view().map_err(|e| e.to_string())?;
    let decoded = Instant::now();
    let mut input = session.input_mut();
    for_each_pixel(&model.meta().preprocess, view, |index, rgb| input.set_pixel(index, rgb));
    // Its pixels are not needed any more; others wait for the memory.
    let (note, sides) = (picture.note, [view.height(), view.width()]);
    drop(picture);
    let prepared = Instant::now();
    let logits = session.run();
    let scores: heapless::Vec<Score, MAX_TOP> = top_k(logits.iter(), top);
    let distance = session.distance();
    let ran = Instant::now();
    let classes =
        scores.iter().map(|s| (model.label(s.index).to_string(), s.probability)).collect();
    let best = scores.first().filter(|_| heatmap);
    let ms = |from: Instant, to: Instant| ((to - from).as_secs_f64() * 1e6).round() / 1e3;
    Ok(Answer {
        classes,
        distance,
        note,
        heatmap: best.and_then(|best| classifier.heatmap(sides, best.index)),
        ms: [ms(start, decoded), ms(decoded, prepared), ms(prepared, ran)],
    })
}

impl Classifier<'_> {
    /// Of the last run; `None` for a network that has none.
    fn heatmap(&mut self, sides: [usize; 2], class: usize) -> Option<HeatMap> {
        if self.contrast.is_none() {
            self.contrast = Contrast::new(&self.model).ok();
        }
        HeatMap::new(self.contrast.as_ref()?, &self.session, &self.model, sides, class).ok()
    }
}
