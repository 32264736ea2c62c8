//! The operator's endpoints as a service.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request};
use http_body::Body;
use tower_service::Service;

use crate::admin::answer::Answer;
use crate::admin::auth::AdminAuth;
use crate::admin::desk::{Begun, Desk, without_body};
#[cfg(feature = "axum")]
use crate::admin::paths::Row;
use crate::admin::sources::AdminSources;
use crate::identity::RequestView;

/// The operator's endpoints: see [`admin`](crate::admin). Cheap to clone; all clones are one.
///
/// Takes requests with any body, and never fails. Whatever can be answered from memory is answered at once;
/// changes read the request's body (64 KiB within 10 s) and may wait for confirmation.
#[derive(Clone)]
pub struct AdminService {
    desk: Arc<Desk>,
}

impl AdminService {
    /// The endpoints of `sources`. Those that show names or change something exist for those whom `auth` lets in.
    #[must_use]
    pub fn new(sources: AdminSources, auth: AdminAuth) -> Self {
        Self {
            desk: Arc::new(Desk::new(sources, auth)),
        }
    }

    /// The same endpoints under a path like `/admin`, for services without a router that takes the prefix off.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        Self {
            desk: Arc::new(self.desk.under(prefix)),
        }
    }

    /// Which endpoints exist: only those for everybody where nobody is let in.
    #[cfg(feature = "axum")]
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        self.desk.rows()
    }
}

impl<B> Service<Request<B>> for AdminService
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = AdminFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AdminFuture {
        let is_head = request.method() == Method::HEAD;
        let view = RequestView::of(&request);
        let state = match self.desk.begin(&view, request.uri().path()) {
            Begun::Answered(answer) if is_head => State::Ready(Some(without_body(answer))),
            Begun::Answered(answer) => State::Ready(Some(answer)),
            Begun::Reads(task) => {
                let (parts, body) = request.into_parts();
                State::Waiting(Box::pin(task.carry_out(parts.headers, body)))
            }
        };
        AdminFuture { state }
    }
}

/// The answer of an [`AdminService`].
pub struct AdminFuture {
    state: State,
}

enum State {
    /// Answered in `call`.
    Ready(Option<Answer>),
    /// Waits for a body, or for an invalidation to be confirmed.
    Waiting(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Future for AdminFuture {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Ready(answer) => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                // Polled after its end: nobody waits for that.
                None => Poll::Pending,
            },
            State::Waiting(work) => work.as_mut().poll(cx).map(Ok),
        }
    }
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("desk", &self.desk)
            .finish()
    }
}

impl fmt::Debug for AdminFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminFuture").finish_non_exhaustive()
    }
}
