//! One rule at hand, for decisions without HTTP.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::identity::masked;
use crate::rate_limit::check::Check;
use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::decision::Decision;
use crate::rate_limit::direct::{Bucket, count, is_direct};
use crate::rate_limit::engine::{Begun, Engine};
use crate::rate_limit::gcra::Verdict;
use crate::rate_limit::in_force::Reading;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::scope::Scope;

/// One rule of a [`RateLimiter`](crate::rate_limit::RateLimiter), which counts whatever has a name or an address:
/// jobs, messages, connections. Cheap to clone.
///
/// The quota is the rule's own, not a tier's, and its buckets are those of the requests that have it as well.
/// Bans are heeded, the lists of those who are always or never let in are not: they speak of requests. A rule that
/// only watches lets everything through.
#[derive(Clone)]
pub struct RuleLimiter {
    engine: Arc<Engine>,
    /// The rule as it was when this was made.
    rule: Arc<CompiledRule>,
    /// Whether a look at one bucket is all there is to a decision, for as long as the rules stay.
    direct: bool,
}

/// The decision of a [`RuleLimiter`]. What it is about was counted when this was made, or will be by Redis, and
/// stays counted if it is dropped.
#[must_use = "nothing is refused unless the decision is heeded"]
pub struct RuleCheck<'r> {
    state: State<'r>,
}

enum State<'r> {
    /// Borrowed, because threads that count up and down who reads the same terms are in each other's way.
    Counted {
        rule: &'r CompiledRule,
        verdict: Verdict,
        cost: u32,
    },
    Begun(Check),
}

impl RuleLimiter {
    pub(crate) fn new(engine: &Arc<Engine>, name: &str) -> Option<Self> {
        let rules = engine.rules.load();
        let rule = Arc::clone(&rules.find(name)?.rule);
        let direct = matches!(rules, Reading::First(_))
            && engine.is_alone
            && is_direct(&rule)
            && rule.base.terms.period.is_none()
            && !matches!(rule.scope, Scope::Global);
        Some(Self {
            engine: Arc::clone(engine),
            rule,
            direct,
        })
    }

    /// Takes `cost` tokens from the bucket of `key`, if they are there.
    ///
    /// The key is what the rule's scope counts by: the id of a caller, a tenant, an address, an API key, a
    /// custom name; for the scope `global` it means nothing. Costs as much as [`check_ip`](Self::check_ip), or
    /// for an API key the time of a SHA-256 more.
    pub fn check_key(&self, key: &str, cost: u32) -> RuleCheck<'_> {
        let prefix = self.engine.origin.ipv6_prefix;
        self.check(|rule| Owner::of_key(&rule.scope, key, prefix), cost)
    }

    /// Takes `cost` tokens from the bucket of an address, if they are there; IPv6 by the configured prefix. By the
    /// scope `global`, all have one.
    ///
    /// In memory that is one compare-and-swap, and takes no lock unless the address is new. It is a few dozen
    /// nanoseconds more where penalties are configured, the rule watches, settles by answers or goes by the
    /// calendar, or rules were replaced since; in a fleet it is what [`RateLimiter::check`] is.
    ///
    /// [`RateLimiter::check`]: crate::rate_limit::RateLimiter::check
    #[inline]
    pub fn check_ip(&self, ip: IpAddr, cost: u32) -> RuleCheck<'_> {
        let prefix = self.engine.origin.ipv6_prefix;
        self.check(|_| Owner::Ip(masked(ip, prefix)), cost)
    }

    #[inline]
    fn check<'o>(&self, owner: impl Fn(&CompiledRule) -> Owner<'o>, cost: u32) -> RuleCheck<'_> {
        let state = if self.direct && self.engine.rules.are_first() {
            let (rule, plan, ledger) = (&self.rule, &self.rule.base, &*self.engine.ledger);
            let (owner, now) = (owner(rule), ledger.now());
            let bucket = Bucket {
                key: owner.key(rule, plan, ledger.table.hasher()),
                limit: plan.terms.limit,
                rule,
                plan,
                cost,
            };
            let verdict = count(
                ledger,
                bucket,
                (&owner, self.engine.origin.ipv6_prefix),
                now,
            );
            State::Counted {
                rule,
                verdict,
                cost,
            }
        } else {
            State::Begun(self.begin(owner, cost))
        };
        RuleCheck { state }
    }

    /// The way of those that a look at one bucket does not answer.
    #[cold]
    fn begin<'o>(&self, owner: impl Fn(&CompiledRule) -> Owner<'o>, cost: u32) -> Check {
        let rules = self.engine.rules.load();
        let begun = rules.find(&self.rule.name).map(|known| {
            let owner = match known.rule.scope {
                Scope::Global => Owner::Everybody,
                _ => owner(&known.rule),
            };
            self.engine.begin_one(known, owner, cost)
        });
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
            State::Counted { verdict, .. } => Some(verdict.is_allow()),
            State::Begun(check) => check.is_allow(),
        }
    }
}

impl Future for RuleCheck<'_> {
    /// `None` if the limiter is switched off, or has no such rule any more.
    type Output = Option<Decision>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Decision>> {
        match &mut self.get_mut().state {
            State::Counted {
                rule,
                verdict,
                cost,
            } => {
                let terms = &rule.base.terms;
                let decision = Decision::of(*verdict, terms, terms.limit, *cost);
                Poll::Ready(Some(decision))
            }
            State::Begun(check) => Pin::new(check).poll(cx),
        }
    }
}

impl fmt::Debug for RuleLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleLimiter")
            .field("name", &self.rule.name)
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
