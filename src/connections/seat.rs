//! One open connection, as the room and the holder of its slot both see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Moment;

/// What is known of an open connection.
///
/// It is open once and ends once. Whoever wins [`end`](Self::end) gives back what the connection had, so it
/// does not matter how the holder's drop, a sweep and a relief meet.
#[derive(Debug)]
pub(crate) struct Seat {
    /// When something was last sent or received, as a [`Moment`]'s nanoseconds.
    heard: AtomicU64,
    ended: AtomicBool,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) place: Place,
    /// Wakes whoever waits for the end. An allocation of its own, so that a future can hold it.
    pub(crate) closing: Arc<Notify>,
}

/// Where a seat stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: usize,
    pub(crate) index: usize,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its slot was dropped.
    Ended,
    /// It had not been heard of for too long.
    Stale,
    /// It was idle while memory was short.
    Relieved,
}

impl Seat {
    pub(crate) fn new(tenant: Option<Arc<str>>, place: Place, now: Moment) -> Self {
        Self {
            heard: AtomicU64::new(now.as_nanos()),
            ended: AtomicBool::new(false),
            tenant,
            place,
            closing: Arc::default(),
        }
    }

    /// Something was sent or received.
    pub(crate) fn touch(&self, now: Moment) {
        self.heard.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// How long nothing was.
    pub(crate) fn idle(&self, now: Moment) -> Duration {
        now.since(Moment::from_nanos(self.heard.load(Ordering::Relaxed)))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends it. `true` for exactly one caller, who has to give back what it had.
    pub(crate) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }
}

impl Ending {
    /// The word in events.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Stale => "stale",
            Self::Relieved => "relieved",
        }
    }
}
