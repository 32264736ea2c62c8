//! Alerts, as a stack sets them up.

use crate::alerts::{AlertHandler, Alerts, AlertsParts};
use crate::error::ConfigError;
use crate::health::HealthBoard;
use crate::keep::engines::{Engines, Ground};
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;
use crate::metrics::Metrics;

/// Alerts that nobody has started yet. An instance that is not named for them is called what the board calls it.
///
/// # Errors
///
/// What is wrong with their settings.
pub(crate) fn alerts(
    ground: &Ground,
    metrics: &Metrics,
    engines: &Engines,
    board: &HealthBoard,
) -> Result<Alerts, ConfigError> {
    let parts = AlertsParts {
        metrics: metrics.clone(),
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        spawner: engines.tasks.spawner(),
        #[cfg(feature = "redis")]
        redis: engines.redis.clone(),
    };
    let mut config = ground.config.alerts.clone();
    if config.instance.is_empty() {
        let name = board.instance().chars();
        // Handlers may write it into a line of a log.
        config.instance = name.filter(|letter| !letter.is_control()).collect();
    }
    let rules = config.in_force_for(ground.config.guard.queue);
    Alerts::of_rules(&config, rules, parts)
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
