//! A thread that classifies: it has an arena and a session of its own, and takes whole pictures.

use super::App;
use super::model::Loaded;
use super::queue::{Answer, Job, Next, Outcome};
use super::results::Record;
use crate::cli::MAX_TOP;
use crate::times::to_ms;
use core::panic::AssertUnwindSafe;
use runtime::classify::{Score, top_k};
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
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let Ok(session) = Session::new(&model, &mut arena) else { return false };
    let mut session = session.with_isa(isa);
    loop {
        match app.queue.next(&loaded) {
            Next::Job(job) if job.reply.is_closed() => {}
            Next::Job(job) => answer(app, &loaded, &model, &mut session, job),
            Next::Swap => return true,
            Next::Stop => return false,
        }
    }
}

fn answer(app: &App, loaded: &Loaded, model: &Model<'_>, session: &mut Session<'_>, job: Job) {
    let start = Instant::now();
    let Job { file, name, top, _memory, reply } = job;
    let outcome = classify(model, session, &file, top);
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

fn classify(model: &Model<'_>, session: &mut Session<'_>, file: &[u8], top: usize) -> Outcome {
    let start = Instant::now();
    let picture = picture::decode(file).map_err(|e| e.to_string())?;
    let view = picture.view().map_err(|e| e.to_string())?;
    let decoded = Instant::now();
    let mut input = session.input_mut();
    for_each_pixel(&model.meta().preprocess, view, |index, rgb| input.set_pixel(index, rgb));
    // Its pixels are not needed any more; others wait for the memory.
    let note = picture.note;
    drop(picture);
    let prepared = Instant::now();
    let logits = session.run();
    let scores: heapless::Vec<Score, MAX_TOP> = top_k(logits.iter(), top);
    let distance = session.distance();
    let ran = Instant::now();
    let ms = |from: Instant, to: Instant| ((to - from).as_secs_f64() * 1e6).round() / 1e3;
    Ok(Answer {
        classes: scores.iter().map(|s| (model.label(s.index).to_string(), s.probability)).collect(),
        distance,
        note,
        ms: [ms(start, decoded), ms(decoded, prepared), ms(prepared, ran)],
    })
}
