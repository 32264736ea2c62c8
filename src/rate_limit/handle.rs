//! One rule at hand, for decisions without HTTP that are too many to look for the rule each time.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::identity::masked;
use crate::rate_limit::check::Check;
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::engine::{Begun, Engine};
use crate::rate_limit::gcra::{Limit, Verdict};
use crate::rate_limit::in_force::Reading;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::terms::Terms;
use crate::rate_limit::who::Somebody;

/// A rule of a [`RateLimiter`](crate::rate_limit::RateLimiter). Cheap to clone; counts together with the limiter.
#[derive(Clone)]
pub struct RuleHandle {
    engine: Arc<Engine>,
    name: Arc<str>,
    /// Where it stands among the rules that the limiter was built with.
    at: usize,
}

/// The decision about one request of somebody with one rule.
///
/// The request was counted when this was made, or will be by Redis, and stays counted if it is dropped.
#[must_use = "nothing is refused unless the decision is heeded"]
pub struct RuleCheck<'h> {
    state: State<'h>,
}

enum State<'h> {
    Known {
        terms: &'h Arc<Terms>,
        limit: Limit,
        verdict: Verdict,
        cost: u32,
    },
    Begun(Check),
}

impl RuleHandle {
    pub(crate) fn new(engine: Arc<Engine>, at: usize, name: &str) -> Self {
        let name = name.into();
        Self { engine, name, at }
    }

    /// Decides about one request from an address that takes `cost` tokens; IPv6 by the configured prefix.
    pub fn check_ip(&self, ip: IpAddr, cost: u32) -> RuleCheck<'_> {
        let owner = Owner::Ip(masked(ip, self.engine.origin.ipv6_prefix));
        self.check_owner(owner, cost)
    }

    fn check_owner<'h>(&'h self, owner: Owner<'_>, cost: u32) -> RuleCheck<'h> {
        let engine = &*self.engine;
        let Reading::First(rules) = engine.rules.load() else {
            return self.check_anew(owner, cost);
        };
        let Some(known) = rules.all.get(self.at).filter(|known| known.plain) else {
            return self.check_anew(owner, cost);
        };
        if !engine.plain {
            return self.check_anew(owner, cost);
        }
        let now = engine.ledger.now();
        let charge = engine.charge(known, (&owner, None), cost, now);
        let ipv6_prefix = engine.origin.ipv6_prefix;
        let verdict = engine.count(&charge, &Somebody { owner, ipv6_prefix }, now);
        let (terms, limit) = (charge.terms(), charge.limit);
        RuleCheck {
            state: State::Known {
                terms,
                limit,
                verdict,
                cost,
            },
        }
    }

    #[cold]
    fn check_anew<'h>(&'h self, owner: Owner<'_>, cost: u32) -> RuleCheck<'h> {
        let rules = self.engine.rules.load();
        let begun = rules
            .find(&self.name)
            .map(|known| self.engine.begin_one(known, owner, cost));
        let check = Check::new(begun.unwrap_or(Begun::Done(None, None)));
        RuleCheck {
            state: State::Begun(check),
        }
    }
}

impl RuleCheck<'_> {
    /// Whether the request may pass, where memory has the answer.
    #[must_use]
    pub const fn is_allow(&self) -> Option<bool> {
        match &self.state {
            State::Known { verdict, .. } => Some(verdict.is_allow()),
            State::Begun(_) => None,
        }
    }
}

impl Future for RuleCheck<'_> {
    type Output = Option<Decision>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Decision>> {
        match &mut self.get_mut().state {
            State::Known {
                terms,
                limit,
                verdict,
                cost,
            } => {
                let standing = Standing::new(terms, *limit, verdict.ahead(), *cost);
                Poll::Ready(Some(match verdict {
                    Verdict::Allow { .. } => Decision::Allow(standing),
                    Verdict::Deny { .. } => Decision::Deny(standing),
                }))
            }
            State::Begun(check) => Pin::new(check).poll(cx),
        }
    }
}

impl fmt::Debug for RuleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleHandle")
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
