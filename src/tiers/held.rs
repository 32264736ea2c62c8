//! A value in this process' memory, decoded, with everything that decides whether it may be served.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use quick_cache::Weighter;

use crate::clock::Moment;
use crate::journal::{Checked, Journal, Stamp, Subject, Verdict};
use crate::tiers::key::HotKey;
use crate::tiers::shelf::Shelved;
use crate::tiers::tally::Tally;
use crate::tiers::uses::Uses;

/// A value of a cache, shared and cheap to clone. It is used as the value itself: `report.title`.
pub struct Cached<T>(Arc<Cell<T>>);

pub(crate) struct Cell<T> {
    meta: Meta,
    value: T,
}

/// What a hit reads stands together, as in the HTTP cache's entries.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Meta {
    /// Until when it is served without a second thought.
    plain_until: Moment,
    pub(crate) born: Stamp,
    pub(crate) checked: Checked,
    uses: Uses,
    hits: AtomicU32,
    /// How many hits it had when it was walked past for the last time.
    walked: AtomicU32,
    /// For which reason somebody has taken it on to have it computed anew.
    taken_on: AtomicU8,
    pub(crate) subject: Subject,
    pub(crate) life: Life,
    /// When its computation began, after `born` was read; `None` if that was elsewhere.
    pub(crate) began: Option<Moment>,
    /// What computing it took.
    pub(crate) cost: Duration,
    /// What it takes up.
    pub(crate) bytes: usize,
    /// What of it a fetch from elsewhere would cost, for whoever decides what stays.
    pub(crate) saving: u64,
    /// Where its hits are added up when it goes.
    tally: Arc<Tally>,
    pub(crate) tags: Arc<[Arc<str>]>,
}

/// Until when what may be done with an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) fresh_until: Moment,
    /// From then on it may be computed anew early.
    pub(crate) early_from: Moment,
    /// Its mean lead before its end, when it is: XFetch's `delta * beta`.
    pub(crate) early: Duration,
    /// As far as its end lies behind, it may be served while it is computed anew.
    pub(crate) revalidate: Duration,
    /// And where computing fails.
    pub(crate) error: Duration,
    /// Then it leaves this process' memory.
    pub(crate) hot_until: Moment,
}

impl Life {
    /// Whether an entry that ended at `end` may be served at `now`.
    fn within(grace: Duration, end: Moment, now: Moment) -> bool {
        now < end.plus(grace)
    }

    /// What may be done at `now` with an entry of this life that is in memory, and that somebody may have
    /// `expired` before its end.
    pub(crate) fn state(&self, now: Moment, expired: bool) -> State {
        if now >= self.hot_until {
            return State::Over;
        }
        self.state_anywhere(now, expired)
    }

    /// The same wherever it is: its stay in memory may be over before it begins.
    pub(crate) fn state_anywhere(&self, now: Moment, expired: bool) -> State {
        if now < self.fresh_until && !expired {
            return State::Fresh {
                early: now >= self.early_from,
            };
        }
        let end = if expired {
            self.fresh_until.min(now)
        } else {
            self.fresh_until
        };
        let revalidate = Self::within(self.revalidate, end, now);
        let error = Self::within(self.error, end, now);
        if revalidate || error {
            State::Stale { revalidate, error }
        } else {
            State::Over
        }
    }
}

/// What may be done with an entry that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Fresh {
        /// It is near enough to its end to be computed anew.
        early: bool,
    },
    Stale {
        /// It may be served while it is computed anew.
        revalidate: bool,
        /// It may stand in where computing fails.
        error: bool,
    },
    Over,
}

/// What an entry is made of beside its value.
pub(crate) struct Making {
    pub(crate) born: Stamp,
    pub(crate) subject: Subject,
    pub(crate) life: Life,
    pub(crate) began: Option<Moment>,
    pub(crate) cost: Duration,
    pub(crate) value_bytes: usize,
    pub(crate) saving: u64,
    pub(crate) tally: Arc<Tally>,
    pub(crate) tags: Arc<[Arc<str>]>,
}

/// Why something is computed anew before anybody asks, the better reason last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It ends soon.
    Ending = 1,
    /// It was invalidated.
    Invalidated = 2,
}

impl Meta {
    fn new(making: Making, size: usize) -> Self {
        let Making {
            born,
            subject,
            life,
            began,
            cost,
            value_bytes,
            saving,
            tally,
            tags,
        } = making;
        let tag_bytes: usize = tags.iter().map(|tag| tag.len() + TAG_OVERHEAD).sum();
        let names = size_of_val(subject.names()) + 2 * subject.key().len() + tag_bytes;
        Self {
            plain_until: life.fresh_until.min(life.hot_until).min(life.early_from),
            born,
            checked: Checked::at(born),
            uses: Uses::default(),
            hits: AtomicU32::new(0),
            walked: AtomicU32::new(0),
            taken_on: AtomicU8::new(0),
            bytes: size + names + value_bytes + OVERHEAD,
            subject,
            life,
            began,
            cost,
            saving,
            tally,
            tags,
        }
    }

    /// What the journal says of it at `now`.
    #[inline]
    pub(crate) fn verdict(&self, journal: &Journal, now: Moment) -> Verdict {
        journal.judge(self.born, &self.checked, &self.subject, now)
    }

    /// Whether it is served without a second thought.
    #[inline]
    pub(crate) fn is_plain(&self, journal: &Journal, now: Moment) -> bool {
        now < self.plain_until && self.verdict(journal, now) == Verdict::Fresh
    }

    /// Counts a hit.
    #[inline]
    pub(crate) fn count_hit(&self) {
        // Not an addition: that would make the processors of all threads agree on it.
        let hits = self.hits.load(Ordering::Relaxed);
        self.hits.store(hits.saturating_add(1), Ordering::Relaxed);
    }

    /// Whose hits its hits are.
    pub(crate) fn tally_id(&self) -> usize {
        Tally::id(&self.tally)
    }

    /// How often it was served from memory.
    pub(crate) fn hits(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How often it was served since this was last asked.
    pub(crate) fn new_hits(&self) -> u32 {
        let hits = self.hits();
        hits.saturating_sub(self.walked.swap(hits, Ordering::Relaxed))
    }

    /// Takes it on to have this computed anew. Says whether nobody had, for a reason as good.
    pub(crate) fn take_on(&self, reason: Reason) -> bool {
        let reason = reason as u8;
        self.taken_on.fetch_max(reason, Ordering::Relaxed) < reason
    }
}

impl Drop for Meta {
    fn drop(&mut self) {
        let hits = u64::from(self.hits());
        if hits > 0 {
            self.tally.leave(hits, self.cost);
        }
    }
}

/// A pointer in the table, its shard's bookkeeping, and the allocation's own.
const OVERHEAD: usize = 96;

/// A pointer, a length and two counts beside a tag's text.
const TAG_OVERHEAD: usize = 32;

impl<T> Cached<T> {
    pub(crate) fn new(value: T, making: Making) -> Self {
        let meta = Meta::new(making, size_of::<Cell<T>>());
        Self(Arc::new(Cell { meta, value }))
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// What computing it took, wherever that was.
    #[must_use]
    pub fn cost(&self) -> Duration {
        self.0.meta.cost
    }

    /// Whether both are one and the same value in memory.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// The same for a shelf, without its type.
    pub(crate) fn kept(&self) -> Kept {
        Kept(Arc::<Cell<T>>::clone(&self.0))
    }
}

impl<T> Deref for Cached<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> AsRef<T> for Cached<T> {
    fn as_ref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Cached<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T: serde::Serialize> serde::Serialize for Cached<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.value.serialize(serializer)
    }
}

/// A value of any type.
pub(crate) trait Held: Any + Send + Sync {
    fn meta(&self) -> &Meta;
}

impl<T: Send + Sync + 'static> Held for Cell<T> {
    #[inline]
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// A [`Cached`] whose type is not said.
#[derive(Clone)]
pub(crate) struct Kept(Arc<dyn Held>);

impl Kept {
    #[inline]
    pub(crate) fn meta(&self) -> &Meta {
        self.0.meta()
    }

    /// The value, if it is of this type.
    #[inline]
    pub(crate) fn typed<T: Send + Sync + 'static>(self) -> Option<Cached<T>> {
        let any: Arc<dyn Any + Send + Sync> = self.0;
        any.downcast::<Cell<T>>().ok().map(Cached)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A way to find it as long as anybody has it.
    pub(crate) fn weakly(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> {
        let weak: Weak<dyn Held> = Arc::downgrade(&self.0);
        move || weak.upgrade().map(Self)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.meta().fmt(f)
    }
}

impl Shelved for Kept {
    #[inline]
    fn uses(&self) -> Option<&Uses> {
        Some(&self.0.meta().uses)
    }

    fn saving(&self) -> Option<u64> {
        Some(self.0.meta().saving)
    }
}

/// Values weigh what they take up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByBytes;

impl Weighter<HotKey, Kept> for ByBytes {
    fn weight(&self, _: &HotKey, kept: &Kept) -> u64 {
        kept.meta().bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_goes_through_its_states() {
        let at = |seconds: u64| Moment::default().plus(Duration::from_secs(seconds));
        let life = Life {
            fresh_until: at(10),
            early_from: at(8),
            early: Duration::from_secs(1),
            revalidate: Duration::from_secs(5),
            error: Duration::from_secs(20),
            hot_until: at(25),
        };
        let stale = |revalidate, error| State::Stale { revalidate, error };
        assert_eq!(life.state(at(7), false), State::Fresh { early: false });
        assert_eq!(life.state(at(9), false), State::Fresh { early: true });
        assert_eq!(life.state(at(10), false), stale(true, true));
        assert_eq!(life.state(at(15), false), stale(false, true));
        assert_eq!(
            life.state(at(25), false),
            State::Over,
            "however long its grace is"
        );
        // What somebody has expired is at its end, not beyond it.
        assert_eq!(life.state(at(1), true), stale(true, true));
        assert_eq!(life.state(at(16), true), stale(false, true));
    }
}
