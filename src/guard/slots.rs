//! Counting: slots that are taken, and the line of those who wait for one.
//!
//! Knows neither time nor requests, so that the part where a mistake would lose a slot for ever is
//! small. Both counts share one atomic word. While nobody waits, taking and releasing a slot is one
//! compare-and-swap each and touches no lock; the line behind the mutex is for full houses only.
//!
//! Three rules carry everything:
//!
//! 1. The number of waiters changes only under the lock, and equals the length of the line there.
//! 2. Nobody waits while a slot is free: a newcomer joins the line only while all slots are taken,
//!    and a slot that is released while somebody waits is handed to the first in line without
//!    becoming free in between. So no newcomer can overtake.
//! 3. A ticket leaves the line in two ways only: its holder leaves, or a slot was handed to it.
//!    "My ticket is no longer in the line" therefore **is** the news of the slot; there is no
//!    message that could get lost between a releaser and a waiter who goes away at that moment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Slots, and the line before them.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Taken slots in the lower 32 bits, waiters in the upper.
    state: AtomicU64,
    slots: u64,
    places: u64,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next_ticket: u64,
    /// In the order of their tickets, hence searchable in O(log n).
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    /// `None` until the waiter has asked for the first time.
    waker: Option<Waker>,
}

/// What became of somebody who asked for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A slot is theirs, to be given back by [`Slots::release`].
    Slot,
    /// They wait under this ticket, to be given back by [`Slots::leave`] unless polling said `Ready`.
    Line(u64),
    /// Neither a slot nor a place in the line is left.
    Nowhere,
}

impl Slots {
    /// `slots` slots with `places` places in the line; the configuration keeps both below 2³².
    pub(crate) fn new(slots: usize, places: usize) -> Self {
        Self {
            state: AtomicU64::new(0),
            slots: slots as u64,
            places: places as u64,
            line: Mutex::default(),
        }
    }

    /// Asks for a slot. Lock-free unless the answer is a place in the line.
    #[inline]
    pub(crate) fn take(&self) -> Place {
        let mut now = self.state.load(Ordering::Relaxed);
        while self.has_room(now) {
            match self.swap(now, now + TAKEN) {
                Ok(()) => return Place::Slot,
                Err(other) => now = other,
            }
        }
        if waiting(now) >= self.places {
            // Refusing is cheapest of all, as it must be when thousands are to be refused.
            return Place::Nowhere;
        }
        self.join()
    }

    #[cold]
    fn join(&self) -> Place {
        let mut line = self.lock();
        let mut now = self.state.load(Ordering::Relaxed);
        loop {
            // Rule 2: the slot may have become free on the way here.
            let (next, takes_slot) = if self.has_room(now) {
                (now + TAKEN, true)
            } else if waiting(now) < self.places {
                (now + WAITING, false)
            } else {
                return Place::Nowhere;
            };
            match self.swap(now, next) {
                Ok(()) if takes_slot => return Place::Slot,
                Ok(()) => break,
                Err(other) => now = other,
            }
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.waiters.push_back(Waiter {
            ticket,
            waker: None,
        });
        Place::Line(ticket)
    }

    /// Gives a slot back: to the first in line, or to nobody.
    #[inline]
    pub(crate) fn release(&self) {
        let mut now = self.state.load(Ordering::Relaxed);
        while waiting(now) == 0 {
            match self.swap(now, now - TAKEN) {
                Ok(()) => return,
                Err(other) => now = other,
            }
        }
        self.hand_on();
    }

    #[cold]
    fn hand_on(&self) {
        let mut line = self.lock();
        let Some(first) = line.waiters.pop_front() else {
            // All who waited have left meanwhile, and nobody joins while the lock is held.
            self.state.fetch_sub(TAKEN, Ordering::AcqRel);
            return;
        };
        self.state.fetch_sub(WAITING, Ordering::AcqRel);
        drop(line);
        if let Some(waker) = first.waker {
            waker.wake();
        }
    }

    /// `Ready` when a slot has been handed to `ticket`; else `waker` is called once it is.
    pub(crate) fn poll(&self, ticket: u64, waker: &Waker) -> Poll<()> {
        let mut line = self.lock();
        let Some(waiter) = line.find(ticket) else {
            return Poll::Ready(());
        };
        let known = waiter.waker.as_ref();
        if known.is_some_and(|known| known.will_wake(waker)) {
            return Poll::Pending;
        }
        let stale = waiter.waker.replace(waker.clone());
        // Dropping a foreign waker may run foreign code, which must not find the lock taken.
        drop(line);
        drop(stale);
        Poll::Pending
    }

    /// Gives `ticket` back. If a slot had been handed to it, the next in line gets that.
    pub(crate) fn leave(&self, ticket: u64) {
        let mut line = self.lock();
        let Some(gone) = line.remove(ticket) else {
            drop(line);
            self.release();
            return;
        };
        self.state.fetch_sub(WAITING, Ordering::AcqRel);
        drop(line);
        drop(gone);
    }

    /// Wakes everybody in the line, because something else than a slot concerns them.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<_> = self
            .lock()
            .waiters
            .iter_mut()
            .filter_map(|waiter| waiter.waker.take())
            .collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// How many slots are taken, those handed to waiters who have not yet noticed included.
    pub(crate) fn taken(&self) -> usize {
        (self.state.load(Ordering::Relaxed) & COUNT) as usize
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        waiting(self.state.load(Ordering::Relaxed)) as usize
    }

    /// Where somebody waits, all slots are taken by rule 2; asking for both keeps newcomers in their
    /// place even if the number of slots should one day grow while some wait.
    const fn has_room(&self, state: u64) -> bool {
        waiting(state) == 0 && state & COUNT < self.slots
    }

    fn swap(&self, from: u64, to: u64) -> Result<(), u64> {
        self.state
            .compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| ())
    }

    /// Only a foreign waker's `clone` could panic under the lock, and it changes nothing before that.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn find(&mut self, ticket: u64) -> Option<&mut Waiter> {
        let at = self.position(ticket)?;
        self.waiters.get_mut(at)
    }

    fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let at = self.position(ticket)?;
        self.waiters.remove(at)
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }
}

/// One taken slot, and one waiter, in the shared word.
const TAKEN: u64 = 1;
const WAITING: u64 = 1 << 32;
const COUNT: u64 = WAITING - 1;

const fn waiting(state: u64) -> u64 {
    state >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64: random enough to choose steps, and the same steps for the same seed.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % bound as u64) as usize
        }
    }

    #[test]
    fn the_line_is_served_in_order_and_newcomers_do_not_overtake() {
        let slots = Slots::new(1, 2);
        assert_eq!(slots.take(), Place::Slot);
        assert_eq!(slots.take(), Place::Line(0));
        assert_eq!(slots.take(), Place::Line(1));
        assert_eq!(slots.take(), Place::Nowhere);
        slots.release();
        assert_eq!((slots.taken(), slots.waiting()), (1, 1));
        assert_eq!(slots.take(), Place::Line(2), "the slot is ticket 0's");
        assert!(slots.poll(1, Waker::noop()).is_pending());
        assert!(slots.poll(0, Waker::noop()).is_ready());
        slots.release();
        assert!(slots.poll(2, Waker::noop()).is_pending());
        assert!(slots.poll(1, Waker::noop()).is_ready());
    }

    #[test]
    fn a_waiter_who_leaves_with_a_slot_hands_it_on() {
        let slots = Slots::new(1, 2);
        assert_eq!(slots.take(), Place::Slot);
        assert_eq!(slots.take(), Place::Line(0));
        assert_eq!(slots.take(), Place::Line(1));
        slots.release();
        slots.leave(0);
        assert!(slots.poll(1, Waker::noop()).is_ready());
        slots.release();
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }

    /// Random arrivals, releases, polls and departures, each step compared with a plain model.
    #[test]
    fn no_slot_is_lost_or_doubled_in_200_000_random_steps() {
        for seed in 0..20 {
            let mut dice = Dice(seed);
            let (size, places) = (1 + dice.below(5), dice.below(7));
            let slots = Slots::new(size, places);
            // The model: holders, those in line, and those who were handed a slot unknowingly.
            let (mut holders, mut line, mut handed) = (0_usize, VecDeque::new(), Vec::new());
            for step in 0..10_000 {
                match dice.below(5) {
                    0 | 1 => match slots.take() {
                        Place::Slot => {
                            assert!(line.is_empty(), "overtaken in step {step} of seed {seed}");
                            holders += 1;
                        }
                        Place::Line(ticket) => line.push_back(ticket),
                        Place::Nowhere => assert_eq!(line.len(), places),
                    },
                    2 if holders > 0 => {
                        slots.release();
                        holders -= 1;
                        handed.extend(line.pop_front());
                    }
                    3 if !handed.is_empty() => {
                        let ticket = handed.swap_remove(dice.below(handed.len()));
                        if dice.below(2) == 0 {
                            assert!(slots.poll(ticket, Waker::noop()).is_ready());
                            holders += 1;
                        } else {
                            slots.leave(ticket);
                            handed.extend(line.pop_front());
                        }
                    }
                    4 if !line.is_empty() => {
                        let at = dice.below(line.len());
                        if dice.below(2) == 0 {
                            assert!(slots.poll(line[at], Waker::noop()).is_pending());
                        } else {
                            slots.leave(line.remove(at).unwrap());
                        }
                    }
                    _ => {}
                }
                assert_eq!(slots.taken(), holders + handed.len(), "step {step}/{seed}");
                assert_eq!(slots.waiting(), line.len(), "step {step}/{seed}");
                assert!(slots.taken() <= size);
                assert!(line.is_empty() || slots.taken() == size, "idle slot");
            }
            for ticket in line.drain(..).chain(handed.drain(..)) {
                slots.leave(ticket);
            }
            for _ in 0..holders {
                slots.release();
            }
            assert_eq!((slots.taken(), slots.waiting()), (0, 0), "seed {seed}");
        }
    }
}
