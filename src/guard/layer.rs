//! Puts the guard around services.

use tower_layer::Layer;

use crate::guard::engine::Guard;
use crate::guard::service::GuardService;

/// Guards services; all services of all clones share the slots of one [`Guard`]. See the
/// [module](crate::guard) for an example.
#[derive(Clone, Debug)]
pub struct GuardLayer {
    guard: Guard,
}

impl GuardLayer {
    /// A layer around this guard.
    #[must_use]
    pub const fn new(guard: Guard) -> Self {
        Self { guard }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GuardService::new(inner, self.guard.clone())
    }
}
