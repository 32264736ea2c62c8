//! The figures of routes while they go on counting.
//!
//! Whoever writes them all takes its time, and reads each when its turn comes: a figure is as old as its line.

use std::sync::Arc;

use crate::metrics::engine::Metrics;
use crate::metrics::figures::read;
use crate::metrics::histogram::HistogramSnapshot;
use crate::metrics::routes::{RouteStats, method_named};

/// One route and method.
#[derive(Debug)]
pub(crate) struct LiveRow {
    /// The template, `unmatched` or `other`.
    pub(crate) route: Arc<str>,
    pub(crate) method: &'static str,
    stats: Arc<RouteStats>,
}

impl LiveRow {
    /// All that there are, about 0.05 µs each: templates by name, `unmatched` last.
    pub(crate) fn all(metrics: &Metrics) -> Vec<Self> {
        let rows = metrics.routes().rows().into_iter();
        rows.map(|(route, method, stats)| Self {
            route,
            method: method_named(method),
            stats,
        })
        .collect()
    }

    /// Answers by status class.
    pub(crate) fn answered(&self) -> [(&'static str, u64); 5] {
        let [c1, c2, c3, c4, c5] = self.stats.answered.each_ref().map(read);
        [
            ("1xx", c1),
            ("2xx", c2),
            ("3xx", c3),
            ("4xx", c4),
            ("5xx", c5),
        ]
    }

    pub(crate) fn cancelled(&self) -> u64 {
        read(&self.stats.cancelled)
    }

    /// Those of the cancelled that had no answer's head yet.
    pub(crate) fn unanswered(&self) -> u64 {
        read(&self.stats.unanswered)
    }

    pub(crate) fn slow(&self) -> u64 {
        read(&self.stats.slow)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.stats.in_flight(&self.stats.counts())
    }

    /// Bytes of bodies.
    pub(crate) fn received(&self) -> u64 {
        read(&self.stats.received)
    }

    /// Bytes of bodies.
    pub(crate) fn sent(&self) -> u64 {
        read(&self.stats.sent)
    }

    /// Answers by the cache, and those it might have given.
    pub(crate) fn by_cache(&self) -> [(&'static str, u64); 2] {
        let (hits, misses) = (read(&self.stats.cached), read(&self.stats.uncached));
        [("hit", hits), ("miss", misses)]
    }

    /// Times to the answer's head.
    pub(crate) fn latency(&self) -> HistogramSnapshot {
        self.stats.latency.snapshot()
    }
}
