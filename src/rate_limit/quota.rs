//! How many requests in how much time.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::rate_limit::gcra::Limit;
use crate::rate_limit::period::Period;
use crate::rate_limit::slot::FILL_MAX;

/// The longest window: 31 days.
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// A number of requests per time, and how many of them may come at once.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::rate_limit::{Period, Quota};
///
/// // 100 a minute in the long run, and up to 20 at once after a pause.
/// let quota = Quota::requests(100).per(Duration::from_secs(60)).burst(20);
/// // A plan's 10,000 a month, which are whole again on the first, at midnight UTC.
/// let plan = Quota::requests(10_000).each(Period::Month);
/// # let _ = (quota, plan);
/// ```
///
/// **Per** some time, requests grow back one by one, here every 0.6 s, not all at the end of a window.
/// `burst` is the number that may come at once and no addition to `requests`; unless given it is the same
/// number. Whatever moment one begins to count at, no more than `burst` plus what has grown back since
/// passes: over one window at most `burst + requests`. In files: `{"requests": 100, "per_ms": 60000,
/// "burst": 20}`. Intervals are kept in whole microseconds, rounded up, so that a quota is never exceeded
/// by rounding; a rate that would come out more than 5 % slower for it (700,000 a second) is a fault.
///
/// **Each** hour, day or month of the calendar, all come back at its end and none before. In files:
/// `{"requests": 10000, "each": "month"}`. Around an end, twice the number may pass within a moment.
///
/// What a request takes is one token unless its rule says otherwise: then read *tokens* for *requests*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QuotaText", into = "QuotaText")]
pub struct Quota {
    pub(crate) requests: u32,
    pub(crate) window: Window,
}

/// In what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Rolling { per: Duration, burst: Option<u32> },
    Calendar(Period),
}

/// A quota as files have it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaText {
    requests: u32,
    #[serde(
        rename = "per_ms",
        default,
        with = "crate::config_time::millis_option",
        skip_serializing_if = "Option::is_none"
    )]
    per: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    each: Option<Period>,
}

impl TryFrom<QuotaText> for Quota {
    type Error = &'static str;

    fn try_from(text: QuotaText) -> Result<Self, Self::Error> {
        let window = match (text.per, text.each, text.burst) {
            (Some(per), None, burst) => Window::Rolling { per, burst },
            (None, Some(period), None) => Window::Calendar(period),
            (None, Some(_), Some(_)) => return Err("`burst` goes with `per_ms`, not with `each`"),
            _ => return Err("a quota has either `per_ms` or `each`"),
        };
        let requests = text.requests;
        Ok(Self { requests, window })
    }
}

impl From<Quota> for QuotaText {
    fn from(quota: Quota) -> Self {
        let (per, burst, each) = match quota.window {
            Window::Rolling { per, burst } => (Some(per), burst, None),
            Window::Calendar(period) => (None, None, Some(period)),
        };
        Self {
            requests: quota.requests,
            per,
            burst,
            each,
        }
    }
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
            window: Window::Rolling {
                per: window,
                burst: None,
            },
        }
    }

    /// That many in each such part of the calendar, in UTC.
    #[must_use]
    pub const fn each(self, period: Period) -> Quota {
        Quota {
            requests: self.count,
            window: Window::Calendar(period),
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
    /// This many requests, `.per(..)` some time or `.each(..)` part of the calendar.
    pub const fn requests(count: u32) -> Requests {
        Requests { count }
    }

    /// The same quota, with this many at once; at least 1. Means nothing for one by the calendar, all of
    /// which may come at once.
    #[must_use]
    pub const fn burst(mut self, at_once: u32) -> Self {
        if let Window::Rolling { burst, .. } = &mut self.window {
            *burst = Some(at_once);
        }
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
        let Window::Rolling { per, burst } = self.window else {
            return;
        };
        if burst == Some(0) {
            faults.add(fields.burst.as_str(), 0, "must be 1 or more requests");
            sound = false;
        }
        let shortest = Duration::from_micros(1);
        if !(shortest..=WINDOW_MAX).contains(&per) {
            faults.within_time(fields.per, per, shortest..=WINDOW_MAX);
            sound = false;
        }
        if !sound {
            return;
        }
        let kept = u128::from(self.interval(per)) * u128::from(self.requests);
        if kept * 20 > per.as_micros() * 21 {
            let met = format!("{} per {per:?}", self.requests);
            let allowed = "is too fast: must leave a whole number of microseconds between requests, \
                           within 5 %";
            faults.add(fields.requests, met, allowed);
        }
        let burst = burst.unwrap_or(self.requests);
        if u128::from(self.interval(per)) * u128::from(burst) > FILL_MAX.into() {
            let allowed = "would take more than 62 days to grow back";
            faults.add(fields.burst, burst, allowed);
        }
    }

    /// Orders quotas by how many requests they let through in the long run, and then at once.
    pub(crate) fn cmp_size(&self, other: &Self) -> Ordering {
        let in_both = |of: &Self, span: Duration| u128::from(of.requests) * span.as_micros();
        let rates = in_both(self, other.span()).cmp(&in_both(other, self.span()));
        rates.then_with(|| self.limit().fill().cmp(&other.limit().fill()))
    }

    /// The quota in ticks. For one that was never checked, the nearest that can be kept.
    pub(crate) fn limit(&self) -> Limit {
        match self.window {
            Window::Rolling { per, burst } => {
                Limit::new(self.interval(per), burst.unwrap_or(self.requests))
            }
            Window::Calendar(_) => Limit::window(self.requests),
        }
    }

    /// The part of the calendar that it goes by, if it does.
    pub(crate) const fn period(&self) -> Option<Period> {
        match self.window {
            Window::Rolling { .. } => None,
            Window::Calendar(period) => Some(period),
        }
    }

    /// The time in which all of it comes back.
    pub(crate) fn span(&self) -> Duration {
        match self.window {
            Window::Rolling { per, .. } => per,
            Window::Calendar(period) => Duration::from_secs(period.nominal()),
        }
    }

    /// Microseconds in which one request grows back, rounded up.
    fn interval(&self, per: Duration) -> u64 {
        let window = u64::try_from(per.min(WINDOW_MAX).as_micros()).unwrap_or(u64::MAX);
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
            (Quota::requests(u32::MAX).each(Period::Month), &[]),
            (Quota::requests(0).each(Period::Day), &["q.requests"]),
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
        let month = r#"{"requests":10000,"each":"month"}"#;
        let plan: Quota = serde_json::from_str(month).unwrap();
        assert_eq!(plan, Quota::requests(10_000).each(Period::Month));
        assert_eq!(serde_json::to_string(&plan).unwrap(), month);
        for neither in [
            r#"{"requests":5,"per_ms":1,"each":"day"}"#,
            r#"{"requests":5,"each":"day","burst":1}"#,
            r#"{"requests":5,"each":"year"}"#,
        ] {
            assert!(serde_json::from_str::<Quota>(neither).is_err(), "{neither}");
        }
        assert!(serde_json::from_str::<Quota>(r#"{"requests":5}"#).is_err());
        assert!(serde_json::from_str::<Quota>(r#"{"requests":-5,"per_ms":1}"#).is_err());
        assert!(serde_json::from_str::<Quota>(r#"{"requests":5,"per_s":1}"#).is_err());
    }
}
