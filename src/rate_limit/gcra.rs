//! The arithmetic of a quota: the generic cell rate algorithm on whole ticks.
//!
//! A bucket is one number, the *theoretical arrival time*: the moment at which it will be full
//! again. How far that lies ahead of now, in ticks of 1 µs, is what has been used up; each request
//! moves it on by one `interval`, and it may never lie further ahead than `fill`. This is a token
//! bucket to the tick, without tokens to refill: a bucket whose time has passed is full, and so is
//! the same as one that does not exist.

/// A quota in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The time in which one request's worth grows back; at least 1.
    interval: u64,
    /// The time in which an empty bucket grows full: `interval` times the burst.
    fill: u64,
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
    /// One request per `interval` ticks, `burst` at once. Zeros count as ones.
    pub(crate) const fn new(interval: u64, burst: u32) -> Self {
        let interval = if interval == 0 { 1 } else { interval };
        let burst = if burst == 0 { 1 } else { burst };
        Self {
            interval,
            fill: interval.saturating_mul(burst as u64),
        }
    }

    /// Decides about one request, given how far ahead the bucket's time lies.
    pub(crate) const fn charge(self, ahead: u64) -> Verdict {
        let ahead = self.owed(ahead);
        // Cannot overflow: `owed` is at most `fill`.
        if ahead <= self.fill - self.interval {
            let ahead = ahead + self.interval;
            Verdict::Allow { ahead }
        } else {
            Verdict::Deny { ahead }
        }
    }

    /// How far ahead the bucket's time lies once a charge is taken back.
    pub(crate) const fn refund(self, ahead: u64) -> u64 {
        ahead.saturating_sub(self.interval)
    }

    /// The time ahead under this quota: the same bucket may have been charged under a longer one,
    /// before its caller changed plans, and must not stay empty for longer than this one can be.
    pub(crate) const fn owed(self, ahead: u64) -> u64 {
        if ahead > self.fill { self.fill } else { ahead }
    }

    /// How many requests would still fit at once.
    pub(crate) const fn remaining(self, ahead: u64) -> u32 {
        let left = (self.fill - self.owed(ahead)) / self.interval;
        // Never cut: `fill` is the interval times a `u32`, unless it saturated.
        if left > u32::MAX as u64 {
            u32::MAX
        } else {
            left as u32
        }
    }

    /// How many ticks until the next request fits; 0 if one does now.
    pub(crate) const fn wait(self, ahead: u64) -> u64 {
        self.owed(ahead).saturating_sub(self.fill - self.interval)
    }

    /// The time in which an empty bucket grows full.
    pub(crate) const fn fill(self) -> u64 {
        self.fill
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token bucket as one would write it down: a level that grows by one part per tick, of which
    /// a request takes `interval` parts.
    struct TokenBucket {
        level: u128,
        capacity: u128,
        interval: u128,
        at: u64,
    }

    impl TokenBucket {
        fn take(&mut self, now: u64) -> bool {
            self.level = self.capacity.min(self.level + u128::from(now - self.at));
            self.at = now;
            let fits = self.level >= self.interval;
            if fits {
                self.level -= self.interval;
            }
            fits
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        let limit = Limit::new(10, 3);
        let mut ahead = 0;
        for remaining in [2, 1, 0] {
            let Verdict::Allow { ahead: after } = limit.charge(ahead) else {
                panic!("denied with {remaining} to go");
            };
            ahead = after;
            assert_eq!(limit.remaining(ahead), remaining);
        }
        assert_eq!(limit.charge(ahead), Verdict::Deny { ahead: 30 });
        assert_eq!(limit.wait(ahead), 10);
        assert_eq!(limit.charge(ahead - 9), Verdict::Deny { ahead: 21 });
        assert_eq!(limit.charge(ahead - 10), Verdict::Allow { ahead: 30 });
        assert_eq!(limit.refund(30), 20);
        assert_eq!(limit.refund(3), 0);
    }

    #[test]
    fn a_bucket_charged_under_a_longer_quota_is_at_most_empty() {
        let limit = Limit::new(10, 3);
        assert_eq!(limit.charge(1_000_000), Verdict::Deny { ahead: 30 });
        assert_eq!(limit.wait(1_000_000), 10);
        assert_eq!(limit.remaining(1_000_000), 0);
    }

    proptest! {
        #[test]
        fn every_decision_is_that_of_a_token_bucket(
            interval in 1u64..1000,
            burst in 1u32..50,
            steps in proptest::collection::vec(0u64..3000, 1..300),
        ) {
            let limit = Limit::new(interval, burst);
            let (mut now, mut full_at) = (0, 0u64);
            let capacity = u128::from(interval) * u128::from(burst);
            let mut model = TokenBucket {
                level: capacity,
                capacity,
                interval: u128::from(interval),
                at: 0,
            };
            for step in steps {
                // Half of the steps are none, so that bursts happen.
                now += step.saturating_sub(1500);
                let before = full_at.saturating_sub(now);
                let verdict = limit.charge(before);
                prop_assert_eq!(limit.wait(before) == 0, verdict.is_allow());
                prop_assert_eq!(verdict.is_allow(), model.take(now));
                full_at = now + verdict.ahead();
                let left = model.level / model.interval;
                prop_assert_eq!(u128::from(limit.remaining(verdict.ahead())), left);
            }
        }
    }
}
