//! Counting: slots that are taken, and the line of those who wait for one.
//!
//! Knows neither requests nor how the line is kept ([`Line`]), so that the part where a mistake would lose a
//! slot for ever is small. Both counts share one atomic word. While nobody waits, taking and releasing a slot
//! is one compare-and-swap each and touches no lock; the line behind the mutex is for full houses only.
//!
//! Four rules carry everything:
//!
//! 1. The number of waiters changes only under the lock, and equals the length of the line there.
//! 2. Nobody waits while a slot is free: a newcomer joins the line only while all slots are taken,
//!    and a slot that is released while somebody waits is handed on without becoming free in between. So no
//!    newcomer can overtake. (Where slots are given out [in turns](Slots::resize), the pacer takes the part of
//!    whoever would have handed it on.)
//! 3. A ticket leaves the line in three ways only: its holder leaves, a slot was handed to it, or it was
//!    turned away, which the line remembers until its holder has heard of it. "My ticket is no longer in the
//!    line and nobody turned me away" therefore **is** the news of the slot; there is no message that could
//!    get lost between a releaser and a waiter who goes away at that moment.
//! 4. Wakers are called and dropped when the lock is not held.

use std::task::{Poll, Waker};
use std::time::Duration;

use crate::clock::Moment;
use crate::guard::line::{Line, LineRules, Newcomer, Ticket, TurnedAway};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

/// Slots, and the line before them.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Taken slots in the lower 32 bits, waiters in the upper.
    state: AtomicU64,
    /// Below how many taken slots a newcomer comes in at once: their number, or 0 where all go through the line.
    door: AtomicU64,
    /// How many of those who were served from the line are critical and still inside.
    critical: AtomicU64,
    most: u64,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    line: Line,
    /// When the last slot was given out from the line.
    given: Moment,
    slots: u64,
    places: u64,
    /// Free slots are given out by the pacer only.
    in_turns: bool,
}

/// What became of somebody who asked for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A slot is theirs, to be given back by [`Slots::release`].
    Slot,
    /// They wait with this ticket, to be given back by [`Slots::leave`] unless polling said `Ready`.
    Line(Ticket),
    /// Neither a slot nor a place in the line is left.
    Nowhere,
}

/// Those who are to be woken, once no lock is held.
#[derive(Debug)]
#[must_use]
pub(crate) struct Woken {
    served: Option<Waker>,
    away: TurnedAway,
}

impl Woken {
    pub(crate) fn wake(self) {
        wake(self.away);
        self.served.into_iter().for_each(Waker::wake);
    }
}

/// Whether somebody has to call [`Slots::serve`] soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pacer {
    Wanted,
    Asleep,
}

impl Slots {
    /// `slots` slots with `places` places in the line; the configuration keeps both below 2³².
    pub(crate) fn new(slots: usize, places: usize, rules: LineRules) -> Self {
        Self {
            state: AtomicU64::new(0),
            door: AtomicU64::new(slots as u64),
            critical: AtomicU64::new(0),
            most: slots as u64,
            inside: Mutex::new(Inside {
                line: Line::new(rules),
                given: Moment::default(),
                slots: slots as u64,
                places: places as u64,
                in_turns: false,
            }),
        }
    }

    /// Asks for a slot. Lock-free, and does not ask who it is, unless all slots are taken.
    #[inline]
    pub(crate) fn take(&self, newcomer: impl FnOnce() -> Newcomer) -> Place {
        let door = self.door.load(Ordering::Relaxed);
        let mut now = self.state.load(Ordering::Relaxed);
        while waiting(now) == 0 && taken(now) < door {
            match self.swap(now, now + TAKEN) {
                Ok(()) => return Place::Slot,
                Err(other) => now = other,
            }
        }
        self.join(newcomer())
    }

    #[cold]
    fn join(&self, newcomer: Newcomer) -> Place {
        let mut away = TurnedAway::default();
        let mut inside = self.lock();
        let place = inside.join(&self.state, newcomer, &mut away);
        let critical = matches!(place, Place::Line(ticket) if ticket.is_critical());
        // Those may come in though more are inside than there are slots.
        let (woken, others) = match critical && !inside.in_turns {
            true => self.serve_from(&mut inside, newcomer.now),
            false => (None, TurnedAway::default()),
        };
        drop(inside);
        wake(away);
        wake(others);
        woken.into_iter().for_each(Waker::wake);
        place
    }

    /// Gives back the slot that `ticket` has led to.
    pub(crate) fn release_of(&self, ticket: Ticket, time: impl FnOnce() -> Moment) -> Pacer {
        if ticket.is_critical() {
            self.critical.fetch_sub(1, Ordering::AcqRel);
        }
        self.release(time)
    }

    /// Gives a slot back: to the next in line, or to nobody. The time is asked for only if somebody waits.
    #[inline]
    pub(crate) fn release(&self, time: impl FnOnce() -> Moment) -> Pacer {
        let mut now = self.state.load(Ordering::Relaxed);
        while waiting(now) == 0 {
            match self.swap(now, now - TAKEN) {
                Ok(()) => return Pacer::Asleep,
                Err(other) => now = other,
            }
        }
        self.hand_on(time())
    }

    #[cold]
    fn hand_on(&self, now: Moment) -> Pacer {
        let mut inside = self.lock();
        self.state.fetch_sub(TAKEN, Ordering::AcqRel);
        if inside.in_turns {
            return Pacer::Wanted;
        }
        let (woken, away) = self.serve_from(&mut inside, now);
        drop(inside);
        wake(away);
        woken.into_iter().for_each(Waker::wake);
        Pacer::Asleep
    }

    /// Gives out what slots are free to those who wait.
    pub(crate) fn serve(&self, now: Moment) {
        let (woken, away) = self.serve_from(&mut self.lock(), now);
        wake(away);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Changes how many slots there are, up to as many as in the beginning. More are given to those who wait;
    /// fewer are taken away as they come back.
    ///
    /// `in_turns`: everybody goes through the line, and free slots are given out by [`serve`](Self::serve)
    /// alone, which a pacer calls when all tasks that are ready have had their turn. Where handlers hold the
    /// thread, a slot would otherwise seem free to each of them as they come, and the queue would be the
    /// runtime's own, in which nobody can tell old from new.
    pub(crate) fn resize(&self, slots: usize, in_turns: bool, now: Moment) -> Woken {
        let mut inside = self.lock();
        inside.slots = slots as u64;
        // With fewer places than slots a turn could not fill them.
        inside.in_turns = in_turns && inside.places >= inside.slots;
        let door = if inside.in_turns { 0 } else { inside.slots };
        self.door.store(door, Ordering::Relaxed);
        let (served, away) = self.serve_from(&mut inside, now);
        Woken { served, away }
    }

    /// `Ready` when a slot has been handed to `ticket`, or with the reason why it was turned away; else
    /// `waker` is called once it is.
    pub(crate) fn poll(&self, ticket: Ticket, waker: &Waker) -> Poll<Result<(), &'static str>> {
        let mut inside = self.lock();
        let Some(place) = inside.line.waker_of(ticket) else {
            let verdict = inside.line.verdict(ticket);
            return Poll::Ready(verdict.map_or(Ok(()), Err));
        };
        if place.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return Poll::Pending;
        }
        let stale = place.replace(waker.clone());
        // Dropping a foreign waker may run foreign code, which must not find the lock taken.
        drop(inside);
        drop(stale);
        Poll::Pending
    }

    /// Gives `ticket` back. If a slot had been handed to it, the next in line gets that.
    pub(crate) fn leave(&self, ticket: Ticket, time: impl FnOnce() -> Moment) -> Pacer {
        let mut inside = self.lock();
        if let Some(gone) = inside.line.leave(ticket) {
            self.state.fetch_sub(WAITING, Ordering::AcqRel);
            drop(inside);
            drop(gone);
            return Pacer::Asleep;
        }
        if inside.line.verdict(ticket).is_some() {
            return Pacer::Asleep;
        }
        drop(inside);
        self.release_of(ticket, time)
    }

    /// Wakes everybody in the line, because something else than a slot concerns them.
    pub(crate) fn wake_all(&self) {
        let wakers = self.lock().line.take_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many slots are taken, those handed to waiters who have not yet noticed included.
    pub(crate) fn taken(&self) -> usize {
        taken(self.state.load(Ordering::Relaxed)) as usize
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        waiting(self.state.load(Ordering::Relaxed)) as usize
    }

    /// Whether everybody goes through the line.
    pub(crate) fn in_turns(&self) -> bool {
        self.door.load(Ordering::Relaxed) == 0
    }

    /// Hands free slots to those who wait. While somebody does, nobody takes or releases one without the
    /// lock.
    fn serve_from(&self, inside: &mut Inside, now: Moment) -> (Option<Waker>, TurnedAway) {
        let mut away = TurnedAway::default();
        let mut woken = None;
        while let Some(only_critical) = self.room(inside, now)
            && let Some(chosen) = inside.line.next(now, only_critical)
        {
            if chosen.critical {
                self.critical.fetch_add(1, Ordering::AcqRel);
            }
            inside.given = now;
            // One word, one step: a slot is taken and a place is left.
            self.state.fetch_sub(WAITING - TAKEN, Ordering::AcqRel);
            away.wakers.extend(woken.take());
            woken = chosen.waker;
        }
        inside.line.shed(inside.slots as usize, now, &mut away);
        if away.count > 0 {
            self.state.fetch_sub(away.count * WAITING, Ordering::AcqRel);
        }
        (woken, away)
    }

    /// Whether somebody who waits may come in, and whether only one of the critical.
    ///
    /// After slots were taken away more may be inside for a while than there are. The critical do not wait for
    /// those to leave, as long as fewer of them are inside; and now and then somebody comes in all the same, or a
    /// few who hold their slots for long, and need no processor for it, would be all that is served.
    fn room(&self, inside: &Inside, now: Moment) -> Option<bool> {
        let present = self.state.load(Ordering::Acquire);
        let taken = taken(present);
        if waiting(present) == 0 || taken >= self.most {
            return None;
        }
        if taken < inside.slots || now.since(inside.given) >= NOW_AND_THEN {
            return Some(false);
        }
        let critical = self.critical.load(Ordering::Acquire);
        (critical < inside.slots && inside.line.next_is_critical()).then_some(true)
    }

    fn swap(&self, from: u64, to: u64) -> Result<(), u64> {
        self.state
            .compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| ())
    }

    /// Only a foreign waker's `clone` could panic under the lock, and it changes nothing before that.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn join(&mut self, state: &AtomicU64, newcomer: Newcomer, away: &mut TurnedAway) -> Place {
        let mut now = state.load(Ordering::Relaxed);
        loop {
            // Rule 2: the slot may have become free on the way here.
            let free = waiting(now) == 0 && taken(now) < self.slots && !self.in_turns;
            let (next, place) = if free {
                (now + TAKEN, Place::Slot)
            } else if waiting(now) < self.places {
                (now + WAITING, Place::Nowhere)
            } else if self.line.make_room(newcomer, away) {
                // One goes, one comes: nothing changes for the rest.
                return Place::Line(self.line.join(newcomer));
            } else {
                return Place::Nowhere;
            };
            match state.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if place == Place::Slot => return place,
                Ok(_) => return Place::Line(self.line.join(newcomer)),
                Err(other) => now = other,
            }
        }
    }
}

/// How long nobody may come in while somebody waits and a slot could be had.
const NOW_AND_THEN: Duration = Duration::from_millis(100);

fn wake(away: TurnedAway) {
    away.wakers.into_iter().for_each(Waker::wake);
}

/// One taken slot, and one waiter, in the shared word.
const TAKEN: u64 = 1;
const WAITING: u64 = 1 << 32;
const COUNT: u64 = WAITING - 1;

const fn waiting(state: u64) -> u64 {
    state >> 32
}

const fn taken(state: u64) -> u64 {
    state & COUNT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::criticality::Criticality;
    use crate::guard::dice::Dice;

    const NOW: Moment = Moment::from_nanos(0);

    fn slots(slots: usize, places: usize) -> Slots {
        let hour = Duration::from_secs(3600);
        let rules = LineRules {
            target: hour,
            target_critical: hour,
            interval: hour,
        };
        Slots::new(slots, places, rules)
    }

    fn takes(slots: &Slots) -> Place {
        slots.take(Newcomer::default)
    }

    fn waits(slots: &Slots) -> Ticket {
        match takes(slots) {
            Place::Line(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn has_slot(slots: &Slots, ticket: Ticket) -> bool {
        slots.poll(ticket, Waker::noop()) == Poll::Ready(Ok(()))
    }

    fn gives_back(slots: &Slots) -> Pacer {
        slots.release(|| NOW)
    }

    #[test]
    fn the_line_is_served_in_order_and_newcomers_do_not_overtake() {
        let slots = slots(1, 2);
        assert_eq!(takes(&slots), Place::Slot);
        let (first, second) = (waits(&slots), waits(&slots));
        assert_eq!(takes(&slots), Place::Nowhere);
        assert_eq!(gives_back(&slots), Pacer::Asleep);
        assert_eq!((slots.taken(), slots.waiting()), (1, 1));
        let third = waits(&slots);
        assert!(!has_slot(&slots, second));
        assert!(has_slot(&slots, first));
        assert_eq!(gives_back(&slots), Pacer::Asleep);
        assert!(!has_slot(&slots, third));
        assert!(has_slot(&slots, second));
    }

    #[test]
    fn a_waiter_who_leaves_with_a_slot_hands_it_on() {
        let slots = slots(1, 2);
        assert_eq!(takes(&slots), Place::Slot);
        let (first, second) = (waits(&slots), waits(&slots));
        let _ = gives_back(&slots);
        let _ = slots.leave(first, || NOW);
        assert!(has_slot(&slots, second));
        let _ = gives_back(&slots);
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }

    #[test]
    fn slots_that_are_added_go_to_those_who_wait_and_those_taken_away_come_back_first() {
        let slots = slots(3, 4);
        slots.resize(1, false, NOW).wake();
        assert_eq!(takes(&slots), Place::Slot);
        let waiting = [waits(&slots), waits(&slots), waits(&slots)];
        slots.resize(3, false, NOW).wake();
        assert_eq!((slots.taken(), slots.waiting()), (3, 1));
        assert!(has_slot(&slots, waiting[0]) && has_slot(&slots, waiting[1]));
        slots.resize(1, false, NOW).wake();
        let _ = gives_back(&slots);
        let _ = gives_back(&slots);
        assert_eq!((slots.taken(), slots.waiting()), (1, 1), "one too many yet");
        let _ = gives_back(&slots);
        assert!(has_slot(&slots, waiting[2]));
    }

    #[test]
    fn in_turns_all_go_through_the_line_and_only_the_pacer_gives_out() {
        let slots = slots(2, 4);
        slots.resize(1, true, NOW).wake();
        let (first, second) = (waits(&slots), waits(&slots));
        assert!(!has_slot(&slots, first), "though a slot is free");
        slots.serve(NOW);
        assert!(has_slot(&slots, first) && !has_slot(&slots, second));
        assert_eq!(gives_back(&slots), Pacer::Wanted);
        assert!(!has_slot(&slots, second));
        slots.resize(2, false, NOW).wake();
        assert!(has_slot(&slots, second), "nobody paces any more");
        assert_eq!(takes(&slots), Place::Slot);
    }

    #[test]
    fn without_a_queue_there_are_no_turns() {
        let slots = slots(1, 0);
        slots.resize(1, true, NOW).wake();
        assert_eq!(takes(&slots), Place::Slot);
        assert_eq!(takes(&slots), Place::Nowhere);
    }

    #[test]
    fn who_is_displaced_hears_of_it_and_holds_no_place() {
        let slots = slots(1, 1);
        assert_eq!(takes(&slots), Place::Slot);
        let plain = waits(&slots);
        let vital = slots.take(|| Newcomer {
            criticality: Criticality::Critical,
            ..Newcomer::default()
        });
        assert!(matches!(vital, Place::Line(_)));
        assert_eq!((slots.taken(), slots.waiting()), (1, 1));
        let heard = slots.poll(plain, Waker::noop());
        assert_eq!(heard, Poll::Ready(Err("displaced")));
    }

    /// One who asked for a slot, in the random walks below.
    struct Walk {
        slots: Slots,
        dice: Dice,
        size: usize,
        most: usize,
        places: usize,
        now: Moment,
        holders: usize,
        tickets: Vec<Ticket>,
        in_turns: bool,
    }

    impl Walk {
        fn new(seed: u64) -> Self {
            let mut dice = Dice(seed);
            let (size, places) = (1 + dice.below(5), dice.below(8));
            let rules = LineRules {
                target: Duration::from_millis(2),
                target_critical: Duration::from_millis(4),
                interval: Duration::from_millis(10),
            };
            Self {
                slots: Slots::new(size, places, rules),
                dice,
                size,
                most: size,
                places,
                now: NOW,
                holders: 0,
                tickets: Vec::new(),
                in_turns: false,
            }
        }

        fn newcomer(&mut self) -> Newcomer {
            let all = [
                Criticality::Sheddable,
                Criticality::SheddablePlus,
                Criticality::Critical,
                Criticality::CriticalPlus,
            ];
            Newcomer {
                criticality: all[self.dice.below(4)],
                tenant: self.dice.below(3) as u64,
                now: self.now,
            }
        }

        fn ask(&mut self, at: usize) {
            match self.slots.poll(self.tickets[at], Waker::noop()) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => self.holders += 1,
                Poll::Ready(Err(_)) => {}
            }
            self.tickets.swap_remove(at);
        }

        fn step(&mut self) {
            let now = self.now;
            self.now = now.plus(Duration::from_micros(self.dice.below(900) as u64));
            match self.dice.below(13) {
                0..=4 => {
                    let newcomer = self.newcomer();
                    match self.slots.take(|| newcomer) {
                        Place::Slot => self.holders += 1,
                        Place::Line(ticket) => self.tickets.push(ticket),
                        Place::Nowhere => assert!(self.slots.waiting() == self.places),
                    }
                }
                5..=7 if self.holders > 0 => {
                    let _ = self.slots.release(|| now);
                    self.holders -= 1;
                }
                8 | 9 if !self.tickets.is_empty() => {
                    let at = self.dice.below(self.tickets.len());
                    self.ask(at);
                }
                10 if !self.tickets.is_empty() => {
                    let at = self.dice.below(self.tickets.len());
                    let ticket = self.tickets.swap_remove(at);
                    let _ = self.slots.leave(ticket, || now);
                }
                11 => self.slots.serve(now),
                12 if self.dice.below(20) == 0 => {
                    self.size = 1 + self.dice.below(self.most);
                    self.in_turns = self.dice.below(3) == 0 && self.places >= self.size;
                    self.slots.resize(self.size, self.in_turns, now).wake();
                }
                _ => {}
            }
        }

        /// Everybody asks, and then all the counts must be right.
        fn settle(&mut self) {
            for at in (0..self.tickets.len()).rev() {
                self.ask(at);
            }
            assert_eq!(self.slots.taken(), self.holders);
            assert_eq!(self.slots.waiting(), self.tickets.len());
            let idle = self.holders < self.size && !self.tickets.is_empty();
            assert!(!idle || self.in_turns, "a slot is free and somebody waits");
        }
    }

    /// Random arrivals, releases, polls, departures and changes of size, at random times, so that some are shed
    /// and some displaced.
    #[test]
    fn no_slot_is_lost_or_doubled_in_a_million_random_steps() {
        for seed in 0..50 {
            let mut walk = Walk::new(seed);
            for step in 0..20_000 {
                walk.step();
                if step % 7 == 0 {
                    walk.settle();
                }
            }
            for ticket in std::mem::take(&mut walk.tickets) {
                let _ = walk.slots.leave(ticket, || NOW);
            }
            for _ in 0..walk.holders {
                let _ = walk.slots.release(|| NOW);
            }
            walk.slots.serve(NOW);
            let left = (walk.slots.taken(), walk.slots.waiting());
            assert_eq!(left, (0, 0), "seed {seed}");
        }
    }
}
