//! All open connections, so that the silent ones are found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Moment;
use crate::connections::seat::{Place, Seat};

/// The open seats, in a few rows of their own lock each: opening, ending and looking through one row do not
/// wait for the others.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    rows: [Mutex<Row>; ROWS],
    next: AtomicUsize,
}

/// A row keeps the length of its fullest moment, 12 bytes for each seat.
#[derive(Debug, Default)]
struct Row {
    seats: Vec<Option<Arc<Seat>>>,
    /// The empty places.
    empty: Vec<u32>,
}

impl Seats {
    /// Puts up a seat for a connection that opens `now`.
    pub(crate) fn add(&self, tenant: Option<Arc<str>>, now: Moment) -> Arc<Seat> {
        let shard = self.next.fetch_add(1, Ordering::Relaxed) % ROWS;
        let mut row = self.row(shard);
        let index = match row.empty.pop() {
            Some(index) => index as usize,
            None => {
                row.seats.push(None);
                row.seats.len() - 1
            }
        };
        let seat = Arc::new(Seat::new(tenant, Place { shard, index }, now));
        row.seats[index] = Some(Arc::clone(&seat));
        seat
    }

    /// Takes the seat away. Only who has ended it may, and so only once.
    pub(crate) fn remove(&self, seat: &Seat) {
        let Place { shard, index } = seat.place;
        let mut row = self.row(shard);
        // Freed after the lock is given back.
        let _gone = row.seats[index].take();
        row.empty.push(u32::try_from(index).unwrap_or(u32::MAX));
        drop(row);
    }

    /// Shows each seat that `is_meant` to `end`, row by row; `end` is called without a lock, so that it may
    /// remove what it is shown. Returns for how many it said yes.
    pub(crate) fn each(
        &self,
        is_meant: impl Fn(&Seat) -> bool,
        end: impl Fn(&Seat) -> bool,
    ) -> usize {
        let mut ended = 0;
        let mut meant = Vec::new();
        for shard in 0..ROWS {
            let row = self.row(shard);
            let seats = row.seats.iter().flatten();
            meant.extend(seats.filter(|seat| is_meant(seat)).map(Arc::clone));
            drop(row);
            ended += meant.drain(..).filter(|seat| end(seat)).count();
        }
        ended
    }

    /// A panic cannot leave a row half-changed, so poison is ignored.
    fn row(&self, shard: usize) -> MutexGuard<'_, Row> {
        self.rows[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// At 10,000 connections a row of 1,250 is looked through in some microseconds.
const ROWS: usize = 8;
