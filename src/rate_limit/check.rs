//! A decision on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::rate_limit::decision::Decision;
use crate::rate_limit::engine::Begun;

/// The decision about a request; see [`RateLimiter::check`](crate::rate_limit::RateLimiter::check). The request
/// was counted when this was made, or will be by Redis, and stays counted if it is dropped.
#[must_use = "nothing is refused unless the decision is heeded"]
pub struct Check {
    state: State,
}

enum State {
    Done(Option<Decision>),
    #[cfg(feature = "redis")]
    Asking(Box<crate::rate_limit::together::Asking>),
}

impl Check {
    pub(crate) fn new(begun: Begun) -> Self {
        let state = match begun {
            Begun::Done(decision, _) => State::Done(decision),
            #[cfg(feature = "redis")]
            Begun::Asking(asking) => State::Asking(asking),
        };
        Self { state }
    }

    /// Whether the request may pass, unless Redis is still asked.
    pub(crate) const fn is_allow(&self) -> Option<bool> {
        match &self.state {
            State::Done(Some(decision)) => Some(decision.is_allow()),
            State::Done(None) => Some(true),
            #[cfg(feature = "redis")]
            State::Asking(_) => None,
        }
    }
}

impl Future for Check {
    type Output = Option<Decision>;

    #[cfg_attr(
        not(feature = "redis"),
        expect(unused_variables, reason = "memory has all answers")
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Decision>> {
        let this = self.get_mut();
        match &mut this.state {
            State::Done(decision) => Poll::Ready(decision.clone()),
            #[cfg(feature = "redis")]
            State::Asking(asking) => {
                let outcome = std::task::ready!(Pin::new(asking).poll(cx));
                // Kept, so that whoever asks again is not told that nothing was decided.
                this.state = State::Done(outcome.decision.clone());
                Poll::Ready(outcome.decision)
            }
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Check");
        match &self.state {
            State::Done(decision) => debug.field("decision", decision).finish(),
            #[cfg(feature = "redis")]
            State::Asking(_) => debug.finish_non_exhaustive(),
        }
    }
}
