//! What instances leave in Redis: a hash for every ten seconds, minute and five minutes, with a field for each
//! instance and frame.
//!
//! What still grows of a minute and of five is left at every step as well, under one field that is written over and
//! goes with the frame that it becomes. So each window needs the frames of its own length only, and has all that an
//! instance counted which is gone. Where both are found, those that begin with the same step, the longer one counts.
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

    /// Leaves those frames, by level, that are not known to be there and still of use, and those that still grow.
    pub(crate) async fn leave(
        &self,
        levels: &[(Vec<Frame>, Option<Frame>); LEVELS.len()],
    ) -> Result<(), StoreError> {
        let (mut batch, mut until) = (Batch::new(), *self.until());
        for (level, ((done, open), known)) in levels.iter().zip(&mut until).enumerate() {
            for frame in done.iter().filter(|frame| frame.until > *known) {
                let Some((key, value)) = self.placed(level, frame) else {
                    continue;
                };
                let open = Command::new("HDEL").key(&key).arg(self.field(None));
                let field = self.field(Some(frame.from));
                batch = with(batch, level, (&key, field, value)).command(open);
            }
            *known = done.last().map_or(*known, |frame| frame.until);
            if let Some((key, value)) = open.as_ref().and_then(|open| self.placed(level, open)) {
                batch = with(batch, level, (&key, self.field(None), value));
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

    /// Under which key a frame belongs, and what is written there; nothing if no window asks for it any more.
    fn placed(&self, level: usize, frame: &Frame) -> Option<(String, Vec<u8>)> {
        let (lasts, count) = *LEVELS.get(level)?;
        let age = self.clock.now().since(frame.ended).as_millis() as u64;
        if age > lasts * count {
            return None;
        }
        let ended = unix_millis(self.clock.wall()).saturating_sub(age);
        // By its begin, so that it keeps its place while it grows; but no earlier than it is looked for, where a
        // step came late.
        let lasted = (frame.lasted.as_millis() as u64).min(lasts);
        let key = self.key(level, ended.saturating_sub(lasted) / lasts);
        let stretch = Stretch {
            instance: self.instance,
            from: frame.from,
            until: frame.until,
            lasted: frame.lasted,
            ended: Duration::from_millis(ended),
        };
        Some((key, stretch.encoded(&frame.bytes)))
    }

    /// The field of the frame that begins with this step, or of the one that still grows.
    fn field(&self, from: Option<u64>) -> String {
        match from {
            Some(from) => format!("{:016x}:{from}", self.instance),
            None => format!("{:016x}", self.instance),
        }
    }

    /// What all instances have left of `window`.
    pub(crate) async fn read(&self, window: Window) -> Result<Gathering, StoreError> {
        let wall = unix_millis(self.clock.wall());
        let mut gathering = Gathering::of(window, Duration::from_millis(wall));
        let level = window.level();
        let Some((lasts, count)) = LEVELS.get(level) else {
            return Ok(gathering);
        };
        let (mut batch, last) = (Batch::new(), wall / lasts);
        // One ahead: somebody's clock may be.
        for slot in last.saturating_sub(*count)..=last + 1 {
            batch = batch.command(Command::new("HVALS").key(self.key(level, slot)));
        }
        let mut replies = self.redis.run_all(&batch.bulk()).await?;
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

/// Writes a field of that level, and lets its key go once no window asks for it any more.
fn with(batch: Batch, level: usize, (key, field, value): (&String, String, Vec<u8>)) -> Batch {
    let lives = LEVELS
        .get(level)
        .map_or(0, |(lasts, count)| lasts * (count + 1));
    let set = Command::new("HSET").key(key).arg(field).arg(value);
    let ends = Command::new("PEXPIRE").key(key).arg(lives);
    batch.command(set).command(ends)
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
