//! The tiers themselves: what typed caches and the HTTP cache share.

use std::any::TypeId;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState as Seeds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::UNIX_EPOCH;

use foldhash::quality::RandomState;

use crate::clock::{Clock, Moment};
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::journal::{Journal, Probing, Temperature, Tier, Wanted};
#[cfg(feature = "redis")]
use crate::store::{RedisPool, RedisStatus, Script};
use crate::task::Spawner;
#[cfg(not(feature = "redis"))]
use crate::tiers::absent::Warm;
use crate::tiers::chest::Cold;
use crate::tiers::cold::ColdStore;
use crate::tiers::config::TiersConfig;
use crate::tiers::fault::CacheError;
use crate::tiers::flight::Flights;
use crate::tiers::held::{ByBytes, Kept};
use crate::tiers::key::HotKey;
use crate::tiers::opened::Opened;
use crate::tiers::probe::probe;
use crate::tiers::seal::Seals;
#[cfg(feature = "encryption")]
use crate::tiers::seal_keys::SealKeys;
use crate::tiers::space::Space;
use crate::tiers::spaces::{Bounds, Spaces};
use crate::tiers::tally::Tally;
use crate::tiers::terms::Now;
#[cfg(feature = "redis")]
use crate::tiers::warm::Warm;

/// The tiers: memory, Redis and a cold store, with what decides who computes what. Cheap to clone; all clones
/// are the same tiers.
#[derive(Clone, Debug)]
pub struct Tiers {
    shared: Arc<Shared>,
}

/// What tiers stand on.
#[derive(Clone, Debug)]
pub struct TiersParts {
    /// Where invalidations are recorded; share it with the invalidator.
    pub journal: Journal,
    /// Reads time.
    pub clock: Clock,
    /// Hears of what is found and computed.
    pub events: Events,
    /// Runs computations, which go on when whoever asked has left.
    pub spawner: Spawner,
    /// Where instances share entries. It must know [`Tiers::scripts`].
    #[cfg(feature = "redis")]
    pub redis: RedisPool,
    /// What outlives Redis.
    pub cold: Option<Arc<dyn ColdStore>>,
    /// What seals the entries of caches that are [`sealed`](crate::tiers::TypedCache::sealed).
    #[cfg(feature = "encryption")]
    pub seal_keys: Option<SealKeys>,
}

/// What is under way lands with a value of any type, or everybody's error.
pub(crate) type Landing = Result<Kept, CacheError>;

pub(crate) type HotSpace = Space<HotKey, Kept, ByBytes>;

#[derive(Debug)]
struct Shared {
    config: TiersConfig,
    hot: Spaces<HotKey, Kept, ByBytes>,
    flights: Arc<Flights<Landing>>,
    journal: Journal,
    clock: Clock,
    events: Events,
    spawner: Spawner,
    warm: Option<Warm>,
    cold: Option<Cold>,
    seals: Option<Seals>,
    prefix: String,
    hasher: RandomState,
    /// What this instance calls itself where it holds leases, and how many it has asked for.
    me: u64,
    holders: AtomicU64,
    register: Mutex<Register>,
    opened: Opened,
}

/// Which caches there are.
#[derive(Debug, Default)]
struct Register {
    ids: HashMap<(Arc<str>, TypeId), u32>,
    tallies: HashMap<(u32, Option<Arc<str>>), Arc<Tally>>,
}

impl Tier for Shared {
    fn temperature(&self) -> Temperature {
        Temperature::Hot
    }

    fn probe<'a>(&'a self, wanted: &'a Wanted) -> Probing<'a> {
        Box::pin(probe(&self.hot, &self.journal, || self.clock.now(), wanted))
    }
}

impl Tiers {
    /// Empty tiers.
    ///
    /// # Errors
    ///
    /// Names every setting that is out of range.
    pub fn new(config: &TiersConfig, parts: TiersParts) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("tiers", &mut faults);
        faults.into_result()?;
        let (spawner, journal) = (parts.spawner, parts.journal);
        let cold = parts
            .cold
            .map(|store| Cold::new(store, (parts.clock.clone(), &spawner), config.cold_timeout));
        #[cfg(feature = "redis")]
        let (prefix, warm) = {
            let prefix = parts.redis.prefix().to_owned();
            let warm = (parts.redis.status() != RedisStatus::Disabled)
                .then(|| Warm::new(parts.redis, journal.clone(), spawner.clone(), config.lease));
            (prefix, warm)
        };
        #[cfg(not(feature = "redis"))]
        let (prefix, warm) = (String::new(), None);
        #[cfg(feature = "encryption")]
        let seals = parts.seal_keys.as_ref().and_then(Seals::of);
        #[cfg(not(feature = "encryption"))]
        let seals = None;
        let items = (config.capacity_bytes / BYTES_PER_ITEM).clamp(256, 1 << 20);
        let bounds = Bounds {
            capacity_bytes: config.capacity_bytes,
            tenant_bytes_max: config.tenant_bytes_max,
            tenants_max: config.tenants_max,
            items: usize::try_from(items).unwrap_or(usize::MAX),
            shards: shards(config),
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            hot: Spaces::new(bounds, ByBytes),
            flights: Flights::new(),
            journal,
            clock: parts.clock,
            events: parts.events,
            spawner,
            warm,
            cold,
            seals,
            prefix,
            hasher: RandomState::default(),
            // The standard library seeds its hashers at random.
            me: Seeds::new().hash_one(0_u8),
            holders: AtomicU64::new(0),
            register: Mutex::default(),
            opened: Opened::default(),
        });
        let tier: Weak<Shared> = Arc::downgrade(&shared);
        shared.journal.watch(tier);
        Ok(Self { shared })
    }

    /// The scripts that the pool has to be built with.
    #[cfg(feature = "redis")]
    #[must_use]
    pub const fn scripts() -> &'static [&'static Script] {
        Warm::scripts()
    }

    /// Memory taken up by values, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.hot.bytes()
    }

    /// How many values are in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.hot.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most that values in memory may take up, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.shared.hot.capacity()
    }

    /// Changes that at once; what no longer fits goes before this returns.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.shared.hot.set_capacity(bytes);
    }

    /// Back to the configured capacity.
    pub fn restore_capacity(&self) {
        self.set_capacity_bytes(self.shared.config.capacity_bytes);
    }

    /// Forgets all values in memory, to free it. To make sure that nothing old is served, purge instead.
    pub fn clear(&self) {
        self.shared.hot.clear();
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &TiersConfig {
        &self.shared.config
    }

    /// The number of a cache, its tally for a tenant, and the tenant's memory.
    pub(crate) fn enter(
        &self,
        name: &Arc<str>,
        kind: TypeId,
        tenant: Option<&Arc<str>>,
    ) -> (u32, Arc<Tally>, Arc<HotSpace>) {
        let mut register = self.register();
        let next = u32::try_from(register.ids.len()).unwrap_or(u32::MAX);
        let known = register
            .ids
            .keys()
            .any(|(other, kind_of)| other == name && *kind_of != kind);
        let id = *register.ids.entry((Arc::clone(name), kind)).or_insert(next);
        let is_twin = id == next && known;
        // Beyond the bound tenants are counted with what has none.
        let full = register.tallies.len() >= TALLIES_MAX;
        let counted = match tenant {
            Some(tenant)
                if full
                    && !register
                        .tallies
                        .contains_key(&(id, Some(Arc::clone(tenant)))) =>
            {
                None
            }
            tenant => tenant.cloned(),
        };
        let tally = Arc::clone(register.tallies.entry((id, counted)).or_default());
        drop(register);
        // When the lock is given back: whoever hears of it may ask the tiers.
        if is_twin {
            let text = format!(
                "the cache `{name}` is asked for with two types: each keeps its own values, and in Redis \
                 they replace each other"
            );
            self.emit(Event::Warning { text: &text });
        }
        (
            id,
            tally,
            self.shared.hot.space(tenant.map(|tenant| &**tenant)),
        )
    }

    /// The tallies of all caches and tenants.
    pub(crate) fn tallies(&self) -> Vec<Arc<Tally>> {
        self.register().tallies.values().cloned().collect()
    }

    pub(crate) fn hot(&self) -> &Spaces<HotKey, Kept, ByBytes> {
        &self.shared.hot
    }

    pub(crate) fn caches(&self) -> &Opened {
        &self.shared.opened
    }

    /// Finds the tiers again, if anybody else still holds them.
    pub(crate) fn weakly(&self) -> impl Fn() -> Option<Self> + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade().map(|shared| Self { shared })
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        // A map is whole between two calls, so poison is ignored.
        let register = &self.shared.register;
        register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all keys in Redis and in the cold store begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            moment: self.moment(),
            wall_ms: self
                .shared
                .clock
                .wall()
                .duration_since(UNIX_EPOCH)
                .map_or(0, crate::tiers::terms::millis),
        }
    }

    #[inline]
    pub(crate) fn moment(&self) -> Moment {
        self.shared.clock.now()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    pub(crate) fn flights(&self) -> &Arc<Flights<Landing>> {
        &self.shared.flights
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.shared.spawner
    }

    pub(crate) fn warm(&self) -> Option<&Warm> {
        self.shared.warm.as_ref()
    }

    pub(crate) fn cold(&self) -> Option<&Cold> {
        self.shared.cold.as_ref()
    }

    pub(crate) fn seals(&self) -> Option<&Seals> {
        self.shared.seals.as_ref()
    }

    /// A name for one who holds a lease, unlike that of any other.
    pub(crate) fn holder(&self) -> Arc<str> {
        let nth = self.shared.holders.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}:{nth}", self.shared.me).into()
    }

    pub(crate) fn hasher(&self) -> RandomState {
        self.shared.hasher.clone()
    }

    /// Whether there is no tier behind memory.
    pub(crate) fn is_alone(&self) -> bool {
        self.shared.warm.is_none() && self.shared.cold.is_none()
    }

    pub(crate) fn emit(&self, event: Event<'_>) {
        self.shared.events.emit(event);
    }
}

/// A value must fit into one shard, so there are no more of them than leave the largest room four times over.
fn shards(config: &TiersConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_size = config.capacity_bytes / config.value_bytes_max.saturating_mul(4).max(1);
    let shards = (cores * 4).min(usize::try_from(by_size).unwrap_or(usize::MAX));
    1 << shards.max(1).ilog2()
}

/// A value of a typed cache is smaller than a page.
const BYTES_PER_ITEM: u64 = 1 << 10;

/// How many pairs of cache and tenant are counted apart.
const TALLIES_MAX: usize = 4_096;
