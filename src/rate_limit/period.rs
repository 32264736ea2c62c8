//! Hours, days and months of the calendar, in UTC.

use serde::{Deserialize, Serialize};

/// A part of the calendar, after whose end a quota is whole again. In UTC, for everybody alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Period {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

impl Period {
    /// The end of the part that holds a moment; both in seconds since 1970, UTC.
    pub(crate) const fn end(self, at: u64) -> u64 {
        match self {
            Self::Hour => (at / HOUR + 1) * HOUR,
            Self::Day => (at / DAY + 1) * DAY,
            Self::Month => {
                let days = at / DAY;
                (days + days_to_first(days)) * DAY
            }
        }
    }

    /// How long it lasts in seconds; a month as the 30 days that most people mean by one.
    pub(crate) const fn nominal(self) -> u64 {
        match self {
            Self::Hour => HOUR,
            Self::Day => DAY,
            Self::Month => 30 * DAY,
        }
    }
}

/// Days from this one (counted from 1970-01-01) to the first of the next month.
///
/// Counted in eras of 400 Gregorian years that begin on the first of March, so that the leap day is the last
/// day of a year and the lengths of months follow one formula, `(153 m + 2) / 5`.
const fn days_to_first(days: u64) -> u64 {
    let shifted = days + 719_468;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    // February ends where the year from March to March does.
    let next = if month == 11 {
        let next = year + 1;
        let leap =
            next.is_multiple_of(4) && (!next.is_multiple_of(100) || next.is_multiple_of(400));
        365 + leap as u64
    } else {
        (153 * (month + 1) + 2) / 5
    };
    next - of_year
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn text(secs: u64) -> String {
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
    }

    #[test]
    fn a_period_ends_where_the_next_one_begins() {
        for (period, at, end) in [
            (Period::Hour, 0, "Thu, 01 Jan 1970 01:00:00 GMT"),
            (Period::Hour, 3599, "Thu, 01 Jan 1970 01:00:00 GMT"),
            (Period::Day, 3600, "Fri, 02 Jan 1970 00:00:00 GMT"),
            (Period::Month, 0, "Sun, 01 Feb 1970 00:00:00 GMT"),
            // 2024-02-29, 2026-12-31, 2100-02-28, 2000-02-29.
            (
                Period::Month,
                1_709_164_800,
                "Fri, 01 Mar 2024 00:00:00 GMT",
            ),
            (
                Period::Month,
                1_798_675_200,
                "Fri, 01 Jan 2027 00:00:00 GMT",
            ),
            (
                Period::Month,
                4_107_456_000,
                "Mon, 01 Mar 2100 00:00:00 GMT",
            ),
            (Period::Month, 951_782_400, "Wed, 01 Mar 2000 00:00:00 GMT"),
        ] {
            assert_eq!(text(period.end(at)), end, "{period:?} at {}", text(at));
        }
    }

    #[test]
    fn months_follow_each_other_for_three_centuries() {
        let mut begin = 0;
        while begin < 300 * 366 * DAY {
            let end = Period::Month.end(begin);
            assert!(text(end).starts_with(|c: char| c.is_alphabetic()));
            assert_eq!(&text(end)[5..7], "01", "{}", text(end));
            assert!(
                (28..=31).contains(&((end - begin) / DAY)),
                "{}",
                text(begin)
            );
            assert_eq!(Period::Month.end(end - 1), end);
            begin = end;
        }
    }
}
