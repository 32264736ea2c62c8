//! The metrics engine: what counts, without how it is shown.

use std::sync::Arc;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Recorder};
use crate::metrics::config::MetricsConfig;
use crate::metrics::gauges::Gauges;
use crate::metrics::routes::Routes;
use crate::metrics::totals::Totals;

/// Counts requests and events. Cheap to clone; all clones count together.
///
/// The room's documentation says what is counted when; see [`metrics`](crate::metrics).
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: MetricsConfig,
    clock: Clock,
    routes: Routes,
    totals: Totals,
    gauges: Gauges,
}

impl Metrics {
    /// An engine that has counted nothing yet. Time is read from `clock`, twice per request.
    ///
    /// # Errors
    ///
    /// All faults that [`MetricsConfig::check`] finds.
    pub fn new(config: &MetricsConfig, clock: Clock) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("metrics", &mut faults);
        faults.into_result()?;
        Ok(Self {
            inner: Arc::new(Inner {
                routes: Routes::new(&config.routes, config.routes_max),
                totals: Totals::new(),
                gauges: Gauges::default(),
                config: config.clone(),
                clock,
            }),
        })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &MetricsConfig {
        &self.inner.config
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.inner.routes
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.inner.totals
    }

    /// Forgets all gauges. They hold what they read from, which may well hold these metrics.
    pub(crate) fn forget_gauges(&self) {
        self.inner.gauges.clear();
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.inner.gauges
    }
}

/// Every event ends in a few relaxed atomics, some 3 to 20 ns.
impl Recorder for Metrics {
    #[inline]
    fn record(&self, event: &Event<'_>) {
        if self.inner.config.enabled {
            self.inner.totals.count(event);
        }
    }
}
