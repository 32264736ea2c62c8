//! What is left to count when the answer is there: requests that do not count after all are given back, and
//! costs that only the answer tells are charged.

use std::sync::Arc;

use http::Response;

use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::cost::{Cost, RequestCost};
use crate::rate_limit::count::ResponseView;
use crate::rate_limit::gcra::Limit;
use crate::rate_limit::ledger::Ledger;
#[cfg(feature = "redis")]
use crate::rate_limit::question::Stop;

/// The buckets of a request that wait for its answer. Dropped without one, all stays as it was charged.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) items: Vec<Item>,
}

/// One bucket.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) rule: Arc<CompiledRule>,
    pub(crate) key: u64,
    /// As it stood at `at`, in ticks.
    pub(crate) limit: Limit,
    pub(crate) at: u64,
    /// When the charge will have grown back by itself, in ticks: what is given back later is not charged
    /// any more, and would be taken from what others are charged. Of no meaning to a calendar's.
    pub(crate) until: u64,
    pub(crate) cost: u32,
    /// The bucket in Redis, if it was charged there.
    #[cfg(feature = "redis")]
    pub(crate) stop: Option<Stop>,
}

/// Counts an answer's body, and charges it when the body ends or is dropped.
#[derive(Debug)]
pub(crate) struct BodyMeter {
    ledger: Arc<Ledger>,
    items: Vec<Item>,
    bytes: u64,
}

impl Settlement {
    /// Settles by the head of the answer. What is counted by its body is left.
    pub(crate) fn settle<B>(self, response: &Response<B>) -> Option<Box<BodyMeter>> {
        let view = ResponseView::of(response);
        let told = response.extensions().get::<Cost>();
        let mut metered = Vec::new();
        for item in self.items {
            if !item.rule.count.counts(&view) {
                item.give_back(&self.ledger, item.cost);
                continue;
            }
            match (&item.rule.cost, told) {
                (RequestCost::Told, Some(Cost(all))) if *all < item.cost => {
                    item.give_back(&self.ledger, item.cost - all);
                }
                (RequestCost::Told, Some(Cost(all))) => {
                    item.debit(&self.ledger, all - item.cost);
                }
                (RequestCost::BodyBytes, _) => metered.push(item),
                _ => {}
            }
        }
        let (ledger, items, bytes) = (self.ledger, metered, 0);
        (!items.is_empty()).then(|| {
            Box::new(BodyMeter {
                ledger,
                items,
                bytes,
            })
        })
    }
}

impl Item {
    fn give_back(&self, ledger: &Ledger, tokens: u32) {
        if tokens == 0 {
            return;
        }
        let now = ledger.now();
        let limit = self.limit.after(now.saturating_sub(self.at));
        let left = self.until.saturating_sub(now);
        let back = |ahead| limit.give_back(ahead, tokens, left);
        ledger.table.lower(self.key, now, back);
        #[cfg(feature = "redis")]
        if let (Some(shared), Some(stop)) = (&ledger.shared, &self.stop) {
            shared.fleet.give_back(stop.clone(), tokens);
        }
    }

    fn debit(&self, ledger: &Ledger, tokens: u32) {
        if tokens == 0 {
            return;
        }
        let now = ledger.now();
        let limit = self.limit.after(now.saturating_sub(self.at));
        ledger.table.debit(self.key, now, limit, tokens);
        #[cfg(feature = "redis")]
        if let (Some(shared), Some(stop)) = (&ledger.shared, &self.stop) {
            shared.fleet.debit(stop.part.clone(), tokens);
        }
    }
}

impl BodyMeter {
    /// Counts what was sent.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

impl Drop for BodyMeter {
    fn drop(&mut self) {
        let tokens = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        for item in &self.items {
            item.debit(&self.ledger, tokens);
        }
    }
}
