//! The limiter before a service.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::identity::RequestView;
use crate::rate_limit::body::RateLimitBody;
use crate::rate_limit::decision::Decision;
use crate::rate_limit::engine::Begun;
use crate::rate_limit::future::{Pass, RateLimitFuture, refusal};
use crate::rate_limit::headers::Fields;
use crate::rate_limit::limiter::RateLimiter;
#[cfg(feature = "redis")]
use crate::rate_limit::{together::Asking, writer::RefusalWriter};

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
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Send + 'static,
{
    type Response = Response<RateLimitBody<ResBody>>;
    type Error = S::Error;
    type Future = RateLimitFuture<S::Future, ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let fields = Fields::of(&self.limiter.rules());
        match (self.limiter).begin(&RequestView::of(&request), fields.are_always_told()) {
            Begun::Done(Some(decision), _) if !decision.is_allow() => {
                RateLimitFuture::refused(refusal(&decision, fields, self.limiter.writer()))
            }
            Begun::Done(decision, settlement) => {
                let standing = decision.and_then(Decision::into_standing);
                let pass = Pass {
                    standing,
                    settlement,
                    fields,
                };
                RateLimitFuture::passed(self.inner.call(request), pass)
            }
            #[cfg(feature = "redis")]
            Begun::Asking(asking) => {
                // The clone may not be ready; the one that is goes with the request.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                let writer = self.limiter.writer().clone();
                let slow = go_on(asking, (ready, request), (fields, writer));
                RateLimitFuture::slow(Box::pin(slow))
            }
        }
    }
}

/// Goes on with a request once Redis has answered.
#[cfg(feature = "redis")]
async fn go_on<S, ReqBody, ResBody>(
    mut asking: Box<Asking>,
    (mut ready, request): (S, Request<ReqBody>),
    (fields, writer): (Fields, RefusalWriter),
) -> Result<Response<RateLimitBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    let outcome = (&mut *asking).await;
    let (decision, settlement) = outcome.finish(asking.ledger());
    if let Some(decision) = decision.as_ref().filter(|decision| !decision.is_allow()) {
        return Ok(refusal(decision, fields, &writer));
    }
    let mut pass = Pass {
        standing: decision.and_then(Decision::into_standing),
        settlement,
        fields,
    };
    Ok(pass.deliver(ready.call(request).await?))
}
