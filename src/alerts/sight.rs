//! Reading measures: the figures of one moment.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::alerts::measure::Measure;
use crate::metrics::{HistogramSnapshot, HttpTotals, Metrics, RouteFigures, Window, WindowFigures};

/// The figures of one round of judgements: a window is taken once, however many rules look at it.
pub(crate) struct Sight<'a> {
    metrics: &'a Metrics,
    windows: [OnceCell<WindowFigures>; Window::ALL.len()],
}

/// Which of the figures a rule looks at.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) measure: &'a Measure,
    pub(crate) window: Window,
    pub(crate) route: Option<&'a str>,
    /// Below so many a ratio or a percentile means nothing.
    pub(crate) least: u64,
}

impl<'a> Sight<'a> {
    pub(crate) fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            windows: Default::default(),
        }
    }

    /// The value, if there is one. Whoever reads a gauge of the service's own may find that it panics; that
    /// must not end the round.
    pub(crate) fn value(&self, look: Look<'_>) -> Option<f64> {
        let value = catch_unwind(AssertUnwindSafe(|| self.read(look))).ok()?;
        value.filter(|value| value.is_finite())
    }

    fn read(&self, look: Look<'_>) -> Option<f64> {
        let least = look.least;
        match look.measure {
            Measure::ResponseP50 => self.response(look, 0.50),
            Measure::ResponseP95 => self.response(look, 0.95),
            Measure::ResponseP99 => self.response(look, 0.99),
            Measure::ErrorRatio => {
                let http = self.http(look);
                let answered = http.requests.saturating_sub(http.cancelled);
                ratio(http.status.server_error, answered, least)
            }
            Measure::RequestsPerSecond => self.rate(look, self.http(look).requests),
            Measure::CancelledRatio => {
                let http = self.http(look);
                ratio(http.cancelled, http.requests, least)
            }
            Measure::UnansweredRatio => {
                let http = self.http(look);
                ratio(http.unanswered, http.requests, least)
            }
            Measure::SlowRequestsPerMinute => self.per_minute(look, self.http(look).slow),
            Measure::HitRatio => self.hit_ratio(look),
            Measure::RateLimitDeniedRatio => {
                let rules = self.window(look).figures.rate_limit.values();
                let (denied, all) = rules.fold((0, 0), |(denied, all), rule| {
                    (denied + rule.denied, all + rule.denied + rule.allowed)
                });
                ratio(denied, all, least)
            }
            Measure::GuardRefusedRatio => {
                let guard = &self.window(look).figures.guard;
                let refused = guard.refused.values().sum();
                ratio(refused, refused + guard.admitted.count, least)
            }
            Measure::QueryP95 => {
                let queries = &self.window(look).figures.queries;
                queries.p95.filter(|_| queries.count >= least).map(seconds)
            }
            Measure::SlowQueriesPerMinute => {
                self.per_minute(look, self.window(look).figures.queries_slow)
            }
            Measure::DatabaseUnservedPerMinute => {
                self.per_minute(look, self.window(look).figures.database_unserved)
            }
            Measure::RedisP95 => {
                let redis = &self.window(look).figures.redis;
                redis.p95.filter(|_| redis.count >= least).map(seconds)
            }
            Measure::Warnings => Some(self.window(look).figures.warnings as f64),
            _ => self.now(look.measure),
        }
    }

    /// Those that look at no window. What other rooms hold is read from the gauges that show it, so that
    /// nothing here knows those rooms.
    fn now(&self, measure: &Measure) -> Option<f64> {
        let gauge = |name: &str| self.metrics.gauge_value(name);
        let share = |part: &str, whole: &str| {
            let whole = gauge(whole).filter(|whole| *whole > 0.0)?;
            Some(gauge(part)? / whole)
        };
        let not = |name: &str| gauge(name).map(|value| f64::from(u8::from(value < 0.5)));
        match measure {
            // No process uses nothing: 0 bytes say that the memory cannot be read.
            Measure::MemoryRatio => share("keep_memory_used_bytes", "keep_memory_budget_bytes")
                .filter(|share| *share > 0.0),
            Measure::ConcurrencyRatio => share("keep_guard_in_flight", "keep_guard_slots"),
            Measure::QueueDepth => gauge("keep_guard_queued"),
            Measure::RedisDown => not("keep_redis_up"),
            Measure::JournalUnverified => not("keep_journal_verified"),
            Measure::Lag => gauge("keep_runtime_lag_seconds"),
            Measure::Gauge(name) => gauge(name),
            Measure::Custom(custom) => (custom.0)(),
            _ => None,
        }
    }

    fn window(&self, look: Look<'_>) -> &WindowFigures {
        let cell = &self.windows[look.window as usize];
        cell.get_or_init(|| self.metrics.window(look.window))
    }

    fn of_route(&self, look: Look<'_>) -> impl Iterator<Item = &RouteFigures> {
        let routes = self.window(look).figures.routes.iter();
        routes.filter(move |row| look.route.is_some_and(|route| route == &*row.route))
    }

    /// The counts of the rule's route, or of all. A route that has gone quiet is in no window: nobody asks for it,
    /// which a rule may be there to tell.
    fn http(&self, look: Look<'_>) -> HttpTotals {
        if look.route.is_none() {
            return self.window(look).figures.http;
        }
        let mut total = HttpTotals::default();
        for row in self.of_route(look) {
            total.requests += row.counts.requests;
            total.cancelled += row.counts.cancelled;
            total.unanswered += row.counts.unanswered;
            total.slow += row.counts.slow;
            total.status.server_error += row.counts.status.server_error;
        }
        total
    }

    fn response(&self, look: Look<'_>, q: f64) -> Option<f64> {
        let of_one;
        let histogram = if look.route.is_none() {
            &self.window(look).latency.histogram
        } else {
            let mut sum = HistogramSnapshot::empty();
            for row in self.of_route(look) {
                sum.merge(&row.latency.histogram);
            }
            of_one = sum;
            &of_one
        };
        let enough = histogram.count() >= look.least;
        histogram.quantile(q).filter(|_| enough).map(seconds)
    }

    fn hit_ratio(&self, look: Look<'_>) -> Option<f64> {
        let figures = self.window(look);
        let cache = &figures.figures.cache;
        let asked = cache.served() + cache.missed();
        figures.hit_ratio().filter(|_| asked >= look.least)
    }

    fn rate(&self, look: Look<'_>, count: u64) -> Option<f64> {
        Some(self.window(look).per_second(count))
    }

    fn per_minute(&self, look: Look<'_>, count: u64) -> Option<f64> {
        self.rate(look, count).map(|rate| rate * 60.0)
    }
}

fn ratio(part: u64, whole: u64, least: u64) -> Option<f64> {
    (whole > 0 && whole >= least).then(|| part as f64 / whole as f64)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::MetricsConfig;

    fn metrics() -> Metrics {
        let (clock, hand) = Clock::manual();
        let metrics = Metrics::new(&MetricsConfig::default(), clock).unwrap();
        hand.advance(Duration::from_secs(60));
        metrics
    }

    #[test]
    fn a_route_that_has_gone_quiet_is_asked_for_by_nobody() {
        let metrics = metrics();
        let sight = Sight::new(&metrics);
        for (measure, value) in [
            (Measure::RequestsPerSecond, Some(0.0)),
            (Measure::SlowRequestsPerMinute, Some(0.0)),
            (Measure::ErrorRatio, None),
            (Measure::CancelledRatio, None),
            (Measure::UnansweredRatio, None),
            (Measure::ResponseP95, None),
        ] {
            let look = Look {
                measure: &measure,
                window: Window::Minute,
                route: Some("/checkout"),
                least: 0,
            };
            assert_eq!(sight.value(look), value, "{measure:?}");
        }
    }

    #[test]
    fn memory_that_cannot_be_read_has_no_value() {
        for (used, value) in [(0.0, None), (50.0, Some(0.5))] {
            let metrics = metrics();
            for (name, shown) in [
                ("keep_memory_used_bytes", used),
                ("keep_memory_budget_bytes", 100.0),
            ] {
                metrics.gauge(name, "Bytes.", move || shown).unwrap();
            }
            let look = Look {
                measure: &Measure::MemoryRatio,
                window: Window::Minute,
                route: None,
                least: 0,
            };
            assert_eq!(Sight::new(&metrics).value(look), value);
        }
    }
}
