//! The answer to a limited request, on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::rate_limit::body::RateLimitBody;
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::headers::{Fields, announce, expose, inform};
use crate::rate_limit::settle::Settlement;
use crate::rate_limit::writer::RefusalWriter;
use crate::refusal::Refusal;
use crate::response::{AnswerBody, refusal_bytes};

/// An answer for which Redis is asked first.
pub(crate) type Slow<B, E> =
    Pin<Box<dyn Future<Output = Result<Response<RateLimitBody<B>>, E>> + Send>>;

pin_project! {
    /// The future of a [`RateLimitService`](crate::rate_limit::RateLimitService).
    pub struct RateLimitFuture<F, B, E> {
        #[pin]
        journey: Journey<F, B, E>,
    }
}

pin_project! {
    #[project = JourneyProj]
    enum Journey<F, B, E> {
        // Refused.
        Ready {
            response: Option<Response<RateLimitBody<B>>>,
        },
        // Let through.
        Forward {
            #[pin]
            future: F,
            pass: Pass,
        },
        // Redis is asked. Boxed, because the request and the service wait along.
        Slow { future: Slow<B, E> },
    }
}

/// What is said and done when the answer is there.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) standing: Option<Standing>,
    pub(crate) settlement: Option<Box<Settlement>>,
    pub(crate) fields: Fields,
}

impl<F, B, E> RateLimitFuture<F, B, E> {
    /// Refused without waiting.
    pub(crate) const fn refused(response: Response<RateLimitBody<B>>) -> Self {
        let response = Some(response);
        Self {
            journey: Journey::Ready { response },
        }
    }

    /// Let through; `future` is the inner service's.
    pub(crate) const fn passed(future: F, pass: Pass) -> Self {
        Self {
            journey: Journey::Forward { future, pass },
        }
    }

    /// Waits for Redis.
    #[cfg(feature = "redis")]
    pub(crate) const fn slow(future: Slow<B, E>) -> Self {
        Self {
            journey: Journey::Slow { future },
        }
    }
}

impl<F, B, E> Future for RateLimitFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<RateLimitBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().journey.project() {
            JourneyProj::Ready { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Polled after its end, which a future may answer as it likes, but not by panicking.
                None => Poll::Pending,
            },
            JourneyProj::Forward { future, pass } => {
                let response = ready!(future.poll(cx))?;
                Poll::Ready(Ok(pass.deliver(response)))
            }
            JourneyProj::Slow { future } => future.as_mut().poll(cx),
        }
    }
}

impl Pass {
    /// Settles by the answer, and says how the caller stands.
    pub(crate) fn deliver<B>(&mut self, response: Response<B>) -> Response<RateLimitBody<B>> {
        let settlement = self.settlement.take();
        let meter = settlement.and_then(|settlement| settlement.settle(&response));
        let mut response =
            response.map(|body| RateLimitBody::new(AnswerBody::service(body), meter));
        if let Some(standing) = &self.standing {
            inform(response.headers_mut(), standing, self.fields);
        }
        response
    }
}

impl<F, B, E> fmt::Debug for RateLimitFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitFuture").finish_non_exhaustive()
    }
}

/// The answer to a refused request. RFC 6585 §4: "MAY include a Retry-After header indicating how long to
/// wait before making a new request".
pub(crate) fn refusal<B>(
    decision: &Decision,
    fields: Fields,
    writer: &RefusalWriter,
) -> Response<RateLimitBody<B>> {
    let refusal = match decision {
        Decision::Allow(standing) | Decision::Deny(standing) => Refusal::OverQuota {
            rule: Arc::clone(&standing.terms().rule),
            retry_after: standing.retry_after(),
        },
        Decision::Banned { retry_after } => Refusal::Banned {
            retry_after: *retry_after,
        },
        Decision::DenyListed => Refusal::DenyListed,
    };
    let mut response = refusal_bytes(refusal);
    match decision.standing() {
        Some(standing) => announce(response.headers_mut(), standing, fields),
        None => expose(response.headers_mut(), fields),
    }
    writer
        .write(response)
        .map(|body| RateLimitBody::new(AnswerBody::own(body), None))
}
