//! The clock that the shipped files ask: one that stands still.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the clock was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }

    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Since 1970.
    pub(crate) time_of_day: Duration,
    pub(crate) now: Moment,
}

impl Clock {
    pub(crate) fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.time_of_day
    }

    pub(crate) const fn now(&self) -> Moment {
        self.now
    }
}
