//! The body of an answer on its way through the cache: stored bytes, or the service's own frames,
//! which are recorded while they pass.
//!
//! A recording is committed only at a clean end. Whatever else happens to it (the client leaves, the
//! service breaks off, the body outgrows its bound or has trailers) it is dropped, and nothing of it
//! is stored.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::cache::recording::Recording;
use crate::response::AnswerBody;

pin_project! {
    /// The body of an answer that went through a [`CacheService`](crate::cache::CacheService).
    #[derive(Debug)]
    pub struct CacheBody<B> {
        #[pin]
        body: AnswerBody<B>,
        recording: Option<Box<Recording>>,
    }

    impl<B> PinnedDrop for CacheBody<B> {
        fn drop(this: Pin<&mut Self>) {
            // hyper does not poll again once as many bytes have passed as Content-Length announced.
            // Until it lets go, more could come, or trailers.
            if let Some(recording) = this.project().recording.take()
                && recording.is_as_long_as_announced()
            {
                recording.commit();
            }
        }
    }
}

impl<B> CacheBody<B> {
    pub(crate) fn stored(bytes: Bytes) -> Self {
        Self {
            body: AnswerBody::own(bytes),
            recording: None,
        }
    }

    pub(crate) const fn through(body: B) -> Self {
        Self {
            body: AnswerBody::service(body),
            recording: None,
        }
    }
}

impl<B: Body<Data = Bytes>> CacheBody<B> {
    /// A body that is recorded as it passes.
    pub(crate) fn recorded(body: B, recording: Box<Recording>) -> Self {
        // A body that is at its end already will never be polled: hyper asks first.
        if body.is_end_stream() {
            recording.commit();
            return Self::through(body);
        }
        Self {
            body: AnswerBody::service(body),
            recording: Some(recording),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for CacheBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if this.recording.is_some() {
            note(this.recording, frame.as_ref(), || this.body.is_end_stream());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // A recording ends at the latest with the frame that ends the stream.
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Records a frame; commits the recording at the end or gives it up.
fn note<E>(
    slot: &mut Option<Box<Recording>>,
    frame: Option<&Result<Frame<Bytes>, E>>,
    at_end: impl FnOnce() -> bool,
) {
    let Some(mut recording) = slot.take() else {
        return;
    };
    match frame {
        None => recording.commit(),
        Some(Ok(frame)) => match frame.data_ref() {
            Some(data) if !recording.add(data) => recording.give_up(),
            // hyper does not poll again once a body says that it is at its end.
            Some(_) if at_end() => recording.commit(),
            Some(_) => *slot = Some(recording),
            // Trailers are not kept, and an answer without its trailers is not the answer.
            None => recording.give_up(),
        },
        // Dropping the recording hands the flight on.
        Some(Err(_)) => {}
    }
}
