//! Groups of items, made ahead of whoever takes them, by threads of their own.
//!
//! Threads claim items one by one and in order, across the borders of groups: none is idle
//! while the slowest item of a group is made. Whoever makes the last missing item of a group
//! also finishes it. Groups are handed over in order, and only so many are begun before the first
//! of them is taken: that bounds the memory. What an item is depends on its place alone, so
//! that no number of threads can change it.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::collections::VecDeque;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What is made.
pub(super) trait Work: Send + Sync + 'static {
    /// Part of a group, made by one thread.
    type Item: Send + 'static;
    /// Whole group.
    type Group: Send + 'static;
    /// Why an item cannot be made.
    type Error: Send + 'static;

    /// Number of groups.
    fn groups(&self) -> usize;

    /// Number of items in a group, at least 1.
    fn items(&self, group: usize) -> usize;

    /// Makes an item.
    fn item(&self, group: usize, item: usize) -> Result<Self::Item, Self::Error>;

    /// Makes a group of its items, all there and in order.
    fn finish(&self, group: usize, items: Vec<Self::Item>) -> Self::Group;
}

/// The groups of some [`Work`], in order. Ends after the first error, to which all groups
/// before it are still handed over.
#[derive(Debug)]
pub(super) struct Prefetch<W: Work> {
    shared: Arc<Shared<W>>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
}

struct Shared<W: Work> {
    work: W,
    /// Most groups begun and not yet taken.
    window: usize,
    state: Mutex<State<W>>,
    /// Told when there may be items to claim, or no more.
    room: Condvar,
    /// Told when a group is whole, or never will be.
    ready: Condvar,
}

struct State<W: Work> {
    /// Group and item to claim next.
    next: (usize, usize),
    /// Number of groups taken.
    taken: usize,
    /// Those begun, from group `taken` on.
    begun: VecDeque<Slot<W>>,
    /// No further item is to be claimed.
    closed: bool,
}

/// A group under way.
struct Slot<W: Work> {
    items: Vec<Option<W::Item>>,
    missing: usize,
    /// Set at the end; the outer error is a panic's.
    outcome: Option<Outcome<W::Group, W::Error>>,
}

type Outcome<T, E> = std::thread::Result<Result<T, E>>;

impl<W: Work> core::fmt::Debug for Shared<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("window", &self.window).finish_non_exhaustive()
    }
}

impl<W: Work> Prefetch<W> {
    /// Starts making up to `window` groups ahead, on up to `threads` threads; at least one of
    /// both.
    pub(super) fn start(work: W, window: usize, threads: usize) -> Self {
        let items: usize = (0..work.groups()).map(|g| work.items(g)).sum();
        let state = State { next: (0, 0), taken: 0, begun: VecDeque::new(), closed: false };
        let shared = Arc::new(Shared {
            work,
            window: window.max(1),
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
        });
        let thread = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.run())
        };
        let threads = (0..threads.max(1).min(items)).map(thread).collect();
        Self { shared, threads, waited: Duration::ZERO }
    }

    /// How long [`next`](Iterator::next) has waited for groups, all in all.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

impl<W: Work> Iterator for Prefetch<W> {
    type Item = Result<W::Group, W::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if state.taken >= shared.work.groups() {
            return None;
        }
        let began = Instant::now();
        let outcome = loop {
            if let Some(outcome) = state.begun.front_mut().and_then(|slot| slot.outcome.take()) {
                break outcome;
            }
            state = shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        self.waited += began.elapsed();
        state.begun.pop_front();
        // After an error there is nothing more to take.
        let ended = !matches!(outcome, Ok(Ok(_)));
        state.taken = if ended { shared.work.groups() } else { state.taken + 1 };
        drop(state);
        shared.room.notify_all();
        Some(outcome.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<W: Work> Drop for Prefetch<W> {
    /// Waits for the items under way: no thread outlives this.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // What panics in there was caught in there.
            let _ = thread.join();
        }
    }
}

impl<W: Work> Shared<W> {
    /// The state is consistent whenever its lock is free, for nothing in between can panic.
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes items until there are no more.
    fn run(&self) {
        while let Some((group, item)) = self.claim() {
            match catch_unwind(AssertUnwindSafe(|| self.work.item(group, item))) {
                Ok(Ok(made)) => {
                    if let Some(items) = self.put((group, item), made) {
                        let finish = || Ok(self.work.finish(group, items));
                        self.end(group, catch_unwind(AssertUnwindSafe(finish)));
                    }
                }
                Ok(Err(error)) => self.end(group, Ok(Err(error))),
                Err(panic) => self.end(group, Err(panic)),
            }
        }
    }

    /// The next item to make, once there is room for its group.
    fn claim(&self) -> Option<(usize, usize)> {
        let mut state = self.lock();
        loop {
            let (group, item) = state.next;
            if state.closed || group >= self.work.groups() {
                return None;
            }
            if group < state.taken + self.window {
                let count = self.work.items(group);
                if item == 0 {
                    let items = core::iter::repeat_with(|| None).take(count).collect();
                    state.begun.push_back(Slot { items, missing: count, outcome: None });
                }
                state.next = if item + 1 < count { (group, item + 1) } else { (group + 1, 0) };
                return Some((group, item));
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts an item into its place; all items of the group if it was the last missing one.
    fn put(&self, (group, item): (usize, usize), made: W::Item) -> Option<Vec<W::Item>> {
        let mut state = self.lock();
        let slot = state.slot(group)?;
        slot.items[item] = Some(made);
        slot.missing -= 1;
        let whole = slot.missing == 0;
        whole.then(|| core::mem::take(&mut slot.items).into_iter().flatten().collect())
    }

    /// A group has come to its end.
    fn end(&self, group: usize, outcome: Outcome<W::Group, W::Error>) {
        let mut state = self.lock();
        // Items are claimed in order: those of all groups before this one are made or under way.
        state.closed |= !matches!(outcome, Ok(Ok(_)));
        if let Some(slot) = state.slot(group)
            && slot.outcome.is_none()
        {
            slot.outcome = Some(outcome);
        }
        drop(state);
        self.ready.notify_all();
        self.room.notify_all();
    }
}

impl<W: Work> State<W> {
    /// The place of a group that was begun; `None` once it is taken.
    fn slot(&mut self, group: usize) -> Option<&mut Slot<W>> {
        let index = group.checked_sub(self.taken)?;
        self.begun.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use core::time::Duration;

    /// Groups of three numbers; what is to go wrong, and how much was begun.
    #[derive(Default)]
    struct Numbers {
        groups: usize,
        fails: Option<(usize, usize)>,
        panics: Option<(usize, usize)>,
        slow: Duration,
        taken: Arc<AtomicUsize>,
        /// Most groups that were begun before one of them was taken.
        ahead: Arc<AtomicUsize>,
    }

    impl Work for Numbers {
        type Item = usize;
        type Group = Vec<usize>;
        type Error = String;

        fn groups(&self) -> usize {
            self.groups
        }
        fn items(&self, _: usize) -> usize {
            3
        }
        fn item(&self, group: usize, item: usize) -> Result<usize, String> {
            let ahead = (group + 1).saturating_sub(self.taken.load(Ordering::SeqCst));
            self.ahead.fetch_max(ahead, Ordering::SeqCst);
            std::thread::sleep(self.slow);
            assert_ne!(self.panics, Some((group, item)), "a bug");
            match self.fails == Some((group, item)) {
                true => Err(format!("no item {item} in group {group}")),
                false => Ok(10 * group + item),
            }
        }
        fn finish(&self, _: usize, items: Vec<usize>) -> Vec<usize> {
            items
        }
    }

    #[test]
    fn groups_come_in_order_and_not_too_many_ahead() {
        for (window, threads) in [(1, 1), (1, 4), (3, 4), (5, 100), (0, 0)] {
            let work = Numbers { groups: 40, ..Numbers::default() };
            let (taken, ahead) = (work.taken.clone(), work.ahead.clone());
            let mut got = Vec::new();
            for group in Prefetch::start(work, window, threads) {
                got.push(group.unwrap());
                taken.fetch_add(1, Ordering::SeqCst);
            }
            let want: Vec<_> = (0..40).map(|g| vec![10 * g, 10 * g + 1, 10 * g + 2]).collect();
            assert_eq!(got, want);
            // This counts a group as taken a moment after its place is free.
            let most = window.max(1) + 1;
            assert!(ahead.load(Ordering::SeqCst) <= most, "{ahead:?} of {most}");
        }
    }

    #[test]
    fn an_error_comes_after_the_groups_before_it() {
        for threads in [1, 2, 8] {
            let work = Numbers { groups: 9, fails: Some((4, 1)), ..Numbers::default() };
            let got: Vec<_> = Prefetch::start(work, 3, threads).collect();
            assert_eq!(got.len(), 5);
            assert!(got[..4].iter().all(Result::is_ok));
            assert_eq!(got[4], Err("no item 1 in group 4".into()));
        }
    }

    #[test]
    fn a_panic_is_passed_on() {
        let work = Numbers { groups: 9, panics: Some((2, 2)), ..Numbers::default() };
        let mut groups = Prefetch::start(work, 3, 4);
        assert!(groups.next().is_some() && groups.next().is_some());
        assert!(catch_unwind(AssertUnwindSafe(|| groups.next())).is_err());
        assert!(groups.next().is_none());
    }

    #[test]
    fn whoever_stops_early_leaves_no_thread() {
        let work = Numbers { groups: 1000, slow: Duration::from_millis(1), ..Numbers::default() };
        let taken = work.taken.clone();
        let mut groups = Prefetch::start(work, 4, 4);
        groups.next();
        drop(groups);
        // Threads would still hold what they work on.
        assert_eq!(Arc::strong_count(&taken), 1);
    }

    #[test]
    fn waiting_is_measured() {
        let slow = Duration::from_millis(10);
        let work = Numbers { groups: 2, slow, ..Numbers::default() };
        let mut groups = Prefetch::start(work, 2, 1);
        let began = Instant::now();
        assert!(groups.by_ref().all(|g| g.is_ok()));
        // Nothing else was done meanwhile.
        let all = began.elapsed();
        assert!((all / 2..=all).contains(&groups.waited()), "{:?} of {all:?}", groups.waited());
    }
}
