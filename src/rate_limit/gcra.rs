//! The arithmetic of a quota: the generic cell rate algorithm on whole ticks.
//!
//! A bucket is one number, the *theoretical arrival time*: the moment at which it will be full
//! again. How far that lies ahead of now, in ticks of 1 µs, is what has been used up; each request
//! moves it on by one `interval`, and it may lie `fill` ahead. This is a token bucket to the tick,
//! without tokens to refill: a bucket whose time has passed is full, and so is the same as one that
//! does not exist.
//!
//! A **calendar window** is kept by the same arithmetic. Its time lies behind the end of the window by
//! one tick per request: what lies ahead of that end, the `base`, is the number used, and does not
//! shrink while the base does. The window's end is part of the key, so that the next one begins anew.
//!
//! **Debt.** What is charged after the fact (bytes sent, tokens used) cannot be refused, so that a bucket
//! may lie further ahead than `fill`: by one more `fill`, lest one giant answer shut a bucket for days.

use crate::rate_limit::slot::FILL_MAX;

/// A quota in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The time in which one request's worth grows back; at least 1.
    interval: u64,
    /// The time in which an empty bucket grows full: `interval` times the burst.
    fill: u64,
    /// How far ahead the end of the calendar window lies; 0 for a quota that grows back.
    base: u64,
}

/// What became of a request, with the time at which its bucket is full again, in ticks from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It fits; `ahead` includes it.
    Allow { ahead: u64 },
    /// It does not; `ahead` is unchanged.
    Deny { ahead: u64 },
}

impl Verdict {
    pub(crate) const fn ahead(self) -> u64 {
        match self {
            Self::Allow { ahead } | Self::Deny { ahead } => ahead,
        }
    }

    pub(crate) const fn is_allow(self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

impl Limit {
    /// One request per `interval` ticks, `burst` at once. Zeros count as ones, and what takes longer than a slot
    /// can tell as that.
    pub(crate) const fn new(interval: u64, burst: u32) -> Self {
        let interval = if interval == 0 { 1 } else { interval };
        let interval = at_most(interval, FILL_MAX);
        let burst = if burst == 0 { 1 } else { burst };
        Self {
            interval,
            // A slot can tell no longer time, and the sums below stay far from the end of numbers.
            fill: at_most(interval.saturating_mul(burst as u64), FILL_MAX),
            base: 0,
        }
    }

    /// `requests` in a window of the calendar, whose end [`ending`](Self::ending) tells.
    pub(crate) const fn window(requests: u32) -> Self {
        Self::new(1, requests)
    }

    /// The same for a window that ends in so many ticks, of which there is at least one.
    pub(crate) const fn ending(mut self, ends_in: u64) -> Self {
        self.base = if ends_in == 0 { 1 } else { ends_in };
        self
    }

    /// The same limit so many ticks later: the end of its window has come nearer.
    pub(crate) const fn after(mut self, ticks: u64) -> Self {
        if self.base > 0 {
            let left = self.base.saturating_sub(ticks);
            self.base = if left == 0 { 1 } else { left };
        }
        self
    }

    /// Decides about a request that costs so many tokens, given how far ahead the bucket's time lies.
    /// One that costs more than the bucket holds costs all that it holds, or it would never pass.
    pub(crate) const fn charge(self, ahead: u64, cost: u32) -> Verdict {
        let (used, worth) = (self.used(ahead), self.worth(cost));
        // What costs nothing passes as well only while there is something left.
        let least = if cost == 0 { 1 } else { worth };
        if used.saturating_add(least) <= self.fill {
            Verdict::Allow {
                ahead: self.ahead_of(used.saturating_add(worth)),
            }
        } else {
            Verdict::Deny {
                ahead: self.ahead_of(used),
            }
        }
    }

    /// How far ahead the bucket's time lies once a charge is taken back.
    pub(crate) const fn refund(self, ahead: u64, cost: u32) -> u64 {
        self.ahead_of(self.used(ahead).saturating_sub(self.worth(cost)))
    }

    /// The same for a charge from before, of which no more than `left` has not grown back by itself.
    pub(crate) const fn give_back(self, ahead: u64, tokens: u32, left: u64) -> u64 {
        let worth = self.worth(tokens);
        let worth = if self.base > 0 {
            worth
        } else {
            at_most(worth, left)
        };
        self.ahead_of(self.used(ahead).saturating_sub(worth))
    }

    /// How far ahead it lies once so many tokens are charged that nobody can refuse.
    pub(crate) const fn debit(self, ahead: u64, tokens: u32) -> u64 {
        let worth = self.interval.saturating_mul(tokens as u64);
        let used = self.used(ahead).saturating_add(worth);
        self.ahead_of(at_most(used, self.debt_max()))
    }

    /// How far ahead it lies under this quota if so much of it was used up under `old`: the same part, or of
    /// the calendar's windows the same number.
    pub(crate) const fn carry(self, old: Self, ahead: u64) -> u64 {
        // What was used of a window is a number, which a plan with more in it does not change.
        let whole = if self.base > 0 && old.base > 0 {
            old.fill
        } else {
            self.fill
        };
        let part = old.used(ahead) as u128 * whole as u128;
        let used = part.div_ceil(old.fill as u128);
        // Cannot be cut: at most twice this one's fill, as it was at most twice the old one's.
        self.ahead_of(at_most(used as u64, self.debt_max()))
    }

    /// What is used up, in ticks. The same bucket may have been charged under a longer quota, before
    /// its caller changed plans, and must not stay empty for longer than under this one.
    pub(crate) const fn used(self, ahead: u64) -> u64 {
        at_most(ahead.saturating_sub(self.base), self.debt_max())
    }

    /// How many requests of one token would still fit at once.
    pub(crate) const fn remaining(self, ahead: u64) -> u32 {
        let left = self.fill.saturating_sub(self.used(ahead)) / self.interval;
        // Never cut: `fill` is at most the interval times a `u32`.
        at_most(left, u32::MAX as u64) as u32
    }

    /// How many ticks until a request of this cost fits; 0 if it does now.
    pub(crate) const fn wait(self, ahead: u64, cost: u32) -> u64 {
        let least = if cost == 0 { 1 } else { self.worth(cost) };
        let wait = self
            .used(ahead)
            .saturating_add(least)
            .saturating_sub(self.fill);
        if wait > 0 && self.base > 0 {
            self.base
        } else {
            wait
        }
    }

    /// How many ticks until nothing is used up any more.
    pub(crate) const fn reset(self, ahead: u64) -> u64 {
        let used = self.used(ahead);
        if used > 0 && self.base > 0 {
            self.base
        } else {
            used
        }
    }

    /// The time in which an empty bucket grows full.
    pub(crate) const fn fill(self) -> u64 {
        self.fill
    }

    /// Whether less than a fifth of it is left. One that holds fewer than five has no such part.
    pub(crate) const fn is_near(self, ahead: u64) -> bool {
        self.used(ahead).saturating_mul(5) > self.fill.saturating_mul(4)
            && self.interval.saturating_mul(5) <= self.fill
    }

    /// How far ahead a bucket lies of which this much is used up; not at all if that is nothing.
    pub(crate) const fn ahead_of(self, used: u64) -> u64 {
        if used == 0 {
            0
        } else {
            self.base.saturating_add(used)
        }
    }

    /// What a request of this cost uses up.
    const fn worth(self, cost: u32) -> u64 {
        at_most(self.interval.saturating_mul(cost as u64), self.fill)
    }

    const fn debt_max(self) -> u64 {
        at_most(self.fill.saturating_mul(2), FILL_MAX)
    }
}

/// What only a fleet needs.
#[cfg(any(feature = "redis", test))]
impl Limit {
    /// The part of it that one of `count` has to itself. Each gets at least one at a time, or none of
    /// many could ever let anybody through; and none takes longer for it than a slot can tell.
    pub(crate) const fn share(mut self, count: u32) -> Self {
        let count = if count == 0 { 1 } else { count as u64 };
        self.interval = at_most(self.interval.saturating_mul(count), FILL_MAX);
        if self.fill < self.interval {
            self.fill = self.interval;
        }
        self
    }

    /// The time after which nothing that is known of a bucket today can still hold.
    pub(crate) const fn lasts(self) -> u64 {
        let debt = self.debt_max();
        if self.base > debt { self.base } else { debt }
    }

    /// How far ahead the end of the calendar window lies; 0 for a quota that grows back.
    pub(crate) const fn ends_in(self) -> u64 {
        self.base
    }

    /// The time in which one token grows back.
    pub(crate) const fn interval(self) -> u64 {
        self.interval
    }
}

const fn at_most(value: u64, limit: u64) -> u64 {
    if value < limit { value } else { limit }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token bucket as one would write it down: a level that grows by one part per tick, of which
    /// a token takes `interval` parts. Debt is a level below zero.
    struct TokenBucket {
        level: i128,
        capacity: i128,
        interval: i128,
        at: u64,
    }

    impl TokenBucket {
        fn at(&mut self, now: u64) -> &mut Self {
            self.level = self.capacity.min(self.level + i128::from(now - self.at));
            self.at = now;
            self
        }

        fn take(&mut self, cost: u32) -> bool {
            let worth = self.capacity.min(self.interval * i128::from(cost));
            let fits = self.level >= worth.max(1);
            if fits {
                self.level -= worth;
            }
            fits
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        let limit = Limit::new(10, 3);
        let mut ahead = 0;
        for remaining in [2, 1, 0] {
            let Verdict::Allow { ahead: after } = limit.charge(ahead, 1) else {
                panic!("denied with {remaining} to go");
            };
            ahead = after;
            assert_eq!(limit.remaining(ahead), remaining);
        }
        assert_eq!(limit.charge(ahead, 1), Verdict::Deny { ahead: 30 });
        assert_eq!(limit.wait(ahead, 1), 10);
        assert_eq!(limit.charge(ahead - 9, 1), Verdict::Deny { ahead: 21 });
        assert_eq!(limit.charge(ahead - 10, 1), Verdict::Allow { ahead: 30 });
        assert_eq!(limit.refund(30, 1), 20);
        assert_eq!(limit.refund(3, 1), 0);
        // Of what was charged 4 ticks are left, and none of it long after.
        assert_eq!(limit.give_back(20, 1, 4), 16);
        assert_eq!(limit.give_back(20, 1, 0), 20);
        assert_eq!(limit.give_back(20, 1, 99), 10);
    }

    #[test]
    fn a_request_may_cost_several_tokens_and_at_most_the_whole_bucket() {
        let limit = Limit::new(10, 3);
        assert_eq!(limit.charge(0, 2), Verdict::Allow { ahead: 20 });
        assert_eq!(limit.charge(20, 2), Verdict::Deny { ahead: 20 });
        assert_eq!(limit.wait(20, 2), 10);
        assert_eq!(limit.refund(20, 2), 0);
        assert_eq!(limit.charge(0, 99), Verdict::Allow { ahead: 30 });
        assert_eq!(limit.wait(5, 99), 5);
        assert_eq!(limit.charge(20, 0), Verdict::Allow { ahead: 20 });
        assert_eq!(limit.charge(30, 0), Verdict::Deny { ahead: 30 });
        assert_eq!(limit.wait(30, 0), 1);
    }

    /// Beyond half of a slot's circle an empty bucket would look like a full one.
    #[test]
    fn a_share_of_a_long_quota_still_limits_however_many_instances_there_are() {
        use crate::rate_limit::table::Table;

        const DAY: u64 = 24 * 60 * 60 * 1_000_000;
        for (interval, burst, count) in [
            (30 * DAY, 1, 4),
            (30 * DAY, 2, 10_000),
            (DAY, 31, 10_000),
            (1_000_000, 5_000_000, 10_000),
            (u64::MAX, u32::MAX, u32::MAX),
        ] {
            let whole = Limit::new(interval, burst);
            for limit in [whole, whole.share(count)] {
                let table = Table::new(64, true, 0);
                let charge = |now| table.charge(7 << 50 | 7, now, limit, 1).is_allow();
                let most = u64::from(burst).min(FILL_MAX / limit.interval());
                let tried = most.min(100);
                assert!((0..tried).all(|_| charge(0)), "{limit:?}");
                assert!(most > tried || !charge(0), "{limit:?}");
                // All at once, and debts on top.
                table.charge(7 << 50 | 7, 0, limit, u32::MAX);
                table.debit(7 << 50 | 7, 0, limit, u32::MAX);
                assert!(!charge(0), "{limit:?}");
            }
        }
    }

    #[test]
    fn a_calendar_window_holds_what_was_used_until_it_ends() {
        let day = Limit::window(3);
        let mut ahead = 0;
        for (ends_in, used) in [(900, 1), (600, 2), (50, 3)] {
            // As it looks when that much time has gone by.
            let limit = day.ending(ends_in);
            ahead = limit.charge(ahead, 1).ahead();
            assert_eq!(
                (limit.used(ahead), limit.remaining(ahead)),
                (used, 3 - used as u32)
            );
            assert_eq!(limit.reset(ahead), ends_in);
            assert_eq!(limit.after(20), day.ending(ends_in - 20));
            ahead -= match ends_in {
                900 => 300,
                600 => 550,
                _ => 0,
            };
        }
        let limit = day.ending(50);
        assert_eq!(limit.charge(ahead, 1), Verdict::Deny { ahead });
        assert_eq!(limit.wait(ahead, 1), 50);
        assert_eq!(limit.wait(limit.refund(ahead, 1), 1), 0);
        assert_eq!(
            limit.refund(limit.refund(ahead, 2), 1),
            0,
            "none, not an empty one"
        );
        assert_eq!(limit.debit(ahead, 100), 56, "one more quota of debt");
        assert_eq!(limit.give_back(ahead, 1, 0), limit.refund(ahead, 1));
    }

    #[test]
    fn a_debt_is_worked_off_and_never_longer_than_two_buckets() {
        let limit = Limit::new(10, 3);
        let ahead = limit.debit(10, 4);
        assert_eq!((ahead, limit.remaining(ahead)), (50, 0));
        assert_eq!(limit.wait(ahead, 1), 30);
        assert_eq!(limit.charge(ahead, 1), Verdict::Deny { ahead: 50 });
        assert_eq!(limit.debit(ahead, u32::MAX), 60);
        assert_eq!(Limit::new(FILL_MAX, 1).debit(0, 2), FILL_MAX);
    }

    #[test]
    fn a_bucket_charged_under_a_longer_quota_is_soon_worked_off() {
        let limit = Limit::new(10, 3);
        assert_eq!(limit.charge(1_000_000, 1), Verdict::Deny { ahead: 60 });
        assert_eq!(limit.remaining(1_000_000), 0);
    }

    #[test]
    fn a_new_quota_has_the_same_part_used_up() {
        let (slow, quick) = (Limit::new(720, 5), Limit::new(1, 100));
        // Three of five gone.
        let ahead = quick.carry(slow, 3 * 720);
        assert_eq!((ahead, quick.remaining(ahead)), (60, 40));
        assert_eq!(slow.remaining(slow.carry(quick, 60)), 2);
        let day = Limit::window(1000).ending(7);
        assert_eq!(day.remaining(day.carry(slow, 3 * 720)), 400);
        assert_eq!(quick.carry(day, day.charge(0, 100).ahead()), 10);
        assert_eq!(quick.carry(slow, 0), 0);
        let more = Limit::window(60).ending(7);
        assert_eq!(
            more.remaining(more.carry(day, day.charge(0, 10).ahead())),
            50
        );
        // Rounded to the strict side.
        assert_eq!(quick.remaining(quick.carry(slow, 1)), 99);
    }

    #[test]
    fn shares_add_up_to_the_whole_or_let_one_through_each() {
        let share = Limit::new(10, 12).share(4);
        assert_eq!((share.remaining(0), share.interval()), (3, 40));
        let share = Limit::new(10, 3).share(4);
        assert_eq!((share.remaining(0), share.wait(40, 1)), (1, 40));
        let share = Limit::window(100).ending(5).share(3);
        assert_eq!(share.remaining(0), 33);
    }

    proptest! {
        #[test]
        fn every_decision_is_that_of_a_token_bucket(
            interval in 1u64..1000,
            burst in 1u32..50,
            steps in proptest::collection::vec((0u64..3000, 0u32..4, 0u32..9), 1..300),
        ) {
            let limit = Limit::new(interval, burst);
            let (mut now, mut full_at) = (0, 0u64);
            let capacity = i128::from(interval) * i128::from(burst);
            let mut model = TokenBucket {
                level: capacity,
                capacity,
                interval: i128::from(interval),
                at: 0,
            };
            for (step, cost, deed) in steps {
                // Half of the steps are none, so that bursts happen.
                now += step.saturating_sub(1500);
                let before = full_at.saturating_sub(now);
                let model = model.at(now);
                let ahead = match deed {
                    0 => {
                        let worth = model.capacity.min(model.interval * i128::from(cost));
                        model.level = model.capacity.min(model.level + worth);
                        limit.refund(before, cost)
                    }
                    1 => {
                        let worth = model.interval * i128::from(cost);
                        model.level = (model.level - worth).max(-model.capacity);
                        limit.debit(before, cost)
                    }
                    _ => {
                        let verdict = limit.charge(before, cost);
                        prop_assert_eq!(limit.wait(before, cost) == 0, verdict.is_allow());
                        prop_assert_eq!(verdict.is_allow(), model.take(cost));
                        verdict.ahead()
                    }
                };
                full_at = now + ahead;
                let left = model.level.max(0) / model.interval;
                prop_assert_eq!(i128::from(limit.remaining(ahead)), left);
            }
        }
    }
}
