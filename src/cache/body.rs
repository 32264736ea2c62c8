//! The body of an answer on its way through the cache: stored bytes, or the service's own frames,
//! which are recorded while they pass.
//!
//! A recording is committed only at a clean end. Whatever else happens to it (the client leaves, the
//! service breaks off, the body outgrows its bound or has trailers) it is dropped, and nothing of it
//! is stored.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::cache::recording::Recording;
use crate::response::AnswerBody;

pin_project! {
    /// The body of an answer that went through a [`CacheService`](crate::cache::CacheService).
    pub struct CacheBody<B> {
        #[pin]
        body: AnswerBody<B>,
        recording: Option<Box<Recording>>,
        // The service's body, where it is to be read to its end whatever the client does.
        kept: Option<Kept<B>>,
    }

    impl<B> PinnedDrop for CacheBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(recording) = this.recording.take() {
                abandoned(recording, this.kept.take());
            }
        }
    }
}

/// A body that somebody else can go on reading, and who does.
struct Kept<B> {
    body: Pin<Box<B>>,
    /// A plain function, so that the body's own type asks nothing of `B`.
    read_on: Option<fn(Pin<Box<B>>, Box<Recording>)>,
}

impl<B> CacheBody<B> {
    pub(crate) fn stored(bytes: Bytes) -> Self {
        Self::of(AnswerBody::own(bytes))
    }

    pub(crate) const fn through(body: B) -> Self {
        Self::of(AnswerBody::service(body))
    }

    const fn of(body: AnswerBody<B>) -> Self {
        Self {
            body,
            recording: None,
            kept: None,
        }
    }
}

impl<B: Body<Data = Bytes> + Send + 'static> CacheBody<B> {
    /// A body that is recorded as it passes.
    pub(crate) fn recorded(body: B, recording: Box<Recording>) -> Self {
        // A body that is at its end already will never be polled: hyper asks first.
        if body.is_end_stream() {
            recording.commit();
            return Self::through(body);
        }
        if recording.is_finished_alone() {
            return Self::kept(Box::pin(body), recording, Some(read_on::<B>));
        }
        let mut recorded = Self::through(body);
        recorded.recording = Some(recording);
        recorded
    }
}

impl<B> CacheBody<B> {
    fn kept(
        body: Pin<Box<B>>,
        recording: Box<Recording>,
        read_on: Option<fn(Pin<Box<B>>, Box<Recording>)>,
    ) -> Self {
        let mut recorded = Self::stored(Bytes::new());
        recorded.recording = Some(recording);
        recorded.kept = Some(Kept { body, read_on });
        recorded
    }
}

/// The client has let go of an answer that is being recorded.
fn abandoned<B>(recording: Box<Recording>, kept: Option<Kept<B>>) {
    // hyper does not poll again once as many bytes have passed as Content-Length announced.
    // Until it lets go, more could come, or trailers.
    if recording.is_as_long_as_announced() {
        recording.commit();
    } else if let Some(Kept { body, read_on }) = kept
        && let Some(read_on) = read_on
    {
        read_on(body, recording);
    }
}

/// Reads the rest of an answer whose client has left, for those who will ask for it.
fn read_on<B: Body<Data = Bytes> + Send + 'static>(body: Pin<Box<B>>, recording: Box<Recording>) {
    let Some((spawner, place, deadline)) = recording.finishing() else {
        return;
    };
    spawner.spawn(async move {
        let _place = place;
        let mut rest = Box::pin(CacheBody::kept(body, recording, None));
        let read = async {
            // The recording commits itself at the end; once it has been given up nobody is there to read for.
            while rest.recording.is_some()
                && let Some(Ok(_)) = std::future::poll_fn(|cx| rest.as_mut().poll_frame(cx)).await
            {
            }
        };
        let _ = tokio::time::timeout(deadline, read).await;
    });
}

impl<B: Body<Data = Bytes>> Body for CacheBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(match this.kept {
            Some(kept) => kept.body.as_mut().poll_frame(cx),
            None => this.body.as_mut().poll_frame(cx),
        });
        if this.recording.is_some() {
            note(this.recording, frame.as_ref(), || match this.kept {
                Some(kept) => kept.body.is_end_stream(),
                None => this.body.is_end_stream(),
            });
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // A recording ends at the latest with the frame that ends the stream.
        match &self.kept {
            Some(kept) => kept.body.is_end_stream(),
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kept {
            Some(kept) => kept.body.size_hint(),
            None => self.body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for CacheBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBody")
            .field("recording", &self.recording.is_some())
            .finish_non_exhaustive()
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
