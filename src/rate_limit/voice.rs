//! What this instance says of bans, to Redis and to all others.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::rate_limit::ban_talk::{ban_message, pardon_message};
use crate::rate_limit::shared::Shared;
use crate::task::Spawner;

/// Speaks without anybody waiting for it. What is said of one client is said in the order of the calls.
#[derive(Debug)]
pub(crate) struct Voice {
    shared: Shared,
    spawner: Spawner,
    /// Whose voice it is: a random number, since instances may have everything else in common.
    speaker: u64,
    names: RandomState,
    lines: [Line; LINES],
}

/// The end of the last word: its sender is dropped when it was spoken, or never will be.
type Line = Mutex<Option<oneshot::Receiver<()>>>;

/// So many clients may be spoken of at the same time. Were there only one line, many bans at once would each
/// wait for all before.
const LINES: usize = 64;

impl Voice {
    pub(crate) fn new(shared: Shared, spawner: Spawner) -> Self {
        Self {
            shared,
            spawner,
            speaker: RandomState::new().hash_one("speaker"),
            names: RandomState::new(),
            lines: [const { Mutex::new(None) }; LINES],
        }
    }

    pub(crate) fn speaker(&self) -> u64 {
        self.speaker
    }

    /// Tells everybody of a ban.
    pub(crate) fn ban(&self, who: &str, lasts: Duration) {
        let (shared, name) = (self.shared.clone(), who.to_owned());
        let speaker = self.speaker;
        self.speak(who, async move {
            // Whoever does not hear of it meets the client's key in Redis, or bans it by its own count.
            let _ = shared.ban(&name, lasts).await;
            let _ = shared.say(ban_message(speaker, &name, lasts)).await;
        });
    }

    /// Tells everybody that a ban has ended, which would have lasted for so long as far as is known here.
    pub(crate) fn pardon(&self, who: &str, lasts: Duration) {
        let (shared, name) = (self.shared.clone(), who.to_owned());
        let speaker = self.speaker;
        self.speak(who, async move {
            // Whoever does not hear of it asks after a while.
            let _ = shared.unban(&name, lasts).await;
            let _ = shared.say(pardon_message(speaker, &name)).await;
        });
    }

    /// Speaks once all is said that was to be said of the same client before: tasks would begin in any order.
    fn speak(&self, who: &str, word: impl Future<Output = ()> + Send + 'static) {
        let (spoken, end) = oneshot::channel();
        let line = self.names.hash_one(who) as usize % LINES;
        let before = self.lines.get(line).and_then(|line| {
            // Nothing panics under the lock.
            let mut last = line.lock().unwrap_or_else(PoisonError::into_inner);
            last.replace(end)
        });
        self.spawner.spawn(async move {
            if let Some(before) = before {
                // It ends without a word, since nobody sends one.
                let _ = before.await;
            }
            word.await;
            drop(spoken);
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
