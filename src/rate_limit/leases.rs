//! Tokens taken from Redis in advance, and used up here without asking.
//!
//! Each lease has its own end, as `shared.rs` tells: a token of it may be used while there are as many of
//! its intervals left before that end. So a lease lapses as the bucket grows full, and what is held never
//! adds up with what the bucket holds to more than the quota lets through at that moment.
//!
//! How many tokens are taken follows how fast they go: as many as were used in a second, never more than
//! what remains divided by twice the number of instances, and none for a key that is asked for seldom.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use crate::rate_limit::gcra::Limit;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; enough that threads hardly ever meet at one.
const SHARDS: usize = 16;

/// For how long a lease should last at the rate at which it is used, in ticks.
const SPAN: u64 = 1_000_000;

/// The shortest time from which a rate is read, in ticks: below, it would be noise.
const SHORTEST: u64 = 10_000;

/// The most tokens that are held for a key.
const TOKENS_MAX: u64 = 100_000;

/// As many instances are reckoned with at least, since one that has just come is heard of some seconds later.
const INSTANCES_MIN: u32 = 4;

/// Into so many parts all instances together divide what may be lost to those that stop asking while they hold
/// tokens: each holds a lease and a half at most, which makes a twentieth.
const PARTS: u64 = 30;

/// What grows back in this time counts along with what the bucket holds, in ticks: what is lost of a quota that
/// is back in a moment is lost for a moment.
const SOON: u64 = 10_000_000;

/// The most tokens that one of so many instances may take of a bucket at a time, if so many remain.
pub(crate) fn fair(limit: Limit, remaining: u32, instances: u32) -> u32 {
    let instances = instances.max(INSTANCES_MIN);
    let soon = match limit.ends_in() {
        0 => SOON,
        // Of a window of the calendar nothing grows back.
        _ => 0,
    };
    let all = limit.fill().saturating_add(soon) / limit.interval();
    let part = all / (PARTS * u64::from(instances));
    let part = u32::try_from(part).unwrap_or(u32::MAX);
    // Less and less towards the end, down to one.
    part.max(1).min(remaining / (2 * instances))
}

/// The leases of one instance, by bucket.
#[derive(Debug)]
pub(crate) struct Leases {
    shards: Box<[Mutex<Shard>]>,
    keys_max: usize,
}

type Shard = HashMap<u64, Held, RandomState>;

/// Leases of one bucket that are not used up, at most; they are asked for one after the other.
const LEASES_MAX: usize = 4;

/// What is held of one bucket.
#[derive(Debug, Default)]
struct Held {
    leases: Vec<Lease>,
    /// How many tokens there were when more came the last time.
    full: u32,
    /// How many tokens were asked for since `since`, by which the next lease is measured.
    used: u64,
    since: u64,
    /// Tokens used in a `SPAN`, by the leases so far.
    pace: u64,
    /// Whether more are on their way.
    asking: bool,
    /// Whether nobody has come since the last look.
    idle: bool,
}

/// Tokens that were taken together.
#[derive(Clone, Copy, Debug)]
struct Lease {
    taken: u32,
    left: u32,
    /// When the last of them lapses, in ticks.
    end: u64,
    /// In what time one of them lapses, in ticks.
    interval: u64,
}

/// What became of asking for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They were there, and so many are left.
    Held { left: u32 },
    /// They were there, and more should be taken soon.
    Low { left: u32 },
    /// They were not.
    Missing,
}

impl Leases {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            keys_max: keys_max.div_ceil(SHARDS).max(1),
        }
    }

    /// Takes so many tokens of what is held for the bucket `key`. Says as well when the lease ends that they
    /// were taken from, of several the first.
    pub(crate) fn take(&self, key: u64, now: u64, cost: u32) -> (Taken, u64) {
        const NOTHING: (Taken, u64) = (Taken::Missing, 0);
        let Some(mut shard) = self.shard(key) else {
            return NOTHING;
        };
        let full = shard.len() >= self.keys_max;
        let held = match shard.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return NOTHING,
            Entry::Vacant(entry) => entry.insert(Held {
                since: now,
                ..Held::default()
            }),
        };
        held.take(now, cost)
    }

    /// How many tokens should be taken in advance when Redis is asked about the bucket. Only one question
    /// at a time takes any: that which was begun for it, and else the first one that comes. It must
    /// [`land`](Self::land) or [`fail`](Self::fail).
    pub(crate) fn want(&self, key: u64, now: u64, begun: bool) -> Option<u32> {
        let mut shard = self.shard(key)?;
        let held = shard.get_mut(&key)?;
        if held.asking && !begun {
            return None;
        }
        let want = held.want(now);
        held.asking = begun || want > 0;
        held.asking.then_some(want)
    }

    /// Notes that Redis has answered a question that took none.
    pub(crate) fn pace(&self, key: u64, now: u64) {
        self.with(key, |held| held.pace(now));
    }

    /// Puts tokens back that were taken for a request which did not pass, or does not count, from a lease that
    /// ends then. Where that has lapsed, so have they: they are nobody's.
    pub(crate) fn put_back(&self, key: u64, tokens: u32, end: u64) {
        self.with(key, |held| held.put_back(tokens, end));
    }

    /// Notes what Redis has answered.
    pub(crate) fn land(&self, key: u64, now: u64, landed: Landed) {
        self.with(key, |held| held.land(now, landed));
    }

    /// Notes that Redis did not answer.
    pub(crate) fn fail(&self, key: u64) {
        self.with(key, |held| held.asking = false);
    }

    /// Drops what is held of a bucket.
    pub(crate) fn drop_all(&self, key: u64) {
        self.with(key, |held| held.leases.clear());
    }

    /// Forgets the buckets that nobody has asked for since the last time and of which nothing is held.
    pub(crate) fn sweep(&self, now: u64) {
        for shard in &self.shards {
            lock(shard).retain(|_, held| {
                let idle = std::mem::replace(&mut held.idle, true);
                !idle || held.asking || held.usable(now) > 0
            });
        }
    }

    fn shard(&self, key: u64) -> Option<MutexGuard<'_, Shard>> {
        let at = (key >> 32) as usize % SHARDS;
        self.shards.get(at).map(lock)
    }

    fn with(&self, key: u64, change: impl FnOnce(&mut Held)) {
        if let Some(mut shard) = self.shard(key)
            && let Some(held) = shard.get_mut(&key)
        {
            change(held);
        }
    }
}

/// What Redis has answered about a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landed {
    /// When it was asked, in ticks. Times count from then, so that the way back shortens them.
    pub(crate) asked_at: u64,
    /// How far ahead the bucket's time lay.
    pub(crate) ahead: u64,
    /// In what time one token grows back, in ticks; 1 of a calendar's, none of which lapse before its end.
    pub(crate) interval: u64,
    pub(crate) tokens: u32,
}

impl Held {
    fn take(&mut self, now: u64, cost: u32) -> (Taken, u64) {
        self.idle = false;
        self.used = self.used.saturating_add(u64::from(cost));
        let usable = self.usable(now);
        // What costs nothing passes as well only while there is something left.
        if usable < cost.max(1) {
            return (Taken::Missing, 0);
        }
        let left = usable - cost;
        // From the one that ends first.
        let (mut due, mut end) = (cost, None);
        for lease in &mut self.leases {
            let taken = lease.usable(now).min(due);
            if taken > 0 {
                end = end.or(Some(lease.end));
            }
            lease.left = lease.usable(now) - taken;
            due -= taken;
        }
        let end = end.unwrap_or(now);
        if left >= self.full.div_ceil(2) || self.asking {
            return (Taken::Held { left }, end);
        }
        self.asking = true;
        (Taken::Low { left }, end)
    }

    fn put_back(&mut self, tokens: u32, end: u64) {
        // Tokens of two leases may be exchanged while both last, not afterwards: what has lapsed has grown
        // back in the bucket, and somebody else has it.
        let from = self.leases.iter().position(|lease| lease.end == end);
        let Some(from) = from else {
            return;
        };
        let mut due = tokens;
        for lease in self.leases.iter_mut().skip(from) {
            // No lease holds more than were taken with it, or they would lapse too late.
            let back = (lease.taken - lease.left).min(due);
            lease.left += back;
            due -= back;
        }
    }

    fn land(&mut self, now: u64, landed: Landed) {
        self.asking = false;
        // Also those that are used up, for what may be put back.
        self.leases.retain(|lease| lease.lasting(now) > 0);
        if landed.tokens > 0 {
            if self.leases.len() >= LEASES_MAX {
                self.leases.remove(0);
            }
            self.leases.push(Lease {
                taken: landed.tokens,
                left: landed.tokens,
                end: landed.asked_at.saturating_add(landed.ahead),
                interval: landed.interval.max(1),
            });
        }
        self.full = self.usable(now);
        self.pace(now);
    }

    fn pace(&mut self, now: u64) {
        if now.saturating_sub(self.since) >= SHORTEST {
            self.pace = u64::midpoint(self.pace, self.rate(now));
            self.used = 0;
            self.since = now;
        }
    }

    /// How many tokens have not lapsed.
    fn usable(&self, now: u64) -> u32 {
        let usable = self.leases.iter().map(|lease| lease.usable(now));
        usable.fold(0, u32::saturating_add)
    }

    /// As many as go in a `SPAN`; none before that can be told.
    fn want(&self, now: u64) -> u32 {
        let want = self.rate(now).max(self.pace / 2).min(TOKENS_MAX);
        // One alone would save nothing.
        u32::try_from(want)
            .ok()
            .filter(|want| *want > 1)
            .unwrap_or(0)
    }

    fn rate(&self, now: u64) -> u64 {
        if self.used <= 1 {
            return 0;
        }
        let took = now.saturating_sub(self.since).max(SHORTEST);
        self.used.saturating_mul(SPAN) / took
    }
}

impl Lease {
    fn usable(&self, now: u64) -> u32 {
        self.left.min(self.lasting(now))
    }

    /// How many of its intervals have not passed.
    fn lasting(&self, now: u64) -> u32 {
        let lasting = self.end.saturating_sub(now) / self.interval;
        u32::try_from(lasting).unwrap_or(u32::MAX)
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Every change is one of whole fields; none can be left half-done by a panic.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn take(leases: &Leases, key: u64, now: u64, cost: u32) -> Taken {
        leases.take(key, now, cost).0
    }

    fn land(leases: &Leases, now: u64, ahead: u64, tokens: u32) {
        let landed = Landed {
            asked_at: now,
            ahead,
            interval: 1000,
            tokens,
        };
        leases.land(7, now, landed);
    }

    #[test]
    fn what_is_held_is_used_up_and_more_is_asked_for_once_in_time() {
        let leases = Leases::new(16);
        assert_eq!(take(&leases, 7, 0, 1), Taken::Missing);
        land(&leases, 0, 1000, 0);
        for at in 1..40 {
            let missing = take(&leases, 7, at * 1000, 1);
            assert_eq!(missing, Taken::Missing);
        }
        // 41 in 40 ms are a thousand a second.
        assert_eq!(take(&leases, 7, 40_000, 1), Taken::Missing);
        assert_eq!(leases.want(7, 40_000, false), Some(1025));
        land(&leases, 40_000, 900_000, 10);
        let taken: Vec<Taken> = (0..11).map(|_| take(&leases, 7, 41_000, 1)).collect();
        let held = |left| Taken::Held { left };
        assert_eq!(
            taken[..6],
            [9, 8, 7, 6, 5, 4].map(|left| match left {
                4 => Taken::Low { left },
                left => held(left),
            })
        );
        assert_eq!(taken[6..10], [3, 2, 1, 0].map(held));
        assert_eq!(taken[10], Taken::Missing);
        // More are on their way already; whoever fetches them takes what is wanted now.
        assert_eq!(leases.want(7, 41_000, false), None);
        assert!(leases.want(7, 41_000, true) >= Some(512));
        leases.put_back(7, 1, 940_000);
        assert_eq!(take(&leases, 7, 41_000, 0), Taken::Held { left: 1 });
        assert_eq!(take(&leases, 7, 41_000, 1), held(0));
        assert_eq!(take(&leases, 7, 41_000, 0), Taken::Missing);
    }

    #[test]
    fn a_lease_lapses_as_the_bucket_grows_full() {
        let leases = Leases::new(16);
        let _ = take(&leases, 7, 0, 1);
        land(&leases, 0, 8000, 8);
        assert_eq!(take(&leases, 7, 0, 1), Taken::Held { left: 7 });
        // Four of eight are left after 4 ms, of which this is one.
        for _ in 0..4 {
            assert_ne!(take(&leases, 7, 4000, 1), Taken::Missing);
        }
        assert_eq!(take(&leases, 7, 4000, 1), Taken::Missing);
    }

    #[test]
    fn who_comes_seldom_is_lent_nothing() {
        let leases = Leases::new(16);
        for at in 0..10 {
            let now = at * 60 * SECOND;
            assert_eq!(take(&leases, 7, now, 1), Taken::Missing);
            assert_eq!(leases.want(7, now, false), None);
            land(&leases, now, 1000, 0);
        }
    }

    /// Two instances: what each holds lapses so that all together never hold more than the bucket lacks.
    #[test]
    fn tokens_lapse_by_the_lease_that_they_came_with() {
        let (here, there) = (Leases::new(16), Leases::new(16));
        let _ = (take(&here, 7, 0, 1), take(&there, 7, 0, 1));
        land(&here, 0, 10_000, 10);
        land(&there, 0, 20_000, 10);
        land(&here, 0, 30_000, 10);
        let rest = |leases: &Leases, now| {
            let taken = (0..).take_while(|_| take(leases, 7, now, 1) != Taken::Missing);
            taken.count()
        };
        // After 15 ms the bucket lacks 15 tokens.
        assert_eq!((rest(&here, 15_000), rest(&there, 15_000)), (10, 5));
    }

    #[test]
    fn what_is_put_back_goes_where_it_came_from() {
        let leases = Leases::new(16);
        let _ = take(&leases, 7, 0, 1);
        land(&leases, 0, 8000, 8);
        leases.put_back(7, 5, 8000);
        assert_eq!(take(&leases, 7, 0, 3), Taken::Held { left: 5 });
        leases.put_back(7, 9, 8000);
        assert_eq!(take(&leases, 7, 0, 1), Taken::Held { left: 7 });
    }

    /// It has grown back in the bucket, where somebody else has it.
    #[test]
    fn what_has_lapsed_meanwhile_is_not_put_back_to_another_lease() {
        let leases = Leases::new(16);
        let _ = take(&leases, 7, 0, 1);
        land(&leases, 0, 8000, 8);
        let (_, end) = leases.take(7, 0, 8);
        assert_eq!(end, 8000);
        // A second lease; the tokens of the first are not lapsed yet, but for three.
        land(&leases, 0, 90_000, 40);
        let (_, second) = leases.take(7, 3000, 4);
        assert_eq!(second, 90_000);
        leases.put_back(7, 8, end);
        assert_eq!(take(&leases, 7, 3000, 0), Taken::Held { left: 41 });
        // The first lapses, and is forgotten when a third one comes.
        land(&leases, 9000, 91_000, 0);
        let (_, third) = leases.take(7, 9000, 20);
        assert_eq!(third, 90_000);
        leases.put_back(7, 8, end);
        assert_eq!(take(&leases, 7, 9000, 0), Taken::Held { left: 16 });
    }

    #[test]
    fn what_nobody_uses_is_kept_until_it_has_lapsed() {
        let leases = Leases::new(16);
        let _ = take(&leases, 7, 0, 1);
        land(&leases, 0, 100_000, 50);
        leases.sweep(1000);
        leases.sweep(2000);
        assert_eq!(take(&leases, 7, 2000, 1), Taken::Held { left: 49 });
        leases.sweep(200_000);
        leases.sweep(200_000);
        assert!(leases.shards.iter().all(|shard| lock(shard).is_empty()));
    }

    #[test]
    fn a_flood_of_keys_is_not_kept() {
        let leases = Leases::new(64);
        for key in 0..100_000_u64 {
            let _ = take(&leases, key << 30, 0, 1);
        }
        let kept: usize = leases.shards.iter().map(|shard| lock(shard).len()).sum();
        assert!(kept <= 64, "{kept}");
    }
}
