//! One stream, shared by its publisher and its watchers: the log behind a lock, and who waits.
//!
//! A plain mutex is enough: it is held for a binary search or an append, never across an await, and
//! wakers are woken and dropped outside of it, because either may run code that comes back here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::clock::Moment;
use crate::progress::config::ProgressConfig;
use crate::progress::error::ProgressError;
use crate::progress::id::EventId;
use crate::progress::log::{Log, Next};
use crate::progress::update::{ProgressEvent, ProgressKind};

#[derive(Debug)]
pub(crate) struct Stream {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// One seat per watcher, with its waker while it waits.
    seats: HashMap<u64, Option<Waker>>,
    seats_given: u64,
    ended: Option<Moment>,
    closed: bool,
}

impl Stream {
    /// A stream whose events come after `floor` and of which `replay_max` are kept.
    pub(crate) fn new(floor: EventId, replay_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                log: Log::new(floor, replay_max),
                seats: HashMap::new(),
                seats_given: 0,
                ended: None,
                closed: false,
            }),
        }
    }

    /// Appends an event that happens at `ms` of the wall clock, which is `now`, and wakes everyone.
    pub(crate) fn push(
        &self,
        ms: u64,
        now: Moment,
        kind: ProgressKind,
        json: &[u8],
    ) -> Result<EventId, ProgressError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ProgressError::Closed);
        }
        let id = state.log.push(ms, kind, json);
        if kind.is_terminal() {
            state.ended = Some(now);
        }
        let waiting = state.waiting();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Ok(id)
    }

    /// Gives up the events and sends every watcher home.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.log = Log::new(state.log.last(), 1);
        let waiting = state.waiting();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A seat for a watcher who has seen everything up to `seen`, and its place in the log.
    pub(crate) fn sit(&self, seen: Option<EventId>) -> (u64, EventId) {
        let mut state = self.lock();
        let seat = state.seats_given;
        state.seats_given += 1;
        state.seats.insert(seat, None);
        (seat, state.log.place(seen))
    }

    /// Gives a seat back.
    pub(crate) fn leave(&self, seat: u64) {
        let left = self.lock().seats.remove(&seat);
        drop(left);
    }

    /// The event after `place`, which then moves on to it; `None` at the end. While there is none
    /// yet, the watcher of `seat` is woken when there is.
    pub(crate) fn poll_after(
        &self,
        place: &mut EventId,
        seat: u64,
        cx: &Context<'_>,
    ) -> Poll<Option<ProgressEvent>> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(None);
        }
        match state.log.after(*place) {
            Next::Event(event) => {
                *place = event.id();
                Poll::Ready(Some(event))
            }
            Next::End => Poll::Ready(None),
            Next::Wait => {
                let known = state.seats.entry(seat).or_default();
                if known
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(cx.waker()))
                {
                    return Poll::Pending;
                }
                let old = known.replace(cx.waker().clone());
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }

    /// Whether nothing comes after `place` any more.
    pub(crate) fn is_over_at(&self, place: EventId) -> bool {
        let state = self.lock();
        state.closed || state.log.after(place) == Next::End
    }

    /// Whether it ended so long ago that it is no longer kept.
    pub(crate) fn has_expired(&self, now: Moment, config: &ProgressConfig) -> bool {
        self.ended()
            .is_some_and(|ended| now.since(ended) >= config.idle)
    }

    /// When the terminal event came.
    pub(crate) fn ended(&self) -> Option<Moment> {
        self.lock().ended
    }

    /// The id of the newest event.
    pub(crate) fn last(&self) -> EventId {
        self.lock().log.last()
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.lock().seats.len()
    }

    /// Every change under the lock is complete before anything can panic, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The wakers of all who wait, taken out.
    fn waiting(&mut self) -> Vec<Waker> {
        self.seats.values_mut().filter_map(Option::take).collect()
    }
}
