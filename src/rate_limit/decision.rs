//! What the limiter says about a request.

use std::sync::Arc;
use std::time::Duration;

use crate::rate_limit::charges::Charge;
use crate::rate_limit::gcra::{Limit, Verdict};
use crate::rate_limit::terms::Terms;

/// Whether a request may pass, and how its caller stands with the rule that is nearest to its end.
#[derive(Clone, Debug)]
#[must_use]
#[non_exhaustive]
pub enum Decision {
    /// All rules let it through, and have counted it.
    Allow(Standing),
    /// This rule does not. None has counted it.
    Deny(Standing),
    /// Its client is banned.
    Banned {
        /// For so long.
        retry_after: Duration,
    },
    /// Its client is on the list of those who are never let in.
    DenyListed,
}

impl Decision {
    /// Whether the request may pass.
    #[must_use]
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    pub(crate) fn into_standing(self) -> Option<Standing> {
        match self {
            Self::Allow(standing) | Self::Deny(standing) => Some(standing),
            Self::Banned { .. } | Self::DenyListed => None,
        }
    }

    /// How the caller stands, if a quota decided.
    #[must_use]
    pub const fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Allow(standing) | Self::Deny(standing) => Some(standing),
            Self::Banned { .. } | Self::DenyListed => None,
        }
    }
}

/// How a caller stands with a rule, this request included if it was let through.
#[derive(Clone, Debug)]
pub struct Standing {
    terms: Arc<Terms>,
    limit: Limit,
    ahead: u64,
    cost: u32,
}

/// A request that was counted in one bucket, or did not fit: what a [`Decision`] says, but borrowed, because
/// threads that count up and down who reads the same terms are in each other's way.
pub(crate) struct Counted<'r> {
    pub(crate) terms: &'r Arc<Terms>,
    pub(crate) limit: Limit,
    pub(crate) verdict: Verdict,
    pub(crate) cost: u32,
}

impl Counted<'_> {
    pub(crate) fn decision(&self) -> Decision {
        let standing = Standing {
            terms: Arc::clone(self.terms),
            limit: self.limit,
            ahead: self.verdict.ahead(),
            cost: self.cost,
        };
        match self.verdict {
            Verdict::Allow { .. } => Decision::Allow(standing),
            Verdict::Deny { .. } => Decision::Deny(standing),
        }
    }
}

impl Standing {
    pub(crate) fn of(charge: &Charge<'_>, ahead: u64) -> Self {
        Self {
            terms: Arc::clone(charge.terms()),
            limit: charge.limit,
            ahead,
            cost: charge.cost,
        }
    }

    /// The rule's name.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.terms.rule
    }

    /// How many requests the quota grants in its window.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.terms.requests
    }

    /// How many requests would be let through if they came now (tokens, where requests take several).
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.limit.remaining(self.ahead)
    }

    /// How long until nothing is used up any more.
    #[must_use]
    pub const fn reset_after(&self) -> Duration {
        Duration::from_micros(self.limit.reset(self.ahead))
    }

    /// How long until one more such request is let through; zero if it would be now.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        Duration::from_micros(self.limit.wait(self.ahead, self.cost))
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }
}
