//! The running parts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::AdminAuth;
use crate::alerts::Alerts;
use crate::breaker::CircuitBreakers;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::KeepConfig;
use crate::connections::Connections;
use crate::event::Events;
use crate::fleet::Fleet;
use crate::guard::{ConcurrencyLimit, Guard, Pressure};
use crate::health::{Health, HealthBoard, HealthCheck};
use crate::host::memory_trim;
use crate::invalidation::{Coherency, CoherencyReport, Invalidator};
use crate::journal::Journal;
use crate::keep::archive::Archive;
use crate::keep::engines::{Engines, Ground};
use crate::keep::relief::PurgeHook;
use crate::lock::{Acquire, Locks};
use crate::metrics::Metrics;
use crate::progress::ProgressHub;
use crate::rate_limit::RateLimiter;
#[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
use crate::sqlx::Database;
#[cfg(feature = "redis")]
use crate::store::RedisPool;
use crate::task::Spawner;
use crate::tiers::{CacheStats, Tiers, TypedCache};
use crate::warming::Warmer;

/// The stack: its engines, its layers, its background work. Cheap to clone; all clones are one stack.
///
/// Hold it for as long as the service runs. When the last clone is dropped, every task it started is
/// aborted: layers that are still in use go on deciding, but nobody watches the memory any more (its level
/// is `Unknown`, nothing is shed for it), and stale answers are not refreshed.
#[derive(Clone, Debug)]
pub struct Keep {
    parts: Arc<Parts>,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) ground: Ground,
    pub(crate) metrics: Metrics,
    pub(crate) fleet: Fleet,
    pub(crate) alerts: Alerts,
    pub(crate) engines: Engines,
    pub(crate) board: HealthBoard,
    pub(crate) archive: Archive,
    /// Set by `drain`: no new requests, please.
    pub(crate) draining: Arc<AtomicBool>,
}

/// Takes the rings apart (guard and gauges hold the cache, whose events reach the metrics, which hold the
/// gauges), or nothing of a stack would ever be freed.
impl Drop for Parts {
    fn drop(&mut self) {
        self.engines.gates.guard.stop_watching();
        self.metrics.forget_gauges();
    }
}

/// A stack that may be gone by now.
#[derive(Clone, Debug)]
pub(crate) struct WeakKeep(Weak<Parts>);

impl WeakKeep {
    pub(crate) fn upgrade(&self) -> Option<Keep> {
        self.0.upgrade().map(|parts| Keep { parts })
    }
}

impl Keep {
    /// For whoever must not keep it alive.
    pub(crate) fn downgrade(&self) -> WeakKeep {
        WeakKeep(Arc::downgrade(&self.parts))
    }

    pub(crate) fn of(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }

    /// The Redis that the instances share; [`Disabled`](crate::store::RedisStatus) without a URL.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn redis(&self) -> &RedisPool {
        &self.parts.engines.redis
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The figures of all instances together; without Redis, those of this one.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.parts.fleet
    }

    /// Who is told when figures are not what they should be.
    #[must_use]
    pub fn alerts(&self) -> &Alerts {
        &self.parts.alerts
    }

    /// What is let in.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.parts.engines.gates.guard
    }

    /// Which connections stay open.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.parts.engines.gates.connections
    }

    /// What is left alone for a while because it fails.
    #[must_use]
    pub fn breakers(&self) -> &CircuitBreakers {
        &self.parts.engines.gates.breakers
    }

    /// Who may ask how often.
    #[must_use]
    pub fn limiter(&self) -> &RateLimiter {
        &self.parts.engines.limiter
    }

    /// Makes stored answers old.
    #[must_use]
    pub fn invalidator(&self) -> &Invalidator {
        &self.parts.engines.invalidator
    }

    /// What was invalidated, and whether everything is heard.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        self.parts.engines.cache.journal()
    }

    /// What gives the allocator's free memory back: what was told, or what this build knows by itself.
    pub(crate) fn purge_hook(&self) -> Option<PurgeHook> {
        let told = self.parts.ground.hooks.purge.clone();
        told.or_else(|| memory_trim().map(|trim| Arc::new(trim) as PurgeHook))
    }

    pub(crate) fn start_coherency(&self) {
        self.parts.engines.coherency.start(&self.spawner());
    }

    /// What following invalidations has shown so far: whether they were carried out everywhere. Asks nobody.
    #[must_use]
    pub fn coherency(&self) -> CoherencyReport {
        self.parts.engines.coherency.report()
    }

    /// Asks every instance about the last invalidations that were followed, at once; see
    /// [`Coherency::check`](crate::invalidation::Coherency::check).
    pub async fn check_coherency(&self) -> CoherencyReport {
        self.parts.engines.coherency.check().await
    }

    /// The cache of this name for values that serde can write and read, in memory, in Redis and in the cold
    /// store: `keep.cache::<Report>("report").get_or_compute(id, &options, || async { .. })`.
    ///
    /// ```
    /// # use tower_keep::{Keep, Profile};
    /// # use tower_keep::tiers::{CacheError, EntryOptions};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keep = Keep::builder(Profile::development()).build()?;
    /// let totals = keep.cache::<u64>("total");
    /// let five_minutes = EntryOptions::query_result();
    /// let total = totals
    ///     .get_or_compute(("acme", 2026), &five_minutes, || async { Ok::<_, CacheError>(42) })
    ///     .await?;
    /// assert_eq!(*total, 42);
    /// keep.invalidator().purge("total:acme:2026").await?;
    /// assert!(totals.get(("acme", 2026)).await.is_none());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn cache<T>(&self, name: &str) -> TypedCache<T>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.tiers().cache(name)
    }

    /// What typed caches share.
    #[must_use]
    pub fn tiers(&self) -> &Tiers {
        &self.parts.engines.tiers
    }

    /// What all typed caches have done so far. Walks through what is in memory: for people, not for requests.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.tiers().stats()
    }

    /// Computes what is hot before somebody has to wait for it.
    #[must_use]
    pub fn warmer(&self) -> &Warmer {
        &self.parts.engines.warmer
    }

    /// Stored answers.
    #[must_use]
    pub fn http_cache(&self) -> &Cache {
        &self.parts.engines.cache
    }

    /// What only one may do at a time.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.parts.engines.locks
    }

    /// Asks for the lock of `key`, which ends by itself after `ttl`: `keep.lock("import", ttl).await?` asks
    /// once, `keep.lock("import", ttl).wait(patience).await?` until it is there. See [`Locks::lock`] for
    /// what is allowed, and the [room](crate::lock) for what a lock promises.
    pub fn lock(&self, key: impl AsRef<str>, ttl: Duration) -> Acquire {
        self.parts.engines.locks.lock(key, ttl)
    }

    /// Streams that tell of long work.
    #[must_use]
    pub fn progress(&self) -> &ProgressHub {
        &self.parts.engines.progress
    }

    /// As many slots as the profile has database connections (three on a B1), for whatever uses such a
    /// connection: `keep.database_slots().run(claim, query).await?`. Around a pool of any kind it makes the
    /// important ones wait the least, and those who would wait for too long not at all.
    #[must_use]
    pub fn database_slots(&self) -> &ConcurrencyLimit {
        &self.parts.engines.gates.database_slots
    }

    /// Pools with the profile's numbers, and timed queries.
    #[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.parts.engines.database
    }

    /// How everything is, from what is known: asks nobody, so it costs a lock and never waits.
    #[must_use]
    pub fn health(&self) -> Health {
        self.parts.board.health()
    }

    /// Where components of the service's own tell how they are.
    #[must_use]
    pub fn health_board(&self) -> &HealthBoard {
        &self.parts.board
    }

    pub(crate) fn archive(&self) -> &Archive {
        &self.parts.archive
    }

    /// The checks that were told before the stack was built.
    pub(crate) fn health_checks(&self) -> &[HealthCheck] {
        &self.parts.ground.health_checks
    }

    /// Whether new requests are welcome: not while memory is critical, nor once [`drain`](Self::drain) was called.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        is_ready(&self.parts.engines.gates.guard, &self.parts.draining)
    }

    /// Set once no new requests are welcome.
    pub(crate) fn draining(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.parts.draining)
    }

    pub(crate) fn coherency_engine(&self) -> &Coherency {
        &self.parts.engines.coherency
    }

    /// Who may see details and change things, but for the token.
    pub(crate) fn admin_access(&self) -> &AdminAuth {
        &self.parts.ground.hooks.admin
    }

    /// The settings it runs with.
    #[must_use]
    pub fn config(&self) -> &KeepConfig {
        &self.parts.ground.config
    }

    /// The clock that all parts share.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.parts.ground.clock
    }

    /// Tells all recorders, for rooms of the service's own.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.parts.ground.events
    }

    /// Starts background tasks that end with this stack.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.parts.engines.tasks.spawner()
    }

    /// Says that the end has begun: `/ready` answers 503, and the streams of progress and of the dashboard end, which
    /// a server that finishes what is under way would wait for; no stream of progress is opened any more
    /// ([`ProgressError::Closed`](crate::progress::ProgressError::Closed)). Requests are answered as ever. Call it when the
    /// service is told to stop, before the server is; more than once is as good as once.
    ///
    /// ```no_run
    /// # #[cfg(feature = "axum")]
    /// # async fn serve(keep: tower_keep::Keep, listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// # let app = axum::Router::new();
    /// let stopping = keep.clone();
    /// axum::serve(listener, app)
    ///     .with_graceful_shutdown(async move {
    ///         tokio::signal::ctrl_c().await.unwrap_or_default();
    ///         stopping.drain();
    ///     })
    ///     .await?;
    /// keep.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn drain(&self) {
        self.parts.draining.store(true, Ordering::Relaxed);
        self.parts.engines.progress.close();
    }

    /// Ends the background work: asks every task to stop, waits for them at most `shutdown_ms`, and
    /// aborts the rest. Returns how many had to be aborted. Call it after the server has ended, and
    /// [`drain`](Self::drain) before; layers go on answering meanwhile. Cancelling it aborts the rest at once.
    pub async fn shutdown(&self) -> usize {
        self.drain();
        let engines = &self.parts.engines;
        let deadline = self.parts.ground.config.shutdown;
        // Also where this is cancelled.
        let _unread = Unread(&engines.gates.guard);
        engines.tasks.shutdown(deadline).await
    }
}

/// Whose memory nobody reads once this is dropped: the last level must not stay for as long as layers answer.
struct Unread<'a>(&'a Guard);

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.0.stop_watching();
    }
}

pub(crate) fn is_ready(guard: &Guard, draining: &AtomicBool) -> bool {
    guard.pressure() != Pressure::Critical && !draining.load(Ordering::Relaxed)
}
