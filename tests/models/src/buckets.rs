//! The table of buckets, and what is built on it alone.

use std::sync::Arc;
use std::time::Duration;

use crate::orders::{at_once, every_order, orders_with};
use crate::rate_limit::charges::{Charge, take_all};
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::gcra::{Limit, Verdict};
use crate::rate_limit::penalty::{PenaltyBox, PenaltyTerms};
use crate::rate_limit::slot::SWEEP_EVERY;
use crate::rate_limit::table::Table;

/// The smallest table has two lines of eight slots, and every key may live in both.
const SLOTS: u64 = 16;

const DAY: u64 = 86_400_000_000;

/// A key with this tag, whose lock is its own among the first 64. All are at home in the first line, in the slot
/// of their number divided by eight.
const fn key(name: u64) -> u64 {
    name << 44 | name << 32
}

fn table() -> Table {
    Table::new(8, true, 0)
}

/// A table in which every slot is in use, by the keys from 101 on. The first four lie in the first line, the next
/// four in the second, the others in both by turns. All lie far ahead, but for those that are named.
fn full_table(evicts: bool, aheads: &[(u64, u64)]) -> Table {
    let table = Table::new(8, evicts, 0);
    for name in 101..101 + SLOTS {
        let named = aheads.iter().find(|(named, _)| *named == name);
        let ahead = named.map_or(DAY + name, |(_, ahead)| *ahead);
        table.put(key(name), 0, ahead);
    }
    table
}

/// How many of these keys have a bucket. Empties them, and fails if one has two.
fn kept(table: &Table, now: u64, names: impl IntoIterator<Item = u64>) -> u64 {
    let had = names.into_iter().filter(|name| {
        let had = table.take(key(*name), now) > 0;
        assert_eq!(table.take(key(*name), now), 0, "{name} has a second bucket");
        had
    });
    had.count() as u64
}

fn passed<const N: usize>(allowed: [bool; N]) -> usize {
    allowed.into_iter().filter(|allowed| *allowed).count()
}

fn charge(table: &Table, name: u64, now: u64, limit: Limit) -> bool {
    table.charge(key(name), now, limit, 1).is_allow()
}

const BURST: Limit = Limit::new(1000, 2);

pub(crate) fn a_burst_is_never_exceeded_by_a_new_key() {
    every_order(|| {
        let table = Arc::new(table());
        let charge = |table: &Table| charge(table, 1, 0, BURST);
        assert_eq!(passed(at_once(&table, [charge, charge, charge])), 2);
        assert_eq!(table.ahead(key(1), 0), 2000);
    });
}

pub(crate) fn a_burst_is_never_exceeded_by_a_known_key() {
    every_order(|| {
        let table = Arc::new(table());
        table.put(key(1), 0, 1000);
        let punctual = |table: &Table| charge(table, 1, 500, BURST);
        // By a clock that is a little behind, there is less left.
        let late = |table: &Table| charge(table, 1, 499, BURST);
        assert_eq!(passed(at_once(&table, [punctual, punctual, late])), 1);
    });
}

/// Two threads whose clocks differ by a little see different slots as free.
pub(crate) fn a_key_that_is_inserted_twice_at_once_gets_one_bucket() {
    // At 980 the second or the first of these is free; at 990 more, of which one is nearer to home, or in the
    // second line.
    const IN_ONE_LINE: &[(u64, u64)] = &[(101, 985), (102, 975)];
    const IN_BOTH: &[(u64, u64)] = &[(101, 975), (105, 985), (106, 985)];
    for aheads in [IN_ONE_LINE, IN_BOTH] {
        every_order(move || {
            let table = Arc::new(full_table(true, aheads));
            let deeds: [fn(&Table) -> bool; 2] = [
                |table| charge(table, 1, 980, Limit::new(DAY, 1)),
                |table| charge(table, 1, 990, Limit::new(DAY, 1)),
            ];
            assert_eq!(passed(at_once(&table, deeds)), 1);
            assert_eq!(kept(&table, 990, [1]), 1);
            assert_eq!(table.evicted(), 0);
        });
    }
}

/// Whose locks are different ones.
pub(crate) fn keys_at_home_in_one_slot_get_a_bucket_each() {
    orders_with(3, || {
        let table = Arc::new(table());
        let deeds: [fn(&Table) -> bool; 3] = [
            |table| charge(table, 1, 0, BURST),
            |table| charge(table, 9, 0, BURST),
            |table| charge(table, 9, 0, BURST),
        ];
        assert_eq!(passed(at_once(&table, deeds)), 3);
        assert_eq!([1, 9].map(|name| table.ahead(key(name), 0)), [1000, 2000]);
        assert_eq!(kept(&table, 0, [1, 9]), 2);
        assert_eq!(table.evicted(), 0);
    });
}

pub(crate) fn a_charge_a_refund_and_a_debit_all_count() {
    const LIMIT: Limit = Limit::new(1000, 4);
    every_order(|| {
        let table = Arc::new(table());
        table.put(key(1), 0, 2000);
        let deeds: [fn(&Table); 3] = [
            |table| assert!(table.charge(key(1), 0, LIMIT, 1).is_allow()),
            |table| table.refund(key(1), 0, LIMIT, 1),
            |table| assert!(table.debit(key(1), 0, LIMIT, 1) >= 2000),
        ];
        at_once(&table, deeds);
        assert_eq!(table.ahead(key(1), 0), 3000);
    });
}

pub(crate) fn what_is_raised_stays_raised() {
    const LIMIT: Limit = Limit::new(1000, 4);
    every_order(|| {
        let table = Arc::new(table());
        table.put(key(1), 0, 1000);
        let charge = |table: &Table| table.charge(key(1), 0, LIMIT, 1).ahead();
        let raise = |table: &Table| {
            table.raise(key(1), 0, 2000);
            0
        };
        let [first, raised, second] = at_once(&table, [charge, raise, charge]);
        let most = first.max(second).max(raised);
        // Whoever came last is what is left: nothing was written over.
        assert_eq!(table.ahead(key(1), 0), most);
        assert!((3000..=4000).contains(&most) && first != second);
    });
}

/// Redis has the last word, but whoever charges after it is counted.
pub(crate) fn what_is_put_is_the_least_that_is_used() {
    const LIMIT: Limit = Limit::new(1000, 4);
    every_order(|| {
        let table = Arc::new(table());
        table.put(key(1), 0, 3000);
        let charge = |table: &Table| table.charge(key(1), 0, LIMIT, 1);
        let put = |table: &Table| {
            table.put(key(1), 0, 1000);
            Verdict::Deny { ahead: 0 }
        };
        let [first, _, second] = at_once(&table, [charge, put, charge]);
        // One that came before met three or four.
        let after = [first, second].map(|verdict| verdict.is_allow() && verdict.ahead() < 4000);
        assert_eq!(table.ahead(key(1), 0), 1000 + 1000 * passed(after) as u64);
    });
}

pub(crate) fn what_is_taken_was_charged() {
    const LIMIT: Limit = Limit::new(1000, 4);
    every_order(|| {
        let table = Arc::new(table());
        table.put(key(1), 0, 1000);
        let take = |table: &Table| table.take(key(1), 0);
        let charge = |table: &Table| {
            assert!(table.charge(key(1), 0, LIMIT, 1).is_allow());
            0
        };
        let taken: u64 = at_once(&table, [take, charge, take]).into_iter().sum();
        assert_eq!(taken + table.ahead(key(1), 0), 2000);
    });
}

/// The bucket that is closest to full is charged at the moment at which others drive it out.
pub(crate) fn a_bucket_that_gives_way_is_not_in_two_places() {
    orders_with(2, || {
        let table = Arc::new(full_table(true, &[(101, DAY / 2)]));
        let deeds: [fn(&Table) -> bool; 3] = [
            |table| charge(table, 101, 0, Limit::new(2 * DAY, 2)),
            |table| charge(table, 1, 0, Limit::new(2 * DAY, 2)),
            |table| charge(table, 2, 0, Limit::new(2 * DAY, 2)),
        ];
        assert_eq!(passed(at_once(&table, deeds)), 3);
        // The one that was charged as often as not came back in another's place.
        assert!((2..=3).contains(&table.evicted()));
        assert_eq!(kept(&table, 0, [1, 2, 101]), 3);
        assert_eq!(kept(&table, 0, 102..101 + SLOTS), SLOTS - 3);
    });
}

pub(crate) fn a_full_table_turns_new_keys_away_whoever_comes_first() {
    orders_with(2, || {
        let table = Arc::new(full_table(false, &[]));
        let deeds: [fn(&Table) -> bool; 3] = [
            |table| charge(table, 1, 0, BURST),
            |table| charge(table, 2, 0, BURST),
            |table| table.take(key(101), 0) == 0,
        ];
        let [first, second, missing] = at_once(&table, deeds);
        assert!(!missing);
        assert_eq!(kept(&table, 0, [1]), u64::from(first));
        assert_eq!(kept(&table, 0, [2]), u64::from(second));
        assert!(!(first && second) && table.evicted() == 0);
        assert_eq!(kept(&table, 0, 102..101 + SLOTS), SLOTS - 1);
    });
}

pub(crate) fn a_sweep_forgets_no_charge() {
    const BEFORE: u64 = SWEEP_EVERY - 1000;
    const ONCE: Limit = Limit::new(DAY, 1);
    fn swept_by<const N: usize>(deeds: [fn(&Table) -> bool; N]) {
        let table = Arc::new(table());
        for (name, ahead) in [(1, 500), (2, 500), (3, 5000)] {
            table.put(key(name), BEFORE, ahead);
        }
        assert_eq!(passed(at_once(&table, deeds)), 2);
        let aheads = [1, 2, 3].map(|name| table.ahead(key(name), SWEEP_EVERY));
        assert_eq!(aheads, [DAY, 1999, 4000]);
        assert_eq!(kept(&table, SWEEP_EVERY, [1, 2, 3]), 3);
    }
    let punctual = |table: &Table| charge(table, 1, SWEEP_EVERY, ONCE);
    // A clock that is behind, and does not see that it is time to sweep.
    let late = |table: &Table| charge(table, 2, SWEEP_EVERY - 1, Limit::new(2000, 4));
    every_order(move || swept_by([punctual, late]));
    orders_with(1, move || swept_by([punctual, punctual, late]));
}

/// After 150 days a time of before looks as if it lay ahead.
pub(crate) fn after_a_long_pause_nobody_meets_an_old_time() {
    const LATER: u64 = 150 * DAY;
    const SLOW: Limit = Limit::new(30 * DAY, 2);
    orders_with(2, || {
        let table = Arc::new(table());
        assert!(charge(&table, 1, 0, SLOW) && charge(&table, 2, 0, SLOW));
        let deeds: [fn(&Table) -> bool; 3] = [
            |table| charge(table, 1, LATER, SLOW),
            |table| charge(table, 1, LATER, SLOW),
            |table| table.ahead(key(2), LATER) == 0,
        ];
        assert_eq!(passed(at_once(&table, deeds)), 3);
        assert_eq!(table.ahead(key(1), LATER), 60 * DAY);
        assert_eq!(kept(&table, LATER, [1, 2]), 1);
    });
}

pub(crate) fn all_or_nothing_from_both_ends() {
    fn take<const N: usize>(table: &Table, names: [u64; N]) -> bool {
        let (rule, plan) = (Arc::<CompiledRule>::default(), Arc::<Plan>::default());
        let charges = names.map(|name| Charge {
            key: key(name),
            rule: &rule,
            plan: &plan,
            limit: Limit::new(1000, 1),
            cost: 1,
            bucket: &BUCKET,
        });
        take_all(table, 0, charges.iter()).is_some_and(|(_, verdict)| verdict.is_allow())
    }
    static BUCKET: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "bucket".into());
    orders_with(2, || {
        let table = Arc::new(table());
        let deeds: [fn(&Table) -> bool; 3] = [
            |table| take(table, [1, 2]),
            |table| take(table, [2, 1]),
            |table| take(table, [2]),
        ];
        let [there, back, alone] = at_once(&table, deeds);
        // Nobody is charged for what was denied, in whatever order it was found out.
        let used = [1, 2].map(|name| table.ahead(key(name), 0) / 1000);
        let both = u64::from(there) + u64::from(back);
        assert_eq!(used, [both, both + u64::from(alone)]);
    });
}

pub(crate) fn one_of_those_who_strike_at_once_is_banned() {
    const CLIENT: u64 = 0x3c6e_f372_fe94_f82b;
    orders_with(2, || {
        let terms = PenaltyTerms {
            strikes: 1,
            strike_fades: DAY,
            ban: 60_000,
            ban_max: 600_000,
            relapse_fades: DAY,
        };
        let penalties = Arc::new(PenaltyBox::new(terms, 8, 0));
        let strike = |penalties: &PenaltyBox| penalties.strike(CLIENT, 0);
        let bans = at_once(&penalties, [strike, strike, strike]);
        // The first is forgiven, the next one is too many, and then it begins anew.
        let bans: Vec<Duration> = bans.into_iter().flatten().collect();
        assert_eq!(bans, [Duration::from_micros(60_000)]);
        assert!(penalties.bans_anybody(59_999));
        assert_eq!(penalties.banned(CLIENT, 0), Some(bans[0]));
    });
}
