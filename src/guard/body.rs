//! A body that keeps its request's slot until it has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::guard::admission::Permit;
use crate::response::AnswerBody;

pin_project! {
    /// The inner service's body or a refusal's.
    ///
    /// The slot goes back with the last frame, with an error, or when the body is dropped because the
    /// client went away: a long download counts as under way for as long as it takes.
    #[derive(Debug)]
    pub struct GuardBody<B> {
        #[pin]
        inner: AnswerBody<B>,
        permit: Option<Permit>,
    }
}

impl<B> GuardBody<B> {
    /// A refusal's body, which holds no slot.
    pub(crate) const fn refusal(inner: AnswerBody<B>) -> Self {
        Self {
            inner,
            permit: None,
        }
    }
}

impl<B: Body<Data = Bytes>> GuardBody<B> {
    /// The service's body; one without content gives the slot back at once.
    pub(crate) fn admitted(body: B, permit: Permit) -> Self {
        let inner = AnswerBody::service(body);
        let permit = Some(permit).filter(|_| !inner.is_end_stream());
        Self { inner, permit }
    }
}

impl<B: Body<Data = Bytes>> Body for GuardBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        // Servers do not ask again after the last frame of a body that says it was the last.
        if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
            *this.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
