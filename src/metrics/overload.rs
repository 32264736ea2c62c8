//! What is told of overload: the guard's figures, circuits, long-lived connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::metrics::figures::Quantiles;
use crate::metrics::sheet::Sheet;
use crate::metrics::totals::{Count, Time, Word};

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
    pub(crate) fn of(sheet: &Sheet) -> Self {
        Self {
            admitted: Quantiles::of(sheet.time(Time::QueueWait).clone()),
            refused: sheet.word(Word::Refused),
            pressure_changes: sheet.word(Word::PressureChanges),
            left: sheet.count(Count::Left),
            slots_changes: sheet.count(Count::SlotsChanges),
            lags: sheet.count(Count::Lags),
            relieved: sheet.word(Word::Relieved),
            leaks: sheet.count(Count::Leaks),
        }
    }
}

impl CircuitTotals {
    pub(crate) fn of(sheet: &Sheet) -> Self {
        Self {
            changes: sheet.word(Word::CircuitChanges),
            refused: sheet.count(Count::CircuitRefused),
        }
    }
}

impl ConnectionTotals {
    pub(crate) fn of(sheet: &Sheet) -> Self {
        Self {
            opened: sheet.count(Count::ConnectionsOpened),
            closed: sheet.word(Word::ConnectionsClosed),
            refused: sheet.word(Word::ConnectionsRefused),
        }
    }
}
