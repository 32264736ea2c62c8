//! An invalidation under way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::journal::stamp::{Pending, Receipt};

/// An invalidation that is carried out, here already and everywhere else in a moment.
///
/// Await it to know that it is: it then ends with a [`Receipt`], or with [`Pending`] where that could not be
/// confirmed in time. Dropping it calls nothing back, and neither does never awaiting it. In a process without
/// Redis it is ready at once.
#[must_use = "what is invalidated is invalidated in any case; await it to know that all instances have heard, \
              or drop it on purpose"]
pub struct Appending {
    state: State,
}

enum State {
    Ready(Result<Receipt, Pending>),
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "without Redis nothing takes time")
    )]
    Waiting(Pin<Box<dyn Future<Output = Result<Receipt, Pending>> + Send>>),
}

impl Appending {
    pub(crate) const fn ready(outcome: Result<Receipt, Pending>) -> Self {
        Self {
            state: State::Ready(outcome),
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn waiting(
        outcome: impl Future<Output = Result<Receipt, Pending>> + Send + 'static,
    ) -> Self {
        Self {
            state: State::Waiting(Box::pin(outcome)),
        }
    }

    /// The outcome, if it is known already.
    #[must_use]
    pub const fn now(&self) -> Option<Result<Receipt, Pending>> {
        match &self.state {
            State::Ready(outcome) => Some(*outcome),
            State::Waiting(_) => None,
        }
    }
}

impl Future for Appending {
    type Output = Result<Receipt, Pending>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Ready(outcome) => Poll::Ready(*outcome),
            State::Waiting(outcome) => outcome.as_mut().poll(cx),
        }
    }
}

impl std::fmt::Debug for Appending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appending")
            .field("now", &self.now())
            .finish()
    }
}
