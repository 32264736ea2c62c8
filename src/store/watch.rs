//! Follows how a pool is.

use std::sync::Arc;

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

    /// Waits until Redis is up. Returns whether it is, or the pool is gone.
    pub async fn until_up(&mut self) -> bool {
        self.status.wait_for(RedisStatus::is_up).await.is_ok()
    }
}

/// Publishes a state, and tells of it when it is another kind of state than before. That the stack was
/// shut down is no outage, and alarms nobody.
pub(crate) fn told(status: watch::Sender<RedisStatus>, events: Events) -> Told {
    Arc::new(move |new| {
        let old = status.send_replace(new.clone());
        match (&old, &new) {
            (RedisStatus::Up, RedisStatus::Up) => {}
            (_, RedisStatus::Up) => events.emit(Event::RedisUp),
            (_, RedisStatus::Down { reason }) if reason.kind() == DownKind::Stopped => {}
            (old, RedisStatus::Down { reason }) if *old != new => events.emit(Event::RedisDown {
                reason: &reason.to_string(),
            }),
            _ => {}
        }
    })
}
