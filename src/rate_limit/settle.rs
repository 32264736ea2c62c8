//! What is left to count when the answer is there: requests that do not count after all are given back, and
//! costs that only the answer tells are charged.

use std::sync::Arc;

use http::Response;

use crate::identity::ResponseView;
use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::cost::{Cost, RequestCost};
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
        // What was taken from a lease was never charged here, and goes back there alone.
        #[cfg(feature = "redis")]
        if let (Some(shared), Some(stop)) = (&ledger.shared, &self.stop)
            && stop.held.is_some()
        {
            return shared.fleet.give_back(stop.clone(), tokens);
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
        // Not here as well: a question that goes out before Redis has heard of it would tell of it, too.
        #[cfg(feature = "redis")]
        if let (Some(shared), Some(stop)) = (&ledger.shared, &self.stop) {
            return shared.fleet.debit(stop.clone(), self.at, tokens);
        }
        let now = ledger.now();
        let limit = self.limit.after(now.saturating_sub(self.at));
        ledger.table.debit(self.key, now, limit, tokens);
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

#[cfg(all(test, feature = "redis"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::event::Events;
    use crate::rate_limit::ask::{Meter, Part};
    use crate::rate_limit::config::RateLimitConfig;
    use crate::rate_limit::fleet::{Fleet, FleetParts};
    use crate::rate_limit::ledger::SharedLedger;
    use crate::rate_limit::limiter::books;
    use crate::rate_limit::mode::Mode;
    use crate::rate_limit::outage::Outage;
    use crate::rate_limit::quota::Quota;
    use crate::rate_limit::rule::Rule;
    use crate::rate_limit::shared::Shared;
    use crate::rate_limit::spoken::Spoken;
    use crate::rate_limit::voice::Voice;
    use crate::store::RedisPool;
    use crate::task::Tasks;

    const KEY: u64 = 7 << 50 | 7;

    /// Books of a fleet whose Redis nobody needs.
    fn shared_books(tasks: &Tasks) -> Ledger {
        let (clock, _hand) = Clock::manual();
        let mut books = books(&RateLimitConfig::default(), clock.clone(), Events::none());
        let outage = Arc::new(Outage::new(1));
        let shared = Shared::new(RedisPool::disabled(), tasks.spawner());
        let fleet = Fleet::new(FleetParts {
            shared: shared.clone(),
            spawner: tasks.spawner(),
            clock,
            events: Events::none(),
            table: Arc::clone(&books.table),
            penalties: None,
            outage: Arc::clone(&outage),
        });
        books.shared = Some(SharedLedger {
            fleet,
            outage,
            spoken: Spoken::default(),
            voice: Voice::new(shared, tasks.spawner()),
        });
        books
    }

    /// A question that goes out in between carries what is known here.
    #[tokio::test]
    async fn what_is_charged_afterwards_is_charged_here_only_where_redis_does_not_hear_of_it() {
        let tasks = Tasks::new().unwrap();
        let books = shared_books(&tasks);
        let item = item(&books, None).unwrap();
        let (now, interval) = (books.now(), item.limit.interval());
        item.debit(&books, 3);
        assert_eq!(books.table.ahead(KEY, now), 0);
        while books.table.ahead(KEY, now) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(books.table.ahead(KEY, now), 3 * interval);
    }

    /// A request that has taken one of a hundred tokens, of a lease that ends then.
    fn item(books: &Ledger, held: Option<u64>) -> Option<Item> {
        let rule = Rule::new("r", Quota::requests(100).per(Duration::from_secs(100)));
        let rule = Arc::new(CompiledRule::new(&rule, Mode::Leased).ok()?);
        let (limit, now) = (rule.base.terms.limit, books.now());
        let (interval, fill) = (limit.interval(), limit.fill());
        let part = Part {
            owner: "caller:alice".into(),
            bucket: "r".into(),
            meter: Meter::Rolling { interval, fill },
            cost: 1,
            lease: 0,
            hint: 0,
            debt: 0,
            window: 0,
        };
        Some(Item {
            rule,
            key: KEY,
            limit,
            at: now,
            until: now + fill,
            cost: 1,
            stop: Some(Stop {
                key: KEY,
                limit,
                leased: true,
                held,
                gives_back: true,
                part,
            }),
        })
    }

    #[tokio::test]
    async fn tokens_of_a_lease_go_back_to_the_lease_alone() {
        let tasks = Tasks::new().unwrap();
        let books = shared_books(&tasks);
        let (now, limit) = (books.now(), item(&books, None).unwrap().limit);
        let interval = limit.interval();
        books.table.put(KEY, now, 50 * interval);
        for (held, ahead) in [(Some(now + limit.fill()), 50), (None, 49)] {
            item(&books, held).unwrap().give_back(&books, 1);
            assert_eq!(books.table.ahead(KEY, now), ahead * interval, "{held:?}");
        }
    }
}
