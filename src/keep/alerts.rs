//! Alerts, as a stack sets them up.

use crate::alerts::{AlertHandler, Alerts, AlertsParts};
use crate::error::ConfigError;
use crate::keep::engines::{Engines, Ground};
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;
use crate::metrics::Metrics;

/// Alerts that nobody has started yet.
///
/// # Errors
///
/// What is wrong with their settings.
pub(crate) fn alerts(
    ground: &Ground,
    metrics: &Metrics,
    engines: &Engines,
) -> Result<Alerts, ConfigError> {
    let parts = AlertsParts {
        metrics: metrics.clone(),
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        spawner: engines.tasks.spawner(),
        #[cfg(feature = "redis")]
        redis: engines.redis.clone(),
    };
    Alerts::new(&ground.config.alerts, parts)
}

/// Starts the rounds, after the handlers are there, and registers the gauges.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep, handlers: Vec<Box<dyn AlertHandler>>) -> Result<(), ConfigError> {
    let alerts = keep.alerts();
    for handler in handlers {
        alerts.add(handler);
    }
    show(keep.metrics(), alerts, &ALERTS)?;
    alerts.start();
    Ok(())
}

const ALERTS: [Row<Alerts>; 3] = [
    ("keep_alerts_firing", "Alert rules that fire.", |alerts| {
        alerts.firing() as f64
    }),
    (
        "keep_alerts_waiting",
        "Alerts that wait for a handler.",
        |alerts| alerts.figures().waiting as f64,
    ),
    (
        "keep_alerts_lost",
        "Alerts that a handler was never told: failed too often, or dropped for later ones.",
        |alerts| {
            let figures = alerts.figures();
            (figures.failed + figures.dropped) as f64
        },
    ),
];
