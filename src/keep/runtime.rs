//! How the runtime and the process fare, as health and metrics tell it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::ConfigError;
use crate::guard::{Canary, Guard, RuntimeReading, RuntimeSampler};
use crate::health::{HealthBoard, HealthStatus};
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;
use crate::task::Spawner;

/// Starts the canary and registers the gauges.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let config = &keep.config().guard;
    if config.enabled {
        let health = Arc::clone(keep.guard().runtime_health());
        let (clock, events) = (keep.clock().clone(), keep.events().clone());
        let (lags, expects) = (keep.guard().clone(), keep.guard().clone());
        let canary = Canary::new(config, clock, events, health)
            .on_lag(move |lag| lags.on_lag(lag))
            .on_sleep(move |due| expects.expect_canary(due));
        keep.spawner().spawn_until_stopped(canary.run());
    }
    show(keep.metrics(), keep.guard(), &RUNTIME)
}

/// Takes the figures that need no task of their own.
#[derive(Debug)]
pub(crate) struct RuntimeBeat {
    sampler: RuntimeSampler,
    guard: Guard,
    clock: Clock,
    spawner: Spawner,
    board: HealthBoard,
    told: Option<(Moment, HealthStatus)>,
}

impl RuntimeBeat {
    pub(crate) fn new(keep: &Keep) -> Self {
        Self {
            sampler: RuntimeSampler::new(),
            guard: keep.guard().clone(),
            clock: keep.clock().clone(),
            spawner: keep.spawner(),
            board: keep.health_board().clone(),
            told: None,
        }
    }

    /// To be called at each sample of the memory.
    pub(crate) fn beat(&mut self) {
        let (now, health) = (self.clock.now(), self.guard.runtime_health());
        self.sampler.sample(now, self.spawner.worked(), health);
        let reading = self.guard.runtime();
        let status = status(&reading);
        // A change is told at once; figures are put into words no more often than somebody reads them.
        let known = self
            .told
            .is_some_and(|(at, told)| told == status && now.since(at) < TELL_EVERY);
        if !known {
            self.told = Some((now, status));
            self.board.set("runtime", status, words(&reading));
        }
    }
}

fn status(reading: &RuntimeReading) -> HealthStatus {
    let crowded = reading
        .descriptors
        .zip(reading.descriptors_max)
        .is_some_and(|(open, max)| open > max / 10 * 9);
    match reading.lagging || crowded {
        true => HealthStatus::Degraded,
        false => HealthStatus::Healthy,
    }
}

fn words(reading: &RuntimeReading) -> String {
    let percent = |share: Option<f32>| match share {
        Some(share) => format!("{:.0} %", share * 100.0),
        None => "unknown".to_owned(),
    };
    let count = |count: Option<u64>| count.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    format!(
        "{}lag {:.1} ms, p99 {:.1} ms; workers busy {}; cpu {}; descriptors {} of {}",
        if reading.lagging { "lagging: " } else { "" },
        reading.lag.as_secs_f64() * 1e3,
        reading.lag_p99.as_secs_f64() * 1e3,
        percent(reading.busy),
        percent(reading.cpu),
        count(reading.descriptors),
        count(reading.descriptors_max),
    )
}

const RUNTIME: [Row<Guard>; 5] = [
    (
        "keep_runtime_lag_seconds",
        "How late tasks are woken: what 99 of 100 did not exceed within 10 s.",
        |guard| guard.runtime().lag_p99.as_secs_f64(),
    ),
    (
        "keep_runtime_busy_ratio",
        "The share of their time in which the workers are busy.",
        |guard| guard.runtime().busy.map_or(f64::NAN, f64::from),
    ),
    (
        "keep_process_cpu_ratio",
        "CPU time of the process by the time that passes: 1 is one core.",
        |guard| guard.runtime().cpu.map_or(f64::NAN, f64::from),
    ),
    (
        "keep_process_open_fds",
        "Descriptors that are open.",
        |guard| figure(guard.runtime().descriptors),
    ),
    (
        "keep_process_max_fds",
        "Descriptors that may be open.",
        |guard| figure(guard.runtime().descriptors_max),
    ),
];

fn figure(count: Option<u64>) -> f64 {
    count.map_or(f64::NAN, |count| count as f64)
}

/// How old the figures on the board may be.
const TELL_EVERY: Duration = Duration::from_secs(5);
