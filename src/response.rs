//! Answers that a layer gives itself, and the body type that lets it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Extensions, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::refusal::{Refusal, retry_after_secs};

pin_project! {
    /// The inner service's body, or bytes that a layer answers with itself.
    #[derive(Debug)]
    pub struct AnswerBody<B> {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project! {
    #[project = InnerProj]
    #[derive(Debug)]
    enum Inner<B> {
        Own { bytes: Option<Bytes> },
        Service { #[pin] body: B },
    }
}

/// A response extension: this answer is one that stays open for long and does next to nothing, such as
/// Server-Sent Events. It gives the guard's slot back with its head; otherwise 64 open tabs would be all
/// that a service of 64 slots serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongLived;

/// A response extension of the cache's: whatever `Cache-Status` says, the request counts neither as its hit nor as its
/// miss. Those that are counted, hits above all, have none: extensions are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncounted {
    /// The service is asked whenever the answer is used, so no cache could have served it.
    AlwaysAsked,
    /// The client wanted a stored answer or none, and there was none: a 504 that is nobody's failure.
    OnlyIfCached,
}

impl<B> AnswerBody<B> {
    /// A body of these bytes.
    #[must_use]
    pub fn own(bytes: Bytes) -> Self {
        Self {
            inner: Inner::Own {
                bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
            },
        }
    }

    /// The inner service's body.
    #[must_use]
    pub const fn service(body: B) -> Self {
        Self {
            inner: Inner::Service { body },
        }
    }
}

impl<B: Body<Data = Bytes>> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().inner.project() {
            InnerProj::Own { bytes } => Poll::Ready(bytes.take().map(|all| Ok(Frame::data(all)))),
            InnerProj::Service { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Own { bytes } => bytes.is_none(),
            Inner::Service { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Own { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Service { body } => body.size_hint(),
        }
    }
}

/// The answer to a refused request: status, `Retry-After`, problem details, and the reason in the
/// extensions.
#[must_use]
pub fn refuse<B>(refusal: Refusal) -> Response<AnswerBody<B>> {
    refusal_bytes(refusal).map(AnswerBody::own)
}

/// The same with its body as it is.
pub(crate) fn refusal_bytes(refusal: Refusal) -> Response<Bytes> {
    let mut response = Response::new(refusal.problem());
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    if let Some(retry_after) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, decimal(retry_after_secs(retry_after)));
    }
    response.extensions_mut().insert(refusal);
    response
}

/// A number as the value of a field, in one allocation: the buffer that [`HeaderValue`] makes for numbers of
/// any length has room to spare, and is allocated a second time for it.
///
/// Small numbers, ages and lengths for the most part, are slices of a constant and take none.
pub(crate) fn decimal(number: u64) -> HeaderValue {
    if let Some(text) = small(number) {
        return HeaderValue::from_static(text);
    }
    let mut digits = itoa::Buffer::new();
    HeaderValue::from_str(digits.format(number)).unwrap_or_else(|_| HeaderValue::from(number))
}

/// The digits of a number below [`SMALL`].
fn small(number: u64) -> Option<&'static str> {
    let at = usize::try_from(number).ok().filter(|at| *at < SMALL)?;
    let zeros = match at {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    let digits = DIGITS.get(4 * at + zeros..4 * at + 4)?;
    std::str::from_utf8(digits).ok()
}

/// 40 KB of text for some two and a half hours of seconds.
const SMALL: usize = 10_000;

/// `0000` to `9999`.
static DIGITS: [u8; 4 * SMALL] = {
    let mut digits = [b'0'; 4 * SMALL];
    let mut at = 0;
    while at < SMALL {
        let (mut rest, mut place) = (at, 4 * at + 4);
        while rest > 0 {
            place -= 1;
            digits[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        at += 1;
    }
    digits
};

/// Whether a request that was answered so may have changed something. A client error says that it was not
/// carried out (RFC 9110 §15.5), or anybody could empty a cache with bad requests; but for 408, which is
/// what a timeout answers for a handler that it has dropped midway. A server error may come after a
/// commit.
pub(crate) fn may_have_changed(status: StatusCode) -> bool {
    !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// A request extension of those who invalidate after changes: a layer further in says in it that it has answered in
/// the service's stead. What the answer says of itself proves nothing: a handler may hand on another service's refusal
/// after it has committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct NotCalled(Arc<AtomicBool>);

impl NotCalled {
    /// The request's own, or that of whoever is further out.
    pub(crate) fn within(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    /// Says that the service is not called.
    pub(crate) fn note(extensions: &Extensions) {
        if let Some(Self(noted)) = extensions.get::<Self>() {
            noted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether an answer of this status is no change for that. A success is one, whoever says so (RFC 9111 §4.4).
    pub(crate) fn excuses(&self, status: StatusCode) -> bool {
        status.is_server_error() && self.0.load(Ordering::Relaxed)
    }
}

/// The media type of problem details (RFC 9457 §3).
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_a_complete_answer() {
        let refusal = Refusal::Overloaded {
            retry_after: Duration::from_millis(1500),
        };
        let response = refuse::<Full<Bytes>>(refusal.clone());
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.extensions().get::<Refusal>(), Some(&refusal));
        assert_eq!(
            response.body().size_hint().exact(),
            Some(refusal.problem().len() as u64)
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, refusal.problem());
    }

    #[tokio::test]
    async fn an_empty_own_body_is_at_its_end() {
        let body = AnswerBody::<Full<Bytes>>::own(Bytes::new());
        assert!(body.is_end_stream());
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in (0..10_050).chain([99_999, u64::MAX]) {
            assert_eq!(decimal(number), number.to_string(), "{number}");
        }
    }

    #[test]
    fn only_client_errors_change_nothing_and_a_timeout_is_none() {
        for (status, changed) in [
            (101, true),
            (200, true),
            (204, true),
            (303, true),
            (400, false),
            (404, false),
            (408, true),
            (409, false),
            (429, false),
            (499, false),
            (500, true),
            (503, true),
            (599, true),
            (777, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(may_have_changed(status), changed, "{status}");
        }
    }
}
