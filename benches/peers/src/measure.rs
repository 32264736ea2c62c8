//! How it is measured: rounds in which every contender has its turn, by the CPU time of this thread.
//!
//! Thread CPU time, because what others do on the machine is not ours. In turns, and in a turned order
//! every round, because clock speed and caches drift within a run: a round's figures belong together.
//! Medians, because a lucky round is not the rule; the minimum stands beside them to show the noise.

use std::fmt::Debug;
use std::rc::Rc;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Request, Response};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tower::Service;

use crate::Failure;
use crate::allocations;
use crate::drive::drive;
use crate::traffic::Traffic;

/// How often every contender has its turn.
pub(crate) const ROUNDS: usize = 15;

/// What all rooms share: a runtime on this thread.
pub(crate) struct Bench {
    runtime: Rc<Runtime>,
}

/// What a contender is in its case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What everybody has to pay, and nothing else.
    Baseline,
    /// For comparison in the table only.
    Context,
    /// tower-keep.
    Ours,
    /// Gets a RATIO line.
    Peer,
}

/// What the RATIO lines compare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// The whole request, building it included.
    Total,
    /// What is left when the baseline's time in the same round is taken off.
    AboveBaseline,
}

/// One who takes part.
pub(crate) struct Contender {
    name: &'static str,
    role: Role,
    traffic: Traffic,
    run: Box<dyn FnMut(&mut Traffic, usize) -> u64>,
    rest: Option<Box<dyn FnMut()>>,
}

/// A table and its RATIO lines to be.
pub(crate) struct Case {
    /// `room/case`.
    pub(crate) name: &'static str,
    /// How many requests a turn has.
    pub(crate) requests: usize,
    pub(crate) compare: Compare,
    pub(crate) contenders: Vec<Contender>,
}

/// What has come out of a case.
pub(crate) struct Figures {
    /// How many requests every contender was sent.
    pub(crate) sent: u64,
    rows: Vec<Row>,
}

impl Figures {
    /// What `name` took above the baseline, in nanoseconds for one request; nothing if there is no such
    /// contender.
    pub(crate) fn above(&self, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        Some(row.above)
    }
}

/// The figures of one contender, in nanoseconds for one request.
struct Row {
    name: &'static str,
    role: Role,
    least: f64,
    median: f64,
    /// The median over the rounds of what it took more than the baseline in the same round.
    above: f64,
    allocations: f64,
}

impl Bench {
    pub(crate) fn new() -> Result<Self, Failure> {
        // On this thread: a background thread's work would escape the measurement.
        let runtime = Builder::new_current_thread().enable_time().build()?;
        println!("{ROUNDS} rounds; thread CPU time in ns per request\n");
        Ok(Self {
            runtime: Rc::new(runtime),
        })
    }

    /// A service that takes part.
    pub(crate) fn contender<S, B>(
        &self,
        name: &'static str,
        role: Role,
        traffic: &Traffic,
        mut service: S,
    ) -> Contender
    where
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Debug,
        B: HttpBody<Data = Bytes>,
        B::Error: Debug,
    {
        let runtime = Rc::clone(&self.runtime);
        Contender {
            name,
            role,
            traffic: traffic.clone(),
            run: Box::new(move |traffic, requests| {
                runtime.block_on(drive(&mut service, traffic, requests))
            }),
            rest: None,
        }
    }
}

impl Contender {
    /// One that is no service: `run` draws so many times and returns the bytes that it was given.
    pub(crate) fn calling(
        name: &'static str,
        role: Role,
        traffic: &Traffic,
        run: impl FnMut(&mut Traffic, usize) -> u64 + 'static,
    ) -> Self {
        Self {
            name,
            role,
            traffic: traffic.clone(),
            run: Box::new(run),
            rest: None,
        }
    }

    /// Lets it do `chores` after every turn, off the clock.
    pub(crate) fn resting(mut self, chores: impl FnMut() + 'static) -> Self {
        self.rest = Some(Box::new(chores));
        self
    }

    /// Sends requests of another kind beforehand, off the clock.
    pub(crate) fn warm(&mut self, traffic: &mut Traffic, requests: usize) {
        (self.run)(traffic, requests);
    }

    /// Sends the first requests of its own traffic beforehand, off the clock.
    pub(crate) fn begin(&mut self, requests: usize) {
        self.turn(requests);
    }

    /// Runs one turn and returns its bytes.
    fn turn(&mut self, requests: usize) -> u64 {
        std::hint::black_box((self.run)(&mut self.traffic, requests))
    }

    fn rest(&mut self) {
        if let Some(chores) = &mut self.rest {
            chores();
        }
    }
}

impl Case {
    /// Measures and prints. Returns how many requests every contender was sent.
    pub(crate) fn run(mut self) -> u64 {
        self.first_turn(true);
        self.measure().sent
    }

    /// The same where everybody has words of his own, so that answers differ in length.
    pub(crate) fn run_in_own_words(mut self) -> Figures {
        self.first_turn(false);
        self.measure()
    }

    fn measure(mut self) -> Figures {
        let times = self.rounds();
        let baseline = self.index_of(Role::Baseline);
        let mut rows = Vec::new();
        for (index, contender) in self.contenders.iter_mut().enumerate() {
            // Counted apart from the time, so that one does not disturb the other.
            let before = allocations::so_far();
            contender.turn(self.requests);
            let allocations = allocations::so_far() - before;
            contender.rest();
            let base = baseline.map(|baseline| &times[baseline]);
            let above = times[index].iter().enumerate();
            let above = above.map(|(round, time)| time - base.map_or(0.0, |base| base[round]));
            rows.push(Row {
                name: contender.name,
                role: contender.role,
                least: times[index].iter().copied().fold(f64::INFINITY, f64::min),
                median: median(times[index].clone()),
                above: median(above.collect()),
                allocations: allocations as f64 / self.requests as f64,
            });
        }
        self.print(&rows);
        Figures {
            sent: ((ROUNDS + 2) * self.requests) as u64,
            rows,
        }
    }

    fn index_of(&self, role: Role) -> Option<usize> {
        self.contenders.iter().position(|one| one.role == role)
    }

    /// A turn for everybody that is not timed, and in which `alike` all must deliver as many bytes.
    fn first_turn(&mut self, alike: bool) {
        let mut expected = None;
        for contender in &mut self.contenders {
            let delivered = contender.turn(self.requests);
            let expected = *expected.get_or_insert(delivered);
            let name = contender.name;
            assert!(!alike || delivered == expected, "bytes by {name}");
            contender.rest();
        }
    }

    /// The times of every contender: nanoseconds for one request, a figure a round.
    fn rounds(&mut self) -> Vec<Vec<f64>> {
        let count = self.contenders.len();
        let mut times = vec![Vec::with_capacity(ROUNDS); count];
        for round in 0..ROUNDS {
            for turn in 0..count {
                let index = (round + turn) % count;
                let contender = &mut self.contenders[index];
                let begun = thread_cpu_nanos();
                contender.turn(self.requests);
                let took = thread_cpu_nanos() - begun;
                times[index].push(took as f64 / self.requests as f64);
                contender.rest();
            }
        }
        times
    }

    fn print(&self, rows: &[Row]) {
        let base = rows.iter().find(|row| row.role == Role::Baseline);
        let base = base.map_or("-", |row| row.name);
        println!("{} ({} requests a round)", self.name, self.requests);
        println!(
            "  {:<22}{:>10}{:>10}{:>22}{:>13}",
            "contender",
            "min",
            "median",
            format!("above {base}"),
            "allocations"
        );
        for row in rows {
            println!(
                "  {:<22}{:>10.1}{:>10.1}{:>22.1}{:>13.2}",
                row.name, row.least, row.median, row.above, row.allocations
            );
        }
        match self.compare {
            Compare::Total => println!("  compared: the median of the whole request"),
            Compare::AboveBaseline => println!("  compared: the median above {base}"),
        }
        let compared = |row: &Row| match self.compare {
            Compare::Total => row.median,
            Compare::AboveBaseline => row.above,
        };
        let Some(ours) = rows.iter().find(|row| row.role == Role::Ours) else {
            return;
        };
        for peer in rows.iter().filter(|row| row.role == Role::Peer) {
            let (ours, theirs) = (compared(ours), compared(peer));
            println!(
                "RATIO {} ours={ours:.1} {}={theirs:.1} ratio={:.3}",
                self.name,
                peer.name,
                ours / theirs
            );
        }
        println!();
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn thread_cpu_nanos() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
