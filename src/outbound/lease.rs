//! What this instance may send of a quota that it shares with others.
//!
//! Tokens come from Redis, some more than there are requests waiting, so that a busy instance asks once
//! for many. Those that are not used for a second or two are given back.

use std::time::Duration;

use crate::clock::Moment;
use crate::outbound::ledger::Verdict;

/// Tokens in hand, and when to ask for more.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The epoch in which the remote was looked up; 0 for never.
    seen: u64,
    tokens: u64,
    /// How many to ask for beyond what is needed at once.
    ahead: u64,
    /// Whether any was used since the last tick.
    used: bool,
    /// When to ask again after having asked in vain.
    again: Option<Moment>,
    /// What Redis was last told that this instance holds.
    pub(crate) held: u64,
    /// Whether it is on the list of those that there is something about.
    pub(crate) listed: bool,
}

impl Lease {
    /// Whether a request that the remote's own words allow may be sent, with this epoch of news.
    pub(crate) fn verdict(&self, has_windows: bool, epoch: u64, now: Moment) -> Verdict {
        if self.seen != epoch {
            return Verdict::Asking;
        }
        if !has_windows || self.tokens > 0 {
            return Verdict::Go;
        }
        match self.again {
            Some(again) if again > now => Verdict::Maybe(Some(again)),
            _ => Verdict::Asking,
        }
    }

    /// Whether the remote was looked up in this epoch.
    pub(crate) const fn has_seen(&self, epoch: u64) -> bool {
        self.seen == epoch
    }

    /// A request is sent.
    pub(crate) fn use_one(&mut self) {
        self.tokens = self.tokens.saturating_sub(1);
        self.used = true;
    }

    pub(crate) const fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) const fn ahead(&self) -> u64 {
        self.ahead
    }

    /// Redis has answered: so many more, and `wanted` were waiting.
    pub(crate) fn grant(&mut self, tokens: u64, wanted: u64, epoch: u64, now: Moment) {
        if wanted > 0 && self.tokens == 0 && self.used {
            self.ahead = (self.ahead * 2 + 1).min(AHEAD_MAX);
        }
        self.seen = epoch;
        self.tokens = self.tokens.saturating_add(tokens);
        let in_vain = wanted > 0 && tokens == 0;
        self.again = in_vain.then(|| now.plus(AGAIN));
    }

    /// Redis has not answered. What it had granted may be granted to others by the time it does.
    pub(crate) fn lose(&mut self) {
        (self.tokens, self.again) = (0, None);
    }

    /// A second has passed. Returns whether tokens went back.
    pub(crate) fn tick(&mut self) -> bool {
        let idle = !std::mem::take(&mut self.used);
        if !idle {
            return false;
        }
        self.ahead /= 2;
        std::mem::take(&mut self.tokens) > 0
    }

    /// Somebody says that there is something new: look again.
    pub(crate) fn look_again(&mut self) {
        (self.seen, self.again) = (0, None);
    }
}

/// At most so many are held without need, of each remote by each instance.
const AHEAD_MAX: u64 = 64;

/// How often somebody who waits asks whether others have given back what they held.
const AGAIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    #[test]
    fn a_remote_is_looked_up_once_in_an_epoch_and_needs_tokens_only_where_there_are_windows() {
        let mut lease = Lease::default();
        assert_eq!(lease.verdict(false, 1, at(0)), Verdict::Asking);
        lease.grant(0, 0, 1, at(0));
        assert_eq!(lease.verdict(false, 1, at(0)), Verdict::Go);
        assert_eq!(lease.verdict(true, 1, at(0)), Verdict::Asking);
        lease.grant(2, 1, 1, at(0));
        assert_eq!(lease.verdict(true, 1, at(0)), Verdict::Go);
        assert_eq!(lease.verdict(true, 2, at(0)), Verdict::Asking);
        lease.look_again();
        assert_eq!(lease.verdict(false, 1, at(0)), Verdict::Asking);
    }

    #[test]
    fn who_asked_in_vain_asks_again_after_a_while_and_who_wanted_nothing_at_once() {
        let mut lease = Lease::default();
        lease.grant(0, 3, 1, at(0));
        assert_eq!(lease.verdict(true, 1, at(0)), Verdict::Maybe(Some(at(250))));
        assert_eq!(lease.verdict(true, 1, at(250)), Verdict::Asking);
        lease.grant(0, 0, 1, at(250));
        assert_eq!(lease.verdict(true, 1, at(250)), Verdict::Asking);
    }

    #[test]
    fn a_busy_one_asks_for_more_at_a_time_and_an_idle_one_gives_back() {
        let mut lease = Lease::default();
        for ahead in [0, 1, 3, 7, 15, 31, 63, 64, 64] {
            // What there was is used up, and one more is wanted.
            lease.grant(1, 1, 1, at(0));
            assert_eq!(lease.ahead(), ahead);
            lease.use_one();
        }
        lease.grant(5, 1, 1, at(0));
        lease.use_one();
        assert!(!lease.tick() && lease.tokens() == 4, "it was used just now");
        assert!(lease.tick() && lease.tokens() == 0);
        assert!(!lease.tick(), "there is nothing to give back any more");
        assert!(lease.ahead() < 64);
        lease.grant(5, 1, 1, at(0));
        lease.lose();
        assert_eq!(
            (lease.tokens(), lease.verdict(true, 1, at(0))),
            (0, Verdict::Asking)
        );
    }
}
