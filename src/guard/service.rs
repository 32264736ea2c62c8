//! The guard around one service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::guard::admission::Admission;
use crate::guard::body::GuardBody;
use crate::guard::engine::Guard;
use crate::guard::future::GuardFuture;

/// Lets requests in as the [`Guard`] says; made by [`GuardLayer`](crate::guard::GuardLayer).
#[derive(Clone, Debug)]
pub struct GuardService<S> {
    inner: S,
    guard: Guard,
}

impl<S> GuardService<S> {
    pub(crate) const fn new(inner: S, guard: Guard) -> Self {
        Self { inner, guard }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for GuardService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<GuardBody<ResBody>>;
    type Error = S::Error;
    type Future = GuardFuture<S, ReqBody, S::Future>;

    /// Only the inner service's readiness: an idle connection holds no slot.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let version = request.version();
        match self.guard.admit_request(&request) {
            Admission::Admitted(permit) => {
                GuardFuture::admitted(self.inner.call(request), permit, version)
            }
            Admission::Refused(refusal) => {
                GuardFuture::refused(refusal, self.guard.pressure(), version)
            }
            Admission::Wait(waiting) => {
                // The service that was asked to be ready goes along; a fresh clone stays behind.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                GuardFuture::queued(waiting, self.guard.clone(), ready, request)
            }
        }
    }
}
