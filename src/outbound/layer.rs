//! Remote quotas as a layer.

use tower_layer::Layer;

use crate::outbound::quota::RemoteQuota;
use crate::outbound::service::QuotaService;

/// Sends requests on as far as their remotes' quotas allow; see the [module](crate::outbound).
///
/// All services made by it and its clones count together.
#[derive(Clone, Debug)]
pub struct QuotaLayer {
    quota: RemoteQuota,
}

impl QuotaLayer {
    /// A layer that asks `quota`.
    #[must_use]
    pub const fn new(quota: RemoteQuota) -> Self {
        Self { quota }
    }
}

impl<S> Layer<S> for QuotaLayer {
    type Service = QuotaService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        QuotaService::new(inner, self.quota.clone())
    }
}
