//! What was done ahead of time, counted.

use serde::Serialize;

use crate::warming::queue::Class;

/// What a warmer has done so far, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WarmerStats {
    /// What was invalidated while it was in use.
    pub invalidated: JobStats,
    /// What was in use near its end.
    pub near_expiry: JobStats,
    /// What was hot before this instance started.
    pub boot: JobStats,
    /// What somebody asked for, or a schedule.
    pub scheduled: JobStats,
    /// Hot values that were fetched from Redis at the start, without computing.
    pub restored: u64,
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs under way.
    pub running: usize,
    /// How many may be under way at once at present.
    pub at_once: usize,
    /// Jobs that were dropped because worthier ones waited.
    pub dropped_crowded: u64,
    /// Jobs that were dropped because they had waited for too long.
    pub dropped_late: u64,
    /// How many keys are known to be hot.
    pub learned: usize,
    /// Whether none begins at present.
    pub paused: bool,
}

/// What became of jobs of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JobStats {
    /// They were computed or, where they are work without a value, done.
    pub computed: u64,
    /// Their value was there already: in memory, in Redis or in the cold store.
    pub found: u64,
    /// Somebody was about to compute their value.
    pub joined: u64,
    /// They failed, panicked or took too long.
    pub failed: u64,
    /// Nobody says how their value is computed, or the stack was shut down.
    pub dropped: u64,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Computed,
    Found,
    Joined,
    Failed,
    Dropped,
}

impl Outcome {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Found => "found",
            Self::Joined => "joined",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl WarmerStats {
    pub(crate) const fn count(&mut self, class: Class, outcome: Outcome) {
        let jobs = match class {
            Class::Invalidated => &mut self.invalidated,
            Class::NearExpiry => &mut self.near_expiry,
            Class::Boot => &mut self.boot,
            Class::Scheduled => &mut self.scheduled,
        };
        match outcome {
            Outcome::Computed => jobs.computed += 1,
            Outcome::Found => jobs.found += 1,
            Outcome::Joined => jobs.joined += 1,
            Outcome::Failed => jobs.failed += 1,
            Outcome::Dropped => jobs.dropped += 1,
        }
    }
}
