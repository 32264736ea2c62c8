//! One rule at hand, for decisions without HTTP.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::identity::masked;
use crate::rate_limit::check::Check;
use crate::rate_limit::decision::{Counted, Decision};
use crate::rate_limit::engine::{Begun, Engine};
use crate::rate_limit::in_force::Reading;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::rules::RuleInForce;

/// One rule of a [`RateLimiter`](crate::rate_limit::RateLimiter), which counts whatever has a name or an address:
/// jobs, messages, connections. Buckets are shared with the requests that the rule speaks of. Cheap to clone.
///
/// The quota is the rule's own, not a tier's. A rule that only watches lets everything through.
#[derive(Clone)]
pub struct RuleLimiter {
    engine: Arc<Engine>,
    name: Arc<str>,
    /// Where it stands among the rules that the limiter was built with.
    at: usize,
}

/// The decision of a [`RuleLimiter`]. What it is about was counted when this was made, or will be by Redis, and
/// stays counted if it is dropped.
#[must_use = "nothing is refused unless the decision is heeded"]
pub struct RuleCheck<'r> {
    state: State<'r>,
}

enum State<'r> {
    Counted(Counted<'r>),
    Begun(Check),
}

impl RuleLimiter {
    pub(crate) fn new(engine: &Arc<Engine>, name: &str) -> Option<Self> {
        let at = engine.rules.load().position(name)?;
        Some(Self {
            engine: Arc::clone(engine),
            name: name.into(),
            at,
        })
    }

    /// Takes `cost` tokens from the bucket of `key`, if they are there.
    ///
    /// The key is what the rule's scope counts by: the id of a caller, a tenant, an address, an API key, a
    /// custom name; for the scope `global` it means nothing. Costs as much as [`check_ip`](Self::check_ip), or
    /// for an API key the time of a SHA-256 more.
    pub fn check_key(&self, key: &str, cost: u32) -> RuleCheck<'_> {
        let prefix = self.engine.origin.ipv6_prefix;
        self.check(|known| Owner::of_key(&known.rule.scope, key, prefix), cost)
    }

    /// Takes `cost` tokens from the bucket of an address, if they are there; IPv6 by the configured prefix.
    ///
    /// In memory that is one compare-and-swap, and takes no lock unless the address is new.
    #[inline]
    pub fn check_ip(&self, ip: IpAddr, cost: u32) -> RuleCheck<'_> {
        let owner = Owner::Ip(masked(ip.to_canonical(), self.engine.origin.ipv6_prefix));
        self.check(|_| owner.clone(), cost)
    }

    #[inline]
    fn check<'o>(&self, owner: impl Fn(&RuleInForce) -> Owner<'o>, cost: u32) -> RuleCheck<'_> {
        let counted = match self.engine.rules.load() {
            Reading::First(rules) => (rules.all.get(self.at))
                .and_then(|known| self.engine.count_one(known, owner(known), cost)),
            Reading::Later(_) => None,
        };
        let state = match counted {
            Some(counted) => State::Counted(counted),
            None => State::Begun(self.begin(owner, cost)),
        };
        RuleCheck { state }
    }

    /// The way of those that a look at one bucket does not answer.
    #[cold]
    fn begin<'o>(&self, owner: impl Fn(&RuleInForce) -> Owner<'o>, cost: u32) -> Check {
        let rules = self.engine.rules.load();
        let begun = rules
            .find(&self.name)
            .map(|known| self.engine.begin_one(known, owner(known), cost));
        Check::new(begun.unwrap_or(Begun::Done(None, None)))
    }
}

impl RuleCheck<'_> {
    /// The decision, where memory has made it; `None` while Redis is asked.
    ///
    /// Where no Redis is configured, it is always there: who needs no more than yes or no need not wait.
    #[must_use]
    pub const fn is_allow(&self) -> Option<bool> {
        match &self.state {
            State::Counted(counted) => Some(counted.verdict.is_allow()),
            State::Begun(check) => check.is_allow(),
        }
    }
}

impl Future for RuleCheck<'_> {
    /// `None` if the limiter is switched off, or has no such rule any more.
    type Output = Option<Decision>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Decision>> {
        match &mut self.get_mut().state {
            State::Counted(counted) => Poll::Ready(Some(counted.decision())),
            State::Begun(check) => Pin::new(check).poll(cx),
        }
    }
}

impl fmt::Debug for RuleLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleLimiter")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RuleCheck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleCheck")
            .field("is_allow", &self.is_allow())
            .finish_non_exhaustive()
    }
}
