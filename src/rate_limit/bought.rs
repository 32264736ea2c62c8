//! A charge that goes to Redis.

use std::sync::Arc;

use crate::rate_limit::ask::{Meter, Part};
use crate::rate_limit::calendar::Calendar;
use crate::rate_limit::charges::Charge;
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::mode::Mode;
use crate::rate_limit::question::{Spot, Stop};
use crate::rate_limit::settle::Item;
use crate::rate_limit::who::Who;

/// A charge that outlives its request's call, and its bucket in Redis.
#[derive(Debug)]
pub(crate) struct Bought {
    pub(crate) rule: Arc<CompiledRule>,
    plan: Arc<Plan>,
    pub(crate) stop: Stop,
}

impl Bought {
    pub(crate) fn new(charge: &Charge<'_>, who: &impl Who, ledger: &Ledger) -> Self {
        let terms = charge.terms();
        let meter = match terms.period {
            Some(period) => Meter::Calendar {
                period,
                requests: terms.requests,
            },
            None => Meter::Rolling {
                interval: charge.limit.interval(),
                fill: charge.limit.fill(),
            },
        };
        let part = Part {
            owner: who.owner(charge),
            bucket: Arc::clone(charge.bucket),
            meter,
            cost: charge.cost,
            lease: 0,
            hint: 0,
            debt: 0,
            window: terms.period.map_or(0, |period| {
                Calendar::end_by_day(period, charge.limit, &ledger.clock)
            }),
        };
        Self {
            rule: Arc::clone(charge.rule),
            plan: Arc::clone(charge.plan),
            stop: Stop {
                key: charge.key,
                limit: charge.limit,
                leased: charge.rule.mode == Mode::Leased,
                held: None,
                gives_back: charge.rule.gives_back(),
                part,
            },
        }
    }

    /// The charge, so many ticks later.
    pub(crate) fn after(&self, ticks: u64) -> Charge<'_> {
        Charge {
            key: self.stop.key,
            rule: &self.rule,
            plan: &self.plan,
            limit: self.stop.limit.after(ticks),
            cost: self.stop.part.cost,
            bucket: &self.stop.part.bucket,
        }
    }

    /// The same charge, whose tokens were taken from a lease that ends then.
    pub(crate) fn held(mut self, end: u64) -> Self {
        self.stop.held = Some(end);
        self
    }

    /// What waits for the answer of a request whose tokens were taken from a lease.
    pub(crate) fn item(&self, now: u64) -> Item {
        Item {
            rule: Arc::clone(&self.rule),
            key: self.stop.key,
            limit: self.stop.limit,
            at: now,
            until: self.stop.held.unwrap_or(now),
            cost: self.stop.part.cost,
            stop: Some(self.stop.clone()),
        }
    }

    /// What waits for the answer of a request that Redis has charged, and so many others after it.
    pub(crate) fn item_of(&self, now: u64, spot: &Spot, behind: u32) -> Item {
        let mut item = self.item(now);
        if let (Meter::Rolling { .. }, Some(stop)) = (self.stop.part.meter, &mut item.stop) {
            let others = stop.part.worth().saturating_mul(u64::from(behind));
            item.until = spot.until.saturating_sub(others);
            stop.part.window = spot.window.saturating_sub(others);
        }
        item
    }
}
