//! How long to wait before looking again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Grows from look to look, and scatters, so that those who wait do not come all at once.
#[derive(Debug)]
pub(crate) struct Pauses {
    due: Duration,
}

/// A lock that is held for a moment only is handed on quickly.
const FIRST: Duration = Duration::from_millis(5);
/// Whoever waits asks some thirteen times a second: a thousand of them are a tenth of what one core of
/// Redis does.
const LONGEST: Duration = Duration::from_millis(100);

impl Pauses {
    pub(crate) const fn new() -> Self {
        Self { due: FIRST }
    }

    /// The next pause: between half of what is due and all of it, and no longer than until the lock is
    /// `free_in` so much time.
    pub(crate) fn next(&mut self, free_in: Option<Duration>) -> Duration {
        self.scattered(free_in, RandomState::new().hash_one(()))
    }

    fn scattered(&mut self, free_in: Option<Duration>, chance: u64) -> Duration {
        let due = self.due;
        self.due = (due * 2).min(LONGEST);
        let half = due / 2;
        let pause = half + half * (chance % 1024) as u32 / 1024;
        // Looked at in the very millisecond of its end it may still be there.
        free_in.map_or(pause, |free_in| pause.min(free_in + GRAIN))
    }
}

/// What Redis' and Tokio's clocks count in.
const GRAIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_longest_and_scatter_over_half_of_it() {
        let millis = Duration::from_millis;
        for (chance, expected) in [(0, [2.5, 5.0, 50.0]), (1023, [5.0, 10.0, 100.0])] {
            let mut pauses = Pauses::new();
            let all: Vec<Duration> = (0..9).map(|_| pauses.scattered(None, chance)).collect();
            for (pause, expected) in [all[0], all[1], all[8]].into_iter().zip(expected) {
                let off = pause.as_secs_f64() * 1000.0 - expected;
                assert!(off.abs() < 0.1, "{pause:?} is not {expected} ms");
            }
            assert_eq!(pauses.scattered(Some(millis(7)), chance), millis(8));
            assert!(pauses.scattered(Some(millis(900)), chance) >= millis(50));
        }
    }
}
