//! The long form of the coherence test: processes that share Redis, and everything that can happen to it.
//!
//! ```text
//! cargo run --release --example coherence_torture -- [--minutes 10] [--workers 3] [--seed 1] [--flaw late-stamp]
//! ```
//!
//! Several processes of this program read through memory and Redis, and as often through a typed cache with a
//! cold store; they change what is in a database and invalidate it by key, tag, pattern, namespace and cascade, as fast as they can. Every two seconds something goes
//! wrong: the primary is killed, stopped or replaced, connections are cut, the journal is flushed or evicted,
//! a worker is stopped or killed. Each read is judged by what had been acknowledged before it began; a single
//! one that was served less ends the run with a failure. With a flaw the workers do something wrong on purpose, which has to be seen.
//! `redis-server` must be installed.
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
#[path = "../../tests/it/coherence/tiered.rs"]
mod tiered;
#[path = "../../tests/it/coherence/worker.rs"]
mod worker;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fleet::Fleet;
use journaled::Flaw;

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
    let Some(asked) = Asked::of(std::env::args().skip(1)) else {
        let flaws = Flaw::ALL.map(Flaw::name).join("|");
        eprintln!("coherence_torture [--minutes 10] [--workers 3] [--seed 1] [--flaw {flaws}]");
        return ExitCode::FAILURE;
    };
    let mut fleet = Fleet::start(asked.workers, &[], (asked.seed, asked.flaw));
    let began = Instant::now();
    let mut told = began;
    fleet.torture(Duration::from_secs(60 * asked.minutes), REST, |report| {
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

/// What is asked for on the command line.
struct Asked {
    minutes: u64,
    workers: u32,
    seed: u64,
    flaw: Flaw,
}

impl Asked {
    fn of(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut asked = Self {
            minutes: 10,
            workers: 3,
            seed: 1,
            flaw: Flaw::None,
        };
        while let Some(word) = words.next() {
            let value = words.next()?;
            match &*word {
                "--minutes" => asked.minutes = value.parse().ok()?,
                "--workers" => asked.workers = value.parse().ok().filter(|count| *count > 0)?,
                "--seed" => asked.seed = value.parse().ok()?,
                "--flaw" => asked.flaw = Flaw::named(&value)?,
                _ => return None,
            }
        }
        Some(asked)
    }
}
