//! How many requests in how much time.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::rate_limit::gcra::Limit;
use crate::rate_limit::slot::FILL_MAX;

/// The longest window: 31 days.
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// A number of requests per time, and how many of them may come at once.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::rate_limit::Quota;
///
/// // 100 a minute in the long run, and up to 20 at once after a pause.
/// let quota = Quota::requests(100).per(Duration::from_secs(60)).burst(20);
/// # let _ = quota;
/// ```
///
/// Requests grow back one by one, here every 0.6 s, not all at the end of a window. `burst` is the
/// number that may come at once and no addition to `requests`; unless given it is the same number.
/// Whatever moment one begins to count at, no more than `burst` plus what has grown back since
/// passes: over one window at most `burst + requests`.
///
/// In files: `{"requests": 100, "per_ms": 60000, "burst": 20}`. Intervals are kept in whole
/// microseconds, rounded up, so that a quota is never exceeded by rounding; a rate that would come
/// out more than 5 % slower for it (700,000 a second) is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    pub(crate) requests: u32,
    #[serde(rename = "per_ms", with = "crate::config_time::millis")]
    pub(crate) per: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
}

/// A number of requests that still lacks its time; see [`Quota::requests`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Requests {
    count: u32,
}

impl Requests {
    /// That many in this time: 1 µs to 31 days.
    #[must_use]
    pub const fn per(self, window: Duration) -> Quota {
        Quota {
            requests: self.count,
            per: window,
            burst: None,
        }
    }
}

/// How a configuration calls the three numbers of a quota.
pub(crate) struct QuotaFields {
    pub(crate) requests: String,
    pub(crate) per: String,
    pub(crate) burst: String,
}

impl QuotaFields {
    /// The names of a quota that stands at `path`.
    pub(crate) fn at(path: &str) -> Self {
        Self {
            requests: format!("{path}.requests"),
            per: format!("{path}.per_ms"),
            burst: format!("{path}.burst"),
        }
    }
}

impl Quota {
    /// This many requests, `.per(..)` some time.
    pub const fn requests(count: u32) -> Requests {
        Requests { count }
    }

    /// The same quota, with this many at once; at least 1.
    #[must_use]
    pub const fn burst(mut self, at_once: u32) -> Self {
        self.burst = Some(at_once);
        self
    }

    /// Notes what cannot be meant or kept: zeros, a window above 31 days, a burst that would take
    /// more than 62 days to grow back, a rate too fast to be kept in microseconds.
    pub(crate) fn check(&self, fields: QuotaFields, faults: &mut Faults) {
        let mut sound = true;
        if self.requests == 0 {
            faults.add(fields.requests.as_str(), 0, "must be 1 or more requests");
            sound = false;
        }
        if self.burst == Some(0) {
            faults.add(fields.burst.as_str(), 0, "must be 1 or more requests");
            sound = false;
        }
        let shortest = Duration::from_micros(1);
        if !(shortest..=WINDOW_MAX).contains(&self.per) {
            faults.within_time(fields.per, self.per, shortest..=WINDOW_MAX);
            sound = false;
        }
        if !sound {
            return;
        }
        let window = self.per.as_micros();
        let kept = u128::from(self.interval()) * u128::from(self.requests);
        if kept * 20 > window * 21 {
            let met = format!("{} per {:?}", self.requests, self.per);
            let allowed = "is too fast: must leave a whole number of microseconds between requests, \
                           within 5 %";
            faults.add(fields.requests, met, allowed);
        }
        if self.limit().fill() > FILL_MAX {
            let allowed = "would take more than 62 days to grow back";
            faults.add(fields.burst, self.at_once(), allowed);
        }
    }

    /// The time in which all of it comes back.
    pub(crate) const fn span(&self) -> Duration {
        self.per
    }

    /// Orders quotas by how many requests they let through in the long run, and then at once.
    pub(crate) fn cmp_size(&self, other: &Self) -> Ordering {
        let in_both = |of: &Self, span: Duration| u128::from(of.requests) * span.as_micros();
        let rates = in_both(self, other.span()).cmp(&in_both(other, self.span()));
        rates.then_with(|| self.limit().fill().cmp(&other.limit().fill()))
    }

    /// How many may come at once.
    pub(crate) const fn at_once(&self) -> u32 {
        match self.burst {
            Some(burst) => burst,
            None => self.requests,
        }
    }

    /// The quota in ticks. For one that was never checked, the nearest that can be kept.
    pub(crate) fn limit(&self) -> Limit {
        Limit::new(self.interval(), self.at_once())
    }

    /// Microseconds in which one request grows back, rounded up.
    fn interval(&self) -> u64 {
        let window = u64::try_from(self.per.min(WINDOW_MAX).as_micros()).unwrap_or(u64::MAX);
        window.div_ceil(u64::from(self.requests.max(1))).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(quota: Quota) -> Vec<String> {
        let mut faults = Faults::new();
        quota.check(QuotaFields::at("q"), &mut faults);
        faults
            .into_result()
            .err()
            .map(|error| error.faults().iter().map(|f| f.field.clone()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_kept_is_a_fault() {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        for (quota, found) in [
            (Quota::requests(100).per(second), &[][..]),
            (Quota::requests(1_000_000).per(second), &[]),
            (Quota::requests(60_000).per(second), &[]),
            (Quota::requests(u32::MAX).per(31 * day), &[]),
            (Quota::requests(1).per(31 * day).burst(2), &[]),
            (Quota::requests(0).per(second), &["q.requests"]),
            (
                Quota::requests(0).per(second).burst(0),
                &["q.requests", "q.burst"],
            ),
            (Quota::requests(1).per(Duration::ZERO), &["q.per_ms"]),
            (Quota::requests(1).per(32 * day), &["q.per_ms"]),
            (Quota::requests(1).per(Duration::MAX), &["q.per_ms"]),
            (Quota::requests(700_000).per(second), &["q.requests"]),
            (Quota::requests(2_000_000).per(second), &["q.requests"]),
            (Quota::requests(1).per(31 * day).burst(3), &["q.burst"]),
            (Quota::requests(1).per(day).burst(u32::MAX), &["q.burst"]),
        ] {
            assert_eq!(faults(quota), found, "{quota:?}");
        }
    }

    #[test]
    fn the_burst_is_the_number_at_once_and_defaults_to_the_requests() {
        let minute = Duration::from_secs(60);
        let quota = Quota::requests(100).per(minute);
        assert_eq!(quota.limit(), Limit::new(600_000, 100));
        assert_eq!(quota.burst(20).limit(), Limit::new(600_000, 20));
        // Rounded up: 7 a second are never more than 7.
        assert_eq!(
            Quota::requests(7).per(Duration::from_secs(1)).limit(),
            Limit::new(142_858, 7)
        );
    }

    #[test]
    fn a_file_says_it_in_milliseconds() {
        let text = r#"{"requests":100,"per_ms":60000,"burst":20}"#;
        let quota: Quota = serde_json::from_str(text).unwrap();
        assert_eq!(
            quota,
            Quota::requests(100).per(Duration::from_secs(60)).burst(20)
        );
        assert_eq!(serde_json::to_string(&quota).unwrap(), text);
        let plain: Quota = serde_json::from_str(r#"{"requests":5,"per_ms":1}"#).unwrap();
        assert_eq!(plain, Quota::requests(5).per(Duration::from_millis(1)));
        assert!(serde_json::from_str::<Quota>(r#"{"requests":5}"#).is_err());
        assert!(serde_json::from_str::<Quota>(r#"{"requests":-5,"per_ms":1}"#).is_err());
        assert!(serde_json::from_str::<Quota>(r#"{"requests":5,"per_s":1}"#).is_err());
    }
}
