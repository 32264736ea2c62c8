//! What an invalidation costs, how soon everybody has heard of it, and what it costs to ask whether an entry
//! holds; beside what each could not be less than, and the goal it was built for.
//!
//! `cargo bench --bench journal`. It starts a `redis-server` of its own and a fleet of eight instances in this
//! process: they share its cores, as eight services on machines of their own would not. A table at the end
//! says which goals were met.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, measures time, and criterion's macros make undocumented functions"
)]

mod alone;
mod cached;
mod fleet;
mod goals;
#[path = "../../tests/it/redis/mod.rs"]
mod test_redis;

use std::time::Duration;

use criterion::{Criterion, criterion_group};

use crate::alone::{checks, patterns};
use crate::cached::invalidations;
use crate::fleet::{fleet, memory};

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = checks, patterns, invalidations, memory, fleet
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    goals::table();
}
