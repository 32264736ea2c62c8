//! The calendar's windows.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::orders::{at_once, orders_with};
use crate::rate_limit::calendar::Calendar;
use crate::rate_limit::period::Period;

const SECOND: u64 = 1_000_000;

/// The end of the hour, as one sees it by whose clocks so much time has gone by, and whose time of day is so
/// much behind: the two are never read at the same moment.
fn end(calendar: &Calendar, ticks: u64, lag: u64) -> u64 {
    let clock = Clock {
        time_of_day: Duration::from_micros(ticks - lag),
        ..Clock::default()
    };
    calendar.end(Period::Hour, ticks, &clock)
}

pub(crate) fn a_window_ends_for_everybody_at_once() {
    orders_with(3, || {
        let calendar = Arc::new(Calendar::new());
        assert_eq!(end(&calendar, SECOND, 0), 3600 * SECOND);
        let deeds: [fn(&Calendar) -> u64; 3] = [
            |calendar| end(calendar, 3600 * SECOND + 5, 3),
            |calendar| end(calendar, 3600 * SECOND + 9, 70),
            |calendar| end(calendar, 3600 * SECOND, 0),
        ];
        let ends = at_once(&calendar, deeds);
        assert!(ends[0] >= 7200 * SECOND);
        assert_eq!(ends, [ends[0]; 3]);
        assert_eq!(end(&calendar, 3601 * SECOND, 0), ends[0]);
    });
}
