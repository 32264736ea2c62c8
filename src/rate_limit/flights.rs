//! Questions under way to Redis: requests for the same buckets share one.
//!
//! The first that asks is under way at once and alone. Those that come while it has no answer gather, and
//! go together as soon as it has: one question for as many requests as there are, answered first come,
//! first served. So a key has one question under way at a time, however many ask.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

/// How many may wait for answers at a time. Beyond, requests are decided here: Redis is not keeping up.
const WAITING_MAX: usize = 16_384;

/// What waits, by the buckets that are asked about. `A` is an answer.
#[derive(Debug)]
pub(crate) struct Flights<A> {
    gathering: Mutex<Gathering<A>>,
}

#[derive(Debug)]
struct Gathering<A> {
    by_key: HashMap<u64, Vec<oneshot::Sender<A>>, RandomState>,
    waiting: usize,
}

/// What a request does that wants an answer.
#[derive(Debug)]
pub(crate) enum Boarding<A> {
    /// A question must be asked, for these.
    Lead(Vec<oneshot::Sender<A>>, oneshot::Receiver<A>),
    /// The answer comes with the next one.
    Join(oneshot::Receiver<A>),
    /// Too many wait.
    Full,
}

impl<A> Flights<A> {
    pub(crate) fn new() -> Self {
        Self {
            gathering: Mutex::new(Gathering {
                by_key: HashMap::default(),
                waiting: 0,
            }),
        }
    }

    /// Waits for an answer about `key`.
    pub(crate) fn board(&self, key: u64) -> Boarding<A> {
        let mut gathering = lock(&self.gathering);
        let gathering = &mut *gathering;
        let (sender, receiver) = oneshot::channel();
        if let Some(others) = gathering.by_key.get_mut(&key) {
            if gathering.waiting >= WAITING_MAX {
                return Boarding::Full;
            }
            others.push(sender);
            gathering.waiting += 1;
            return Boarding::Join(receiver);
        }
        if gathering.by_key.len() >= WAITING_MAX {
            return Boarding::Full;
        }
        gathering.by_key.insert(key, Vec::new());
        Boarding::Lead(vec![sender], receiver)
    }

    /// Takes off for `key` although nobody waits; false if a question is under way already.
    pub(crate) fn lead(&self, key: u64) -> bool {
        let mut gathering = lock(&self.gathering);
        let free = gathering.by_key.len() < WAITING_MAX && !gathering.by_key.contains_key(&key);
        if free {
            gathering.by_key.insert(key, Vec::new());
        }
        free
    }

    /// Those who have gathered meanwhile and still wait, to ask for next; `None` if there are none, which
    /// ends the row of questions about `key`.
    pub(crate) fn next(&self, key: u64) -> Option<Vec<oneshot::Sender<A>>> {
        let mut gathering = lock(&self.gathering);
        let gathering = &mut *gathering;
        let mut gathered = std::mem::take(gathering.by_key.get_mut(&key)?);
        gathering.waiting -= gathered.len();
        gathered.retain(|waiter| !waiter.is_closed());
        if gathered.is_empty() {
            gathering.by_key.remove(&key);
            return None;
        }
        Some(gathered)
    }

    /// Ends the row at once. Those who wait are told by the end of their channels.
    pub(crate) fn end(&self, key: u64) {
        let mut gathering = lock(&self.gathering);
        if let Some(gathered) = gathering.by_key.remove(&key) {
            gathering.waiting -= gathered.len();
        }
    }
}

fn lock<A>(gathering: &Mutex<Gathering<A>>) -> MutexGuard<'_, Gathering<A>> {
    // Nothing in here panics halfway.
    gathering.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(flights: &Flights<u32>, key: u64) -> oneshot::Receiver<u32> {
        match flights.board(key) {
            Boarding::Lead(_, receiver) => receiver,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_asks_and_the_others_go_together() {
        let flights = Flights::new();
        let _first = lead(&flights, 1);
        let mut joined = Vec::new();
        for _ in 0..3 {
            let Boarding::Join(receiver) = flights.board(1) else {
                panic!("a second question about the same key");
            };
            joined.push(receiver);
        }
        // Who has gone away is not asked for.
        joined.pop();
        assert!(!flights.lead(1));
        assert!(flights.lead(2));
        for sender in flights.next(1).unwrap() {
            sender.send(5).unwrap();
        }
        for mut receiver in joined {
            assert_eq!(receiver.try_recv(), Ok(5));
        }
        assert!(flights.next(1).is_none());
        let _again = lead(&flights, 1);
        assert_eq!(lock(&flights.gathering).waiting, 0);
    }

    #[test]
    fn an_end_tells_all_who_wait() {
        let flights = Flights::new();
        let _first = lead(&flights, 1);
        let Boarding::Join(mut waiting) = flights.board(1) else {
            panic!("a second question about the same key");
        };
        flights.end(1);
        assert!(waiting.try_recv().is_err());
        assert!(matches!(flights.board(1), Boarding::Lead(..)));
    }

    #[test]
    fn not_too_many_wait() {
        let flights = Flights::new();
        let _first = lead(&flights, 1);
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| flights.board(1)).collect();
        assert!(matches!(flights.board(1), Boarding::Full));
        assert!(matches!(flights.board(2), Boarding::Lead(..)));
        drop(waiting);
        assert!(flights.next(1).is_none(), "all of them have gone away");
    }
}
