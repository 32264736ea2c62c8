//! The table of routes.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::metrics::{HistogramSnapshot, RouteFigures};
use crate::report::spoken::{millis_if_any, ratio};

/// Requests of one route and method, or of several together.
///
/// Routes are told the worst first: by how many of their requests failed or were slow, and where that is equal, by
/// how much time their answers took all together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteLine {
    /// The path template, `unmatched` or `other`; `all` or `rest` for several.
    pub route: Arc<str>,
    /// The method, or `_OTHER`; `*` for several.
    pub method: &'static str,
    /// Requests answered or cancelled.
    pub requests: u64,
    /// Those answered with 5xx.
    pub errors: u64,
    /// Those whose answer was not delivered to its end.
    pub cancelled: u64,
    /// Those of them that were given up before their answer began.
    pub unanswered: u64,
    /// Those slower than `metrics.slow_request_ms`.
    pub slow: u64,
    /// Requests in each second.
    pub per_second: f64,
    /// The share of 5xx among the answers.
    pub error_ratio: Option<f64>,
    /// The share that the cache served, of the answers that it could have.
    pub cache_share: Option<f64>,
    /// The median of the time to the answer's head; like its siblings within 5 %.
    #[serde(rename = "p50_ms", serialize_with = "millis_if_any")]
    pub p50: Option<Duration>,
    /// What 95 % did not exceed.
    #[serde(rename = "p95_ms", serialize_with = "millis_if_any")]
    pub p95: Option<Duration>,
    /// What 99 % did not exceed.
    #[serde(rename = "p99_ms", serialize_with = "millis_if_any")]
    pub p99: Option<Duration>,
}

/// How many routes a report tells apart.
pub(crate) const ROUTES_MAX: usize = 20;

/// All routes as a report tells them.
pub(crate) struct Table {
    pub(crate) all: RouteLine,
    pub(crate) worst: Vec<RouteLine>,
    pub(crate) rest: Option<RouteLine>,
    /// Those of the rest one by one.
    pub(crate) others: Vec<RouteLine>,
}

impl Table {
    /// What happened on `routes` within `covers`. Costs a merge of histograms for each, some 100 ns.
    pub(crate) fn of(routes: &[RouteFigures], covers: Duration) -> Self {
        let mut busy: Vec<&RouteFigures> = routes
            .iter()
            .filter(|route| route.counts.requests > 0)
            .collect();
        busy.sort_by_key(|route| {
            let amiss = route.counts.status.server_error + route.counts.slow;
            Reverse((
                amiss,
                route.latency.histogram.sum(),
                Arc::clone(&route.route),
            ))
        });
        let (worst, rest) = busy.split_at(busy.len().min(ROUTES_MAX));
        let line = |route: &&RouteFigures| {
            let name = (&*route.route, route.method);
            RouteLine::together(name, &[*route], covers)
        };
        Self {
            all: RouteLine::together(("all", "*"), &busy, covers),
            worst: worst.iter().map(line).collect(),
            others: rest.iter().map(line).collect(),
            rest: (!rest.is_empty()).then(|| RouteLine::together(("rest", "*"), rest, covers)),
        }
    }
}

impl RouteLine {
    /// A line on which nothing happened.
    #[must_use]
    pub fn named(route: &str, method: &'static str) -> Self {
        Self {
            route: route.into(),
            method,
            requests: 0,
            errors: 0,
            cancelled: 0,
            unanswered: 0,
            slow: 0,
            per_second: 0.0,
            error_ratio: None,
            cache_share: None,
            p50: None,
            p95: None,
            p99: None,
        }
    }

    /// Requests that were answered to the end.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.requests.saturating_sub(self.cancelled)
    }

    fn together(
        (route, method): (&str, &'static str),
        figures: &[&RouteFigures],
        covers: Duration,
    ) -> Self {
        let mut line = Self::named(route, method);
        let (mut cached, mut uncached) = (0, 0);
        let mut latency = HistogramSnapshot::empty();
        for route in figures {
            line.requests += route.counts.requests;
            line.errors += route.counts.status.server_error;
            line.cancelled += route.counts.cancelled;
            line.unanswered += route.counts.unanswered;
            line.slow += route.counts.slow;
            cached += route.counts.cached;
            uncached += route.counts.uncached;
            latency.merge(&route.latency.histogram);
        }
        if !covers.is_zero() {
            line.per_second = line.requests as f64 / covers.as_secs_f64();
        }
        line.error_ratio = ratio(line.errors, line.answered());
        line.cache_share = ratio(cached, cached + uncached);
        line.p50 = latency.quantile(0.50);
        line.p95 = latency.quantile(0.95);
        line.p99 = latency.quantile(0.99);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Histogram, HttpTotals, Quantiles, StatusCounts};

    fn figures(route: &str, requests: u64, errors: u64, millis: u64) -> RouteFigures {
        let histogram = Histogram::new();
        for _ in 0..requests {
            histogram.record(Duration::from_millis(millis));
        }
        RouteFigures {
            route: route.into(),
            method: "GET",
            counts: HttpTotals {
                requests,
                status: StatusCounts {
                    success: requests - errors,
                    server_error: errors,
                    ..StatusCounts::default()
                },
                ..HttpTotals::default()
            },
            latency: Quantiles::of(histogram.snapshot()),
        }
    }

    #[test]
    fn the_worst_come_first_and_the_rest_together() {
        let mut routes: Vec<_> = (0..25)
            .map(|at| figures(&format!("/{at}"), 10, 0, at + 1))
            .collect();
        routes.push(figures("/fails", 4, 1, 1));
        routes.push(figures("/idle", 0, 0, 1));
        let table = Table::of(&routes, Duration::from_secs(10));
        assert_eq!(table.worst.len(), ROUTES_MAX);
        let names: Vec<_> = table.worst.iter().map(|line| &*line.route).collect();
        assert_eq!(&names[..3], ["/fails", "/24", "/23"]);
        let rest = table.rest.unwrap();
        assert_eq!((&*rest.route, rest.requests), ("rest", 60));
        assert_eq!(table.others.len(), 6);
        assert_eq!(&*table.others[5].route, "/0");
        assert_eq!((table.all.requests, table.all.errors), (254, 1));
        assert_eq!(table.all.per_second, 25.4);
        assert_eq!(table.worst[0].error_ratio, Some(0.25));
        let p50 = table.worst[1].p50.unwrap().as_secs_f64() * 1e3;
        assert!((23.4..26.6).contains(&p50), "{p50}");
    }

    #[test]
    fn nothing_has_no_ratios() {
        let table = Table::of(&[], Duration::ZERO);
        assert_eq!(table.all, RouteLine::named("all", "*"));
        assert_eq!(table.rest, None);
    }
}
