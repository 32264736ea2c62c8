//! Where locks are asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::lock::acquire::Acquire;
use crate::lock::keeper::Keeper;
#[cfg(feature = "redis")]
use crate::lock::{script::SCRIPTS, shared::Shared};
#[cfg(feature = "redis")]
use crate::store::{RedisPool, RedisStatus, Script};
#[cfg(feature = "redis")]
use crate::task::Spawner;

/// Gives out locks. Cheap to clone; all clones give out the same ones. In a stack it is
/// [`Keep::locks`](crate::Keep::locks).
#[derive(Clone, Debug)]
pub struct Locks {
    keeper: Arc<Keeper>,
}

/// What locks need that several instances share.
#[cfg(feature = "redis")]
#[derive(Clone, Debug)]
pub struct LockParts {
    /// Tells for how long a lock is held.
    pub clock: Clock,
    /// Where the locks live. It must have been built with [`Locks::scripts`].
    pub redis: RedisPool,
    /// Releases what was dropped.
    pub spawner: Spawner,
}

impl Locks {
    /// Locks of this process alone.
    #[must_use]
    pub fn in_memory(clock: Clock) -> Self {
        Self::of(Keeper::in_memory(clock))
    }

    /// Locks in Redis, between all that have the same prefix there; in memory if none is configured. Waits
    /// for nothing.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn shared(parts: LockParts) -> Self {
        let LockParts {
            clock,
            redis,
            spawner,
        } = parts;
        if redis.status() == RedisStatus::Disabled {
            return Self::in_memory(clock);
        }
        let shared = Shared::new(redis, spawner, clock.clone());
        Self::of(Keeper::shared(clock, shared))
    }

    /// The scripts that a pool must know: for [`StoreParts::scripts`](crate::store::StoreParts::scripts).
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn scripts() -> &'static [&'static Script] {
        &SCRIPTS
    }

    fn of(keeper: Keeper) -> Self {
        Self {
            keeper: Arc::new(keeper),
        }
    }

    /// Asks for the lock of `key`, 1 to 512 bytes without control characters, for `ttl`, 100 ms to 24 h in
    /// whole milliseconds. Await what it returns: one round trip; or [`wait`](Acquire::wait) for the lock.
    ///
    /// Choose a `ttl` that the work never takes: it is only for holders that die. Errors and cancellation are
    /// told at [`Acquire`].
    pub fn lock(&self, key: impl AsRef<str>, ttl: Duration) -> Acquire {
        Acquire::new(Arc::clone(&self.keeper), key.as_ref(), ttl)
    }
}
