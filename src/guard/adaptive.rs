//! How many at once are too many, learnt from how long they take.
//!
//! A number of slots is a guess about a service and its dependencies, and both change. Two known rules may
//! correct it while the service runs, within bounds: additive increase and multiplicative decrease on the
//! share of slow requests (as TCP does on losses), and a gradient of the present latency against that of the
//! long run (Netflix' `concurrency-limits`, "Gradient2"), which needs no latency to be named.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::sync::{AtomicU64, Mutex, Ordering, PoisonError};

/// Whether the number of slots follows what requests take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptive {
    /// It stays as configured.
    #[default]
    Off,
    /// One more for each window of 250 ms in which the slots were used and at most a tenth of the requests took
    /// longer than `latency_target`; a tenth fewer for each in which more did.
    Aimd,
    /// Fewer as requests take longer than 1.5 times what they take in the long run, more as they do not.
    Gradient,
}

/// Counts what requests take, and says once a window how many may be inside.
#[derive(Debug)]
pub(crate) struct Learner {
    rule: Adaptive,
    target: Duration,
    bounds: (f64, f64),
    until: AtomicU64,
    count: AtomicU64,
    nanos: AtomicU64,
    slow: AtomicU64,
    /// The most that were inside at once.
    most: AtomicU64,
    learnt: Mutex<Learnt>,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    slots: f64,
    /// What a request takes in the long run, in nanoseconds; 0 before the first.
    long: f64,
}

/// What a window has shown.
#[derive(Clone, Copy, Debug)]
struct Window {
    count: u64,
    /// What a request took, in nanoseconds.
    mean: f64,
    slow: u64,
    most: f64,
}

impl Learner {
    /// `None` where nothing is to be learnt.
    pub(crate) fn new(rule: Adaptive, target: Duration, least: usize, most: usize) -> Option<Self> {
        (rule != Adaptive::Off).then(|| Self {
            rule,
            target,
            bounds: (least as f64, most as f64),
            until: AtomicU64::new(0),
            count: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            most: AtomicU64::new(0),
            learnt: Mutex::new(Learnt {
                slots: most as f64,
                long: 0.0,
            }),
        })
    }

    /// Takes note of a request that took so long, while so many were inside. At the end of a window:
    /// how many may be inside from now on.
    pub(crate) fn record(&self, took: Duration, inside: usize, now: Moment) -> Option<usize> {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.most.fetch_max(inside as u64, Ordering::Relaxed);
        if took > self.target {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
        if self.count.load(Ordering::Relaxed) < ENOUGH {
            return None;
        }
        let until = self.until.load(Ordering::Relaxed);
        let next = now.plus(WINDOW).as_nanos();
        if now.as_nanos() < until
            || self
                .until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        let count = self.count.swap(0, Ordering::Relaxed);
        let nanos = self.nanos.swap(0, Ordering::Relaxed);
        let window = Window {
            count,
            mean: nanos as f64 / count.max(1) as f64,
            slow: self.slow.swap(0, Ordering::Relaxed),
            most: self.most.swap(0, Ordering::Relaxed) as f64,
        };
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        *learnt = match self.rule {
            Adaptive::Gradient => learnt.by_gradient(window),
            Adaptive::Off | Adaptive::Aimd => learnt.by_share_of_slow(window),
        };
        learnt.slots = learnt.slots.clamp(self.bounds.0, self.bounds.1);
        Some(learnt.slots as usize)
    }
}

impl Learnt {
    fn by_share_of_slow(self, window: Window) -> Self {
        let used = window.most * 2.0 >= self.slots;
        let slots = if window.slow * 10 > window.count && used {
            self.slots * 0.9
        } else if window.most >= self.slots * 0.8 {
            self.slots + 1.0
        } else {
            // Slots that nobody used say nothing about more of them.
            self.slots
        };
        Self { slots, ..self }
    }

    fn by_gradient(self, window: Window) -> Self {
        let short = window.mean.max(1.0);
        let mut long = match self.long {
            0.0 => short,
            long => long + (short - long) / LONG_RUN,
        };
        if long > 2.0 * short {
            // It has become faster: what it was in the long run is forgotten sooner.
            long *= 0.95;
        }
        if window.most < self.slots / 2.0 {
            return Self { long, ..self };
        }
        let gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
        let next = self.slots * gradient + self.slots.sqrt();
        let slots = self.slots * 0.8 + next * 0.2;
        Self { slots, long }
    }
}

/// Fewer requests say nothing.
const ENOUGH: u64 = 10;
const WINDOW: Duration = Duration::from_millis(250);
/// The long run, in windows: two and a half minutes.
const LONG_RUN: f64 = 600.0;
const TOLERANCE: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that serves `fits` at once in 10 ms each; beyond, they share what there is.
    fn settles(rule: Adaptive, fits: f64, begin: Option<f64>) -> usize {
        let learner = Learner::new(rule, Duration::from_millis(15), 2, 200).unwrap();
        if let Some(slots) = begin {
            learner.learnt.lock().unwrap().slots = slots;
        }
        let mut slots = learner.learnt.lock().unwrap().slots as usize;
        let mut now = Moment::default();
        for _ in 0..4_000 {
            let took = Duration::from_secs_f64(0.010 * (slots as f64 / fits).max(1.0));
            now = now.plus(took);
            let ends = (0..slots).filter_map(|_| learner.record(took, slots, now));
            slots = ends.last().unwrap_or(slots);
        }
        slots
    }

    #[test]
    fn slow_requests_take_slots_away_until_they_are_slow_no_more() {
        // 20 fit; with 30 they take 15 ms, which is the target.
        let slots = settles(Adaptive::Aimd, 20.0, None);
        assert!((24..=33).contains(&slots), "{slots}");
    }

    #[test]
    fn the_gradient_finds_room_from_below_and_stays_within_its_tolerance() {
        let slots = settles(Adaptive::Gradient, 20.0, Some(4.0));
        assert!((20..=70).contains(&slots), "{slots}");
    }

    #[test]
    fn slots_that_are_not_used_are_neither_given_nor_taken() {
        for rule in [Adaptive::Aimd, Adaptive::Gradient] {
            let learner = Learner::new(rule, Duration::from_millis(15), 2, 200).unwrap();
            learner.learnt.lock().unwrap().slots = 50.0;
            for step in 1..100_u64 {
                let now = Moment::default().plus(WINDOW * step as u32);
                let slow = Duration::from_millis(10 + step % 20);
                let all = (0..10).filter_map(|_| learner.record(slow, 3, now));
                assert_eq!(all.last(), Some(50), "{rule:?}");
            }
        }
    }

    #[test]
    fn nothing_is_learnt_where_nothing_is_to_be() {
        assert!(Learner::new(Adaptive::Off, Duration::ZERO, 1, 2).is_none());
    }
}
