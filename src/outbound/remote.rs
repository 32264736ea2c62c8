//! One remote: what is known of it, and who waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::clock::Moment;
use crate::event::Event;
use crate::outbound::desk::Desk;
use crate::outbound::fields;
#[cfg(feature = "redis")]
use crate::outbound::lease::Lease;
use crate::outbound::ledger::{Ledger, Verdict};
use crate::outbound::line::Line;
use crate::outbound::standing::RemoteStanding;
use crate::refusal::Refusal;

/// One remote.
#[derive(Debug)]
pub(crate) struct Remote {
    name: Arc<str>,
    pub(crate) desk: Arc<Desk>,
    /// Whether it is kept in mind; others tell nobody of it.
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "there is nobody to tell")
    )]
    kept: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) line: Line,
    #[cfg(feature = "redis")]
    pub(crate) lease: Lease,
}

/// What became of a request that wants to be sent.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// It is under way.
    Go,
    /// It waits under this ticket, to be given back by [`Remote::leave`].
    Wait(u64),
    /// It must not, for at least so long.
    Refused(Duration),
}

/// What a waiting request does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is under way, and its ticket is gone.
    Go,
    /// It asks again at this moment, or when it is woken.
    Sleep(Moment),
    /// It gives up, and would have had to wait for so long.
    Refused(Duration),
}

impl Remote {
    pub(crate) fn new(name: Arc<str>, desk: Arc<Desk>, kept: bool, scatter: u16) -> Self {
        Self {
            name,
            desk,
            kept,
            state: Mutex::new(State {
                ledger: Ledger::new(scatter),
                line: Line::default(),
                #[cfg(feature = "redis")]
                lease: Lease::default(),
            }),
        }
    }

    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A request wants to be sent.
    pub(crate) fn arrive(&self) -> Arrival {
        let now = self.desk.clock.now();
        let mut state = self.lock_for(u64::MAX, now);
        let verdict = self.decide(&mut state, now);
        let patience = self.desk.wait_max;
        // Without patience nobody is in line but those who wait for what Redis says.
        if verdict == Verdict::Go && (state.line.is_empty() || patience.is_zero()) {
            state.send();
            return Arrival::Go;
        }
        let in_vain = match verdict {
            Verdict::Until(then) => then.since(now) > patience,
            Verdict::Maybe(_) => patience.is_zero(),
            Verdict::Go | Verdict::Asking => false,
        };
        if in_vain || !self.desk.sit_down() {
            return Arrival::Refused(told(verdict, now));
        }
        let until = now.plus(patience).plus(ASKING_MAX);
        Arrival::Wait(state.line.join(until))
    }

    /// The request with this ticket asks again; `waker` is called when it should. It waits for the quota
    /// until `deadline`, and somewhat longer for what Redis says.
    pub(crate) fn step(&self, ticket: u64, deadline: Moment, waker: &Waker) -> Step {
        let now = self.desk.clock.now();
        let mut state = self.lock_for(ticket, now);
        if !state.line.is_first(ticket) {
            let last = deadline.plus(ASKING_MAX);
            if last <= now {
                // It was itself passed over.
                return Step::Refused(told(state.ledger.verdict(now), now));
            }
            // Whoever stands before has come before, and gives up before: that wakes this one.
            let stale = state.line.note(ticket, waker);
            drop(state);
            drop(stale);
            return Step::Sleep(last);
        }
        let verdict = self.decide(&mut state, now);
        let sleep = match verdict {
            Verdict::Go => {
                state.send();
                let (next, stale) = state.line.leave(ticket);
                drop(state);
                drop(stale);
                wake(next);
                return Step::Go;
            }
            Verdict::Asking => deadline.plus(ASKING_MAX),
            Verdict::Until(then) if then > deadline => now,
            Verdict::Until(then) | Verdict::Maybe(Some(then)) => then.min(deadline),
            Verdict::Maybe(None) => deadline,
        };
        if sleep <= now {
            return Step::Refused(told(verdict, now));
        }
        let stale = state.line.note(ticket, waker);
        drop(state);
        drop(stale);
        Step::Sleep(sleep)
    }

    /// A waiting request goes away.
    pub(crate) fn leave(&self, ticket: u64) {
        let (next, stale) = self.lock().line.leave(ticket);
        drop(stale);
        wake(next);
    }

    /// The answer to a request that was sent at `sent`.
    pub(crate) fn hear(&self, sent: Moment, status: StatusCode, headers: &HeaderMap) {
        let now = self.desk.clock.now();
        let heard = fields::read(status, headers, || self.desk.clock.wall());
        let mut state = self.lock();
        let bound = self.desk.block_max;
        let changed = state.ledger.hear(&heard, sent, now, bound);
        #[cfg(feature = "redis")]
        if changed.blocked.is_some() || changed.first_window {
            self.list(&mut state, now);
        }
        let next = state.line.first();
        drop(state);
        wake(next);
        if let Some(lasts) = changed.blocked {
            let remote = &*self.name;
            self.desk
                .events
                .emit(Event::RemoteQuotaBlocked { remote, lasts });
        }
    }

    /// A request came to nothing: the remote has probably not seen it.
    pub(crate) fn give_back(&self) {
        let mut state = self.lock();
        state.ledger.give_back();
        let next = state.line.first();
        drop(state);
        wake(next);
    }

    /// A request was given up on its way: the remote has probably counted it.
    pub(crate) fn give_up(&self) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        state.ledger.give_up(now);
        let next = state.line.first();
        drop(state);
        wake(next);
    }

    /// Says no to a request.
    pub(crate) fn refuse(&self, retry_after: Duration) -> Refusal {
        let remote = &*self.name;
        self.desk.events.emit(Event::RemoteQuotaRefused { remote });
        Refusal::OverQuota {
            rule: Arc::clone(&self.name),
            retry_after,
        }
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> RemoteStanding {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        let verdict = state.ledger.verdict(now);
        let least = state.ledger.least();
        RemoteStanding {
            left: least.map(|(left, _)| left),
            resets_in: least.and_then(|(_, ends)| Some(ends?.since(now))),
            blocked_for: match verdict {
                Verdict::Until(then) => Some(then.since(now)),
                _ => None,
            },
            under_way: state.ledger.under_way(),
            waiting: state.line.len(),
        }
    }

    /// Until when something is known that would be missed.
    pub(crate) fn known_until(&self) -> Moment {
        let state = self.lock();
        let ledger = &state.ledger;
        let ends = ledger.windows().iter().filter_map(|known| known.told.ends);
        let block = ledger.block().map(|block| block.until);
        ends.chain(block).max().unwrap_or_default()
    }

    /// What the remote's own words allow, and what other instances leave of it.
    #[cfg_attr(
        not(feature = "redis"),
        expect(clippy::unused_self, reason = "nobody else is asked")
    )]
    fn decide(&self, state: &mut State, now: Moment) -> Verdict {
        let verdict = state.ledger.verdict(now);
        #[cfg(feature = "redis")]
        if verdict == Verdict::Go
            && self.kept
            && let Some(epoch) = self.desk.news.epoch(now)
        {
            let has_windows = !state.ledger.windows().is_empty();
            let verdict = state.lease.verdict(has_windows, epoch, now);
            if verdict == Verdict::Asking {
                self.list(state, now);
            }
            return verdict;
        }
        verdict
    }

    /// Has the others told or asked, if there are any.
    #[cfg(feature = "redis")]
    pub(crate) fn list(&self, state: &mut State, now: Moment) {
        let news = &self.desk.news;
        if self.kept
            && news.epoch(now).is_some()
            && !std::mem::replace(&mut state.lease.listed, true)
        {
            news.add(&self.name);
        }
    }

    /// The state as the one with this ticket, or who has none yet, finds it: those before who should have gone
    /// long ago are out of the line, or one that nobody polls would hold up all others for ever.
    fn lock_for(&self, ticket: u64, now: Moment) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let over = state.line.pass_over(ticket, now);
        if over.is_empty() {
            return state;
        }
        let next = state.line.first();
        drop(state);
        drop(over);
        wake(next);
        self.lock()
    }

    /// A panic under the lock leaves a count that the next answer corrects.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self) {
        self.ledger.send();
        #[cfg(feature = "redis")]
        self.lease.use_one();
    }
}

/// When to come back, for whoever is refused.
fn told(verdict: Verdict, now: Moment) -> Duration {
    match verdict {
        Verdict::Until(then) | Verdict::Maybe(Some(then)) => then.since(now),
        // Nobody knows: no sooner than `Retry-After` can say.
        Verdict::Go | Verdict::Maybe(None) | Verdict::Asking => Duration::from_secs(1),
    }
}

pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Far more than Redis is ever given for an answer; whoever asks it is woken when it gives none.
const ASKING_MAX: Duration = Duration::from_secs(1);
