//! Several processes at one bucket, some of which are killed: never too many, and hardly too few.

use std::time::{Duration, Instant};

use tower_keep::rate_limit::Mode;

use super::passed::{most_at_once, usable};
use super::process::{Hammered, Said, Worker};
use crate::redis::{TestRedis, until};

const WORKERS: usize = 4;

/// How long they go on.
const TIME: Duration = Duration::from_secs(4);

/// Four processes; two of them are killed on the way, and others begin in their place.
fn hammer(hammered: Hammered) -> Said {
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
    let mut all = Said::default();
    let mut note = |said: Said| {
        all.passed.extend(said.passed);
        all.asked.extend(said.asked);
    };
    for (killed, third) in [(0, TIME / 3), (1, TIME * 2 / 3)] {
        until("so long", || (began.elapsed() > third).then_some(()));
        let mut next = spare.pop().unwrap();
        next.go();
        note(std::mem::replace(&mut workers[killed], next).kill());
    }
    until("so long", || (began.elapsed() > TIME).then_some(()));
    let counts: Vec<usize> = workers.iter().map(Worker::count).collect();
    for worker in workers {
        note(worker.end());
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    all
}

/// Fails if too many passed, and says what part was of use of what was asked for.
fn check(hammered: Hammered) -> f64 {
    let Said { passed, mut asked } = hammer(hammered);
    let (interval, burst) = (hammered.interval(), hammered.burst.into());
    let most = most_at_once(&passed, interval);
    asked.extend(passed.iter().map(|one| one.asked));
    let used = passed.len() as f64 / usable(&asked, interval, burst);
    let told = format!("{} passed, {most} at once, {used:.3} used", passed.len());
    eprintln!("{hammered:?}: {told}");
    assert!(most <= burst, "{told}");
    used
}

/// A bucket that all press against all the time.
const PRESSED: Hammered = Hammered {
    mode: Mode::Exact,
    per_second: 500,
    burst: 100,
    rests: false,
};

#[test]
fn four_processes_of_which_two_are_killed_let_through_exactly_the_quota() {
    let used = check(PRESSED);
    assert!(used >= 0.95, "only {used:.3} of the quota was of use");
}

#[test]
fn four_processes_with_leases_let_through_no_more_than_the_quota_and_hardly_less() {
    let used = check(Hammered {
        mode: Mode::Leased,
        ..PRESSED
    });
    assert!(used >= 0.95, "only {used:.3} of the quota was of use");
}

/// The bucket grows full again and again, while tokens that were taken in advance lapse.
#[test]
fn leases_that_lapse_are_never_more_than_the_bucket_lacks() {
    let used = check(Hammered {
        mode: Mode::Leased,
        per_second: 1000,
        burst: 300,
        rests: true,
    });
    assert!(used >= 0.6, "only {used:.3} of the quota was of use");
}
