//! The inner service's answer, held back until what it made old is purged.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::invalidation::invalidate::Invalidate;
use crate::invalidation::watch::Watch;

pin_project! {
    /// The future of [`InvalidateService`](crate::invalidation::InvalidateService). Dropped before
    /// the head is there, it purges what the rules say all the same.
    #[derive(Debug)]
    pub struct InvalidateFuture<F> {
        // Dropped before the watch: whatever the handler still does while it is torn down comes
        // before the record.
        #[pin]
        inner: F,
        watch: Option<Watch>,
    }
}

impl<F> InvalidateFuture<F> {
    pub(crate) const fn new(inner: F, watch: Option<Watch>) -> Self {
        Self { inner, watch }
    }
}

impl<F, B, E> Future for InvalidateFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(cx));
        // On an error the watch is simply dropped, which purges.
        if let (Some(watch), Ok(response)) = (this.watch.take(), &mut result) {
            let status = response.status();
            // Most responses carry no extensions at all, and then this costs one comparison.
            let said = if response.extensions().is_empty() {
                None
            } else {
                response.extensions_mut().remove::<Invalidate>()
            };
            watch.answered(status, said);
        }
        Poll::Ready(result)
    }
}
