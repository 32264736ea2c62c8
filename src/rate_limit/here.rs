//! Decisions that this instance makes by itself: always without Redis, and while Redis is away.

use std::sync::Arc;

use crate::event::Event;
use crate::rate_limit::charges::{Charge, nearest, take_each};
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::settle::{Item, Settlement};
use crate::rate_limit::who::Who;

/// What was decided, and what of it waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) decision: Option<Decision>,
    pub(crate) items: Vec<Item>,
}

impl Outcome {
    /// Whether the request goes on.
    pub(crate) fn passes(&self) -> bool {
        self.decision.as_ref().is_none_or(Decision::is_allow)
    }

    /// The decision, and what waits for the answer.
    pub(crate) fn finish(
        self,
        ledger: &Arc<Ledger>,
    ) -> (Option<Decision>, Option<Box<Settlement>>) {
        let settlement = (self.passes() && !self.items.is_empty()).then(|| {
            Box::new(Settlement {
                ledger: Arc::clone(ledger),
                items: self.items,
            })
        });
        (self.decision, settlement)
    }
}

/// Counts a request in all these buckets or in none.
pub(crate) fn decide<'c>(
    ledger: &Ledger,
    charges: impl Iterator<Item = &'c Charge<'c>> + Clone,
    who: &impl Who,
    now: u64,
) -> Outcome {
    let mut items = Vec::new();
    let late = |charge: &Charge<'_>, ahead| {
        if charge.rule.settles {
            items.push(item(charge, ahead, now));
        }
    };
    let Some((charge, verdict)) = take_each(&ledger.table, now, charges.clone(), late) else {
        return Outcome::default();
    };
    let allowed = verdict.is_allow();
    if allowed {
        ledger.tell_allowed(charges);
    } else {
        items.clear();
    }
    Outcome {
        decision: Some(spoken(ledger, charge, (allowed, verdict.ahead()), who, now)),
        items,
    }
}

/// How a request stands with the bucket that is nearest to its end, or that denies it longest. Charges
/// nothing.
pub(crate) fn look<'c>(
    ledger: &Ledger,
    charges: impl Iterator<Item = &'c Charge<'c>> + Clone,
    now: u64,
) -> Option<Decision> {
    let known = charges.map(|charge| (charge, ledger.table.ahead(charge.key, now)));
    let wait = |(charge, ahead): &(&Charge<'_>, u64)| charge.limit.wait(*ahead, charge.cost);
    let longest = known.clone().max_by_key(wait)?;
    if wait(&longest) > 0 {
        return Some(Decision::Deny(Standing::of(longest.0, longest.1)));
    }
    nearest(known).map(|(charge, ahead)| Decision::Allow(Standing::of(charge, ahead)))
}

/// Counts a request that was let through by the rules that only watch, as they would if enforced. In a fleet
/// each instance watches by itself.
pub(crate) fn watch<'c>(
    ledger: &Ledger,
    charges: impl Iterator<Item = &'c Charge<'c>>,
    items: &mut Vec<Item>,
    now: u64,
) {
    for charge in charges {
        let rule = &*charge.terms().rule;
        let table = &ledger.table;
        let verdict = table.charge(charge.key, now, charge.limit, charge.cost);
        ledger.events.emit(match verdict.is_allow() {
            true => Event::RateLimitAllowed { rule },
            false => Event::RateLimitDenied { rule, shadow: true },
        });
        if verdict.is_allow() && charge.rule.settles {
            items.push(item(charge, verdict.ahead(), now));
        }
    }
}

/// The decision by the charge that speaks for all, noted.
#[inline]
pub(crate) fn spoken(
    ledger: &Ledger,
    charge: &Charge<'_>,
    (allowed, ahead): (bool, u64),
    who: &impl Who,
    now: u64,
) -> Decision {
    note(ledger, charge, (allowed, ahead), who, now);
    let standing = Standing::of(charge, ahead);
    match allowed {
        true => Decision::Allow(standing),
        false => Decision::Deny(standing),
    }
}

/// Notes who was refused, or is let through near the end.
pub(crate) fn note(
    ledger: &Ledger,
    charge: &Charge<'_>,
    (allowed, ahead): (bool, u64),
    who: &impl Who,
    now: u64,
) {
    if !allowed {
        ledger.tell_denied(charge, who, now);
    } else if charge.limit.is_near(ahead) {
        ledger.note(charge, who, false, now);
    }
}

/// A charge that waits for the answer, and so far ahead has moved its bucket's time.
fn item(charge: &Charge<'_>, ahead: u64, now: u64) -> Item {
    Item {
        rule: Arc::clone(charge.rule),
        key: charge.key,
        limit: charge.limit,
        at: now,
        until: now.saturating_add(ahead),
        cost: charge.cost,
        #[cfg(feature = "redis")]
        stop: None,
    }
}
