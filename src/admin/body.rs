//! What the endpoints answer with: bytes, or a stream of what the dashboard shows.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::admin::events::Frames;

/// The body of an answer.
#[derive(Debug)]
pub struct AdminBody {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    /// `None` when it is sent, or if it is empty.
    Whole(Option<Bytes>),
    Frames(Frames),
}

impl AdminBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            inner: Inner::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())),
        }
    }

    pub(crate) const fn frames(frames: Frames) -> Self {
        Self {
            inner: Inner::Frames(frames),
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
        let next = match &mut self.inner {
            Inner::Whole(bytes) => Poll::Ready(bytes.take()),
            Inner::Frames(frames) => frames.poll_next(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.inner, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Frames(_) => SizeHint::default(),
        }
    }
}
