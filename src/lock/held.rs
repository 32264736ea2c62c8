//! A lock while it is held.

use std::fmt;
use std::time::Duration;

use crate::lock::attempt::Attempt;
use crate::lock::error::LockError;
use crate::lock::name::checked_ttl;

/// A lock that is held until it is released, dropped, or expires.
///
/// Dropping it releases it in the background, as well as that can be: after the stack was shut down, or
/// where Redis stays away, it ends when it expires. [`release`](Self::release) tells whether it was held
/// to the end.
///
/// It does not extend itself: whoever is stuck should lose it. Between two steps of a long work, call
/// [`extend`](Self::extend).
#[must_use = "a lock that is dropped is released"]
pub struct Lock {
    attempt: Attempt,
    token: u64,
}

impl Lock {
    pub(crate) const fn new(attempt: Attempt, token: u64) -> Self {
        Self { attempt, token }
    }

    /// What was locked.
    #[must_use]
    pub fn key(&self) -> &str {
        self.attempt.name.as_str()
    }

    /// The fencing token: larger than that of everybody who held this key before. Hand it to what the lock
    /// protects, and let that refuse smaller ones; see the [module](crate::lock) for how.
    ///
    /// It is below 2^53, so it fits SQL's `BIGINT` and a number of JSON. About the time in microseconds,
    /// it tells nothing else.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Whether it is still held, as far as this process' clock can tell. Asks nobody, so it does not see
    /// that Redis has lost it; a resource that looks at the [`token`](Self::token) does.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.held_for().is_zero()
    }

    /// For how much longer it is held; zero if it is not. Counted from before Redis was asked, and a
    /// thousandth and 2 ms less than was asked for, so that it ends here before it ends there, unless this
    /// machine was suspended or the time of day on Redis' was put forward.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        let now = self.attempt.keeper.clock.now();
        self.attempt.until().since(now)
    }

    /// Holds it for `ttl` from now on, 100 ms to 24 h; never for less than it would have been anyway.
    /// One round trip.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockError::Lost) if it is not held any more: stop the work, somebody else may have begun.
    /// [`Unavailable`](LockError::Unavailable) if Redis could not say: it is held for as long as before,
    /// and may be tried again. [`Invalid`](LockError::Invalid), [`Refused`](LockError::Refused).
    ///
    /// # Cancellation
    ///
    /// It may be held for longer than [`held_for`](Self::held_for) tells.
    pub async fn extend(&self, ttl: Duration) -> Result<(), LockError> {
        let ttl = checked_ttl(ttl)?;
        let attempt = &self.attempt;
        let sent = attempt.keeper.clock.now();
        let owner = (&attempt.owner, self.token);
        if attempt.keeper.extend(&attempt.name, owner, ttl).await? {
            attempt.prolong(sent, ttl);
            return Ok(());
        }
        attempt.lose();
        let key = attempt.name.shared();
        Err(LockError::Lost { key })
    }

    /// Gives it back, in one round trip. Returns whether it was held to the very end, so that nobody else
    /// can have held it since it was taken; `false` if it had expired, if Redis had lost it, and if Redis
    /// could not say. Of somebody else's lock nothing is ever taken.
    ///
    /// # Cancellation
    ///
    /// It is released in the background, as if dropped; so it is where Redis could not say.
    pub async fn release(self) -> bool {
        let Self { attempt, token } = self;
        attempt.release(token).await.unwrap_or(false)
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("key", &self.key())
            .field("token", &self.token)
            .field("held_for", &self.held_for())
            .finish_non_exhaustive()
    }
}
