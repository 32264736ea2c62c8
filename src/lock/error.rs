//! Why there is no lock.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Fault;
use crate::store::StoreError;

/// Why a lock was not given out, or not extended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Something cannot be asked for like this: `key`, `ttl` or `wait`.
    #[error("no such lock: {0}")]
    Invalid(Fault),
    /// Somebody else holds it.
    #[error("the lock {key:?} is held, for {free_in:?} more unless it is extended")]
    Held {
        /// Which lock.
        key: Arc<str>,
        /// After what time it is free at the latest, unless its holder extends it. Zero if nobody knows.
        free_in: Duration,
    },
    /// It was held, and is not any more: it expired, or Redis has lost it. Somebody else may hold it.
    #[error("the lock {key:?} is not held any more")]
    Lost {
        /// Which lock.
        key: Arc<str>,
    },
    /// Redis could not be asked, or did not answer in time. Nothing is held.
    #[error("nobody can say who holds the lock: {0}")]
    Unavailable(StoreError),
    /// Redis said no, and will say so again: the user may not do this, the key holds something else, ..
    #[error("the lock cannot be taken: {0}")]
    Refused(StoreError),
    /// Without Redis: so many keys are locked in this process that no further one can be.
    #[error("all {max} locks of this process are held")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
}

impl LockError {
    /// Whether waiting may help: somebody holds it, Redis is away, too many are held.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Held { .. } | Self::Unavailable(_) | Self::TooMany { .. }
        )
    }

    /// Whether somebody else is at work, which is often all that one wanted to know.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// When to look again at the latest, if somebody could say.
    pub(crate) fn free_in(&self) -> Option<Duration> {
        match self {
            Self::Held { free_in, .. } => (!free_in.is_zero()).then_some(*free_in),
            _ => None,
        }
    }
}

#[cfg(feature = "redis")]
impl From<StoreError> for LockError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            Self::Unavailable(error)
        } else {
            Self::Refused(error)
        }
    }
}
