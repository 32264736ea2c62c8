//! What the endpoints answer with: bytes, or a stream of what the dashboard shows.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of an answer.
pub struct AdminBody {
    inner: Inner,
}

enum Inner {
    /// `None` when it is sent, or if it is empty.
    Whole(Option<Bytes>),
    /// Made while it is sent. A box for an answer that takes milliseconds to send at the least.
    Streamed(Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>),
}

impl AdminBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            inner: Inner::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())),
        }
    }

    pub(crate) fn streamed(
        body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static,
    ) -> Self {
        Self {
            inner: Inner::Streamed(Box::pin(body)),
        }
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.inner {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Streamed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Streamed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for AdminBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBody").finish_non_exhaustive()
    }
}
