//! What is summed up for a day: 28 numbers, whatever happens on it.

use std::time::Duration;

use serde::Serialize;

use crate::metrics::{HistogramSnapshot, Snapshot};
use crate::report::date::Date;
use crate::report::spoken::ratio;

/// What is counted, as it is called in Redis.
const COUNTS: [&str; 8] = [
    "requests",
    "errors",
    "cancelled",
    "slow",
    "refused",
    "limited",
    "hits",
    "lookups",
];

/// The upper bounds of the latencies' buckets in milliseconds; the last one has none. Each is about 1.6 times the
/// one before it: a percentile of a day is right to that.
const BOUNDS_MS: [u64; BUCKETS - 1] = [
    1, 2, 3, 5, 7, 10, 15, 25, 40, 65, 100, 160, 250, 400, 650, 1000, 2500, 5000, 10_000,
];

const BUCKETS: usize = 20;

/// Sums, of a day or since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    counts: [u64; COUNTS.len()],
    latency: [u64; BUCKETS],
}

/// A day of a trend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Day {
    /// The day by UTC: `2026-11-29`.
    pub date: String,
    /// Whether all instances are in it, and not only this one since its start.
    pub of_all: bool,
    /// Requests answered or cancelled.
    pub requests: u64,
    /// Those answered with 5xx.
    pub errors: u64,
    /// Those whose answer was not delivered to its end.
    pub cancelled: u64,
    /// Those slower than `metrics.slow_request_ms`.
    pub slow: u64,
    /// Requests that the guard turned away.
    pub refused: u64,
    /// Requests that rules of the rate limiter turned away, counted for each rule.
    pub limited: u64,
    /// Requests that the cache answered.
    pub hits: u64,
    /// Requests that it could have answered.
    pub lookups: u64,
    /// The share of 5xx in the answers.
    pub error_ratio: Option<f64>,
    /// The share of hits in the lookups.
    pub hit_ratio: Option<f64>,
    /// What half of the requests did not exceed, in milliseconds: the upper bound of a coarse bucket, at most
    /// 2.5 times too long.
    pub p50_ms: Option<u64>,
    /// The same for 95 %.
    pub p95_ms: Option<u64>,
    /// The same for 99 %.
    pub p99_ms: Option<u64>,
}

impl Sums {
    /// The sums since these figures began.
    pub(crate) fn of(figures: &Snapshot) -> Self {
        let (http, cache) = (&figures.http, &figures.cache);
        let (hits, misses) = (cache.served(), cache.missed());
        let mut latency = HistogramSnapshot::empty();
        for route in &figures.routes {
            latency.merge(&route.latency.histogram);
        }
        Self {
            counts: [
                http.requests,
                http.status.server_error,
                http.cancelled,
                http.slow,
                figures.guard.refused.values().sum(),
                figures.rate_limit.values().map(|rule| rule.denied).sum(),
                hits,
                hits + misses,
            ],
            latency: coarse(&latency),
        }
    }

    /// What has come to `earlier` since.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut more = *self;
        for (now, before) in more.all_mut().zip(earlier.all()) {
            *now = now.saturating_sub(before);
        }
        more
    }

    pub(crate) fn add(&mut self, more: &Self) {
        for (sum, more) in self.all_mut().zip(more.all()) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Adds to one of them, by its name in Redis. Names of a later version are none of ours.
    #[cfg(feature = "redis")]
    pub(crate) fn add_named(&mut self, name: &str, more: u64) {
        let at = COUNTS.iter().position(|known| *known == name);
        let at = at.or_else(|| {
            let bucket: usize = name.strip_prefix('l')?.parse().ok()?;
            (bucket < BUCKETS).then_some(COUNTS.len() + bucket)
        });
        if let Some(sum) = at.and_then(|at| self.all_mut().nth(at)) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Those above zero, with their names in Redis.
    #[cfg(feature = "redis")]
    pub(crate) fn named(&self) -> Vec<(String, u64)> {
        let counts = COUNTS.iter().map(|name| (*name).to_owned());
        let names = counts.chain((0..BUCKETS).map(|bucket| format!("l{bucket}")));
        let named = names.zip(self.all());
        named.filter(|(_, sum)| *sum > 0).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().all(|sum| sum == 0)
    }

    pub(crate) fn day(&self, date: Date, of_all: bool) -> Day {
        let [
            requests,
            errors,
            cancelled,
            slow,
            refused,
            limited,
            hits,
            lookups,
        ] = self.counts;
        Day {
            date: date.to_string(),
            of_all,
            requests,
            errors,
            cancelled,
            slow,
            refused,
            limited,
            hits,
            lookups,
            error_ratio: ratio(errors, requests.saturating_sub(cancelled)),
            hit_ratio: ratio(hits, lookups),
            p50_ms: self.quantile(0.50),
            p95_ms: self.quantile(0.95),
            p99_ms: self.quantile(0.99),
        }
    }

    /// What has no bound is told as the last one.
    fn quantile(&self, q: f64) -> Option<u64> {
        let count: u64 = self.latency.iter().sum();
        let rank = ((count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        let bounds = BOUNDS_MS.iter().chain(BOUNDS_MS.last());
        for (bound, here) in bounds.zip(&self.latency) {
            seen += here;
            if seen >= rank {
                return Some(*bound);
            }
        }
        None
    }

    fn all(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().chain(&self.latency).copied()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.counts.iter_mut().chain(&mut self.latency)
    }
}

fn coarse(latency: &HistogramSnapshot) -> [u64; BUCKETS] {
    let mut buckets = [0; BUCKETS];
    let mut below = 0;
    for (bucket, bound) in buckets.iter_mut().zip(BOUNDS_MS) {
        let up_to = latency.at_most(Duration::from_millis(bound));
        *bucket = up_to.saturating_sub(below);
        below = up_to;
    }
    if let Some(last) = buckets.last_mut() {
        *last = latency.count().saturating_sub(below);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::metrics::Histogram;

    fn sums(millis: &[u64]) -> Sums {
        let histogram = Histogram::new();
        for time in millis {
            histogram.record(Duration::from_millis(*time));
        }
        let mut sums = Sums {
            latency: coarse(&histogram.snapshot()),
            ..Sums::default()
        };
        sums.add_named("requests", millis.len() as u64);
        sums
    }

    #[test]
    fn every_request_is_in_one_bucket() {
        let all = sums(&[0, 1, 4, 12, 300, 9_000, 60_000, 700_000]);
        assert_eq!(all.latency.iter().sum::<u64>(), 8);
        assert_eq!(all.latency[BUCKETS - 1], 2);
        let (date, _) = Date::of(SystemTime::UNIX_EPOCH);
        let day = all.day(date, true);
        assert_eq!((day.p50_ms, day.p99_ms), (Some(15), Some(10_000)));
        assert_eq!(Sums::default().day(date, true).p50_ms, None);
    }

    #[test]
    fn what_is_told_by_name_adds_up_to_the_same() {
        let (first, second) = (sums(&[1, 2, 3]), sums(&[1, 2, 3, 500, 20_000]));
        let more = second.since(&first);
        let mut told = Sums::default();
        for (name, sum) in first.named().into_iter().chain(more.named()) {
            told.add_named(&name, sum);
        }
        told.add_named("later", 7);
        told.add_named("l20", 7);
        told.add_named("lx", 7);
        assert_eq!(told, second);
        let mut added = first;
        added.add(&more);
        assert_eq!(added, second);
        assert!(second.since(&second).is_empty());
    }
}
