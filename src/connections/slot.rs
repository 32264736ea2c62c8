//! The right to stay connected.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::futures::OwnedNotified;

use crate::connections::hall::Hall;
use crate::connections::seat::{Ending, Seat};

/// A connection's slot. Move it into the task that reads and writes the connection: dropping it gives the
/// slot back, however that task ends.
///
/// The room may take it back before, from a connection that has been silent for too long; the holder hears
/// of that by [`closed`](Self::closed) and should hang up. The slot is free from that moment on, and is not
/// given back a second time.
#[must_use = "dropped, it gives the slot back at once"]
pub struct ConnectionSlot {
    /// `None` where connections are not counted.
    seated: Option<Seated>,
    /// Made when `poll_closed` first has to wait.
    told: Option<Pin<Box<OwnedNotified>>>,
}

struct Seated {
    hall: Arc<Hall>,
    seat: Arc<Seat>,
}

impl ConnectionSlot {
    pub(crate) fn new(hall: Arc<Hall>, seat: Arc<Seat>) -> Self {
        Self {
            seated: Some(Seated { hall, seat }),
            told: None,
        }
    }

    /// A slot where nobody counts.
    pub(crate) const fn uncounted() -> Self {
        Self {
            seated: None,
            told: None,
        }
    }

    /// Notes that something was sent or received. Costs a reading of the clock and an atomic store.
    pub fn touch(&self) {
        if let Some(Seated { hall, seat }) = &self.seated {
            seat.touch(hall.clock.now());
        }
    }

    /// Whether the room has taken the slot back.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.seated
            .as_ref()
            .is_some_and(|seated| seated.seat.has_ended())
    }

    /// Resolves when the room takes the slot back, and at once if it has; never where connections are not
    /// counted. Safe to drop at any await, and to wait for from several tasks.
    pub async fn closed(&self) {
        let Some(Seated { seat, .. }) = &self.seated else {
            return std::future::pending().await;
        };
        // Made before the look: an end between the two is told to what was made before it.
        let told = seat.closing.notified();
        if !seat.has_ended() {
            told.await;
        }
    }

    /// As [`closed`](Self::closed), for bodies and streams; the first wait of a slot allocates once.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Seated { seat, .. }) = &self.seated else {
            return Poll::Pending;
        };
        if seat.has_ended() {
            return Poll::Ready(());
        }
        let told = self
            .told
            .get_or_insert_with(|| Box::pin(Arc::clone(&seat.closing).notified_owned()));
        // It may have ended before there was something to tell it to.
        if told.as_mut().poll(cx).is_ready() || seat.has_ended() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        if let Some(Seated { hall, seat }) = &self.seated {
            hall.end(seat, Ending::Ended);
        }
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSlot")
            .field("counted", &self.seated.is_some())
            .field("closed", &self.is_closed())
            .finish()
    }
}
