//! The guard's slots, and the line before them.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use loom::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;
use crate::guard::criticality::Criticality;
use crate::guard::line::{LineRules, Newcomer, Ticket};
use crate::guard::slots::{Pacer, Place, Slots};
use crate::orders::{at_once, orders_with};

const NOW: Moment = Moment(0);

/// Slots, and how many hold one.
struct House {
    slots: Slots,
    inside: AtomicU64,
    most: u64,
    /// Who waits from the beginning.
    first: Option<Ticket>,
}

type Comer = fn(&House) -> Option<Ticket>;

impl House {
    fn new(slots: usize, places: usize) -> Arc<Self> {
        Arc::new(Self::empty(slots, places))
    }

    /// One slot, which is taken, three places and somebody in the first.
    fn full_with_one_who_waits(criticality: Criticality) -> Arc<Self> {
        let mut house = Self::empty(1, 3);
        assert_eq!(house.ask(Criticality::default()), Place::Slot);
        house.first = match house.ask(criticality) {
            Place::Line(ticket) => Some(ticket),
            other => panic!("{other:?}"),
        };
        Arc::new(house)
    }

    fn waiter(&self) -> Ticket {
        self.first.expect("somebody waits")
    }

    /// What whoever held the slot from the beginning does.
    fn gives_back(&self) -> Option<Ticket> {
        if self.slots.release(|| NOW) == Pacer::Wanted {
            self.slots.serve(NOW);
        }
        None
    }

    fn empty(slots: usize, places: usize) -> Self {
        let hour = Duration::from_secs(3600);
        let rules = LineRules {
            target: hour,
            target_critical: hour,
            interval: hour,
        };
        Self {
            slots: Slots::new(slots, places, rules),
            inside: AtomicU64::new(0),
            most: slots as u64,
            first: None,
        }
    }

    fn ask(&self, criticality: Criticality) -> Place {
        self.slots.take(|| Newcomer {
            criticality,
            ..Newcomer::default()
        })
    }

    fn comes(&self) -> Option<Ticket> {
        match self.ask(Criticality::SheddablePlus) {
            Place::Slot => {
                self.is_inside();
                None
            }
            Place::Line(ticket) => Some(ticket),
            Place::Nowhere => panic!("there are places enough"),
        }
    }

    /// Holds the slot for a moment and gives it back.
    fn is_inside(&self) {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        assert!(before < self.most, "more are inside than there are slots");
        self.inside.fetch_sub(1, Ordering::Relaxed);
        let _ = self.slots.release(|| NOW);
    }

    /// Whoever waits is asked until nobody does.
    fn all_get_in(&self, waiting: impl IntoIterator<Item = Ticket>) {
        let mut waiting: Vec<_> = waiting.into_iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|ticket| match self.slots.poll(*ticket, Waker::noop()) {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => {
                    self.is_inside();
                    false
                }
                Poll::Ready(Err(why)) => panic!("turned away: {why}"),
            });
            assert!(waiting.len() < before, "a slot is lost, or idle");
        }
        assert_eq!((self.slots.taken(), self.slots.waiting()), (0, 0));
    }
}

pub(crate) fn whoever_waits_gets_in_and_nobody_is_one_too_many() {
    orders_with(3, || {
        let house = House::new(1, 3);
        let comes: Comer = |house| house.comes();
        let waiting = at_once(&house, [comes; 3]);
        house.all_get_in(waiting.into_iter().flatten());
    });
}

pub(crate) fn a_slot_handed_to_somebody_who_leaves_goes_to_the_next() {
    orders_with(3, || {
        let house = House::full_with_one_who_waits(Criticality::default());
        let deeds: [Comer; 3] = [
            |house| house.gives_back(),
            |house| {
                let _ = house.slots.leave(house.waiter(), || NOW);
                None
            },
            |house| house.comes(),
        ];
        let waiting = at_once(&house, deeds);
        house.all_get_in(waiting.into_iter().flatten());
    });
}

pub(crate) fn a_slot_that_is_added_meanwhile_is_given_out() {
    orders_with(3, || {
        let house = House::new(2, 3);
        house.slots.resize(1, false, NOW).wake();
        let deeds: [Comer; 3] = [
            |house| {
                house.slots.resize(2, false, NOW).wake();
                None
            },
            |house| house.comes(),
            |house| house.comes(),
        ];
        let waiting = at_once(&house, deeds);
        house.all_get_in(waiting.into_iter().flatten());
    });
}

pub(crate) fn a_slot_that_is_taken_away_meanwhile_loses_nobody() {
    orders_with(3, || {
        let house = House::new(2, 3);
        let deeds: [Comer; 3] = [
            |house| {
                house.slots.resize(1, false, NOW).wake();
                None
            },
            |house| house.comes(),
            |house| house.comes(),
        ];
        let waiting = at_once(&house, deeds);
        house.all_get_in(waiting.into_iter().flatten());
    });
}

pub(crate) fn by_turns_somebody_calls_for_the_pacer_whenever_a_slot_is_free() {
    orders_with(3, || {
        let house = House::new(1, 3);
        assert_eq!(house.ask(Criticality::default()), Place::Slot);
        house.slots.resize(1, true, NOW).wake();
        // As the entrance does: whoever joins by turns calls for the pacer, and whoever gives back if told so.
        let deeds: [Comer; 3] = [
            |house| house.gives_back(),
            |house| {
                let ticket = house.comes();
                house.slots.serve(NOW);
                ticket
            },
            |house| {
                let ticket = house.comes();
                house.slots.serve(NOW);
                ticket
            },
        ];
        let waiting: Vec<_> = at_once(&house, deeds).into_iter().flatten().collect();
        assert_eq!(waiting.len(), 2, "all go through the line");
        let mut served = 0;
        for ticket in &waiting {
            if house.slots.poll(*ticket, Waker::noop()) == Poll::Ready(Ok(())) {
                served += 1;
            }
        }
        assert_eq!(
            served, 1,
            "a slot that is free was given to nobody, or to two"
        );
    });
}

pub(crate) fn the_last_place_is_taken_from_one_and_not_from_two() {
    orders_with(3, || {
        let house = House::full_with_one_who_waits(Criticality::Sheddable);
        let vital: fn(&House) -> Place = |house| house.ask(Criticality::Critical);
        let places = at_once(&house, [vital; 2]);
        let got = places.iter();
        let got = got.filter(|place| matches!(place, Place::Line(_)));
        assert_eq!(got.count(), 2, "three places, of which one was taken");
        assert_eq!((house.slots.taken(), house.slots.waiting()), (1, 3));
        let third = at_once(&house, [vital; 2]);
        let got = third.iter();
        let got = got.filter(|place| matches!(place, Place::Line(_)));
        assert_eq!(got.count(), 1, "one place was given up");
        let heard = house.slots.poll(house.waiter(), Waker::noop());
        assert_eq!(heard, Poll::Ready(Err("displaced")));
        assert_eq!((house.slots.taken(), house.slots.waiting()), (1, 3));
    });
}
