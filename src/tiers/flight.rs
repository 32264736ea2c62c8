//! Single flight: one asks the origin, the others for the same key wait for its answer.
//!
//! The first to [`board`](Flights::board) leads and holds a [`Pilot`]. Dropping it, for whatever reason
//! (the client left, the handler panicked, the body broke off), wakes the followers, of which the
//! first to board again leads next. Nobody waits for someone who is gone.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::tiers::hashed::BuildHashed;

/// All flights under way, which land with an `L`.
#[derive(Debug)]
pub(crate) struct Flights<L> {
    shards: [Mutex<Shard<L>>; SHARDS],
}

/// By the hash of what is fetched: a key, and for which of its variants (as far as it is known to have
/// any). The hash is seeded at random. Two keys that share one would only wait for each other, and look
/// for themselves then.
type Shard<L> = HashMap<u64, Arc<Flight<L>>, BuildHashed>;

#[derive(Debug)]
struct Flight<L> {
    landing: OnceLock<Option<L>>,
    landed: Notify,
    began: Moment,
}

/// What waiting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited<L> {
    /// The flight has landed with this.
    Landed(L),
    /// The leader is gone without an answer: board again.
    Gone,
    /// It has been under way for as long as anybody waits.
    TooLong,
}

/// What boarding came to.
#[derive(Debug)]
pub(crate) enum Boarding<L> {
    Lead(Pilot<L>),
    Follow(Passenger<L>),
}

/// The leader's part; dropping it frees the key and wakes the followers.
#[derive(Debug)]
pub(crate) struct Pilot<L> {
    flights: Arc<Flights<L>>,
    flight: Arc<Flight<L>>,
    hash: u64,
    landing: Option<L>,
}

/// A follower's part.
#[derive(Debug)]
pub(crate) struct Passenger<L> {
    flight: Arc<Flight<L>>,
    /// For how long the leader had been away already when this one boarded.
    missed: Duration,
}

impl<L> Flights<L> {
    pub(crate) fn new() -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { shards })
    }

    /// Joins the flight for what has this hash, or starts it. One that has been under way for longer than
    /// anybody waits is given up on, and another one starts in its place: a leader that never comes back,
    /// such as a client that reads a byte a second, must not leave all others to fetch for themselves.
    pub(crate) fn board(self: &Arc<Self>, hash: u64, now: Moment, wait: Duration) -> Boarding<L> {
        match self.shard(hash).entry(hash) {
            hash_map::Entry::Occupied(mut under_way) => {
                let missed = now.since(under_way.get().began);
                if missed < wait {
                    let flight = Arc::clone(under_way.get());
                    return Boarding::Follow(Passenger { flight, missed });
                }
                let flight = Flight::new(now);
                under_way.insert(Arc::clone(&flight));
                Boarding::Lead(self.pilot(flight, hash))
            }
            hash_map::Entry::Vacant(free) => {
                let flight = Flight::new(now);
                free.insert(Arc::clone(&flight));
                Boarding::Lead(self.pilot(flight, hash))
            }
        }
    }

    fn pilot(self: &Arc<Self>, flight: Arc<Flight<L>>, hash: u64) -> Pilot<L> {
        Pilot {
            flights: Arc::clone(self),
            flight,
            hash,
            landing: None,
        }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<L>> {
        // The upper bits: the table within the shard takes the lower ones.
        lock(&self.shards[(hash >> 60) as usize % SHARDS])
    }
}

/// Nothing that can panic runs under the lock, so poison is ignored.
fn lock<L>(shard: &Mutex<Shard<L>>) -> MutexGuard<'_, Shard<L>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<L> Flight<L> {
    fn new(now: Moment) -> Arc<Self> {
        Arc::new(Self {
            landing: OnceLock::new(),
            landed: Notify::new(),
            began: now,
        })
    }
}

impl<L> Pilot<L> {
    /// Whether anybody is on board beside the pilot: the board and it hold one each.
    pub(crate) fn has_passengers(&self) -> bool {
        Arc::strong_count(&self.flight) > 2
    }

    /// Ends the flight.
    pub(crate) fn land(mut self, landing: L) {
        self.landing = Some(landing);
    }

    /// Ends the flight for those on board, while the pilot has more to do.
    pub(crate) fn hand_over(&mut self, landing: L) {
        self.landing = Some(landing);
        self.end();
    }

    /// Somebody who waits from the beginning.
    pub(crate) fn passenger(&self) -> Passenger<L> {
        Passenger {
            flight: Arc::clone(&self.flight),
            missed: Duration::ZERO,
        }
    }

    /// Does nothing the second time.
    fn end(&mut self) {
        // First off the board, so that nobody boards what has landed.
        let mut shard = self.flights.shard(self.hash);
        if let hash_map::Entry::Occupied(under_way) = shard.entry(self.hash)
            && Arc::ptr_eq(under_way.get(), &self.flight)
        {
            under_way.remove();
        }
        drop(shard);
        // Nobody else sets it.
        let _ = self.flight.landing.set(self.landing.take());
        self.flight.landed.notify_waiters();
    }
}

impl<L> Drop for Pilot<L> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<L: Clone + Send + Sync> Passenger<L> {
    /// Waits until the flight has landed, at most until it has been under way for `wait`. A leader that
    /// dawdles, be it a client that reads a byte a second, thus costs nobody more than `wait`, and
    /// latecomers nothing. Safe to drop at any time.
    pub(crate) async fn wait(&self, wait: Duration) -> Waited<L> {
        let wait = wait.saturating_sub(self.missed);
        let landed = async {
            let mut landed = std::pin::pin!(self.flight.landed.notified());
            // Listed before the look: a landing in between is heard.
            landed.as_mut().enable();
            if self.flight.landing.get().is_none() {
                landed.await;
            }
            match self.flight.landing.get() {
                Some(Some(landing)) => Waited::Landed(landing.clone()),
                _ => Waited::Gone,
            }
        };
        let landed = tokio::time::timeout(wait, landed).await;
        landed.unwrap_or(Waited::TooLong)
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;
    const WAIT: Duration = Duration::from_secs(5);

    fn follower(flights: &Arc<Flights<u8>>) -> Passenger<u8> {
        match flights.board(KEY, Moment::default(), WAIT) {
            Boarding::Follow(passenger) => passenger,
            Boarding::Lead(_) => panic!("somebody leads already"),
        }
    }

    fn leader(flights: &Arc<Flights<u8>>) -> Pilot<u8> {
        match flights.board(KEY, Moment::default(), WAIT) {
            Boarding::Lead(pilot) => pilot,
            Boarding::Follow(_) => panic!("nobody leads yet"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn followers_learn_how_the_flight_ended() {
        let flights = Flights::new();
        let pilot = leader(&flights);
        let passengers: Vec<_> = (0..100).map(|_| follower(&flights)).collect();
        pilot.land(7);
        for passenger in passengers {
            let landing = passenger.wait(Duration::from_secs(1)).await;
            assert_eq!(landing, Waited::Landed(7));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_dropped_hands_the_key_on() {
        let flights = Flights::new();
        let pilot = leader(&flights);
        let passenger = follower(&flights);
        drop(pilot);
        let landing = passenger.wait(Duration::from_secs(1)).await;
        assert_eq!(landing, Waited::Gone);
        leader(&flights).land(7);
    }

    /// A client that reads its answer a byte at a time leads for hours.
    #[tokio::test(start_paused = true)]
    async fn whoever_boards_a_flight_that_is_late_leads_another() {
        let flights = Flights::new();
        let dawdler = leader(&flights);
        let late = Moment::default().plus(WAIT);
        let Boarding::Lead(pilot) = flights.board(KEY, late, WAIT) else {
            panic!("nobody waits for ever")
        };
        let Boarding::Follow(passenger) = flights.board(KEY, late, WAIT) else {
            panic!("somebody leads already")
        };
        // The end of the first is not the end of the second.
        drop(dawdler);
        assert_eq!(flights.len(), 1);
        pilot.land(7);
        let landing = passenger.wait(WAIT).await;
        assert_eq!(landing, Waited::Landed(7));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn variants_fly_apart() {
        let flights = Flights::new();
        let _pilot = leader(&flights);
        let other = flights.board(KEY + 1, Moment::default(), WAIT);
        assert!(matches!(other, Boarding::Lead(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let flights = Flights::new();
        let _pilot = leader(&flights);
        let passenger = follower(&flights);
        let landing = passenger.wait(Duration::from_secs(1)).await;
        assert_eq!(landing, Waited::TooLong);
    }
}
