//! What an instance does in the background to be part of the fleet: it says that it is there, counts the
//! others, notices when Redis comes and goes, and gives back what it does not use.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::rate_limit::fleet::Fleet;
use crate::rate_limit::outage::Outage;
use crate::rate_limit::shared::Shared;
use crate::rate_limit::ticks::ticks;
use crate::store::StatusWatch;
use crate::task::Spawner;

/// How often an instance says that it is there.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);

/// For how long one that says nothing more is counted. Longer than a missed announcement or two, so that
/// shares are rather too small than too large.
const COUNTED_FOR: Duration = Duration::from_secs(16);

/// How often unused leases are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// All that it takes.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) fleet: Fleet,
    pub(crate) shared: Shared,
    pub(crate) outage: Arc<Outage>,
    pub(crate) clock: Clock,
    /// Whether the number of instances was configured.
    pub(crate) fixed: bool,
}

impl Presence {
    /// Runs until the owner of `spawner` shuts down.
    pub(crate) fn start(self, spawner: &Spawner, status: StatusWatch) {
        let stopped = spawner.clone();
        spawner.spawn(async move {
            // Random, since two instances may have everything else in common.
            let name = format!("{:016x}", RandomState::new().hash_one(ticks(&self.clock)));
            tokio::select! {
                () = stopped.stopped() => {}
                () = self.live(&name, status) => {}
            }
            if self.outage.is_up() {
                self.outage.begin();
                // Where it fails, the others count this one for some seconds more.
                let _ = self.shared.leave(&name).await;
            }
        });
    }

    async fn live(&self, name: &str, mut status: StatusWatch) {
        let mut announcing = tokio::time::interval(ANNOUNCE_EVERY);
        let mut sweeping = tokio::time::interval(SWEEP_EVERY);
        let mut news = true;
        loop {
            let up = status.now().is_up();
            // Also where it went and came back unseen: it may have lost its data.
            if news && up {
                self.announce(name).await;
                self.outage.end(ticks(&self.clock));
            } else if news {
                self.outage.begin();
            }
            news = tokio::select! {
                changed = status.changed() => match changed {
                    Some(_) => true,
                    None => return,
                },
                _ = announcing.tick() => {
                    if up {
                        self.announce(name).await;
                    }
                    false
                }
                _ = sweeping.tick() => {
                    self.fleet.sweep();
                    false
                }
            };
        }
    }

    async fn announce(&self, name: &str) {
        let live = self.shared.announce(name, COUNTED_FOR).await;
        if let (Ok(live), false) = (live, self.fixed) {
            self.outage.set_instances(live);
        }
    }
}
