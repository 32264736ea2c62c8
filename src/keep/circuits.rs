//! Circuit breakers by name, and what health and metrics tell of them.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::{BreakerLayer, CircuitBreaker, CircuitBreakers};
use crate::error::ConfigError;
use crate::health::{HealthBoard, HealthStatus};
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;

/// What the board says of circuits is at most so old.
const ROUND: Duration = Duration::from_secs(1);

/// How many names the board shows.
const SHOWN: usize = 5;

impl Keep {
    /// The circuit of this name; see [`CircuitBreakers::of`].
    #[must_use]
    pub fn breaker(&self, name: &str) -> CircuitBreaker {
        self.breakers().of(name)
    }

    /// A layer around handlers that depend on what is called so, or around a client of it. Inside of
    /// [`layer`](Self::layer), so that the cache can answer with what it has while the circuit is open.
    #[must_use]
    pub fn breaker_layer(&self, name: &str) -> BreakerLayer {
        BreakerLayer::new(self.breaker(name))
    }
}

/// Tells the board which circuits are open, and registers the gauge.
///
/// # Errors
///
/// When the gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    if keep.config().breaker.enabled {
        let (breakers, board) = (keep.breakers().clone(), keep.health_board().clone());
        keep.spawner()
            .every(ROUND, move || tell(&board, &breakers.open()));
    }
    show(keep.metrics(), keep.breakers(), &CIRCUITS)
}

const CIRCUITS: [Row<CircuitBreakers>; 1] = [(
    "keep_circuits_open",
    "Circuits that are open or half-open.",
    |breakers| breakers.open().len() as f64,
)];

fn tell(board: &HealthBoard, open: &[Arc<str>]) {
    let status = match open {
        [] => HealthStatus::Healthy,
        _ => HealthStatus::Degraded,
    };
    board.set("circuits", status, words(open));
}

fn words(open: &[Arc<str>]) -> String {
    if open.is_empty() {
        return "all closed".to_owned();
    }
    let shown = open.get(..SHOWN).unwrap_or(open).join(", ");
    match open.len().saturating_sub(SHOWN) {
        0 => format!("open: {shown}"),
        more => format!("open: {shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_circuits_are_named_up_to_a_few() {
        let names: Vec<Arc<str>> = "abcdefg".chars().map(|c| c.to_string().into()).collect();
        assert_eq!(words(&[]), "all closed");
        assert_eq!(words(&names[..1]), "open: a");
        assert_eq!(words(&names[..5]), "open: a, b, c, d, e");
        assert_eq!(words(&names), "open: a, b, c, d, e and 2 more");
        let board = HealthBoard::new();
        tell(&board, &names[..1]);
        assert_eq!(board.health().status, HealthStatus::Degraded);
        tell(&board, &[]);
        assert_eq!(board.health().status, HealthStatus::Healthy);
    }
}
