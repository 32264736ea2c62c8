//! One owner's attempt at a lock, and all that it may have left behind.

use std::mem::replace;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::lock::error::LockError;
use crate::lock::keeper::Keeper;
use crate::lock::leaving::Leaving;
use crate::lock::name::Name;
use crate::lock::owner::Owner;

/// Asks for one lock in one name, however often. Dropped, it undoes what it did, and what its questions may
/// do that nobody heard the answer of.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) name: Name,
    pub(crate) owner: Owner,
    /// Whether the lock was given out to it and not given back.
    held: bool,
    /// Whether a question of its may be under way, so that the lock may be given out to it yet.
    doubtful: bool,
    /// By when it is over by this process' clock, in nanoseconds; 0 once it is known to be lost.
    until: AtomicU64,
}

impl Attempt {
    pub(crate) fn new(keeper: Arc<Keeper>, name: Name) -> Self {
        Self {
            keeper,
            name,
            owner: Owner::random(),
            held: false,
            doubtful: false,
            until: AtomicU64::new(0),
        }
    }

    /// Asks once. Returns the token.
    ///
    /// # Errors
    ///
    /// Why the lock was not given out.
    ///
    /// # Cancellation
    ///
    /// As if the answer was lost.
    pub(crate) async fn ask(&mut self, ttl: Duration) -> Result<u64, LockError> {
        // Counted from before it was sent: Redis begins to count later, and so ends later.
        let sent = self.keeper.clock.now();
        *self.until.get_mut() = sent.plus(believed(ttl)).as_nanos();
        // Dropped while it waits, it cannot know; and what it did not know before, it does not know now.
        let before = replace(&mut self.doubtful, true);
        let claimed = self.keeper.claim(&self.name, &self.owner, ttl).await;
        self.doubtful = before || claimed.doubtful;
        self.held = claimed.token.is_ok();
        claimed.token
    }

    /// By when it is over.
    pub(crate) fn until(&self) -> Moment {
        Moment::from_nanos(self.until.load(Ordering::Relaxed))
    }

    /// It lasts for so long from when the question was sent, if it lasted for less.
    pub(crate) fn prolong(&self, sent: Moment, ttl: Duration) {
        let until = sent.plus(believed(ttl)).as_nanos();
        // Lost is lost, also where an answer from before is read late.
        let later = |known: u64| (known != 0).then_some(known.max(until));
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.until.fetch_update(order.0, order.1, later);
    }

    /// It is not held any more.
    pub(crate) fn lose(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// Gives the lock back. Returns whether it was still its own; `None` where nobody can say, and then it
    /// is given back in the background.
    pub(crate) async fn release(mut self, token: u64) -> Option<bool> {
        let freed = self.keeper.release(&self.leaving(), token).await;
        if freed.is_some() {
            (self.held, self.doubtful) = (false, false);
        }
        freed
    }

    fn leaving(&self) -> Leaving {
        Leaving {
            name: self.name.clone(),
            owner: self.owner.clone(),
            doubtful: self.doubtful,
            until: self.until(),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.held || self.doubtful {
            self.keeper.let_go(&self.leaving());
        }
    }
}

/// For how much of `ttl` a holder believes that it holds: two clocks that should run at one speed may be off
/// by some hundred millionths of it, and both count in milliseconds.
fn believed(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 1_000 + Duration::from_millis(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn what_is_lost_is_not_held_again_and_nothing_is_shortened() {
        let (clock, _hand) = Clock::manual();
        let keeper = Arc::new(Keeper::in_memory(clock.clone()));
        let mut attempt = Attempt::new(keeper, Name::new("a").unwrap());
        attempt.ask(SECOND).await.unwrap();
        let until = attempt.until();
        assert_eq!(until.since(clock.now()), Duration::from_millis(997));
        attempt.prolong(clock.now(), SECOND / 2);
        assert_eq!(attempt.until(), until);
        attempt.prolong(clock.now(), 2 * SECOND);
        assert!(attempt.until() > until);
        attempt.lose();
        attempt.prolong(clock.now(), 2 * SECOND);
        assert_eq!(attempt.until(), Moment::default());
    }

    #[test]
    fn a_holder_believes_a_little_less_than_redis_knows() {
        assert_eq!(believed(SECOND / 10), Duration::from_micros(97_900));
        let day = SECOND * 86_400;
        assert_eq!(day - believed(day), Duration::from_millis(86_402));
    }
}
