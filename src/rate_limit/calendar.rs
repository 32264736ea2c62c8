//! When the calendar's hours, days and months end, on the clock that the buckets are kept by.
//!
//! Buckets count in ticks that never jump; the calendar goes by the time of day, which is corrected now and
//! then. The end of a window is therefore worked out once, when the window begins, and then stands, because
//! a count is kept as ticks behind it. Once a minute it is held against the time of day, and moved if the two
//! have come apart by more than two minutes, as after a laptop's sleep or a first correction after booting: that
//! begins the window anew.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Clock;
#[cfg(feature = "redis")]
use crate::rate_limit::gcra::Limit;
use crate::rate_limit::period::Period;
use crate::sync::{AtomicU64, Ordering};

const SECOND: u64 = 1_000_000;

/// How often the time of day is asked, in ticks.
const CHECK_EVERY: u64 = 60 * SECOND;

/// How far the two clocks may come apart unnoticed, in ticks.
const TOLERANCE: u64 = 120 * SECOND;

/// The windows that are open.
#[derive(Debug)]
pub(crate) struct Calendar {
    hour: Window,
    day: Window,
    month: Window,
}

#[derive(Debug)]
struct Window {
    period: Period,
    /// When it ends, in ticks; 0 before it was first asked for.
    end: AtomicU64,
    check_at: AtomicU64,
}

impl Calendar {
    pub(crate) fn new() -> Self {
        Self {
            hour: Window::new(Period::Hour),
            day: Window::new(Period::Day),
            month: Window::new(Period::Month),
        }
    }

    /// The end of the window that is open, in ticks. It lies ahead of `now`, and is the same for everybody
    /// until it has passed.
    pub(crate) fn end(&self, period: Period, now: u64, clock: &Clock) -> u64 {
        let window = match period {
            Period::Hour => &self.hour,
            Period::Day => &self.day,
            Period::Month => &self.month,
        };
        let end = window.end.load(Ordering::Relaxed);
        if now < end && now < window.check_at.load(Ordering::Relaxed) {
            return end;
        }
        window.turn(end, now, clock)
    }

    /// The same end as a time of day, in seconds since 1970, given the limit of a bucket of that window.
    #[cfg(feature = "redis")]
    pub(crate) fn end_by_day(period: Period, limit: Limit, clock: &Clock) -> u64 {
        let wall = clock.wall().duration_since(UNIX_EPOCH);
        let ends_in = Duration::from_micros(limit.ends_in());
        let end = wall.unwrap_or_default().saturating_add(ends_in).as_secs();
        // The two clocks are a little apart: the end is the calendar's that lies next to it.
        period.end(end.saturating_sub(2 * TOLERANCE / SECOND))
    }
}

impl Window {
    fn new(period: Period) -> Self {
        Self {
            period,
            end: AtomicU64::new(0),
            check_at: AtomicU64::new(0),
        }
    }

    #[cold]
    fn turn(&self, end: u64, now: u64, clock: &Clock) -> u64 {
        self.check_at
            .store(now.saturating_add(CHECK_EVERY), Ordering::Relaxed);
        let by_day = self.by_time_of_day(end, now, clock);
        if now < end && by_day.abs_diff(end) <= TOLERANCE {
            return end;
        }
        // Whoever comes first says where the new one ends.
        let swapped = self
            .end
            .compare_exchange(end, by_day, Ordering::Relaxed, Ordering::Relaxed);
        swapped.map_or_else(|theirs| theirs.max(now + 1), |_| by_day)
    }

    /// Where the window ends by the time of day, in ticks.
    fn by_time_of_day(&self, end: u64, now: u64, clock: &Clock) -> u64 {
        let wall = clock.wall().duration_since(UNIX_EPOCH);
        let wall = wall.unwrap_or(Duration::ZERO);
        // One that has just ended must not begin again for the moment that the time of day lags behind.
        let over = end > 0 && now >= end && now - end <= TOLERANCE;
        let seen = wall.as_secs() + if over { TOLERANCE / SECOND } else { 0 };
        let ends = Duration::from_secs(self.period.end(seen));
        let left = ends.saturating_sub(wall).as_micros();
        now.saturating_add(u64::try_from(left).unwrap_or(u64::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600 * SECOND;

    fn ticks(clock: &Clock) -> u64 {
        clock.now().as_nanos() / 1000
    }

    #[test]
    fn a_window_ends_with_the_calendars_and_the_next_one_follows() {
        // A manual clock begins at midnight.
        let (clock, hand) = Clock::manual();
        let calendar = Calendar::new();
        let end = |period| calendar.end(period, ticks(&clock), &clock);
        hand.advance(Duration::from_secs(900));
        assert_eq!(end(Period::Hour), HOUR);
        assert_eq!(end(Period::Day), 24 * HOUR);
        assert_eq!(end(Period::Month), 31 * 24 * HOUR);
        hand.advance(Duration::from_secs(2700));
        assert_eq!(end(Period::Hour), 2 * HOUR, "now is the end of the first");
        hand.advance(Duration::from_secs(40 * 24 * 3600));
        assert_eq!(end(Period::Month), (31 + 28) * 24 * HOUR);
    }

    /// The same through a time of day that is ten seconds behind.
    #[test]
    fn a_window_that_ended_does_not_begin_again_on_a_clock_that_lags() {
        let (clock, hand) = Clock::manual();
        let window = Window::new(Period::Hour);
        hand.advance(Duration::from_secs(3590));
        let now = 3600 * SECOND;
        let next = window.turn(now, now, &clock);
        // At 00:59:50 by day, the coming hour ends at 02:00:00.
        assert_eq!(window.by_time_of_day(now, now, &clock), now + 3610 * SECOND);
        assert!(next > now);
    }

    #[test]
    fn a_time_of_day_that_jumps_moves_the_window() {
        let (clock, hand) = Clock::manual();
        let window = Window::new(Period::Day);
        // The window was worked out by a clock that stood ten hours behind.
        window.end.store(34 * HOUR, Ordering::Relaxed);
        hand.advance(Duration::from_secs(60));
        assert_eq!(window.turn(34 * HOUR, 60 * SECOND, &clock), 24 * HOUR);
        // A small correction does not.
        window.end.store(24 * HOUR + SECOND, Ordering::Relaxed);
        let kept = window.turn(24 * HOUR + SECOND, 120 * SECOND, &clock);
        assert_eq!(kept, 24 * HOUR + SECOND);
    }
}
