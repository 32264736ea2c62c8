//! What a stack keeps of its reports.

use crate::keep::engines::{Engines, Ground};
use crate::metrics::Metrics;
use crate::report::{Baselines, Readings, Trend};

/// What is kept of reports.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    pub(crate) baselines: Baselines,
    pub(crate) trend: Trend,
    /// Values that typed caches had to let go.
    pub(crate) evictions: Readings,
}

impl Archive {
    /// An archive for a stack to be.
    pub(crate) fn new(ground: &Ground, metrics: &Metrics, engines: &Engines) -> Self {
        let (config, clock) = (&ground.config.report, ground.clock.clone());
        let evictions = Readings::new(clock.clone());
        #[cfg(feature = "redis")]
        return Self {
            baselines: Baselines::shared(&engines.redis),
            trend: Trend::shared(config, metrics.clone(), clock, &engines.redis),
            evictions,
        };
        #[cfg(not(feature = "redis"))]
        {
            let _ = engines;
            Self {
                baselines: Baselines::new(),
                trend: Trend::new(config, metrics.clone(), clock),
                evictions,
            }
        }
    }
}
