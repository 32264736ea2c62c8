//! The limiter as a layer.

use tower_layer::Layer;

use crate::rate_limit::limiter::RateLimiter;
use crate::rate_limit::service::RateLimitService;

/// Lets requests through to a service as far as a [`RateLimiter`] allows; see the
/// [module](crate::rate_limit).
///
/// All services made by it and its clones count together, over connections and routes.
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    limiter: RateLimiter,
}

impl RateLimitLayer {
    /// A layer that asks `limiter`.
    #[must_use]
    pub const fn new(limiter: RateLimiter) -> Self {
        Self { limiter }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, self.limiter.clone())
    }
}
