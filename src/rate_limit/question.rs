//! What Redis is asked about a request, and what is made of its answer.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::rate_limit::ask::Part;
use crate::rate_limit::gcra::Limit;

/// A bucket that Redis is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) key: u64,
    /// As it stood at `Route::at`.
    pub(crate) limit: Limit,
    pub(crate) leased: bool,
    /// The end of the lease whose tokens were taken, in ticks; none if Redis was asked.
    pub(crate) held: Option<u64>,
    /// Whether some of what is charged is given back by the answer.
    pub(crate) gives_back: bool,
    pub(crate) part: Part,
}

/// The buckets of a decision.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) stops: Vec<Stop>,
    /// When the limits were looked at, in ticks.
    pub(crate) at: u64,
    /// Whose ban is looked up along with them.
    pub(crate) client: Option<Arc<str>>,
}

/// What Redis said about a request.
#[derive(Clone, Debug)]
pub(crate) struct Landing {
    pub(crate) granted: bool,
    /// How many that were granted along with it were charged after it.
    pub(crate) behind: u32,
    /// What has become of each bucket.
    pub(crate) spots: Arc<[Spot]>,
    pub(crate) at: u64,
    /// How long the client is banned, if it is.
    pub(crate) banned: Option<Duration>,
}

/// What Redis said about a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// How far ahead its time lies.
    pub(crate) ahead: u64,
    /// When what was charged will have grown back, in ticks: rather too early than too late.
    pub(crate) until: u64,
    /// The same as the server tells it; of a calendar, when its window ends.
    pub(crate) window: u64,
}

impl Route {
    /// What tells this question from all others: the buckets, their quotas and costs, and the client.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        self.client.hash(&mut hasher);
        for stop in &self.stops {
            // Hashed under a secret seed before, so that nobody can make two of them meet.
            hasher.write_u64(stop.key);
            hasher.write_u32(stop.part.cost);
            hasher.write_u64(stop.limit.interval());
            hasher.write_u64(stop.limit.fill());
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::ask::Meter;

    fn route(change: impl FnOnce(&mut Route)) -> u64 {
        let limit = Limit::new(10, 100);
        let meter = Meter::Rolling {
            interval: 10,
            fill: 1000,
        };
        let part = Part {
            owner: "caller:alice".into(),
            bucket: "r".into(),
            meter,
            cost: 1,
            lease: 0,
            hint: 0,
            debt: 0,
            window: 0,
        };
        let mut route = Route {
            stops: vec![Stop {
                key: 7,
                limit,
                leased: false,
                held: None,
                gives_back: false,
                part,
            }],
            at: 0,
            client: Some("caller:alice".into()),
        };
        change(&mut route);
        route.key()
    }

    /// Those who go together are judged by the one who goes first.
    #[test]
    fn only_the_same_questions_go_together() {
        let same = route(|_| {});
        assert_eq!(same, route(|route| route.at = 99));
        assert_eq!(same, route(|route| route.stops[0].part.hint = 5));
        for other in [
            route(|route| route.stops[0].key = 8),
            route(|route| route.stops[0].part.cost = 64),
            route(|route| route.stops[0].limit = Limit::new(1, 1000)),
            route(|route| route.client = None),
            route(|route| route.client = Some("caller:mallory".into())),
            route(|route| route.stops.push(route.stops[0].clone())),
        ] {
            assert_ne!(same, other);
        }
    }
}
