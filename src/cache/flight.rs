//! Single flight: one request asks the origin, the others for the same key wait for its answer.
//!
//! The first to [`board`](Flights::board) leads and holds a [`Pilot`]. Dropping it, for whatever reason
//! (the client left, the handler panicked, the body broke off), wakes the followers, of which the
//! first to board again leads next. Nobody waits for someone who is gone.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::cache::key::CacheKey;
use crate::clock::Moment;

/// All flights under way.
#[derive(Debug)]
pub(crate) struct Flights {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

type Shard = HashMap<FlightKey, Flight, RandomState>;

/// What is fetched: a URL, and for which of its variants (as far as it is known to have any).
type FlightKey = (CacheKey, u64);

#[derive(Debug)]
struct Flight {
    landing: watch::Sender<Option<Landing>>,
    began: Moment,
}

/// How a flight ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// The answer is stored: look again.
    Stored,
    /// The answer cannot be stored: everybody for themselves.
    Unusable,
    /// The leader is gone without an answer: board again.
    Gone,
}

/// What boarding came to.
#[derive(Debug)]
pub(crate) enum Boarding {
    Lead(Pilot),
    Follow(Passenger),
}

/// The leader's part; dropping it frees the key and wakes the followers.
#[derive(Debug)]
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    key: FlightKey,
    landing: Landing,
}

/// A follower's part.
#[derive(Debug)]
pub(crate) struct Passenger {
    landed: watch::Receiver<Option<Landing>>,
    /// For how long the leader had been away already when this one boarded.
    missed: Duration,
}

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self {
            shards,
            hasher: RandomState::default(),
        })
    }

    /// Joins the flight for this variant of `key`, or starts it.
    pub(crate) fn board(self: &Arc<Self>, key: &CacheKey, variant: u64, now: Moment) -> Boarding {
        let key = (key.clone(), variant);
        let mut shard = self.shard(&key);
        if let Some(flight) = shard.get(&key) {
            return Boarding::Follow(Passenger {
                landed: flight.landing.subscribe(),
                missed: now.since(flight.began),
            });
        }
        let landing = watch::Sender::new(None);
        let flight = Flight {
            landing,
            began: now,
        };
        shard.insert(key.clone(), flight);
        drop(shard);
        let flights = Arc::clone(self);
        Boarding::Lead(Pilot {
            flights,
            key,
            landing: Landing::Gone,
        })
    }

    fn shard(&self, key: &FlightKey) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        // Nothing that can panic runs under the lock, so poison is ignored.
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pilot {
    /// Ends the flight.
    pub(crate) fn land(mut self, landing: Landing) {
        self.landing = landing;
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let flight = self.flights.shard(&self.key).remove(&self.key);
        if let Some(flight) = flight {
            flight.landing.send_replace(Some(self.landing));
        }
    }
}

impl Passenger {
    /// Waits until the flight has landed, at most until it has been under way for `wait`; then it
    /// counts as unusable. A leader that dawdles, be it a client that reads a byte a second, thus costs
    /// nobody more than `wait`, and latecomers nothing. Safe to drop at any time.
    pub(crate) async fn wait(mut self, wait: Duration) -> Landing {
        let wait = wait.saturating_sub(self.missed);
        let landed = tokio::time::timeout(wait, self.landed.wait_for(Option::is_some)).await;
        match landed {
            Ok(Ok(landing)) => landing.unwrap_or(Landing::Gone),
            // The sender is dropped only after it has sent; be safe and board again.
            Ok(Err(_)) => Landing::Gone,
            Err(_) => Landing::Unusable,
        }
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Uri};

    use super::*;
    use crate::cache::key::KeyView;

    fn key() -> CacheKey {
        let uri = Uri::from_static("/k");
        KeyView::of(&uri, &HeaderMap::new(), true)
            .unwrap()
            .to_owned()
    }

    fn follower(flights: &Arc<Flights>) -> Passenger {
        match flights.board(&key(), 0, Moment::default()) {
            Boarding::Follow(passenger) => passenger,
            Boarding::Lead(_) => panic!("somebody leads already"),
        }
    }

    fn leader(flights: &Arc<Flights>) -> Pilot {
        match flights.board(&key(), 0, Moment::default()) {
            Boarding::Lead(pilot) => pilot,
            Boarding::Follow(_) => panic!("nobody leads yet"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn followers_learn_how_the_flight_ended() {
        let flights = Flights::new();
        for landing in [Landing::Stored, Landing::Unusable] {
            let pilot = leader(&flights);
            let passengers: Vec<_> = (0..100).map(|_| follower(&flights)).collect();
            pilot.land(landing);
            for passenger in passengers {
                assert_eq!(passenger.wait(Duration::from_secs(1)).await, landing);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_dropped_hands_the_key_on() {
        let flights = Flights::new();
        let pilot = leader(&flights);
        let passenger = follower(&flights);
        drop(pilot);
        assert_eq!(passenger.wait(Duration::from_secs(1)).await, Landing::Gone);
        leader(&flights).land(Landing::Stored);
    }

    /// A client that reads its answer a byte at a time leads for hours.
    #[tokio::test]
    async fn whoever_boards_a_flight_that_is_late_does_not_wait() {
        let flights = Flights::new();
        let _pilot = leader(&flights);
        let late = Moment::default().plus(Duration::from_secs(3600));
        let Boarding::Follow(passenger) = flights.board(&key(), 0, late) else {
            panic!("somebody leads already")
        };
        assert_eq!(
            passenger.wait(Duration::from_secs(3600)).await,
            Landing::Unusable
        );
    }

    #[test]
    fn variants_fly_apart() {
        let flights = Flights::new();
        let _pilot = leader(&flights);
        let other = flights.board(&key(), 1, Moment::default());
        assert!(matches!(other, Boarding::Lead(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let flights = Flights::new();
        let _pilot = leader(&flights);
        let passenger = follower(&flights);
        assert_eq!(
            passenger.wait(Duration::from_secs(1)).await,
            Landing::Unusable
        );
    }
}
