//! The typed cache that is put to the torture: memory, Redis and a cold store, over the journal of the other.
//!
//! Half of what is read goes through it, by every way that it has, and with options by which everything happens
//! often that is rare elsewhere: entries leave memory for Redis and Redis for the cold store, are served stale,
//! refreshed early, computed in vain. Some of what is invalidated goes through it as well. Both caches know a
//! key by one name, so whoever invalidates it in one does so in both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tower_keep::event::Events;
use tower_keep::journal::{Pending, Receipt};
use tower_keep::tiers::{
    CacheError, CacheStats, ColdStore, EntryOptions, Tiers, TiersConfig, TiersParts, TypedCache,
};

use super::cached::{
    Cached, Database, IN_A_GROUP, Outcome, Reading, Served, Target, Tier, group_of, name_of,
    tag_name, tags_of,
};
use super::chance::Chance;
use super::journaled::{Flaw, Journaled};
use super::registers::Registers;

pub struct Tiered {
    journaled: Journaled,
    registers: Arc<Registers>,
    tiers: Tiers,
    /// One for each group, under its name.
    caches: Vec<TypedCache<u32>>,
    drawn: AtomicU64,
    /// Readers who were told that others take too long.
    busy: AtomicU64,
}

/// What a computation that fails on purpose says.
#[derive(Debug)]
struct OnPurpose;

impl std::fmt::Display for OnPurpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("on purpose")
    }
}

impl std::error::Error for OnPurpose {}

/// Nobody waits for long, so that all that is done instead of waiting is done.
fn config() -> TiersConfig {
    TiersConfig {
        capacity_bytes: 1 << 20,
        value_bytes_max: 1 << 10,
        tenant_bytes_max: 1 << 20,
        flight_wait: Duration::from_millis(500),
        lease: Duration::from_millis(200),
        lease_wait: Duration::from_millis(500),
        ..TiersConfig::default()
    }
}

/// How the caches of the groups differ.
fn options(group: u32) -> EntryOptions {
    let (millis, minute) = (Duration::from_millis, Duration::from_secs(60));
    let options = EntryOptions::new().ttl(minute);
    match group % 5 {
        0 => options,
        // It is found in Redis for a while, and then in the cold store.
        1 => options.ttl_hot(millis(50)).ttl_warm(millis(150)),
        // It is always about to be computed anew.
        2 => options
            .ttl(millis(300))
            .jitter_percent(50)
            .early_refresh(4.0)
            .stale_while_revalidate(minute)
            .stale_if_error(minute)
            .ttl_error(millis(5)),
        3 => options.ttl_hot(Duration::ZERO),
        // Each process has its own.
        _ => options
            .ttl(millis(200))
            .ttl_warm(Duration::ZERO)
            .ttl_hot(millis(50))
            .stale_while_revalidate(minute)
            .soft_timeout(millis(1)),
    }
}

impl Tiered {
    /// Tiers over the same journal, with what has survived in `cold`.
    pub fn over(journaled: Journaled, registers: Arc<Registers>, cold: Arc<dyn ColdStore>) -> Self {
        let parts = TiersParts {
            journal: journaled.journal.clone(),
            clock: journaled.clock.clone(),
            events: Events::none(),
            spawner: journaled.tasks.spawner(),
            redis: journaled.pool.clone(),
            cold: Some(cold),
            seal_keys: None,
        };
        let tiers = Tiers::new(&config(), parts).expect("tiers");
        if journaled.flaw == Flaw::LateStamp {
            journaled.journal.stamp_late(true);
        }
        let groups = registers.keys().div_ceil(IN_A_GROUP);
        let cache = |group| {
            let cache = tiers.cache(&format!("g{group}"));
            cache.options(options(group))
        };
        let caches: Vec<TypedCache<u32>> = (0..groups).map(cache).collect();
        let known = caches[0].journal_key(own_name(0));
        assert_eq!(known, name_of(0), "both caches know a key by one name");
        Self {
            caches,
            tiers,
            registers,
            journaled,
            drawn: AtomicU64::new(std::process::id().into()),
            busy: AtomicU64::new(0),
        }
    }

    pub fn is_verified(&self) -> bool {
        self.journaled.is_verified()
    }

    pub async fn end(&self) {
        self.journaled.end().await;
    }

    pub fn stats(&self) -> CacheStats {
        self.tiers.stats()
    }

    /// How often readers were told that others take too long.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    fn chance(&self) -> Chance {
        Chance::new(self.drawn.fetch_add(1, Ordering::Relaxed).rotate_left(32))
    }

    fn cache(&self, key: u32) -> &TypedCache<u32> {
        &self.caches[group_of(key) as usize]
    }

    async fn compute(&self, key: u32, fails: bool, database: &Database) -> Option<Served> {
        let computed = Arc::new(AtomicU32::new(u32::MAX));
        let (tells, database) = (Arc::clone(&computed), database.clone());
        let computing =
            self.cache(key)
                .get_or_compute(own_name(key), &tagged(key), move || async move {
                    let version = database.look(key).await.filter(|_| !fails);
                    let version = version.ok_or(OnPurpose)?;
                    tells.store(version, Ordering::Relaxed);
                    Ok::<_, OnPurpose>(version)
                });
        let outcome: Result<_, CacheError> = computing.await;
        if outcome.as_ref().is_err_and(CacheError::is_busy) {
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
        let version = *outcome.ok()?;
        let own = computed.load(Ordering::Relaxed) == version;
        let from = if own { Tier::Database } else { Tier::Typed };
        Some(Served { version, from })
    }

    /// Asks for it with some of its neighbours.
    async fn among_others(&self, key: u32, chance: &mut Chance) -> Option<u32> {
        let first = group_of(key) * IN_A_GROUP;
        let other = || first + chance.below(IN_A_GROUP.into()) as u32;
        let others = std::iter::repeat_with(other).take(6);
        let keys: Vec<String> = std::iter::once(key).chain(others).map(own_name).collect();
        let found = self.cache(key).get_many(keys).await;
        found.first()?.as_deref().copied()
    }

    /// Puts there what is in the database, by the only one who changes it.
    async fn set(&self, key: u32) -> Result<Receipt, Pending> {
        let version = self.registers.database(key).expect("the registers");
        self.cache(key)
            .set(own_name(key), version, &tagged(key))
            .await
    }
}

impl Cached for Tiered {
    async fn read(&self, key: u32, reading: Reading, database: &Database) -> Option<Served> {
        let mut chance = self.chance();
        if chance.one_in(2) {
            return self.journaled.read(key, reading, database).await;
        }
        let found = match (reading, chance.below(4)) {
            (Reading::Strict, 0) => self.cache(key).get(own_name(key)).await.map(|it| *it),
            (Reading::Strict, 1) => self.among_others(key, &mut chance).await,
            _ => None,
        };
        if let Some(version) = found {
            let from = Tier::Typed;
            return Some(Served { version, from });
        }
        let computing = self.compute(key, chance.one_in(16), database);
        if chance.one_in(16) {
            // Whoever leaves early leaves the computation to others.
            let patience = Duration::from_millis(chance.below(4));
            return tokio::time::timeout(patience, computing).await.ok()?;
        }
        computing.await
    }

    async fn invalidate(&self, targets: &[Target]) -> Outcome {
        let outcome = match (targets, self.chance().below(6)) {
            ([Target::Key(key)], 0 | 1) => self.set(*key).await,
            ([Target::Key(key)], 2 | 3) => self.cache(*key).purge(own_name(*key)).await,
            ([Target::Tag(tag)], 0..4) => self.caches[0].purge_tag(&tag_name(*tag)).await,
            ([Target::Group(group)], 0..4) => self.caches[*group as usize].purge_all().await,
            _ => return self.journaled.invalidate(targets).await,
        };
        match outcome {
            Ok(_) => Outcome::Acknowledged,
            Err(_) => Outcome::Pending,
        }
    }
}

/// Its name without that of its group.
fn own_name(key: u32) -> String {
    format!("k{key}")
}

fn tagged(key: u32) -> EntryOptions {
    EntryOptions::new().tags(tags_of(key).map(tag_name))
}
