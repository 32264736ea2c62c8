//! What it costs to be guarded: to be let in, to wait, to be turned away, to pass a circuit breaker.
//!
//! `cargo bench --bench guard [-- admission layer queue breaker whole]`. The work without a guard stands beside each
//! figure, and a table at the end says which goals were met. What peers take for the same is measured by
//! `benches/peers`, what it is good for by `examples/overload`.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

mod admission;
mod breaker;
#[path = "../journal/goals.rs"]
mod goals;
mod whole;

use std::time::Duration;

use criterion::Criterion;

/// A name for the command line, and what measures it.
type Group = (&'static str, fn(&mut Criterion));

/// What is measured, in order. Those that are named on the command line, or all.
const GROUPS: &[Group] = &[
    ("admission", admission::alone),
    ("layer", admission::layer),
    ("queue", admission::queue),
    ("breaker", breaker::breaker),
    ("whole", whole::whole),
];

fn main() {
    // The queue's patience is a timer.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let inside = runtime.enter();
    let mut criterion = Criterion::default()
        .sample_size(50)
        .measurement_time(Duration::from_secs(2));
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_named = |name: &str| asked.iter().any(|word| word == name);
    let all = !GROUPS.iter().any(|(name, _)| is_named(name));
    for (name, group) in GROUPS {
        if all || is_named(name) {
            group(&mut criterion);
        }
    }
    drop(inside);
    goals::table();
}
