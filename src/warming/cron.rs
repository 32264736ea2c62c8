//! Times as cron names them: five fields, in UTC.
//!
//! Written here because the crates that do it bring seconds, years, time zones and a library of dates along,
//! and none of that is wanted: in UTC every day has 1,440 minutes.

/// Minutes of the days on which something happens. Each set has a bit for each number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// From Sunday, 0, to Saturday.
    weekdays: u64,
    /// Whether a day of the month or one of the week is enough. As cron(8) has it: unless one of the two
    /// fields begins with a star.
    either: bool,
}

/// The five fields in their order.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Where a star ends: Sunday has two numbers, of which it means one.
    star_most: u32,
    /// Names of the numbers from the least on.
    names: &'static [&'static str],
}

impl Cron {
    /// Reads five fields, or one of the names for them: `@hourly`, ..
    ///
    /// # Errors
    ///
    /// Says in words what would have been right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            name if name.starts_with('@') => return Err(NAMES.to_owned()),
            fields => fields,
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().take(6).collect();
        let [minute, hour, day, month, weekday] = *fields else {
            return Err(FIVE.to_owned());
        };
        let weekdays = WEEKDAY.parse(weekday)?;
        let cron = Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            // Both 0 and 7 are Sunday.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        if cron.either || cron.has_a_day() {
            Ok(cron)
        } else {
            Err("none of these months has such a day".to_owned())
        }
    }

    /// The first time after `after`, both in seconds since 1970. `None` behind the year 9999, and where there
    /// is none for 41 years, which is only if all calendars are wrong.
    pub(crate) fn next_after(&self, after: u64) -> Option<u64> {
        if after > LAST_SECOND {
            return None;
        }
        let minute = after / 60 + 1;
        let (today, from) = (minute / DAY_MINUTES, minute % DAY_MINUTES);
        let days = (today..=today + DAYS_SEARCHED).filter(|day| self.is_on(*day));
        let mut times = days.filter_map(|day| {
            let from = if day == today { from } else { 0 };
            let minute = (from..DAY_MINUTES).find(|minute| self.is_at(*minute))?;
            Some((day * DAY_MINUTES + minute) * 60)
        });
        times.next()
    }

    /// Whether it happens in a minute of the day.
    const fn is_at(&self, minute: u64) -> bool {
        has(self.hours, minute / 60) && has(self.minutes, minute % 60)
    }

    /// Whether it happens on a day, counted from 1970-01-01, a Thursday.
    fn is_on(&self, day: u64) -> bool {
        let (month, day_of_month) = date(day);
        let (by_month, by_week) = (
            has(self.days, day_of_month),
            has(self.weekdays, (day + 4) % 7),
        );
        let fits = if self.either {
            by_month || by_week
        } else {
            by_month && by_week
        };
        fits && has(self.months, month)
    }

    /// Whether one of the months ever has one of the days.
    fn has_a_day(&self) -> bool {
        let months = (1..).zip(LONGEST_MONTHS);
        let mut fitting = months.filter(|(month, _)| has(self.months, *month));
        fitting.any(|(_, length)| (1..=length).any(|day| has(self.days, day)))
    }
}

impl Field {
    /// A set of numbers: ranges with steps, parted by commas.
    fn parse(&self, text: &str) -> Result<u64, String> {
        let parts = text.split(',').map(|part| self.part(part));
        parts.into_iter().try_fold(0, |set, part| Ok(set | part?))
    }

    /// `*`, `7`, `mon`, `1-5`, `*/15` or `8-18/2`.
    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).ok_or_else(|| self.fault(part))?)),
            None => (part, None),
        };
        let (from, to) = if range == "*" {
            (self.least, self.star_most)
        } else if let Some((from, to)) = range.split_once('-') {
            (self.value(from)?, self.value(to)?)
        } else if step.is_some() {
            // What comes after the number is read differently everywhere.
            return Err(self.fault(part));
        } else {
            let value = self.value(range)?;
            (value, value)
        };
        let step = step.unwrap_or(1);
        if from > to || step == 0 {
            return Err(self.fault(part));
        }
        let numbers = (from..=to).filter(|number| (number - from).is_multiple_of(step));
        Ok(numbers.fold(0, |set, number| set | 1 << number))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = |name: &&str| name.eq_ignore_ascii_case(text);
        let by_name = (self.least..).zip(self.names);
        let by_name = by_name.into_iter().find(|(_, name)| named(name));
        let value = by_name.map(|(value, _)| value).or_else(|| number(text));
        let value = value.filter(|value| (self.least..=self.most).contains(value));
        value.ok_or_else(|| self.fault(text))
    }

    fn fault(&self, part: &str) -> String {
        let Self {
            name, least, most, ..
        } = self;
        let names = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        format!(
            "`{part}` is no {name}: must be *, numbers {least} to {most}{names}, ranges upwards, */2, 1-9/2, \
             or several of these parted by commas"
        )
    }
}

/// One or two digits.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

const fn has(set: u64, number: u64) -> bool {
    set >> number & 1 == 1
}

/// Month and day of the month of a day counted from 1970-01-01, in the Gregorian calendar. A year that begins
/// in March has its leap day last; see Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
const fn date(day: u64) -> (u64, u64) {
    let day = (day + 719_468) % 146_097; // from 0000-03-01, in a span of 400 years
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100); // from the first of March
    let month = (5 * day + 2) / 153; // from March
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day_of_month)
}

const fn field(name: &'static str, least: u32, most: u32) -> Field {
    Field {
        name,
        least,
        most,
        star_most: most,
        names: &[],
    }
}

const MINUTE: Field = field("minute", 0, 59);
const HOUR: Field = field("hour", 0, 23);
const DAY: Field = field("day of the month", 1, 31);
const MONTH: Field = Field {
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
    ..field("month", 1, 12)
};
const WEEKDAY: Field = Field {
    star_most: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ..field("day of the week", 0, 7)
};

const FIVE: &str = "must be five fields: minute, hour, day of the month, month, day of the week";
const NAMES: &str = "must be @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually";

const DAY_MINUTES: u64 = 1_440;

/// A 29 February on one day of the week comes every 28 years, or 40 where a leap year is left out.
const DAYS_SEARCHED: u64 = 41 * 366;

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

const LONGEST_MONTHS: [u64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::{Duration, UNIX_EPOCH};

    fn next(text: &str, after: &str) -> String {
        let after = httpdate::parse_http_date(after).unwrap();
        let after = after.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let next = Cron::parse(text).unwrap().next_after(after).unwrap();
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(next))
    }

    #[test]
    fn the_next_time_is_the_one_on_the_calendar() {
        let noon = "Fri, 02 Jan 2026 12:00:00 GMT";
        for (text, expected) in [
            ("* * * * *", "Fri, 02 Jan 2026 12:01:00 GMT"),
            ("0 12 * * *", "Sat, 03 Jan 2026 12:00:00 GMT"),
            ("*/20 9-17 * * 1-5", "Fri, 02 Jan 2026 12:20:00 GMT"),
            ("30 2 * * Mon-FRI", "Mon, 05 Jan 2026 02:30:00 GMT"),
            ("@hourly", "Fri, 02 Jan 2026 13:00:00 GMT"),
            ("@midnight", "Sat, 03 Jan 2026 00:00:00 GMT"),
            ("@weekly", "Sun, 04 Jan 2026 00:00:00 GMT"),
            ("@monthly", "Sun, 01 Feb 2026 00:00:00 GMT"),
            ("@annually", "Fri, 01 Jan 2027 00:00:00 GMT"),
            ("0 0 29 2 *", "Tue, 29 Feb 2028 00:00:00 GMT"),
            ("0 0 31 * *", "Sat, 31 Jan 2026 00:00:00 GMT"),
            ("0 0 31 feb,apr,dec *", "Thu, 31 Dec 2026 00:00:00 GMT"),
            // Both numbers of Sunday, also at the end of a range.
            ("0 0 * * 7", "Sun, 04 Jan 2026 00:00:00 GMT"),
            ("0 0 * * 6-7", "Sat, 03 Jan 2026 00:00:00 GMT"),
            // One of the two is enough, unless one is a star.
            ("0 0 13 * fri", "Fri, 09 Jan 2026 00:00:00 GMT"),
            ("0 0 8 * fri", "Thu, 08 Jan 2026 00:00:00 GMT"),
            ("0 0 */2 * mon", "Mon, 05 Jan 2026 00:00:00 GMT"),
            ("0 0 30 2 mon", "Mon, 02 Feb 2026 00:00:00 GMT"),
            ("1,31 5-7/2,23 * * *", "Fri, 02 Jan 2026 23:01:00 GMT"),
        ] {
            assert_eq!(next(text, noon), expected, "{text}");
        }
        // 2100 is no leap year: Sundays on a 29 February are forty years apart there.
        let leap = "Sun, 29 Feb 2088 00:00:00 GMT";
        let freak = next("0 0 29 2 */7", leap);
        assert_eq!(freak, "Sun, 29 Feb 2128 00:00:00 GMT");
    }

    #[test]
    fn what_cron_would_not_read_is_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("", "five fields"),
            ("* * * *", "five fields"),
            ("0 * * * * *", "five fields"),
            ("@reboot", "@hourly"),
            ("60 * * * *", "`60` is no minute"),
            ("* 24 * * *", "`24` is no hour"),
            ("* * 0 * *", "`0` is no day of the month"),
            ("* * * 13 *", "`13` is no month"),
            ("* * * * 8", "`8` is no day of the week"),
            ("* * * mon *", "`mon` is no month"),
            ("* * * january *", "`january` is no month"),
            ("5/10 * * * *", "`5/10` is no minute"),
            ("*/0 * * * *", "`*/0` is no minute"),
            ("*/ * * * *", "`*/` is no minute"),
            ("*/-1 * * * *", "`*/-1` is no minute"),
            ("+5 * * * *", "`+5` is no minute"),
            ("1-2-3 * * * *", "`2-3` is no minute"),
            ("5-1 * * * *", "`5-1` is no minute"),
            ("1,,2 * * * *", "`` is no minute"),
            ("* * * * fri-mon", "`fri-mon` is no day of the week"),
            ("٣ * * * *", "is no minute"),
            ("99999999999999999999 * * * *", "is no minute"),
            ("0 0 30 feb *", "none of these months"),
            ("0 0 31 4,6,9,11 *", "none of these months"),
        ] {
            let error = Cron::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar_for_eight_hundred_years() {
        let of = |year: u64, years| year.is_multiple_of(years);
        let leap = |year| of(year, 4) && (!of(year, 100) || of(year, 400));
        let mut day = 0;
        for year in 1970..2770 {
            for (month, longest) in (1..).zip(LONGEST_MONTHS) {
                let short = month == 2 && !leap(year);
                for of_month in 1..=longest - u64::from(short) {
                    assert_eq!(date(day), (month, of_month), "{year}");
                    day += 1;
                }
            }
        }
    }

    #[test]
    fn behind_the_year_9999_there_is_nothing() {
        let cron = Cron::parse("@yearly").unwrap();
        assert!(cron.next_after(LAST_SECOND).is_some());
        assert_eq!(cron.next_after(LAST_SECOND + 1), None);
        assert_eq!(cron.next_after(u64::MAX), None);
    }

    /// A field as a text, and the numbers it stands for, put together here and not read.
    fn any_field(least: u32, most: u32) -> impl Strategy<Value = (String, BTreeSet<u32>)> {
        let range = (least..=most, least..=most, 1_u32..10).prop_map(move |(one, other, step)| {
            let (from, to) = (one.min(other), one.max(other));
            let mut set = BTreeSet::new();
            let mut number = from;
            while number <= to {
                set.insert(number);
                number += step;
            }
            (format!("{from}-{to}/{step}"), set)
        });
        let one =
            (least..=most).prop_map(|number| (number.to_string(), BTreeSet::from_iter([number])));
        let star = Just(("*".to_owned(), (least..=most).collect()));
        let listed = proptest::collection::vec(prop_oneof![one, range], 1..4).prop_map(|parts| {
            let texts: Vec<String> = parts.iter().map(|(text, _)| text.clone()).collect();
            let set = parts.into_iter().flat_map(|(_, set)| set).collect();
            (texts.join(","), set)
        });
        prop_oneof![star, listed]
    }

    proptest! {
        #[test]
        fn the_next_time_fits_and_none_in_between_does(
            minute in any_field(0, 59), hour in any_field(0, 23), day in any_field(1, 31),
            month in any_field(1, 12), weekday in any_field(0, 6), after in 0_u64..8_000_000_000,
        ) {
            let text = format!("{} {} {} {} {}", minute.0, hour.0, day.0, month.0, weekday.0);
            let Ok(cron) = Cron::parse(&text) else {
                prop_assert!(weekday.0 == "*" && day.1.iter().all(|day| *day > 28), "{}", text);
                return Ok(());
            };
            let fits_day = |days: u64| {
                let (in_month, of_month) = date(days);
                let by_month = day.1.contains(&(of_month as u32));
                let by_week = weekday.1.contains(&(((days + 4) % 7) as u32));
                let of_day = match (day.0.as_str(), weekday.0.as_str()) {
                    ("*", _) => by_week,
                    (_, "*") => by_month,
                    _ => by_month || by_week,
                };
                of_day && month.1.contains(&(in_month as u32))
            };
            let fits_minute = |time: u64| {
                fits_day(time / 1_440) && hour.1.contains(&((time / 60 % 24) as u32))
                    && minute.1.contains(&((time % 60) as u32))
            };
            let next = cron.next_after(after).unwrap();
            prop_assert!(next > after && next.is_multiple_of(60), "{}", text);
            prop_assert!(fits_minute(next / 60), "{} {} {}", text, after, next);
            // Day by day; and minute by minute on the first and the last of them.
            let (first, last) = (after / 60 + 1, next / 60);
            let mut days = first / 1_440 + 1..last / 1_440;
            prop_assert!(!days.any(fits_day), "{} {} {}", text, after, next);
            let ends = (first..last.min(first + 1_440)).chain(first.max(last / 1_440 * 1_440)..last);
            prop_assert!(!ends.into_iter().any(fits_minute), "{} {} {}", text, after, next);
        }
    }
}
