//! What lets requests, connections and calls through, or does not.

use crate::breaker::CircuitBreakers;
use crate::clock::Clock;
use crate::config::KeepConfig;
use crate::connections::Connections;
use crate::database::DatabaseConfig;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::guard::{ConcurrencyLimit, Guard, LimitConfig};

/// The guard, and its likes for other things than requests.
#[derive(Debug)]
pub(crate) struct Gates {
    pub(crate) guard: Guard,
    pub(crate) connections: Connections,
    pub(crate) breakers: CircuitBreakers,
    pub(crate) database_slots: ConcurrencyLimit,
}

impl Gates {
    /// Builds them all, or none and notes why.
    pub(crate) fn new(
        config: &KeepConfig,
        clock: &Clock,
        events: &Events,
        faults: &mut Faults,
    ) -> Option<Self> {
        let (time, told) = (|| clock.clone(), || events.clone());
        let guard = noted(Guard::new(&config.guard, time(), told()), faults);
        let connections = Connections::new(&config.connections, time(), told());
        let connections = noted(connections, faults);
        let breakers = CircuitBreakers::new(&config.breaker, time(), told());
        let breakers = noted(breakers, faults);
        let database_slots = noted(database_slots(&config.database, clock), faults);
        Some(Self {
            guard: guard?,
            connections: connections?,
            breakers: breakers?,
            database_slots: database_slots?,
        })
    }
}

/// As many slots as a pool has connections. What waits there is no request, so the guard's figures do not
/// count it.
fn database_slots(
    database: &DatabaseConfig,
    clock: &Clock,
) -> Result<ConcurrencyLimit, ConfigError> {
    let config = LimitConfig {
        slots: database.connections_max as usize,
        queue: database.queue,
        queue_timeout: database.acquire_timeout,
    };
    ConcurrencyLimit::new(&config, clock.clone(), Events::none())
}

/// What was built, or its faults added to the others.
pub(crate) fn noted<T>(built: Result<T, ConfigError>, faults: &mut Faults) -> Option<T> {
    built.map_err(|error| faults.absorb(error)).ok()
}
