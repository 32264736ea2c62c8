//! The tiers, as health and metrics tell of them.

use std::time::Duration;

use crate::error::ConfigError;
use crate::health::{HealthBoard, HealthStatus};
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;
use crate::tiers::{ColdFigures, Tiers};

/// What the board says of the cold store is at most so old.
const ROUND: Duration = Duration::from_secs(1);

/// Tells the board how the cold store is, if there is one, and registers the tiers' gauges.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let (tiers, board) = (keep.tiers().clone(), keep.health_board().clone());
    if let Some(figures) = tiers.cold_figures() {
        let mut failures = figures.failures;
        tell(&board, &figures, false);
        keep.spawner().every(ROUND, move || {
            let Some(figures) = tiers.cold_figures() else {
                return;
            };
            tell(&board, &figures, figures.failures > failures);
            failures = figures.failures;
        });
    }
    show(keep.metrics(), keep.tiers(), &TIERS)
}

fn tell(board: &HealthBoard, figures: &ColdFigures, fails: bool) {
    let status = match fails {
        true => HealthStatus::Degraded,
        false => HealthStatus::Healthy,
    };
    let (waiting, dropped) = (figures.waiting, figures.dropped);
    let words = match (fails, waiting) {
        (true, waiting) => {
            format!("cannot be written; {waiting} wait, {dropped} were dropped so far")
        }
        (false, 0) => "all is written".to_owned(),
        (false, waiting) => format!("{waiting} wait to be written"),
    };
    board.set("cold_store", status, words);
}

const TIERS: [Row<Tiers>; 5] = [
    (
        "keep_tiers_bytes",
        "Memory taken up by values of typed caches.",
        |tiers| tiers.bytes() as f64,
    ),
    (
        "keep_tiers_entries",
        "Values of typed caches in memory.",
        |tiers| tiers.len() as f64,
    ),
    (
        "keep_tiers_hot_hits",
        "Values of typed caches that were served from memory so far.",
        |tiers| tiers.stats().hits_hot as f64,
    ),
    (
        "keep_cold_waiting",
        "Entries that wait to be written to the cold store.",
        |tiers| tiers.cold_figures().unwrap_or_default().waiting as f64,
    ),
    (
        "keep_cold_dropped",
        "Entries that were never written to the cold store.",
        |tiers| tiers.cold_figures().unwrap_or_default().dropped as f64,
    ),
];
