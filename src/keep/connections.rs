//! What a stack does with connections that stay: takes back the slots of the silent, sooner while memory is
//! short.

use std::time::Duration;

use crate::connections::Connections;
use crate::error::ConfigError;
use crate::guard::Pressure;
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;

/// Starts the beat. It does not hold the `Keep`.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let connections = keep.connections();
    if keep.config().connections.enabled {
        let (swept, guard) = (connections.clone(), keep.guard().clone());
        keep.spawner().every(BEAT, move || {
            swept.sweep();
            // Whoever has fallen silent since the level changed.
            ease(&swept, guard.pressure());
        });
        let eased = connections.clone();
        keep.guard().on_pressure(move |pressure| {
            shut(&eased, pressure);
            ease(&eased, pressure);
        });
    }
    show(keep.metrics(), connections, &CONNECTIONS)
}

const CONNECTIONS: [Row<Connections>; 2] = [
    (
        "keep_connections_open",
        "Long-lived connections that hold a slot.",
        |connections| connections.open_count() as f64,
    ),
    (
        "keep_connections_tenants",
        "Tenants with a long-lived connection.",
        |connections| connections.tenants() as f64,
    ),
];

/// At critical pressure nobody new is let in.
fn shut(connections: &Connections, pressure: Pressure) {
    if pressure == Pressure::Critical {
        connections.pause();
    } else {
        connections.resume();
    }
}

/// Who has to go at each level of memory pressure: a heartbeat of 15 s keeps a connection through a severe
/// one, and only what is busy lives through a critical one.
fn ease(connections: &Connections, pressure: Pressure) {
    let patience = match pressure {
        Pressure::Critical => Duration::from_secs(5),
        Pressure::Severe => Duration::from_secs(30),
        Pressure::High | Pressure::Elevated | Pressure::Normal | Pressure::Unknown => return,
    };
    connections.relieve(patience);
}

/// How often the silent are looked for: a fraction of any patience there is.
const BEAT: Duration = Duration::from_secs(1);
