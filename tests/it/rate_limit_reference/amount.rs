//! How many requests in what time, and what a token of it is worth.

use std::time::Duration;

use tower_keep::rate_limit::{Period, Quota};

const SECOND: i128 = 1_000_000;
const DAY: i128 = 86_400 * SECOND;

/// What is used of a bucket at most, in microseconds.
const LONGEST: i128 = 62 * DAY;

/// How many in what time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Rolling {
        requests: u32,
        per: Duration,
        burst: Option<u32>,
    },
    Calendar {
        requests: u32,
        period: Period,
    },
}

impl Amount {
    pub fn quota(self) -> Quota {
        match self {
            Self::Rolling {
                requests,
                per,
                burst,
            } => {
                let quota = Quota::requests(requests).per(per);
                burst.map_or(quota, |burst| quota.burst(burst))
            }
            Self::Calendar { requests, period } => Quota::requests(requests).each(period),
        }
    }

    pub const fn requests(self) -> u32 {
        match self {
            Self::Rolling { requests, .. } | Self::Calendar { requests, .. } => requests,
        }
    }

    /// What one token is worth: the time in which it grows back, in whole microseconds, or itself.
    pub fn token(self) -> i128 {
        match self {
            Self::Rolling { requests, per, .. } => {
                let (per, requests) = (per.as_micros() as i128, i128::from(requests));
                (per + requests - 1) / requests
            }
            Self::Calendar { .. } => 1,
        }
    }

    /// What all that may come at once is worth.
    pub fn whole(self) -> i128 {
        let at_once = match self {
            Self::Rolling {
                requests, burst, ..
            } => burst.unwrap_or(requests),
            Self::Calendar { requests, .. } => requests,
        };
        self.token() * i128::from(at_once)
    }

    /// What a request of this cost is worth: never more than all.
    pub fn worth(self, cost: u32) -> i128 {
        (self.token() * i128::from(cost)).min(self.whole())
    }

    /// With debts.
    pub fn most(self) -> i128 {
        (2 * self.whole()).min(LONGEST)
    }

    /// Requests per microsecond as a fraction, and what may come at once.
    pub fn size(self) -> ((i128, i128), i128) {
        let per = match self {
            Self::Rolling { per, .. } => per.as_micros() as i128,
            Self::Calendar { period, .. } => match period {
                Period::Hour => DAY / 24,
                Period::Day => DAY,
                _ => 30 * DAY,
            },
        };
        ((i128::from(self.requests()), per), self.whole())
    }

    pub fn end(self, now: i128) -> Option<i128> {
        let Self::Calendar { period, .. } = self else {
            return None;
        };
        Some(match period {
            Period::Hour => (now / (DAY / 24) + 1) * (DAY / 24),
            Period::Day => (now / DAY + 1) * DAY,
            _ => months().find(|end| now < *end).unwrap(),
        })
    }
}

/// The ends of all months from January 2026 on.
fn months() -> impl Iterator<Item = i128> {
    let lengths = (2026..).flat_map(|year| {
        let february = if year % 4 == 0 { 29 } else { 28 };
        [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    });
    lengths.scan(0, |end, days| {
        *end += days * DAY;
        Some(*end)
    })
}
