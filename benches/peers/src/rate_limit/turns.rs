//! Engines in turns, on one thread or two.
//!
//! As in `measure`, but for plain calls instead of services: thread CPU time, everybody in every round,
//! medians. Two threads are held on a processor each, and their time is the mean of both.

use std::sync::Barrier;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Failure;
use crate::measure::{ROUNDS, median, thread_cpu_nanos};

/// One who takes part: handles the calls of a turn that begins with this one and returns how many were
/// let through.
pub(crate) struct Engine<'a> {
    name: &'static str,
    turn: Box<dyn Fn(usize) -> usize + Sync + 'a>,
}

impl<'a> Engine<'a> {
    /// Asks `decide` about each of `keys`.
    pub(crate) fn new<K: Sync>(
        name: &'static str,
        keys: &'a [K],
        decide: impl Fn(&K) -> bool + Sync + 'a,
    ) -> Self {
        let turn = move |first: usize| {
            let (later, sooner) = keys.split_at(first);
            let order = sooner.iter().chain(later);
            order.map(&decide).filter(|allowed| *allowed).count()
        };
        Self {
            name,
            turn: Box::new(turn),
        }
    }
}

/// What the first engine took of the time of each other one: the median over the rounds.
pub(crate) struct Ratios(Vec<(&'static str, f64)>);

impl Ratios {
    pub(crate) fn to(&self, name: &str) -> Option<f64> {
        let row = self.0.iter().find(|row| row.0 == name)?;
        Some(row.1)
    }
}

/// Measures and prints. The first of `engines` is ours, and the last but for RATIO is the floor. `allowed`
/// says what of all calls must be let through, give or take a thousandth.
pub(crate) fn run(
    case: &str,
    threads: usize,
    (calls, allowed): (usize, f64),
    engines: &[Engine<'_>],
) -> Result<Ratios, Failure> {
    let mut times = vec![Vec::with_capacity(ROUNDS); engines.len()];
    // The first round fills the tables and is not timed.
    for round in 0..=ROUNDS {
        for turn in 0..engines.len() {
            let index = (round + turn) % engines.len();
            let (took, passed) = match threads {
                1 => timed(&engines[index], 0),
                _ => side_by_side(&engines[index], calls)?,
            };
            if round > 0 {
                times[index].push(took as f64 / calls as f64);
                let part = passed as f64 / calls as f64;
                if (part - allowed).abs() > 0.001 {
                    let name = engines[index].name;
                    return Err(format!("{case}: {name} let {part:.4} through").into());
                }
            }
        }
    }
    println!("{case} ({calls} calls a round and thread, {threads} threads)");
    println!("  {:<22}{:>10}{:>10}", "contender", "min", "median");
    let mut medians = Vec::new();
    for (engine, times) in engines.iter().zip(&times) {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let middle = median(times.clone());
        println!("  {:<22}{least:>10.1}{middle:>10.1}", engine.name);
        medians.push(middle);
    }
    let mut ratios = Vec::new();
    for (index, peer) in engines.iter().enumerate().skip(1) {
        // Round by round, because what disturbs one of them mostly disturbs all of a round.
        let rounds = times[0].iter().zip(&times[index]);
        let ratio = median(rounds.map(|(ours, theirs)| ours / theirs).collect());
        let (name, ours, theirs) = (peer.name, medians[0], medians[index]);
        println!("RATIO {case} ours={ours:.1} {name}={theirs:.1} ratio={ratio:.3}");
        ratios.push((name, ratio));
    }
    Ok(Ratios(ratios))
}

fn timed(engine: &Engine<'_>, first: usize) -> (i64, usize) {
    let begun = thread_cpu_nanos();
    let passed = std::hint::black_box((engine.turn)(first));
    (thread_cpu_nanos() - begun, passed)
}

/// Two turns at once, the second of which is half a turn ahead.
fn side_by_side(engine: &Engine<'_>, calls: usize) -> Result<(i64, usize), Failure> {
    let together = Barrier::new(2);
    let one = |processor: usize| {
        hold_on(processor)?;
        together.wait();
        Ok::<_, rustix::io::Errno>(timed(engine, processor * calls / 2))
    };
    let both = std::thread::scope(|scope| {
        let both = [0, 1].map(|processor| scope.spawn(move || one(processor)));
        both.map(std::thread::ScopedJoinHandle::join)
    });
    let mut sum = (0, 0);
    for turn in both {
        let (took, passed) = turn.map_err(|_| "a thread has panicked")??;
        sum = (sum.0 + took, sum.1 + passed);
    }
    Ok((sum.0 / 2, sum.1 / 2))
}

/// Keeps this thread on the `number`th of the processors that it may use.
fn hold_on(number: usize) -> rustix::io::Result<()> {
    let may_use = sched_getaffinity(None)?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|cpu| may_use.is_set(*cpu));
    let mut only = CpuSet::new();
    if let Some(processor) = processors.nth(number) {
        only.set(processor);
        sched_setaffinity(None, &only)?;
    }
    Ok(())
}
