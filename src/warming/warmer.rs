//! The warmer: what it is told, and how it stands.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
#[cfg(feature = "redis")]
use crate::store::{RedisPool, RedisStatus, Script};
use crate::task::Spawner;
use crate::tiers::{Computed, EntryKey, EntryOptions, Tiers, TypedCache};
use crate::warming::config::WarmingConfig;
use crate::warming::errand::{Computing, Errand, work};
use crate::warming::key::WarmKey;
use crate::warming::queue::{Class, Job};
use crate::warming::recipe::Recipe;
use crate::warming::schedule::Schedule;
use crate::warming::shared::{Registered, Shared};
use crate::warming::stats::WarmerStats;
#[cfg(feature = "redis")]
use crate::warming::{boot, shared::HotSet, store, store::HotSetStore};
use crate::warming::{sweep, worker};

/// Computes values of typed caches before somebody has to wait for them. Cheap to clone; all clones are one
/// warmer.
///
/// See the [room](crate::warming) for what it does when.
#[derive(Clone, Debug)]
pub struct Warmer {
    shared: Arc<Shared>,
}

/// What a warmer stands on.
#[derive(Clone, Debug)]
pub struct WarmerParts {
    /// Where values are.
    pub tiers: Tiers,
    /// Reads time.
    pub clock: Clock,
    /// Hears of what is done.
    pub events: Events,
    /// Runs what is done.
    pub spawner: Spawner,
    /// Where what is hot is remembered. It must know [`Warmer::scripts`].
    #[cfg(feature = "redis")]
    pub redis: RedisPool,
}

impl Warmer {
    /// A warmer that knows nothing yet. With Redis it begins to fetch what was hot.
    ///
    /// # Errors
    ///
    /// Names every setting that is out of range.
    pub fn new(config: &WarmingConfig, parts: WarmerParts) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("warming", &mut faults);
        faults.into_result()?;
        #[cfg(feature = "redis")]
        let hot_set =
            (config.enabled && parts.redis.status() != RedisStatus::Disabled).then(|| {
                let pool = parts.redis;
                let store = HotSetStore::new(pool.clone(), config.half_life, config.keys_max);
                HotSet { pool, store }
            });
        let shared = Arc::new(Shared::new(
            config,
            parts.tiers,
            (parts.clock, parts.events, parts.spawner),
            #[cfg(feature = "redis")]
            hot_set,
        ));
        #[cfg(feature = "redis")]
        if shared.hot_set.is_some() {
            boot::start(&shared);
            sweep::start(&shared);
        }
        Ok(Self { shared })
    }

    /// The scripts that the pool has to be built with.
    #[cfg(feature = "redis")]
    #[must_use]
    pub const fn scripts() -> &'static [&'static Script] {
        &store::SCRIPTS
    }

    /// Says how a value of this cache is computed from its key, for whichever tenant. From now on, values of it
    /// that are in use are computed anew when they are invalidated, and before they end; and those that were hot
    /// before this instance started, as far as they are nowhere to be found. What was said of the same cache
    /// before is forgotten.
    ///
    /// `compute` should do what callers of [`get_or_compute`](TypedCache::get_or_compute) have done, with the
    /// same `options`. It must not hold the [`Keep`](crate::Keep), which holds it.
    ///
    /// ```
    /// # use tower_keep::{Keep, Profile};
    /// # use tower_keep::tiers::EntryOptions;
    /// # use tower_keep::warming::{KeyPartError, WarmKey};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keep = Keep::builder(Profile::azure_b1()).build()?;
    /// let squares = keep.cache::<u64>("square");
    /// let options = EntryOptions::query_result();
    /// keep.warmer().register(&squares, &options, |key: WarmKey| async move {
    ///     let number: u64 = key.part(0)?;
    ///     Ok::<_, KeyPartError>(number * number)
    /// });
    /// assert_eq!(keep.warmer().warm(&squares, [3, 4]), 2);
    /// # Ok(()) }
    /// ```
    pub fn register<T, F, Fut, V, E>(
        &self,
        cache: &TypedCache<T>,
        options: &EntryOptions,
        compute: F,
    ) where
        T: Send + Sync + 'static,
        F: Fn(WarmKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Computed<T>> + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let registered = Registered {
            ttl: cache.ttl(options),
            computes: Arc::new(Computing::new(cache, options, compute)),
        };
        let mut state = self.shared.state();
        let name = Arc::from(cache.name());
        state.registered.insert(name, registered.clone());
        let of_it = |(recipe, _): &mut (Recipe, Duration)| recipe.cache() == cache.name();
        let left_over: Vec<_> = state.left_over.extract_if(.., of_it).collect();
        drop(state);
        let boot = left_over.into_iter().map(|(recipe, worth)| {
            self.job(Errand::Entry(recipe), Class::Boot, (worth, registered.ttl))
        });
        worker::offer(&self.shared, boot.collect());
        sweep::start(&self.shared);
    }

    /// Has values be there before somebody asks: from Redis or from the cold store, or computed as was
    /// [registered](Self::register). What is there and fresh stays as it is. It happens in the background, behind
    /// what is more urgent. Returns how many of them wait now; keys beyond
    /// [`queue_max`](WarmingConfig::queue_max) and those that are too long for a [`Recipe`] do not.
    pub fn warm<T, I>(&self, cache: &TypedCache<T>, keys: I) -> usize
    where
        T: Send + Sync + 'static,
        I: IntoIterator<Item: EntryKey>,
    {
        self.warm_recipes(
            keys.into_iter()
                .filter_map(|key| Recipe::new(cache.name(), cache.tenant(), key.key_text()).ok()),
        )
    }

    /// The same for recipes, whatever caches they are of: for whoever has them in writing. One of a cache that
    /// nobody has [registered](Self::register) is dropped when its turn comes.
    pub fn warm_recipes(&self, recipes: impl IntoIterator<Item = Recipe>) -> usize {
        let now = self.shared.clock.now();
        let jobs = recipes
            .into_iter()
            .map(|recipe| worker::asked_for(Errand::Entry(recipe), now));
        worker::offer(&self.shared, jobs.collect())
    }

    /// Does something at the times of a schedule: fills what everybody looks at, say, with [`warm`](Self::warm)
    /// or in its own way. Each instance does it, and one at a time: where it is still under way, that time is
    /// skipped. What had this name before is forgotten.
    ///
    /// A failure or panic counts as one, and changes nothing for the next time. What takes longer than five
    /// minutes is given up.
    pub fn every<F, Fut, E>(&self, name: &str, schedule: Schedule, warm: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let shared = &self.shared;
        let (seed, wall) = (shared.seed(name), shared.wall());
        let work = work(move |()| warm());
        (shared.state().agenda).add(name.into(), (schedule, seed), work, wall);
        worker::start(shared);
        shared.wake.notify_one();
    }

    /// Says what is to be there for a user who comes: see [`warm_user`](Self::warm_user). What had this name
    /// before is forgotten.
    pub fn per_user<F, Fut, E>(&self, name: &str, warm: F)
    where
        F: Fn(Arc<str>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.shared.state().users.insert(name.into(), work(warm));
    }

    /// Has everything be there for this user: does what was said [per user](Self::per_user), in the background.
    /// For whoever hears that the user has signed in. Returns how much of it waits now. It is dropped if its
    /// turn has not come after a minute.
    #[expect(clippy::must_use_candidate, reason = "it does something")]
    pub fn warm_user(&self, user: &str) -> usize {
        let user: Arc<str> = user.into();
        let warmers: Vec<Arc<str>> = self.shared.state().users.keys().cloned().collect();
        let jobs = warmers.into_iter().map(|warmer| {
            let user = Arc::clone(&user);
            let errand = Errand::User { warmer, user };
            self.job(errand, Class::Scheduled, (Duration::ZERO, USER_TTL))
        });
        worker::offer(&self.shared, jobs.collect())
    }

    fn job(&self, errand: Errand, class: Class, (worth, ttl): (Duration, Duration)) -> Job<Errand> {
        Job {
            key: errand,
            class,
            due: self.shared.clock.now(),
            worth,
            ttl,
        }
    }

    /// Begins nothing from now on. What is under way goes on.
    pub fn pause(&self) {
        self.shared.state().pace.pause();
    }

    /// Goes on after a [`pause`](Self::pause). A [`Keep`](crate::Keep) says both by itself as memory becomes
    /// short and is free again.
    pub fn resume(&self) {
        self.shared.state().pace.resume();
        self.shared.wake.notify_one();
    }

    /// What it has done so far, and how it stands.
    #[must_use]
    pub fn stats(&self) -> WarmerStats {
        let state = self.shared.state();
        let dropped = state.queue.dropped();
        WarmerStats {
            waiting: state.queue.len(),
            running: state.pace.running(),
            at_once: state.pace.limit(),
            dropped_crowded: dropped.crowded,
            dropped_late: dropped.late,
            learned: state.top.len(),
            paused: state.pace.is_paused(),
            ..state.counts
        }
    }

    /// The `count` keys that are hottest, as far as this instance has learned: by uses, of which those before a
    /// half-life count for half.
    #[must_use]
    pub fn hottest(&self, count: usize) -> Vec<Recipe> {
        let now = self.shared.clock.now();
        let top = self.shared.state().top.top(count, now);
        top.into_iter().map(|learned| learned.what).collect()
    }
}

/// What is for a user is dropped after half of this.
const USER_TTL: Duration = Duration::from_secs(120);
