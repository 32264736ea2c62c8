//! A body that keeps its request's slot until it has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::guard::admission::Permit;
use crate::response::AnswerBody;
// Set by rooms beside this one, so it is defined below both.
pub use crate::response::LongLived;

pin_project! {
    /// The inner service's body or a refusal's.
    ///
    /// The slot goes back with the last frame, with an error, or when the body is dropped because the
    /// client went away: a long download counts as under way for as long as it takes. Content that comes
    /// in one piece is handed on in pieces of 64 KiB (without copying), because a server that holds the
    /// last piece has been given everything, whether its client reads it or not.
    #[derive(Debug)]
    pub struct GuardBody<B> {
        #[pin]
        inner: AnswerBody<B>,
        permit: Option<Permit>,
        // What is still to be handed on of a large frame.
        rest: Bytes,
    }
}

impl<B> GuardBody<B> {
    /// A refusal's body, which holds no slot.
    pub(crate) const fn refusal(inner: AnswerBody<B>) -> Self {
        Self {
            inner,
            permit: None,
            rest: Bytes::new(),
        }
    }
}

impl<B: Body<Data = Bytes>> GuardBody<B> {
    /// The service's body; one without content gives the slot back at once.
    pub(crate) fn admitted(body: B, permit: Option<Permit>) -> Self {
        let inner = AnswerBody::service(body);
        let permit = permit.filter(|_| !inner.is_end_stream());
        let rest = Bytes::new();
        Self {
            inner,
            permit,
            rest,
        }
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
        let mut frame = match this.rest.is_empty() {
            true => ready!(this.inner.as_mut().poll_frame(cx)),
            false => Some(Ok(Frame::data(std::mem::take(this.rest)))),
        };
        if this.permit.is_some()
            && let Some(Ok(data)) = &mut frame
            && let Some(data) = data.data_mut()
            && data.len() > PIECE_BYTES
        {
            *this.rest = data.split_off(PIECE_BYTES);
        }
        // Servers do not ask again after the last frame of a body that says it was the last.
        let last = this.rest.is_empty() && this.inner.is_end_stream();
        if !matches!(frame, Some(Ok(_))) || last {
            *this.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// What a server holds of an answer whose slot has gone back, at the most, beside its own buffers.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::clock::Clock;
    use crate::event::Events;
    use crate::guard::admission::Admission;
    use crate::guard::claim::Claim;
    use crate::guard::config::GuardConfig;
    use crate::guard::engine::Guard;

    #[tokio::test]
    async fn the_slot_of_a_large_answer_in_one_piece_is_kept_until_its_last_piece_is_taken() {
        let guard = Guard::new(&GuardConfig::default(), Clock::system(), Events::none()).unwrap();
        let Admission::Admitted(permit) = guard.admit(Claim::default()) else {
            panic!("there is room")
        };
        let content = vec![7_u8; 3 * PIECE_BYTES + 1];
        let mut body = GuardBody::admitted(Full::from(content.clone()), Some(permit));
        let mut taken = Vec::new();
        for pieces_left in (0..4).rev() {
            assert_eq!(guard.in_flight(), 1);
            let left = (content.len() - taken.len()) as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            taken.extend_from_slice(&piece);
            assert_eq!(body.is_end_stream(), pieces_left == 0);
        }
        assert_eq!(guard.in_flight(), 0);
        assert!(body.frame().await.is_none());
        assert_eq!(taken, content);
    }
}
