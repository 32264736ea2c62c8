//! The long form of the coherence test: processes that share Redis, and everything that can happen to it.
//!
//! ```text
//! cargo run --release --example coherence_torture -- [--minutes 10] [--workers 3] [--seed 1]
//! ```
//!
//! Several processes of this program read through memory and Redis, change what is in a database and
//! invalidate it by key, tag, pattern and cascade, as fast as they can. Every two seconds something goes
//! wrong: the primary is killed, stopped or replaced, connections are cut, the journal is flushed or evicted,
//! a worker is stopped or killed. Each read is judged by what had been acknowledged before it began; a single
//! one that was served less ends the run with a failure. `redis-server` must be installed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    reason = "most of it is the tests' harness, which fails by panicking"
)]

#[path = "../../tests/it/coherence/cached.rs"]
mod cached;
#[path = "../../tests/it/coherence/chance.rs"]
mod chance;
#[path = "../../tests/it/coherence/drive.rs"]
mod drive;
#[path = "../../tests/it/coherence/faults.rs"]
mod faults;
#[path = "../../tests/it/coherence/fleet.rs"]
mod fleet;
#[path = "../../tests/it/coherence/journaled.rs"]
mod journaled;
#[path = "../../tests/it/coherence/judge.rs"]
mod judge;
#[path = "../../tests/it/redis/mod.rs"]
mod redis;
#[path = "../../tests/it/coherence/registers.rs"]
mod registers;
#[path = "../../tests/it/coherence/worker.rs"]
mod worker;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fleet::Fleet;

/// How often something goes wrong.
const REST: Duration = Duration::from_secs(2);
/// How often it is told how far it is.
const TELLS_EVERY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Some(orders) = worker::Orders::of_this_process() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(worker::work(orders));
        return ExitCode::SUCCESS;
    }
    let Some([minutes, workers, seed]) = asked() else {
        eprintln!("coherence_torture [--minutes 10] [--workers 3] [--seed 1]");
        return ExitCode::FAILURE;
    };
    // A worker more or less than fits into 32 bits is not what anybody asks for.
    let mut fleet = Fleet::start(workers as u32, &[], seed);
    let began = Instant::now();
    let mut told = began;
    fleet.torture(Duration::from_secs(60 * minutes), REST, |report| {
        if told.elapsed() >= TELLS_EVERY {
            told = Instant::now();
            println!("{}", report.line());
        }
    });
    let report = fleet.end(began.elapsed());
    print!("{}", report.text());
    match report.tally.violations() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Minutes, workers and the seed.
fn asked() -> Option<[u64; 3]> {
    let mut asked = [10, 3, 1];
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let at = ["--minutes", "--workers", "--seed"]
            .iter()
            .position(|name| *name == word)?;
        asked[at] = words.next()?.parse().ok()?;
    }
    asked
        .iter()
        .take(2)
        .all(|number| *number > 0)
        .then_some(asked)
}
