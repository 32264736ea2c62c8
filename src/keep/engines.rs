//! The engines of a stack, built from one configuration.

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "redis")]
use crate::alerts::Alerts;
use crate::cache::{Cache, CacheParts, KeyPart};
use crate::clock::Clock;
use crate::config::KeepConfig;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::guard::Claims;
use crate::health::HealthCheck;
use crate::invalidation::{Coherency, Invalidator, Supplier};
use crate::journal::Journal;
#[cfg(feature = "redis")]
use crate::journal::JournalParts;
use crate::keep::gates::{Gates, noted};
use crate::keep::hooks::Hooks;
#[cfg(feature = "redis")]
use crate::lock::LockParts;
use crate::lock::Locks;
#[cfg(feature = "redis")]
use crate::outbound::RemoteQuota;
use crate::progress::ProgressHub;
#[cfg(feature = "redis")]
use crate::rate_limit::RateLimitParts;
use crate::rate_limit::RateLimiter;
#[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
use crate::sqlx::Database;
#[cfg(feature = "redis")]
use crate::store::{CredentialsProvider, RedisPool, Script, StoreParts};
use crate::task::{NoRuntime, Tasks};
#[cfg(feature = "encryption")]
use crate::tiers::SealKeys;
use crate::tiers::{ColdStore, Tiers, TiersParts};
use crate::warming::{Warmer, WarmerParts};

/// What every engine stands on.
pub(crate) struct Ground {
    pub(crate) config: KeepConfig,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) health_checks: Vec<HealthCheck>,
    pub(crate) cold: Option<Arc<dyn ColdStore>>,
    pub(crate) hooks: Hooks,
    #[cfg(feature = "encryption")]
    pub(crate) seal_keys: Option<SealKeys>,
    #[cfg(feature = "redis")]
    pub(crate) credentials: Option<Arc<dyn CredentialsProvider>>,
    #[cfg(feature = "redis")]
    pub(crate) scripts: Vec<&'static Script>,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The engines, and the owner of their tasks.
#[derive(Debug)]
pub(crate) struct Engines {
    pub(crate) tasks: Tasks,
    #[cfg(feature = "redis")]
    pub(crate) redis: RedisPool,
    pub(crate) gates: Gates,
    pub(crate) limiter: RateLimiter,
    pub(crate) invalidator: Invalidator,
    pub(crate) coherency: Coherency,
    pub(crate) cache: Cache,
    pub(crate) tiers: Tiers,
    pub(crate) warmer: Warmer,
    pub(crate) progress: ProgressHub,
    pub(crate) locks: Locks,
    #[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
    pub(crate) database: Database,
}

impl Engines {
    /// Builds them all, or none and notes why. Every one is tried, so that every fault is found. The limiter
    /// is `told` what the application knows of callers.
    pub(crate) fn new(
        ground: &Ground,
        told: impl FnOnce(RateLimiter) -> RateLimiter,
        faults: &mut Faults,
    ) -> Option<Self> {
        let config = &ground.config;
        let (clock, events) = (|| ground.clock.clone(), || ground.events.clone());
        let tasks = noted(tasks(), faults);
        #[cfg(feature = "redis")]
        let redis = connected(ground, tasks.as_ref()?, faults);
        let gates = Gates::new(config, &ground.clock, &ground.events, faults);
        #[cfg(feature = "redis")]
        let limiter = limiter(ground, redis.as_ref(), tasks.as_ref()?);
        #[cfg(not(feature = "redis"))]
        let limiter = RateLimiter::new(&config.rate_limit, &config.routes, clock(), events());
        let limiter = noted(limiter, faults).map(told);
        let progress = ProgressHub::new(&config.progress, clock(), events());
        let progress = noted(progress, faults);
        let progress = progress.map(|hub| match &gates {
            Some(gates) => hub.counted_by(gates.connections.clone(), ground.hooks.callers.clone()),
            None => hub,
        });
        #[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
        let database = noted(Database::new(&config.database, clock(), events()), faults);
        #[cfg(feature = "redis")]
        let journal = journal(ground, redis.as_ref(), tasks.as_ref()?);
        #[cfg(not(feature = "redis"))]
        let journal = Journal::with_clock(&config.journal, clock(), events());
        let journal = noted(journal, faults)?;
        #[cfg(feature = "redis")]
        let locks = locks(ground, redis.as_ref(), tasks.as_ref()?);
        #[cfg(not(feature = "redis"))]
        let locks = Locks::in_memory(clock());
        let (rules, journaled) = (&config.invalidation, journal.clone());
        let invalidator = Invalidator::new(rules, &config.routes, journaled, events());
        let coherency = Coherency::new(&rules.coherency, journal.clone(), events());
        let coherency = noted(coherency, faults);
        let rewritten = config.cache.rewrites_keys();
        let invalidator = noted(invalidator, faults).map(|it| it.for_rewritten_keys(rewritten));
        #[cfg(feature = "redis")]
        let tiers = tiers(ground, (&journal, tasks.as_ref()?), redis.as_ref());
        #[cfg(not(feature = "redis"))]
        let tiers = tiers(ground, (&journal, tasks.as_ref()?));
        let tiers = noted(tiers, faults);
        let below = (tiers.as_ref(), tasks.as_ref());
        #[cfg(feature = "redis")]
        let warmer = warmer(ground, below, faults, redis.as_ref());
        #[cfg(not(feature = "redis"))]
        let warmer = warmer(ground, below, faults);
        let parts = CacheParts {
            journal,
            clock: clock(),
            events: events(),
            spawner: tasks.as_ref().map(Tasks::spawner),
            tiers: tiers.clone(),
        };
        let cache = noted(Cache::new(&config.cache, parts), faults);
        Some(Self {
            tasks: tasks?,
            #[cfg(feature = "redis")]
            redis: redis?,
            gates: gates?,
            limiter: limiter?,
            invalidator: invalidator?,
            coherency: coherency?,
            cache: cache?,
            tiers: tiers?,
            warmer: warmer?,
            progress: progress?,
            locks,
            #[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
            database: database?,
        })
    }

    /// Tells cache and invalidator what the application knows of requests.
    pub(crate) fn told(mut self, key: Option<KeyPart>, variables: Option<Supplier>) -> Self {
        if let Some(part) = key {
            self.cache = self.cache.with_key_part(part);
        }
        if let Some(supplier) = variables {
            self.invalidator = self.invalidator.supplied_by(supplier);
        }
        self
    }

    /// Tells the guard how requests are told apart. Whom to believe about addresses the limiter's settings say.
    pub(crate) fn tell_guard(&self, ground: &Ground, claims: Claims) {
        let limits = &ground.config.rate_limit;
        // What is wrong with them has been noted before.
        let proxies = limits.proxies("rate_limit", &mut Faults::new());
        self.gates.guard.told(claims.proxies(proxies));
    }
}

/// The owner of the tasks to come.
fn tasks() -> Result<Tasks, ConfigError> {
    Tasks::new()
        .map_err(|NoRuntime| ConfigError::one("build()", "no Tokio runtime", NoRuntime.to_string()))
}

/// The pool, which begins to connect at once: nothing else that is built here may fail later on without
/// its being dropped.
#[cfg(feature = "redis")]
fn connected(ground: &Ground, tasks: &Tasks, faults: &mut Faults) -> Option<RedisPool> {
    let parts = StoreParts {
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        spawner: tasks.spawner(),
        scripts: [
            &ground.scripts,
            RateLimiter::scripts(),
            RemoteQuota::scripts(),
            Journal::scripts(),
            Locks::scripts(),
            Alerts::scripts(),
            Tiers::scripts(),
            Warmer::scripts(),
        ]
        .concat(),
        credentials: ground.credentials.clone(),
    };
    noted(RedisPool::new(&ground.config.redis, &parts), faults)
}

/// The limiter, which counts together with others where there is a pool.
#[cfg(feature = "redis")]
fn limiter(
    ground: &Ground,
    redis: Option<&RedisPool>,
    tasks: &Tasks,
) -> Result<RateLimiter, ConfigError> {
    let (config, routes) = (&ground.config.rate_limit, &ground.config.routes);
    let parts = RateLimitParts {
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        // One that could not be built is a fault already; those of the limiter are found all the same.
        redis: redis.cloned().unwrap_or_else(RedisPool::disabled),
        spawner: tasks.spawner(),
    };
    RateLimiter::shared(config, routes, parts)
}

/// The journal, which all instances share where there is a pool.
#[cfg(feature = "redis")]
fn journal(
    ground: &Ground,
    redis: Option<&RedisPool>,
    tasks: &Tasks,
) -> Result<Journal, ConfigError> {
    let parts = JournalParts {
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        redis: redis.cloned().unwrap_or_else(RedisPool::disabled),
        spawner: tasks.spawner(),
    };
    Journal::shared(&ground.config.journal, parts)
}

/// The tiers, which instances share where there is a pool.
fn tiers(
    ground: &Ground,
    (journal, tasks): (&Journal, &Tasks),
    #[cfg(feature = "redis")] redis: Option<&RedisPool>,
) -> Result<Tiers, ConfigError> {
    let parts = TiersParts {
        journal: journal.clone(),
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        spawner: tasks.spawner(),
        // One that could not be built is a fault already.
        #[cfg(feature = "redis")]
        redis: redis.cloned().unwrap_or_else(RedisPool::disabled),
        cold: ground.cold.clone(),
        #[cfg(feature = "encryption")]
        seal_keys: ground.seal_keys.clone(),
    };
    Tiers::new(&ground.config.tiers, parts)
}

/// The warmer, which remembers what is hot where there is a pool.
fn warmer(
    ground: &Ground,
    (tiers, tasks): (Option<&Tiers>, Option<&Tasks>),
    faults: &mut Faults,
    #[cfg(feature = "redis")] redis: Option<&RedisPool>,
) -> Option<Warmer> {
    let parts = WarmerParts {
        tiers: tiers?.clone(),
        clock: ground.clock.clone(),
        events: ground.events.clone(),
        spawner: tasks?.spawner(),
        // One that could not be built is a fault already.
        #[cfg(feature = "redis")]
        redis: redis.cloned().unwrap_or_else(RedisPool::disabled),
    };
    noted(Warmer::new(&ground.config.warming, parts), faults)
}

/// The locks, which shut out other instances as well where there is a pool.
#[cfg(feature = "redis")]
fn locks(ground: &Ground, redis: Option<&RedisPool>, tasks: &Tasks) -> Locks {
    Locks::shared(LockParts {
        clock: ground.clock.clone(),
        // One that could not be built is a fault already.
        redis: redis.cloned().unwrap_or_else(RedisPool::disabled),
        spawner: tasks.spawner(),
    })
}
