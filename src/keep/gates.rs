//! What lets requests, connections and calls through, or does not.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::CircuitBreakers;
use crate::clock::Clock;
use crate::config::KeepConfig;
use crate::connections::Connections;
use crate::database::DatabaseConfig;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events, Recorder};
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
        let database_slots = noted(database_slots(&config.database, clock, events), faults);
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
    events: &Events,
) -> Result<ConcurrencyLimit, ConfigError> {
    let config = LimitConfig {
        slots: database.connections_max as usize,
        queue: database.queue,
        queue_timeout: database.acquire_timeout,
    };
    let waits = DatabaseWaits {
        events: events.clone(),
        patience: database.acquire_timeout,
    };
    ConcurrencyLimit::new(&config, clock.clone(), Events::to(vec![Arc::new(waits)]))
}

/// Tells what a limit tells as what it is: waits for the database.
#[derive(Debug)]
struct DatabaseWaits {
    events: Events,
    /// How long somebody has waited who is turned away for that.
    patience: Duration,
}

impl Recorder for DatabaseWaits {
    fn record(&self, event: &Event<'_>) {
        let (waited, served) = match *event {
            Event::GuardAdmitted { waited } => (waited, true),
            Event::GuardLeft { waited } => (waited, false),
            // The queue sheds nobody who has not waited for as long as that.
            Event::GuardRefused {
                why: "queue_timeout" | "shed",
                ..
            } => (self.patience, false),
            Event::GuardRefused { waited, .. } => (waited, false),
            _ => return,
        };
        self.events.emit(Event::DatabaseWaited { waited, served });
    }
}

/// What was built, or its faults added to the others.
pub(crate) fn noted<T>(built: Result<T, ConfigError>, faults: &mut Faults) -> Option<T> {
    built.map_err(|error| faults.absorb(error)).ok()
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Mutex;
    use std::task::{Context, Waker};

    use super::*;
    use crate::guard::{Admission, Criticality};

    #[derive(Default)]
    struct Waits(Mutex<Vec<(Duration, bool)>>);

    impl Recorder for Waits {
        fn record(&self, event: &Event<'_>) {
            if let Event::DatabaseWaited { waited, served } = *event {
                self.0.lock().unwrap().push((waited, served));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_displaced_from_the_databases_queue_has_waited() {
        let (clock, hand) = Clock::manual();
        let waits = Arc::new(Waits::default());
        let events = Events::to(vec![Arc::<Waits>::clone(&waits)]);
        let config = DatabaseConfig {
            connections_max: 1,
            queue: 1,
            ..DatabaseConfig::default()
        };
        let slots = database_slots(&config, &clock, &events).unwrap();
        let _held = slots.acquire(Criticality::Critical).await.unwrap();
        let mut waiting = std::pin::pin!(slots.acquire(Criticality::Sheddable));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        let waited = Duration::from_millis(200);
        hand.advance(waited);
        let Admission::Wait(_vital) = slots.admit(Criticality::Critical) else {
            panic!("somebody gives up a place");
        };
        assert!(waiting.await.is_err());
        let told = waits.0.lock().unwrap().clone();
        assert_eq!(told, [(Duration::ZERO, true), (waited, false)]);
    }
}
