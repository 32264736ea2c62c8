//! What a rule looks at.

use std::fmt;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a rule looks at. In a file it is a name, such as `"error_ratio"`, or a gauge's:
/// `measure.gauge = "keep_journal_waiting"`.
///
/// Those over a window count what happened within [`AlertRule::window`](crate::alerts::AlertRule::window);
/// ratios lie between 0 and 1, times are in seconds. Where there is nothing to measure (nobody asked, no
/// Redis is configured) there is no value.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Measure {
    /// `response_p50`: the median of the time to an answer's head, over a window, of one route or all.
    ResponseP50,
    /// `response_p95`: what 95 % did not exceed.
    ResponseP95,
    /// `response_p99`: what 99 % did not exceed.
    ResponseP99,
    /// `error_ratio`: the share of answers that are 5xx, over a window, of one route or all.
    ErrorRatio,
    /// `requests_per_second`: requests that are over, over a window, of one route or all.
    RequestsPerSecond,
    /// `cancelled_ratio`: the share of requests whose answer was not delivered to its end, over a window, of one
    /// route or all.
    CancelledRatio,
    /// `unanswered_ratio`: the share of requests that were given up before their answer began, over a window, of
    /// one route or all: where everything hangs there are no errors and no times, but these.
    UnansweredRatio,
    /// `slow_requests_per_minute`: answers that took longer than `metrics.slow_request_ms`, over a window, of one
    /// route or all.
    SlowRequestsPerMinute,
    /// `memory_ratio`: the process' memory by its budget, now.
    MemoryRatio,
    /// `hit_ratio`: the share of requests to the cache of answers that it served, over a window.
    HitRatio,
    /// `rate_limit_denied_ratio`: the share of the limiter's decisions that were a no, over a window.
    RateLimitDeniedRatio,
    /// `guard_refused_ratio`: the share of requests that the guard turned away, over a window.
    GuardRefusedRatio,
    /// `concurrency_ratio`: requests inside the guard by its slots, now.
    ConcurrencyRatio,
    /// `queue_depth`: requests that wait for a slot, now.
    QueueDepth,
    /// `query_p95`: what 95 % of database queries did not exceed, over a window.
    QueryP95,
    /// `slow_queries_per_minute`: queries slower than `database.slow_query_ms`, over a window.
    SlowQueriesPerMinute,
    /// `database_unserved_per_minute`: waits for a database connection that were in vain, over a window.
    DatabaseUnservedPerMinute,
    /// `redis_down`: 1 while Redis is away, else 0, now.
    RedisDown,
    /// `redis_p95`: what 95 % of Redis' answers did not exceed, over a window.
    RedisP95,
    /// `journal_unverified`: 1 while it is not known whether every invalidation is heard, else 0, now.
    JournalUnverified,
    /// `lag`: how late tasks are woken, in seconds, now.
    Lag,
    /// `warnings`: how often something was found to be set up wrongly, over a window.
    Warnings,
    /// `gauge`: what the gauge of this name shows now, one of the crate's or of the service's own.
    Gauge(Arc<str>),
    /// What a closure says; only code can say that, see [`Measure::of`].
    Custom(CustomMeasure),
}

/// A closure that measures something; see [`Measure::of`].
#[derive(Clone)]
pub struct CustomMeasure(pub(crate) Arc<dyn Fn() -> Option<f64> + Send + Sync>);

impl Measure {
    /// What `read` says, asked once for each judgement. It must be quick and must not block; if it panics, or
    /// answers with nothing or no number, there is no value. If it holds a clone of the `Keep`, neither is
    /// ever freed.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// use tower_keep::alerts::{AlertRule, Measure};
    ///
    /// let unpaid = Arc::new(AtomicU64::new(0));
    /// let seen = Arc::clone(&unpaid);
    /// let measure = Measure::of(move || Some(seen.load(Ordering::Relaxed) as f64));
    /// let rule = AlertRule::above("unpaid_invoices", measure, 100.0);
    /// ```
    #[must_use]
    pub fn of(read: impl Fn() -> Option<f64> + Send + Sync + 'static) -> Self {
        Self::Custom(CustomMeasure(Arc::new(read)))
    }

    /// The gauge of this name.
    #[must_use]
    pub fn gauge(name: impl Into<Arc<str>>) -> Self {
        Self::Gauge(name.into())
    }

    /// Its name: `error_ratio`; a gauge's own; `custom` for a closure.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some((_, name)) = NAMED.iter().find(|(measure, _)| measure == self) {
            return name;
        }
        match self {
            Self::Gauge(name) => name,
            _ => CUSTOM,
        }
    }

    /// Whether it can be asked of one route.
    pub(crate) const fn knows_routes(&self) -> bool {
        matches!(
            self,
            Self::ResponseP50
                | Self::ResponseP95
                | Self::ResponseP99
                | Self::ErrorRatio
                | Self::RequestsPerSecond
                | Self::CancelledRatio
                | Self::UnansweredRatio
                | Self::SlowRequestsPerMinute
        )
    }

    /// What its value is in words: `3.21 s`, `12.5 %`, `7`.
    pub(crate) fn words(&self, value: f64) -> String {
        match self {
            Self::ResponseP50
            | Self::ResponseP95
            | Self::ResponseP99
            | Self::QueryP95
            | Self::RedisP95
            | Self::Lag => format!("{} s", rounded(value)),
            Self::ErrorRatio
            | Self::CancelledRatio
            | Self::UnansweredRatio
            | Self::MemoryRatio
            | Self::HitRatio
            | Self::RateLimitDeniedRatio
            | Self::GuardRefusedRatio
            | Self::ConcurrencyRatio => format!("{} %", rounded(value * 100.0)),
            Self::RequestsPerSecond => format!("{} per second", rounded(value)),
            Self::SlowRequestsPerMinute
            | Self::SlowQueriesPerMinute
            | Self::DatabaseUnservedPerMinute => format!("{} per minute", rounded(value)),
            _ => rounded(value),
        }
    }
}

/// Four digits that count, without zeros behind them.
fn rounded(value: f64) -> String {
    let whole = value.abs().max(1.0).log10().floor() as usize;
    let text = format!("{value:.*}", 3_usize.saturating_sub(whole));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

const CUSTOM: &str = "custom";

const NAMED: [(Measure, &str); 22] = [
    (Measure::ResponseP50, "response_p50"),
    (Measure::ResponseP95, "response_p95"),
    (Measure::ResponseP99, "response_p99"),
    (Measure::ErrorRatio, "error_ratio"),
    (Measure::RequestsPerSecond, "requests_per_second"),
    (Measure::CancelledRatio, "cancelled_ratio"),
    (Measure::UnansweredRatio, "unanswered_ratio"),
    (Measure::SlowRequestsPerMinute, "slow_requests_per_minute"),
    (Measure::MemoryRatio, "memory_ratio"),
    (Measure::HitRatio, "hit_ratio"),
    (Measure::RateLimitDeniedRatio, "rate_limit_denied_ratio"),
    (Measure::GuardRefusedRatio, "guard_refused_ratio"),
    (Measure::ConcurrencyRatio, "concurrency_ratio"),
    (Measure::QueueDepth, "queue_depth"),
    (Measure::QueryP95, "query_p95"),
    (Measure::SlowQueriesPerMinute, "slow_queries_per_minute"),
    (
        Measure::DatabaseUnservedPerMinute,
        "database_unserved_per_minute",
    ),
    (Measure::RedisDown, "redis_down"),
    (Measure::RedisP95, "redis_p95"),
    (Measure::JournalUnverified, "journal_unverified"),
    (Measure::Lag, "lag"),
    (Measure::Warnings, "warnings"),
];

/// A measure as a file says it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Gauge(WrittenGauge),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGauge {
    gauge: String,
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self {
            Self::Gauge(name) => Written::Gauge(WrittenGauge {
                gauge: (**name).to_owned(),
            }),
            named => Written::Name(named.name().to_owned()),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Measure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = match Written::deserialize(deserializer) {
            Ok(Written::Gauge(written)) => return Ok(Self::Gauge(written.gauge.into())),
            Ok(Written::Name(name)) => name,
            Err(_) => return Err(Error::custom(allowed())),
        };
        let found = NAMED.into_iter().find(|(_, known)| *known == name);
        found
            .map(|(measure, _)| measure)
            .ok_or_else(|| Error::custom(allowed()))
    }
}

fn allowed() -> String {
    let names: Vec<_> = NAMED.iter().map(|(_, name)| *name).collect();
    format!(
        "must be {}, or the name of a gauge: {{ gauge = \"keep_journal_waiting\" }}",
        names.join(", ")
    )
}

impl PartialEq for CustomMeasure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for CustomMeasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CUSTOM)
    }
}

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_is_written_and_read_by_its_name() {
        for (measure, name) in NAMED {
            let written = serde_json::to_string(&measure).unwrap();
            assert_eq!(written, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Measure>(&written).unwrap(), measure);
        }
        let gauge = Measure::gauge("mine");
        let written = serde_json::to_string(&gauge).unwrap();
        assert_eq!(written, r#"{"gauge":"mine"}"#);
        assert_eq!(serde_json::from_str::<Measure>(&written).unwrap(), gauge);
    }

    #[test]
    fn what_is_no_measure_is_told_with_those_that_are() {
        for wrong in [r#""errors""#, r#""custom""#, "7", r#"{"gouge":"a"}"#] {
            let error = serde_json::from_str::<Measure>(wrong)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("error_ratio") && error.contains("gauge"),
                "{error}"
            );
        }
    }

    #[test]
    fn values_are_told_with_their_units() {
        for (measure, value, words) in [
            (Measure::ResponseP95, 3.2104, "3.21 s"),
            (Measure::ErrorRatio, 0.05, "5 %"),
            (Measure::HitRatio, 0.71239, "71.24 %"),
            (Measure::QueueDepth, 1001.0, "1001"),
            (Measure::QueueDepth, 123_456.7, "123457"),
            (Measure::SlowQueriesPerMinute, 10.0, "10 per minute"),
            (Measure::gauge("a"), -0.5, "-0.5"),
        ] {
            assert_eq!(measure.words(value), words);
        }
    }
}
