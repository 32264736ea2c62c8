//! What this instance says of bans, to Redis and to all others.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::rate_limit::ban_talk::{ban_message, pardon_message};
use crate::rate_limit::shared::Shared;
use crate::task::Spawner;

/// Speaks without anybody waiting for it.
#[derive(Debug)]
pub(crate) struct Voice {
    shared: Shared,
    spawner: Spawner,
    /// Whose voice it is: a random number, since instances may have everything else in common.
    speaker: u64,
}

impl Voice {
    pub(crate) fn new(shared: Shared, spawner: Spawner) -> Self {
        Self {
            shared,
            spawner,
            speaker: RandomState::new().hash_one("speaker"),
        }
    }

    pub(crate) fn speaker(&self) -> u64 {
        self.speaker
    }

    /// Tells everybody of a ban.
    pub(crate) fn ban(&self, who: &str, lasts: Duration) {
        let (shared, who) = (self.shared.clone(), who.to_owned());
        let speaker = self.speaker;
        self.spawner.spawn(async move {
            // Whoever does not hear of it meets the client's key in Redis, or bans it by its own count.
            let _ = shared.ban(&who, lasts).await;
            let _ = shared.say(ban_message(speaker, &who, lasts)).await;
        });
    }

    /// Tells everybody that a ban has ended, which would have lasted for so long as far as is known here.
    pub(crate) fn pardon(&self, who: &str, lasts: Duration) {
        let (shared, who) = (self.shared.clone(), who.to_owned());
        let speaker = self.speaker;
        self.spawner.spawn(async move {
            // Whoever does not hear of it asks after a while.
            let _ = shared.unban(&who, lasts).await;
            let _ = shared.say(pardon_message(speaker, &who)).await;
        });
    }

    /// Asks whether a ban still holds, and calls `lifted` if not. Nobody waits for it. If it is known by name to
    /// last for so long, and Redis has lost it, it is spoken anew.
    pub(crate) fn doubt(
        &self,
        who: Arc<str>,
        lasts: Option<Duration>,
        lifted: impl FnOnce() + Send + 'static,
    ) {
        let shared = self.shared.clone();
        self.spawner.spawn(async move {
            // While Redis is away the ban holds.
            if let Ok(false) = shared.confirm(&who, lasts).await {
                lifted();
            }
        });
    }
}
