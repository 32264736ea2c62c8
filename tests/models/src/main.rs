//! Models: the files in which threads of tower-keep meet, under a checker that tries every order of their
//! steps.
//!
//! A test with real threads sees the orders that happen to come; here each model is run once for every order
//! that could make a difference, and for every value that a load could return by the memory model of Rust
//! (C11's), so that an `Ordering` that is too weak fails as well. The files are the shipped ones: they take
//! their atomics and locks from `crate::sync`, which is loom's here and the standard library's there.
//!
//! ```text
//! cargo run --manifest-path tests/models/Cargo.toml -- [part of a name ..]
//! ```
//!
//! A model is a function that asserts what must hold in whatever order, small enough to be tried in full. Where
//! that takes too long, as the number says which it passes, only orders with that many preemptions are tried.

#[expect(dead_code, reason = "the models use a part of what is shipped")]
mod breaker;
mod buckets;
mod clock;
mod entrances;
mod event;
#[expect(dead_code, reason = "the models use a part of what is shipped")]
mod guard;
#[expect(dead_code, reason = "the models use a part of what is shipped")]
mod journal;
mod mirrors;
mod orders;
mod parties;
#[expect(dead_code, reason = "the models use a part of what is shipped")]
#[path = "../../../src/pattern.rs"]
mod pattern;
#[expect(dead_code, reason = "the models use a part of what is shipped")]
mod rate_limit;
mod sync;
#[path = "../../../src/target.rs"]
mod target;
mod windows;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The models by name.
macro_rules! models {
    ($($room:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($room), "::", stringify!($name)), $room::$name)),*]
    };
}

const MODELS: &[(&str, fn())] = models![
    breaker::no_more_probes_are_out_than_allowed,
    breaker::a_probes_place_is_given_back_once,
    breaker::probes_that_leave_and_pass_lose_no_place,
    breaker::it_closes_once_when_all_have_passed_whoever_comes_last,
    breaker::one_that_fails_opens_it_whatever_the_others_do,
    breaker::probes_that_are_called_off_at_once_open_it_once,
    breaker::what_was_counted_before_it_closed_opens_nothing,
    breaker::failures_at_once_open_it_once,
    breaker::a_bucket_that_is_begun_by_many_at_once_counts_all_of_them,
    buckets::a_burst_is_never_exceeded_by_a_new_key,
    buckets::a_burst_is_never_exceeded_by_a_known_key,
    buckets::a_key_that_is_inserted_twice_at_once_gets_one_bucket,
    buckets::keys_at_home_in_one_slot_get_a_bucket_each,
    buckets::a_charge_a_refund_and_a_debit_all_count,
    buckets::what_is_raised_stays_raised,
    buckets::what_is_put_is_the_least_that_is_used,
    buckets::what_is_taken_was_charged,
    buckets::a_bucket_that_gives_way_is_not_in_two_places,
    buckets::a_full_table_turns_new_keys_away_whoever_comes_first,
    buckets::a_sweep_forgets_no_charge,
    buckets::after_a_long_pause_nobody_meets_an_old_time,
    buckets::all_or_nothing_from_both_ends,
    buckets::one_of_those_who_strike_at_once_is_banned,
    mirrors::what_was_heard_is_never_fresh_again,
    mirrors::an_entry_is_not_believed_beyond_what_was_looked_at,
    mirrors::a_doubt_is_not_undone_by_who_began_before_it,
    mirrors::nobody_vouches_for_a_gap,
    mirrors::whoever_is_vouched_for_has_what_was_missed,
    parties::whoever_asks_is_answered,
    parties::nobody_waits_for_a_question_that_was_called_off,
    parties::those_who_leave_hold_nobody_up,
    parties::what_is_lent_is_used_once,
    parties::one_is_sent_for_more,
    parties::what_a_share_lets_through_is_told_once,
    windows::a_window_ends_for_everybody_at_once,
    entrances::whoever_waits_gets_in_and_nobody_is_one_too_many,
    entrances::a_slot_handed_to_somebody_who_leaves_goes_to_the_next,
    entrances::a_slot_that_is_added_meanwhile_is_given_out,
    entrances::a_slot_that_is_taken_away_meanwhile_loses_nobody,
    entrances::by_turns_somebody_calls_for_the_pacer_whenever_a_slot_is_free,
    entrances::the_last_place_is_taken_from_one_and_not_from_two,
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<_> = MODELS
        .iter()
        .filter(|(name, _)| asked.is_empty() || asked.iter().any(|part| name.contains(&**part)))
        .collect();
    println!("running {} models", chosen.len());
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(chosen.len()) {
            scope.spawn(|| {
                while let Some((name, model)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    #[expect(clippy::disallowed_methods, reason = "models have no clock to ask")]
                    let began = Instant::now();
                    let holds = catch_unwind(model).is_ok();
                    failed.fetch_add(usize::from(!holds), Ordering::Relaxed);
                    let outcome = if holds { "ok" } else { "FAILED" };
                    let (orders, took) = (orders::tried(), began.elapsed().as_secs_f64());
                    println!("model {name} ... {outcome} ({orders} orders in {took:.1} s)");
                }
            });
        }
    });
    let failed = failed.into_inner();
    let (result, passed) = (
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
    );
    // Told as cargo tells it of tests, for whoever counts them.
    println!("\ntest result: {result}. {passed} passed; {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
