//! The circuit breaker itself.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::breaker::call::Call;
use crate::breaker::circuit::{Circuit, CircuitFigures, CircuitState};
use crate::breaker::config::BreakerConfig;
use crate::breaker::state::State;
use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::refusal::Refusal;

/// Keeps calls from what has failed too often of late. Cheap to clone; all clones are one circuit.
///
/// See the [module](crate::breaker) for when it opens and closes.
#[derive(Clone)]
pub struct CircuitBreaker {
    circuit: Arc<Circuit>,
}

/// Why [`CircuitBreaker::run`] has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError<E> {
    /// The call was not made.
    #[error("not called: {0}")]
    Refused(Refusal),
    /// It was, and failed with this.
    #[error(transparent)]
    Failed(E),
}

impl CircuitBreaker {
    /// A closed circuit of this name, which events and figures show.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `breaker`.
    pub fn new(
        name: impl Into<Arc<str>>,
        config: &BreakerConfig,
        clock: Clock,
        events: Events,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("breaker", &mut faults);
        faults.into_result()?;
        Ok(Self::checked(name.into(), config, clock, events))
    }

    /// With settings that were checked.
    pub(crate) fn checked(
        name: Arc<str>,
        config: &BreakerConfig,
        clock: Clock,
        events: Events,
    ) -> Self {
        Self {
            circuit: Arc::new(Circuit::new(name, config, clock, events)),
        }
    }

    /// Asks to make a call, and tells of what came of it by the [`Call`]. Never waits: a look at the clock and one
    /// at the state, without a lock or an allocation.
    ///
    /// # Errors
    ///
    /// [`Refusal::CircuitOpen`] while the circuit is open, or half-open with all probes under way.
    #[inline]
    pub fn admit(&self) -> Result<Call, Refusal> {
        let (ticket, began) = self.circuit.ask()?;
        Ok(Call::new(Arc::clone(&self.circuit), ticket, began))
    }

    /// Makes a call: `Err` is a failure. A future that is dropped midway counts as cancelled; one whose call
    /// was refused is dropped without having been polled.
    ///
    /// # Errors
    ///
    /// [`CallError::Refused`] if it was not made, else the future's own.
    pub async fn run<T, E>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let call = self.admit().map_err(CallError::Refused)?;
        match future.await {
            Ok(value) => {
                call.succeeded();
                Ok(value)
            }
            Err(error) => {
                call.failed();
                Err(CallError::Failed(error))
            }
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.circuit.name
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.circuit.state().into()
    }

    /// How it stands. For people, not for every call: it sums up the window.
    #[must_use]
    pub fn figures(&self) -> CircuitFigures {
        self.circuit.figures()
    }

    /// Opens it until [`force_close`](Self::force_close). What comes of calls under way counts no more.
    pub fn force_open(&self) {
        self.circuit.force(State::ForcedOpen);
    }

    /// Closes it, forgets what was counted, and goes on counting from there.
    pub fn force_close(&self) {
        self.circuit.force(State::Closed);
    }

    /// Whether calls are not made as usual, or were not until nobody asked for them any more.
    pub(crate) fn is_troubled(&self) -> bool {
        self.circuit.is_troubled()
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.circuit.name
    }

    /// Whether there is no other clone and no call under way.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.circuit) == 1
    }

    /// When a call of it was counted the last time, for comparison with others of the same settings.
    pub(crate) fn last_used(&self) -> u32 {
        self.circuit.last_used()
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.circuit.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::breaker::outcome::Outcome;
    use crate::clock::ManualClock;
    use crate::event::{Event, Recorder};

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            let text = match event {
                Event::CircuitChanged { circuit, from, to } => format!("{circuit}: {from} > {to}"),
                Event::CircuitRefused { circuit } => format!("{circuit}: refused"),
                other => format!("{other:?}"),
            };
            self.0.lock().unwrap().push(text);
        }
    }

    fn set(change: impl FnOnce(&mut BreakerConfig)) -> (CircuitBreaker, ManualClock, Arc<Heard>) {
        let mut config = BreakerConfig::default();
        change(&mut config);
        let ((clock, hand), heard) = (Clock::manual(), Arc::new(Heard::default()));
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let breaker = CircuitBreaker::new("db", &config, clock, events).unwrap();
        (breaker, hand, heard)
    }

    fn fail(breaker: &CircuitBreaker, times: usize) {
        for _ in 0..times {
            breaker.admit().unwrap().failed();
        }
    }

    #[test]
    fn a_life_of_a_circuit_is_told() {
        let (breaker, hand, heard) = set(|_| {});
        fail(&breaker, 5);
        let refusal = Refusal::CircuitOpen {
            retry_after: Duration::from_secs(30),
        };
        assert_eq!(breaker.admit().unwrap_err(), refusal);
        assert_eq!(breaker.figures().open_for, Some(Duration::from_secs(30)));
        hand.advance(Duration::from_secs(30));
        let probes = [(); 3].map(|()| breaker.admit().unwrap());
        assert!(breaker.admit().is_err());
        probes.into_iter().for_each(Call::succeeded);
        assert_eq!(breaker.state(), CircuitState::Closed);
        let told = [
            "db: closed > open",
            "db: refused",
            "db: open > half_open",
            "db: refused",
            "db: half_open > closed",
        ];
        assert_eq!(*heard.0.lock().unwrap(), told);
    }

    #[test]
    fn a_cancelled_call_has_failed_if_it_had_lasted() {
        for (after, lasted, failed) in [
            (Some(1000), 1000, true),
            (Some(1000), 999, false),
            (Some(0), 0, true),
            (None, 3_600_000, false),
        ] {
            let (breaker, hand, _) =
                set(|config| config.cancelled_after = after.map(Duration::from_millis));
            let call = breaker.admit().unwrap();
            hand.advance(Duration::from_millis(lasted));
            drop(call);
            let figures = breaker.figures();
            assert_eq!(
                (figures.failed, figures.succeeded),
                (failed.into(), 0),
                "{after:?} {lasted}"
            );
        }
    }

    #[test]
    fn a_call_that_panics_has_failed() {
        let (breaker, ..) = set(|_| {});
        let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _call = breaker.admit().unwrap();
            panic!("a mistake");
        }));
        assert!(called.is_err());
        assert_eq!(breaker.figures().failed, 1);
    }

    #[test]
    fn a_call_that_took_long_is_slow_where_that_is_watched() {
        for (percent, slow) in [(Some(80), 1), (None, 0)] {
            let (breaker, hand, _) = set(|config| config.slow_call_percent = percent);
            for millis in [4999, 5000] {
                let call = breaker.admit().unwrap();
                hand.advance(Duration::from_millis(millis));
                call.finish(Outcome::Succeeded);
            }
            let figures = breaker.figures();
            assert_eq!((figures.succeeded, figures.slow), (2, slow));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_is_run_as_a_call() {
        let (breaker, hand, _) = set(|_| {});
        assert_eq!(breaker.run(ready(Ok::<_, &str>(7))).await, Ok(7));
        for _ in 0..3 {
            let failed = breaker.run(ready(Err::<(), _>("broken"))).await;
            assert_eq!(failed, Err(CallError::Failed("broken")));
        }
        for _ in 0..2 {
            let hung = tokio::time::timeout(
                Duration::from_secs(2),
                breaker.run(async {
                    hand.advance(Duration::from_secs(2));
                    pending::<Result<(), &str>>().await
                }),
            );
            assert!(hung.await.is_err());
        }
        let refused = breaker.run(ready(Ok::<_, &str>(7))).await;
        assert!(matches!(refused, Err(CallError::Refused(_))));
    }

    #[test]
    fn one_that_is_switched_off_lets_everything_through_and_counts_nothing() {
        let (breaker, ..) = set(|config| config.enabled = false);
        fail(&breaker, 100);
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert_eq!(breaker.figures().failed, 0);
    }

    #[test]
    fn by_hand_it_opens_and_closes_whatever_was_counted() {
        let (breaker, hand, _) = set(|_| {});
        breaker.force_open();
        hand.advance(Duration::from_secs(3600));
        assert!(breaker.admit().is_err());
        assert_eq!(breaker.figures().open_for, None);
        breaker.force_close();
        fail(&breaker, 4);
        breaker.force_close();
        fail(&breaker, 4);
        assert_eq!(breaker.state(), CircuitState::Closed);
    }

    /// Eight threads ask of a half-open circuit all at once, many times over.
    #[test]
    fn never_more_probes_are_out_than_allowed() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        for _ in 0..200 {
            let (breaker, hand, _) = set(|_| {});
            fail(&breaker, 5);
            hand.advance(Duration::from_secs(30));
            let (out, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            let Ok(call) = breaker.admit() else { continue };
                            most.fetch_max(
                                out.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            out.fetch_sub(1, Ordering::SeqCst);
                            drop(call);
                        }
                    });
                }
            });
            assert!(most.into_inner() <= 3);
            let probes = [(); 3].map(|()| breaker.admit().unwrap());
            probes.into_iter().for_each(Call::succeeded);
            assert_eq!(breaker.state(), CircuitState::Closed, "no place was lost");
        }
    }
}
