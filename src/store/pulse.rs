//! The life signs of one connection: what was sent, what was answered, and whether it is over.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use redis::RedisResult;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::store::classify::{Failure, broken};
use crate::store::deadline::within;
use crate::store::error::StoreError;
use crate::store::status::{DownKind, DownReason};
use crate::store::window::{Verdict, Window};

/// Shared by a connection's users, by its reading task and by its supervisor.
#[derive(Debug)]
pub(crate) struct Pulse {
    clock: Clock,
    /// A silence of this length ends the connection. A caller who waits shorter than that learns nothing.
    patience: Duration,
    /// How many answers have come.
    replied: AtomicU64,
    state: AtomicU8,
    why: OnceLock<DownReason>,
    window: Mutex<Window>,
    /// Wakes the supervisor when it is over.
    over: Arc<Notify>,
    /// Wakes everyone else.
    ended: Notify,
}

const ALIVE: u8 = 0;
const DEAD: u8 = 1;
/// Dead, and what is read from now on may be somebody else's answer.
const POISONED: u8 = 2;

impl Pulse {
    pub(crate) fn new(clock: Clock, patience: Duration, over: Arc<Notify>) -> Self {
        Self {
            clock,
            patience,
            replied: AtomicU64::new(0),
            state: AtomicU8::new(ALIVE),
            why: OnceLock::new(),
            window: Mutex::default(),
            over,
            ended: Notify::new(),
        }
    }

    /// Sends `work` and waits for its answer, at most `limit`. Dropping it lets the command run on.
    ///
    /// # Errors
    ///
    /// With a reason to give the connection up: when it broke, when nothing at all was answered since
    /// the command was sent, or when too much is answered too late.
    pub(crate) async fn turn<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Failure> {
        if self.is_dead() {
            let reason = self.reason();
            let trip = Some(reason.clone());
            let error = StoreError::Unavailable(reason);
            return Err(Failure { error, trip });
        }
        let before = self.replied();
        match within(limit, work).await {
            Some(Ok(value)) => {
                self.replied.fetch_add(1, Ordering::Relaxed);
                self.is_sound()
                    .then_some(value)
                    .ok_or_else(|| Failure::lost(DownKind::Protocol, DISORDER))
            }
            // redis-rs says so only of the connection; an error of the server is a value to it.
            Some(Err(error)) => Err(broken(&error)),
            None => Err(self.missed(before, limit)),
        }
    }

    /// A deadline has passed; when the command was sent, `before` answers had come.
    fn missed(&self, before: u64, limit: Duration) -> Failure {
        let replied = self.replied();
        // A little less than all of it is what a question's second half gets.
        let impatient = limit < self.patience - self.patience / 10;
        let verdict = if impatient {
            Verdict::Bearable
        } else if replied == before {
            Verdict::Silent
        } else {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.miss(self.clock.now(), replied)
        };
        let trip = match verdict {
            Verdict::Bearable => None,
            Verdict::Slow => {
                let words = "half of the answers come too late";
                Some(DownReason::new(DownKind::Slow, words))
            }
            Verdict::Silent => {
                let words = format!("nothing was answered for {} ms", limit.as_millis());
                Some(DownReason::new(DownKind::NoProgress, words))
            }
        };
        Failure {
            error: StoreError::Timeout,
            trip,
        }
    }

    /// Ends the connection. Returns whether this was what ended it.
    pub(crate) fn end(&self, reason: DownReason) -> bool {
        let first = self.why.set(reason).is_ok();
        self.state.fetch_max(DEAD, Ordering::Release);
        self.over.notify_one();
        self.ended.notify_waiters();
        first
    }

    /// Returns when it is over.
    pub(crate) async fn ended(&self) {
        let mut ended = pin!(self.ended.notified());
        // In line before looking, so that an end in between is not missed.
        ended.as_mut().enable();
        if !self.is_dead() {
            ended.await;
        }
    }

    /// Ends the connection, and with it every reply that is still to come.
    pub(crate) fn poison(&self, reason: DownReason) {
        // First, so that no later reply on this connection finds the state sound.
        self.state.store(POISONED, Ordering::Release);
        self.end(reason);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.load(Ordering::Acquire) != ALIVE
    }

    fn is_sound(&self) -> bool {
        self.state.load(Ordering::Acquire) != POISONED
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> DownReason {
        let unknown = || DownReason::new(DownKind::Disconnected, "the connection broke");
        self.why.get().cloned().unwrap_or_else(unknown)
    }

    /// How many answers have come.
    pub(crate) fn replied(&self) -> u64 {
        self.replied.load(Ordering::Relaxed)
    }
}

const DISORDER: &str = "the connection's replies lost their order";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    fn pulse() -> Pulse {
        Pulse::new(Clock::system(), LIMIT, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_movement_does_not() {
        let pulse = pulse();
        let slow = async {
            tokio::time::sleep(LIMIT / 2).await;
            Ok(())
        };
        let (missed, moved) = tokio::join!(
            pulse.turn(LIMIT, std::future::pending::<RedisResult<()>>()),
            pulse.turn(LIMIT, slow)
        );
        assert!(moved.is_ok());
        let failure = missed.unwrap_err();
        assert_eq!((failure.error, failure.trip), (StoreError::Timeout, None));
        let silent = pulse.turn(LIMIT, std::future::pending::<RedisResult<()>>());
        let trip = silent.await.unwrap_err().trip.unwrap();
        assert_eq!(trip.kind(), DownKind::NoProgress);
    }

    #[tokio::test(start_paused = true)]
    async fn an_impatient_caller_ends_nothing() {
        let pulse = pulse();
        for _ in 0..20 {
            let silent = pulse.turn(LIMIT / 2, std::future::pending::<RedisResult<()>>());
            assert_eq!(silent.await.unwrap_err().trip, None);
        }
    }

    #[tokio::test]
    async fn a_dead_connection_sends_nothing_and_a_poisoned_one_believes_nothing() {
        let pulse = pulse();
        let poisoned = pulse.turn(LIMIT, async {
            pulse.poison(DownReason::new(DownKind::Protocol, "a stray push"));
            Ok(7)
        });
        assert_eq!(poisoned.await.unwrap_err().error, StoreError::Lost);
        let after = pulse.turn(LIMIT, async { Ok(7) }).await.unwrap_err().error;
        assert!(matches!(after, StoreError::Unavailable(_)), "{after:?}");
        assert!(!pulse.end(DownReason::new(DownKind::Slow, "later")));
        assert_eq!(pulse.reason().kind(), DownKind::Protocol);
    }
}
