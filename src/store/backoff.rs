//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Grows from attempt to attempt, and scatters, so that a fleet does not come back in step.
///
/// The longest pause is short on purpose: an attempt on loopback or in one data centre costs a packet or
/// two, and a service should be back before anybody has looked at its health page.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

/// A number that differs between the instances of a fleet, and from call to call.
pub(crate) fn chance() -> u32 {
    (RandomState::new().hash_one(()) & u64::from(u32::MAX)) as u32
}

const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_millis(100);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next attempt: between half of what is due and all of it, by `chance`.
    pub(crate) fn pause(&mut self, chance: u32) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(LONGEST);
        let half = due / 2;
        half + half * (chance % 1024) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_scatter() {
        let pause = |chance| Backoff::new().pause(chance);
        assert!(pause(0) < pause(512) && pause(512) < pause(1023));
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_never_leave_their_bounds() {
        for chance in [0, 1, 511, 1023, u32::MAX] {
            let mut backoff = Backoff::new();
            for due in [25, 50, 100, 100, 100] {
                let (pause, due) = (backoff.pause(chance), Duration::from_millis(due));
                assert!(pause >= due / 2 && pause <= due, "{pause:?} of {due:?}");
            }
        }
    }
}
