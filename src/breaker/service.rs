//! Circuit breakers before a service.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::breaker::fallback::Fallback;
use crate::breaker::future::BreakerFuture;
use crate::breaker::names::{Circuits, as_sent};
use crate::breaker::outcome::Classifier;
use crate::response::{AnswerBody, NotCalled};

/// Keeps requests from a service that has failed too often of late; made by
/// [`BreakerLayer`](crate::breaker::BreakerLayer).
#[derive(Clone, Debug)]
pub struct BreakerService<S> {
    inner: S,
    circuits: Circuits,
    classifier: Classifier,
    fallback: Fallback,
}

impl<S> BreakerService<S> {
    pub(crate) const fn new(
        inner: S,
        circuits: Circuits,
        classifier: Classifier,
        fallback: Fallback,
    ) -> Self {
        Self {
            inner,
            circuits,
            classifier,
            fallback,
        }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for BreakerService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<AnswerBody<ResBody>>;
    type Error = S::Error;
    type Future = BreakerFuture<S::Future>;

    /// Only the inner service's readiness: which circuit it is about, the request will tell.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let call = match self.circuits.of(&request).map(|circuit| circuit.admit()) {
            None => None,
            Some(Ok(call)) => Some(call),
            Some(Err(refusal)) => {
                NotCalled::note(request.extensions());
                let answer = self.fallback.answer(refusal, &as_sent(&request));
                return BreakerFuture::answered(answer);
            }
        };
        BreakerFuture::under_way(self.inner.call(request), call, self.classifier.clone())
    }
}
