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
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::who::Somebody;

/// Whether decisions with a rule are of this kind, as far as the rule is concerned: it is enforced, and needs
/// not the answer to know what a request counts.
pub(crate) fn is_direct(rule: &CompiledRule) -> bool {
    !rule.shadow && !rule.settles
}

/// Whose bucket it is.
pub(crate) struct Direct<'d, 'o> {
    pub(crate) owner: &'d Owner<'o>,
    pub(crate) ipv6_prefix: u8,
}

impl Direct<'_, '_> {
    /// Counts a request in its bucket, if it fits. Books with bans or other instances are not for this.
    #[inline]
    pub(crate) fn count(
        &self,
        ledger: &Ledger,
        (rule, plan): (&Arc<CompiledRule>, &Arc<Plan>),
        cost: u32,
        now: u64,
    ) -> (Limit, Verdict) {
        let key = self.owner.key(rule, plan, ledger.table.hasher());
        let (key, limit) = ledger.current(key, &plan.terms, now);
        let verdict = ledger.table.charge(key, now, limit, cost);
        match verdict {
            Verdict::Allow { ahead } if !limit.is_near(ahead) => {
                let rule = &*rule.name;
                ledger.events.emit(Event::RateLimitAllowed { rule });
            }
            _ => {
                let charge = Charge {
                    key,
                    rule,
                    plan,
                    limit,
                    cost,
                    bucket: &plan.bucket,
                };
                self.tell(ledger, &charge, verdict, now);
            }
        }
        (limit, verdict)
    }

    #[cold]
    fn tell(&self, ledger: &Ledger, charge: &Charge<'_>, verdict: Verdict, now: u64) {
        let who = Somebody {
            owner: self.owner.clone(),
            ipv6_prefix: self.ipv6_prefix,
        };
        match verdict {
            Verdict::Allow { .. } => {
                ledger.tell_allowed([charge].into_iter());
                ledger.note(charge, &who, false, now);
            }
            Verdict::Deny { .. } => ledger.tell_denied(charge, &who, now),
        }
    }
}
