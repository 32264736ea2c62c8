//! The limiter before a service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::identity::RequestView;
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::headers::announce;
use crate::rate_limit::limiter::RateLimiter;
use crate::refusal::Refusal;
use crate::response::{AnswerBody, refuse};

/// Passes requests on as far as its limiter allows; see the [module](crate::rate_limit).
///
/// A request is counted when `call` is made, and stays counted if its future is dropped.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    limiter: RateLimiter,
}

impl<S> RateLimitService<S> {
    pub(crate) const fn new(inner: S, limiter: RateLimiter) -> Self {
        Self { inner, limiter }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimitService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<AnswerBody<ResBody>>;
    type Error = S::Error;
    type Future = RateLimitFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let legacy = self.limiter.legacy_headers();
        let journey = match self.limiter.check(&RequestView::of(&request)) {
            Some(Decision::Deny(standing)) => Journey::Ready {
                response: Some(refusal(&standing, legacy)),
            },
            Some(Decision::Allow(standing)) => Journey::Forward {
                inner: self.inner.call(request),
                standing: Some(standing),
                legacy,
            },
            None => Journey::Forward {
                inner: self.inner.call(request),
                standing: None,
                legacy,
            },
        };
        RateLimitFuture { journey }
    }
}

/// The answer to a request over its quota. RFC 6585 §4: "MAY include a Retry-After header
/// indicating how long to wait before making a new request".
fn refusal<B>(standing: &Standing, legacy: bool) -> Response<AnswerBody<B>> {
    let mut response = refuse(Refusal::OverQuota {
        rule: Arc::clone(&standing.terms().rule),
        retry_after: standing.retry_after(),
    });
    announce(response.headers_mut(), standing, legacy);
    response
}

pin_project! {
    /// The future of a [`RateLimitService`].
    #[derive(Debug)]
    pub struct RateLimitFuture<F, B> {
        #[pin]
        journey: Journey<F, B>,
    }
}

pin_project! {
    #[project = JourneyProj]
    #[derive(Debug)]
    enum Journey<F, B> {
        // Refused.
        Ready {
            response: Option<Response<AnswerBody<B>>>,
        },
        // Let through.
        Forward {
            #[pin]
            inner: F,
            standing: Option<Standing>,
            legacy: bool,
        },
    }
}

impl<F, B, E> Future for RateLimitFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<AnswerBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().journey.project() {
            JourneyProj::Ready { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Polled after its end, which a future may answer as it likes, but not by panicking.
                None => Poll::Pending,
            },
            JourneyProj::Forward {
                inner,
                standing,
                legacy,
            } => {
                let mut response = ready!(inner.poll(cx))?.map(AnswerBody::service);
                if let Some(standing) = standing {
                    announce(response.headers_mut(), standing, *legacy);
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}
