//! A body that holds its connection's slot.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::connections::slot::ConnectionSlot;
use crate::response::LongLived;

pin_project! {
    /// An answer's body with the slot of its connection: each frame is a sign of life, and the slot goes back
    /// with the last one, with an error, or when the body is dropped because the client went away.
    ///
    /// If the room takes the slot back first, an event stream ends, and its reader comes back when it likes.
    /// Anything else ends in [`SlottedError::Closed`], because half an export must not look like a whole one.
    /// A body whose client does not read is not asked for frames, so it hears of the end only when the
    /// client reads on; its slot is free all the same.
    #[derive(Debug)]
    pub struct SlottedBody<B> {
        // `None` once it has ended.
        #[pin]
        inner: Option<B>,
        slot: Option<ConnectionSlot>,
        cut: Cut,
    }
}

/// How a body ends whose slot was taken back.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// With the event before.
    Ends,
    /// In an error.
    Breaks,
}

/// Why a [`SlottedBody`] broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlottedError<E> {
    /// Its slot was taken back.
    Closed,
    /// The body within failed.
    Body(E),
}

impl ConnectionSlot {
    /// Puts the slot into the answer's body, for event streams and others that go on for long. The answer is
    /// marked [`LongLived`], so that it does not hold a slot of the guard as well.
    ///
    /// Not for answers that switch protocols: their body ends at once. There the slot belongs into the task
    /// that speaks the new protocol.
    pub fn around<B: Body>(self, mut response: Response<B>) -> Response<SlottedBody<B>> {
        let cut = match response.headers().get(CONTENT_TYPE) {
            Some(kind) if kind.as_bytes().starts_with(EVENT_STREAM) => Cut::Ends,
            _ => Cut::Breaks,
        };
        response.extensions_mut().insert(LongLived);
        response.map(|body| {
            let slot = Some(self).filter(|_| !body.is_end_stream());
            let inner = Some(body);
            SlottedBody { inner, slot, cut }
        })
    }
}

impl<B: Body> Body for SlottedBody<B> {
    type Data = B::Data;
    type Error = SlottedError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = match this.slot.as_ref().is_some_and(ConnectionSlot::is_closed) {
            true => Poll::Pending,
            false => inner.as_mut().poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                // The server need not ask again after what it knows to be the last frame.
                if inner.is_end_stream() {
                    *this.slot = None;
                } else if let Some(slot) = this.slot {
                    slot.touch();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.inner.set(None);
                *this.slot = None;
                Poll::Ready(end.map(|error| error.map_err(SlottedError::Body)))
            }
            Poll::Pending => {
                let Some(slot) = this.slot else {
                    return Poll::Pending;
                };
                ready!(slot.poll_closed(cx));
                // What the stream holds is what somebody wants back.
                this.inner.set(None);
                *this.slot = None;
                Poll::Ready(match this.cut {
                    Cut::Ends => None,
                    Cut::Breaks => Some(Err(SlottedError::Closed)),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<E: fmt::Display> fmt::Display for SlottedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was idle for too long"),
            Self::Body(error) => error.fmt(f),
        }
    }
}

impl<E: Error> Error for SlottedError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed => None,
            Self::Body(error) => error.source(),
        }
    }
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::connections::config::ConnectionsConfig;
    use crate::connections::engine::Connections;
    use crate::event::Events;

    type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

    fn connections() -> (Connections, ManualClock) {
        let (clock, hand) = Clock::manual();
        let config = ConnectionsConfig::default();
        let connections = Connections::new(&config, clock, Events::none()).unwrap();
        (connections, hand)
    }

    /// An answer whose frames are sent by hand.
    fn answer(
        slot: ConnectionSlot,
        kind: &str,
    ) -> (
        Frames,
        SlottedBody<impl Body<Data = Bytes, Error = Infallible> + Unpin>,
    ) {
        let (frames, mut sent) = mpsc::unbounded_channel();
        let stream = futures_util::stream::poll_fn(move |cx| sent.poll_recv(cx));
        let response = Response::builder().header("content-type", kind);
        let response = slot.around(response.body(StreamBody::new(stream)).unwrap());
        assert!(response.extensions().get::<LongLived>().is_some());
        (frames, response.into_body())
    }

    fn frame(text: &'static str) -> Result<Frame<Bytes>, Infallible> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn each_frame_is_a_sign_of_life_and_the_end_gives_the_slot_back() {
        let (connections, hand) = connections();
        let (frames, mut body) = answer(connections.open().unwrap(), "text/event-stream");
        for _ in 0..3 {
            hand.advance(Duration::from_secs(200));
            frames.send(frame("data: 1\n\n")).unwrap();
            body.frame().await.unwrap().unwrap();
            assert_eq!(
                connections.sweep(),
                0,
                "300 s have not passed since a frame"
            );
        }
        assert_eq!(connections.open_count(), 1);
        drop(frames);
        assert!(body.frame().await.is_none());
        assert_eq!(connections.open_count(), 0, "before the body is dropped");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_slot_that_is_taken_back_ends_an_event_stream_and_breaks_anything_else() {
        for (kind, ends) in [
            ("text/event-stream; charset=utf-8", true),
            ("application/x-ndjson", false),
        ] {
            let (connections, hand) = connections();
            let (frames, mut body) = answer(connections.open().unwrap(), kind);
            assert!(body.frame().now_or_never().is_none());
            hand.advance(Duration::from_secs(301));
            let (last, swept) = tokio::join!(body.frame(), async { connections.sweep() });
            assert_eq!(swept, 1);
            match last {
                None => assert!(ends, "{kind}"),
                Some(Err(error)) => assert_eq!((error, ends), (SlottedError::Closed, false)),
                Some(Ok(frame)) => panic!("{frame:?}"),
            }
            assert!(frames.is_closed(), "what it held is freed");
            assert!(body.is_end_stream() && body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn frames_that_are_ready_do_not_hide_that_the_slot_is_gone() {
        let (connections, hand) = connections();
        let (frames, mut body) = answer(connections.open().unwrap(), "text/event-stream");
        frames.send(frame("data: 1\n\n")).unwrap();
        hand.advance(Duration::from_secs(301));
        assert_eq!(connections.sweep(), 1);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_in_one_piece_gives_the_slot_back_with_it() {
        let (connections, _) = connections();
        let whole = Response::new(Full::<Bytes>::from("all"));
        let mut body = connections.open().unwrap().around(whole).into_body();
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(connections.open_count(), 1);
        body.frame().await.unwrap().unwrap();
        assert_eq!(connections.open_count(), 0);
        let empty = Response::new(Full::<Bytes>::default());
        let _answer = connections.open().unwrap().around(empty);
        assert_eq!(connections.open_count(), 0);
    }
}
