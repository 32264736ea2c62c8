//! The clock that the shipped files ask: one that stands still.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(crate) struct Clock {
    /// Since 1970.
    pub(crate) time_of_day: Duration,
}

impl Clock {
    pub(crate) fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.time_of_day
    }
}
