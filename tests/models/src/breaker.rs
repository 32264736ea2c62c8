//! Circuit breakers: the files as they are shipped, and what must hold of them.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::machine::{Asked, Machine, Ticket, Told};
use crate::breaker::rules::Rules;
use crate::breaker::state::State;
use crate::breaker::window::{Counted, Window};
use crate::clock::Moment;
use crate::orders::{at_once, every_order, orders_with};

#[path = "../../../src/breaker/machine.rs"]
pub(crate) mod machine;
#[path = "../../../src/breaker/rules.rs"]
pub(crate) mod rules;
#[path = "../../../src/breaker/state.rs"]
pub(crate) mod state;
#[path = "../../../src/breaker/window.rs"]
pub(crate) mod window;

const SECOND: u64 = 1_000_000_000;
const BEGIN: Moment = Moment(SECOND);
const LATER: Moment = Moment(40 * SECOND);

/// Two failures in a row open it for thirty seconds, and two probes close it.
const RULES: Rules = Rules {
    consecutive: 2,
    failure_percent: None,
    slow_percent: None,
    calls_min: 100,
    open: Duration::from_secs(30),
    open_max: None,
    probes: 2,
    probe: Duration::from_secs(30),
};

fn ask(machine: &Machine, now: Moment) -> Option<Ticket> {
    match machine.ask(now, &RULES).0 {
        Asked::Admitted(ticket) => Some(ticket),
        Asked::Refused(_) => None,
    }
}

fn open() -> Arc<Machine> {
    let machine = Machine::new(10 * SECOND);
    for _ in 0..2 {
        let ticket = ask(&machine, BEGIN).expect("it is closed");
        machine.tell(ticket, Told::Failed, BEGIN, &RULES);
    }
    assert!(matches!(machine.state(), State::Open { .. }));
    Arc::new(machine)
}

fn half_open() -> (Arc<Machine>, Ticket) {
    let machine = open();
    let ticket = ask(&machine, LATER).expect("its time is over");
    (machine, ticket)
}

/// Whether as many may be asked for as there are places, and no more.
fn has_places(machine: &Machine, places: usize) {
    let got = (0..places + 2).filter(|_| ask(machine, LATER).is_some());
    assert_eq!(got.count(), places);
}

pub(crate) fn no_more_probes_are_out_than_allowed() {
    every_order(|| {
        let machine = open();
        let asks: fn(&Machine) -> u32 = |machine| ask(machine, LATER).is_some().into();
        let out: u32 = at_once(&machine, [asks; 3]).iter().sum();
        assert_eq!(out, 2);
        has_places(&machine, 0);
    });
}

pub(crate) fn a_probes_place_is_given_back_once() {
    orders_with(3, || {
        let machine = open();
        let leaves: fn(&Machine) -> bool = |machine| match ask(machine, LATER) {
            Some(ticket) => {
                machine.tell(ticket, Told::Nothing, LATER, &RULES);
                true
            }
            None => false,
        };
        let asked = at_once(&machine, [leaves; 3]);
        assert!(asked.contains(&true));
        has_places(&machine, 2);
    });
}

/// Who leaves, who succeeds and who asks meet in a half-open circuit.
pub(crate) fn probes_that_leave_and_pass_lose_no_place() {
    orders_with(3, || {
        let (machine, first) = half_open();
        let second = ask(&machine, LATER).expect("there are two places");
        let shared = Arc::new((machine, first, second));
        type Shared = (Arc<Machine>, Ticket, Ticket);
        let deeds: [fn(&Shared) -> bool; 3] = [
            |(machine, first, _)| {
                machine.tell(*first, Told::Succeeded, LATER, &RULES);
                false
            },
            |(machine, _, second)| {
                machine.tell(*second, Told::Nothing, LATER, &RULES);
                false
            },
            |(machine, ..)| ask(machine, LATER).is_some(),
        ];
        let [_, _, got] = at_once(&shared, deeds);
        // One has passed; the other place is free, unless whoever asked has it.
        has_places(&shared.0, usize::from(!got));
    });
}

pub(crate) fn it_closes_once_when_all_have_passed_whoever_comes_last() {
    every_order(|| {
        let (machine, first) = half_open();
        let second = ask(&machine, LATER).expect("there are two places");
        let shared = Arc::new((machine, first, second));
        type Shared = (Arc<Machine>, Ticket, Ticket);
        let deeds: [fn(&Shared) -> bool; 2] = [
            |(machine, first, _)| {
                machine
                    .tell(*first, Told::Succeeded, LATER, &RULES)
                    .is_some()
            },
            |(machine, _, second)| {
                machine
                    .tell(*second, Told::Succeeded, LATER, &RULES)
                    .is_some()
            },
        ];
        let told = at_once(&shared, deeds);
        assert_ne!(told[0], told[1], "one of them has closed it");
        assert_eq!(shared.0.state(), State::Closed);
        assert_eq!(shared.0.in_a_row(), 0);
    });
}

pub(crate) fn one_that_fails_opens_it_whatever_the_others_do() {
    every_order(|| {
        let (machine, first) = half_open();
        let second = ask(&machine, LATER).expect("there are two places");
        let shared = Arc::new((machine, first, second));
        type Shared = (Arc<Machine>, Ticket, Ticket);
        let deeds: [fn(&Shared) -> bool; 3] = [
            |(machine, first, _)| machine.tell(*first, Told::Failed, LATER, &RULES).is_some(),
            |(machine, _, second)| {
                machine
                    .tell(*second, Told::Succeeded, LATER, &RULES)
                    .is_some()
            },
            |(machine, ..)| ask(machine, LATER).is_some(),
        ];
        assert_eq!(at_once(&shared, deeds), [true, false, false]);
        assert!(matches!(shared.0.state(), State::Open { .. }));
    });
}

pub(crate) fn probes_that_are_called_off_at_once_open_it_once() {
    every_order(|| {
        let (machine, first) = half_open();
        let second = ask(&machine, LATER).expect("there are two places");
        let shared = Arc::new((machine, first, second));
        type Shared = (Arc<Machine>, Ticket, Ticket);
        let deeds: [fn(&Shared) -> bool; 2] = [
            |(machine, first, _)| {
                machine
                    .tell(*first, Told::CalledOff, LATER, &RULES)
                    .is_some()
            },
            |(machine, _, second)| {
                machine
                    .tell(*second, Told::CalledOff, LATER, &RULES)
                    .is_some()
            },
        ];
        let told = at_once(&shared, deeds);
        assert_ne!(told[0], told[1], "one of them has opened it");
        assert!(matches!(shared.0.state(), State::Open { .. }));
    });
}

/// The two failures that have opened it must not open it again, together with the first one afterwards.
pub(crate) fn what_was_counted_before_it_closed_opens_nothing() {
    every_order(|| {
        let (machine, first) = half_open();
        let second = ask(&machine, LATER).expect("there are two places");
        machine.tell(first, Told::Succeeded, LATER, &RULES);
        let shared = Arc::new((machine, second));
        type Shared = (Arc<Machine>, Ticket);
        let deeds: [fn(&Shared) -> bool; 2] = [
            |(machine, second)| {
                machine
                    .tell(*second, Told::Succeeded, LATER, &RULES)
                    .is_some()
            },
            |(machine, _)| match ask(machine, LATER) {
                Some(ticket) => machine.tell(ticket, Told::Failed, LATER, &RULES).is_some(),
                None => false,
            },
        ];
        assert_eq!(at_once(&shared, deeds), [true, false]);
        assert_eq!(shared.0.state(), State::Closed);
    });
}

pub(crate) fn failures_at_once_open_it_once() {
    orders_with(2, || {
        let machine = Arc::new(Machine::new(10 * SECOND));
        let fails: fn(&Machine) -> u32 = |machine| match ask(machine, BEGIN) {
            Some(ticket) => machine
                .tell(ticket, Told::Failed, BEGIN, &RULES)
                .is_some()
                .into(),
            None => 0,
        };
        let opened: u32 = at_once(&machine, [fails; 2]).iter().sum();
        assert_eq!(opened, 1);
        assert!(matches!(machine.state(), State::Open { .. }));
    });
}

pub(crate) fn a_bucket_that_is_begun_by_many_at_once_counts_all_of_them() {
    every_order(|| {
        let window = Window::new(10 * SECOND);
        // The same bucket, ten seconds before.
        window.count(Counted::Failed, BEGIN);
        let window = Arc::new(window);
        let counts: fn(&Window) = |window| window.count(Counted::Failed, Moment(11 * SECOND));
        at_once(&window, [counts; 2]);
        assert_eq!(window.sums(Moment(11 * SECOND)).failed, 2);
    });
}
