//! The five layers as one.

use tower_layer::Layer;

use crate::cache::{CacheLayer, CacheService};
use crate::guard::{GuardLayer, GuardService};
use crate::invalidation::{InvalidateLayer, InvalidateService};
use crate::keep::parts::Keep;
use crate::metrics::{MetricsLayer, MetricsService};
use crate::rate_limit::{RateLimitLayer, RateLimitService};

/// Metrics > guard > rate limit > invalidation > cache > the service.
///
/// The order is the point. Metrics see everything, refusals included. The guard comes before the limiter
/// so that a full house refuses for the least work. A request that is over its quota must not purge
/// anything, and one that purges must pass the cache on its way back.
#[derive(Clone, Debug)]
pub struct KeepLayer {
    metrics: MetricsLayer,
    guard: GuardLayer,
    rate_limit: RateLimitLayer,
    invalidate: InvalidateLayer,
    cache: CacheLayer,
}

/// A service behind the whole stack.
pub type KeepService<S> =
    MetricsService<GuardService<RateLimitService<InvalidateService<CacheService<S>>>>>;

/// The layers, all at once or one by one.
impl Keep {
    /// All five layers: metrics > guard > rate limit > invalidation > cache.
    #[must_use]
    pub fn layer(&self) -> KeepLayer {
        KeepLayer {
            metrics: self.metrics_layer(),
            guard: self.guard_layer(),
            rate_limit: self.rate_limit_layer(),
            invalidate: self.invalidate_layer(),
            cache: self.cache_layer(),
        }
    }

    /// The metrics' layer alone.
    #[must_use]
    pub fn metrics_layer(&self) -> MetricsLayer {
        MetricsLayer::new(self.metrics().clone())
    }

    /// The guard's layer alone.
    #[must_use]
    pub fn guard_layer(&self) -> GuardLayer {
        GuardLayer::new(self.guard().clone())
    }

    /// The rate limiter's layer alone.
    #[must_use]
    pub fn rate_limit_layer(&self) -> RateLimitLayer {
        RateLimitLayer::new(self.limiter().clone())
    }

    /// The invalidation layer alone.
    #[must_use]
    pub fn invalidate_layer(&self) -> InvalidateLayer {
        InvalidateLayer::new(self.invalidator().clone())
    }

    /// The cache's layer alone.
    #[must_use]
    pub fn cache_layer(&self) -> CacheLayer {
        CacheLayer::new(self.http_cache().clone())
    }
}

impl<S> Layer<S> for KeepLayer {
    type Service = KeepService<S>;

    fn layer(&self, service: S) -> KeepService<S> {
        let cached = self.invalidate.layer(self.cache.layer(service));
        self.metrics
            .layer(self.guard.layer(self.rate_limit.layer(cached)))
    }
}
