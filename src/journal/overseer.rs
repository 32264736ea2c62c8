//! What whoever checks that instances agree needs of this one: samples of what is appended, and a look into
//! its tiers.

#[cfg(feature = "redis")]
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Moment;
#[cfg(feature = "redis")]
use crate::journal::line::Appended;
use crate::journal::probe::{Answer, Asked, Seen, Tier, Wanted};
use crate::journal::shard::Shard;

/// Knows the tiers, the tap and the questions that are open. One for all shards of a journal.
#[derive(Debug, Default)]
pub(crate) struct Overseer {
    tiers: Mutex<Vec<Weak<dyn Tier>>>,
    tap: OnceLock<Tap>,
    #[cfg(feature = "redis")]
    open: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
}

/// Lets a record through now and then.
#[derive(Debug)]
struct Tap {
    every: Duration,
    /// From when on the next is let through, in nanoseconds.
    due: AtomicU64,
    to: mpsc::Sender<Sample>,
}

/// A record that was appended here.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) shard: usize,
    pub(crate) asked: Asked,
    /// Who has to confirm it, and when that was said; `None` where there is nobody else.
    #[cfg(feature = "redis")]
    pub(crate) appended: Option<(Appended, Moment)>,
}

/// Samples that wait for whoever takes them; more are not taken.
const SAMPLES_WAITING: usize = 8;

impl Overseer {
    pub(crate) fn add(&self, tier: Weak<dyn Tier>) {
        let mut tiers = lock(&self.tiers);
        tiers.retain(|tier| tier.strong_count() > 0);
        tiers.push(tier);
    }

    /// Opens the tap for one record in so much time. `None` if it is open already.
    pub(crate) fn tap(&self, every: Duration) -> Option<mpsc::Receiver<Sample>> {
        let (to, samples) = mpsc::channel(SAMPLES_WAITING);
        let due = AtomicU64::new(0);
        self.tap.set(Tap { every, due, to }).ok()?;
        Some(samples)
    }

    /// A record was appended at `now`. Costs a load where no sample is due.
    pub(crate) fn offer(&self, now: Moment, sample: impl FnOnce() -> Sample) {
        let Some(tap) = self.tap.get() else { return };
        let (due, next) = (tap.due.load(Ordering::Relaxed), now.plus(tap.every));
        if now.as_nanos() < due {
            return;
        }
        let mine =
            tap.due
                .compare_exchange(due, next.as_nanos(), Ordering::Relaxed, Ordering::Relaxed);
        if mine.is_ok() {
            // One that finds no room is not missed.
            let _ = tap.to.try_send(sample());
        }
    }

    /// Looks through the tiers for what these records name.
    pub(crate) async fn look(
        &self,
        (shard, place): (&Shard, (usize, usize)),
        asked: Vec<Asked>,
        instance: u64,
    ) -> Answer {
        let wanted = {
            let mirror = shard.read();
            let heard = |asked: &Asked| mirror.not_before(asked.inc, asked.seq);
            let asked = asked.into_iter().map(|asked| {
                let heard = heard(&asked);
                (asked, heard)
            });
            Wanted::new(asked.collect::<Vec<_>>(), place)
        };
        let mut seen = Seen::default();
        let tiers: Vec<Arc<dyn Tier>> =
            lock(&self.tiers).iter().filter_map(Weak::upgrade).collect();
        for tier in tiers {
            seen.and(tier.probe(&wanted).await);
        }
        // Its word first: what is heard after that only makes its position higher.
        shard.notice_silence();
        let verified = shard.is_verified();
        let at = shard.position();
        Answer {
            instance,
            inc: at.inc,
            last: at.seq,
            verified,
            in_grace: !verified && !shard.grace().is_zero(),
            work: seen.work,
            found: seen.found,
        }
    }
}

#[cfg(feature = "redis")]
impl Overseer {
    /// Waits for the answers to a question, until the guard is dropped.
    pub(crate) fn open(&self, probe: u64) -> Open<'_> {
        let (to, answers) = mpsc::channel(ANSWERS_WAITING);
        lock(&self.open).insert(probe, to);
        Open {
            overseer: self,
            probe,
            answers,
        }
    }

    /// An answer came.
    pub(crate) fn hear(&self, probe: u64, answer: impl FnOnce() -> Option<Answer>) {
        let Some(open) = lock(&self.open).get(&probe).cloned() else {
            return;
        };
        if let Some(answer) = answer() {
            let _ = open.try_send(answer);
        }
    }
}

/// Answers of so many instances wait to be read.
#[cfg(feature = "redis")]
const ANSWERS_WAITING: usize = 256;

/// A question that others answer.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct Open<'a> {
    overseer: &'a Overseer,
    probe: u64,
    pub(crate) answers: mpsc::Receiver<Answer>,
}

#[cfg(feature = "redis")]
impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.overseer.open).remove(&self.probe);
    }
}

/// Lists and a table, none of which a panic leaves half-changed.
fn lock<T: ?Sized>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
