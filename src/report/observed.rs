//! What a report is made of: plain figures of a window, and the settings that they may speak against.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::health::Health;
use crate::metrics::Window;
use crate::report::lines::RouteLine;
use crate::report::spoken::{millis, millis_if_any, ratio, unix_millis};

/// The figures of one window. [`judge`](crate::report::judge) makes a report of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observed {
    /// Whose figures they are.
    pub instance: String,
    /// When they were read, in milliseconds since 1970.
    #[serde(rename = "at_ms", serialize_with = "unix_millis")]
    pub at: SystemTime,
    /// Over which time.
    pub window: Window,
    /// How much of it they cover, in milliseconds: less soon after the start.
    #[serde(rename = "covers_ms", serialize_with = "millis")]
    pub covers: Duration,
    /// All requests together.
    pub traffic: RouteLine,
    /// The routes that most need a look, worst first; see [`RouteLine`].
    pub routes: Vec<RouteLine>,
    /// All other routes together, if there are more.
    pub rest: Option<RouteLine>,
    /// The routes of the rest one by one, which a report does not show: a baseline knows them, so that a route that
    /// does badly later can be compared with how well it did.
    #[serde(skip)]
    pub others: Vec<RouteLine>,
    /// What the cache of answers did.
    pub cache: CacheSection,
    /// What typed caches did.
    pub tiers: TiersSection,
    /// What the rate limiter did.
    pub limiter: LimiterSection,
    /// What the guard did.
    pub guard: GuardSection,
    /// Long-lived connections.
    pub connections: ConnectionsSection,
    /// The memory of the process, now.
    pub memory: MemorySection,
    /// The runtime, now.
    pub runtime: RuntimeSection,
    /// Queries, and waits for a connection.
    pub database: DatabaseSection,
    /// What Redis answered.
    pub redis: RedisSection,
    /// The journal, and what following invalidations has shown.
    pub invalidation: InvalidationSection,
    /// What the board says, now.
    pub health: Health,
    /// The settings that recommendations may speak of.
    pub settings: Settings,
}

/// The cache of answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CacheSection {
    /// Whether there is one.
    pub enabled: bool,
    /// Answers from memory, shared ones included, stale ones not.
    pub hits: u64,
    /// Answers from memory past their life.
    pub stale_hits: u64,
    /// Requests that went on to the service although they may be cached.
    pub misses: u64,
    /// Those of them for which there was an answer, but an old one.
    pub misses_stale: u64,
    /// The share of hits in hits and misses, stale ones included.
    pub hit_ratio: Option<f64>,
    /// What is stored, now.
    pub bytes: u64,
}

/// Typed caches.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TiersSection {
    /// Values found behind memory: in Redis or in the cold store.
    pub found_behind: u64,
    /// Values that were computed.
    pub computed: u64,
    /// Computations that came to nothing.
    pub failed: u64,
    /// What is in memory, now.
    pub bytes: u64,
    /// Values that had to go for others.
    pub evictions: u64,
}

/// The rate limiter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LimiterSection {
    /// Decisions of all rules that let a request through.
    pub allowed: u64,
    /// Those that turned one away.
    pub denied: u64,
    /// Those that would have, in shadow mode.
    pub shadow_denied: u64,
    /// Decisions of the rule `default`: allowed, and denied.
    pub default_rule: (u64, u64),
    /// The rule that turned away most, and how many.
    pub strictest: Option<(Arc<str>, u64)>,
    /// Clients that were banned.
    pub bans: u64,
    /// Requests of banned or listed clients.
    pub shut_out: u64,
    /// Buckets in use that had to make room for others since the start.
    pub evictions: u64,
}

/// The guard.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct GuardSection {
    /// Requests that were let in.
    pub admitted: u64,
    /// Requests that were turned away, by reason.
    pub refused: BTreeMap<Arc<str>, u64>,
    /// Those of them that were turned away for want of the slots that are for all: not for memory, and not by the rule
    /// of a route that has slots of its own.
    pub refused_for_load: u64,
    /// Requests whose client left the queue.
    pub left: u64,
    /// What 95 % of those who were let in did not have to wait longer for.
    #[serde(rename = "wait_p95_ms", serialize_with = "millis_if_any")]
    pub wait_p95: Option<Duration>,
    /// Slots at present.
    pub slots: u64,
    /// Requests that wait at present.
    pub queued: u64,
}

/// Long-lived connections.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct ConnectionsSection {
    /// Connections that were opened.
    pub opened: u64,
    /// Those that were turned away because there were enough.
    pub refused_full: u64,
    /// Open ones at present.
    pub open: u64,
}

/// The memory of the process.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct MemorySection {
    /// Bytes in use; 0 where they cannot be read.
    pub used_bytes: u64,
    /// Bytes that may be used; 0 where nobody knows.
    pub budget_bytes: u64,
    /// How often some was given back within the window.
    pub relieved: u64,
    /// How often a leak was suspected within the window.
    pub leaks: u64,
}

/// The runtime.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct RuntimeSection {
    /// The share of time in which its workers were busy, if known.
    pub busy: Option<f64>,
    /// How late tasks are woken: what 99 of 100 did not exceed within 10 s.
    #[serde(rename = "lag_p99_ms", serialize_with = "millis")]
    pub lag_p99: Duration,
    /// CPU time by the time that passes, if known: 1 is one core.
    pub cpu: Option<f64>,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct DatabaseSection {
    /// Queries that ended or were given up.
    pub queries: u64,
    /// Those above `database.slow_query_ms`.
    pub slow: u64,
    /// What 95 % of them did not exceed.
    #[serde(rename = "p95_ms", serialize_with = "millis_if_any")]
    pub p95: Option<Duration>,
    /// Waits for a connection, or a slot before one.
    pub waits: u64,
    /// Those that were in vain.
    pub unserved: u64,
    /// What 95 % of the waits did not exceed.
    #[serde(rename = "wait_p95_ms", serialize_with = "millis_if_any")]
    pub wait_p95: Option<Duration>,
}

/// Redis.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct RedisSection {
    /// Whether there ought to be one.
    pub configured: bool,
    /// Whether it is there now.
    pub up: bool,
    /// Commands and batches that it answered.
    pub answered: u64,
    /// Those that it did not answer.
    pub failed: u64,
    /// Those of them that took too long.
    pub timeouts: u64,
    /// What 95 % of its answers did not exceed.
    #[serde(rename = "p95_ms", serialize_with = "millis_if_any")]
    pub p95: Option<Duration>,
    /// How often it went away.
    pub downs: u64,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct InvalidationSection {
    /// Invalidations that were recorded.
    pub recorded: u64,
    /// Those that could not be confirmed everywhere in time.
    pub pending: u64,
    /// Whether everything that was invalidated is known to be heard, now.
    pub verified: bool,
    /// How often that was not known.
    pub doubts: u64,
    /// What checks of the promise found broken.
    pub violations: u64,
    /// Names and patterns that are remembered, now.
    pub markers: u64,
}

/// Settings as they are, in their own words and units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(
    missing_docs,
    reason = "each is the setting of its room's configuration, where it is explained"
)]
pub struct Settings {
    pub metrics_slow_request_ms: u64,
    pub metrics_routes_max: u64,
    pub guard_enabled: bool,
    pub guard_slots: u64,
    pub guard_slots_min: u64,
    pub guard_queue: u64,
    pub guard_lag_target_ms: u64,
    pub connections_max: u64,
    pub rate_limit_requests_max: u64,
    pub rate_limit_keys_max: u64,
    pub cache_capacity_bytes: u64,
    pub cache_body_bytes_max: u64,
    pub cache_stale_while_revalidate_ms: u64,
    pub tiers_capacity_bytes: u64,
    pub journal_markers_max: u64,
    pub database_connections_max: u64,
    pub redis_command_timeout_ms: u64,
}

impl Observed {
    /// Nothing has happened, all is well, and no setting is known.
    #[must_use]
    pub fn nothing(window: Window) -> Self {
        Self {
            instance: String::new(),
            at: SystemTime::UNIX_EPOCH,
            window,
            covers: Duration::ZERO,
            traffic: RouteLine::named("all", "*"),
            routes: Vec::new(),
            rest: None,
            others: Vec::new(),
            cache: CacheSection::default(),
            tiers: TiersSection::default(),
            limiter: LimiterSection::default(),
            guard: GuardSection::default(),
            connections: ConnectionsSection::default(),
            memory: MemorySection::default(),
            runtime: RuntimeSection::default(),
            database: DatabaseSection::default(),
            redis: RedisSection::default(),
            invalidation: InvalidationSection {
                verified: true,
                ..InvalidationSection::default()
            },
            health: Health::default(),
            settings: Settings::unknown(),
        }
    }
}

impl Settings {
    const fn unknown() -> Self {
        Self {
            metrics_slow_request_ms: 0,
            metrics_routes_max: 0,
            guard_enabled: true,
            guard_slots: 0,
            guard_slots_min: 0,
            guard_queue: 0,
            guard_lag_target_ms: 0,
            connections_max: 0,
            rate_limit_requests_max: 0,
            rate_limit_keys_max: 0,
            cache_capacity_bytes: 0,
            cache_body_bytes_max: 0,
            cache_stale_while_revalidate_ms: 0,
            tiers_capacity_bytes: 0,
            journal_markers_max: 0,
            database_connections_max: 0,
            redis_command_timeout_ms: 0,
        }
    }
}

impl CacheSection {
    /// Requests that may be answered from the cache.
    #[must_use]
    pub const fn lookups(&self) -> u64 {
        self.hits + self.stale_hits + self.misses
    }

    /// The share of them that were.
    #[must_use]
    pub fn share_of_hits(&self) -> Option<f64> {
        ratio(self.hits + self.stale_hits, self.lookups())
    }
}

impl GuardSection {
    /// Requests that came to the guard.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.admitted + self.left + self.refused.values().sum::<u64>()
    }
}

impl MemorySection {
    /// The share of the budget that is used, where both are known.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        ratio(self.used_bytes, self.budget_bytes).filter(|_| self.used_bytes > 0)
    }
}
