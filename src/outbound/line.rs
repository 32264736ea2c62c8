//! Those who wait for one remote, in the order in which they came.
//!
//! Only the first in line asks whether it may go, so an answer or a reset wakes one waiter and not a
//! thousand; going, it wakes the next. A waker that is replaced or woken is handed out, because whose it
//! is may run code of its own, which must not find the remote's lock taken.

use std::collections::VecDeque;
use std::task::Waker;

use crate::clock::Moment;

/// The line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    next_ticket: u64,
    /// In the order of their tickets, hence searchable in O(log n).
    waiters: VecDeque<Waiter>,
}

/// Whoever is in it. Dropped without the remote's lock, as its waker is.
#[derive(Debug)]
pub(crate) struct Waiter {
    ticket: u64,
    /// When it must have gone, if anybody asks for it.
    until: Moment,
    /// `None` until the waiter has asked for the first time, and once it was woken.
    waker: Option<Waker>,
}

impl Line {
    /// A place at the end until then, to be given back by [`leave`](Self::leave).
    pub(crate) fn join(&mut self, until: Moment) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.push_back(Waiter {
            ticket,
            until,
            waker: None,
        });
        ticket
    }

    /// Takes out those before `ticket` whose time has passed and who are still there: nobody polls them.
    pub(crate) fn pass_over(&mut self, ticket: u64, now: Moment) -> Vec<Waiter> {
        let is_over = |waiter: &&Waiter| waiter.ticket < ticket && waiter.until <= now;
        let over = self.waiters.iter().take_while(is_over).count();
        self.waiters.drain(..over).collect()
    }

    pub(crate) fn is_first(&self, ticket: u64) -> bool {
        let first = self.waiters.front();
        first.is_some_and(|first| first.ticket == ticket)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Has `waker` called when the ticket becomes the first, or something changes for the first. Returns
    /// the waker that was called so far, to be dropped without the lock.
    pub(crate) fn note(&mut self, ticket: u64, waker: &Waker) -> Option<Waker> {
        let at = self.position(ticket)?;
        let known = &mut self.waiters.get_mut(at)?.waker;
        match known {
            Some(known) if known.will_wake(waker) => None,
            _ => known.replace(waker.clone()),
        }
    }

    /// Gives a place back. Returns whom to wake: the new first, if that has changed.
    pub(crate) fn leave(&mut self, ticket: u64) -> (Option<Waker>, Option<Waker>) {
        let Some(at) = self.position(ticket) else {
            return (None, None);
        };
        let gone = self.waiters.remove(at).and_then(|waiter| waiter.waker);
        let next = if at == 0 { self.first() } else { None };
        (next, gone)
    }

    /// The first one's waker, to be called without the lock.
    pub(crate) fn first(&mut self) -> Option<Waker> {
        self.waiters.front_mut()?.waker.take()
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_leaves_first_hands_on_and_whoever_leaves_from_the_middle_wakes_nobody() {
        let mut line = Line::default();
        let [a, b, c] = [(); 3].map(|()| line.join(Moment::default()));
        let counts = [(); 3].map(|()| Arc::<Counts>::default());
        for (ticket, count) in [a, b, c].into_iter().zip(&counts) {
            let waker = Arc::clone(count).into();
            assert!(line.note(ticket, &waker).is_none());
            assert!(line.note(ticket, &waker).is_none(), "it is known already");
        }
        assert!(line.is_first(a) && !line.is_first(b));
        assert!(line.leave(b).0.is_none());
        line.leave(a).0.unwrap().wake();
        assert!(line.is_first(c) && line.len() == 1);
        assert_eq!(counts[2].0.load(Ordering::SeqCst), 1);
        assert!(line.first().is_none(), "woken once, until it asks again");
        assert!(line.leave(a).0.is_none() && line.leave(c).0.is_none());
        assert!(line.is_empty());
    }

    #[test]
    fn whoever_overstays_is_passed_over_by_those_who_came_later() {
        let mut line = Line::default();
        let [a, b, c] = [1, 2, 3].map(|until| line.join(Moment::from_nanos(until)));
        let mut over = |ticket, now| line.pass_over(ticket, Moment::from_nanos(now)).len();
        assert_eq!([over(c, 0), over(a, 9), over(c, 1)], [0, 0, 1]);
        assert_eq!(over(u64::MAX, 2), 1);
        assert!(line.is_first(c) && line.len() == 1);
        assert!(line.leave(a).0.is_none() && line.leave(b).0.is_none());
    }
}
