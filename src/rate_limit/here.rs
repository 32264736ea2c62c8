//! Decisions that this instance makes by itself: always without Redis, and while Redis is away.

use std::sync::Arc;

use crate::rate_limit::charges::{Charge, take_all};
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::settle::Item;
use crate::rate_limit::who::Who;

/// What was decided, and what of it waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) decision: Option<Decision>,
    pub(crate) items: Vec<Item>,
}

/// Counts a request in all these buckets or in none.
pub(crate) fn decide<'c, 'a: 'c>(
    ledger: &Ledger,
    charges: impl Iterator<Item = &'c Charge<'a>> + Clone,
    who: &impl Who,
    now: u64,
) -> Outcome {
    let Some((charge, verdict)) = take_all(&ledger.table, now, charges.clone()) else {
        return Outcome::default();
    };
    let allowed = verdict.is_allow();
    let mut items = Vec::new();
    if allowed {
        ledger.tell_allowed(charges.clone());
        let late = charges.filter(|charge| charge.rule.settles());
        items.extend(late.map(|charge| item(charge, now)));
    }
    Outcome {
        decision: Some(spoken(ledger, charge, (allowed, verdict.ahead()), who, now)),
        items,
    }
}

/// The decision by the charge that speaks for all, noted.
pub(crate) fn spoken(
    ledger: &Ledger,
    charge: &Charge<'_>,
    (allowed, ahead): (bool, u64),
    who: &impl Who,
    now: u64,
) -> Decision {
    let standing = Standing::of(charge, ahead);
    if allowed {
        if charge.limit.is_near(ahead) {
            ledger.note(charge, who, false, now);
        }
        return Decision::Allow(standing);
    }
    ledger.tell_denied(charge, who, now);
    Decision::Deny(standing)
}

/// A charge that waits for the answer.
pub(crate) fn item(charge: &Charge<'_>, now: u64) -> Item {
    Item {
        rule: Arc::clone(charge.rule),
        key: charge.key,
        limit: charge.limit,
        at: now,
        cost: charge.cost,
        #[cfg(feature = "redis")]
        stop: None,
    }
}
