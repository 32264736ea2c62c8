//! What instances leave in Redis: a hash for every ten seconds, minute and five minutes, with a field for each
//! instance.
//!
//! Writing the same field twice changes nothing, so whether a write that got no answer has happened does not
//! matter: it is repeated. A frame is known by its instance's own count of steps. The time of day says no more than
//! when it was, and so under which key it is looked for: where the clock was set meanwhile it lies there twice, and
//! counts once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::clock::Clock;
use crate::metrics::{Frame, Gathering, Stretch, Window};
use crate::store::{Batch, Command, RedisPool, StoreError};

/// How long a frame of each level lasts, and how many of them are of use.
const LEVELS: [(u64, u64); 3] = [(10_000, 7), (60_000, 6), (300_000, 13)];

/// What this instance has left, and where.
#[derive(Debug)]
pub(crate) struct Left {
    redis: RedisPool,
    clock: Clock,
    instance: u64,
    /// The step that the frames of each level are known to be there until.
    until: Mutex<[u64; LEVELS.len()]>,
}

impl Left {
    pub(crate) fn new(redis: RedisPool, clock: Clock) -> Self {
        Self {
            redis,
            clock,
            // The standard library seeds these by the system's randomness.
            instance: RandomState::new().build_hasher().finish(),
            until: Mutex::default(),
        }
    }

    /// Leaves those of `frames`, by level, that are not known to be there and still of use.
    pub(crate) async fn leave(
        &self,
        frames: &[Vec<Frame>; LEVELS.len()],
    ) -> Result<(), StoreError> {
        let (now, wall) = (self.clock.now(), unix_millis(self.clock.wall()));
        let (mut batch, mut until) = (Batch::new(), *self.until());
        for (level, (frames, (lasts, count))) in frames.iter().zip(LEVELS).enumerate() {
            for frame in frames {
                let age = now.since(frame.ended).as_millis() as u64;
                let known = until.get(level).copied().unwrap_or_default();
                if frame.until <= known || age > lasts * count {
                    continue;
                }
                let ended = wall.saturating_sub(age);
                let key = self.key(level, ended / lasts);
                let stretch = Stretch {
                    instance: self.instance,
                    from: frame.from,
                    until: frame.until,
                    lasted: frame.lasted,
                    ended: Duration::from_millis(ended),
                };
                let value = stretch.encoded(&frame.bytes);
                let field = format!("{:016x}:{}", self.instance, frame.from);
                let set = Command::new("HSET").key(&key).arg(field).arg(value);
                let ends = Command::new("PEXPIRE").key(&key).arg(lasts * (count + 1));
                batch = batch.command(set).command(ends);
                if let Some(until) = until.get_mut(level) {
                    *until = frame.until;
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut replies = self.redis.run_all(&batch).await?;
        while !replies.is_empty() {
            replies.read::<u64>()?;
        }
        *self.until() = until;
        Ok(())
    }

    /// What all instances have left of `window`.
    pub(crate) async fn read(&self, window: Window) -> Result<Gathering, StoreError> {
        let wall = unix_millis(self.clock.wall());
        let whole = match window {
            Window::Minute => 0,
            Window::FiveMinutes => 1,
            Window::Hour => 2,
        };
        let mut batch = Batch::new();
        for (level, (lasts, count)) in LEVELS.into_iter().enumerate().take(whole + 1) {
            let last = wall / lasts;
            // One ahead: somebody's clock may be.
            for slot in last.saturating_sub(count)..=last + 1 {
                batch = batch.command(Command::new("HVALS").key(self.key(level, slot)));
            }
        }
        let mut replies = self.redis.run_all(&batch.bulk()).await?;
        let mut gathering = Gathering::of(window, Duration::from_millis(wall));
        while !replies.is_empty() {
            for value in replies.read::<Vec<Bytes>>()? {
                gathering.take(&value);
            }
        }
        Ok(gathering)
    }

    /// All of them are on one server of a cluster, to be read in one round trip.
    fn key(&self, level: usize, slot: u64) -> String {
        let version = env!("CARGO_PKG_VERSION");
        self.redis
            .key(format_args!("{{fleet}}:{version}:{level}:{slot}"))
    }

    fn until(&self) -> MutexGuard<'_, [u64; LEVELS.len()]> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
