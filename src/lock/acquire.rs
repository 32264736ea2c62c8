//! Asking for a lock: once, or until it is there.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::attempt::Attempt;
use crate::lock::error::LockError;
use crate::lock::held::Lock;
use crate::lock::keeper::Keeper;
use crate::lock::name::{Name, checked_ttl, checked_wait};
use crate::lock::pauses::Pauses;

/// A lock that is asked for. Await it: it is asked for once, or with [`wait`](Self::wait) until it is there.
///
/// # Errors
///
/// [`Held`](LockError::Held) by somebody else, [`Unavailable`](LockError::Unavailable) where Redis is
/// configured and cannot say, [`TooMany`](LockError::TooMany) without Redis where 10,000 keys are locked,
/// [`Invalid`](LockError::Invalid), [`Refused`](LockError::Refused).
///
/// # Cancellation
///
/// Nothing stays locked: whatever was asked for is given back in the background.
#[must_use = "nothing is asked for unless it is awaited"]
pub struct Acquire {
    keeper: Arc<Keeper>,
    asked: Result<(Name, Duration), LockError>,
    wait: Duration,
}

impl Acquire {
    pub(crate) fn new(keeper: Arc<Keeper>, key: &str, ttl: Duration) -> Self {
        let asked = Name::new(key).and_then(|name| Ok((name, checked_ttl(ttl)?)));
        Self {
            keeper,
            asked,
            wait: Duration::ZERO,
        }
    }

    /// Asks again until the lock is there, or for so long: 0 to 24 h, and one last question, which takes
    /// `redis.command_timeout` at most. Whoever held it, and an outage of Redis, are waited for; the error
    /// in the end is the last one.
    ///
    /// Who waits asks every 50 to 100 ms, sooner in the beginning, and at the time at which the lock expires
    /// at the latest. There is no queue: whoever asks first after it is free has it. Nor is there a message
    /// at its release, which would take a subscription for every lock that is waited for, and would have to
    /// be backed by asking all the same, since messages get lost.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    async fn acquire(self) -> Result<Lock, LockError> {
        let (name, ttl) = self.asked?;
        let wait = checked_wait(self.wait)?;
        let clock = self.keeper.clock.clone();
        let deadline = clock.now().plus(wait);
        // One name for all questions: whichever of them is answered first, the lock is this one's.
        let mut attempt = Attempt::new(self.keeper, name);
        let mut pauses = Pauses::new();
        loop {
            let refused = match attempt.ask(ttl).await {
                Ok(token) => return Ok(Lock::new(attempt, token)),
                Err(refused) => refused,
            };
            let left = deadline.since(clock.now());
            if left.is_zero() || !refused.is_passing() {
                return Err(refused);
            }
            tokio::time::sleep(pauses.next(refused.free_in()).min(left)).await;
        }
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Lock, LockError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Boxed, so that it has a name; beside a round trip that costs nothing.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("asked", &self.asked)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
