//! One entrance: its slots, its line, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::guard::adaptive::{Adaptive, Learner};
use crate::guard::criticality::Criticality;
use crate::guard::lag::Lag;
use crate::guard::line::{LineRules, Newcomer, Ticket};
use crate::guard::pressure::{Pressure, PressureCell};
use crate::guard::slots::{Pacer, Place, Slots};
use crate::refusal::Refusal;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

/// How many are let in at once and how long others may wait; of a guard, of one of its routes, or of
/// anything else that should not happen too often at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntranceConfig {
    pub(crate) slots: usize,
    pub(crate) slots_min: usize,
    pub(crate) adaptive: Adaptive,
    pub(crate) latency_target: Duration,
    pub(crate) queue: usize,
    pub(crate) queue_timeout: Duration,
    pub(crate) codel_target: Duration,
    pub(crate) codel_interval: Duration,
    pub(crate) retry_after: Duration,
    /// Whether it is that of one route, which a rule has made as narrow as it is.
    pub(crate) of_route: bool,
}

/// The part of a guard that permits and waiters share.
#[derive(Debug)]
pub(crate) struct Entrance {
    slots: Slots,
    /// Wakes whoever runs [`Entrance::pace`].
    pacer: Notify,
    pressure: Arc<PressureCell>,
    clock: Clock,
    events: Events,
    queue_timeout: Duration,
    retry_after: Duration,
    of_route: bool,
    learner: Option<Learner>,
    /// In nanoseconds of the clock; `u64::MAX` where there is no canary.
    canary_due: AtomicU64,
    /// When the pacer last gave out slots, or was put in charge.
    paced: AtomicU64,
    sizes: Mutex<Sizes>,
}

/// What says how many slots there are; the least counts.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    most: usize,
    least: usize,
    by_latency: usize,
    by_lag: usize,
    lags: bool,
    /// Whether a canary watches; without one there is nobody to say that it lags no more.
    watched: bool,
    /// When the runtime's lag last took slots away, or gave some back.
    changed: Option<Moment>,
    now: usize,
}

impl Entrance {
    pub(crate) fn new(
        config: &EntranceConfig,
        pressure: Arc<PressureCell>,
        clock: Clock,
        events: Events,
    ) -> Self {
        let rules = LineRules {
            target: config.codel_target,
            target_critical: config.codel_target.max(config.queue_timeout / 4),
            interval: config.codel_interval,
        };
        Self {
            slots: Slots::new(config.slots, config.queue, rules),
            pacer: Notify::new(),
            pressure,
            clock,
            events,
            queue_timeout: config.queue_timeout,
            retry_after: config.retry_after,
            of_route: config.of_route,
            learner: Learner::new(
                config.adaptive,
                config.latency_target,
                config.slots_min,
                config.slots,
            ),
            canary_due: AtomicU64::new(u64::MAX),
            paced: AtomicU64::new(0),
            sizes: Mutex::new(Sizes {
                most: config.slots,
                least: config.slots_min,
                by_latency: config.slots,
                by_lag: config.slots,
                lags: false,
                watched: false,
                changed: None,
                now: config.slots,
            }),
        }
    }

    pub(crate) const fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) const fn queue_timeout(&self) -> Duration {
        self.queue_timeout
    }

    pub(crate) fn pressure(&self) -> Pressure {
        self.pressure.load()
    }

    /// Whether all but the critical are turned away.
    #[inline]
    pub(crate) fn sheds(&self) -> bool {
        self.pressure() >= Pressure::Critical
    }

    /// Asks for a slot or a place in the line.
    #[inline]
    pub(crate) fn take(&self, newcomer: impl FnOnce() -> Newcomer) -> Place {
        let place = self.slots.take(newcomer);
        if matches!(place, Place::Line(_)) && self.slots.in_turns() {
            self.call_pacer();
        }
        place
    }

    /// Gives a slot back: the one that `ticket` has led to, where somebody had to wait. `began` is the moment it
    /// was taken, where that is kept.
    #[inline]
    pub(crate) fn release(&self, ticket: Option<Ticket>, began: Option<Moment>) {
        if let (Some(learner), Some(began)) = (&self.learner, began) {
            self.learn(learner, began);
        }
        let time = || self.clock.now();
        let pacer = match ticket {
            None => self.slots.release(time),
            Some(ticket) => self.slots.release_of(ticket, time),
        };
        self.wake_pacer(pacer);
    }

    /// The canary will be back by `due`; whoever comes later knows that the runtime lags, before the canary
    /// itself has been let run.
    pub(crate) fn expect_canary(&self, due: Moment) {
        self.sizes().watched = true;
        self.canary_due.store(due.as_nanos(), Ordering::Relaxed);
    }

    /// Takes note that the canary is overdue.
    #[inline]
    pub(crate) fn look_at_the_clock(&self) {
        let due = self.canary_due.load(Ordering::Relaxed);
        if due != u64::MAX && self.clock.now().as_nanos() > due {
            self.on_overdue(due);
        }
    }

    #[cold]
    fn on_overdue(&self, due: u64) {
        // Until then the next ones need not look. Somebody else may have come first, or the canary.
        let next = self.clock.now().plus(BREATH).as_nanos();
        let order = Ordering::Relaxed;
        if self
            .canary_due
            .compare_exchange(due, next, order, order)
            .is_ok()
        {
            self.on_lag(Lag::Lagging);
        }
    }

    /// The moment to be handed to [`release`](Self::release), if anything is learnt from it.
    #[inline]
    pub(crate) fn began(&self) -> Option<Moment> {
        self.learner.as_ref().map(|_| self.clock.now())
    }

    pub(crate) fn wake_pacer(&self, pacer: Pacer) {
        if pacer == Pacer::Wanted {
            self.call_pacer();
        }
    }

    /// Calls for the pacer. Where it has not come for a second nobody runs it, because the runtime that it
    /// belongs to stands still, say: then whoever calls does its work.
    fn call_pacer(&self) {
        self.pacer.notify_one();
        let now = self.clock.now();
        let paced = Moment::from_nanos(self.paced.load(Ordering::Relaxed));
        if now.since(paced) > PACER_LOST {
            self.slots.serve(now);
        }
    }

    #[cold]
    fn learn(&self, learner: &Learner, began: Moment) {
        let now = self.clock.now();
        if let Some(slots) = learner.record(now.since(began), self.slots.taken(), now) {
            self.resize(|sizes| sizes.by_latency = slots);
        }
    }

    /// How the runtime fares. While it lags, fewer and fewer are inside at once, and slots are given out in turns;
    /// once it is calm they come back.
    pub(crate) fn on_lag(&self, lag: Lag) {
        let now = self.clock.now();
        self.resize(|sizes| sizes.follow_lag(lag, now));
    }

    /// All slots are there, and given out as they become free: nobody watches the runtime any more.
    pub(crate) fn stop_turns(&self) {
        self.canary_due.store(u64::MAX, Ordering::Relaxed);
        self.resize(|sizes| {
            sizes.by_lag = sizes.most;
            sizes.lags = false;
            sizes.watched = false;
        });
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resize(&self, change: impl FnOnce(&mut Sizes)) {
        let mut sizes = self.sizes();
        let before = *sizes;
        change(&mut sizes);
        sizes.now = sizes.by_latency.min(sizes.by_lag);
        if sizes.now == before.now && sizes.lags == before.lags {
            return;
        }
        let (slots, in_turns, now) = (sizes.now, sizes.lags, self.clock.now());
        if in_turns && !before.lags {
            self.paced.store(now.as_nanos(), Ordering::Relaxed);
        }
        // Under the lock, so that the last one to decide is the last one to be carried out.
        let woken = self.slots.resize(slots, in_turns, now);
        drop(sizes);
        woken.wake();
        if slots != before.now {
            self.events.emit(Event::GuardSlotsChanged { slots });
        }
    }

    /// How many may be inside at once right now.
    pub(crate) fn size(&self) -> usize {
        self.sizes().now
    }

    /// Gives slots out in turns for as long as it is polled: each time when all tasks that were ready have
    /// had their turn, and the sockets have been looked at. Safe to drop at any await, after
    /// [`stop_turns`](Self::stop_turns).
    pub(crate) async fn pace(&self) {
        loop {
            self.pacer.notified().await;
            tokio::task::yield_now().await;
            let now = self.clock.now();
            self.paced.store(now.as_nanos(), Ordering::Relaxed);
            self.slots.serve(now);
        }
    }

    pub(crate) fn refuse_for_memory(&self, waited: Duration) -> Refusal {
        let retry_after = self.retry_after;
        let why = "memory_pressure";
        self.events.emit(Event::GuardRefused { why, waited });
        Refusal::MemoryPressure { retry_after }
    }

    pub(crate) fn refuse_as_overloaded(&self, why: &'static str, waited: Duration) -> Refusal {
        let retry_after = self.retry_after;
        // What an operator has said of a route is no sign that the guard has too few slots.
        let why = if self.of_route { "route_full" } else { why };
        self.events.emit(Event::GuardRefused { why, waited });
        Refusal::Overloaded { retry_after }
    }
}

impl Sizes {
    /// Down by a third each tenth of a second while the runtime lags, up by an eighth while it is calm: much
    /// faster down than up, since a lag is seen only once it has been there for a while.
    fn follow_lag(&mut self, lag: Lag, now: Moment) {
        let lately = self.changed.is_some_and(|at| now.since(at) < BREATH);
        let lags = lag == Lag::Lagging;
        if !self.watched || lately || lag == Lag::Steady || !(lags || self.lags) {
            return;
        }
        self.changed = Some(now);
        if lags {
            // Those that wait for something else than the processor are slots as well: not too few.
            let least = self.least.max(self.most / 16).max(1);
            self.by_lag = (self.by_lag * 2 / 3).max(least);
        } else {
            self.by_lag = (self.by_lag + self.by_lag / 8 + 1).min(self.most);
        }
        self.lags = lags || self.by_lag < self.most;
    }
}

/// How long a change is given to show.
const BREATH: Duration = Duration::from_millis(100);

/// How long a pacer that was called for may take.
const PACER_LOST: Duration = Duration::from_secs(1);

/// Somebody at the door, as the line wants to know it.
pub(crate) const fn newcomer(criticality: Criticality, tenant: u64, now: Moment) -> Newcomer {
    Newcomer {
        criticality,
        tenant,
        now,
    }
}
