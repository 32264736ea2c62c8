//! The service that purges what its requests make old.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::invalidation::future::InvalidateFuture;
use crate::invalidation::invalidator::Invalidator;
use crate::invalidation::watch::Watch;

/// Purges by rule and by what handlers say, before the response's head is released. See the
/// [module](crate::invalidation). Requests, responses and errors are the inner service's.
#[derive(Clone, Debug)]
pub struct InvalidateService<S> {
    inner: S,
    invalidator: Invalidator,
}

impl<S> InvalidateService<S> {
    pub(crate) const fn new(inner: S, invalidator: Invalidator) -> Self {
        Self { inner, invalidator }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for InvalidateService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = InvalidateFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let watch = Watch::begin(&self.invalidator, &mut request);
        InvalidateFuture::new(self.inner.call(request), watch)
    }
}
