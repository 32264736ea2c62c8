//! What a figure that only ever grows had come to, every ten seconds of the last hour.
//!
//! For figures that a part holds itself, where no event tells of each: a report wants what has come to them within its
//! window.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// The readings. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Readings {
    clock: Clock,
    past: Arc<Mutex<VecDeque<(Moment, u64)>>>,
}

/// How often the figure is to be [noted](Readings::note).
pub(crate) const READ_EVERY: Duration = Duration::from_secs(10);

/// The window of an hour covers up to five minutes more.
const KEPT: Duration = Duration::from_secs(66 * 60);

impl Readings {
    /// Those of a figure that is 0 now.
    pub(crate) fn new(clock: Clock) -> Self {
        let begin = VecDeque::from([(clock.now(), 0)]);
        Self {
            clock,
            past: Arc::new(Mutex::new(begin)),
        }
    }

    /// Notes what the figure has come to. Those that no window needs any more are let go.
    pub(crate) fn note(&self, figure: u64) {
        let now = self.clock.now();
        let mut past = self.past();
        past.push_back((now, figure));
        while past.get(1).is_some_and(|(at, _)| now.since(*at) >= KEPT) {
            past.pop_front();
        }
    }

    /// What has come to the figure, which is `figure` now, in the time that a window covers, and at most ten seconds
    /// more.
    pub(crate) fn within(&self, covers: Duration, figure: u64) -> u64 {
        let now = self.clock.now();
        let past = self.past();
        let before = past.partition_point(|(at, _)| now.since(*at) >= covers);
        let base = past.get(before.saturating_sub(1));
        figure.saturating_sub(base.map_or(0, |(_, figure)| *figure))
    }

    /// Nothing that is done under the lock leaves anything half done, so poison is ignored.
    fn past(&self) -> MutexGuard<'_, VecDeque<(Moment, u64)>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_window_has_what_came_within_it() {
        let (clock, hand) = Clock::manual();
        let readings = Readings::new(clock);
        assert_eq!(readings.within(MINUTE, 7), 7, "all since the start");
        // One more every second.
        for second in 1..=3 * 3600 {
            hand.advance(Duration::from_secs(1));
            if second % 10 == 0 {
                readings.note(second);
            }
        }
        let now = 3 * 3600;
        assert_eq!(readings.within(MINUTE, now), 60);
        assert_eq!(readings.within(MINUTE * 5 + MINUTE / 20, now), 310);
        assert_eq!(readings.within(MINUTE * 65, now), 3900);
        assert_eq!(readings.within(Duration::ZERO, now), 0);
        assert_eq!(
            readings.within(MINUTE * 600, now),
            3960,
            "as far as is known"
        );
        assert_eq!(readings.past().len(), 397);
        hand.advance(MINUTE * 2);
        assert_eq!(readings.within(MINUTE, now), 0, "nothing new");
    }
}
