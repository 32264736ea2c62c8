//! What an instance leaves for the others, and what it reads.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

#[cfg(feature = "redis")]
use crate::clock::Clock;
#[cfg(feature = "redis")]
use crate::fleet::left::Left;
#[cfg(feature = "redis")]
use crate::metrics::Gathering;
use crate::metrics::{Metrics, Window, WindowFigures};
#[cfg(feature = "redis")]
use crate::store::{RedisPool, RedisStatus};

/// All instances, as far as this one knows. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    metrics: Metrics,
    #[cfg(feature = "redis")]
    left: Option<Arc<Left>>,
}

/// The figures of several instances together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetFigures {
    /// How many instances have counted: one, if these are only our own.
    pub instances: usize,
    /// Why these are only our own; nothing if they are those of all.
    pub alone: Option<Arc<str>>,
    /// What they have counted. It covers the time in which any of them did.
    #[serde(flatten)]
    pub figures: WindowFigures,
}

impl Fleet {
    /// A fleet of one.
    #[must_use]
    pub const fn alone(metrics: Metrics) -> Self {
        Self {
            metrics,
            #[cfg(feature = "redis")]
            left: None,
        }
    }

    /// This instance among those that use the same Redis and key prefix. Somebody has to call
    /// [`turn`](Self::turn) every ten seconds; a [`Keep`](crate::Keep) does.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn shared(metrics: Metrics, redis: RedisPool, clock: Clock) -> Self {
        let disabled = redis.status() == RedisStatus::Disabled;
        let left = (!disabled).then(|| Arc::new(Left::new(redis, clock)));
        Self { metrics, left }
    }

    /// Takes a step of the windows and leaves what was counted for the others. Redis' being away is no error:
    /// what could not be left is left the next time, if it still matters then. Cancelling it leaves that, too.
    pub async fn turn(&self) {
        self.metrics.turn();
        #[cfg(feature = "redis")]
        if let Some(left) = &self.left {
            // The pool tells what is wrong.
            let _ = left.leave(&self.metrics.frames()).await;
        }
    }

    /// The figures of all instances in the last minute, five minutes or hour: one round trip to Redis. Our own, if
    /// there is none, or none that answers.
    pub async fn window(&self, window: Window) -> FleetFigures {
        let alone = |why: Arc<str>| FleetFigures {
            instances: 1,
            alone: Some(why),
            figures: self.metrics.window(window),
        };
        #[cfg(feature = "redis")]
        if let Some(left) = &self.left {
            return match left.read(window).await {
                Ok(gathering) if gathering.instances() > 0 => of(window, &gathering),
                Ok(_) => alone("nobody has left anything yet".into()),
                Err(error) => alone(error.to_string().into()),
            };
        }
        alone("there is no Redis that instances share".into())
    }
}

#[cfg(feature = "redis")]
fn of(window: Window, gathering: &Gathering) -> FleetFigures {
    FleetFigures {
        instances: gathering.instances(),
        alone: None,
        figures: gathering.figures(window),
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}
