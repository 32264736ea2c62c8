//! The inner service's answer, held back until what it made old is purged.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::invalidation::watch::Watch;
use crate::journal::Appending;

pin_project! {
    /// The future of [`InvalidateService`](crate::invalidation::InvalidateService). Dropped before
    /// the head is there, it purges what the rules can tell from the request
    /// all the same.
    #[derive(Debug)]
    pub struct InvalidateFuture<F, T> {
        // Dropped before the watch: whatever the handler still does while it is torn down comes
        // before the record.
        #[pin]
        inner: F,
        watch: Option<Watch>,
        // What the service answered, until all instances have heard of what it made old.
        held: Option<(Appending, T)>,
    }
}

impl<F, T> InvalidateFuture<F, T> {
    pub(crate) const fn new(inner: F, watch: Option<Watch>) -> Self {
        Self {
            inner,
            watch,
            held: None,
        }
    }
}

impl<F, B, E> Future for InvalidateFuture<F, Response<B>>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some((appending, _)) = this.held {
            let _ = ready!(Pin::new(appending).poll(cx));
            if let Some((_, response)) = this.held.take() {
                return Poll::Ready(Ok(response));
            }
        }
        let mut result = ready!(this.inner.poll(cx));
        // On an error the watch is simply dropped, which purges.
        if let (Some(watch), Ok(response)) = (this.watch.take(), &mut result) {
            let mut appending = watch.answered(response);
            // In memory this is ready at once. A confirmation that does not come in time is counted, and
            // the answer goes on its way: what it made old is carried out all the same.
            if Pin::new(&mut appending).poll(cx).is_pending()
                && let Ok(response) = result
            {
                *this.held = Some((appending, response));
                return Poll::Pending;
            }
        }
        Poll::Ready(result)
    }
}
