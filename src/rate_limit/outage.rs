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
//!
//! **Settling.** Instances come back one after the other, within some hundred milliseconds, and tell their
//! debts as they are asked about a bucket. Whoever came first would find it fuller than it is, and let
//! through a second burst. So for a moment longer nobody gets more than its share, although Redis is asked as
//! well. A debt that is told later still is charged all the same, beyond what the bucket holds if need be,
//! so that in the long run nothing is forgotten. And since what was told first grows back already while others
//! still let through their shares, each tells a little more than it owes: together, what grows back in
//! the half second in which all come back.

use crate::rate_limit::gcra::Limit;
use crate::rate_limit::table::Table;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Tells the bucket of a share from the shared one.
const SHARE: u64 = 0xd6e8_feb8_6659_fd93;

/// Tells the bucket that a share goes on in while debts are told.
const SETTLING: u64 = 0xa076_1d64_78bd_642f;

/// Within which time all instances come back, in ticks: they try at least every half second.
const BACK_WITHIN: u64 = 500_000;

/// How long they are given to tell their debts, in ticks.
const SETTLES_FOR: u64 = 2 * BACK_WITHIN;

/// For how long after Redis came back fewer instances than before are not believed, in ticks: if it has lost
/// its data, it learns of them again one by one, and of those that only announce themselves now and then.
const RECOUNTS_FOR: u64 = 16_000_000;

/// Whether Redis is away, and since when it is back.
#[derive(Debug)]
pub(crate) struct Outage {
    up: AtomicBool,
    back_at: AtomicU64,
    settles_until: AtomicU64,
    /// How many instances count together, this one included.
    instances: AtomicU32,
    /// By how many quotas are divided while Redis is away.
    shares: AtomicU32,
    /// Whether there may be debts: Redis was there before, or something was let through without it.
    owes: AtomicBool,
}

/// What Redis is told of a bucket beside the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) hint: u64,
    pub(crate) debt: u64,
    /// What was used of the share, in its own measure: to be put back if Redis does not answer.
    pub(crate) own: u64,
}

impl Outage {
    /// Redis is away until said otherwise.
    pub(crate) fn new(instances: u32) -> Self {
        Self {
            up: AtomicBool::new(false),
            back_at: AtomicU64::new(0),
            settles_until: AtomicU64::new(0),
            instances: AtomicU32::new(instances),
            shares: AtomicU32::new(instances),
            owes: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Redis is there.
    pub(crate) fn end(&self, now: u64) {
        // The first time nobody owes anything, and a new instance need not wait.
        if self.owes.swap(true, Ordering::Relaxed) {
            let until = now.saturating_add(SETTLES_FOR);
            self.settles_until.store(until, Ordering::Relaxed);
        }
        self.back_at.store(now, Ordering::Relaxed);
        self.up.store(true, Ordering::Release);
    }

    /// Redis is away.
    pub(crate) fn begin(&self) {
        self.up.store(false, Ordering::Release);
    }

    /// Whether instances may not have told their debts yet.
    pub(crate) fn is_settling(&self, now: u64) -> bool {
        now < self.settles_until.load(Ordering::Relaxed)
    }

    /// How many instances count together; at least 1.
    pub(crate) fn instances(&self) -> u32 {
        self.instances.load(Ordering::Relaxed).max(1)
    }

    /// Redis has told how many instances there are.
    pub(crate) fn set_instances(&self, count: u32, now: u64) {
        let count = count.max(1);
        self.instances.store(count, Ordering::Relaxed);
        let back_for = now.saturating_sub(self.back_at.load(Ordering::Relaxed));
        if self.is_up() && back_for >= RECOUNTS_FOR {
            self.shares.store(count, Ordering::Relaxed);
        } else {
            self.shares.fetch_max(count, Ordering::Relaxed);
        }
    }

    fn shares(&self) -> u32 {
        self.shares.load(Ordering::Relaxed).max(1)
    }

    /// The bucket and the limit of this instance's share, as full as the shared bucket is known to be.
    pub(crate) fn share(&self, table: &Table, bucket: (u64, Limit), now: u64) -> (u64, Limit) {
        if !self.owes.load(Ordering::Relaxed) {
            self.owes.store(true, Ordering::Relaxed);
        }
        let (key, limit) = bucket;
        let known = table.ahead(key, now);
        if known > 0 {
            table.raise(key ^ SHARE, now, known);
        }
        (key ^ SHARE, limit.share(self.shares()))
    }

    /// The same share while debts are told: another bucket, as full as its own was.
    pub(crate) fn settling_share(
        &self,
        table: &Table,
        bucket: (u64, Limit),
        now: u64,
    ) -> (u64, Limit) {
        let (key, limit) = bucket;
        let known = table.ahead(key, now).max(table.ahead(key ^ SHARE, now));
        if known > 0 {
            table.raise(key ^ SETTLING, now, known);
        }
        (key ^ SETTLING, limit.share(self.shares()))
    }

    /// What to tell Redis of a bucket: what was used of the share, and for as long after Redis came back as what
    /// was known before may still hold, that as well.
    pub(crate) fn remember(&self, table: &Table, bucket: (u64, Limit), now: u64) -> Memory {
        let (key, limit) = bucket;
        let known = limit.used(table.ahead(key, now));
        let taken = table.take(key ^ SHARE, now);
        if taken > 0 && self.is_settling(now) {
            table.raise(key ^ SETTLING, now, taken);
        }
        let since = now.saturating_sub(self.back_at.load(Ordering::Relaxed));
        let own = limit.used(taken).saturating_sub(known);
        let shares = u64::from(self.shares());
        let grown = own > 0 && shares > 1 && limit.ends_in() == 0 && self.is_settling(now);
        let grown = if grown { BACK_WITHIN } else { 0 };
        Memory {
            hint: if since > limit.lasts() { 0 } else { known },
            debt: own.saturating_add(grown).div_ceil(shares),
            own,
        }
    }

    /// Puts back what [`remember`](Self::remember) took for a question that was not answered, beside what was
    /// used of the share since.
    pub(crate) fn restore(table: &Table, bucket: (u64, Limit), own: u64, now: u64) {
        if own == 0 {
            return;
        }
        let (key, limit) = bucket;
        let known = limit.used(table.ahead(key, now));
        table.change(key ^ SHARE, now, |ahead| {
            limit.ahead_of(limit.used(ahead).max(known).saturating_add(own))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7 << 50 | 7;

    /// What each of four tells of what grows back while they come back.
    const GROWN: u64 = BACK_WITHIN / 4;

    fn take_all(outage: &Outage, table: &Table, limit: Limit, now: u64) -> usize {
        let one = |_: &usize| {
            let (key, share) = outage.share(table, (KEY, limit), now);
            table.charge(key, now, share, 1).is_allow()
        };
        (0..1000).take_while(one).count()
    }

    #[test]
    fn a_share_begins_as_full_as_the_bucket_was_known_to_be() {
        let table = Table::new(16, true, 0);
        let outage = Outage::new(1);
        outage.end(0);
        outage.set_instances(4, 0);
        let limit = Limit::new(10, 100);
        // Redis last said: half of it is gone.
        table.put(KEY, 0, 500);
        outage.begin();
        assert!(!outage.is_up());
        assert_eq!(take_all(&outage, &table, limit, 0), 50 / 4);
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
        assert_eq!((memory.hint, memory.debt), (500, 50 + GROWN));
        let again = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((again.hint, again.debt), (500, 0));
        // It was not answered after all, and meanwhile two more were let through here.
        for _ in 0..2 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            assert!(table.charge(key, 0, share, 1).is_allow());
        }
        Outage::restore(&table, (KEY, limit), memory.own, 0);
        let later = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((later.hint, later.debt), (500, 70 + GROWN));
        // What was known before has drained long since.
        let long_after = outage.remember(&table, (KEY, limit), 5000);
        assert_eq!(long_after, Memory::default());
        // What is let through by itself although Redis is there is owed as well.
        assert_eq!(take_all(&outage, &table, limit, 5000), 25);
        let memory = outage.remember(&table, (KEY, limit), 5000);
        assert_eq!((memory.hint, memory.debt), (0, 250 + GROWN));
    }

    #[test]
    fn a_calendars_count_is_told_as_a_number() {
        let table = Table::new(16, true, 0);
        let outage = Outage::new(2);
        let limit = Limit::window(10).ending(900);
        table.put(KEY, 0, limit.ahead_of(4));
        assert_eq!(take_all(&outage, &table, limit, 0), 3);
        outage.end(0);
        let memory = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((memory.hint, memory.debt), (4, 3));
        for before in 0..2 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            table.charge(key, 0, share, before);
            Outage::restore(&table, (KEY, limit), memory.own, 0);
            let again = outage.remember(&table, (KEY, limit), 0);
            assert_eq!((again.hint, again.debt), (4, 3 + u64::from(before)));
        }
    }

    /// Otherwise the first of the fleet would find an empty bucket, and the debts of the others come late.
    #[test]
    fn while_debts_are_told_nobody_gets_more_than_its_share() {
        let table = Table::new(64, true, 0);
        let outage = Outage::new(4);
        let limit = Limit::new(10, 100);
        outage.end(0);
        assert!(!outage.is_settling(0), "nobody owes anything yet");
        outage.begin();
        assert_eq!(take_all(&outage, &table, limit, 0), 25);
        outage.end(0);
        assert!(outage.is_settling(0));
        // Redis tells that only this one's share is used up.
        for (hint, debt) in [(0, 250 + GROWN), (250, 0)] {
            let (key, share) = outage.settling_share(&table, (KEY, limit), 0);
            assert!(!table.charge(key, 0, share, 1).is_allow());
            let memory = outage.remember(&table, (KEY, limit), 0);
            assert_eq!((memory.hint, memory.debt), (hint, debt));
            table.put(KEY, 0, 250);
        }
        assert!(!outage.is_settling(SETTLES_FOR));
    }

    #[test]
    fn a_server_that_learns_of_the_instances_again_is_not_believed_at_once() {
        let table = Table::new(16, true, 0);
        let limit = Limit::new(10, 100);
        let outage = Outage::new(1);
        outage.set_instances(4, 0);
        outage.end(0);
        outage.begin();
        outage.set_instances(1, 1_000_000);
        outage.end(1_000_000);
        outage.set_instances(2, 2_000_000);
        assert_eq!(outage.share(&table, (KEY, limit), 0).1, limit.share(4));
        outage.set_instances(2, 1_000_000 + RECOUNTS_FOR);
        assert_eq!(outage.share(&table, (KEY, limit), 0).1, limit.share(2));
    }
}
