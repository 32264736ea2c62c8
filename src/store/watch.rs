//! Follows how a pool is.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

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

/// Publishes states, and tells that Redis is there, that it went away, and why it stays away: each kind of
/// reason once, for attempts fail for several by turns and many times a second. That the stack was shut
/// down is no outage, and alarms nobody.
pub(crate) fn told(status: watch::Sender<RedisStatus>, events: Events) -> Told {
    let told: Mutex<Vec<DownKind>> = Mutex::default();
    Arc::new(move |new| {
        let old = status.send_replace(new.clone());
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let RedisStatus::Down { reason } = &new else {
            told.clear();
            if !old.is_up() {
                events.emit(Event::RedisUp);
            }
            return;
        };
        let kind = reason.kind();
        let no_news = matches!(kind, DownKind::Stopped | DownKind::Starting);
        if !no_news && !told.contains(&kind) {
            told.push(kind);
            events.emit(Event::RedisDown {
                reason: &reason.to_string(),
            });
        }
    })
}
