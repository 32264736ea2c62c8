//! Questions under way to Redis: requests for the same buckets share one.
//!
//! The first that asks is under way at once and alone. Those that come while it has no answer gather, and
//! go together as soon as it has: one question for as many requests as there are, answered first come,
//! first served. So a key has one question under way at a time, however many ask.
//!
//! Whoever asks holds the key's [`Row`]. When it is dropped, for whatever reason, nobody is left waiting.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::sync::{Mutex, MutexGuard, PoisonError, oneshot};

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
    Lead(Row<A>, Vec<oneshot::Sender<A>>, oneshot::Receiver<A>),
    /// The answer comes with the next one.
    Join(oneshot::Receiver<A>),
    /// Too many wait.
    Full,
}

/// The right to ask about a key, one question after the other.
#[derive(Debug)]
pub(crate) struct Row<A> {
    flights: Arc<Flights<A>>,
    key: u64,
    /// Whether it has ended: what is there about the key now is somebody else's.
    over: bool,
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
    pub(crate) fn board(self: &Arc<Self>, key: u64) -> Boarding<A> {
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
        Boarding::Lead(self.row(key), vec![sender], receiver)
    }

    /// Takes off for `key` although nobody waits, unless a question is under way already.
    pub(crate) fn lead(self: &Arc<Self>, key: u64) -> Option<Row<A>> {
        let mut gathering = lock(&self.gathering);
        let free = gathering.by_key.len() < WAITING_MAX && !gathering.by_key.contains_key(&key);
        if free {
            gathering.by_key.insert(key, Vec::new());
        }
        free.then(|| self.row(key))
    }

    fn row(self: &Arc<Self>, key: u64) -> Row<A> {
        Row {
            flights: Arc::clone(self),
            key,
            over: false,
        }
    }
}

impl<A> Row<A> {
    /// Those who have gathered meanwhile and still wait, to ask for next; `None` if there are none, which
    /// ends the row.
    pub(crate) fn next(&mut self) -> Option<Vec<oneshot::Sender<A>>> {
        if self.over {
            return None;
        }
        let mut gathering = lock(&self.flights.gathering);
        let gathering = &mut *gathering;
        let mut gathered = std::mem::take(gathering.by_key.get_mut(&self.key)?);
        gathering.waiting -= gathered.len();
        gathered.retain(|waiter| !waiter.is_closed());
        if gathered.is_empty() {
            gathering.by_key.remove(&self.key);
            self.over = true;
            return None;
        }
        Some(gathered)
    }
}

impl<A> Drop for Row<A> {
    /// Ends the row at once. Those who wait are told by the end of their channels.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut gathering = lock(&self.flights.gathering);
        if let Some(gathered) = gathering.by_key.remove(&self.key) {
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

    fn lead(flights: &Arc<Flights<u32>>, key: u64) -> (Row<u32>, oneshot::Receiver<u32>) {
        match flights.board(key) {
            Boarding::Lead(row, _, receiver) => (row, receiver),
            other => panic!("{other:?}"),
        }
    }

    fn join(flights: &Arc<Flights<u32>>, key: u64) -> oneshot::Receiver<u32> {
        match flights.board(key) {
            Boarding::Join(receiver) => receiver,
            other => panic!("a second question about the same key: {other:?}"),
        }
    }

    #[test]
    fn one_asks_and_the_others_go_together() {
        let flights = Arc::new(Flights::new());
        let (mut row, _first) = lead(&flights, 1);
        let mut joined: Vec<_> = (0..3).map(|_| join(&flights, 1)).collect();
        // Who has gone away is not asked for.
        joined.pop();
        assert!(flights.lead(1).is_none());
        assert!(flights.lead(2).is_some());
        for sender in row.next().unwrap() {
            sender.send(5).unwrap();
        }
        for mut receiver in joined {
            assert_eq!(receiver.try_recv(), Ok(5));
        }
        assert!(row.next().is_none());
        let _again = lead(&flights, 1);
        assert_eq!(lock(&flights.gathering).waiting, 0);
    }

    #[test]
    fn an_end_tells_all_who_wait() {
        let flights = Arc::new(Flights::new());
        let (row, _first) = lead(&flights, 1);
        let mut waiting = join(&flights, 1);
        drop(row);
        assert!(
            waiting
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        assert!(matches!(flights.board(1), Boarding::Lead(..)));
    }

    /// Between its last look and its end somebody else may have begun to ask.
    #[test]
    fn a_row_that_has_ended_does_not_end_the_one_after_it() {
        let flights = Arc::new(Flights::new());
        let (mut row, _first) = lead(&flights, 1);
        assert!(row.next().is_none());
        let (mut after, _second) = lead(&flights, 1);
        let mut waiting = join(&flights, 1);
        assert!(row.next().is_none());
        drop(row);
        assert_eq!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(after.next().map(|seats| seats.len()), Some(1));
    }

    #[test]
    fn not_too_many_wait() {
        let flights = Arc::new(Flights::new());
        let (mut row, _first) = lead(&flights, 1);
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| flights.board(1)).collect();
        assert!(matches!(flights.board(1), Boarding::Full));
        assert!(matches!(flights.board(2), Boarding::Lead(..)));
        drop(waiting);
        assert!(row.next().is_none(), "all of them have gone away");
    }
}
