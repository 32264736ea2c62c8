//! All figures for the recorder of the `metrics` crate, where that is asked for.

use std::time::Duration;

use crate::keep::parts::Keep;
use crate::metrics::FacadeBridge;

/// How often the recorder is told what is new. Scrapers ask no more often than that.
const PERIOD: Duration = Duration::from_secs(10);

/// Starts telling, if the settings say so.
pub(crate) fn start(keep: &Keep) {
    let config = &keep.config().metrics;
    if config.enabled && config.facade {
        let bridge = FacadeBridge::new(keep.metrics());
        keep.spawner().spawn_until_stopped(bridge.run(PERIOD));
    }
}
