//! Follows how a pool is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::event::{Event, Events};
use crate::store::node::Told;
use crate::store::status::{DownKind, RedisStatus};

/// Follows a pool's status.
#[derive(Clone, Debug)]
pub struct StatusWatch {
    pub(crate) status: watch::Receiver<RedisStatus>,
}

impl StatusWatch {
    /// The status now.
    #[must_use]
    pub fn now(&self) -> RedisStatus {
        self.status.borrow().clone()
    }

    /// Waits for the next change. `None` once the pool is gone. Safe to drop: nothing is missed but what
    /// was replaced meanwhile.
    pub async fn changed(&mut self) -> Option<RedisStatus> {
        self.status.changed().await.ok()?;
        Some(self.status.borrow_and_update().clone())
    }

    /// Waits until Redis is up. Returns whether it is: not where none is configured, nor once the stack was
    /// shut down or the pool is gone.
    pub async fn until_up(&mut self) -> bool {
        let decided = |status: &RedisStatus| match status {
            RedisStatus::Up | RedisStatus::Disabled => true,
            RedisStatus::Down { reason } => reason.kind() == DownKind::Stopped,
        };
        let decided = self.status.wait_for(decided).await;
        decided.is_ok_and(|status| status.is_up())
    }
}

/// Publishes states, and tells when one is another kind of state than before: that Redis is there, that it
/// went away, and at times why it stays away. That the stack was shut down is no outage, and alarms nobody.
pub(crate) fn told(status: watch::Sender<RedisStatus>, events: Events, clock: Clock) -> Told {
    let last = Mutex::new(clock.now());
    Arc::new(move |new| {
        let old = status.send_replace(new.clone());
        let RedisStatus::Down { reason } = &new else {
            if !old.is_up() {
                events.emit(Event::RedisUp);
            }
            return;
        };
        let began = match &old {
            RedisStatus::Down { reason } => reason.kind() == DownKind::Starting,
            RedisStatus::Up | RedisStatus::Disabled => true,
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        let changed = old != new && now.since(*last) >= REMIND;
        let no_news = matches!(reason.kind(), DownKind::Stopped | DownKind::Starting);
        if (began || changed) && !no_news {
            *last = now;
            events.emit(Event::RedisDown {
                reason: &reason.to_string(),
            });
        }
    })
}

/// Attempts fail for reasons by turns, ten times a second; who listens hears of a change this often.
const REMIND: Duration = Duration::from_secs(10);
