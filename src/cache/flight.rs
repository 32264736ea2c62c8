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

/// All flights under way.
#[derive(Debug)]
pub(crate) struct Flights {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

type Shard = HashMap<CacheKey, watch::Sender<Option<Landing>>, RandomState>;

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
    key: CacheKey,
    landing: Landing,
}

/// A follower's part.
#[derive(Debug)]
pub(crate) struct Passenger {
    landed: watch::Receiver<Option<Landing>>,
}

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self {
            shards,
            hasher: RandomState::default(),
        })
    }

    /// Joins the flight for `key`, or starts it.
    pub(crate) fn board(self: &Arc<Self>, key: &CacheKey) -> Boarding {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(key) {
            return Boarding::Follow(Passenger {
                landed: flight.subscribe(),
            });
        }
        shard.insert(key.clone(), watch::Sender::new(None));
        drop(shard);
        let flights = Arc::clone(self);
        Boarding::Lead(Pilot {
            flights,
            key: key.clone(),
            landing: Landing::Gone,
        })
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard> {
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
            flight.send_replace(Some(self.landing));
        }
    }
}

impl Passenger {
    /// Waits until the flight has landed, at most `wait`; then it counts as unusable. Safe to drop at
    /// any time.
    pub(crate) async fn wait(mut self, wait: Duration) -> Landing {
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
        match flights.board(&key()) {
            Boarding::Follow(passenger) => passenger,
            Boarding::Lead(_) => panic!("somebody leads already"),
        }
    }

    fn leader(flights: &Arc<Flights>) -> Pilot {
        match flights.board(&key()) {
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
