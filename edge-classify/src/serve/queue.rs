//! What stands between requests and the threads that classify: a bounded queue of pictures, and the
//! model that they are classified with.

use super::model::Loaded;
use crate::heatmap::HeatMap;
use axum::body::Bytes;
use runtime::Distance;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A picture that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) file: Bytes,
    pub(super) name: String,
    /// Classes to name.
    pub(super) top: usize,
    /// Whether to tell where the likeliest comes from.
    pub(super) heatmap: bool,
    /// The request's share of the memory for what is sent; with its last job, it is free again.
    pub(super) _memory: Arc<OwnedSemaphorePermit>,
    /// Closed where nobody waits for the answer any more.
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// An answer, or the text of what is wrong with the picture.
pub(super) type Outcome = Result<Answer, String>;

/// What a picture shows.
#[derive(Debug)]
pub(super) struct Answer {
    /// Labels and probabilities, likeliest first.
    pub(super) classes: Vec<(String, f32)>,
    /// Where the model tells unknown pictures.
    pub(super) distance: Option<Distance>,
    pub(super) note: Option<&'static str>,
    /// Where it was asked for, and the network has any.
    pub(super) heatmap: Option<HeatMap>,
    /// Milliseconds of decoding, preprocessing and running.
    pub(super) ms: [f64; 3],
}

#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    model: Arc<Loaded>,
    is_closed: bool,
}

/// What a thread does next.
pub(super) enum Next {
    Job(Job),
    /// The model has changed.
    Swap,
    Stop,
}

impl Queue {
    pub(super) fn new(most: usize, model: Arc<Loaded>) -> Self {
        let state = State { jobs: VecDeque::new(), model, is_closed: false };
        Self { most, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// No lock is held where anything could panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pictures that wait.
    pub(super) fn len(&self) -> usize {
        self.state().jobs.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// Adds all jobs; `false` where there is no room for them, and none was added.
    pub(super) fn push(&self, jobs: Vec<Job>) -> bool {
        let mut state = self.state();
        if state.jobs.len() + jobs.len() > self.most {
            return false;
        }
        state.jobs.extend(jobs);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// The model in use.
    pub(super) fn model(&self) -> Arc<Loaded> {
        Arc::clone(&self.state().model)
    }

    /// Replaces the model, also for what waits already.
    pub(super) fn swap(&self, model: Arc<Loaded>) {
        self.state().model = model;
        self.changed.notify_all();
    }

    /// Lets threads end when nothing waits any more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for what a thread that has `model` does next.
    pub(super) fn next(&self, model: &Arc<Loaded>) -> Next {
        let mut state = self.state();
        loop {
            if !Arc::ptr_eq(&state.model, model) {
                return Next::Swap;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Next::Job(job);
            }
            if state.is_closed {
                return Next::Stop;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
