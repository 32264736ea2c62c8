//! A subscription as an event stream: the format of the HTML standard, "Server-sent events".

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::connections::ConnectionSlot;
use crate::progress::subscription::Subscription;
use crate::refusal::Refusal;
use crate::response::{LongLived, refusal_bytes};

/// The body of an event stream: one frame per event, a comment after each silence, and the end after
/// the terminal event.
///
/// Events are read from the stream when the connection asks for more, so a slow connection holds
/// back nobody and piles up nothing. Must be polled on a Tokio runtime with its timer enabled.
#[derive(Debug)]
pub struct SseBody {
    /// `None` at the end, so that the place in the stream is free before the body is dropped.
    subscription: Option<Subscription>,
    /// Made when the body first has to wait, which most short streams never do.
    heartbeat: Option<Interval>,
    /// Where watchers are counted.
    slot: Option<ConnectionSlot>,
    /// What a watcher who is not let in reads instead.
    instead: Option<Bytes>,
}

impl SseBody {
    /// A body that sends what `subscription` gives.
    #[must_use]
    pub const fn new(subscription: Subscription) -> Self {
        Self {
            subscription: Some(subscription),
            heartbeat: None,
            slot: None,
            instead: None,
        }
    }

    /// The same body, which gives `slot` back at its end, and ends when the slot is taken back.
    #[must_use]
    pub fn holding(mut self, slot: ConnectionSlot) -> Self {
        self.slot = Some(slot);
        self
    }

    const fn empty() -> Self {
        Self {
            subscription: None,
            heartbeat: None,
            slot: None,
            instead: None,
        }
    }

    /// Whether the slot was taken back; else whoever polls hears of it.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        let slot = self.slot.as_mut();
        slot.is_some_and(|slot| slot.poll_closed(cx).is_ready())
    }

    fn touch(&self) {
        if let Some(slot) = &self.slot {
            slot.touch();
        }
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.poll_closed(cx) {
            *this = Self::empty();
        }
        let Some(subscription) = &mut this.subscription else {
            return Poll::Ready(this.instead.take().map(|all| Ok(Frame::data(all))));
        };
        match subscription.poll_next(cx) {
            Poll::Ready(Some(event)) => {
                if event.kind().is_terminal() {
                    *this = Self::empty();
                } else if let Some(heartbeat) = &mut this.heartbeat {
                    heartbeat.reset();
                }
                this.touch();
                Poll::Ready(Some(Ok(Frame::data(event.frame()))))
            }
            Poll::Ready(None) => {
                *this = Self::empty();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let period = subscription.heartbeat();
                let heartbeat = this.heartbeat.get_or_insert_with(|| {
                    let mut beats = interval(period);
                    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    // The first tick of an interval is due at once; silence begins now.
                    beats.reset();
                    beats
                });
                let beat = heartbeat.poll_tick(cx);
                if beat.is_ready() {
                    this.touch();
                }
                beat.map(|_| Some(Ok(Frame::data(HEARTBEAT))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.subscription.is_none() && self.instead.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.subscription, &self.instead) {
            (Some(_), _) => SizeHint::default(),
            (None, instead) => {
                SizeHint::with_exact(instead.as_ref().map_or(0, |all| all.len() as u64))
            }
        }
    }
}

/// A line that begins with a colon is a comment, which readers pass over.
const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// Answers with an event stream that neither caches nor proxies hold back.
#[must_use]
pub fn sse_response(subscription: Subscription) -> Response<SseBody> {
    let mut response = Response::new(SseBody::new(subscription));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, NO_STORE);
    // nginx and its kin collect an answer before they pass it on, unless told otherwise.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    // A watcher waits nearly all of the time; it should not hold a slot of the guard meanwhile.
    response.extensions_mut().insert(LongLived);
    response
}

/// An answer without a body that no cache keeps: a stream that is unknown now may exist in a second.
pub(crate) fn empty_response(status: StatusCode) -> Response<SseBody> {
    let mut response = Response::new(SseBody::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The answer to a watcher for whom there is no slot.
pub(crate) fn refused_response(refusal: Refusal) -> Response<SseBody> {
    let mut response = refusal_bytes(refusal).map(|all| SseBody {
        instead: Some(all),
        ..SseBody::empty()
    });
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use crate::clock::Moment;
    use crate::progress::id::EventId;
    use crate::progress::stream::Stream;
    use crate::progress::update::{EMPTY, ProgressKind};

    use super::*;

    fn watched(heartbeat_secs: u64) -> (Arc<Stream>, SseBody) {
        let stream = Arc::new(Stream::new(EventId::ZERO, 8));
        let heartbeat = Duration::from_secs(heartbeat_secs);
        let watcher = Subscription::new(Arc::clone(&stream), None, heartbeat);
        (stream, sse_response(watcher).into_body())
    }

    fn push(stream: &Stream, kind: ProgressKind) {
        stream.push(7, Moment::default(), kind, EMPTY).unwrap();
    }

    /// The next frame as text, if it comes within `secs`.
    async fn frame(body: &mut SseBody, secs: u64) -> Option<String> {
        let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let frame = timeout(Duration::from_secs(secs), next)
            .await
            .ok()??
            .unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_silence_is_broken_by_a_comment() {
        let (stream, mut body) = watched(15);
        assert_eq!(frame(&mut body, 14).await, None);
        assert_eq!(
            frame(&mut body, 2).await.as_deref(),
            Some(": heartbeat\n\n")
        );
        assert_eq!(frame(&mut body, 14).await, None);
        // An event is a sign of life as well: the silence begins anew.
        push(&stream, ProgressKind::Progress);
        let event = "id: 7-0\nevent: progress\ndata: {}\n\n";
        assert_eq!(frame(&mut body, 0).await.as_deref(), Some(event));
        assert_eq!(frame(&mut body, 14).await, None);
        assert_eq!(
            frame(&mut body, 2).await.as_deref(),
            Some(": heartbeat\n\n")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_terminal_event_ends_the_body_and_frees_the_place() {
        let (stream, mut body) = watched(15);
        push(&stream, ProgressKind::Finished);
        assert!(!body.is_end_stream());
        assert!(
            frame(&mut body, 0)
                .await
                .unwrap()
                .contains("event: finished\n")
        );
        assert!(body.is_end_stream());
        assert_eq!(stream.watchers(), 0);
        assert_eq!(frame(&mut body, 3600).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_dropped_ends_the_body() {
        let (stream, mut body) = watched(15);
        assert_eq!(frame(&mut body, 1).await, None);
        stream.close();
        assert_eq!(frame(&mut body, 0).await, None);
        assert!(body.is_end_stream());
    }
}
