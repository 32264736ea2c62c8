//! What runs beside the requests, and how the parts act on one another.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
use crate::event::Event;
use crate::guard::{Guard, Pressure};
use crate::health::{HealthBoard, HealthStatus};
use crate::keep::parts::Keep;
use crate::keep::relief::{Caches, Purge, Relief};
use crate::keep::runtime::RuntimeBeat;
use crate::task::Spawner;
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
    crate::keep::connections::start(keep)?;
    crate::keep::journal::start(keep)?;
    crate::keep::tiers::start(keep)?;
    crate::keep::circuits::start(keep)?;
    crate::keep::admin::start(keep)?;
    let budget = keep.guard().memory().budget_bytes;
    if keep.config().cache.enabled && budget > 0 && keep.http_cache().capacity_bytes() > budget / 2
    {
        keep.events().emit(Event::Warning {
            text: CACHE_TOO_LARGE,
        });
    }
    if keep.config().guard.enabled {
        watch_memory(keep, &spawner, board);
    }
    let paced = keep.guard().clone();
    spawner.spawn_until_stopped(async move { paced.pace().await });
    crate::keep::runtime::start(keep)?;
    if keep.config().progress.enabled {
        let progress = keep.progress().clone();
        spawner.every(SWEEP, move || progress.sweep());
    }
    keep.start_coherency();
    crate::keep::figures::start(keep);
    #[cfg(feature = "metrics-facade")]
    crate::keep::facade::start(keep);
    crate::keep::health::start(keep);
    crate::keep::report::start(keep);
    crate::keep::gauges::start(keep)
}

/// Lets the memory be sampled, and everybody act who can give some back.
fn watch_memory(keep: &Keep, spawner: &Spawner, board: HealthBoard) {
    let config = &keep.config().guard;
    let (guard, events) = (keep.guard().clone(), keep.events());
    let (cache, tiers) = (keep.http_cache().clone(), keep.tiers().clone());
    let caches = Arc::new(Caches::new(cache, tiers, events.clone()));
    let (held, warmer) = (Arc::clone(&caches), keep.warmer().clone());
    guard.caches_hold(move || held.bytes());
    // Whoever else has something to give back, such as long-lived connections, hears of the level here.
    guard.on_pressure(move |pressure| {
        caches.relieve(pressure);
        rest(&warmer, pressure);
    });
    let purge = keep.purge_hook().map(|hook| {
        let (clock, events) = (keep.clock().clone(), events.clone());
        Purge::new(hook, config.purge_every, clock, events, spawner.clone())
    });
    let mut relief = Relief::new(guard.clone(), events.clone(), purge);
    let mut runtime = RuntimeBeat::new(keep);
    spawner.every(config.memory_sample, move || {
        guard.sample();
        relief.follow();
        runtime.beat();
        tell_memory(&guard, &board);
    });
}

/// Nothing is computed that nobody waits for while memory is short.
fn rest(warmer: &Warmer, pressure: Pressure) {
    match pressure {
        Pressure::Normal | Pressure::Unknown | Pressure::Elevated => warmer.resume(),
        Pressure::High | Pressure::Severe | Pressure::Critical => warmer.pause(),
    }
}

/// Writes on the board how the memory is.
fn tell_memory(guard: &Guard, board: &HealthBoard) {
    let (memory, pressure, leak) = (guard.memory(), guard.pressure(), guard.leak());
    let status = match pressure {
        Pressure::Normal | Pressure::Unknown | Pressure::Elevated if leak.is_none() => {
            HealthStatus::Healthy
        }
        Pressure::Critical => HealthStatus::Unhealthy,
        _ => HealthStatus::Degraded,
    };
    let (used, budget) = (memory.used_bytes >> 20, memory.budget_bytes >> 20);
    let mut words = match pressure {
        Pressure::Unknown => format!("unknown: {UNREADABLE}"),
        _ => format!("{}: {used} of {budget} MiB", pressure.name()),
    };
    if let Some(leak) = leak {
        let (grows, minutes) = (leak.bytes_per_hour >> 20, leak.until_limit.as_secs() / 60);
        let advice = leak.recommendation;
        words.push_str(&format!(
            "; a leak? {grows} MiB an hour, {minutes} min to the limit: {advice}"
        ));
    }
    board.set("memory", status, words);
}

const UNREADABLE: &str =
    "the memory of this process cannot be read here, so nobody is refused for it";

/// A budget that was set is compared with the cache when the configuration is checked; one that was
/// derived from the machine is not a mistake of whoever wrote it.
const CACHE_TOO_LARGE: &str = "cache.capacity_bytes is more than half of the memory that this process \
     seems to have; expect it to be cut under pressure, or set CACHE_MAX_SIZE_MB or MEMORY_LIMIT";

/// How often streams that nobody needs any more are let go.
const SWEEP: Duration = Duration::from_secs(5);
