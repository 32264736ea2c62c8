//! The publisher's end of a stream.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::clock::Clock;
use crate::event::{Event, Events};
use crate::progress::error::ProgressError;
use crate::progress::id::EventId;
use crate::progress::stream::Stream;
use crate::progress::update::{EMPTY, ProgressKind, ProgressUpdate};

/// Publishes the progress of one piece of work.
///
/// There is one for each stream; work in several tasks shares it in an [`Arc`]. Dropping it before
/// [`finish`](Self::finish) or [`fail`](Self::fail), as a panic or a cancelled task does, ends the
/// stream with [`Aborted`](ProgressKind::Aborted), so that nobody waits for ever.
#[derive(Debug)]
#[must_use = "dropping it ends the stream as aborted"]
pub struct Progress {
    id: Arc<str>,
    stream: Arc<Stream>,
    clock: Clock,
    events: Events,
    event_bytes_max: usize,
    ended: bool,
}

impl Progress {
    pub(crate) const fn new(
        id: Arc<str>,
        stream: Arc<Stream>,
        clock: Clock,
        events: Events,
        event_bytes_max: usize,
    ) -> Self {
        Self {
            id,
            stream,
            clock,
            events,
            event_bytes_max,
            ended: false,
        }
    }

    /// The stream's name.
    #[must_use]
    pub const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Tells all watchers, and keeps the event for those to come. Never waits: it costs one
    /// serialisation, shared by all watchers, and one wake for each of them.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](ProgressError::TooLarge), and nothing was published;
    /// [`Closed`](ProgressError::Closed) once the service shuts down.
    pub fn publish(&self, update: ProgressUpdate) -> Result<EventId, ProgressError> {
        let json = update.into_json();
        self.fit(json.len())?;
        self.put(ProgressKind::Progress, &json)
    }

    /// Ends the stream: the work is done.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](ProgressError::TooLarge): the stream has ended as finished, but without the
    /// update. [`Closed`](ProgressError::Closed) once the service shuts down.
    pub fn finish(self, update: ProgressUpdate) -> Result<EventId, ProgressError> {
        self.end(ProgressKind::Finished, update)
    }

    /// Ends the stream: the work failed, and `message` says why. Watchers read it, so it should hold
    /// nothing that they must not know.
    ///
    /// # Errors
    ///
    /// Those of [`finish`](Self::finish), in the same way.
    pub fn fail(self, message: impl Into<String>) -> Result<EventId, ProgressError> {
        self.end(ProgressKind::Failed, ProgressUpdate::stage(message))
    }

    fn end(mut self, kind: ProgressKind, update: ProgressUpdate) -> Result<EventId, ProgressError> {
        self.ended = true;
        let json = update.into_json();
        let fits = self.fit(json.len());
        let id = self.put(kind, if fits.is_ok() { &json } else { EMPTY })?;
        fits.map(|()| id)
    }

    const fn fit(&self, bytes: usize) -> Result<(), ProgressError> {
        let max = self.event_bytes_max;
        if bytes > max {
            Err(ProgressError::TooLarge { bytes, max })
        } else {
            Ok(())
        }
    }

    fn put(&self, kind: ProgressKind, json: &[u8]) -> Result<EventId, ProgressError> {
        let id = self
            .stream
            .push(wall_ms(&self.clock), self.clock.now(), kind, json)?;
        self.events.emit(Event::ProgressPublished);
        Ok(id)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.ended {
            // The only failure is a closed stream, which has nobody left to tell.
            let _ = self.put(ProgressKind::Aborted, EMPTY);
        }
    }
}

/// Milliseconds since 1970, as ids count them.
pub(crate) fn wall_ms(clock: &Clock) -> u64 {
    let since = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
