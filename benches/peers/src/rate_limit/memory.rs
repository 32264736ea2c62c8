//! What a key costs, and what a flood of keys does.
//!
//! Resident memory of this process, in which nothing else happens meanwhile.

use std::hint::black_box;

use tower_keep::rate_limit::Scope;

use super::decision::{RULE, Rate, tower_keep};
use super::goal;
use super::keys::{MILLION, address};
use crate::Failure;
use crate::measure::Bench;

const MIB: f64 = (1 << 20) as f64;

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    println!("rate_limit/memory (resident; a key is used once)");
    println!(
        "  {:<22}{:>12}{:>12}{:>12}",
        "contender", "keys", "MiB", "bytes/key"
    );
    ours()?;
    let plain = governor::RateLimiter::keyed(Rate::SPENT.governor()?);
    grow("governor", 0..MILLION, |number| {
        black_box(plain.check_key(&address(number)).is_ok());
    })?;
    println!();
    Ok(())
}

/// Half full with a million keys, and then ten times as many more.
fn ours() -> Result<(), Failure> {
    let case = "rate_limit/memory";
    let before = resident()?;
    let limiter = tower_keep(Rate::SPENT, MILLION, Scope::Ip)?;
    let rule = limiter.rule(RULE).ok_or("no rule")?;
    let ask = |number: usize| {
        drop(black_box(rule.check_ip(address(number), 1)));
    };
    (0..MILLION).for_each(ask);
    let half = resident()? - before;
    row("tower_keep", MILLION, half);
    for number in MILLION..11 * MILLION {
        ask(number);
    }
    let flooded = resident()? - before;
    row("tower_keep_flooded", 11 * MILLION, flooded);
    let table = limiter.table_bytes() as f64;
    println!(
        "  table: {table} bytes; driven out: {}",
        limiter.evictions()
    );
    goal::at_most(case, "bytes_per_key_half_full", half / MILLION as f64, 18.0);
    goal::at_most(case, "flood_growth_mib", (flooded - half).abs() / MIB, 1.0);
    goal::at_most(
        case,
        "resident_above_table_mib",
        (flooded - table).abs() / MIB,
        1.0,
    );
    Ok(())
}

fn grow(
    name: &str,
    numbers: std::ops::Range<usize>,
    ask: impl FnMut(usize),
) -> Result<(), Failure> {
    let before = resident()?;
    let keys = numbers.len();
    numbers.for_each(ask);
    row(name, keys, resident()? - before);
    Ok(())
}

fn row(name: &str, keys: usize, bytes: f64) {
    let (mib, each) = (bytes / MIB, bytes / keys as f64);
    println!("  {name:<22}{keys:>12}{mib:>12.1}{each:>12.1}");
}

/// Resident bytes of this process.
fn resident() -> Result<f64, Failure> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).ok_or("statm is of another form")?;
    Ok(pages.parse::<f64>()? * 4096.0)
}
