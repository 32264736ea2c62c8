//! What is told of overload: the guard's figures, circuits, long-lived connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::metrics::figures::{Quantiles, read, words};
use crate::metrics::totals::Totals;

/// What the guard tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuardTotals {
    /// Requests admitted, and how long they waited in the queue.
    pub admitted: Quantiles,
    /// Requests turned away, by reason.
    pub refused: BTreeMap<Arc<str>, u64>,
    /// Changes of the level of memory pressure, by the level they led to.
    pub pressure_changes: BTreeMap<Arc<str>, u64>,
    /// Requests whose client left while they waited.
    pub left: u64,
    /// How often the number of slots was adapted.
    pub slots_changes: u64,
    /// How often the runtime began to lag behind.
    pub lags: u64,
    /// How often memory was given back, by action: `freeze`, `evict`, `purge`, `close`, `shed`.
    pub relieved: BTreeMap<Arc<str>, u64>,
    /// How often a leak was suspected.
    pub leaks: u64,
}

/// What circuit breakers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CircuitTotals {
    /// Changes of state, by the state they led to: `closed`, `open`, `half_open`.
    pub changes: BTreeMap<Arc<str>, u64>,
    /// Calls that were not made.
    pub refused: u64,
}

/// What the slots of long-lived connections tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionTotals {
    /// Connections that were let in.
    pub opened: u64,
    /// Those that are gone, by reason: `ended`, `stale`, `relieved`.
    pub closed: BTreeMap<Arc<str>, u64>,
    /// Those that were not let in, by reason.
    pub refused: BTreeMap<Arc<str>, u64>,
}

impl GuardTotals {
    pub(crate) fn of(totals: &Totals) -> Self {
        Self {
            admitted: Quantiles::of(totals.queue_wait.snapshot()),
            refused: words(&totals.refused),
            pressure_changes: words(&totals.pressure_changes),
            left: read(&totals.left),
            slots_changes: read(&totals.slots_changes),
            lags: read(&totals.lags),
            relieved: words(&totals.relieved),
            leaks: read(&totals.leaks),
        }
    }
}

impl CircuitTotals {
    pub(crate) fn of(totals: &Totals) -> Self {
        Self {
            changes: words(&totals.circuit_changes),
            refused: read(&totals.circuit_refused),
        }
    }
}

impl ConnectionTotals {
    pub(crate) fn of(totals: &Totals) -> Self {
        Self {
            opened: read(&totals.connections_opened),
            closed: words(&totals.connections_closed),
            refused: words(&totals.connections_refused),
        }
    }
}
