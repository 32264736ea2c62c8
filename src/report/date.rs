//! Days of the calendar, as far as a trend needs them.

use std::fmt;
use std::time::{Duration, SystemTime};

/// A day by UTC: how many came before it since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Date(u32);

const DAY: u64 = 24 * 60 * 60;

impl Date {
    /// The day of a moment, and how much of it is left.
    pub(crate) fn of(at: SystemTime) -> (Self, Duration) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        let days = u32::try_from(since.as_secs() / DAY).unwrap_or(u32::MAX);
        let into = Duration::from_secs(since.as_secs() % DAY)
            + Duration::from_nanos(since.subsec_nanos().into());
        (Self(days), Duration::from_secs(DAY).saturating_sub(into))
    }

    /// So many days earlier.
    pub(crate) const fn before(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days))
    }

    /// Year, month and day. The years begin in March here, so that the odd day is their last, and 400 of them
    /// have 146,097 days.
    fn civil(self) -> (u32, u32, u32) {
        // 719,468 days lie between 0000-03-01 and 1970-01-01.
        let days = u64::from(self.0) + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        (year as u32, month as u32, day as u32)
    }

    /// As a key has it: `20261129`.
    #[cfg(feature = "redis")]
    pub(crate) fn compact(self) -> String {
        let (year, month, day) = self.civil();
        format!("{year:04}{month:02}{day:02}")
    }
}

/// As a person reads it: `2026-11-29`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
            (1_767_225_600, "2026-01-01"),
            (1_835_395_200, "2028-02-29"),
            (4_107_542_400, "2100-03-01"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let (day, left) = Date::of(at);
            assert_eq!(day.to_string(), date);
            assert_eq!(left.as_secs(), DAY - seconds % DAY);
        }
        let (day, _) = Date::of(SystemTime::UNIX_EPOCH + Duration::from_secs(951_868_800));
        assert_eq!(day.before(1).compact(), "20000229");
    }

    #[test]
    fn each_day_follows_the_last_for_four_hundred_years() {
        let months = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut expected = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(Date(days).civil(), expected);
            let (year, month, day) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = months[month as usize - 1] + u32::from(month == 2 && leap);
            expected = match (day < length, month < 12) {
                (true, _) => (year, month, day + 1),
                (false, true) => (year, month + 1, 1),
                (false, false) => (year + 1, 1, 1),
            };
        }
    }
}
