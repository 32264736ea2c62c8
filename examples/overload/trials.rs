//! The trials: what is offered to a fresh server, and what counts as having gone well.

use std::io::Result;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_keep::clock::Clock;

use crate::child::{Cores, Server};
use crate::client::Pool;
use crate::load::{
    Arrival, DEADLINE, Outcome, Run, Stretch, WORK_MEAN, arrivals, drive, saturate, until,
};
use crate::server::{Pace, Variant};

/// What a request's handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    Cpu,
    Async,
}

impl Handler {
    pub(crate) const ALL: [Self; 2] = [Self::Cpu, Self::Async];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Async => "async",
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Cpu => {
                "10 ms of CPU time in one go (exponential): the runtime's queue is hidden from all layers"
            }
            Self::Async => "10 ms of CPU time in slices of 1 ms, and 5 ms of waiting in the middle",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    fn path(self) -> fn(&Arrival) -> String {
        match self {
            Self::Cpu => |arrival| path("cpu", arrival),
            Self::Async => |arrival| path("async", arrival),
        }
    }
}

/// Each address only once, so that no answer is shared.
fn path(route: &str, arrival: &Arrival) -> String {
    let critical = if arrival.is_critical { "/critical" } else { "" };
    let (us, at) = (arrival.work.as_micros(), arrival.at.as_nanos());
    format!("{critical}/{route}?us={us}&n={at}")
}

/// What all trials have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lab {
    pub(crate) cores: Cores,
    pub(crate) pace: Pace,
    /// Connections at most.
    pub(crate) connections: usize,
    /// How long a load lasts before it counts: a server that collapses needs a moment for it.
    pub(crate) settle: Duration,
    /// How long it counts.
    pub(crate) counts: Duration,
    /// The burst, and the calm that is watched after it.
    pub(crate) burst: Duration,
    pub(crate) calm: Duration,
}

/// What came of the requests of some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) asked: usize,
    pub(crate) good: usize,
    pub(crate) late: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// What the good ones have burnt.
    pub(crate) work: Duration,
    /// How long each good one took, in order.
    pub(crate) took: Vec<Duration>,
    /// How long each refused one took, in order.
    pub(crate) refused_after: Vec<Duration>,
}

impl Tally {
    pub(crate) fn of(run: &Run, counts: impl Fn(&Arrival) -> bool) -> Self {
        let mut tally = Self::default();
        let both = run.asked.iter().zip(&run.outcomes);
        for (arrival, outcome) in both.filter(|(arrival, _)| counts(arrival)) {
            tally.asked += 1;
            let took = outcome.ended.map(|ended| ended.saturating_sub(arrival.at));
            match (outcome.status, took) {
                (200, Some(took)) if took <= DEADLINE => {
                    tally.good += 1;
                    tally.work += arrival.work;
                    tally.took.push(took);
                }
                (503, Some(took)) => {
                    tally.refused += 1;
                    tally.refused_after.push(took);
                }
                (200 | 0, _) => tally.late += 1,
                _ => tally.failed += 1,
            }
        }
        tally.took.sort_unstable();
        tally.refused_after.sort_unstable();
        tally
    }

    pub(crate) fn good_share(&self) -> f64 {
        self.good as f64 / self.asked.max(1) as f64
    }
}

/// The value at this hundredth of sorted ones.
pub(crate) fn at_percent(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}

/// A load, and what came of it.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) tally: Tally,
    pub(crate) critical: Tally,
    pub(crate) lasted: Duration,
    /// How much of a core the server had.
    pub(crate) core: f64,
    /// How late the driver was, in order.
    pub(crate) sent_late: Vec<Duration>,
}

impl Lab {
    /// What the bare service can do: seconds of handlers' work in a second, and the share of the core it had for it.
    pub(crate) async fn capacity(&self, handler: Handler) -> Result<(f64, f64)> {
        let (server, pool) = self.fresh(Variant::Axum)?;
        // As many as keep the core busy while others wait in their middle.
        let callers = match handler {
            Handler::Cpu => 3,
            Handler::Async => 8,
        };
        let clock = Clock::system();
        let (before, began) = (server.cpu(), clock.now());
        let done = saturate(&pool, callers, self.counts / 2, handler.path()).await;
        let lasted = clock.now().since(began);
        let used = server.cpu().saturating_sub(before);
        Ok((done, used.as_secs_f64() / lasted.as_secs_f64()))
    }

    /// A steady load of so many times `capacity`.
    pub(crate) async fn load(
        &self,
        (variant, handler): (Variant, Handler),
        (times, capacity): (f64, f64),
        critical_share: f64,
    ) -> Result<Load> {
        let stretch = Stretch {
            per_second: times * capacity / WORK_MEAN.as_secs_f64(),
            lasts: self.settle + self.counts,
        };
        let asked = arrivals(&[stretch], critical_share);
        let (server, pool) = self.fresh(variant)?;
        let run = drive(&pool, asked, handler.path());
        let (run, core) = tokio::join!(run, self.core_of(&server));
        let counts = |arrival: &Arrival| arrival.at >= self.settle;
        let sent = run
            .asked
            .iter()
            .zip(&run.outcomes)
            .filter(|(_, it)| it.sent > Duration::ZERO);
        let mut sent_late: Vec<_> = sent
            .map(|(due, it)| it.sent.saturating_sub(due.at))
            .collect();
        sent_late.sort_unstable();
        Ok(Load {
            tally: Tally::of(&run, counts),
            critical: Tally::of(&run, |arrival| counts(arrival) && arrival.is_critical),
            lasted: self.counts,
            core,
            sent_late,
        })
    }

    /// The share of a core that the server has while it counts.
    async fn core_of(&self, server: &Server) -> f64 {
        let clock = Clock::system();
        let begin = clock.now();
        until(&clock, begin, self.settle).await;
        let (before, from) = (server.cpu(), clock.now());
        until(&clock, begin, self.settle + self.counts).await;
        let used = server.cpu().saturating_sub(before);
        used.as_secs_f64() / clock.now().since(from).as_secs_f64()
    }

    /// How long after a burst of 5 times the capacity a whole second is good, on a background of 0.7 times. `None`
    /// if that has not come while it was watched.
    pub(crate) async fn recovery(
        &self,
        (variant, handler): (Variant, Handler),
        capacity: f64,
    ) -> Result<(Tally, Option<Duration>)> {
        let stretch = |times: f64, lasts| Stretch {
            per_second: times * capacity / WORK_MEAN.as_secs_f64(),
            lasts,
        };
        let stretches = [
            stretch(0.7, self.settle),
            stretch(5.0, self.burst),
            stretch(0.7, self.calm),
        ];
        let asked = arrivals(&stretches, 0.0);
        let (_server, pool) = self.fresh(variant)?;
        let run = drive(&pool, asked, handler.path()).await;
        let over = self.settle + self.burst;
        let after = Tally::of(&run, |arrival| arrival.at >= over);
        let second = Duration::from_secs(1);
        let tenths = (0_u32..).map(|tenth| over + second / 10 * tenth);
        let recovered = tenths
            .take_while(|from| *from + second <= over + self.calm)
            .find(|from| {
                let whole = *from..*from + second;
                let tally = Tally::of(&run, |arrival| whole.contains(&arrival.at));
                tally.asked > 0 && tally.good_share() >= 0.99
            });
        Ok((after, recovered.map(|at| at - over)))
    }

    /// Takes all slots, for long, and then sends `per_second` more: what does turning them away cost? The CPU time of
    /// each, and what the answers were. A variant that turns nobody away serves requests for nothing instead.
    pub(crate) async fn refusal(
        &self,
        variant: Variant,
        per_second: f64,
    ) -> Result<(Tally, Duration)> {
        let (server, pool) = self.fresh(variant)?;
        let clock = Clock::system();
        let mut holders = JoinSet::new();
        if variant.refuses() {
            for _ in 0..HOLDERS {
                let pool = Arc::clone(&pool);
                holders.spawn(async move { pool.ask("/hold").await });
            }
            // Those in the queue are turned away within half a second.
            until(&clock, clock.now(), Duration::from_secs(1)).await;
        }
        let stretch = Stretch {
            per_second,
            lasts: self.counts / 2,
        };
        let path: fn(&Arrival) -> String = if variant.refuses() {
            Handler::Cpu.path()
        } else {
            |arrival| path("nothing", arrival)
        };
        let before = server.cpu();
        let run = drive(&pool, arrivals(&[stretch], 0.0), path).await;
        let used = server.cpu().saturating_sub(before);
        let all = |outcome: &Outcome| outcome.ended.is_some();
        let answered = run.outcomes.iter().filter(|it| all(it)).count();
        let each = used / u32::try_from(answered.max(1)).unwrap_or(u32::MAX);
        Ok((Tally::of(&run, |_| true), each))
    }

    fn fresh(&self, variant: Variant) -> Result<(Server, Arc<Pool>)> {
        let server = Server::start(variant, self.pace, self.cores)?;
        let pool = Pool::new(server.address, self.connections);
        Ok((server, Arc::new(pool)))
    }
}

/// More than there are slots and places in the queue.
const HOLDERS: usize = 300;
