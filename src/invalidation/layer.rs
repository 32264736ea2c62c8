//! Puts invalidation around services.

use tower_layer::Layer;

use crate::invalidation::invalidator::Invalidator;
use crate::invalidation::service::InvalidateService;

/// Purges what requests make old; all services of all clones share one [`Invalidator`]. Goes around
/// the cache, not inside it. See the [module](crate::invalidation) for an example.
#[derive(Clone, Debug)]
pub struct InvalidateLayer {
    invalidator: Invalidator,
}

impl InvalidateLayer {
    /// A layer for this invalidator.
    #[must_use]
    pub const fn new(invalidator: Invalidator) -> Self {
        Self { invalidator }
    }
}

impl<S> Layer<S> for InvalidateLayer {
    type Service = InvalidateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InvalidateService::new(inner, self.invalidator.clone())
    }
}
