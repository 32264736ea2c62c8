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
    /// Commands begun. `begun - replied - abandoned` are under way.
    begun: AtomicU64,
    replied: AtomicU64,
    /// Commands whose caller has gone, or whose deadline passed.
    abandoned: AtomicU64,
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

/// More commands than these under way at once are refused, so that what piles up within one deadline
/// of an outage is bounded.
const MOST_UNDER_WAY: u64 = 16_384;

impl Pulse {
    pub(crate) fn new(clock: Clock, over: Arc<Notify>) -> Self {
        Self {
            clock,
            begun: AtomicU64::new(0),
            replied: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
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
        let turn = self.begin()?;
        match within(limit, work).await {
            Some(Ok(value)) => {
                turn.replied();
                self.is_sound().then_some(value).ok_or_else(|| {
                    Failure::lost(
                        DownKind::Protocol,
                        "the connection's replies lost their order",
                    )
                })
            }
            // redis-rs says so only of the connection; an error of the server is a value to it.
            Some(Err(error)) => Err(broken(&error)),
            None => Err(self.missed(&turn, limit)),
        }
    }

    fn begin(&self) -> Result<Turn<'_>, Failure> {
        if self.is_dead() {
            let reason = self.reason();
            return Err(Failure {
                error: StoreError::Unavailable(reason.clone()),
                trip: Some(reason),
            });
        }
        let replied = self.replied.load(Ordering::Relaxed);
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        let turn = Turn {
            pulse: self,
            replied,
            open: true,
        };
        let done = replied + self.abandoned.load(Ordering::Relaxed);
        if begun.saturating_sub(done) >= MOST_UNDER_WAY {
            return Err(Failure::of(StoreError::Crowded));
        }
        Ok(turn)
    }

    fn missed(&self, turn: &Turn<'_>, limit: Duration) -> Failure {
        let replied = self.replied();
        let verdict = if replied == turn.replied {
            Verdict::Silent
        } else {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.miss(self.clock.now(), replied)
        };
        let trip = match verdict {
            Verdict::Bearable => None,
            Verdict::Slow => Some(DownReason::new(
                DownKind::Slow,
                "half of the answers come too late",
            )),
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

    /// How many commands are under way.
    pub(crate) fn under_way(&self) -> u64 {
        let done = self.replied() + self.abandoned.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed).saturating_sub(done)
    }
}

/// One command under way. Dropped without a reply, it counts as abandoned.
struct Turn<'a> {
    pulse: &'a Pulse,
    /// How many replies had come when it was sent.
    replied: u64,
    open: bool,
}

impl Turn<'_> {
    fn replied(mut self) {
        self.open = false;
        self.pulse.replied.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.open {
            self.pulse.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    fn pulse() -> Pulse {
        Pulse::new(Clock::system(), Arc::default())
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
        assert_eq!(pulse.under_way(), 0);
    }

    #[tokio::test]
    async fn a_dropped_command_is_not_under_way_any_more() {
        let pulse = pulse();
        {
            let turn = pulse.turn(LIMIT, std::future::pending::<RedisResult<()>>());
            let mut turn = std::pin::pin!(turn);
            let once = tokio::time::timeout(Duration::ZERO, turn.as_mut());
            assert!(once.await.is_err());
            assert_eq!(pulse.under_way(), 1);
        }
        assert_eq!(pulse.under_way(), 0);
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

    #[tokio::test]
    async fn what_is_under_way_is_bounded() {
        let pulse = pulse();
        pulse.begun.store(MOST_UNDER_WAY, Ordering::Relaxed);
        let crowded = pulse.turn(LIMIT, async { Ok(7) }).await.unwrap_err();
        assert_eq!((crowded.error, crowded.trip), (StoreError::Crowded, None));
        assert_eq!(pulse.under_way(), MOST_UNDER_WAY);
    }
}
