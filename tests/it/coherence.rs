//! Nothing that was invalidated is served again: real processes that share real servers, while these are
//! killed, stopped, cut off, emptied and replaced.
//!
//! This is the short form. The long one is
//! `cargo run --release --example coherence_torture -- --minutes 10`; and that the harness sees what it is to
//! see is shown by three public caches, each of which it catches:
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- coherence`.
#![allow(dead_code, reason = "the long form and the controls use the rest")]

mod cached;
pub mod chance;
mod drive;
mod faults;
mod fleet;
mod journaled;
mod judge;
mod registers;
mod tiered;
mod worker;

use std::time::{Duration, Instant};

use chance::Chance;
use faults::Fault;
use fleet::Fleet;
use journaled::Flaw;
use judge::Count;

/// What makes the test program a worker.
const ARGUMENTS: &[&str] = &["--exact", "coherence::works", "--ignored", "--nocapture"];

#[test]
fn nothing_that_was_invalidated_is_served_again_whatever_happens_to_redis() {
    let faults = [
        Fault::CutCommands,
        Fault::HangWorker,
        Fault::Flush,
        Fault::HangLong,
        Fault::KillUnreplicated,
        Fault::Squeeze,
        Fault::KillWorker,
        Fault::Evict,
    ];
    let mut chance = Chance::new(7);
    let mut fleet = Fleet::start(3, ARGUMENTS, (7, Flaw::None));
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    for fault in faults {
        fleet.inflict(fault, &mut chance);
        // Faults do not wait for each other's end, but there have to be times in which something is stored.
        std::thread::sleep(Duration::from_millis(700));
    }
    let report = fleet.end(began.elapsed());
    let text = report.text();
    println!("{text}");
    assert_eq!(report.tally.violations(), 0, "{text}");
    assert_eq!(report.violations, [], "{text}");
    // It cannot hold by doing nothing.
    for (what, least) in [
        (Count::Hot, 300),
        (Count::Strict, 500),
        (Count::Typed, 500),
        (Count::Warm, 100),
        (Count::Cold, 10),
        (Count::Collapsed, 50),
        (Count::Stale, 5),
        (Count::Miss, 300),
        (Count::Acknowledged, 100),
    ] {
        assert!(report.tally.of(what) >= least, "{what:?}: {text}");
    }
    assert_eq!(report.faults.len(), faults.len());
}

/// Otherwise the test above would prove nothing.
#[test]
fn what_is_done_wrong_on_purpose_is_seen() {
    for flaw in [Flaw::LateStamp, Flaw::EarlyWord] {
        let fleet = Fleet::start(3, ARGUMENTS, (7, flaw));
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            let report = fleet.report(Duration::ZERO);
            let seen = |what| report.tally.of(what) > 0;
            let memory = [Count::HotViolation, Count::TypedViolation];
            let all = match flaw {
                // What is recorded is seen by whoever asks Redis.
                Flaw::EarlyWord => memory.into_iter().any(seen),
                // A late stamp deceives everybody.
                _ => memory.into_iter().all(seen) && seen(Count::StrictViolation),
            };
            if all {
                break;
            }
            assert!(Instant::now() < deadline, "{flaw:?}: {}", report.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// On a machine that has nothing else to do it takes a few seconds; beside a build it has taken more than a minute.
const SEEN_WITHIN: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "one process of the test that starts several"]
async fn works() {
    if let Some(orders) = worker::Orders::of_this_process() {
        worker::work(orders).await;
    }
}

/// Why no fault sets a clock: nothing that decides whether an entry holds reads the time of day. Leases are
/// measured in moments of a clock that begins when its process does, so that those of two workers are as far
/// apart as their starts anyway.
#[test]
fn the_journal_reads_no_time_of_day() {
    let room = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/journal");
    let mut files = 0;
    for file in std::fs::read_dir(room).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for word in ["wall()", "SystemTime", "UNIX_EPOCH"] {
            assert!(!text.contains(word), "{word}");
        }
        files += 1;
    }
    assert!(files > 5, "{files} files were looked at");
}
