//! What came of the calls of the last while: ten buckets, whatever its length.
//!
//! A bucket's counters carry the time they belong to. Whoever comes first after that time begins the counter
//! anew with one atomic exchange, so nobody ever finds a bucket half emptied, and nothing has to be cleaned up
//! by anybody else. To count is one addition; to sum up takes thirty loads, and only failures ask for it.

use crate::breaker::rules::Sums;
use crate::clock::Moment;
use crate::sync::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Succeeded = 0,
    Failed = 1,
    Slow = 2,
}

/// Ten buckets of three counters.
#[derive(Debug)]
pub(crate) struct Window {
    /// `2^64` divided by a bucket's nanoseconds: a multiplication is cheaper than a division.
    buckets_per_nano: u64,
    buckets: [[AtomicU64; 3]; BUCKETS],
}

const BUCKETS: usize = 10;

/// How many buckets' times a counter may be ahead: a window. Half of all times would be too many, for where nobody
/// has counted for so long, what is old is as far away as what is ahead.
const AHEAD_MAX: u32 = BUCKETS as u32;

/// A counter's word: when in the upper half, how many in the lower. 32 bits of the time, in buckets, come round
/// after seven weeks of the shortest ones, so all that is not near is old; a count would take 71 million calls a second
/// in the longest to run over.
const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

const fn word(tick: u32, count: u64) -> u64 {
    ((tick as u64) << COUNT_BITS) | count
}

const fn tick_of(word: u64) -> u32 {
    (word >> COUNT_BITS) as u32
}

impl Window {
    /// A window of so many nanoseconds.
    pub(crate) fn new(nanos: u64) -> Self {
        let bucket = (nanos / BUCKETS as u64).max(1);
        let counters = |_| std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            // Rounded up, so that a bucket begins when the last one ends and not a nanosecond later.
            buckets_per_nano: (u64::MAX / bucket).saturating_add(1),
            buckets: std::array::from_fn(counters),
        }
    }

    fn tick(&self, now: Moment) -> u32 {
        let ticks = u128::from(now.as_nanos()) * u128::from(self.buckets_per_nano);
        // Wraps on purpose; see the counter's word.
        (ticks >> 64) as u32
    }

    /// One more.
    #[inline]
    pub(crate) fn count(&self, counted: Counted, now: Moment) {
        let tick = self.tick(now);
        let bucket = &self.buckets[tick as usize % BUCKETS];
        let counter = &bucket[counted as usize];
        let seen = counter.load(Ordering::Relaxed);
        if tick_of(seen) == tick {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            begin(counter, seen, tick);
        }
    }

    /// What was counted since the window before `now`.
    pub(crate) fn sums(&self, now: Moment) -> Sums {
        let tick = self.tick(now);
        let sum = |counted: Counted| {
            let counters = self.buckets.iter().map(|bucket| &bucket[counted as usize]);
            let words = counters.map(|counter| counter.load(Ordering::Relaxed));
            // What others have counted after `now` is too far away as well.
            let recent = words.filter(|word| tick.wrapping_sub(tick_of(*word)) < BUCKETS as u32);
            recent.map(|word| word & COUNT).sum()
        };
        Sums {
            succeeded: sum(Counted::Succeeded),
            failed: sum(Counted::Failed),
            slow: sum(Counted::Slow),
        }
    }

    /// The time of the last bucket that was counted in.
    pub(crate) fn last_used(&self) -> u32 {
        let counters = self.buckets.iter().flatten();
        let ticks = counters.map(|counter| tick_of(counter.load(Ordering::Relaxed)));
        ticks.max().unwrap_or_default()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for counter in self.buckets.iter().flatten() {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Begins a counter anew at `tick` with one, unless somebody has done so already.
#[cold]
fn begin(counter: &AtomicU64, mut seen: u64, tick: u32) {
    loop {
        let ahead = tick_of(seen).wrapping_sub(tick);
        let next = match ahead {
            0 => seen + 1,
            // This thread has slept for the whole window, and what it has to tell belongs to none any more.
            1..=AHEAD_MAX => return,
            _ => word(tick, 1),
        };
        match counter.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_bucket_by_bucket() {
        let window = Window::new(10 * SECOND);
        for second in 0..10 {
            window.count(Counted::Failed, at(second * 1000));
            window.count(Counted::Succeeded, at(second * 1000 + 999));
        }
        for (millis, left) in [
            (9999, 10),
            (10_000, 9),
            (18_999, 1),
            (19_000, 0),
            (60_000, 0),
        ] {
            let sums = window.sums(at(millis));
            assert_eq!((sums.failed, sums.succeeded), (left, left), "{millis}");
        }
        window.count(Counted::Slow, at(60_000));
        let expected = Sums {
            slow: 1,
            ..Sums::default()
        };
        assert_eq!(window.sums(at(60_000)), expected);
        window.clear();
        assert_eq!(window.sums(at(60_000)), Sums::default());
    }

    #[test]
    fn who_slept_for_the_whole_window_wipes_nothing_out() {
        let window = Window::new(10 * SECOND);
        window.count(Counted::Failed, at(13_000));
        window.count(Counted::Failed, at(3000));
        assert_eq!(window.sums(at(13_000)).failed, 1);
    }

    #[test]
    fn it_counts_however_long_nobody_has() {
        const HALF: u64 = 1 << 31;
        // One bucket a millisecond: one that was never counted in, and one that was so long ago.
        let window = Window::new(10_000_000);
        for (millis, sum) in [(7, 2), (HALF + 7, 2), (HALF + 9, 4)] {
            for _ in 0..2 {
                window.count(Counted::Failed, at(millis));
            }
            assert_eq!(window.sums(at(millis)).failed, sum, "{millis}");
        }
    }

    proptest! {
        /// The window against a list of everything with its time.
        #[test]
        fn the_sums_are_those_of_the_last_ten_buckets(
            length in 10_u64..100_000,
            steps in prop::collection::vec((0_u64..30_000, 0_usize..3), 1..200),
        ) {
            let window = Window::new(length * 1_000_000);
            let mut all: VecDeque<(u64, usize)> = VecDeque::new();
            let mut now = 0;
            for (later, what) in steps {
                now += later;
                let counted = [Counted::Succeeded, Counted::Failed, Counted::Slow][what];
                window.count(counted, at(now));
                all.push_back((now, what));
                let bucket = |millis: u64| u128::from(millis) * 10 / u128::from(length);
                let recent = |kind: usize| {
                    let recent = all.iter().filter(|(when, what)| {
                        *what == kind && bucket(now) - bucket(*when) < 10
                    });
                    recent.count() as u64
                };
                let expected = Sums { succeeded: recent(0), failed: recent(1), slow: recent(2) };
                prop_assert_eq!(window.sums(at(now)), expected);
            }
        }
    }
}
