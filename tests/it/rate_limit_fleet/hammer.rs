//! Several processes at one bucket, some of which are killed: never too many, and hardly too few.

use std::time::{Duration, Instant};

use tower_keep::rate_limit::Mode;

use super::passed::{Passed, most_at_once, used};
use super::process::{Hammered, Worker};
use crate::redis::{TestRedis, until};

const WORKERS: usize = 4;

/// How long they go on.
const TIME: Duration = Duration::from_millis(3000);

/// Four processes; two of them are killed on the way, and others begin in their place.
fn hammer(hammered: Hammered) -> Vec<Passed> {
    let server = TestRedis::start();
    let url = server.url();
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|_| Worker::spawn(&url, hammered))
        .collect();
    workers.iter().for_each(Worker::await_ready);
    // Their places are taken the moment they are killed.
    let mut spare: Vec<Worker> = (0..2).map(|_| Worker::spawn(&url, hammered)).collect();
    spare.iter().for_each(Worker::await_ready);
    workers.iter_mut().for_each(Worker::go);
    let began = Instant::now();
    let mut all = Vec::new();
    for (killed, third) in [(0, TIME / 3), (1, TIME * 2 / 3)] {
        if std::env::var("NOKILL").is_ok() {
            break;
        }
        until("so long", || (began.elapsed() > third).then_some(()));
        let mut next = spare.pop().unwrap();
        next.go();
        all.extend(std::mem::replace(&mut workers[killed], next).kill());
    }
    until("so long", || (began.elapsed() > TIME).then_some(()));
    let counts: Vec<usize> = workers.iter().map(Worker::count).collect();
    for worker in workers {
        all.extend(worker.end());
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    all
}

fn check(hammered: Hammered) {
    let passed = hammer(hammered);
    let (interval, burst) = (hammered.interval(), hammered.burst.into());
    let most = most_at_once(&passed, interval);
    assert!(most <= burst, "{most} at once");
    let used = used(&passed, interval, burst);
    eprintln!(
        "{hammered:?}: {} passed, {most} at once, {used:.3} used",
        passed.len()
    );
    assert!(used >= 0.95, "only {used:.3} of the quota was of use");
}

#[test]
fn four_processes_of_which_two_are_killed_let_through_exactly_the_quota() {
    check(Hammered {
        mode: Mode::Exact,
        per_second: 500,
        burst: 100,
    });
}

#[test]
fn four_processes_with_leases_let_through_no_more_than_the_quota_and_hardly_less() {
    check(Hammered {
        mode: Mode::Leased,
        per_second: 500,
        burst: 100,
    });
}
