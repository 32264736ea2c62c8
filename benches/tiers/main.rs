//! What a value of a typed cache costs: from memory, from Redis, and computed; beside what each could not be
//! less than, and the goal it was built for.
//!
//! `cargo bench --bench tiers [-- hits misses writes reads many]`. It starts a `redis-server` of its own. A table at the end says which goals were
//! met. What peers take for the same is measured by `benches/peers`.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

#[path = "../journal/goals.rs"]
#[expect(dead_code, reason = "shared with another bench, which uses more of it")]
mod goals;
mod hot;
mod stand;
#[path = "../../tests/it/redis/mod.rs"]
mod test_redis;
mod warm;

use std::time::Duration;

use criterion::Criterion;

use crate::hot::{hits, misses};
use crate::warm::{many, reads, writes};

/// What is measured, in order. Those that are named on the command line, or all.
const PARTS: [(&str, fn(&mut Criterion)); 5] = [
    ("hits", hits),
    ("misses", misses),
    ("writes", writes),
    ("reads", reads),
    ("many", many),
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .measurement_time(Duration::from_secs(2));
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_named = |name: &str| asked.iter().any(|word| word == name);
    let all = !PARTS.iter().any(|(name, _)| is_named(name));
    for (name, part) in PARTS {
        if all || is_named(name) {
            part(&mut criterion);
        }
    }
    goals::table();
}
