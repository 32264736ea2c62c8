//! Remote quotas before a client.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::outbound::clearance::Clearance;
use crate::outbound::future::QuotaFuture;
use crate::outbound::quota::RemoteQuota;
use crate::response::AnswerBody;

/// Sends requests on as far as their remotes' quotas allow; see the [module](crate::outbound).
///
/// A request is counted when `call` is made or, if it has to wait, when its turn comes. Dropping the
/// future of one that waits leaves the line; of one under way, it stays counted until the remote says
/// better.
#[derive(Clone, Debug)]
pub struct QuotaService<S> {
    inner: S,
    quota: RemoteQuota,
}

impl<S> QuotaService<S> {
    pub(crate) const fn new(inner: S, quota: RemoteQuota) -> Self {
        Self { inner, quota }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for QuotaService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
{
    type Response = Response<AnswerBody<ResBody>>;
    type Error = S::Error;
    type Future = QuotaFuture<S, ReqBody, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        match self.quota.ask_for(&request) {
            Clearance::Go(under_way) => QuotaFuture::sent(self.inner.call(request), under_way),
            Clearance::Refused(refusal) => QuotaFuture::refused(refusal),
            Clearance::Wait(waiting) => {
                // The one that was asked to be ready waits along; its clone takes its place.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                QuotaFuture::waiting(waiting, ready, request)
            }
        }
    }
}
