//! The guard itself: an entrance for requests, and a watch over memory.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Request;

use crate::clock::{Clock, Moment};
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::guard::admission::{Admission, Permit, admit};
use crate::guard::claim::{Claim, Claims};
use crate::guard::config::GuardConfig;
use crate::guard::entrance::{Entrance, EntranceConfig};
use crate::guard::lag::Lag;
use crate::guard::leak::LeakEstimate;
use crate::guard::memory::{MemoryReading, MemoryWatch};
use crate::guard::pressure::{Pressure, PressureCell};
use crate::guard::rule::Plan;
use crate::guard::runtime::{RuntimeHealth, RuntimeReading};
use crate::host::{MemoryProbe, memory_probe};
use crate::identity::RequestView;

/// Decides who comes in, and watches the memory of the process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    enabled: bool,
    entrance: Arc<Entrance>,
    pressure: Arc<PressureCell>,
    plan: Plan<Entrance>,
    claims: ArcSwap<Claims>,
    memory: MemoryWatch,
    runtime: Arc<RuntimeHealth>,
}

impl Guard {
    /// A guard that reads the memory of this process, where it knows how (Linux); elsewhere the
    /// pressure stays [`Pressure::Unknown`]. Takes a first sample.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `guard`.
    pub fn new(config: &GuardConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        let alone = config.memory_budget_bytes.is_some();
        Self::with_probe(config, clock, events, memory_probe(alone))
    }

    /// A guard with another source of memory readings.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `guard`.
    pub fn with_probe(
        config: &GuardConfig,
        clock: Clock,
        events: Events,
        probe: Box<dyn MemoryProbe>,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("guard", &mut faults);
        faults.into_result()?;
        let (memory, begin) = MemoryWatch::new(config, clock.clone(), events.clone(), probe)?;
        let pressure = Arc::new(PressureCell::new(begin));
        let shown = Arc::clone(&pressure);
        let open = move |config: EntranceConfig| {
            Entrance::new(&config, Arc::clone(&shown), clock.clone(), events.clone())
        };
        // The check has gone through the same settings, so nothing is lost here.
        let noted = &mut Faults::new();
        let open_route = |slots, queue: Option<usize>| {
            let all = config.entrance();
            let queue = queue.unwrap_or(all.queue);
            let slots_min = all.slots_min.min(slots);
            open(EntranceConfig {
                slots,
                slots_min,
                queue,
                of_route: true,
                ..all
            })
        };
        let plan = Plan::compile(&config.rules, &config.critical, "guard", noted, open_route);
        let (field, trusted) = config.field_of_trusted("guard", noted);
        let claims = Claims::new().trusting(field, trusted);
        let guard = Self {
            shared: Arc::new(Shared {
                enabled: config.enabled,
                entrance: Arc::new(open(config.entrance())),
                plan,
                claims: ArcSwap::from_pointee(claims),
                pressure,
                memory,
                runtime: Arc::default(),
            }),
        };
        guard.sample();
        Ok(guard)
    }

    /// Says how requests are told apart where not everybody can be served. Later calls replace earlier ones;
    /// the field and the peers that the configuration names stay.
    pub fn told(&self, claims: Claims) {
        let known = self.shared.claims.load();
        let claims = claims.trusting_as(&known);
        self.shared.claims.store(Arc::new(claims));
    }

    /// Asks for a slot, with the claim that counts where not everybody can be served: below
    /// [`Criticality::Critical`](crate::guard::Criticality::Critical) nobody is at [`Pressure::Critical`].
    /// Lock-free while nobody waits.
    ///
    /// To wait takes a Tokio timer: outside of a runtime with time enabled, `admit` panics when all
    /// slots are taken and the queue has places.
    #[inline]
    pub fn admit(&self, claim: impl Into<Claim>) -> Admission {
        if !self.shared.enabled {
            return Admission::Admitted(Permit::unguarded());
        }
        let claim = claim.into();
        admit(&self.shared.entrance, None, || claim)
    }

    /// The same for a request, which is looked at only where it matters.
    #[inline]
    pub(crate) fn admit_request<B>(&self, request: &Request<B>) -> Admission {
        let shared = &*self.shared;
        if !shared.enabled {
            return Admission::Admitted(Permit::unguarded());
        }
        let route = if shared.plan.entrances().is_empty() {
            None
        } else {
            let plan = shared.plan.of(RequestView::of(request).uri.path());
            plan.and_then(|plan| plan.entrance.as_ref())
        };
        admit(&shared.entrance, route, || {
            self.claim(&RequestView::of(request))
        })
    }

    /// What a request may claim: how important it is, and on whose behalf it comes.
    #[must_use]
    pub fn claim(&self, request: &RequestView<'_>) -> Claim {
        let plan = self.shared.plan.of(request.uri.path());
        let of_route = plan.and_then(|plan| plan.criticality);
        self.shared.claims.load().of(request, of_route)
    }

    /// How the runtime fares, told again and again by the [canary](crate::guard): while it lags, fewer requests
    /// are inside at once, and they are let in by turns, for which [`pace`](Self::pace) has to run.
    pub(crate) fn on_lag(&self, lag: Lag) {
        if self.shared.enabled {
            self.shared.entrance.on_lag(lag);
        }
    }

    /// Says when the canary will be back at the latest, if the runtime does not lag; `None` when it is gone, and
    /// with it whoever lets requests in by turns.
    pub(crate) fn expect_canary(&self, due: Option<Moment>) {
        match due {
            Some(due) => self.shared.entrance.expect_canary(due),
            None => self.shared.entrance.stop_turns(),
        }
    }

    /// Lets requests in by turns while the runtime lags. Never ends; safe to drop once the watch has ended.
    pub(crate) async fn pace(&self) {
        let entrance = Arc::clone(&self.shared.entrance);
        entrance.pace().await;
    }

    /// How many may be inside at once right now: the configured number, or fewer while the runtime lags or
    /// requests take too long.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.shared.entrance.size()
    }

    fn entrances(&self) -> impl Iterator<Item = &Arc<Entrance>> {
        let routes = self.shared.plan.entrances().iter();
        routes.chain([&self.shared.entrance])
    }

    fn set_pressure(&self, pressure: Pressure) {
        self.shared.pressure.store(pressure);
        if pressure >= Pressure::Critical {
            // Those who wait are told.
            self.entrances()
                .for_each(|entrance| entrance.slots().wake_all());
        }
    }

    /// Reads the memory once, and acts if the level has changed: waiters learn of a critical one,
    /// [`PressureChanged`](crate::event::Event::PressureChanged) is emitted, and the hooks are called on this thread.
    ///
    /// Meant for a beat of [`GuardConfig::memory_sample`]. Takes microseconds, besides the hooks; does
    /// nothing while another thread is at it.
    pub fn sample(&self) {
        if self.shared.enabled {
            let show = |level| self.set_pressure(level);
            self.shared.memory.sample(|| self.pressure(), show);
        }
    }

    /// Calls `hook` with the present level now, and with the new one after each change.
    ///
    /// Hooks run one after another on the thread that samples, so they should be quick and hand long
    /// work to a task. A hook must not register another. One that panics is reported as
    /// [`Warning`](crate::event::Event::Warning) and called again the next time.
    pub fn on_pressure(&self, hook: impl Fn(Pressure) + Send + Sync + 'static) {
        let shown = || self.pressure();
        self.shared.memory.on_pressure(shown, hook);
    }

    /// Tells the watch for leaks how many bytes caches hold; it asks at each sample, and takes them off
    /// what the process uses. The last call counts.
    pub fn caches_hold(&self, cached_bytes: impl Fn() -> u64 + Send + 'static) {
        self.shared.memory.caches_hold(cached_bytes);
    }

    /// Ends the watch over the memory: without samples, the last level would stay for ever. The hooks
    /// hear of `Unknown` and are let go.
    pub(crate) fn stop_watching(&self) {
        self.shared.memory.stop(|level| self.set_pressure(level));
        // Nobody will give out slots by turns any more.
        self.shared.entrance.stop_turns();
    }

    /// The level of memory pressure: one atomic load.
    #[must_use]
    #[inline]
    pub fn pressure(&self) -> Pressure {
        self.shared.pressure.load()
    }

    /// The last sample and the budget.
    #[must_use]
    pub fn memory(&self) -> MemoryReading {
        self.shared.memory.reading()
    }

    /// The leak that is suspected at present, if one is; see [`LeakDetector`](crate::guard::LeakDetector).
    #[must_use]
    pub fn leak(&self) -> Option<LeakEstimate> {
        self.shared.memory.leak()
    }

    /// How the runtime and the process fare. Within a `Keep` the figures are
    /// taken in the background; else they stay unknown.
    #[must_use]
    pub fn runtime(&self) -> RuntimeReading {
        self.shared.runtime.reading()
    }

    /// Where those figures are noted.
    pub(crate) fn runtime_health(&self) -> &Arc<RuntimeHealth> {
        &self.shared.runtime
    }

    /// How many slots are taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.entrance.slots().taken()
    }

    /// How many requests wait for a slot, those of routes with slots of their own included.
    #[must_use]
    pub fn queued(&self) -> usize {
        let lines = self.entrances().map(|entrance| entrance.slots().waiting());
        lines.sum()
    }

    /// How many of them wait for one of the slots that are for all.
    pub(crate) fn queued_for_all(&self) -> usize {
        self.shared.entrance.slots().waiting()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("enabled", &self.shared.enabled)
            .field("in_flight", &self.in_flight())
            .field("queued", &self.queued())
            .field("pressure", &self.pressure())
            .field("memory", &self.memory())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;
    use crate::event::{Event, Recorder};
    use crate::guard::adaptive::Adaptive;
    use crate::guard::criticality::Criticality;
    use crate::guard::dice::Dice;
    use crate::guard::rule::GuardRule;
    use crate::host::MemoryBounds;
    use crate::refusal::Refusal;

    /// Uses as many of 1,000 bytes as it is told; `u64::MAX` is "cannot tell".
    #[derive(Clone, Default)]
    struct FakeProbe(Arc<AtomicU64>);

    impl MemoryProbe for FakeProbe {
        fn used_bytes(&mut self) -> Option<u64> {
            Some(self.0.load(Ordering::SeqCst)).filter(|used| *used != u64::MAX)
        }

        fn bounds(&mut self) -> Option<MemoryBounds> {
            Some(MemoryBounds {
                limit_bytes: Some(1000),
                total_bytes: 10_000,
                available_bytes: 5000,
            })
        }
    }

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(match event {
                Event::GuardAdmitted { waited } => format!("admitted after {waited:?}"),
                Event::GuardRefused { why, .. } => format!("refused: {why}"),
                Event::GuardLeft { waited } => format!("left after {waited:?}"),
                Event::GuardSlotsChanged { slots } => format!("{slots} slots"),
                Event::PressureChanged { from, to, .. } => format!("{from} to {to}"),
                other => format!("{other:?}"),
            });
        }
    }

    struct Set {
        guard: Guard,
        used: Arc<AtomicU64>,
        heard: Arc<Heard>,
        hand: crate::clock::ManualClock,
    }

    fn guard(slots: usize, queue: usize) -> Set {
        let (clock, hand) = Clock::manual();
        let (probe, heard) = (FakeProbe::default(), Arc::new(Heard::default()));
        let used = Arc::clone(&probe.0);
        let config = GuardConfig {
            slots,
            queue,
            queue_timeout: Duration::from_millis(500),
            ..GuardConfig::default()
        };
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let guard = Guard::with_probe(&config, clock, events, Box::new(probe)).unwrap();
        Set {
            guard,
            used,
            heard,
            hand,
        }
    }

    impl Set {
        fn admitted(&self) -> Permit {
            match self.guard.admit(ORDINARY) {
                Admission::Admitted(permit) => permit,
                other => panic!("{other:?}"),
            }
        }

        fn waiting(&self) -> crate::guard::Waiting {
            match self.guard.admit(ORDINARY) {
                Admission::Wait(waiting) => waiting,
                other => panic!("{other:?}"),
            }
        }

        fn uses(&self, bytes: u64) -> Pressure {
            self.used.store(bytes, Ordering::SeqCst);
            self.guard.sample();
            self.guard.pressure()
        }

        fn heard(&self) -> Vec<String> {
            std::mem::take(&mut self.heard.0.lock().unwrap())
        }
    }

    /// When a canary is overdue that always comes.
    const NEVER: Moment = Moment::from_nanos(u64::MAX - 1);
    const ORDINARY: Criticality = Criticality::SheddablePlus;
    const CRITICAL: Criticality = Criticality::Critical;
    const RETRY_AFTER: Duration = Duration::from_secs(1);
    const OVERLOADED: Refusal = Refusal::Overloaded {
        retry_after: RETRY_AFTER,
    };
    const SHORT_OF_MEMORY: Refusal = Refusal::MemoryPressure {
        retry_after: RETRY_AFTER,
    };

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused_and_leaves_the_queue() {
        let set = guard(1, 1);
        let _permit = set.admitted();
        let waiting = set.waiting();
        assert!(matches!(set.guard.admit(ORDINARY), Admission::Refused(r) if r == OVERLOADED));
        let late = tokio::time::timeout(Duration::from_millis(501), waiting);
        assert_eq!(late.await.unwrap().unwrap_err(), OVERLOADED);
        assert_eq!((set.guard.in_flight(), set.guard.queued()), (1, 0));
        assert_eq!(
            set.heard(),
            [
                "admitted after 0ns",
                "refused: overloaded",
                "refused: queue_timeout"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_admitted_when_a_permit_is_dropped_and_says_how_long_it_took() {
        let set = guard(1, 1);
        let permit = set.admitted();
        let mut waiting = Box::pin(set.waiting());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("no slot is free"),
            () = tokio::task::yield_now() => {}
        }
        set.hand.advance(Duration::from_millis(30));
        drop(permit);
        let permit = waiting.await.unwrap();
        assert_eq!((set.guard.in_flight(), set.guard.queued()), (1, 0));
        drop(permit);
        assert_eq!(set.guard.in_flight(), 0);
        assert_eq!(set.heard(), ["admitted after 0ns", "admitted after 30ms"]);
    }

    #[tokio::test(start_paused = true)]
    async fn critical_pressure_refuses_all_but_the_critical_and_those_who_wait_at_once() {
        let set = guard(1, 2);
        let permit = set.admitted();
        let waiting = set.waiting();
        let Admission::Wait(critical) = set.guard.admit(CRITICAL) else {
            panic!("a critical request waits like others");
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { waiting.await.unwrap_err() });
        tokio::task::yield_now().await;
        let began = now();
        assert_eq!(set.uses(950), Pressure::Critical);
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), SHORT_OF_MEMORY);
        assert_eq!(now(), began, "woken, not timed out");
        assert!(matches!(set.guard.admit(ORDINARY), Admission::Refused(r) if r == SHORT_OF_MEMORY));
        drop(permit);
        drop(critical.await.unwrap());
        assert!(matches!(set.guard.admit(CRITICAL), Admission::Admitted(_)));
        assert_eq!((set.guard.in_flight(), set.guard.queued()), (0, 0));
        set.uses(100);
        drop(set.admitted());
    }

    /// The paused runtime's time.
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to read paused time"
    )]
    fn now() -> tokio::time::Instant {
        tokio::time::Instant::now()
    }

    #[test]
    fn a_change_of_level_is_told_once_to_events_and_hooks() {
        let set = guard(1, 0);
        let told = Arc::new(Mutex::new(Vec::new()));
        set.guard.on_pressure(|_| panic!("a hook with a mistake"));
        let seen = Arc::clone(&told);
        set.guard
            .on_pressure(move |level| seen.lock().unwrap().push(level));
        set.heard();
        for (bytes, level) in [
            (100, Pressure::Normal),
            (860, Pressure::High),
            (870, Pressure::High),
            (u64::MAX, Pressure::Unknown),
            (100, Pressure::Normal),
        ] {
            assert_eq!(set.uses(bytes), level, "{bytes}");
        }
        assert_eq!(
            *told.lock().unwrap(),
            [
                Pressure::Normal,
                Pressure::High,
                Pressure::Unknown,
                Pressure::Normal
            ],
            "the present level at registration, then each change"
        );
        let changes: Vec<_> = set.heard();
        let changes = changes.iter().filter(|text| !text.contains("Warning"));
        assert_eq!(
            changes.collect::<Vec<_>>(),
            ["normal to high", "high to unknown", "unknown to normal"]
        );
        let reading = set.guard.memory();
        assert_eq!((reading.used_bytes, reading.budget_bytes), (100, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_queue_is_counted_once() {
        let set = guard(1, 1);
        let permit = set.admitted();
        let waiting = set.waiting();
        set.hand.advance(Duration::from_millis(7));
        drop(waiting);
        drop(permit);
        drop(set.admitted());
        assert_eq!(
            set.heard(),
            ["admitted after 0ns", "left after 7ms", "admitted after 0ns"]
        );
    }

    fn ruled(slots: usize, rules: Vec<GuardRule>) -> Guard {
        ruled_and_heard(slots, rules, Events::none())
    }

    fn ruled_and_heard(slots: usize, rules: Vec<GuardRule>, events: Events) -> Guard {
        let config = GuardConfig {
            slots,
            queue: 4,
            rules,
            ..GuardConfig::default()
        };
        let probe = Box::new(FakeProbe::default());
        Guard::with_probe(&config, Clock::manual().0, events, probe).unwrap()
    }

    fn request(path: &str) -> Request<()> {
        Request::builder().uri(path).body(()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_with_slots_of_its_own_leaves_the_others_to_the_rest() {
        let guard = ruled(3, vec![GuardRule::new("/export/{id}").slots(1).queue(1)]);
        let export = || guard.admit_request(&request("/export/7"));
        let Admission::Admitted(first) = export() else {
            panic!("nobody is there yet")
        };
        let Admission::Wait(second) = export() else {
            panic!("one at a time")
        };
        assert!(matches!(export(), Admission::Refused(r) if r == OVERLOADED));
        assert_eq!((guard.in_flight(), guard.queued()), (1, 1));
        let others = [0; 2].map(|_| guard.admit_request(&request("/")));
        assert!(others.iter().all(|it| matches!(it, Admission::Admitted(_))));
        // The route's slot is free, and now the wait is for one of those for all.
        let plain = guard.admit_request(&request("/"));
        assert!(matches!(plain, Admission::Wait(_)));
        drop(first);
        let mut second = Box::pin(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("the one who came before has the slot"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!((guard.in_flight(), guard.queued()), (3, 1));
        drop(plain);
        drop(second.await.unwrap());
        drop(others);
        assert_eq!((guard.in_flight(), guard.queued()), (0, 0));
        assert!(matches!(export(), Admission::Admitted(_)), "and its own");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_rule_refuses_is_told_apart_from_what_the_guard_does() {
        let heard = Arc::new(Heard::default());
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let rules = vec![
            GuardRule::new("/one").slots(1).queue(1),
            GuardRule::new("/two").slots(2).queue(0),
        ];
        let guard = ruled_and_heard(1, rules, events);
        let ask = |path: &str| guard.admit_request(&request(path));
        let inside = ask("/one");
        let Admission::Wait(waiting) = ask("/one") else {
            panic!("there is a place");
        };
        assert_eq!((guard.queued(), guard.queued_for_all()), (1, 0));
        assert!(matches!(ask("/one"), Admission::Refused(_)));
        assert_eq!(waiting.await.unwrap_err(), OVERLOADED, "it took too long");
        // The second one's slots are free, and those for all are not.
        let line = [0; 4].map(|_| ask("/"));
        assert_eq!((guard.queued(), guard.queued_for_all()), (4, 4));
        assert!(matches!(ask("/two"), Admission::Refused(_)));
        drop((inside, line));
        let heard = std::mem::take(&mut *heard.0.lock().unwrap());
        let refused: Vec<_> = heard
            .iter()
            .filter(|it| it.starts_with("refused"))
            .collect();
        assert_eq!(
            refused,
            [
                "refused: route_full",
                "refused: route_full",
                "refused: overloaded"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_says_how_important_its_route_is_and_the_closure_knows_better() {
        let rule = GuardRule::new("/pay").criticality(Criticality::CriticalPlus);
        let guard = ruled(1, vec![rule]);
        let class = |path: &str| guard.claim(&RequestView::of(&request(path))).criticality();
        assert_eq!(class("/pay"), Criticality::CriticalPlus);
        assert_eq!(class("/health"), Criticality::Critical);
        assert_eq!(class("/other"), Criticality::SheddablePlus);
        guard.told(Claims::new().judge(|_| Some(Criticality::Sheddable)));
        assert_eq!(class("/pay"), Criticality::Sheddable);
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_important_is_served_first_and_takes_the_last_place() {
        let set = guard(1, 2);
        let permit = set.admitted();
        let first = set.waiting();
        let second = set.waiting();
        let Admission::Wait(vital) = set.guard.admit(CRITICAL) else {
            panic!("somebody gives up a place");
        };
        assert_eq!(second.await.unwrap_err(), OVERLOADED);
        drop(permit);
        let held = vital.await.unwrap();
        assert_eq!((set.guard.in_flight(), set.guard.queued()), (1, 1));
        drop(held);
        drop(first.await.unwrap());
        assert_eq!(set.heard()[1], "refused: displaced");
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_stands_sheds_its_oldest_and_serves_the_newest() {
        let set = guard(1, 8);
        let permit = set.admitted();
        let mut waiting: Vec<_> = Vec::new();
        for _ in 0..8 {
            waiting.push(set.waiting());
            set.hand.advance(Duration::from_millis(25));
        }
        // An interval begins in which everybody waits for longer than the target.
        drop(permit);
        let permit = waiting.pop().unwrap().await.unwrap();
        set.hand.advance(Duration::from_millis(101));
        let fresh = set.waiting();
        assert_eq!(set.heard(), ["admitted after 0ns", "admitted after 25ms"]);
        drop(permit);
        drop(fresh.await.unwrap());
        // One could be served at once, and is.
        drop(waiting.pop().unwrap().await.unwrap());
        for late in waiting {
            assert_eq!(late.await.unwrap_err(), OVERLOADED);
        }
        let heard = set.heard();
        assert_eq!(heard[..2], ["admitted after 0ns", "admitted after 151ms"]);
        assert_eq!(heard[2..], ["refused: shed"; 6]);
        assert_eq!((set.guard.in_flight(), set.guard.queued()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_runtime_lags_fewer_are_let_in_and_by_turns() {
        let set = guard(8, 8);
        set.guard.expect_canary(Some(NEVER));
        let lag = |lags: bool| {
            set.hand.advance(Duration::from_millis(100));
            set.guard
                .on_lag(if lags { Lag::Lagging } else { Lag::Calm });
            set.guard.slots()
        };
        assert_eq!(lag(false), 8);
        assert_eq!([lag(true), lag(true), lag(true)], [5, 3, 2]);
        let mut pace = Box::pin(set.guard.pace());
        let mut waiting = Box::pin(set.waiting());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("not before the pacer says so"),
            () = tokio::task::yield_now() => {}
        }
        let permit = tokio::select! {
            () = &mut pace => panic!("it never ends"),
            permit = &mut waiting => permit.unwrap(),
        };
        assert_eq!([lag(false), lag(false), lag(false)], [3, 4, 5]);
        assert_eq!([lag(false), lag(false), lag(false)], [6, 7, 8]);
        drop(set.admitted());
        drop(permit);
        assert_eq!(set.guard.in_flight(), 0);
        set.guard.on_lag(Lag::Lagging);
        set.guard.stop_watching();
        drop(set.admitted());
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_paces_those_who_come_do_it_themselves() {
        let set = guard(8, 8);
        set.guard.expect_canary(Some(NEVER));
        set.guard.on_lag(Lag::Lagging);
        let first = set.waiting();
        set.hand.advance(Duration::from_millis(1_001));
        let second = set.waiting();
        let permits = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(set.guard.in_flight(), 2);
        drop(permits);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overdue_canary_makes_it_lag_and_one_that_is_gone_lets_all_in_again() {
        let set = guard(8, 8);
        let due = set.guard.shared.entrance.clock().now();
        set.guard.expect_canary(Some(due));
        drop(set.admitted());
        set.hand.advance(Duration::from_millis(1));
        let waiting = set.waiting();
        assert_eq!(set.guard.slots(), 5);
        set.guard.expect_canary(None);
        drop(waiting.await.unwrap());
        assert_eq!(set.guard.slots(), 8);
        set.hand.advance(Duration::from_secs(1));
        drop(set.admitted());
    }

    /// Random arrivals, polls, departures, ends, lags and levels of pressure, at random times: whenever a
    /// client leaves, nothing of it stays.
    #[tokio::test(start_paused = true)]
    async fn a_million_random_steps_leave_no_slot_and_no_place_behind() {
        for seed in 0..20 {
            let mut dice = Dice(seed);
            let (clock, hand) = Clock::manual();
            let config = GuardConfig {
                slots: 1 + dice.below(4),
                queue: dice.below(6),
                adaptive: [Adaptive::Off, Adaptive::Aimd, Adaptive::Gradient][dice.below(3)],
                rules: vec![GuardRule::new("/narrow").slots(1).queue(dice.below(4))],
                ..GuardConfig::default()
            };
            let probe = FakeProbe::default();
            let used = Arc::clone(&probe.0);
            let guard = Guard::with_probe(&config, clock, Events::none(), Box::new(probe)).unwrap();
            let classes = ["/health", "/narrow", "/"].map(request);
            let (mut permits, mut waiting) = (Vec::new(), Vec::new());
            guard.expect_canary(Some(NEVER));
            let mut pace = Box::pin(guard.pace());
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..50_000 {
                hand.advance(Duration::from_micros(dice.below(3_000) as u64));
                match dice.below(16) {
                    0..=5 => match guard.admit_request(&classes[dice.below(3)]) {
                        Admission::Admitted(permit) => permits.push(permit),
                        Admission::Wait(line) => waiting.push(Box::pin(line)),
                        Admission::Refused(_) => {}
                    },
                    6..=8 if !waiting.is_empty() => {
                        let at = dice.below(waiting.len());
                        match waiting[at].as_mut().poll(&mut context) {
                            Poll::Pending => continue,
                            Poll::Ready(Ok(permit)) => permits.push(permit),
                            Poll::Ready(Err(_)) => {}
                        }
                        drop(waiting.swap_remove(at));
                    }
                    9 if !waiting.is_empty() => {
                        drop(waiting.swap_remove(dice.below(waiting.len())));
                    }
                    10..=12 if !permits.is_empty() => {
                        drop(permits.swap_remove(dice.below(permits.len())));
                    }
                    13 => assert!(pace.as_mut().poll(&mut context).is_pending()),
                    14 if dice.below(50) == 0 => {
                        guard.on_lag([Lag::Calm, Lag::Steady, Lag::Lagging][dice.below(3)]);
                    }
                    15 if dice.below(50) == 0 => {
                        used.store([100, 100, 960][dice.below(3)], Ordering::SeqCst);
                        guard.sample();
                    }
                    _ => {}
                }
                assert!(guard.in_flight() <= config.slots);
            }
            guard.stop_watching();
            drop((waiting, permits));
            for entrance in guard.entrances() {
                let left = (entrance.slots().taken(), entrance.slots().waiting());
                assert_eq!(left, (0, 0), "seed {seed}");
            }
        }
    }

    /// Says how much the machine stalls as well.
    struct StallingProbe(FakeProbe, Arc<Mutex<Option<f32>>>);

    impl MemoryProbe for StallingProbe {
        fn used_bytes(&mut self) -> Option<u64> {
            self.0.used_bytes()
        }

        fn bounds(&mut self) -> Option<MemoryBounds> {
            self.0.bounds()
        }

        fn stalled_percent(&mut self) -> Option<f32> {
            *self.1.lock().unwrap()
        }
    }

    #[test]
    fn a_machine_that_swaps_raises_the_level_and_the_level_falls_with_it() {
        let (clock, hand) = Clock::manual();
        let (probe, stalled) = (FakeProbe::default(), Arc::<Mutex<Option<f32>>>::default());
        let used = Arc::clone(&probe.0);
        let probe = Box::new(StallingProbe(probe, Arc::clone(&stalled)));
        let guard =
            Guard::with_probe(&GuardConfig::default(), clock, Events::none(), probe).unwrap();
        assert_eq!(guard.memory().stalled_percent, None);
        for (bytes, percent, level) in [
            (820, Some(0.0), Pressure::Elevated),
            (820, Some(12.5), Pressure::High),
            (810, Some(6.0), Pressure::High),
            // Were the level that was shown taken for the one that the use has given, it would stay high.
            (810, Some(1.0), Pressure::Elevated),
            (100, Some(30.0), Pressure::Elevated),
            (960, Some(30.0), Pressure::Critical),
            (100, None, Pressure::Normal),
        ] {
            used.store(bytes, Ordering::SeqCst);
            *stalled.lock().unwrap() = percent;
            hand.advance(Duration::from_secs(2));
            guard.sample();
            assert_eq!(guard.pressure(), level, "{bytes} and {percent:?}");
            assert_eq!(guard.memory().stalled_percent, percent);
        }
    }

    #[test]
    fn a_leak_beside_the_caches_is_told_and_growth_within_them_is_not() {
        for (in_caches, leaks) in [(true, 0), (false, 1)] {
            let (clock, hand) = Clock::manual();
            let (probe, heard) = (FakeProbe::default(), Arc::new(Heard::default()));
            let used = Arc::clone(&probe.0);
            let config = GuardConfig {
                memory_budget_bytes: Some(450 << 20),
                ..GuardConfig::default()
            };
            let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
            let probe = Box::new(LargeProbe(probe));
            let guard = Guard::with_probe(&config, clock, events, probe).unwrap();
            let cached = Arc::clone(&used);
            guard.caches_hold(move || match in_caches {
                true => cached.load(Ordering::SeqCst).saturating_sub(100 << 20),
                false => 0,
            });
            for minute in 0..60 {
                used.store((100 + minute) << 20, Ordering::SeqCst);
                guard.sample();
                hand.advance(Duration::from_secs(60));
            }
            let told = heard.0.lock().unwrap();
            let told = told.iter().filter(|text| text.contains("LeakSuspected"));
            assert_eq!(told.count(), leaks);
            assert_eq!(guard.leak().is_some(), leaks == 1);
        }
    }

    /// On a machine of 1 GiB.
    struct LargeProbe(FakeProbe);

    impl MemoryProbe for LargeProbe {
        fn used_bytes(&mut self) -> Option<u64> {
            self.0.used_bytes()
        }

        fn bounds(&mut self) -> Option<MemoryBounds> {
            Some(MemoryBounds {
                limit_bytes: Some(512 << 20),
                total_bytes: 1 << 30,
                available_bytes: 1 << 29,
            })
        }
    }

    #[test]
    fn a_budget_beyond_the_machine_is_a_fault_and_one_beyond_the_group_a_warning() {
        let try_with = |budget: u64, enabled: bool| {
            let heard = Arc::new(Heard::default());
            let config = GuardConfig {
                memory_budget_bytes: Some(budget),
                enabled,
                ..GuardConfig::default()
            };
            let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
            let probe = Box::new(LargeProbe(FakeProbe::default()));
            let built = Guard::with_probe(&config, Clock::system(), events, probe);
            let warnings = heard.0.lock().unwrap().len();
            (built.map(|guard| guard.memory().budget_bytes), warnings)
        };
        assert_eq!(try_with(512 << 20, true), (Ok(512 << 20), 0));
        assert_eq!(try_with(1 << 30, true), (Ok(1 << 30), 1));
        let (error, _) = try_with((1 << 30) + 1, true);
        let error = error.unwrap_err();
        assert_eq!(error.faults()[0].field, "guard.memory_budget_bytes");
        assert!(error.to_string().contains("1073741824 bytes"), "{error}");
        assert!(try_with(1 << 40, false).0.is_ok(), "nobody uses it");
    }

    #[test]
    fn a_guard_that_is_switched_off_lets_everybody_in() {
        let config = GuardConfig {
            enabled: false,
            slots: 1,
            ..GuardConfig::default()
        };
        let probe = FakeProbe(Arc::new(AtomicU64::new(2000)));
        let guard =
            Guard::with_probe(&config, Clock::system(), Events::none(), Box::new(probe)).unwrap();
        let permits = [guard.admit(ORDINARY), guard.admit(ORDINARY)];
        assert!(
            permits
                .iter()
                .all(|permit| matches!(permit, Admission::Admitted(_)))
        );
        guard.sample();
        assert_eq!(guard.pressure(), Pressure::Unknown);
    }

    #[test]
    fn the_guard_of_this_process_knows_its_memory_on_linux() {
        let guard = Guard::new(&GuardConfig::default(), Clock::system(), Events::none()).unwrap();
        if cfg!(target_os = "linux") {
            let reading = guard.memory();
            assert!(reading.used_bytes > 0 && reading.budget_bytes > 16 << 20);
            assert_ne!(guard.pressure(), Pressure::Unknown);
        } else {
            assert_eq!(guard.pressure(), Pressure::Unknown);
        }
    }

    #[test]
    fn a_faulty_configuration_makes_no_guard() {
        let config = GuardConfig {
            slots: 0,
            critical: vec!["health".to_owned()],
            ..GuardConfig::default()
        };
        let error = Guard::new(&config, Clock::system(), Events::none()).unwrap_err();
        assert_eq!(error.faults().len(), 2);
    }

    /// Eight tasks on four threads arrive 160,000 times; some give up before they are polled, some
    /// while they wait, some are refused, and nobody may be forgotten in the queue.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_threads_that_come_wait_and_give_up_leave_no_slot_behind() {
        let config = GuardConfig {
            slots: 3,
            queue: 4,
            queue_timeout: Duration::from_secs(60),
            ..GuardConfig::default()
        };
        let probe = Box::new(FakeProbe::default());
        let guard = Guard::with_probe(&config, Clock::system(), Events::none(), probe).unwrap();
        let inside = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for seed in 0..8_u64 {
            let (guard, inside) = (guard.clone(), Arc::clone(&inside));
            tasks.spawn(async move {
                let mut served = 0;
                let mut dice = seed;
                for _ in 0..20_000 {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let choice = dice >> 61;
                    let permit = match guard.admit(ORDINARY) {
                        Admission::Admitted(permit) => permit,
                        Admission::Refused(_) => {
                            tokio::task::yield_now().await;
                            continue;
                        }
                        Admission::Wait(_) if choice == 0 => continue,
                        Admission::Wait(waiting) if choice < 3 => {
                            let won = tokio::select! {
                                biased;
                                permit = waiting => permit.ok(),
                                () = tokio::task::yield_now() => None,
                            };
                            let Some(permit) = won else { continue };
                            permit
                        }
                        // Where the queue has stood for too long some are shed, and come again.
                        Admission::Wait(waiting) => match waiting.await {
                            Ok(permit) => permit,
                            Err(_) => continue,
                        },
                    };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    if choice % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                    served += 1;
                }
                served
            });
        }
        let all = tokio::time::timeout(Duration::from_secs(50), tasks.join_all());
        let served: u64 = all.await.expect("a waiter was forgotten").iter().sum();
        assert!(served > 8000, "{served}");
        assert_eq!((guard.in_flight(), guard.queued()), (0, 0));
    }
}
