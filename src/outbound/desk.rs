//! What all remotes have in common.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::event::Events;
use crate::outbound::config::QuotaConfig;
#[cfg(feature = "redis")]
use crate::outbound::news::News;

/// Clock, listeners, bounds, and how many wait.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    /// How long a request may wait.
    pub(crate) wait_max: Duration,
    /// For how long a remote is believed.
    pub(crate) block_max: Duration,
    waiting_max: usize,
    waiting: AtomicUsize,
    /// What is to be told to other instances.
    #[cfg(feature = "redis")]
    pub(crate) news: News,
}

impl Desk {
    pub(crate) fn new(config: &QuotaConfig, clock: Clock, events: Events) -> Self {
        Self {
            clock,
            events,
            wait_max: config.wait_max,
            block_max: config.block_max,
            waiting_max: config.waiting_max,
            waiting: AtomicUsize::new(0),
            #[cfg(feature = "redis")]
            news: News::default(),
        }
    }

    /// One more waits, unless too many do.
    pub(crate) fn sit_down(&self) -> bool {
        let most = self.waiting_max;
        let one_more = |waiting: usize| (waiting < most).then_some(waiting + 1);
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        let seated = self.waiting.fetch_update(order.0, order.1, one_more);
        seated.is_ok()
    }

    /// One waits no longer.
    pub(crate) fn stand_up(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}
