//! What the endpoints read and change: engines, and what other rooms tell of themselves.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::breaker::CircuitBreakers;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::guard::{ConcurrencyLimit, Guard};
use crate::health::HealthBoard;
use crate::invalidation::{Coherency, Invalidator};
use crate::metrics::{Metrics, Window};
use crate::rate_limit::RateLimiter;
use crate::tiers::Tiers;
use crate::warming::Warmer;

/// Tells something as JSON, whenever it is asked: on a request's thread, so it must not block.
pub type Tell = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the endpoints read; see [`admin`](crate::admin). Cheap to clone. An endpoint whose source is missing
/// answers 404. Nothing in it keeps a [`Keep`](crate::Keep)'s tasks alive.
#[derive(Clone)]
pub struct AdminSources {
    /// Shown by `/metrics` and `/slow`, and by the dashboard.
    pub metrics: Metrics,
    /// Shown by `/health`, without its words.
    pub health: HealthBoard,
    /// Asked by `/ready`.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether the service is about to end: then streams end as well, or they would hold it up.
    pub stopping: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The clock of the limit on wrong tokens.
    pub clock: Clock,
    /// What is looked into and changed by hand.
    pub engines: Option<AdminEngines>,
    /// How Redis is.
    pub redis: Option<Tell>,
    /// Shown by `/health/detailed`; without it that shows the board with its words.
    pub health_details: Option<Tell>,
    /// Shown by `/alerts`. The dashboard reads `states` and `recent` of it, as `AlertState` and `Alert` are written.
    pub alerts: Option<Tell>,
    /// Shown by `/report`. The dashboard reads `score`, `status`, `penalties` (`reason`, `points`) and
    /// `recommendations` (`setting`, `now`, `proposed`, `why`) of it.
    pub report: Option<Arc<dyn Fn(Window) -> Value + Send + Sync>>,
    /// Shown by `/report?format=text`.
    pub report_text: Option<Arc<dyn Fn(Window) -> String + Send + Sync>>,
}

/// The engines that are looked into and changed by hand.
#[derive(Clone, Debug)]
pub struct AdminEngines {
    /// Who is admitted.
    pub guard: Guard,
    /// Connections that stay open.
    pub connections: Connections,
    /// What is left alone because it fails.
    pub breakers: CircuitBreakers,
    /// Slots before the database.
    pub database_slots: ConcurrencyLimit,
    /// Who may ask how often.
    pub limiter: RateLimiter,
    /// Makes stored answers old.
    pub invalidator: Invalidator,
    /// Follows invalidations.
    pub coherency: Coherency,
    /// Stored answers, and their journal.
    pub cache: Cache,
    /// Typed caches.
    pub tiers: Tiers,
    /// Computes ahead of time.
    pub warmer: Warmer,
}

impl AdminSources {
    /// Figures and health alone: always ready, and never stopping.
    #[must_use]
    pub fn new(metrics: Metrics, health: HealthBoard) -> Self {
        Self {
            clock: metrics.clock().clone(),
            metrics,
            health,
            ready: Arc::new(|| true),
            stopping: Arc::new(|| false),
            engines: None,
            redis: None,
            health_details: None,
            alerts: None,
            report: None,
            report_text: None,
        }
    }

    /// The same, ready when `ready` says so.
    #[must_use]
    pub fn ready(mut self, ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.ready = Arc::new(ready);
        self
    }
}

impl fmt::Debug for AdminSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminSources")
            .field("metrics", &self.metrics)
            .field("health", &self.health)
            .field("engines", &self.engines)
            .finish_non_exhaustive()
    }
}
