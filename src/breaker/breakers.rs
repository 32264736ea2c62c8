//! Circuits by name, as many as are allowed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::quality::RandomState;

use crate::breaker::circuit::{CircuitFigures, CircuitState};
use crate::breaker::config::BreakerConfig;
use crate::breaker::engine::CircuitBreaker;
use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Circuits by what is called: one for each upstream host, say. Cheap to clone; all clones share their circuits.
#[derive(Clone)]
pub struct CircuitBreakers {
    shared: Arc<Shared>,
}

struct Shared {
    config: BreakerConfig,
    clock: Clock,
    events: Events,
    known: RwLock<Known>,
    /// For those that there is no place for.
    others: CircuitBreaker,
}

type Known = HashMap<Arc<str>, CircuitBreaker, RandomState>;

impl CircuitBreakers {
    /// No circuit yet; each that is asked for will have these settings.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `breaker`.
    pub fn new(config: &BreakerConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("breaker", &mut faults);
        faults.into_result()?;
        let others = CircuitBreaker::checked(OTHERS.into(), config, clock.clone(), events.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                clock,
                events,
                known: RwLock::new(Known::default()),
                others,
            }),
        })
    }

    /// The circuit of this name, of which the first 255 bytes count. Costs a lookup where it is known.
    ///
    /// Beyond [`circuits_max`](BreakerConfig::circuits_max) a new name takes the place of one that is closed, that
    /// nobody holds and that was not called for longest. Where there is none, all that are new share one circuit,
    /// whose name is `(others)`.
    #[must_use]
    pub fn of(&self, name: &str) -> CircuitBreaker {
        let name = name
            .get(..name.floor_char_boundary(NAME_MAX))
            .unwrap_or(name);
        let known = self.known().get(name).cloned();
        known.unwrap_or_else(|| self.enter(name))
    }

    #[cold]
    fn enter(&self, name: &str) -> CircuitBreaker {
        let shared = &self.shared;
        let most = shared.config.circuits_max;
        let mut known = shared.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = known.get(name) {
            return breaker.clone();
        }
        if known.len() >= most {
            make_room(&mut known, most);
        }
        if known.len() >= most {
            return shared.others.clone();
        }
        let name: Arc<str> = name.into();
        let (clock, events) = (shared.clock.clone(), shared.events.clone());
        let breaker = CircuitBreaker::checked(Arc::clone(&name), &shared.config, clock, events);
        known.insert(name, breaker.clone());
        breaker
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        let known = self.shared.known.read();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of those that are not closed, in order. One that nobody has called for five minutes, since
    /// it might be tried again, is left out: whether it works nobody knows, nor wants to.
    #[must_use]
    pub fn open(&self) -> Vec<Arc<str>> {
        let mut open: Vec<_> = {
            let known = self.known();
            let all = known.values().chain([&self.shared.others]);
            let troubled = all.filter(|breaker| breaker.is_troubled());
            troubled
                .map(|breaker| Arc::clone(breaker.shared_name()))
                .collect()
        };
        open.sort_unstable();
        open
    }

    /// How all of them stand, by name.
    #[must_use]
    pub fn figures(&self) -> Vec<CircuitFigures> {
        let mut figures: Vec<_> = self.known().values().map(CircuitBreaker::figures).collect();
        let others = self.shared.others.figures();
        if others.state != CircuitState::Closed || others.succeeded + others.failed > 0 {
            figures.push(others);
        }
        figures.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        figures
    }

    /// How many are kept apart by name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Whether none was asked for yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Forgets an eighth at a time, so that a flood of names does not look through all of them for each. Nobody
/// can begin to use one meanwhile: that takes a look at the map.
fn make_room(known: &mut Known, most: usize) {
    let idle = known
        .values()
        .filter(|breaker| breaker.is_alone() && !breaker.is_troubled());
    let mut idle: Vec<_> = idle
        .map(|breaker| (breaker.last_used(), Arc::clone(breaker.shared_name())))
        .collect();
    let leaving = (most / 8).max(1).min(idle.len());
    if leaving < idle.len() {
        idle.select_nth_unstable(leaving);
    }
    for (_, name) in idle.drain(..leaving) {
        known.remove(&name);
    }
}

impl fmt::Debug for CircuitBreakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakers")
            .field("len", &self.len())
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// What those are called together that there is no place for.
const OTHERS: &str = "(others)";

/// How much of a name counts, in bytes: as much as a host name can have (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    fn breakers(most: usize) -> (CircuitBreakers, ManualClock) {
        let config = BreakerConfig {
            circuits_max: most,
            ..BreakerConfig::default()
        };
        let (clock, hand) = Clock::manual();
        (
            CircuitBreakers::new(&config, clock, Events::none()).unwrap(),
            hand,
        )
    }

    fn fail(breaker: &CircuitBreaker) {
        for _ in 0..5 {
            breaker.admit().unwrap().failed();
        }
        assert_eq!(breaker.state(), CircuitState::Open);
    }

    #[test]
    fn each_name_has_a_circuit_of_its_own() {
        let (breakers, _) = breakers(256);
        assert!(breakers.is_empty());
        fail(&breakers.of("a.test"));
        assert!(breakers.of("a.test").admit().is_err());
        assert!(breakers.of("a.test").admit().is_err());
        assert!(breakers.of("b.test").admit().is_ok());
        assert_eq!(breakers.open(), [Arc::<str>::from("a.test")]);
        let figures = breakers.figures();
        let states: Vec<_> = figures.iter().map(|it| (&*it.name, it.state)).collect();
        let (open, closed) = (CircuitState::Open, CircuitState::Closed);
        assert_eq!(states, [("a.test", open), ("b.test", closed)]);
    }

    #[test]
    fn a_flood_of_names_neither_grows_nor_pushes_out_what_matters() {
        let (breakers, hand) = breakers(64);
        let held = breakers.of("held");
        fail(&breakers.of("open"));
        let busy = breakers.of("under way").admit().unwrap();
        breakers.of("used").admit().unwrap().succeeded();
        hand.advance(Duration::from_secs(4));
        for name in 0..40 {
            breakers.of(&name.to_string()).admit().unwrap().succeeded();
        }
        hand.advance(Duration::from_secs(4));
        breakers.of("used").admit().unwrap().succeeded();
        for name in 40..70 {
            breakers.of(&name.to_string()).admit().unwrap().succeeded();
            assert!(breakers.len() <= 64);
        }
        assert_eq!(breakers.of("open").state(), CircuitState::Open);
        assert_eq!(breakers.of("used").figures().succeeded, 2, "of late");
        for name in 0..10_000 {
            drop(breakers.of(&name.to_string()));
            assert!(breakers.len() <= 64);
        }
        assert_eq!(breakers.of("open").state(), CircuitState::Open);
        busy.failed();
        assert_eq!(breakers.of("under way").figures().failed, 1);
        drop(held);
    }

    #[test]
    fn where_all_are_in_use_the_others_share_one() {
        let (breakers, _) = breakers(2);
        let held = ["a", "b"].map(|name| breakers.of(name));
        let more = breakers.of("c");
        assert_eq!((more.name(), breakers.len()), ("(others)", 2));
        fail(&more);
        assert!(breakers.of("d").admit().is_err());
        assert_eq!(breakers.open(), [Arc::<str>::from("(others)")]);
        assert_eq!(breakers.figures().len(), 3);
        drop(held);
        assert_eq!(breakers.of("c").name(), "c");
    }

    #[test]
    fn an_open_circuit_that_nobody_calls_any_more_is_forgotten_after_a_while() {
        let (breakers, hand) = breakers(1);
        fail(&breakers.of("a"));
        hand.advance(Duration::from_secs(30 + 299));
        assert_eq!(
            (breakers.open().len(), breakers.of("b").name()),
            (1, "(others)")
        );
        hand.advance(Duration::from_secs(1));
        assert_eq!((breakers.open().len(), breakers.of("b").name()), (0, "b"));
    }

    #[test]
    fn of_a_long_name_the_beginning_counts() {
        let (breakers, _) = breakers(8);
        let long = "ä".repeat(1000);
        assert_eq!(breakers.of(&long).name().len(), 254, "whole letters only");
        let _ = breakers.of(&long[..400]);
        assert_eq!(breakers.len(), 1);
    }

    #[test]
    fn a_faulty_configuration_makes_no_breakers() {
        let config = BreakerConfig {
            probes: 0,
            ..BreakerConfig::default()
        };
        let (clock, events) = (Clock::manual().0, Events::none());
        let error = CircuitBreakers::new(&config, clock.clone(), events.clone()).unwrap_err();
        assert_eq!(error.faults()[0].field, "breaker.probes");
        assert!(CircuitBreaker::new("a", &config, clock, events).is_err());
    }
}
