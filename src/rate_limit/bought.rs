//! A charge that goes to Redis.

use std::sync::Arc;

use crate::rate_limit::ask::{Meter, Part};
use crate::rate_limit::calendar::Calendar;
use crate::rate_limit::charges::Charge;
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::mode::Mode;
use crate::rate_limit::question::Stop;
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

    pub(crate) fn item(&self, now: u64) -> Item {
        let (rule, limit) = (Arc::clone(&self.rule), self.stop.limit);
        Item {
            rule,
            key: self.stop.key,
            limit,
            at: now,
            cost: self.stop.part.cost,
            stop: Some(self.stop.clone()),
        }
    }
}
