//! The metrics engine: what counts, without how it is shown.

use std::sync::Arc;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Recorder};
use crate::metrics::config::MetricsConfig;
use crate::metrics::gauges::Gauges;
use crate::metrics::routes::Routes;
use crate::metrics::shared::Shared;
use crate::metrics::sheet::Sheet;
use crate::metrics::totals::Totals;
#[cfg(feature = "redis")]
use crate::metrics::windows::Frame;
use crate::metrics::windows::Windows;

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
    shared: Arc<Shared>,
    routes: Routes,
    totals: Totals,
    windows: Windows,
    gauges: Gauges,
}

impl Metrics {
    /// An engine that has counted nothing yet. Time is read from `clock`, twice per request.
    ///
    /// # Errors
    ///
    /// All faults that [`MetricsConfig::check`] finds.
    pub fn new(config: &MetricsConfig, clock: Clock) -> Result<Self, ConfigError> {
        Self::of_stack(config, clock, true)
    }

    /// The same where it is known whether there is a cache behind the layer that says in `Cache-Status` what it did. If
    /// not, what stands there is some other cache's, which may be called the same.
    pub(crate) fn of_stack(
        config: &MetricsConfig,
        clock: Clock,
        cache_tells: bool,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("metrics", &mut faults);
        faults.into_result()?;
        let windows = Windows::new(clock.now());
        let shared = Arc::new(Shared {
            cache_tells,
            ..Shared::new(config, clock)
        });
        Ok(Self {
            inner: Arc::new(Inner {
                routes: Routes::new(&config.routes, config.routes_max, Arc::clone(&shared)),
                totals: Totals::new(),
                windows,
                gauges: Gauges::default(),
                config: config.clone(),
                shared,
            }),
        })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &MetricsConfig {
        &self.inner.config
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.inner.windows
    }

    /// All counts as they are.
    pub(crate) fn sheet(&self) -> Sheet {
        Sheet::now(&self.inner.routes, &self.inner.totals)
    }

    /// Takes one step of the [windows](crate::metrics::Window). To be called every ten seconds; a
    /// [`Keep`](crate::Keep) does. Takes about a microsecond for each route and method there is, besides
    /// requests and not before them. Without it, windows cover everything since the start.
    pub fn turn(&self) {
        let now = self.inner.shared.clock.now();
        self.inner.windows.turn(now, || self.sheet());
    }

    /// The counts of stretches of ten seconds, a minute, and five, oldest first, each with the one that still grows.
    #[cfg(feature = "redis")]
    pub(crate) fn frames(&self) -> [(Vec<Frame>, Option<Frame>); 3] {
        self.inner.windows.levels()
    }

    /// The clock that everything is timed by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.shared.clock
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.inner.totals
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.inner.routes
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
