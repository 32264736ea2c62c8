//! The Tower layer.

use tower_layer::Layer;

use crate::cache::engine::Cache;
use crate::cache::service::CacheService;

/// Puts a [`Cache`] before a service. See the [module](crate::cache).
#[derive(Clone, Debug)]
pub struct CacheLayer {
    cache: Cache,
}

impl CacheLayer {
    /// A layer for this cache. However often it is applied, what is stored is shared.
    #[must_use]
    pub const fn new(cache: Cache) -> Self {
        Self { cache }
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> CacheService<S> {
        CacheService::new(inner, self.cache.clone())
    }
}
