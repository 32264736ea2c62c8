//! The figures that the parts hold themselves, shown as gauges.

use crate::cache::Cache;
use crate::error::ConfigError;
use crate::guard::{ConcurrencyLimit, Guard};
use crate::keep::parts::Keep;
use crate::metrics::Metrics;
use crate::rate_limit::RateLimiter;

/// A gauge's name, what it shows, and how to read it from whoever holds it.
pub(crate) type Row<T> = (&'static str, &'static str, fn(&T) -> f64);

/// Registers the gauges of one holder.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn show<T>(metrics: &Metrics, holder: &T, rows: &[Row<T>]) -> Result<(), ConfigError>
where
    T: Clone + Send + Sync + 'static,
{
    for (name, help, read) in rows {
        let (holder, read) = (holder.clone(), *read);
        metrics.gauge(name, help, move || read(&holder))?;
    }
    Ok(())
}

/// Registers those of the guard, the limiter, the cache of answers and the database's slots.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let metrics = keep.metrics();
    show(metrics, keep.http_cache(), &CACHE)?;
    show(metrics, keep.limiter(), &LIMITER)?;
    show(metrics, keep.guard(), &GUARD)?;
    show(metrics, keep.database_slots(), &DATABASE)
}

const CACHE: [Row<Cache>; 2] = [
    (
        "keep_cache_bytes",
        "Memory taken up by stored answers.",
        |cache| cache.bytes() as f64,
    ),
    (
        "keep_cache_entries",
        "URLs with something stored.",
        |cache| cache.len() as f64,
    ),
];

const LIMITER: [Row<RateLimiter>; 2] = [
    (
        "keep_rate_limit_table_bytes",
        "Memory taken up by the rate limiter's buckets, used or not.",
        |limiter| limiter.table_bytes() as f64,
    ),
    (
        "keep_rate_limit_evictions",
        "Buckets in use that had to make room for others.",
        |limiter| limiter.evictions() as f64,
    ),
];

const GUARD: [Row<Guard>; 6] = [
    (
        "keep_guard_in_flight",
        "Requests inside the guard.",
        |guard| guard.in_flight() as f64,
    ),
    (
        "keep_guard_slots",
        "Requests that may be inside the guard at once.",
        |guard| guard.slots() as f64,
    ),
    (
        "keep_guard_queued",
        "Requests waiting for one of the slots that are for all.",
        |guard| guard.queued_for_all() as f64,
    ),
    (
        "keep_memory_used_bytes",
        "Memory the process uses.",
        |guard| guard.memory().used_bytes as f64,
    ),
    (
        "keep_memory_budget_bytes",
        "Memory the process may use.",
        |guard| guard.memory().budget_bytes as f64,
    ),
    (
        "keep_memory_stall_ratio",
        "The share of the last 10 s in which something on the machine waited for memory.",
        |guard| {
            let percent = guard.memory().stalled_percent;
            percent.map_or(f64::NAN, |percent| f64::from(percent) / 100.0)
        },
    ),
];

const DATABASE: [Row<ConcurrencyLimit>; 2] = [
    (
        "keep_database_slots_in_use",
        "Slots taken at the database's limit.",
        |limit| limit.in_flight() as f64,
    ),
    (
        "keep_database_slots_queued",
        "Those who wait for a slot at the database's limit.",
        |limit| limit.queued() as f64,
    ),
];
