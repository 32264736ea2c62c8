//! The dashboard's figures as a stream of events, for as long as somebody looks.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// What the next event says; nothing once the service is stopping.
type Tell = dyn Fn() -> Option<Bytes> + Send + Sync;

/// A frame of figures at once and then every two seconds, until the service stops. Polled slowly it leaves
/// frames out instead of piling them up.
pub(crate) struct Frames {
    tell: Arc<Tell>,
    ticks: Interval,
    ended: bool,
    _seat: Seat,
}

/// One of a few places. Gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    taken: Arc<AtomicUsize>,
}

impl Seat {
    /// Takes a place, if there is one.
    pub(crate) fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self {
            taken: Arc::clone(taken),
        };
        // Given back by the drop where it is one too many.
        let before = taken.fetch_add(1, Ordering::Relaxed);
        (before < WATCHERS_MAX).then_some(place)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Frames {
    /// Must be made and polled on a Tokio runtime with its timer enabled.
    pub(crate) fn new(seat: Seat, tell: Arc<Tell>) -> Self {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            tell,
            ticks,
            ended: false,
            _seat: seat,
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.ticks.poll_tick(cx).map(|_| {
            let told = (self.tell)();
            self.ended = told.is_none();
            told.map(|json| Ok(Frame::data(event(&json))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// `json` as an event. It is one line: JSON writes line ends in texts as `\n`.
fn event(json: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(json.len() + 8);
    frame.put_slice(b"data: ");
    frame.put_slice(json);
    frame.put_slice(b"\n\n");
    frame.freeze()
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// How often figures are sent.
const EVERY: Duration = Duration::from_secs(2);

/// A stream costs a connection and some figures every two seconds. Nobody watches from more windows, and
/// whoever does gets the figures by asking.
pub(crate) const WATCHERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn figures_come_at_once_then_every_two_seconds_until_the_service_stops() {
        let (taken, stopping) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stopping);
        let tell = move || (!told.load(Ordering::Relaxed)).then(|| Bytes::from_static(b"{}"));
        let mut frames = Frames::new(Seat::take(&taken).unwrap(), Arc::new(tell));
        let mut next = async |secs| {
            let next = timeout(Duration::from_secs(secs), frames.frame())
                .await
                .ok()?;
            Some(next.map(|frame| frame.unwrap().into_data().unwrap()))
        };
        let figures = Some(Some(Bytes::from_static(b"data: {}\n\n")));
        assert_eq!(next(0).await, figures);
        assert_eq!(next(1).await, None);
        assert_eq!(next(2).await, figures);
        stopping.store(true, Ordering::Relaxed);
        assert_eq!(next(3).await, Some(None));
        assert_eq!(next(3).await, Some(None));
        drop(frames);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn there_are_only_so_many_places() {
        let taken = Arc::default();
        let places: Vec<_> = (0..WATCHERS_MAX)
            .map(|_| Seat::take(&taken).unwrap())
            .collect();
        assert!(Seat::take(&taken).is_none());
        assert!(Seat::take(&taken).is_none());
        drop(places);
        assert!(Seat::take(&taken).is_some());
    }
}
