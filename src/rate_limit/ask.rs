//! What the buckets that all instances share are asked, and what they answer.

use std::sync::Arc;
use std::time::Duration;

use crate::rate_limit::period::Period;
use crate::rate_limit::slot::FILL_MAX;

/// How a bucket counts what is used of it: in µs, or in tokens of a window of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meter {
    /// Tokens grow back one by one, each in `interval`; an empty bucket is full after `fill`. Both in µs.
    Rolling { interval: u64, fill: u64 },
    /// So many tokens until the period ends, by the server's clock.
    Calendar { period: Period, requests: u32 },
}

/// One bucket of a decision. No two parts of one decision are the same bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whose it is: `caller:alice`, `ip:203.0.113.7`, `all`. Short, and escaped by the caller.
    pub(crate) owner: Arc<str>,
    /// Which of the owner's: the rule's name, or `rule@tier`.
    pub(crate) bucket: Arc<str>,
    pub(crate) meter: Meter,
    /// Tokens per request. 0 only looks whether there is one; more than the bucket holds stands for all that it holds.
    pub(crate) cost: u32,
    /// Tokens wanted in advance, beyond what the requests cost.
    pub(crate) lease: u32,
    /// So much is known to be used (µs or tokens), should the server have forgotten it.
    pub(crate) hint: u64,
    /// So much was used elsewhere (µs or tokens) and is added whatever is decided, up to twice what the bucket
    /// holds.
    pub(crate) debt: u64,
    /// The end of the calendar window that hint, debt and tokens to give back are of, in seconds since
    /// 1970; once another window runs they mean nothing. 0 stands for the window that runs.
    ///
    /// Of a bucket that grows back, when the tokens to give back will have done so by themselves, in µs since
    /// 1970 by the server's clock; of them nothing is given back then. 0 stands for never.
    pub(crate) window: u64,
}

/// Some identical requests, each of which wants `cost` of every part or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// 0 charges nothing: it tells hints and debts, and takes tokens in advance.
    pub(crate) requests: u32,
    pub(crate) parts: Vec<Part>,
}

/// What became of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What is used afterwards, in µs that it takes to grow back, or in tokens of the window. With debts
    /// this may be up to twice what the bucket holds.
    pub(crate) ahead: u64,
    /// Tokens taken in advance. As many of them may be used as are left, but never more than there are
    /// intervals left of `ahead`, counted from before the question was asked; all lapse with the window.
    pub(crate) leased: u32,
    /// When the calendar's window ends, in seconds since 1970; for a bucket that grows back, when it will have
    /// done so but for the tokens taken in advance, in µs.
    pub(crate) window: u64,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How many of the requests pass.
    pub(crate) granted: u32,
    /// In the order of the parts; nothing if somebody is banned.
    pub(crate) told: Vec<Told>,
    /// How long the ban lasts, if there is one. Nothing was read or charged then.
    pub(crate) banned: Option<Duration>,
}

impl Meter {
    /// What one token is worth; at least 1.
    pub(crate) fn interval(self) -> u64 {
        match self {
            Self::Rolling { interval, .. } => interval.clamp(1, FILL_MAX),
            Self::Calendar { .. } => 1,
        }
    }

    /// What all tokens are worth; at least 1.
    pub(crate) fn fill(self) -> u64 {
        match self {
            Self::Rolling { fill, .. } => fill.clamp(1, FILL_MAX),
            Self::Calendar { requests, .. } => u64::from(requests.max(1)),
        }
    }

    /// The most that can be used of it, with debts.
    pub(crate) fn most(self) -> u64 {
        match self {
            Self::Rolling { .. } => (2 * self.fill()).min(FILL_MAX),
            Self::Calendar { .. } => 2 * self.fill(),
        }
    }
}

impl Part {
    /// What a request uses up.
    pub(crate) fn worth(&self) -> u64 {
        self.worth_of(self.cost)
    }

    /// What so many tokens that were charged are worth, when given back.
    pub(crate) fn worth_of(&self, tokens: u32) -> u64 {
        let worth = self.meter.interval().saturating_mul(u64::from(tokens));
        worth.min(self.meter.fill())
    }

    /// What gives the debt back, if the server has added all of it: one token that is worth it. Of a debt beyond
    /// what the bucket holds only that much can be.
    pub(crate) fn debt_back(&self, told: &Told) -> Option<(Self, u32)> {
        let taken = match self.meter {
            Meter::Rolling { .. } => true,
            Meter::Calendar { .. } => self.window == 0 || self.window == told.window,
        };
        // At the most that can be used it may have been cut.
        if self.debt == 0 || !taken || told.ahead >= self.meter.most() {
            return None;
        }
        let (window, mut part) = (told.window, self.clone());
        let mut tokens = u32::try_from(self.debt).unwrap_or(u32::MAX);
        if let Meter::Rolling { interval, .. } = &mut part.meter {
            *interval = self.debt.min(self.meter.fill());
            tokens = 1;
        }
        Some((Self { window, ..part }, tokens))
    }

    /// What so many tokens are worth that nobody can refuse.
    pub(crate) fn debit_of(&self, tokens: u32) -> u64 {
        let worth = self.meter.interval().saturating_mul(u64::from(tokens));
        worth.min(self.meter.most())
    }
}
