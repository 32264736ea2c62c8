//! Puts the metrics around a service.

use tower_layer::Layer;

use crate::metrics::engine::Metrics;
use crate::metrics::service::MetricsService;

/// Counts the requests of the services it is laid around, all of them together; see
/// [`metrics`](crate::metrics). It belongs outside of all other layers, so that refusals and answers
/// from the cache are counted as well.
#[derive(Clone, Debug)]
pub struct MetricsLayer {
    metrics: Metrics,
}

impl MetricsLayer {
    /// A layer that counts into `metrics`.
    #[must_use]
    pub const fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = MetricsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MetricsService::new(inner, self.metrics.clone())
    }
}
