//! What is let through while Redis is away, and how Redis hears of it afterwards.
//!
//! Each instance then counts by itself, in the same table, with its share of every quota: one part in as
//! many as there were instances. Its bucket begins as full as the shared one was when last heard of, so that
//! an outage is no fresh start; and since all shares together let through what the quota lets through, it is
//! no way around the quota either. (A share is at least one request, which matters for a quota smaller than
//! the fleet.)
//!
//! When Redis is back, the first question about each bucket carries what was used of the share meanwhile, as
//! a debt, and how far ahead the bucket's time was known to lie, as a hint: a server that was restarted
//! without its data would otherwise begin with full buckets.

use crate::rate_limit::gcra::Limit;
use crate::rate_limit::table::Table;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Tells the bucket of a share from the shared one.
const SHARE: u64 = 0xd6e8_feb8_6659_fd93;

/// Whether Redis is away, and since when it is back.
#[derive(Debug)]
pub(crate) struct Outage {
    up: AtomicBool,
    back_at: AtomicU64,
    /// How many instances count together, this one included.
    instances: AtomicU32,
    /// How many there were when shares were last dealt.
    shares: AtomicU32,
}

/// What Redis is told of a bucket beside the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) hint: u64,
    pub(crate) debt: u64,
    /// What the share's bucket held, to be put back if Redis does not answer.
    pub(crate) taken: u64,
}

impl Outage {
    /// Redis is away until said otherwise.
    pub(crate) fn new(instances: u32) -> Self {
        Self {
            up: AtomicBool::new(false),
            back_at: AtomicU64::new(0),
            instances: AtomicU32::new(instances),
            shares: AtomicU32::new(instances),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Redis is there.
    pub(crate) fn end(&self, now: u64) {
        self.back_at.fetch_max(now, Ordering::Relaxed);
        self.up.store(true, Ordering::Release);
    }

    /// Redis is away.
    pub(crate) fn begin(&self) {
        self.up.store(false, Ordering::Release);
    }

    /// How many instances count together; at least 1.
    pub(crate) fn instances(&self) -> u32 {
        self.instances.load(Ordering::Relaxed).max(1)
    }

    /// Only told while Redis is there: shares that were dealt stay as they are until it is back.
    pub(crate) fn set_instances(&self, count: u32) {
        self.instances.store(count.max(1), Ordering::Relaxed);
        self.shares.store(count.max(1), Ordering::Relaxed);
    }

    /// The bucket and the limit of this instance's share, as full as the shared bucket is known to be.
    pub(crate) fn share(&self, table: &Table, bucket: (u64, Limit), now: u64) -> (u64, Limit) {
        let (key, limit) = bucket;
        let known = table.ahead(key, now);
        if known > 0 {
            table.raise(key ^ SHARE, now, known);
        }
        // Also where Redis is there and did not answer: it must hear of this.
        self.back_at.fetch_max(now, Ordering::Relaxed);
        (
            key ^ SHARE,
            limit.share(self.shares.load(Ordering::Relaxed)),
        )
    }

    /// What to tell Redis of a bucket: something only for as long after it came back as what was known before
    /// may still hold.
    pub(crate) fn remember(&self, table: &Table, bucket: (u64, Limit), now: u64) -> Memory {
        let since = now.saturating_sub(self.back_at.load(Ordering::Relaxed));
        let (key, limit) = bucket;
        if since > limit.lasts() {
            return Memory::default();
        }
        let hint = limit.used(table.ahead(key, now));
        let taken = table.take(key ^ SHARE, now);
        let shares = u64::from(self.shares.load(Ordering::Relaxed).max(1));
        let debt = limit.used(taken).saturating_sub(hint).div_ceil(shares);
        Memory { hint, debt, taken }
    }

    /// Puts back what [`remember`](Self::remember) took for a question that was not answered.
    pub(crate) fn restore(table: &Table, key: u64, taken: u64, now: u64) {
        if taken > 0 {
            table.raise(key ^ SHARE, now, taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7 << 50 | 7;

    #[test]
    fn a_share_begins_as_full_as_the_bucket_was_known_to_be() {
        let table = Table::new(16, true, 0);
        let outage = Outage::new(1);
        outage.end(0);
        outage.set_instances(4);
        let limit = Limit::new(10, 100);
        // Redis last said: half of it is gone.
        table.put(KEY, 0, 500);
        outage.begin();
        assert!(!outage.is_up());
        let passed = (0..100)
            .filter(|_| {
                let (key, share) = outage.share(&table, (KEY, limit), 0);
                table.charge(key, 0, share, 1).is_allow()
            })
            .count();
        assert_eq!(passed, 50 / 4);
    }

    #[test]
    fn redis_is_told_what_was_used_meanwhile_and_once_only() {
        let table = Table::new(16, true, 0);
        let outage = Outage::new(4);
        let limit = Limit::new(10, 100);
        table.put(KEY, 0, 500);
        for _ in 0..5 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            assert!(table.charge(key, 0, share, 1).is_allow());
        }
        outage.end(0);
        let memory = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((memory.hint, memory.debt), (500, 50));
        let again = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((again.hint, again.debt), (500, 0));
        // It was not answered after all.
        Outage::restore(&table, KEY, memory.taken, 100);
        let later = outage.remember(&table, (KEY, limit), 200);
        assert_eq!(
            (later.hint, later.debt),
            (300, 75),
            "restored as if it had not drained for 100"
        );
        // What was known before has drained long since.
        let long_after = outage.remember(&table, (KEY, limit), 5000);
        assert_eq!(long_after, Memory::default());
    }

    #[test]
    fn a_calendars_count_is_told_as_a_number() {
        let table = Table::new(16, true, 0);
        let outage = Outage::new(2);
        let limit = Limit::window(10).ending(900);
        table.put(KEY, 0, limit.ahead_of(4));
        let mut passed = 0;
        for _ in 0..10 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            passed += u64::from(table.charge(key, 0, share, 1).is_allow());
        }
        assert_eq!(passed, 3);
        outage.end(0);
        let memory = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((memory.hint, memory.debt), (4, 3));
    }
}
