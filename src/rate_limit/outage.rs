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
//! without its data would otherwise begin with full buckets. Until the answer is there the share stays as it
//! is: a Redis that refuses is asked again and again, and whoever counts alone meanwhile must see all that was
//! used. What was used is divided by the number of instances that it was counted with, whatever their
//! number has become since.
//!
//! **Settling.** Instances come back one after the other, within some hundred milliseconds, and tell their
//! debts as they are asked about a bucket. Whoever came first would find it fuller than it is, and let
//! through a second burst. So for a moment longer nobody gets more than its share, although Redis is asked as
//! well. A debt that is told later still is charged all the same, beyond what the bucket holds if need be,
//! so that in the long run nothing is forgotten. And since what was told first grows back already while others
//! still let through their shares, each tells a little more than it owes: together, what grows back in
//! the half second in which all come back.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::rate_limit::gcra::Limit;
use crate::rate_limit::table::Table;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

/// Tells the bucket of a share from the shared one.
const SHARE: u64 = 0xd6e8_feb8_6659_fd93;

/// Tells shares of different sizes apart; an odd number without pattern.
const SIZED: u64 = 0x9fb2_1c65_1e98_df25;

/// Numbers of instances that debts may be of which were not told yet. Those of former ones are forgotten.
const COUNTS: usize = 4;

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
    /// By how many they were divided when something was let through without Redis: the last first, 0 for none.
    ran_with: [AtomicU32; COUNTS],
    /// Whether there may be debts: Redis was there before, or something was let through without it.
    owes: AtomicBool,
    /// The buckets whose debts Redis is being told, each by one question.
    telling: Mutex<HashSet<u64, RandomState>>,
}

/// What Redis is told of a bucket beside the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) hint: u64,
    pub(crate) debt: u64,
    /// What was used of the share, in its own measure. If there is any, this question tells it, which must end
    /// in [`Outage::landed`] or [`Outage::untold`].
    pub(crate) own: u64,
    /// By how many the quota was divided then.
    pub(crate) count: u32,
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
            ran_with: [instances.max(1), 0, 0, 0].map(AtomicU32::new),
            owes: AtomicBool::new(false),
            telling: Mutex::default(),
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
        let count = self.shares();
        self.run_with(count);
        let own = share_of(key, count);
        // Not by itself: it may have been told and taken off since it was looked at.
        let known = self.most_used(table, (key, Some(count)), now);
        if known > 0 {
            table.raise(own, now, known);
        }
        (own, limit.share(count))
    }

    /// The same share while debts are told: another bucket, as full as its own was.
    pub(crate) fn settling_share(
        &self,
        table: &Table,
        bucket: (u64, Limit),
        now: u64,
    ) -> (u64, Limit) {
        let (key, limit) = bucket;
        let known = self.most_used(table, (key, None), now);
        if known > 0 {
            table.raise(key ^ SETTLING, now, known);
        }
        (key ^ SETTLING, limit.share(self.shares()))
    }

    /// What to tell Redis of a bucket: what was used of the share, unless another question tells it, and for as
    /// long after Redis came back as what was known before may still hold, that as well.
    pub(crate) fn remember(&self, table: &Table, bucket: (u64, Limit), now: u64) -> Memory {
        let (key, limit) = bucket;
        let since = now.saturating_sub(self.back_at.load(Ordering::Relaxed));
        let known = limit.used(table.ahead(key, now));
        let mut memory = Memory {
            hint: if since > limit.lasts() { 0 } else { known },
            ..Memory::default()
        };
        let shares = |count| table.ahead(share_of(key, count), now);
        let most = self.counts().map(shares).max().unwrap_or(0);
        if most == 0 {
            return memory;
        }
        let settling = self.is_settling(now);
        if settling {
            table.raise(key ^ SETTLING, now, most);
        }
        let mut telling = self.telling();
        if telling.contains(&key) {
            return memory;
        }
        // Only now, or what was told a moment ago would be told again. One debt at a time, the oldest first,
        // and each without what was used before it.
        let mut base = known;
        for count in self.counts().rev() {
            let used = limit.used(shares(count));
            let own = used.saturating_sub(base);
            if own > 0 {
                telling.insert(key);
                let grown = count > 1 && limit.ends_in() == 0 && settling;
                let grown = if grown { BACK_WITHIN } else { 0 };
                let debt = own.saturating_add(grown).div_ceil(u64::from(count));
                (memory.debt, memory.own, memory.count) = (debt, own, count);
                break;
            }
            base = base.max(used);
        }
        memory
    }

    /// Notes that Redis has answered a question that carried `memory`, and that the bucket's time is about to be
    /// put so far `ahead`. What was told is owed no longer; what was used of shares since still is.
    pub(crate) fn landed(
        &self,
        table: &Table,
        bucket: (u64, Limit),
        (memory, ahead): (&Memory, u64),
        now: u64,
    ) {
        let (key, limit) = bucket;
        let mut before = limit.used(table.ahead(key, now));
        let mut after = limit.used(ahead);
        for count in self.counts().rev() {
            let share = share_of(key, count);
            let used = limit.used(table.ahead(share, now));
            if used == 0 {
                continue;
            }
            let told = if count == memory.count { memory.own } else { 0 };
            let left = |ahead| {
                let owed = limit.used(ahead).saturating_sub(before);
                match owed.saturating_sub(told) {
                    0 => 0,
                    owed => limit.ahead_of(after.saturating_add(owed)),
                }
            };
            table.lower(share, now, left);
            before = before.max(used);
            after = after.max(limit.used(table.ahead(share, now)));
        }
        self.untold(key, memory);
    }

    /// Notes that a question that carried `memory` was not answered: it may be told by another.
    pub(crate) fn untold(&self, key: u64, memory: &Memory) {
        if memory.own > 0 {
            self.telling().remove(&key);
        }
    }

    /// Moves what was let through without Redis to the bucket that takes the place of another one.
    pub(crate) fn carry(&self, table: &Table, old: (u64, Limit), new: (u64, Limit), now: u64) {
        let carried = |ahead| new.1.carry(old.1, ahead);
        for count in self.counts() {
            let (from, to) = (share_of(old.0, count), share_of(new.0, count));
            table.hand_over(from, to, now, carried);
        }
        table.hand_over(old.0 ^ SETTLING, new.0 ^ SETTLING, now, carried);
    }

    /// How far ahead the bucket lies, or of its shares the one that was used most, but for one of so many.
    fn most_used(&self, table: &Table, (key, but): (u64, Option<u32>), now: u64) -> u64 {
        let counts = self.counts().filter(|count| Some(*count) != but);
        let shares = counts.map(|count| share_of(key, count));
        let all = shares.chain([key]).map(|key| table.ahead(key, now));
        all.max().unwrap_or(0)
    }

    /// By how many quotas were divided when something was let through: the last first.
    fn counts(&self) -> impl DoubleEndedIterator<Item = u32> {
        let counts = self.ran_with.iter();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        counts.filter(|count| *count > 0)
    }

    /// Notes by how many they are divided.
    fn run_with(&self, count: u32) {
        let last = self.ran_with.first();
        if last.is_none_or(|last| last.load(Ordering::Relaxed) == count) {
            return;
        }
        // One at a time.
        let _turn = self.telling();
        let mut next = count;
        for place in &self.ran_with {
            next = place.swap(next, Ordering::Relaxed);
            if next == count || next == 0 {
                break;
            }
        }
    }

    fn telling(&self) -> MutexGuard<'_, HashSet<u64, RandomState>> {
        // Nothing in here panics halfway.
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bucket of a share, of so many.
const fn share_of(key: u64, count: u32) -> u64 {
    key ^ SHARE ^ (count as u64).wrapping_mul(SIZED)
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

    /// A question that is answered: the bucket's time lies so far ahead then.
    fn tell(outage: &Outage, table: &Table, (limit, ahead): (Limit, u64), now: u64) -> (u64, u64) {
        let memory = outage.remember(table, (KEY, limit), now);
        outage.landed(table, (KEY, limit), (&memory, ahead), now);
        table.put(KEY, now, ahead);
        (memory.hint, memory.debt)
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
        // Another question goes with it.
        let again = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((again.hint, again.debt), (500, 0));
        outage.untold(KEY, &again);
        let again = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((again.hint, again.debt), (500, 0));
        // It was not answered after all, and meanwhile two more were let through here.
        for _ in 0..2 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            assert!(table.charge(key, 0, share, 1).is_allow());
        }
        outage.untold(KEY, &memory);
        let memory = outage.remember(&table, (KEY, limit), 0);
        assert_eq!((memory.hint, memory.debt), (500, 70 + GROWN));
        // Now it is, and meanwhile another one was let through, and others were elsewhere.
        let (key, share) = outage.share(&table, (KEY, limit), 0);
        assert!(table.charge(key, 0, share, 1).is_allow());
        outage.landed(&table, (KEY, limit), (&memory, 640), 0);
        table.put(KEY, 0, 640);
        assert_eq!(tell(&outage, &table, (limit, 640), 0), (640, 10 + GROWN));
        assert_eq!(tell(&outage, &table, (limit, 640), 0), (640, 0));
        // What was known before has drained long since.
        let long_after = outage.remember(&table, (KEY, limit), 5000);
        assert_eq!(long_after, Memory::default());
        // What is let through by itself although Redis is there is owed as well.
        assert_eq!(take_all(&outage, &table, limit, 5000), 25);
        assert_eq!(tell(&outage, &table, (limit, 250), 5000), (0, 250 + GROWN));
    }

    /// A Redis that refuses is asked again and again, by others at the same time.
    #[test]
    fn who_counts_alone_while_a_question_is_under_way_sees_what_was_used() {
        let table = Table::new(64, true, 0);
        let outage = Outage::new(4);
        let limit = Limit::new(10, 100);
        outage.end(0);
        let mut passed = 0;
        for _ in 0..100 {
            let memory = outage.remember(&table, (KEY, limit), 0);
            passed += take_all(&outage, &table, limit, 0);
            outage.untold(KEY, &memory);
        }
        assert_eq!(passed, 25);
    }

    #[test]
    fn debts_are_divided_by_the_number_of_instances_that_they_were_made_with() {
        let table = Table::new(64, true, 0);
        let outage = Outage::new(1);
        let limit = Limit::new(10, 100);
        // It came up without Redis, and knew of nobody else.
        for _ in 0..40 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            assert!(table.charge(key, 0, share, 1).is_allow());
        }
        outage.set_instances(4, 0);
        outage.end(0);
        // Redis goes away again before it could be told.
        outage.begin();
        assert_eq!(take_all(&outage, &table, limit, 0), 60 / 4);
        outage.set_instances(10, 0);
        outage.end(0);
        assert_eq!(tell(&outage, &table, (limit, 400), 0), (0, 400));
        assert_eq!(tell(&outage, &table, (limit, 550), 0), (400, 150 + GROWN));
        assert_eq!(tell(&outage, &table, (limit, 550), 0), (550, 0));
    }

    #[test]
    fn a_calendars_count_is_told_as_a_number() {
        let table = Table::new(16, true, 0);
        let outage = Outage::new(2);
        let limit = Limit::window(10).ending(900);
        table.put(KEY, 0, limit.ahead_of(4));
        assert_eq!(take_all(&outage, &table, limit, 0), 3);
        outage.end(0);
        for more in 0..2 {
            let (key, share) = outage.share(&table, (KEY, limit), 0);
            table.debit(key, 0, share, more);
            let memory = outage.remember(&table, (KEY, limit), 0);
            assert_eq!((memory.hint, memory.debt), (4, 3 + u64::from(more)));
            outage.untold(KEY, &memory);
        }
        let ahead = limit.ahead_of(8);
        assert_eq!(tell(&outage, &table, (limit, ahead), 0), (4, 4));
        assert_eq!(tell(&outage, &table, (limit, ahead), 0), (8, 0));
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
            assert_eq!(tell(&outage, &table, (limit, 250), 0), (hint, debt));
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
