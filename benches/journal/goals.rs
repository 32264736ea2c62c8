//! How a figure is taken, and how it stands beside its goal.

use std::sync::Mutex;
use std::time::Instant;

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;

/// What was to be reached, and what was seen.
static GOALS: Mutex<Vec<(String, f64, f64, &str)>> = Mutex::new(Vec::new());

pub(crate) fn note(what: impl Into<String>, seen: f64, most: f64, unit: &'static str) {
    let mut goals = GOALS.lock().expect("nobody panics in here");
    goals.push((what.into(), seen, most, unit));
}

pub(crate) fn table() {
    let goals = GOALS.lock().expect("nobody panics in here");
    println!("\n{:<66} {:>10} {:>12}  met", "goal", "at most", "seen");
    for (what, seen, most, unit) in goals.iter() {
        let met = if seen <= most { "yes" } else { "NO" };
        println!("{what:<66} {most:>7} {unit:<2} {seen:>9.2} {unit:<2}  {met}");
    }
}

/// Nanoseconds of one round: the median of many batches, each long enough for the clock.
pub(crate) fn nanos(mut round: impl FnMut()) -> f64 {
    let mut rounds = 1_u32;
    let mut batch = |rounds: u32| {
        let begun = Instant::now();
        (0..rounds).for_each(|_| round());
        begun.elapsed().as_nanos() as f64
    };
    while batch(rounds) < 100_000.0 {
        rounds *= 2;
    }
    let times = (0..200).map(|_| batch(rounds) / f64::from(rounds));
    quantile(times.collect(), 0.5)
}

pub(crate) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values[at.min(values.len() - 1)]
}

/// Measures a round for the table, and once more as criterion does it.
pub(crate) fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut round: impl FnMut(),
) -> f64 {
    let seen = nanos(&mut round);
    group.bench_function(name, |bench| bench.iter(&mut round));
    seen
}
