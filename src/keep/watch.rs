//! What runs beside the requests, and how the parts act on one another.

use std::time::Duration;

use crate::cache::Cache;
use crate::error::ConfigError;
use crate::event::Event;
use crate::guard::{Guard, Pressure};
use crate::keep::parts::Keep;
use crate::metrics::{HealthBoard, HealthStatus};
use crate::tiers::Tiers;
use crate::warming::Warmer;

/// Starts the beats. None of them holds the `Keep`, so dropping it ends them.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let (spawner, board) = (keep.spawner(), keep.health_board().clone());
    #[cfg(not(feature = "redis"))]
    board.set(
        "redis",
        HealthStatus::Healthy,
        "not built in: state is in memory",
    );
    #[cfg(feature = "redis")]
    crate::keep::redis::start(keep)?;
    crate::keep::journal::start(keep)?;
    crate::keep::tiers::start(keep)?;
    let budget = keep.guard().memory().budget_bytes;
    if keep.config().cache.enabled && budget > 0 && keep.http_cache().capacity_bytes() > budget / 2
    {
        keep.events().emit(Event::Warning {
            text: CACHE_TOO_LARGE,
        });
    }
    if keep.config().guard.enabled {
        let (cache, tiers) = (keep.http_cache().clone(), keep.tiers().clone());
        let warmer = keep.warmer().clone();
        keep.guard().on_pressure(move |pressure| {
            relieve(&cache, pressure);
            relieve_tiers(&tiers, pressure);
            rest(&warmer, pressure);
        });
        let guard = keep.guard().clone();
        spawner.every(keep.config().guard.memory_sample, move || {
            guard.sample();
            tell_memory(&guard, &board);
        });
    }
    let paced = keep.guard().clone();
    spawner.spawn_until_stopped(async move { paced.pace().await });
    if keep.config().progress.enabled {
        let progress = keep.progress().clone();
        spawner.every(SWEEP, move || progress.sweep());
    }
    keep.start_coherency();
    register_gauges(keep)
}

/// What the cache gives up at each level of memory pressure.
fn relieve(cache: &Cache, pressure: Pressure) {
    match bearable(pressure, cache.bytes(), cache.config().capacity_bytes) {
        None => cache.restore_capacity(),
        Some(bytes) => cache.set_capacity_bytes(bytes),
    }
}

/// And what typed caches do.
fn relieve_tiers(tiers: &Tiers, pressure: Pressure) {
    match bearable(pressure, tiers.bytes(), tiers.config().capacity_bytes) {
        None => tiers.restore_capacity(),
        Some(bytes) => tiers.set_capacity_bytes(bytes),
    }
}

/// How much may be stored at this level where so much is; `None` for as much as is configured.
fn bearable(pressure: Pressure, stored: u64, configured: u64) -> Option<u64> {
    match pressure {
        Pressure::Normal | Pressure::Unknown => None,
        // Growth is frozen: what is there stays, what is new takes the place of what is old.
        Pressure::Elevated => Some(stored.max(configured / 8)),
        Pressure::High | Pressure::Severe => {
            Some((stored.min(configured) / 10 * 7).max(configured / 16))
        }
        Pressure::Critical => Some(configured / 16),
    }
}

/// Nothing is computed that nobody waits for while memory is short.
fn rest(warmer: &Warmer, pressure: Pressure) {
    match pressure {
        Pressure::Normal | Pressure::Unknown | Pressure::Elevated => warmer.resume(),
        Pressure::High | Pressure::Severe | Pressure::Critical => warmer.pause(),
    }
}

fn register_gauges(keep: &Keep) -> Result<(), ConfigError> {
    let (metrics, cache, guard) = (keep.metrics(), keep.http_cache(), keep.guard());
    let stored = cache.clone();
    metrics.gauge(
        "keep_cache_bytes",
        "Memory taken up by stored answers.",
        move || stored.bytes() as f64,
    )?;
    let stored = cache.clone();
    metrics.gauge(
        "keep_cache_entries",
        "URLs with something stored.",
        move || stored.len() as f64,
    )?;
    let limiter = keep.limiter().clone();
    metrics.gauge(
        "keep_rate_limit_table_bytes",
        "Memory taken up by the rate limiter's buckets, used or not.",
        move || limiter.table_bytes() as f64,
    )?;
    let limiter = keep.limiter().clone();
    metrics.gauge(
        "keep_rate_limit_evictions",
        "Buckets in use that had to make room for others.",
        move || limiter.evictions() as f64,
    )?;
    let inside = guard.clone();
    metrics.gauge(
        "keep_guard_in_flight",
        "Requests inside the guard.",
        move || inside.in_flight() as f64,
    )?;
    let slots = guard.clone();
    metrics.gauge(
        "keep_guard_slots",
        "Requests that may be inside the guard at once.",
        move || slots.slots() as f64,
    )?;
    let database = keep.database_slots().clone();
    metrics.gauge(
        "keep_database_slots_in_use",
        "Slots taken at the database's limit.",
        move || database.in_flight() as f64,
    )?;
    let database = keep.database_slots().clone();
    metrics.gauge(
        "keep_database_slots_queued",
        "Those who wait for a slot at the database's limit.",
        move || database.queued() as f64,
    )?;
    let waiting = guard.clone();
    metrics.gauge(
        "keep_guard_queued",
        "Requests waiting for a slot.",
        move || waiting.queued() as f64,
    )?;
    let memory = guard.clone();
    metrics.gauge(
        "keep_memory_used_bytes",
        "Memory the process uses.",
        move || memory.memory().used_bytes as f64,
    )?;
    let memory = guard.clone();
    metrics.gauge(
        "keep_memory_budget_bytes",
        "Memory the process may use.",
        move || memory.memory().budget_bytes as f64,
    )
}

/// Writes on the board how the memory is.
fn tell_memory(guard: &Guard, board: &HealthBoard) {
    let (memory, pressure) = (guard.memory(), guard.pressure());
    let status = match pressure {
        Pressure::Normal | Pressure::Unknown | Pressure::Elevated => HealthStatus::Healthy,
        Pressure::High | Pressure::Severe => HealthStatus::Degraded,
        Pressure::Critical => HealthStatus::Unhealthy,
    };
    let (used, budget) = (memory.used_bytes >> 20, memory.budget_bytes >> 20);
    board.set(
        "memory",
        status,
        format!("{}: {used} of {budget} MiB", pressure.name()),
    );
}

/// A budget that was set is compared with the cache when the configuration is checked; one that was
/// derived from the machine is not a mistake of whoever wrote it.
const CACHE_TOO_LARGE: &str = "cache.capacity_bytes is more than half of the memory that this process \
     seems to have; expect it to be cut under pressure, or set CACHE_MAX_SIZE_MB or MEMORY_LIMIT";

/// How often streams that nobody needs any more are let go.
const SWEEP: Duration = Duration::from_secs(5);
