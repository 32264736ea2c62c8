//! Load: arrivals that do not care how the server is (open loop), and the few who wait (closed loop).
//!
//! The latency of an answer is counted from the moment its request was due, not from when it was sent, so that a
//! driver who is late does not make the server look better.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_keep::clock::{Clock, Moment};

use crate::client::Pool;

/// How long the people behind the requests wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);
/// What the handlers burn on average.
pub(crate) const WORK_MEAN: Duration = Duration::from_millis(10);

/// A request to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// When, from the beginning of the run.
    pub(crate) at: Duration,
    /// CPU time that its handler is to burn.
    pub(crate) work: Duration,
    pub(crate) is_critical: bool,
}

/// A share of the requests, and how fast they come for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) per_second: f64,
    pub(crate) lasts: Duration,
}

/// A Poisson process: the same for everybody who asks with the same numbers.
pub(crate) fn arrivals(stretches: &[Stretch], critical_share: f64) -> Vec<Arrival> {
    let (mut dice, mut all) = (Dice(0x0f10_0d5e_ed00_cafe), Vec::new());
    let mut begin = Duration::ZERO;
    for stretch in stretches {
        let end = begin + stretch.lasts;
        let mut at = begin + dice.exponential(1.0 / stretch.per_second);
        while at < end {
            all.push(Arrival {
                at,
                work: dice.exponential(WORK_MEAN.as_secs_f64()),
                is_critical: dice.unit() < critical_share,
            });
            at += dice.exponential(1.0 / stretch.per_second);
        }
        begin = end;
    }
    all
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: Duration,
    /// When its answer was complete; `None` if it never was.
    pub(crate) ended: Option<Duration>,
    /// 0 without an answer.
    pub(crate) status: u16,
}

/// A run: its arrivals, and what became of each.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) asked: Vec<Arrival>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Sends all of them when they are due, and waits for answers until they would be late.
///
/// Nobody hangs up at the deadline: a front end between client and server hides that they have gone.
pub(crate) async fn drive(
    pool: &Arc<Pool>,
    asked: Vec<Arrival>,
    path: fn(&Arrival) -> String,
) -> Run {
    let clock = Clock::system();
    let begin = clock.now();
    let nothing = Outcome {
        sent: Duration::ZERO,
        ended: None,
        status: 0,
    };
    let outcomes = Arc::new(Mutex::new(vec![nothing; asked.len()]));
    let mut under_way = JoinSet::new();
    for (number, arrival) in asked.iter().enumerate() {
        until(&clock, begin, arrival.at).await;
        while under_way.try_join_next().is_some() {}
        let (pool, clock) = (Arc::clone(pool), clock.clone());
        let (outcomes, path) = (Arc::clone(&outcomes), path(arrival));
        under_way.spawn(async move {
            let sent = clock.now().since(begin);
            let note = |ended, status| {
                let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes[number] = Outcome {
                    sent,
                    ended,
                    status,
                };
            };
            note(None, 0);
            if let Ok(answer) = pool.ask(&path).await {
                note(Some(clock.now().since(begin)), answer.status);
            }
        });
    }
    let rest = async { while under_way.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DEADLINE + DEADLINE / 10, rest).await;
    drop(under_way);
    let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    Run {
        outcomes: outcomes.clone(),
        asked,
    }
}

/// Sleeps until so long after `begin`; not at all if that is over. Timers have a millisecond's grain, so several
/// arrivals may be sent at once.
pub(crate) async fn until(clock: &Clock, begin: Moment, at: Duration) {
    let left = at.saturating_sub(clock.now().since(begin));
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
}

/// How much a server can do that is never idle and never crowded: seconds of work done in a second.
pub(crate) async fn saturate(
    pool: &Arc<Pool>,
    callers: usize,
    lasts: Duration,
    path: fn(&Arrival) -> String,
) -> f64 {
    let clock = Clock::system();
    let begin = clock.now();
    let mut all = JoinSet::new();
    for caller in 0..callers {
        let (pool, clock) = (Arc::clone(pool), clock.clone());
        all.spawn(async move {
            let (mut dice, mut done) = (Dice(0x5eed + caller as u64), Duration::ZERO);
            while clock.now().since(begin) < lasts {
                let arrival = Arrival {
                    at: Duration::ZERO,
                    work: dice.exponential(WORK_MEAN.as_secs_f64()),
                    is_critical: false,
                };
                let answer = pool.ask(&path(&arrival)).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    done += arrival.work;
                }
            }
            done
        });
    }
    let done: Duration = all.join_all().await.into_iter().sum();
    done.as_secs_f64() / clock.now().since(begin).as_secs_f64()
}

/// A xorshift64* generator (Marsaglia 2003, Vigna 2016): every variant has the same arrivals.
struct Dice(u64);

impl Dice {
    /// Evenly from 0 to 1, without 0.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (roll + 1) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-self.unit().ln() * mean)
    }
}
