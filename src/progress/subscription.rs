//! A watcher's end of a stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::progress::id::EventId;
use crate::progress::stream::Stream;
use crate::progress::update::{ProgressEvent, ProgressKind};

/// Watches one stream. Holds a place in it and no events; dropping it frees the place.
#[derive(Debug)]
pub struct Subscription {
    stream: Arc<Stream>,
    seat: u64,
    place: EventId,
    heartbeat: Duration,
    over: bool,
}

impl Subscription {
    pub(crate) fn new(stream: Arc<Stream>, seen: Option<EventId>, heartbeat: Duration) -> Self {
        let (seat, place) = stream.sit(seen);
        Self {
            stream,
            seat,
            place,
            heartbeat,
            over: false,
        }
    }

    /// The next event; `None` after the terminal one, or when the stream was dropped.
    ///
    /// Dropping the future loses nothing: the place moves on only when an event is returned.
    pub async fn next(&mut self) -> Option<ProgressEvent> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next event, as [`next`](Self::next), for code that polls.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<ProgressEvent>> {
        if self.over {
            return Poll::Ready(None);
        }
        let polled = self.stream.poll_after(&mut self.place, self.seat, cx);
        if let Poll::Ready(event) = &polled {
            self.over = event
                .as_ref()
                .map(ProgressEvent::kind)
                .is_none_or(ProgressKind::is_terminal);
        }
        polled
    }

    /// Whether there is nothing left to come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over || self.stream.is_over_at(self.place)
    }

    /// After how much silence the watcher should be sent a sign of life.
    #[must_use]
    pub const fn heartbeat(&self) -> Duration {
        self.heartbeat
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stream.leave(self.seat);
    }
}
