//! The state machine: who is let through, and what is learnt from what came of it.
//!
//! # Closed → open
//!
//! A failure, or a success that was slow where that is watched, after which the [`Rules`] say so. A plain success
//! never opens anything, so it does not sum up.
//!
//! # Open → half-open
//!
//! The first who asks once the time is over. It is the first probe.
//!
//! # Half-open → closed
//!
//! All probes have succeeded. What was counted before is forgotten.
//!
//! # Half-open → open
//!
//! One probe has failed, or all are taken and the last has not come back in time: a hung dependency is a sick
//! one. A probe that was called off gives its place back; where as many of them as there are probes had lasted, and
//! none has succeeded meanwhile, it is the dependency that hangs, and whoever asks that does not wait so long.
//!
//! # By hand
//!
//! Anything → forced open, which only a hand closes; anything → closed.

use std::time::Duration;

use crate::breaker::rules::{Rules, Sums};
use crate::breaker::state::{CLOSED, FORCED_OPEN, IDENTITY, KIND, PASSED, State, pack, unpack};
use crate::breaker::window::{Counted, Window};
use crate::clock::Moment;
use crate::sync::{AtomicU64, Ordering};

/// The machine of one circuit.
#[derive(Debug)]
pub(crate) struct Machine {
    word: AtomicU64,
    in_a_row: AtomicU64,
    /// How often probes have failed since the circuit was closed the last time.
    probes_failed: AtomicU64,
    /// How many probes that had lasted were called off, and since when: see [`since`].
    called_off: AtomicU64,
    window: Window,
}

/// Which state of the machine let a call through; what it tells counts only for that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Of a call that nobody counts.
    pub(crate) const UNCOUNTED: Self = Self(FORCED_OPEN);

    /// Whether the circuit was closed when the call was made: it is no probe.
    pub(crate) const fn is_of_closed(self) -> bool {
        self.0 & KIND == CLOSED
    }
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Admitted(Ticket),
    /// Come back in a while.
    Refused(Duration),
}

/// What came of a call, as far as the machine is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Succeeded,
    /// It succeeded, but took long, and that is watched.
    Slow,
    Failed,
    /// It failed, and took long.
    FailedSlowly,
    /// It was called off although it had lasted: of one probe alone that says nothing.
    CalledOff,
    /// Nothing can be learnt from it.
    Nothing,
}

/// A transition, for whoever tells of it: the state before and after.
pub(crate) type Change = (State, State);

impl Machine {
    /// A closed circuit with a window of so many nanoseconds.
    pub(crate) fn new(window_nanos: u64) -> Self {
        Self {
            word: AtomicU64::new(pack(0, State::Closed)),
            in_a_row: AtomicU64::new(0),
            probes_failed: AtomicU64::new(0),
            called_off: AtomicU64::new(0),
            window: Window::new(window_nanos),
        }
    }

    /// Asks whether a call may be made.
    #[inline]
    pub(crate) fn ask(&self, now: Moment, rules: &Rules) -> (Asked, Option<Change>) {
        let word = self.word.load(Ordering::Acquire);
        if word & KIND == CLOSED {
            return (Asked::Admitted(Ticket(word)), None);
        }
        self.ask_again(word, now, rules)
    }

    #[cold]
    fn ask_again(&self, mut word: u64, now: Moment, rules: &Rules) -> (Asked, Option<Change>) {
        loop {
            let (epoch, state) = unpack(word);
            let (epoch, next) = match state {
                State::Closed => return (Asked::Admitted(Ticket(word)), None),
                State::ForcedOpen => return (Asked::Refused(rules.open), None),
                State::Open { until } if now < until => {
                    return (Asked::Refused(until.since(now)), None);
                }
                State::Open { .. } => (epoch + 1, probing(1, 0, now)),
                State::HalfOpen { taken, passed, .. } if taken < rules.probes => {
                    (epoch, probing(taken + 1, passed, now))
                }
                State::HalfOpen { last, .. } if now < last.plus(rules.probe) => {
                    return (Asked::Refused(SOON), None);
                }
                State::HalfOpen { .. } => return self.give_up(word, now, rules),
            };
            let next_word = pack(epoch, next);
            match self.exchange(word, next_word) {
                Ok(_) => {
                    let admitted = Asked::Admitted(Ticket(next_word & IDENTITY));
                    let change = matches!(state, State::Open { .. }).then_some((state, next));
                    return (admitted, change);
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// Opens a half-open circuit whose probes do not come back.
    fn give_up(&self, word: u64, now: Moment, rules: &Rules) -> (Asked, Option<Change>) {
        let change = self.reopen(word, now, rules).ok();
        let wait = match change {
            Some((_, State::Open { until })) => until.since(now),
            _ => SOON,
        };
        (Asked::Refused(wait), change)
    }

    /// Tells what came of a call.
    #[inline]
    pub(crate) fn tell(
        &self,
        ticket: Ticket,
        told: Told,
        now: Moment,
        rules: &Rules,
    ) -> Option<Change> {
        if ticket.0 & KIND != CLOSED {
            return self.tell_of_probe(ticket, told, now, rules);
        }
        // What was called before the last transition tells of another time.
        if self.word.load(Ordering::Acquire) != ticket.0 {
            return None;
        }
        match told {
            Told::Succeeded => {
                self.not_in_a_row();
                self.window.count(Counted::Succeeded, now);
                None
            }
            Told::CalledOff | Told::Nothing => None,
            Told::Slow => {
                self.not_in_a_row();
                self.window.count(Counted::Succeeded, now);
                self.window.count(Counted::Slow, now);
                self.trip(ticket, 0, now, rules)
            }
            Told::Failed | Told::FailedSlowly => {
                let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                self.window.count(Counted::Failed, now);
                if told == Told::FailedSlowly {
                    self.window.count(Counted::Slow, now);
                }
                self.trip(ticket, in_a_row, now, rules)
            }
        }
    }

    /// Written only where it would change something, or all threads would fight for the line.
    #[inline]
    fn not_in_a_row(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Opens the circuit if what was counted says so.
    fn trip(&self, ticket: Ticket, in_a_row: u64, now: Moment, rules: &Rules) -> Option<Change> {
        if !rules.trip(in_a_row, &self.window.sums(now)) {
            return None;
        }
        let (epoch, closed) = unpack(ticket.0);
        let open = State::Open {
            until: now.plus(rules.open_for(0)),
        };
        // Whoever comes second has nothing to add.
        let opened = self.exchange(ticket.0, pack(epoch + 1, open));
        opened.ok().map(|_| (closed, open))
    }

    #[cold]
    fn tell_of_probe(
        &self,
        ticket: Ticket,
        told: Told,
        now: Moment,
        rules: &Rules,
    ) -> Option<Change> {
        let mut word = self.word.load(Ordering::Acquire);
        let told = match told {
            Told::CalledOff if self.hangs(ticket, word, rules) => Told::Failed,
            Told::CalledOff => Told::Nothing,
            told => told,
        };
        loop {
            // A ticket that is no probe's matches no word of a half-open circuit.
            let (epoch, state) = unpack(word);
            let State::HalfOpen {
                taken,
                passed,
                last,
            } = state
            else {
                return None;
            };
            if word & IDENTITY != ticket.0 {
                return None;
            }
            let done = match told {
                Told::CalledOff | Told::Nothing => {
                    let next = probing(taken.saturating_sub(1), passed, last);
                    self.exchange(word, pack(epoch, next)).map(|_| None)
                }
                Told::Succeeded if passed + 1 < rules.probes => {
                    let next = probing(taken, passed + 1, last);
                    self.exchange(word, pack(epoch, next)).map(|_| None)
                }
                Told::Succeeded => {
                    // Nobody counts in a half-open circuit, so this is there before anybody can.
                    self.forget();
                    let closed = pack(epoch + 1, State::Closed);
                    let closed = self.exchange(word, closed);
                    closed.map(|_| Some((state, State::Closed)))
                }
                Told::Slow | Told::Failed | Told::FailedSlowly => {
                    self.reopen(word, now, rules).map(Some)
                }
            };
            match done {
                Ok(change) => return change,
                Err(seen) => word = seen,
            }
        }
    }

    /// Counts a probe that was called off after it had lasted. Returns whether there have been as many of them as
    /// there are probes, and two at least, since the circuit is half-open or the last probe has passed.
    fn hangs(&self, ticket: Ticket, word: u64, rules: &Rules) -> bool {
        if word & IDENTITY != ticket.0 {
            return false;
        }
        let since = since(word);
        let mut seen = self.called_off.load(Ordering::Relaxed);
        loop {
            let before = if seen & !CALLED_OFF == since {
                seen & CALLED_OFF
            } else {
                0
            };
            let count = (before + 1).min(CALLED_OFF);
            let next = since | count;
            let counted =
                self.called_off
                    .compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            match counted {
                Ok(_) => return count >= u64::from(rules.probes.max(2)),
                Err(now) => seen = now,
            }
        }
    }

    /// Opens a half-open circuit again, for longer than the last time where that is wanted.
    fn reopen(&self, word: u64, now: Moment, rules: &Rules) -> Result<Change, u64> {
        let (epoch, state) = unpack(word);
        let failed = self.probes_failed.load(Ordering::Relaxed) + 1;
        let open = State::Open {
            until: now.plus(rules.open_for(failed)),
        };
        self.exchange(word, pack(epoch + 1, open))?;
        self.probes_failed.store(failed, Ordering::Relaxed);
        Ok((state, open))
    }

    /// Puts it into this state by hand: closed, or open until it is closed by hand.
    pub(crate) fn force(&self, next: State) -> Option<Change> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let (epoch, state) = unpack(word);
            if next == State::Closed {
                self.forget();
            }
            match self.exchange(word, pack(epoch + 1, next)) {
                Ok(_) => return (state != next).then_some((state, next)),
                Err(seen) => word = seen,
            }
        }
    }

    /// How it stands.
    pub(crate) fn state(&self) -> State {
        unpack(self.word.load(Ordering::Acquire)).1
    }

    /// What was counted of late.
    pub(crate) fn sums(&self, now: Moment) -> Sums {
        self.window.sums(now)
    }

    /// In which bucket's time something was counted the last time.
    pub(crate) fn last_used(&self) -> u32 {
        self.window.last_used()
    }

    /// Failures in a row.
    pub(crate) fn in_a_row(&self) -> u64 {
        self.in_a_row.load(Ordering::Relaxed)
    }

    fn forget(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.probes_failed.store(0, Ordering::Relaxed);
        self.window.clear();
    }

    fn exchange(&self, word: u64, next: u64) -> Result<u64, u64> {
        self.word
            .compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire)
    }
}

const fn probing(taken: u8, passed: u8, last: Moment) -> State {
    State::HalfOpen {
        taken,
        passed,
        last,
    }
}

/// The part of a half-open circuit's word that changes when a probe passes, and with each transition: what is counted
/// with it counts for nothing after that, and nobody has to set it back.
const fn since(word: u64) -> u64 {
    (word & (IDENTITY | PASSED)) << CALLED_OFF_BITS
}

const CALLED_OFF_BITS: u32 = 8;
const CALLED_OFF: u64 = (1 << CALLED_OFF_BITS) - 1;

/// Told to those who come while all probes are out: they will be back soon, or will not.
const SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            consecutive: 3,
            failure_percent: Some(50),
            slow_percent: None,
            calls_min: 10,
            open: 30 * SECOND,
            open_max: None,
            probes: 2,
            probe: 20 * SECOND,
        }
    }

    /// A machine, its rules, and a time that is moved by hand.
    struct Set {
        machine: Machine,
        rules: Rules,
        now: Moment,
    }

    impl Set {
        fn new(rules: Rules) -> Self {
            Self {
                machine: Machine::new(10_000_000_000),
                rules,
                now: Moment::default().plus(SECOND),
            }
        }

        fn open(rules: Rules) -> Self {
            let set = Self::new(rules);
            let tickets = [(); 3].map(|()| set.admitted());
            let changes = tickets.map(|ticket| set.tell(ticket, Told::Failed));
            let until = set.now.plus(set.rules.open);
            assert_eq!(
                changes,
                [None, None, Some((State::Closed, State::Open { until }))]
            );
            set
        }

        fn half_open() -> (Self, Ticket) {
            let mut set = Self::open(rules());
            set.pass(30 * SECOND);
            let ticket = set.admitted();
            (set, ticket)
        }

        fn pass(&mut self, time: Duration) {
            self.now = self.now.plus(time);
        }

        fn ask(&self) -> Asked {
            self.machine.ask(self.now, &self.rules).0
        }

        fn admitted(&self) -> Ticket {
            match self.ask() {
                Asked::Admitted(ticket) => ticket,
                Asked::Refused(_) => panic!("refused in {:?}", self.machine.state()),
            }
        }

        fn tell(&self, ticket: Ticket, told: Told) -> Option<Change> {
            self.machine.tell(ticket, told, self.now, &self.rules)
        }

        fn is_closed(&self) -> bool {
            self.machine.state() == State::Closed
        }
    }

    #[test]
    fn a_success_breaks_a_row_of_failures() {
        let set = Set::new(rules());
        for told in [
            Told::Failed,
            Told::Failed,
            Told::Succeeded,
            Told::Failed,
            Told::Failed,
        ] {
            assert_eq!(set.tell(set.admitted(), told), None);
        }
        assert!(set.tell(set.admitted(), Told::Failed).is_some());
    }

    #[test]
    fn half_of_the_calls_open_it_when_there_are_enough() {
        let set = Set::new(rules());
        for told in [Told::Failed, Told::Succeeded].repeat(4) {
            assert_eq!(set.tell(set.admitted(), told), None);
        }
        assert_eq!(set.tell(set.admitted(), Told::Succeeded), None);
        assert!(
            set.tell(set.admitted(), Told::Failed).is_some(),
            "the tenth"
        );
    }

    #[test]
    fn failures_of_long_ago_count_no_more() {
        let mut set = Set::new(rules());
        for told in [Told::Failed, Told::Succeeded].repeat(4) {
            set.tell(set.admitted(), told);
        }
        set.pass(10 * SECOND);
        for told in [Told::Succeeded, Told::Failed] {
            assert_eq!(set.tell(set.admitted(), told), None);
        }
    }

    #[test]
    fn slow_calls_open_it_where_that_is_watched() {
        let watching = Rules {
            slow_percent: Some(80),
            failure_percent: None,
            consecutive: u64::MAX,
            ..rules()
        };
        let set = Set::new(watching);
        for _ in 0..2 {
            set.tell(set.admitted(), Told::Failed);
        }
        for _ in 0..7 {
            assert_eq!(set.tell(set.admitted(), Told::Slow), None);
        }
        assert!(set.tell(set.admitted(), Told::FailedSlowly).is_some());
    }

    #[test]
    fn it_stays_open_for_its_time_and_says_how_long_that_is() {
        let mut set = Set::open(rules());
        for (passed, left) in [(0, 30), (10, 20), (19, 1)] {
            set.pass(passed * SECOND);
            assert_eq!(set.ask(), Asked::Refused(left * SECOND));
        }
        set.pass(SECOND);
        set.admitted();
    }

    #[test]
    fn all_probes_have_to_succeed() {
        let (set, first) = Set::half_open();
        let second = set.admitted();
        assert_eq!(set.ask(), Asked::Refused(SOON), "both are out");
        assert_eq!(set.tell(first, Told::Succeeded), None);
        assert_eq!(
            set.ask(),
            Asked::Refused(SOON),
            "one has passed, one is out"
        );
        let change = set.tell(second, Told::Succeeded).unwrap();
        assert!(matches!(change, (State::HalfOpen { .. }, State::Closed)));
        assert_eq!(
            (set.machine.in_a_row(), set.machine.sums(set.now)),
            (0, Sums::default())
        );
    }

    #[test]
    fn one_that_fails_is_enough_to_open_it_again() {
        for told in [Told::Failed, Told::Slow, Told::FailedSlowly] {
            let (set, first) = Set::half_open();
            let second = set.admitted();
            let change = set.tell(first, told).unwrap();
            assert!(matches!(
                change,
                (State::HalfOpen { .. }, State::Open { .. })
            ));
            assert_eq!(set.tell(second, Told::Succeeded), None, "too late");
            assert_eq!(set.ask(), Asked::Refused(30 * SECOND));
        }
    }

    #[test]
    fn it_stays_open_for_longer_each_time_that_a_probe_fails_where_that_is_wanted() {
        let growing = Rules {
            open_max: Some(100 * SECOND),
            ..rules()
        };
        let mut set = Set::open(growing);
        for secs in [30, 60, 100, 100] {
            assert_eq!(set.ask(), Asked::Refused(secs * SECOND));
            set.pass(secs * SECOND);
            set.tell(set.admitted(), Told::Failed);
        }
        set.pass(100 * SECOND);
        for ticket in [set.admitted(), set.admitted()] {
            set.tell(ticket, Told::Succeeded);
        }
        for _ in 0..3 {
            set.tell(set.admitted(), Told::Failed);
        }
        assert_eq!(set.ask(), Asked::Refused(30 * SECOND), "begun anew");
    }

    #[test]
    fn a_probe_that_is_called_off_gives_its_place_back() {
        let (set, first) = Set::half_open();
        let second = set.admitted();
        for ticket in [first, second] {
            assert_eq!(set.tell(ticket, Told::Nothing), None);
        }
        for ticket in [set.admitted(), set.admitted()] {
            set.tell(ticket, Told::Succeeded);
        }
        assert!(set.is_closed());
    }

    #[test]
    fn as_many_that_lasted_and_were_called_off_as_there_are_probes_open_it_again() {
        let (mut set, first) = Set::half_open();
        assert_eq!(set.tell(first, Told::CalledOff), None, "one says nothing");
        set.pass(2 * SECOND);
        let change = set.tell(set.admitted(), Told::CalledOff).unwrap();
        assert!(matches!(
            change,
            (State::HalfOpen { .. }, State::Open { .. })
        ));
        set.pass(30 * SECOND);
        let again = set.admitted();
        assert_eq!(set.tell(again, Told::CalledOff), None, "begun anew");
    }

    #[test]
    fn one_that_passed_outweighs_those_that_were_called_off_before() {
        let (set, first) = Set::half_open();
        assert_eq!(set.tell(first, Told::CalledOff), None);
        for told in [Told::Succeeded, Told::CalledOff, Told::Succeeded] {
            set.tell(set.admitted(), told);
        }
        assert!(set.is_closed());
    }

    #[test]
    fn of_a_single_probe_it_takes_two_to_open_it_again() {
        let single = Rules {
            probes: 1,
            ..rules()
        };
        let mut set = Set::open(single);
        set.pass(30 * SECOND);
        assert_eq!(set.tell(set.admitted(), Told::CalledOff), None);
        assert!(set.tell(set.admitted(), Told::CalledOff).is_some());
    }

    #[test]
    fn probes_that_never_come_back_have_failed() {
        let (mut set, first) = Set::half_open();
        set.pass(100 * SECOND);
        let second = set.admitted();
        set.pass(19 * SECOND);
        assert_eq!(set.ask(), Asked::Refused(SOON));
        set.pass(2 * SECOND);
        assert_eq!(set.ask(), Asked::Refused(30 * SECOND));
        for ticket in [first, second] {
            assert_eq!(set.tell(ticket, Told::Succeeded), None);
        }
        set.pass(30 * SECOND);
        set.admitted();
    }

    #[test]
    fn what_is_told_of_another_time_does_not_count() {
        let old = {
            let set = Set::new(rules());
            let old = [(); 5].map(|()| set.admitted());
            set.machine.force(State::Closed);
            assert!(
                old.iter()
                    .all(|ticket| set.tell(*ticket, Told::Failed).is_none())
            );
            assert!(set.is_closed());
            old
        };
        let (set, _) = Set::half_open();
        for ticket in old.into_iter().chain([Ticket::UNCOUNTED]) {
            assert_eq!(set.tell(ticket, Told::Failed), None);
        }
        assert!(matches!(set.machine.state(), State::HalfOpen { .. }));
    }

    #[test]
    fn by_hand_it_is_open_until_it_is_closed_by_hand() {
        let mut set = Set::new(rules());
        assert_eq!(
            set.machine.force(State::ForcedOpen),
            Some((State::Closed, State::ForcedOpen))
        );
        assert_eq!(set.machine.force(State::ForcedOpen), None, "nothing new");
        set.pass(1000 * SECOND);
        assert_eq!(set.ask(), Asked::Refused(30 * SECOND));
        assert_eq!(
            set.machine.force(State::Closed),
            Some((State::ForcedOpen, State::Closed))
        );
        set.admitted();
    }

    /// What is done in a random life of a circuit.
    #[derive(Clone, Debug)]
    enum Deed {
        Pass(u64),
        Ask,
        /// Tells of one of the calls under way.
        Tell(usize, Told),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let told = prop_oneof![
            4 => Just(Told::Failed),
            4 => Just(Told::Succeeded),
            1 => Just(Told::Nothing),
            1 => Just(Told::CalledOff),
            1 => Just(Told::Slow),
        ];
        prop_oneof![
            2 => (0_u64..25_000).prop_map(Deed::Pass),
            4 => Just(Deed::Ask),
            4 => (0_usize..8, told).prop_map(|(which, told)| Deed::Tell(which, told)),
        ]
    }

    proptest! {
        /// Whatever happens: no more probes are out than allowed, an open circuit lets nobody through before its
        /// time, it closes only after as many successes as there are probes and none failed, and whatever hangs, a
        /// long pause brings it back.
        #[test]
        fn a_circuit_keeps_its_promises(deeds in prop::collection::vec(deed(), 1..300)) {
            let mut set = Set::new(rules());
            let mut under_way: Vec<Ticket> = Vec::new();
            let mut probes: Vec<Ticket> = Vec::new();
            let (mut passed, mut called_off) = (0, 0);
            for deed in deeds {
                let before = set.machine.state();
                match deed {
                    Deed::Pass(millis) => set.pass(Duration::from_millis(millis)),
                    Deed::Ask => match set.ask() {
                        Asked::Admitted(ticket) => {
                            match (before, set.machine.state()) {
                                (State::Closed, State::Closed) => {}
                                (State::Open { until }, State::HalfOpen { .. }) => {
                                    prop_assert!(set.now >= until);
                                    probes = vec![ticket];
                                    (passed, called_off) = (0, 0);
                                }
                                (State::HalfOpen { .. }, State::HalfOpen { .. }) => probes.push(ticket),
                                other => prop_assert!(false, "{other:?}"),
                            }
                            prop_assert!(probes.len() + passed <= 2, "{probes:?} {passed}");
                            under_way.push(ticket);
                        }
                        Asked::Refused(wait) => {
                            prop_assert!(before != State::Closed && !wait.is_zero());
                        }
                    },
                    Deed::Tell(which, told) if !under_way.is_empty() => {
                        let ticket = under_way.swap_remove(which % under_way.len());
                        let change = set.tell(ticket, told);
                        if matches!(before, State::HalfOpen { .. })
                            && let Some(place) = probes.iter().position(|probe| *probe == ticket)
                        {
                            probes.swap_remove(place);
                            passed += usize::from(told == Told::Succeeded);
                            called_off = match told {
                                Told::Succeeded => 0,
                                Told::CalledOff => called_off + 1,
                                _ => called_off,
                            };
                            let opens = matches!(told, Told::Failed | Told::Slow) || called_off == 2;
                            let now_open = matches!(change, Some((_, State::Open { .. })));
                            prop_assert_eq!(opens, now_open);
                            prop_assert_eq!(passed == 2, set.is_closed());
                        }
                        if set.is_closed() || matches!(set.machine.state(), State::Open { .. }) {
                            probes.clear();
                            passed = 0;
                        }
                    }
                    Deed::Tell(..) => {}
                }
            }
            // All that are under way hang for ever: of two who come long after one another, one is let through.
            let mut comes = || {
                set.pass(51 * SECOND);
                matches!(set.ask(), Asked::Admitted(_))
            };
            prop_assert!(comes() || comes(), "{:?}", set.machine.state());
        }
    }
}
