//! When something is made anew: every so often, or at the times that cron names.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::error::ConfigError;
use crate::warming::cron::Cron;

/// Times at which something happens, in UTC. Cheap to clone, and knows no clock.
///
/// An interval is counted from 1970-01-01T00:00Z, not from the start of the process: all instances come at the
/// same times, also after a restart, and one of 24 h comes at midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    times: Times,
    /// By how many seconds each time is put off at most.
    jitter: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    /// All multiples of so many seconds.
    Every(u64),
    Cron(Cron),
}

impl Schedule {
    /// Every `interval`, in whole seconds: 1 s to 366 days.
    ///
    /// # Errors
    ///
    /// When it is shorter or longer, or not whole.
    pub fn every(interval: Duration) -> Result<Self, ConfigError> {
        let seconds = interval.as_secs();
        if interval.subsec_nanos() != 0 || !(1..=INTERVAL_MAX).contains(&seconds) {
            let value = format!("{interval:?}");
            return Err(ConfigError::one(
                "schedule",
                value,
                "must be 1 s to 366 days in whole seconds",
            ));
        }
        Ok(Self::of(Times::Every(seconds)))
    }

    /// At the times that cron's five fields name: minute, hour, day of the month, month, day of the week.
    ///
    /// Fields are `*`, numbers, ranges (`9-17`), steps (`*/15`, `8-18/2`), lists of these with commas, and names
    /// of months and days (`jan`, `mon-fri`). Sunday is 0 and 7. Where both the day of the month and the day of
    /// the week are given and neither begins with a star, one of them is enough, as in cron. Or one of
    /// `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, names a day that never comes, or has more than 256 bytes.
    pub fn cron(text: &str) -> Result<Self, ConfigError> {
        if text.len() > TEXT_MAX {
            let value = format!("{} bytes", text.len());
            return Err(ConfigError::one(
                "schedule",
                value,
                "must have at most 256 bytes",
            ));
        }
        let cron = Cron::parse(text);
        let cron = cron.map_err(|allowed| ConfigError::one("schedule", text, allowed))?;
        Ok(Self::of(Times::Cron(cron)))
    }

    /// Puts each time off by up to so much, in whole seconds, lest all come at once: at most half of the
    /// interval, or an hour for one of cron. More counts as that.
    #[must_use]
    pub fn jitter(self, jitter: Duration) -> Self {
        let most = match self.times {
            Times::Every(seconds) => seconds / 2,
            Times::Cron(_) => 3_600,
        };
        let jitter = jitter.as_secs().min(most);
        Self { jitter, ..self }
    }

    /// The first time after `after`; both are seconds since 1970-01-01T00:00Z. With the same `seed` the same
    /// times are put off by as much, whenever they are asked for. Let each instance and each schedule have one
    /// of its own.
    ///
    /// `None` behind the year 9999. Takes microseconds; one in a million schedules, such as a 29 February on a
    /// Sunday, a millisecond.
    #[must_use]
    pub fn next_after(&self, after: u64, seed: u64) -> Option<u64> {
        // Whatever came earlier than this is over, however long it was put off.
        let mut time = after.saturating_sub(self.jitter);
        let mut first: Option<u64> = None;
        loop {
            // One that is near may be put off behind one that comes later.
            time = match self.times.next_after(time) {
                Some(next) if first.is_none_or(|first| next < first) => next,
                _ => return first,
            };
            let put_off = time.saturating_add(self.put_off(time, seed));
            if put_off > after {
                first = Some(first.map_or(put_off, |first| first.min(put_off)));
            }
        }
    }

    const fn of(times: Times) -> Self {
        let jitter = 0;
        Self { times, jitter }
    }

    fn put_off(&self, time: u64, seed: u64) -> u64 {
        FixedState::with_seed(seed).hash_one(time) % (self.jitter + 1)
    }
}

impl Times {
    fn next_after(&self, after: u64) -> Option<u64> {
        match self {
            Self::Every(seconds) => (after / seconds + 1).checked_mul(*seconds),
            Self::Cron(cron) => cron.next_after(after),
        }
    }
}

/// 366 days, in seconds.
const INTERVAL_MAX: u64 = 366 * 86_400;

/// How long the text of a schedule may be, in bytes.
const TEXT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_interval_comes_at_its_multiples_whoever_asks() {
        let schedule = Schedule::every(seconds(300)).unwrap();
        for (after, next) in [
            (0, 300),
            (299, 300),
            (300, 600),
            (1_767_355_201, 1_767_355_500),
        ] {
            assert_eq!(schedule.next_after(after, after), Some(next));
        }
        assert_eq!(schedule.next_after(u64::MAX, 0), None);
    }

    #[test]
    fn what_is_no_schedule_is_named_with_its_value() {
        for (interval, value) in [
            (Duration::ZERO, "0ns"),
            (Duration::from_millis(1_500), "1.5s"),
            (seconds(INTERVAL_MAX + 1), "31622401s"),
        ] {
            let error = Schedule::every(interval).unwrap_err();
            let fault = &error.faults()[0];
            assert_eq!((&*fault.field, &*fault.value), ("schedule", value));
        }
        let error = Schedule::cron("* 25 * * *").unwrap_err();
        let fault = &error.faults()[0];
        assert_eq!((&*fault.field, &*fault.value), ("schedule", "* 25 * * *"));
        assert!(fault.allowed.starts_with("`25` is no hour: must be"));
        let error = Schedule::cron(&"0,".repeat(1_000_000)).unwrap_err();
        assert_eq!(error.faults()[0].value, "2000000 bytes");
    }

    #[test]
    fn no_more_jitter_than_makes_sense_is_taken() {
        let every = Schedule::every(seconds(60)).unwrap().jitter(Duration::MAX);
        let cron = Schedule::cron("@daily").unwrap().jitter(Duration::MAX);
        assert_eq!((every.jitter, cron.jitter), (30, 3_600));
        let one = Schedule::every(seconds(1)).unwrap().jitter(seconds(1));
        assert_eq!(one.next_after(7, 3), Some(8));
    }

    #[test]
    fn instances_come_at_different_times_within_the_jitter() {
        let schedule = Schedule::cron("@hourly").unwrap().jitter(seconds(600));
        let times = (0..1_000).map(|seed| schedule.next_after(3_600 * 100, seed).unwrap());
        let times: Vec<u64> = times.collect();
        // The last hour's may still be to come: it was put off.
        assert!(times.iter().all(|time| (360_001..=364_200).contains(time)));
        let late = times.iter().filter(|time| **time > 360_300).count();
        assert!((300..700).contains(&late), "{late} of 1000");
    }

    proptest! {
        /// Once each, whatever the jitter: following the schedule from time to time passes every time there is.
        #[test]
        fn no_time_is_missed_and_none_comes_twice(
            interval in 1_u64..200, jitter in 0_u64..100, begin in 0_u64..100_000, seed: u64, cron: bool,
        ) {
            let schedule = match cron {
                // Times that are put off past each other.
                true => Schedule::cron("*/2 * * * *").unwrap().jitter(seconds(jitter * 20)),
                false => Schedule::every(seconds(interval)).unwrap().jitter(seconds(jitter)),
            };
            let end = begin + 5_000;
            let mut expected: Vec<u64> = Vec::new();
            let mut time = 0;
            while time <= end {
                time = schedule.times.next_after(time).unwrap();
                expected.push(time + schedule.put_off(time, seed));
            }
            expected.retain(|time| *time > begin && *time <= end);
            expected.sort_unstable();
            expected.dedup();
            let next = |time: &u64| schedule.next_after(*time, seed);
            let times = std::iter::successors(next(&begin), next);
            let times: Vec<u64> = times.take_while(|time| *time <= end).collect();
            prop_assert_eq!(times, expected);
        }
    }
}
