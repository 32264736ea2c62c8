//! What is done about memory, in order, as its pressure rises.
//!
//! | from | what | who |
//! |---|---|---|
//! | 80 % | `freeze`: caches grow no more | [`Caches`] |
//! | 85 % | `evict`: caches shrink to a target, then `purge`: the allocator gives back what they freed | [`Caches`], [`Purge`] |
//! | 90 % | `close`: connections are closed after their answer | the guard's layer |
//! | 95 % | `shed`: only critical routes are served | the guard |
//!
//! Each is told with the bytes before and after. What freezing and evicting frees are bytes of entries;
//! the process itself has less only once the allocator has given them back, which is why a purge follows.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cache::Cache;
use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::guard::{Guard, Pressure};
use crate::task::Spawner;
use crate::tiers::Tiers;

/// What gives the allocator's free memory back to the machine.
pub(crate) type PurgeHook = Arc<dyn Fn() + Send + Sync>;

/// The caches, which hold less the higher the pressure is.
pub(crate) struct Caches {
    cache: Cache,
    tiers: Tiers,
    events: Events,
    level: Mutex<Pressure>,
}

impl Caches {
    pub(crate) fn new(cache: Cache, tiers: Tiers, events: Events) -> Self {
        let level = Mutex::new(Pressure::Unknown);
        Self {
            cache,
            tiers,
            events,
            level,
        }
    }

    /// The bytes of all entries in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.cache.bytes().saturating_add(self.tiers.bytes())
    }

    /// Fits what is stored to the level, which is another than before, or the first.
    pub(crate) fn relieve(&self, to: Pressure) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let from = std::mem::replace(&mut *level, to);
        let before = self.bytes();
        let (cache, tiers) = (&self.cache, &self.tiers);
        let bearable = |stored: u64, configured: u64| match to {
            // What was given back is free for the caches even where the system has not got it back, and a level
            // that falls evicts nobody.
            Pressure::High | Pressure::Severe if from > to => Some(stored.max(configured / 4)),
            _ => bearable(to, stored, configured),
        };
        match bearable(cache.bytes(), cache.config().capacity_bytes) {
            None => cache.restore_capacity(),
            Some(bytes) => cache.set_capacity_bytes(bytes),
        }
        match bearable(tiers.bytes(), tiers.config().capacity_bytes) {
            None => tiers.restore_capacity(),
            Some(bytes) => tiers.set_capacity_bytes(bytes),
        }
        if from < Pressure::Elevated && to >= Pressure::Elevated {
            tell(&self.events, "freeze", before, before);
        }
        if from < to && to >= Pressure::High {
            tell(&self.events, "evict", before, self.bytes());
        }
    }
}

/// How much may be stored at this level where so much is; `None` for as much as is configured.
fn bearable(pressure: Pressure, stored: u64, configured: u64) -> Option<u64> {
    match pressure {
        Pressure::Normal | Pressure::Unknown => None,
        // Growth is frozen: what is there stays, what is new takes the place of what is old.
        Pressure::Elevated => Some(stored.max(configured / 8)),
        Pressure::High | Pressure::Severe => {
            Some((stored.min(configured) / 10 * 7).max(configured / 16))
        }
        Pressure::Critical => Some(configured / 16),
    }
}

/// Calls the purge hook while the level is high: seldom, never twice at once, and away from the workers.
pub(crate) struct Purge {
    pub(crate) hook: PurgeHook,
    pub(crate) every: Duration,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) spawner: Spawner,
    running: Arc<AtomicBool>,
    last: Option<Moment>,
}

impl Purge {
    pub(crate) fn new(
        hook: PurgeHook,
        every: Duration,
        clock: Clock,
        events: Events,
        spawner: Spawner,
    ) -> Self {
        Self {
            hook,
            every,
            clock,
            events,
            spawner,
            running: Arc::default(),
            last: None,
        }
    }

    /// Starts a purge unless one is under way, or was within the configured time. After it the memory is
    /// sampled at once, so that the level falls as soon as the memory is given back.
    pub(crate) fn start(&mut self, guard: &Guard) {
        let now = self.clock.now();
        if self.last.is_some_and(|last| now.since(last) < self.every)
            || self.running.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.last = Some(now);
        let running = Running(Arc::clone(&self.running));
        let (hook, events, guard) = (Arc::clone(&self.hook), self.events.clone(), guard.clone());
        self.spawner.spawn_blocking(move || {
            let _running = running;
            let before = guard.memory().used_bytes;
            if catch_unwind(AssertUnwindSafe(|| hook())).is_err() {
                events.emit(Event::Warning { text: PANICKED });
                return;
            }
            guard.sample();
            tell(&events, "purge", before, guard.memory().used_bytes);
        });
    }
}

/// Says that the purge is over, also when it never began because the runtime was shut down.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Follows the level from beat to beat: purges, and tells what the guard does by itself.
#[derive(Debug)]
pub(crate) struct Relief {
    guard: Guard,
    events: Events,
    purge: Option<Purge>,
    level: Pressure,
    /// What has begun, with the bytes that the process used then: told at the next beat, when there is
    /// something to compare with.
    begun: Vec<(&'static str, u64)>,
    /// Whether it was told that nobody purges.
    warned: bool,
}

impl Relief {
    pub(crate) const fn new(guard: Guard, events: Events, purge: Option<Purge>) -> Self {
        Self {
            guard,
            events,
            purge,
            level: Pressure::Unknown,
            begun: Vec::new(),
            warned: false,
        }
    }

    /// To be called after each sample.
    pub(crate) fn follow(&mut self) {
        let (level, used) = (self.guard.pressure(), self.guard.memory().used_bytes);
        for (action, before) in self.begun.drain(..) {
            tell(&self.events, action, before, used);
        }
        for (from, action) in [(Pressure::Severe, "close"), (Pressure::Critical, "shed")] {
            if self.level < from && level >= from {
                self.begun.push((action, used));
            }
        }
        self.level = level;
        if level >= Pressure::High && self.purge.is_none() && !self.warned {
            self.warned = true;
            self.events.emit(Event::Warning {
                text: NOTHING_PURGES,
            });
        }
        if let Some(purge) = self.purge.as_mut().filter(|_| level >= Pressure::High) {
            purge.start(&self.guard);
        }
    }
}

fn tell(events: &Events, action: &'static str, before_bytes: u64, after_bytes: u64) {
    events.emit(Event::MemoryRelieved {
        action,
        before_bytes,
        after_bytes,
    });
}

const NOTHING_PURGES: &str = "memory is short and what caches give back may stay with the allocator: use the feature \
     glibc-trim, or KeepBuilder::purge_memory";
const PANICKED: &str =
    "the hook that was given to purge_memory panicked; mend it, no memory is given back";

impl fmt::Debug for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purge")
            .field("every", &self.every)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize};

    use super::*;
    use crate::event::Recorder;
    use crate::guard::{GuardConfig, MemoryBounds, MemoryProbe};
    use crate::task::Tasks;

    /// Uses as many of 1,000 bytes as it is told.
    struct FakeProbe(Arc<AtomicU64>);

    impl MemoryProbe for FakeProbe {
        fn used_bytes(&mut self) -> Option<u64> {
            Some(self.0.load(Ordering::SeqCst))
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
            let told = match event {
                Event::MemoryRelieved {
                    action,
                    before_bytes,
                    after_bytes,
                } => format!("{action} {before_bytes} {after_bytes}"),
                Event::Warning { .. } => "warning".to_owned(),
                _ => return,
            };
            self.0.lock().unwrap().push(told);
        }
    }

    struct Set {
        tasks: Tasks,
        guard: Guard,
        used: Arc<AtomicU64>,
        heard: Arc<Heard>,
        relief: Relief,
        hand: crate::clock::ManualClock,
    }

    /// A hook that is called with the use and the number of the call.
    fn set(hook: impl Fn(&AtomicU64, usize) + Send + Sync + 'static) -> Set {
        let (clock, hand) = Clock::manual();
        let (used, heard) = (Arc::new(AtomicU64::new(100)), Arc::new(Heard::default()));
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let probe = Box::new(FakeProbe(Arc::clone(&used)));
        let config = GuardConfig::default();
        let guard = Guard::with_probe(&config, clock.clone(), events.clone(), probe).unwrap();
        let tasks = Tasks::new().unwrap();
        let (calls, seen) = (AtomicUsize::new(0), Arc::clone(&used));
        let hook: PurgeHook = Arc::new(move || hook(&seen, calls.fetch_add(1, Ordering::SeqCst)));
        let every = config.purge_every;
        let purge = Purge::new(hook, every, clock, events.clone(), tasks.spawner());
        let relief = Relief::new(guard.clone(), events, Some(purge));
        Set {
            tasks,
            guard,
            used,
            heard,
            relief,
            hand,
        }
    }

    impl Set {
        fn beat(&mut self, used: u64) {
            self.used.store(used, Ordering::SeqCst);
            self.guard.sample();
            self.relief.follow();
        }

        /// What was told once no purge is under way any more.
        async fn told(&self) -> Vec<String> {
            let idle = async {
                while self
                    .relief
                    .purge
                    .as_ref()
                    .unwrap()
                    .running
                    .load(Ordering::Acquire)
                {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), idle)
                .await
                .unwrap();
            std::mem::take(&mut self.heard.0.lock().unwrap())
        }
    }

    #[tokio::test]
    async fn a_purge_is_followed_by_a_sample_and_repeated_while_the_level_stays_high() {
        let mut set = set(|used, call| used.store([860, 100][call], Ordering::SeqCst));
        set.beat(840);
        assert_eq!(set.told().await, [""; 0], "elevated is not high");
        set.beat(870);
        assert_eq!(set.told().await, ["purge 870 860"]);
        set.beat(870);
        set.hand.advance(Duration::from_millis(29_999));
        set.beat(870);
        assert_eq!(set.told().await, [""; 0], "not within thirty seconds");
        set.hand.advance(Duration::from_millis(1));
        set.beat(870);
        assert_eq!(set.told().await, ["purge 870 100"]);
        assert_eq!(
            set.guard.pressure(),
            Pressure::Normal,
            "without another beat"
        );
        set.hand.advance(Duration::from_secs(31));
        set.beat(100);
        assert_eq!(set.told().await, [""; 0]);
    }

    #[tokio::test]
    async fn a_purge_that_panics_is_told_and_the_next_one_comes() {
        let mut set = set(|used, call| {
            assert!(call > 0, "the first fails");
            used.store(100, Ordering::SeqCst);
        });
        set.beat(870);
        assert_eq!(set.told().await, ["warning"]);
        set.hand.advance(Duration::from_secs(30));
        set.beat(870);
        assert_eq!(set.told().await, ["purge 870 100"]);
    }

    #[tokio::test]
    async fn no_purge_begins_while_one_is_under_way() {
        let (open, door) = std::sync::mpsc::channel::<()>();
        let door = Mutex::new(door);
        let mut set = set(move |_, call| {
            assert_eq!(call, 0);
            let _ = door.lock().unwrap().recv();
        });
        set.beat(870);
        set.hand.advance(Duration::from_secs(60));
        set.beat(870);
        drop(open);
        assert_eq!(set.told().await, ["purge 870 870"]);
        assert_eq!(set.tasks.shutdown(Duration::from_secs(5)).await, 0);
        set.hand.advance(Duration::from_secs(60));
        set.beat(880);
        assert_eq!(set.told().await, [""; 0], "and none after shutdown");
    }

    #[tokio::test]
    async fn what_the_guard_does_by_itself_is_told_with_what_came_of_it() {
        let mut set = set(|_, _| {});
        set.beat(910);
        set.beat(960);
        set.beat(940);
        set.beat(500);
        let told = set.told().await;
        let own: Vec<_> = told
            .iter()
            .filter(|text| !text.starts_with("purge"))
            .collect();
        assert_eq!(own, ["close 910 960", "shed 960 940"]);
    }
}
