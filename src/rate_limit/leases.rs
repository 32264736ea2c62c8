//! Tokens taken from Redis in advance, and used up here without asking.
//!
//! A lease never lets more through than the quota: what is held was charged in Redis before, and it lapses
//! as the bucket there grows full. `usable = min(left, ahead / interval)`, where `ahead` is how far the
//! bucket's time lay ahead when the tokens were taken, less the time since. Why that is enough: let the
//! instances have taken their tokens one after the other. The first may use no more than the bucket then
//! lacked of being full; and if those before it may use no more than the bucket lacked, then so may they and
//! the next one together, because its own tokens were charged on top. So the tokens in the bucket and all
//! those held are never more than it holds when it is full, which is what a bucket without leases has to
//! give at that moment. (Where Redis loses its data, what is held stays charged nowhere; see `hint`.)
//!
//! How many are taken follows how fast they go: as many as were used in a second, never more than what
//! remains divided by twice the number of instances, and none for a key that is asked for seldom. A lease
//! that nobody has used for a while is given back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::rate_limit::shared::Part;

/// Locks; enough that threads hardly ever meet at one.
const SHARDS: usize = 16;

/// For how long a lease should last at the rate at which it is used, in ticks.
const SPAN: u64 = 1_000_000;

/// The shortest time from which a rate is read, in ticks: below, it would be noise.
const SHORTEST: u64 = 10_000;

/// The most tokens that are held for a key.
const TOKENS_MAX: u64 = 100_000;

/// The leases of one instance, by bucket.
#[derive(Debug)]
pub(crate) struct Leases {
    shards: Box<[Mutex<Shard>]>,
    keys_max: usize,
}

type Shard = HashMap<u64, Lease, RandomState>;

#[derive(Debug, Default)]
struct Lease {
    left: u32,
    /// How many were there when it was last filled up.
    full: u32,
    /// The bucket's time when the tokens were taken, in ticks.
    tat: u64,
    /// In what time one token lapses, in ticks.
    interval: u64,
    /// How many tokens were asked for since `since`, by which the next lease is measured.
    used: u64,
    since: u64,
    /// Tokens used in a `SPAN`, by the leases so far.
    pace: u64,
    /// Whether more are on their way.
    asking: bool,
    /// Whether nobody has come since the last look.
    idle: bool,
    part: Option<Arc<Part>>,
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

/// Tokens that nobody uses.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) part: Arc<Part>,
    pub(crate) tokens: u32,
}

impl Leases {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            keys_max: keys_max.div_ceil(SHARDS).max(1),
        }
    }

    /// Takes so many tokens of what is held for the bucket `key`.
    pub(crate) fn take(&self, key: u64, now: u64, cost: u32) -> Taken {
        let Some(mut shard) = self.shard(key) else {
            return Taken::Missing;
        };
        let full = shard.len() >= self.keys_max;
        let lease = match shard.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return Taken::Missing,
            Entry::Vacant(entry) => entry.insert(Lease {
                since: now,
                ..Lease::default()
            }),
        };
        lease.take(now, cost)
    }

    /// How many tokens should be taken in advance when Redis is asked about the bucket.
    pub(crate) fn want(&self, key: u64, now: u64) -> u32 {
        let shard = self.shard(key);
        let lease = shard.as_ref().and_then(|shard| shard.get(&key));
        lease.map_or(0, |lease| lease.want(now))
    }

    /// Puts tokens back that were taken for a request which another rule has refused.
    pub(crate) fn put_back(&self, key: u64, cost: u32) {
        self.with(key, |lease| lease.left = lease.left.saturating_add(cost));
    }

    /// Notes what Redis has answered: the bucket's time lies `ahead` ticks ahead, and `tokens` are ours.
    pub(crate) fn land(&self, key: u64, now: u64, landed: Landed<'_>) {
        self.with(key, |lease| {
            lease.asking = false;
            let held = lease.usable(now);
            lease.left = held.saturating_add(landed.tokens);
            lease.full = lease.left;
            lease.tat = now.saturating_add(landed.ahead);
            lease.interval = landed.interval;
            lease.measure(now);
            if lease.part.is_none() {
                lease.part = Some(Arc::new(landed.part.clone()));
            }
        });
    }

    /// Notes that Redis did not answer.
    pub(crate) fn fail(&self, key: u64) {
        self.with(key, |lease| lease.asking = false);
    }

    /// Forgets what nobody has used since the last time, and hands out the tokens that are left of it.
    pub(crate) fn sweep(&self, now: u64) -> Vec<Idle> {
        let mut idle = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|_, lease| {
                if !lease.idle || lease.asking {
                    lease.idle = true;
                    return true;
                }
                let tokens = lease.usable(now);
                if let (Some(part), 1..) = (lease.part.take(), tokens) {
                    idle.push(Idle { part, tokens });
                }
                false
            });
        }
        idle
    }

    fn shard(&self, key: u64) -> Option<MutexGuard<'_, Shard>> {
        let at = (key >> 32) as usize % SHARDS;
        self.shards.get(at).map(lock)
    }

    fn with(&self, key: u64, change: impl FnOnce(&mut Lease)) {
        if let Some(mut shard) = self.shard(key)
            && let Some(lease) = shard.get_mut(&key)
        {
            change(lease);
        }
    }
}

/// What Redis has answered about a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landed<'a> {
    pub(crate) part: &'a Part,
    pub(crate) ahead: u64,
    /// In what time one token grows back, in ticks; 1 of a calendar's, none of which lapse before its end.
    pub(crate) interval: u64,
    pub(crate) tokens: u32,
}

impl Lease {
    fn take(&mut self, now: u64, cost: u32) -> Taken {
        self.idle = false;
        self.used = self.used.saturating_add(u64::from(cost));
        let usable = self.usable(now);
        let Some(left) = usable.checked_sub(cost) else {
            self.left = usable;
            return Taken::Missing;
        };
        self.left = left;
        if left >= self.full.div_ceil(2) || self.asking {
            return Taken::Held { left };
        }
        self.asking = true;
        Taken::Low { left }
    }

    /// How many tokens have not lapsed.
    fn usable(&self, now: u64) -> u32 {
        if self.left == 0 {
            return 0;
        }
        let ahead = self.tat.saturating_sub(now);
        let lasting = ahead / self.interval.max(1);
        self.left.min(u32::try_from(lasting).unwrap_or(u32::MAX))
    }

    /// As many as go in a `SPAN`; none before that can be told.
    fn want(&self, now: u64) -> u32 {
        let now = self.rate(now).max(self.pace / 2).min(TOKENS_MAX);
        // One alone would save nothing.
        u32::try_from(now).ok().filter(|want| *want > 1).unwrap_or(0)
    }

    fn rate(&self, now: u64) -> u64 {
        let took = now.saturating_sub(self.since).max(SHORTEST);
        if self.used <= 1 {
            return 0;
        }
        self.used.saturating_mul(SPAN) / took
    }

    fn measure(&mut self, now: u64) {
        if now.saturating_sub(self.since) < SHORTEST {
            return;
        }
        self.pace = u64::midpoint(self.pace, self.rate(now));
        self.used = 0;
        self.since = now;
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Every change is one of whole fields; none can be left half-done by a panic.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::shared::Meter;

    const SECOND: u64 = 1_000_000;

    fn part() -> Part {
        Part {
            owner: "caller:a".into(),
            bucket: "r".into(),
            meter: Meter::Rolling {
                interval: 1000,
                fill: 1_000_000,
            },
            cost: 1,
            lease: 0,
            hint: 0,
            debt: 0,
        }
    }

    fn land(leases: &Leases, now: u64, ahead: u64, tokens: u32) {
        let part = part();
        let landed = Landed {
            part: &part,
            ahead,
            interval: 1000,
            tokens,
        };
        leases.land(7, now, landed);
    }

    #[test]
    fn what_is_held_is_used_up_and_more_is_asked_for_once_in_time() {
        let leases = Leases::new(16);
        assert_eq!(leases.take(7, 0, 1), Taken::Missing);
        land(&leases, 0, 1000, 0);
        for at in 1..40 {
            let missing = leases.take(7, at * 1000, 1);
            assert_eq!(missing, Taken::Missing);
        }
        // 41 in 40 ms are a thousand a second.
        assert_eq!(leases.take(7, 40_000, 1), Taken::Missing);
        assert_eq!(leases.want(7, 40_000), 1025);
        land(&leases, 40_000, 900_000, 10);
        let taken: Vec<Taken> = (0..11).map(|_| leases.take(7, 41_000, 1)).collect();
        let held = |left| Taken::Held { left };
        assert_eq!(taken[..6], [9, 8, 7, 6, 5, 4].map(|left| match left {
            4 => Taken::Low { left },
            left => held(left),
        }));
        assert_eq!(taken[6..10], [3, 2, 1, 0].map(held));
        assert_eq!(taken[10], Taken::Missing);
        assert!(leases.want(7, 41_000) >= 512);
        leases.put_back(7, 1);
        assert_eq!(leases.take(7, 41_000, 1), held(0));
    }

    #[test]
    fn a_lease_lapses_as_the_bucket_grows_full() {
        let leases = Leases::new(16);
        let _ = leases.take(7, 0, 1);
        land(&leases, 0, 8000, 8);
        assert_eq!(leases.take(7, 0, 1), Taken::Held { left: 7 });
        // Four of eight are left after 4 ms, of which this is one.
        for _ in 0..4 {
            assert_ne!(leases.take(7, 4000, 1), Taken::Missing);
        }
        assert_eq!(leases.take(7, 4000, 1), Taken::Missing);
    }

    #[test]
    fn who_comes_seldom_is_lent_nothing() {
        let leases = Leases::new(16);
        for at in 0..10 {
            let now = at * 60 * SECOND;
            assert_eq!(leases.take(7, now, 1), Taken::Missing);
            assert_eq!(leases.want(7, now), 0);
            land(&leases, now, 1000, 0);
        }
    }

    #[test]
    fn what_nobody_uses_is_handed_out_to_be_given_back() {
        let leases = Leases::new(16);
        let _ = leases.take(7, 0, 1);
        land(&leases, 0, 100_000, 50);
        assert!(leases.sweep(1000).is_empty());
        assert_eq!(leases.take(7, 1000, 1), Taken::Held { left: 49 });
        assert!(leases.sweep(2000).is_empty(), "used since the last time");
        let idle = leases.sweep(3000);
        assert_eq!((idle.len(), idle[0].tokens), (1, 49));
        assert_eq!(&*idle[0].part.owner, "caller:a");
        assert_eq!(leases.take(7, 3000, 1), Taken::Missing);
    }

    #[test]
    fn a_flood_of_keys_is_not_kept() {
        let leases = Leases::new(64);
        for key in 0..100_000_u64 {
            let _ = leases.take(key << 30, 0, 1);
        }
        let kept: usize = leases.shards.iter().map(|shard| lock(shard).len()).sum();
        assert!(kept <= 64, "{kept}");
    }
}
