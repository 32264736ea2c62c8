//! What passed, and when: written down by all instances by one clock, and held against the quota.

use std::time::{SystemTime, UNIX_EPOCH};

/// A request that passed, somewhere between these two moments, in µs.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    pub asked: u64,
    pub answered: u64,
}

/// The machine's clock, which all processes share, also the servers.
pub fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// How far a server's clock may lag behind within a script, in µs.
const GRAIN: u64 = 2_000;

/// The most that passed in any stretch of time beyond what grows back in it, where one request grows back
/// in `interval` µs. No more than the burst may.
///
/// A request counts for a stretch only if it was both asked and answered within, so that nobody is accused
/// of what waited elsewhere.
pub fn most_at_once(passed: &[Passed], interval: u64) -> u64 {
    let mut by_answer = passed.to_vec();
    by_answer.sort_unstable_by_key(|one| one.answered);
    let mut most = 0;
    for first in &by_answer {
        let begin = first.asked;
        let mut count = 0;
        for one in by_answer.iter().filter(|one| one.asked >= begin) {
            count += 1;
            let grown = (one.answered - begin + GRAIN) / interval;
            most = most.max(count - grown.min(count));
        }
    }
    most
}

/// How many could have passed if whoever asked had been granted all that there was: at each of these moments
/// somebody asked for more than there can be. What grew back in a full bucket while no process ran is not
/// counted, for nobody asked for it.
pub fn usable(asked: &[u64], interval: u64, burst: u64) -> f64 {
    let mut asked = asked.to_vec();
    asked.sort_unstable();
    let grown = asked.windows(2).map(|two| {
        let grown = (two[1] - two[0]) as f64 / interval as f64;
        grown.min(burst as f64)
    });
    burst as f64 + grown.sum::<f64>()
}

/// What part of the quota was used, of what could be from the first request to the last.
pub fn used(passed: &[Passed], interval: u64, burst: u64) -> f64 {
    let first = passed.iter().map(|one| one.asked).min().unwrap_or(0);
    let last = passed.iter().map(|one| one.answered).max().unwrap_or(0);
    passed.len() as f64 / (burst as f64 + (last - first) as f64 / interval as f64)
}

#[test]
fn a_stretch_with_one_too_many_is_found() {
    let at = |at: u64| Passed {
        asked: at,
        answered: at + 10,
    };
    // Five at once, and one every 100 ms.
    let fair: Vec<Passed> = (0..5).chain((1..9).map(|n| n * 100_000)).map(at).collect();
    assert_eq!(most_at_once(&fair, 100_000), 5);
    assert!(used(&fair, 100_000, 5) > 0.98);
    let asked: Vec<u64> = fair.iter().map(|one| one.asked).collect();
    assert!((usable(&asked, 100_000, 5) - 13.0).abs() < 0.1);
    // In a second ten would grow back, of which the bucket holds five.
    assert!((usable(&[0, 1_000_000], 100_000, 5) - 10.0).abs() < 0.1);
    let mut unfair = fair;
    unfair.push(at(420_000));
    assert_eq!(most_at_once(&unfair, 100_000), 6);
}
