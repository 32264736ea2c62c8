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

impl KeepLayer {
    pub(crate) fn new(keep: &Keep) -> Self {
        Self {
            metrics: keep.metrics_layer(),
            guard: keep.guard_layer(),
            rate_limit: keep.rate_limit_layer(),
            invalidate: keep.invalidate_layer(),
            cache: keep.cache_layer(),
        }
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
