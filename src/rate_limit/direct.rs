//! Decisions that take no more than a look at one bucket: those of most requests in memory.
//!
//! The same as a decision over all rules of a request, without rows of what there may be several of. Whoever is
//! out of the ordinary (refused, or near the end) is described in a function of its own, so that all others
//! need not wait for it.

use std::sync::Arc;

use crate::event::Event;
use crate::rate_limit::charges::Charge;
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::gcra::{Limit, Verdict};
use crate::rate_limit::here;
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::who::Somebody;

/// Whether decisions with a rule are of this kind, as far as the rule is concerned: it is enforced, and needs
/// not the answer to know what a request counts.
pub(crate) fn is_direct(rule: &CompiledRule) -> bool {
    !rule.shadow && !rule.settles
}

/// A bucket, and what is to be taken from it.
#[derive(Clone, Copy)]
pub(crate) struct Bucket<'r> {
    pub(crate) rule: &'r Arc<CompiledRule>,
    pub(crate) plan: &'r Arc<Plan>,
    pub(crate) key: u64,
    pub(crate) limit: Limit,
    pub(crate) cost: u32,
}

/// Counts a request of an owner in its bucket, if it fits. Books with bans or other instances are not for this.
#[inline]
pub(crate) fn count(
    ledger: &Ledger,
    bucket: Bucket<'_>,
    (owner, ipv6_prefix): (&Owner<'_>, u8),
    now: u64,
) -> Verdict {
    let limit = bucket.limit;
    let verdict = ledger.table.charge(bucket.key, now, limit, bucket.cost);
    match verdict {
        Verdict::Allow { ahead } if !limit.is_near(ahead) => {
            let rule = &*bucket.rule.name;
            ledger.events.emit(Event::RateLimitAllowed { rule });
        }
        _ => tell(ledger, bucket, verdict, (owner, ipv6_prefix), now),
    }
    verdict
}

#[cold]
fn tell(
    ledger: &Ledger,
    bucket: Bucket<'_>,
    verdict: Verdict,
    (owner, ipv6_prefix): (&Owner<'_>, u8),
    now: u64,
) {
    let charge = Charge {
        key: bucket.key,
        rule: bucket.rule,
        plan: bucket.plan,
        limit: bucket.limit,
        cost: bucket.cost,
        bucket: &bucket.plan.bucket,
    };
    let owner = owner.clone();
    let who = Somebody { owner, ipv6_prefix };
    if verdict.is_allow() {
        ledger.tell_allowed([&charge].into_iter());
    }
    here::note(
        ledger,
        &charge,
        (verdict.is_allow(), verdict.ahead()),
        &who,
        now,
    );
}
