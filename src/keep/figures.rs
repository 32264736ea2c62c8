//! The windows' beat, and the figures of all instances.

use std::time::Duration;

use crate::fleet::Fleet;
use crate::keep::engines::{Engines, Ground};
use crate::keep::parts::Keep;
use crate::metrics::Metrics;

/// How long a step of the shortest window lasts.
const STEP: Duration = Duration::from_secs(10);

/// Lets the windows go on, and leaves what was counted for the other instances.
pub(crate) fn start(keep: &Keep) {
    if !keep.config().metrics.enabled {
        return;
    }
    let fleet = keep.fleet().clone();
    keep.spawner().spawn_until_stopped(async move {
        let mut steps = tokio::time::interval(STEP);
        steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first one is due at once.
        steps.tick().await;
        loop {
            steps.tick().await;
            fleet.turn().await;
        }
    });
}

/// This instance among the others, where there is a Redis.
pub(crate) fn fleet(metrics: &Metrics, engines: &Engines, ground: &Ground) -> Fleet {
    #[cfg(feature = "redis")]
    {
        Fleet::shared(metrics.clone(), engines.redis.clone(), ground.clock.clone())
    }
    #[cfg(not(feature = "redis"))]
    {
        let _ = (engines, ground);
        Fleet::alone(metrics.clone())
    }
}
