//! Gives slots to connections that stay.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Clock;
use crate::connections::config::ConnectionsConfig;
use crate::connections::hall::Hall;
use crate::connections::seat::Ending;
use crate::connections::slot::ConnectionSlot;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::refusal::Refusal;

/// Counts the connections that stay open. Cheap to clone; all clones count together. See the
/// [module](crate::connections) for examples.
#[derive(Clone)]
pub struct Connections {
    hall: Arc<Hall>,
}

impl Connections {
    /// None is open.
    ///
    /// # Errors
    ///
    /// Every number in `config` that cannot be meant.
    pub fn new(
        config: &ConnectionsConfig,
        clock: Clock,
        events: Events,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("connections", &mut faults);
        faults.into_result()?;
        Ok(Self {
            hall: Arc::new(Hall::new(config.clone(), clock, events)),
        })
    }

    /// A slot for a connection of nobody in particular. Ask before the answer that switches protocols is
    /// given, so that a refusal can be an answer: [`refuse`](crate::response::refuse).
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyConnections`] if as many are open as there may be;
    /// [`Refusal::MemoryPressure`] while they are [paused](Self::pause).
    pub fn open(&self) -> Result<ConnectionSlot, Refusal> {
        self.slot(None)
    }

    /// A slot for a connection of `tenant`. Tenants should be names that the service knows, not words of
    /// its clients: each is kept for as long as it has a connection open.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`Refusal::TooManyConnections`] if the tenant has as many as one may
    /// have.
    pub fn open_for(&self, tenant: &str) -> Result<ConnectionSlot, Refusal> {
        self.slot(Some(tenant))
    }

    fn slot(&self, tenant: Option<&str>) -> Result<ConnectionSlot, Refusal> {
        if !self.hall.config.enabled {
            return Ok(ConnectionSlot::uncounted());
        }
        let seat = self.hall.seat(tenant)?;
        Ok(ConnectionSlot::new(Arc::clone(&self.hall), seat))
    }

    /// Takes back the slots of connections on which nothing was sent or received for longer than
    /// `stale_ms`; returns how many. To be called now and then, as a [`Keep`](crate::Keep) does: looks at
    /// every connection, some 10 ns each.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn sweep(&self) -> usize {
        self.hall.end_idle(self.hall.config.stale, Ending::Stale)
    }

    /// Takes back the slots of connections that have been idle for longer than `limit`, because memory is
    /// short; returns how many.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn relieve(&self, limit: Duration) -> usize {
        self.hall.end_idle(limit, Ending::Relieved)
    }

    /// Lets nobody new in until [`resume`](Self::resume), because memory is short. What is open stays.
    pub fn pause(&self) {
        self.hall.paused.store(true, Ordering::Relaxed);
    }

    /// Lets new connections in again.
    pub fn resume(&self) {
        self.hall.paused.store(false, Ordering::Relaxed);
    }

    /// How many are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.hall.open.load(Ordering::Relaxed)
    }

    /// How many `tenant` has open.
    #[must_use]
    pub fn open_count_of(&self, tenant: &str) -> usize {
        self.hall.tenants.open_count(tenant)
    }

    /// How many tenants have at least one open.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.hall.tenants.len()
    }

    /// The `count` tenants with most of them open, the first of them first. Looks at all tenants: for people, not
    /// for requests.
    #[must_use]
    pub fn busiest_tenants(&self, count: usize) -> Vec<(Arc<str>, usize)> {
        self.hall.tenants.busiest(count)
    }

    /// The settings it runs with.
    #[must_use]
    pub fn config(&self) -> &ConnectionsConfig {
        &self.hall.config
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("open", &self.open_count())
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::sync::{Mutex, OnceLock};

    use futures_util::FutureExt;

    use super::*;
    use crate::clock::{ManualClock, Moment};
    use crate::event::{Event, Recorder};

    /// What was told: `opened`, `ended`, `full`, .. and how often.
    #[derive(Default)]
    struct Told(Mutex<BTreeMap<&'static str, usize>>);

    impl Recorder for Told {
        fn record(&self, event: &Event<'_>) {
            let word = match *event {
                Event::ConnectionOpened => "opened",
                Event::ConnectionClosed { why } | Event::ConnectionRefused { why } => why,
                _ => "other",
            };
            *self.0.lock().unwrap().entry(word).or_default() += 1;
        }
    }

    struct Set {
        connections: Connections,
        clock: Clock,
        hand: ManualClock,
        told: Arc<Told>,
    }

    fn set(change: impl FnOnce(&mut ConnectionsConfig)) -> Set {
        let mut config = ConnectionsConfig::default();
        change(&mut config);
        let (clock, hand) = Clock::manual();
        let told = Arc::new(Told::default());
        let events = Events::to(vec![Arc::<Told>::clone(&told)]);
        Set {
            connections: Connections::new(&config, clock.clone(), events).unwrap(),
            clock,
            hand,
            told,
        }
    }

    impl Set {
        fn told(&self) -> Vec<(&'static str, usize)> {
            std::mem::take(&mut *self.told.0.lock().unwrap())
                .into_iter()
                .collect()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn as_many_are_let_in_as_there_may_be_and_a_drop_makes_room() {
        let set = set(|config| config.connections_max = 2);
        let one = set.connections.open().unwrap();
        let two = set.connections.open_for("acme").unwrap();
        let refusal = set.connections.open_for("acme").unwrap_err();
        let retry_after = 5 * SECOND;
        assert_eq!(refusal, Refusal::TooManyConnections { retry_after });
        assert_eq!(set.connections.open_count(), 2);
        assert_eq!(set.connections.open_count_of("acme"), 1, "not counted half");
        drop(one);
        let twin = set.connections.clone();
        let three = twin.open().unwrap();
        assert_eq!((twin.open_count(), set.connections.open_count()), (2, 2));
        drop((two, three));
        assert_eq!(set.connections.open_count(), 0);
        assert_eq!(set.told(), [("ended", 3), ("full", 1), ("opened", 3)]);
    }

    #[test]
    fn a_tenant_at_its_limit_keeps_nobody_else_out_and_is_forgotten_with_its_last() {
        let set = set(|config| config.per_tenant_max = Some(2));
        let mut slots = vec![
            set.connections.open_for("acme").unwrap(),
            set.connections.open_for("acme").unwrap(),
        ];
        for _ in 0..5 {
            assert!(set.connections.open_for("acme").is_err());
        }
        slots.push(set.connections.open_for("beta").unwrap());
        slots.push(set.connections.open().unwrap());
        assert_eq!(set.connections.open_count(), 4);
        assert_eq!(set.connections.tenants(), 2);
        drop(slots.remove(0));
        slots.push(set.connections.open_for("acme").unwrap());
        drop(slots);
        assert_eq!(set.connections.open_count(), 0);
        assert_eq!(set.connections.tenants(), 0);
        assert_eq!(
            set.told(),
            [("ended", 5), ("opened", 5), ("tenant_full", 5)]
        );
    }

    /// Sends something on a connection when it hears that another has ended.
    struct Speaks(OnceLock<ConnectionSlot>);

    impl Recorder for Speaks {
        fn record(&self, event: &Event<'_>) {
            if let (Event::ConnectionClosed { .. }, Some(slot)) = (event, self.0.get()) {
                slot.touch();
            }
        }
    }

    #[test]
    fn one_that_speaks_while_others_are_swept_stays() {
        let (clock, hand) = Clock::manual();
        let speaks = Arc::new(Speaks(OnceLock::new()));
        let events = Events::to(vec![Arc::<Speaks>::clone(&speaks)]);
        let config = ConnectionsConfig::default();
        let connections = Connections::new(&config, clock, events).unwrap();
        // So many that one shares its row with the first, behind it.
        let mut slots: Vec<_> = (0..64).map(|_| connections.open().unwrap()).collect();
        assert!(speaks.0.set(slots.pop().unwrap()).is_ok());
        hand.advance(config.stale + SECOND);
        assert_eq!(connections.sweep(), 63);
        assert!(!speaks.0.get().unwrap().is_closed());
    }

    #[tokio::test]
    async fn the_silent_are_swept_told_and_given_back_once() {
        let set = set(|config| config.stale = 60 * SECOND);
        let silent = set.connections.open_for("acme").unwrap();
        let busy = set.connections.open_for("acme").unwrap();
        set.hand.advance(60 * SECOND);
        busy.touch();
        assert_eq!(set.connections.sweep(), 0, "just as long is not too long");
        let mut waiting = Box::pin(silent.closed());
        assert!(waiting.as_mut().now_or_never().is_none());
        set.hand.advance(Duration::from_nanos(1));
        assert_eq!(set.connections.sweep(), 1);
        assert_eq!(set.connections.sweep(), 0);
        waiting.await;
        assert!(silent.is_closed() && !busy.is_closed());
        assert_eq!(set.connections.open_count(), 1);
        assert_eq!(set.connections.open_count_of("acme"), 1);
        // It is too late for that, and the place may be another's by now.
        silent.touch();
        let other = set.connections.open_for("acme").unwrap();
        drop(silent);
        assert!(!other.is_closed());
        assert_eq!(set.connections.open_count(), 2);
        drop((busy, other));
        assert_eq!(set.connections.open_count(), 0);
        assert_eq!(set.told(), [("ended", 2), ("opened", 3), ("stale", 1)]);
    }

    #[test]
    fn short_memory_sends_the_idle_home_and_lets_nobody_in() {
        let set = set(|_| {});
        let idle = set.connections.open().unwrap();
        set.hand.advance(20 * SECOND);
        let busy = set.connections.open().unwrap();
        set.hand.advance(11 * SECOND);
        assert_eq!(set.connections.relieve(30 * SECOND), 1);
        assert!(idle.is_closed() && !busy.is_closed());
        set.connections.pause();
        let retry_after = 5 * SECOND;
        assert_eq!(
            set.connections.open().unwrap_err(),
            Refusal::MemoryPressure { retry_after }
        );
        set.connections.resume();
        assert!(set.connections.open().is_ok());
        drop((idle, busy));
        assert_eq!(
            set.told(),
            [
                ("ended", 2),
                ("memory_pressure", 1),
                ("opened", 3),
                ("relieved", 1)
            ]
        );
    }

    #[test]
    fn switched_off_nothing_is_counted_and_nothing_closed() {
        let set = set(|config| {
            config.enabled = false;
            config.connections_max = 1;
        });
        let slots = [0; 3].map(|_| set.connections.open_for("acme").unwrap());
        set.hand.advance(10_000 * SECOND);
        assert_eq!(set.connections.sweep(), 0);
        slots[0].touch();
        assert!(!slots[0].is_closed());
        assert!(slots[0].closed().now_or_never().is_none());
        assert_eq!(set.connections.open_count(), 0);
        assert_eq!(set.told(), []);
    }

    #[tokio::test]
    async fn everybody_who_waits_for_the_end_hears_of_it() {
        let set = set(|_| {});
        let slot = Arc::new(set.connections.open().unwrap());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let slot = Arc::clone(&slot);
                async move { slot.closed().await }
            })
            .collect();
        let all = futures_util::future::join_all(waiters);
        let end = async {
            set.hand.advance(SECOND);
            assert_eq!(set.connections.relieve(Duration::ZERO), 1);
        };
        tokio::join!(all, end);
        slot.closed().await;
    }

    /// A cheap source of the same numbers each time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % sides
        }
    }

    /// What the model knows of a slot.
    struct Known {
        slot: ConnectionSlot,
        tenant: Option<&'static str>,
        heard: Moment,
        open: bool,
    }

    /// One step of a schedule, with the engine and with the model.
    fn step(set: &Set, known: &mut Vec<Known>, dice: &mut Dice) {
        let now = set.clock.now();
        let open = |known: &[Known], tenant: Option<&str>| {
            let open = known.iter().filter(|known| known.open);
            let of = open.filter(|known| tenant.is_none_or(|tenant| known.tenant == Some(tenant)));
            of.count()
        };
        match dice.roll(10) {
            0..4 => {
                let tenant = [None, Some("a"), Some("b")][dice.roll(3) as usize];
                let fits = open(known, None) < 4
                    && tenant.is_none_or(|tenant| open(known, Some(tenant)) < 2);
                let slot = match tenant {
                    None => set.connections.open(),
                    Some(tenant) => set.connections.open_for(tenant),
                };
                assert_eq!(slot.is_ok(), fits);
                known.extend(slot.ok().map(|slot| Known {
                    slot,
                    tenant,
                    heard: now,
                    open: true,
                }));
            }
            4 | 5 if !known.is_empty() => {
                let at = dice.roll(known.len() as u64) as usize;
                known[at].slot.touch();
                known[at].heard = now;
            }
            6 | 7 if !known.is_empty() => {
                let at = dice.roll(known.len() as u64) as usize;
                drop(known.swap_remove(at));
            }
            8 => {
                let (limit, ended) = match dice.roll(2) {
                    0 => (20 * SECOND, set.connections.sweep()),
                    _ => (15 * SECOND, set.connections.relieve(15 * SECOND)),
                };
                let gone = |known: &&mut Known| known.open && now.since(known.heard) > limit;
                let gone: Vec<_> = known.iter_mut().filter(gone).collect();
                assert_eq!(ended, gone.len());
                gone.into_iter().for_each(|known| known.open = false);
            }
            _ => set.hand.advance(dice.roll(30) as u32 * SECOND),
        }
        assert_eq!(set.connections.open_count(), open(known, None));
        for tenant in ["a", "b"] {
            let count = open(known, Some(tenant));
            assert_eq!(set.connections.open_count_of(tenant), count);
        }
        for known in known {
            assert_eq!(known.slot.is_closed(), !known.open);
        }
    }

    /// A million orders in which slots are opened, used, dropped, swept and relieved.
    #[test]
    fn no_slot_is_lost_or_doubled_in_any_order_of_things() {
        let set = set(|config| {
            config.connections_max = 4;
            config.per_tenant_max = Some(2);
            config.stale = 20 * SECOND;
        });
        let mut dice = Dice(0x2545_F491_4F6C_DD1D);
        let mut known = Vec::new();
        for schedule in 0..1_000_000 {
            for _ in 0..4 + dice.roll(9) {
                step(&set, &mut known, &mut dice);
            }
            known.clear();
            assert_eq!(set.connections.open_count(), 0, "schedule {schedule}");
            assert_eq!(set.connections.tenants(), 0, "schedule {schedule}");
        }
        let told: BTreeMap<_, _> = set.told().into_iter().collect();
        let closed = told["ended"] + told["stale"] + told["relieved"];
        assert_eq!(told["opened"], closed);
        for word in ["ended", "stale", "relieved", "full", "tenant_full"] {
            assert!(told[word] > 10_000, "{word} hardly happened: {told:?}");
        }
    }

    #[test]
    fn threads_that_meet_over_the_same_slots_leave_none_behind() {
        let set = set(|config| config.connections_max = 64);
        let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let ways: Vec<_> = (1..=4)
                .map(|seed| {
                    let (set, most) = (&set, &most);
                    scope.spawn(move || {
                        let mut dice = Dice(seed * 0x9E37_79B9);
                        let mut slots = Vec::new();
                        for _ in 0..20_000 {
                            let tenant = ["a", "b", "c"][dice.roll(3) as usize];
                            slots.extend(set.connections.open_for(tenant).ok());
                            most.fetch_max(set.connections.open_count(), Ordering::Relaxed);
                            if dice.roll(2) == 0 && !slots.is_empty() {
                                let at = dice.roll(slots.len() as u64) as usize;
                                drop(slots.swap_remove(at));
                            }
                            set.hand.advance(Duration::from_millis(1));
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    set.connections.relieve(Duration::from_millis(20));
                    std::thread::yield_now();
                }
            });
            for way in ways {
                way.join().unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(most.into_inner() <= 64);
        assert_eq!(set.connections.open_count(), 0);
        assert_eq!(set.connections.tenants(), 0);
        let told: BTreeMap<_, _> = set.told().into_iter().collect();
        assert_eq!(told["opened"], told["ended"] + told["relieved"]);
        assert!(told["relieved"] > 0, "{told:?}");
    }
}
