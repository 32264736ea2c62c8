//! What the parts of a warmer share: what waits, what is hot, and who computes what.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use foldhash::quality::RandomState;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::event::Events;
#[cfg(feature = "redis")]
use crate::store::RedisPool;
use crate::task::Spawner;
use crate::tiers::Tiers;
use crate::warming::agenda::Agenda;
use crate::warming::config::WarmingConfig;
use crate::warming::errand::{Computes, Errand, Work};
use crate::warming::pace::Pace;
use crate::warming::queue::Queue;
use crate::warming::recipe::Recipe;
use crate::warming::stats::WarmerStats;
#[cfg(feature = "redis")]
use crate::warming::store::HotSetStore;
use crate::warming::top::Top;

/// Everything that a warmer is.
pub(crate) struct Shared {
    pub(crate) config: WarmingConfig,
    pub(crate) tiers: Tiers,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) spawner: Spawner,
    #[cfg(feature = "redis")]
    pub(crate) hot_set: Option<HotSet>,
    /// Whoever changes what the worker goes by wakes it.
    pub(crate) wake: Notify,
    hasher: RandomState,
    state: Mutex<State>,
}

/// Where all instances remember what is hot.
#[cfg(feature = "redis")]
#[derive(Clone, Debug)]
pub(crate) struct HotSet {
    pub(crate) pool: RedisPool,
    pub(crate) store: HotSetStore,
}

/// What changes.
pub(crate) struct State {
    pub(crate) queue: Queue<Errand>,
    pub(crate) running: HashSet<Errand>,
    pub(crate) pace: Pace,
    pub(crate) top: Top<Recipe>,
    pub(crate) registered: HashMap<Arc<str>, Registered>,
    pub(crate) agenda: Agenda,
    pub(crate) users: HashMap<Arc<str>, Work<Arc<str>>>,
    /// What was hot before the start, is not in Redis, and cannot be computed yet.
    pub(crate) left_over: Vec<(Recipe, Duration)>,
    pub(crate) counts: WarmerStats,
    /// Whether the worker was started.
    pub(crate) works: bool,
    /// Whether the sweeper was.
    pub(crate) sweeps: bool,
}

/// How values of a cache are computed.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) computes: Arc<dyn Computes>,
    /// How long they are fresh, as a rule.
    pub(crate) ttl: Duration,
}

impl Shared {
    pub(crate) fn new(
        config: &WarmingConfig,
        tiers: Tiers,
        (clock, events, spawner): (Clock, Events, Spawner),
        #[cfg(feature = "redis")] hot_set: Option<HotSet>,
    ) -> Self {
        let state = State {
            queue: Queue::new(config.queue_max),
            running: HashSet::new(),
            pace: Pace::new(config.concurrency_max, config.jobs_per_second_max),
            top: Top::new(config.keys_max, config.half_life),
            registered: HashMap::new(),
            agenda: Agenda::default(),
            users: HashMap::new(),
            left_over: Vec::new(),
            counts: WarmerStats::default(),
            works: false,
            sweeps: false,
        };
        Self {
            config: config.clone(),
            tiers,
            clock,
            events,
            spawner,
            #[cfg(feature = "redis")]
            hot_set,
            wake: Notify::new(),
            hasher: RandomState::default(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves anything half done, so poison is ignored.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By what a key is known among those that are hot.
    pub(crate) fn hash(&self, cache: &str, tenant: Option<&str>, key: &str) -> u64 {
        self.hasher.hash_one((cache, tenant, key))
    }

    /// Unix time in seconds.
    pub(crate) fn wall(&self) -> u64 {
        let since = self.clock.wall().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    /// A number of this instance's own for a name.
    pub(crate) fn seed(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
