//! How many requests of real traces find their answer in memory: tower-keep's hot tier beside other caches.
//!
//! The traces are those that cache simulators come with, read from the folder that `KEEP_TRACES` names (by
//! default `../shared/traces` beside the repository). A trace is asked for key by key; what is missing is
//! stored. Capacities are 1, 5 and 20 % of the distinct keys; of the distinct bytes for `request`, whose
//! answers differ in size. The optimum knows the future; for sizes there is none that could be computed.
//!
//! What each is given, so that none is made to look bad:
//! - Every cache is in one piece, so that small capacities are not split, and all hash alike and without a
//!   random seed, so that figures can be compared between runs.
//! - quick_cache, the engine inside of tower-keep, has its defaults, and both are told how many items to expect.
//!   tower-keep guesses that from its capacity: at an eighth of the true number its mean falls by about 0.4,
//!   at four times it by 0.5.
//! - moka is given no weigher where all answers are alike, without which it finds more.
//! - moka applies its writes in batches, so that it holds more than its capacity for a while, which is most of
//!   what it holds where that is small. Hence its second column, in which its pending work is done after every
//!   request: `web07` has 42.3 / 52.3 / 59.9 % as it comes and 34.1 / 46.6 / 56.1 % flushed.

mod caches;
mod optimum;
mod promotion;
mod traces;

use std::path::PathBuf;

use crate::Failure;
use crate::hit_ratio::caches::{CACHES, Room};
use crate::hit_ratio::traces::{Trace, sized, unsized_};
use crate::measure::Bench;

pub(crate) use promotion::run as promotion;

/// In percent of what a trace asks for.
const CAPACITIES: [u64; 3] = [1, 5, 20];

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    let folder = folder();
    println!("hit_ratio (% of requests at 1 / 5 / 20 % of what the trace asks for)\n");
    let names = CACHES.map(|(name, _)| name);
    println!("| trace | optimum | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len() + 1));
    let mut table = Vec::new();
    let mut optima = Vec::new();
    for trace in unsized_(&folder)? {
        let optimum = CAPACITIES.map(|percent| optimum::hits(&trace, trace.room(percent)));
        let optimum = optimum.map(|hits| percent(hits, trace.requests.len() as u64));
        let found: Vec<_> = CACHES.map(|(_, cache)| found(&trace, cache)).into();
        let objects: Vec<_> = found.iter().map(|figures| figures.objects).collect();
        let cells: Vec<_> = objects.iter().map(|figures| cell(*figures)).collect();
        row(&trace.name, &cell(optimum), &cells);
        table.push((trace.name, objects));
        optima.push(optimum);
    }
    let mean = |figures: &[[f64; 3]]| {
        let sum: f64 = figures.iter().flatten().sum();
        format!("{:.1}", sum / (figures.len() * CAPACITIES.len()) as f64)
    };
    let means = (0..CACHES.len()).map(|cache| {
        let figures: Vec<_> = table.iter().map(|(_, row)| row[cache]).collect();
        mean(&figures)
    });
    row("mean", &mean(&optima), &means.collect::<Vec<_>>());
    let trace = sized(&folder)?;
    let found = CACHES.map(|(_, cache)| found(&trace, cache));
    let objects = found.each_ref().map(|figures| cell(figures.objects));
    row(&format!("{}, answers", trace.name), "", &objects);
    let bytes = found.each_ref().map(|figures| cell(figures.bytes));
    row(&format!("{}, bytes", trace.name), "", &bytes);
    println!();
    let objects = found.iter().map(|figures| figures.objects).collect();
    table.push((trace.name, objects));
    tell_worst_gaps(&table);
    Ok(())
}

/// Where the traces are.
fn folder() -> PathBuf {
    std::env::var_os("KEEP_TRACES").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/traces"
            ))
        },
        PathBuf::from,
    )
}

/// What one cache found, in percent by capacity.
struct Figures {
    objects: [f64; 3],
    bytes: [f64; 3],
}

fn found(trace: &Trace, cache: fn(Room) -> Box<dyn caches::Ask>) -> Figures {
    let all: u64 = trace.requests.iter().map(|key| trace.size(*key)).sum();
    let found = CAPACITIES.map(|percent| {
        let mut cache = cache(trace.room(percent));
        let (mut hits, mut bytes) = (0, 0);
        for key in &trace.requests {
            let size = trace.size(*key);
            if cache.ask(*key, size) {
                hits += 1;
                bytes += size;
            }
        }
        (hits, bytes)
    });
    Figures {
        objects: found.map(|(hits, _)| percent(hits, trace.requests.len() as u64)),
        bytes: found.map(|(_, bytes)| percent(bytes, all)),
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn cell(figures: [f64; 3]) -> String {
    figures.map(|figure| format!("{figure:.1}")).join(" / ")
}

fn row(name: &str, optimum: &str, cells: &[String]) {
    println!("| {name} | {optimum} | {} |", cells.join(" | "));
}

/// Where tower-keep, the last of all, is furthest behind the best of its peers: of all of them, and of those that
/// keep to their capacity.
fn tell_worst_gaps(table: &[(String, Vec<[f64; 3]>)]) {
    for (peers, skipped) in [("all peers", ""), ("peers within their capacity", "moka")] {
        let gaps = table.iter().flat_map(|(trace, row)| {
            (0..CAPACITIES.len()).filter_map(move |capacity| {
                let (ours, peers) = row.split_last()?;
                let peers = peers.iter().zip(CACHES);
                let peers = peers.filter(|(_, (name, _))| *name != skipped);
                let peers = peers.map(|(figures, (name, _))| (figures[capacity], name));
                let (best, name) = peers.max_by(|one, other| one.0.total_cmp(&other.0))?;
                Some((ours[capacity] - best, trace, CAPACITIES[capacity], name))
            })
        });
        if let Some((gap, trace, capacity, name)) =
            gaps.min_by(|one, other| one.0.total_cmp(&other.0))
        {
            println!(
                "worst gap to the best of {peers}: {gap:+.1} ({trace} at {capacity} %, {name})"
            );
        }
    }
}
