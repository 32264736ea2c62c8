//! What a fleet's instance keeps beside its table: questions under way, leases, shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::orders::{at_once, every_order, orders_with};
use crate::rate_limit::flights::{Boarding, Flights, Row};
use crate::rate_limit::gcra::Limit;
use crate::rate_limit::leases::{Landed, Leases, Taken};
use crate::rate_limit::outage::Outage;
use crate::rate_limit::table::Table;
use crate::sync::oneshot::Sender;

const KEY: u64 = 7 << 50 | 7;

/// Questions about one key, of which one may be under way at a time.
struct Questions {
    flights: Arc<Flights<u32>>,
    under_way: AtomicBool,
}

/// What became of somebody who wanted an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    CalledOff,
    Left,
}

impl Questions {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flights: Arc::new(Flights::new()),
            under_way: AtomicBool::new(false),
        })
    }

    /// Asks until nobody waits any more, as a fleet does.
    fn fly(&self, mut row: Row<u32>, first: Vec<Sender<u32>>) {
        let mut seats = first;
        loop {
            let alone = !self.under_way.swap(true, Ordering::Relaxed);
            assert!(alone, "two questions about one key");
            // Others may come while the answer is on its way.
            loom::thread::yield_now();
            self.under_way.store(false, Ordering::Relaxed);
            for seat in seats {
                let _ = seat.send(5);
            }
            let Some(next) = row.next() else {
                return;
            };
            seats = next;
        }
    }

    fn ask(&self) -> Fate {
        let receiver = match self.flights.board(KEY) {
            Boarding::Lead(row, seats, receiver) => {
                self.fly(row, seats);
                receiver
            }
            Boarding::Join(receiver) => receiver,
            Boarding::Full => panic!("three are not too many"),
        };
        match receiver.wait() {
            Some(5) => Fate::Answered,
            Some(other) => panic!("{other} was never sent"),
            None => Fate::CalledOff,
        }
    }

    /// Asks, and gets no answer for those who wait.
    fn ask_in_vain(&self) -> Fate {
        match self.flights.board(KEY) {
            Boarding::Lead(row, seats, receiver) => {
                drop(seats);
                drop(row);
                assert_eq!(receiver.wait(), None);
                Fate::CalledOff
            }
            Boarding::Join(receiver) => match receiver.wait() {
                Some(_) => Fate::Answered,
                None => Fate::CalledOff,
            },
            Boarding::Full => panic!("three are not too many"),
        }
    }

    /// Asks, and goes away before there is an answer.
    fn ask_and_leave(&self) -> Fate {
        match self.flights.board(KEY) {
            Boarding::Lead(row, seats, receiver) => {
                drop(receiver);
                self.fly(row, seats);
            }
            Boarding::Join(receiver) => drop(receiver),
            Boarding::Full => panic!("three are not too many"),
        }
        Fate::Left
    }

    /// Sees that nothing is left of all that was asked.
    fn is_quiet(&self) {
        assert!(self.flights.lead(KEY).is_some());
    }
}

pub(crate) fn whoever_asks_is_answered() {
    orders_with(2, || {
        let questions = Questions::new();
        let ask: fn(&Questions) -> Fate = Questions::ask;
        assert_eq!(at_once(&questions, [ask, ask, ask]), [Fate::Answered; 3]);
        questions.is_quiet();
    });
}

pub(crate) fn nobody_waits_for_a_question_that_was_called_off() {
    orders_with(2, || {
        let questions = Questions::new();
        let deeds: [fn(&Questions) -> Fate; 3] =
            [Questions::ask_in_vain, Questions::ask, Questions::ask];
        // That they have ended at all is what counts.
        at_once(&questions, deeds);
        questions.is_quiet();
    });
}

pub(crate) fn those_who_leave_hold_nobody_up() {
    orders_with(2, || {
        let questions = Questions::new();
        let deeds: [fn(&Questions) -> Fate; 3] =
            [Questions::ask_and_leave, Questions::ask, Questions::ask];
        let fates = at_once(&questions, deeds);
        assert_eq!(fates, [Fate::Left, Fate::Answered, Fate::Answered]);
        questions.is_quiet();
    });
}

/// When leases end here.
const END: u64 = 1_000_000;

fn land(leases: &Leases, tokens: u32) {
    let landed = Landed {
        asked_at: 0,
        ahead: END,
        interval: 1000,
        tokens,
    };
    leases.land(KEY, 0, landed);
}

fn take(leases: &Leases) -> u32 {
    u32::from(leases.take(KEY, 0, 1).0 != Taken::Missing)
}

pub(crate) fn what_is_lent_is_used_once() {
    every_order(|| {
        let leases = Arc::new(Leases::new(16));
        assert_eq!(take(&leases), 0, "there was none yet");
        land(&leases, 1);
        let deeds: [fn(&Leases) -> u32; 3] = [
            |leases| {
                land(leases, 1);
                0
            },
            // For a request that another rule then refuses.
            |leases| {
                if take(leases) == 1 {
                    leases.put_back(KEY, 1, END);
                }
                0
            },
            |leases| take(leases) + take(leases),
        ];
        let used: u32 = at_once(&leases, deeds).into_iter().sum();
        let left: u32 = (0..9).map(|_| take(&leases)).sum();
        assert!(
            used + left <= 2,
            "{used} were used and {left} are left of two"
        );
    });
}

pub(crate) fn one_is_sent_for_more() {
    every_order(|| {
        let leases = Arc::new(Leases::new(16));
        assert_eq!(take(&leases), 0, "there was none yet");
        land(&leases, 4);
        let taken = |leases: &Leases| leases.take(KEY, 0, 1).0;
        let told = at_once(&leases, [taken, taken, taken]);
        let low = told
            .iter()
            .filter(|taken| matches!(taken, Taken::Low { .. }));
        assert_eq!(low.count(), 1, "{told:?}");
        assert!(!told.contains(&Taken::Missing));
    });
}

pub(crate) fn what_a_share_lets_through_is_told_once() {
    const LIMIT: Limit = Limit::new(10, 100);
    struct Instance {
        table: Table,
        outage: Outage,
    }
    impl Instance {
        /// Decides without Redis.
        fn alone(&self) -> u64 {
            let bucket = (KEY, LIMIT);
            let (key, share) = self.outage.share(&self.table, bucket, 0);
            let verdict = self.table.charge(key, 0, share, 1);
            assert!(verdict.is_allow());
            0
        }

        /// Asks Redis, which answers.
        fn ask(&self) -> u64 {
            let memory = self.outage.remember(&self.table, (KEY, LIMIT), 0);
            let landed = (&memory, 0);
            self.outage.landed(&self.table, (KEY, LIMIT), landed, 0);
            memory.debt
        }

        /// Asks Redis, which does not.
        fn ask_in_vain(&self) -> u64 {
            let memory = self.outage.remember(&self.table, (KEY, LIMIT), 0);
            self.outage.untold(KEY, &memory);
            0
        }
    }
    for ask in [Instance::ask, Instance::ask_in_vain] {
        orders_with(2, move || {
            let instance = Arc::new(Instance {
                table: Table::new(8, true, 0),
                outage: Outage::new(1),
            });
            instance.alone();
            let deeds: [fn(&Instance) -> u64; 3] = [Instance::alone, ask, Instance::alone];
            let told: u64 = at_once(&instance, deeds).into_iter().sum();
            assert_eq!(told + instance.ask(), 30, "three were let through");
        });
    }
}
