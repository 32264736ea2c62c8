//! Coming to terms with other instances about who computes what is nowhere.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
#[cfg(not(feature = "redis"))]
use crate::tiers::absent::{Claimed, Lease, Warm};
use crate::tiers::engine::Tiers;
#[cfg(feature = "redis")]
use crate::tiers::lease::Lease;
#[cfg(feature = "redis")]
use crate::tiers::warm::{Claimed, Warm};

/// What is in Redis and of no use.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// So much of it as tells it from what is written later.
    pub(crate) beginning: Vec<u8>,
    pub(crate) is_unreadable: bool,
}

/// Somebody who wants an entry that is not there, or of no use.
pub(crate) struct Claiming {
    tiers: Tiers,
    warm: Option<Warm>,
    place: Arc<str>,
    holder: Arc<str>,
    began: Moment,
    patience: Duration,
    pause: Duration,
}

/// What to do next.
pub(crate) enum Turn {
    /// Compute, under this lease.
    Compute(Lease),
    /// Look again: somebody has written.
    Look,
    /// Compute, for oneself: Redis cannot be asked, or whoever computes takes too long.
    Alone,
}

impl Claiming {
    /// Somebody who waits for others for `lease_wait` at most.
    pub(crate) fn begin(tiers: &Tiers, place: &Arc<str>) -> Self {
        Self::with_patience(tiers, place, tiers.config().lease_wait)
    }

    /// Somebody who waits no longer than this.
    pub(crate) fn with_patience(tiers: &Tiers, place: &Arc<str>, patience: Duration) -> Self {
        Self {
            patience,
            warm: tiers.warm().cloned(),
            place: Arc::clone(place),
            holder: tiers.holder(),
            began: tiers.moment(),
            pause: PAUSE_LEAST,
            tiers: tiers.clone(),
        }
    }

    /// Waits until there is something to do. Dropping it does no harm.
    pub(crate) async fn next(&mut self, unfit: &Unfit) -> Turn {
        let Some(warm) = &self.warm else {
            return Turn::Alone;
        };
        while self.tiers.moment().since(self.began) < self.patience {
            match warm
                .claim(
                    &self.place,
                    &self.holder,
                    (&unfit.beginning, unfit.is_unreadable),
                )
                .await
            {
                Ok(Claimed::Granted(lease)) => return Turn::Compute(lease),
                Ok(Claimed::Filled) => return Turn::Look,
                // Not long after the end of a lease that nobody puts off.
                Ok(Claimed::Held(left)) => {
                    tokio::time::sleep(self.pause.min(left + PAUSE_LEAST)).await;
                    self.pause = (self.pause * 2).min(PAUSE_MOST);
                }
                Err(_) => return Turn::Alone,
            }
        }
        Turn::Alone
    }
}

/// How often an instance asks whether another one has computed: first after this, then twice as long each time.
const PAUSE_LEAST: Duration = Duration::from_millis(2);
const PAUSE_MOST: Duration = Duration::from_millis(50);
