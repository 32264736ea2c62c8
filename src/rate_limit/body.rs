//! An answer's body, counted where its bytes are what a request costs.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::rate_limit::settle::BodyMeter;
use crate::response::AnswerBody;

pin_project! {
    /// The body of an answer that passed the limiter, or of a refusal.
    #[derive(Debug)]
    pub struct RateLimitBody<B> {
        #[pin]
        inner: AnswerBody<B>,
        // Charges when it is dropped, which is also when the client has gone away.
        meter: Option<Box<BodyMeter>>,
    }
}

impl<B> RateLimitBody<B> {
    pub(crate) const fn new(inner: AnswerBody<B>, meter: Option<Box<BodyMeter>>) -> Self {
        Self { inner, meter }
    }
}

impl<B: Body<Data = Bytes>> Body for RateLimitBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let polled = this.inner.poll_frame(cx);
        if let (Some(meter), Poll::Ready(Some(Ok(frame)))) = (this.meter, &polled) {
            meter.add(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
