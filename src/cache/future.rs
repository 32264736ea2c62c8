//! The future of a cached request: answered already, forwarded, or waiting for somebody else.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::cache::body::CacheBody;
use crate::cache::change::Change;
use crate::cache::deliver::pass_through;
use crate::cache::engine::Cache;
use crate::cache::errand::Errand;
use crate::cache::freshen::Asking;
use crate::cache::status::FwdReason;
use crate::journal::Appending;

pin_project! {
    /// The future of a [`CacheService`](crate::cache::CacheService). Cancel it at any time: a request
    /// that others wait for is handed on to one of them.
    pub struct CacheFuture<F, B, E> {
        #[pin]
        kind: Kind<F, B, E>,
    }
}

type Answer<B, E> = Result<Response<CacheBody<B>>, E>;

pin_project! {
    #[project = KindProj]
    enum Kind<F, B, E> {
        Ready { response: Option<Response<CacheBody<B>>> },
        Forward { #[pin] inner: F, then: Option<Then> },
        Held { appending: Appending, held: Option<(Box<Change>, Response<B>)> },
        Slow { waiting: Pin<Box<dyn Future<Output = Answer<B, E>> + Send>> },
    }
}

/// What to do with the service's answer.
pub(crate) enum Then {
    /// Nothing at all: the cache is switched off.
    Untouched,
    /// Pass it on with a remark.
    Pass(Cache, FwdReason),
    /// Invalidate what it changed.
    Change(Box<Change>),
    /// Store it, if it may be.
    Errand(Box<Errand>),
    /// See what it says of what is stored.
    Asking(Box<Asking>),
}

impl<F, B, E> CacheFuture<F, B, E> {
    pub(crate) const fn ready(response: Response<CacheBody<B>>) -> Self {
        Self {
            kind: Kind::Ready {
                response: Some(response),
            },
        }
    }

    pub(crate) const fn forward(inner: F, then: Then) -> Self {
        Self {
            kind: Kind::Forward {
                inner,
                then: Some(then),
            },
        }
    }

    pub(crate) fn slow(waiting: impl Future<Output = Answer<B, E>> + Send + 'static) -> Self {
        Self {
            kind: Kind::Slow {
                waiting: Box::pin(waiting),
            },
        }
    }
}

impl<F, B, E> Future for CacheFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
{
    type Output = Answer<B, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kind = self.project().kind;
        match kind.as_mut().project() {
            KindProj::Ready { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Polled after it was done; the contract of `Future` leaves that open.
                None => Poll::Pending,
            },
            KindProj::Forward { inner, then } => {
                let response = match ready!(inner.poll(cx)) {
                    Ok(response) => response,
                    Err(error) => {
                        let stand_in = match then.take() {
                            Some(Then::Errand(errand)) => errand.stand_in(),
                            _ => None,
                        };
                        return Poll::Ready(stand_in.ok_or(error));
                    }
                };
                Poll::Ready(Ok(match then.take() {
                    Some(Then::Pass(cache, reason)) => pass_through(&cache, response, reason),
                    Some(Then::Change(mut change)) => match change.arrive(&response) {
                        Some(appending) if appending.now().is_none() => {
                            // Whoever made the change is told when nobody is served what was before it.
                            let held = Some((change, response));
                            kind.set(Kind::Held { appending, held });
                            return let_go(kind, cx);
                        }
                        appending => {
                            let outcome = appending.and_then(|appending| appending.now());
                            change.settle(response, outcome)
                        }
                    },
                    Some(Then::Errand(errand)) => errand.arrive(response),
                    Some(Then::Asking(asking)) => asking.arrive(response),
                    Some(Then::Untouched) | None => response.map(CacheBody::through),
                }))
            }
            KindProj::Held { .. } => let_go(kind, cx),
            KindProj::Slow { waiting } => waiting.as_mut().poll(cx),
        }
    }
}

/// An answer that is held back until what it changed is invalidated.
fn let_go<F, B, E>(kind: Pin<&mut Kind<F, B, E>>, cx: &mut Context<'_>) -> Poll<Answer<B, E>>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let KindProj::Held { appending, held } = kind.project() else {
        return Poll::Pending;
    };
    let outcome = ready!(Pin::new(appending).poll(cx));
    match held.take() {
        Some((change, response)) => Poll::Ready(Ok(change.settle(response, Some(outcome)))),
        None => Poll::Pending,
    }
}

impl<F, B, E> std::fmt::Debug for CacheFuture<F, B, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheFuture").finish_non_exhaustive()
    }
}
