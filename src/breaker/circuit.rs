//! One circuit: its machine, with a name, a clock and somebody to tell.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::breaker::config::BreakerConfig;
use crate::breaker::machine::{Asked, Change, Machine, Ticket, Told};
use crate::breaker::outcome::Outcome;
use crate::breaker::rules::Rules;
use crate::breaker::state::State;
use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::refusal::Refusal;

/// The state of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Calls are made, and what comes of them is counted.
    #[default]
    Closed,
    /// No call is made. It stays so until somebody asks after its time, who is the first probe then.
    Open,
    /// A few calls are made, to see.
    HalfOpen,
}

impl CircuitState {
    /// `closed`, `open` or `half_open`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl From<State> for CircuitState {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open { .. } | State::ForcedOpen => Self::Open,
            State::HalfOpen { .. } => Self::HalfOpen,
        }
    }
}

/// How a circuit stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CircuitFigures {
    /// Its name: what is called.
    pub name: Arc<str>,
    /// Its state.
    pub state: CircuitState,
    /// Calls that succeeded within the window. While it is open, nothing new is counted.
    pub succeeded: u64,
    /// Calls that failed within the window.
    pub failed: u64,
    /// Those among both that took longer than `slow_call_ms`, if that is watched.
    pub slow: u64,
    /// Failures since the last success.
    pub in_a_row: u64,
    /// How long it stays open, if it is and not by hand.
    pub open_for: Option<Duration>,
}

/// Everything about a circuit.
#[derive(Debug)]
pub(crate) struct Circuit {
    pub(crate) name: Arc<str>,
    enabled: bool,
    rules: Rules,
    /// Nanoseconds from which a call is slow, and from which one that was called off has failed.
    slow: u64,
    cancelled_after: u64,
    machine: Machine,
    clock: Clock,
    events: Events,
}

impl Circuit {
    pub(crate) fn new(
        name: Arc<str>,
        config: &BreakerConfig,
        clock: Clock,
        events: Events,
    ) -> Self {
        let slow = config.slow_call_percent.map(|_| config.slow_call);
        Self {
            name,
            enabled: config.enabled,
            rules: config.rules(),
            slow: slow.map_or(u64::MAX, nanos),
            cancelled_after: config.cancelled_after.map_or(u64::MAX, nanos),
            machine: Machine::new(nanos(config.window)),
            clock,
            events,
        }
    }

    /// Asks for a call; the moment is when it began.
    #[inline]
    pub(crate) fn ask(&self) -> Result<(Ticket, Moment), Refusal> {
        let now = self.clock.now();
        if !self.enabled {
            return Ok((Ticket::UNCOUNTED, now));
        }
        match self.machine.ask(now, &self.rules) {
            (Asked::Admitted(ticket), None) => Ok((ticket, now)),
            (Asked::Admitted(ticket), change) => {
                self.say(change);
                Ok((ticket, now))
            }
            (Asked::Refused(retry_after), change) => Err(self.refuse(retry_after, change)),
        }
    }

    #[cold]
    fn refuse(&self, retry_after: Duration, change: Option<Change>) -> Refusal {
        self.say(change);
        self.events.emit(Event::CircuitRefused {
            circuit: &self.name,
        });
        Refusal::CircuitOpen { retry_after }
    }

    /// Notes what came of a call.
    #[inline]
    pub(crate) fn note(&self, ticket: Ticket, began: Moment, outcome: Outcome) {
        let now = self.clock.now();
        let slow = now.as_nanos().saturating_sub(began.as_nanos()) >= self.slow;
        let told = match (outcome, slow) {
            (Outcome::Succeeded, false) => Told::Succeeded,
            (Outcome::Succeeded, true) => Told::Slow,
            (Outcome::Failed, false) => Told::Failed,
            (Outcome::Failed, true) => Told::FailedSlowly,
            (Outcome::Ignored, _) => Told::Nothing,
        };
        self.tell(ticket, told, now);
    }

    #[inline]
    fn tell(&self, ticket: Ticket, told: Told, now: Moment) {
        let change = self.machine.tell(ticket, told, now, &self.rules);
        if change.is_some() {
            self.say(change);
        }
    }

    /// Notes that a call was called off: by somebody who did not want to wait any longer, if it had lasted.
    #[cold]
    pub(crate) fn note_cancelled(&self, ticket: Ticket, began: Moment) {
        let now = self.clock.now();
        let lasted = nanos(now.since(began));
        if lasted < self.cancelled_after {
            self.note(ticket, began, Outcome::Ignored);
        } else if ticket.is_of_closed() || lasted >= nanos(self.rules.probe) {
            self.note(ticket, began, Outcome::Failed);
        } else {
            // A probe whose time is not over: one client that leaves must not be enough to keep a circuit open that
            // would close, but where each of them gives up, that is all that is seen of a dependency that hangs.
            self.tell(ticket, Told::CalledOff, now);
        }
    }

    pub(crate) fn force(&self, state: State) {
        self.say(self.machine.force(state));
    }

    #[cold]
    fn say(&self, change: Option<Change>) {
        if let Some((from, to)) = change {
            self.events.emit(Event::CircuitChanged {
                circuit: &self.name,
                from: CircuitState::from(from).name(),
                to: CircuitState::from(to).name(),
            });
        }
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// Whether calls are not made as usual, or were not until nobody asked for them any more.
    pub(crate) fn is_troubled(&self) -> bool {
        let of_late = |moment: Moment| self.clock.now() < moment.plus(FORGOTTEN);
        match self.machine.state() {
            State::Closed => false,
            State::ForcedOpen => true,
            State::Open { until } => of_late(until),
            State::HalfOpen { last, .. } => of_late(last),
        }
    }

    /// When a call was counted the last time, for comparison with others of the same settings.
    pub(crate) fn last_used(&self) -> u32 {
        self.machine.last_used()
    }

    pub(crate) fn figures(&self) -> CircuitFigures {
        let now = self.clock.now();
        let (state, sums) = (self.machine.state(), self.machine.sums(now));
        let open_for = match state {
            State::Open { until } => Some(until.since(now)),
            State::Closed | State::ForcedOpen | State::HalfOpen { .. } => None,
        };
        CircuitFigures {
            name: Arc::clone(&self.name),
            state: state.into(),
            succeeded: sums.succeeded,
            failed: sums.failed,
            slow: sums.slow,
            in_a_row: self.machine.in_a_row(),
            open_for,
        }
    }
}

/// Saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A circuit that nobody has asked for so long since it might be tried again troubles nobody.
const FORGOTTEN: Duration = Duration::from_secs(300);
