//! The journal, as health and metrics tell of it.

use std::time::Duration;

use crate::error::ConfigError;
use crate::health::{HealthBoard, HealthStatus};
use crate::journal::{Journal, JournalStatus};
use crate::keep::parts::Keep;

/// What the board says of it is at most so old.
const ROUND: Duration = Duration::from_millis(500);

/// Tells the board how the journal is, and registers its gauges.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let (journal, board) = (keep.journal().clone(), keep.health_board().clone());
    tell(&journal, &board);
    keep.spawner().every(ROUND, move || tell(&journal, &board));
    register_gauges(keep)
}

fn tell(journal: &Journal, board: &HealthBoard) {
    let (status, words) = match journal.status() {
        JournalStatus::Verified => (HealthStatus::Healthy, "all are heard".to_owned()),
        JournalStatus::Unverified { since, why } => (
            HealthStatus::Degraded,
            format!(
                "not all may have been heard for {} ms: {why}",
                since.as_millis()
            ),
        ),
    };
    let words = match journal.figures().waiting {
        0 => words,
        waiting => format!("{words}; {waiting} wait to be recorded"),
    };
    board.set("invalidation", status, words);
}

fn register_gauges(keep: &Keep) -> Result<(), ConfigError> {
    let metrics = keep.metrics();
    let journal = keep.journal().clone();
    metrics.gauge(
        "keep_journal_verified",
        "Whether everything that was invalidated is known to be heard.",
        move || f64::from(u8::from(journal.status() == JournalStatus::Verified)),
    )?;
    let journal = keep.journal().clone();
    metrics.gauge(
        "keep_journal_markers",
        "Names and patterns that are remembered as invalidated.",
        move || journal.figures().markers as f64,
    )?;
    let journal = keep.journal().clone();
    metrics.gauge(
        "keep_journal_bytes",
        "Roughly the memory that they take up.",
        move || journal.figures().bytes as f64,
    )?;
    let journal = keep.journal().clone();
    metrics.gauge(
        "keep_journal_waiting",
        "Invalidations that wait to be recorded in Redis.",
        move || journal.figures().waiting as f64,
    )
}
