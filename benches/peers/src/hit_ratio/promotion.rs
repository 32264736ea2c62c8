//! What is promoted from Redis to memory, and how many reads of Redis are left by that: tower-keep's admission
//! beside promotion after three hits, as crates with several tiers do it.
//!
//! The same traces as for `hit_ratio`. Where their answers are all alike they are given sizes, drawn for each key
//! from a log-normal distribution between 200 B and 100 KiB; capacities are parts of all bytes, the same for
//! everyone. A read costs a round trip of 200 µs and 2 ns for each byte, to decode it.
//!
//! - Three hits: who is found in Redis for the third time since it was last in memory goes to an LRU. All counts
//!   are kept, which no crate could.
//! - tower-keep stands there twice: weighing uses alone, as the HTTP cache does, and by what a use saves for each
//!   byte.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::Failure;
use crate::hit_ratio::caches::{Ask, Build, Lru, Ours, Quick, Room};
use crate::hit_ratio::traces::{Trace, sized, unsized_};
use crate::hit_ratio::{CAPACITIES, folder, percent};
use crate::measure::Bench;

const RULES: [(&str, Build); 5] = [
    ("LRU", |room| Box::new(Lru::new(room))),
    ("three hits", |room| Box::new(ThreeHits::new(room))),
    ("quick_cache", |room| Box::new(Quick::new(room))),
    ("tower-keep, uses", |room| {
        Box::new(Ours::new(room, |_| None))
    }),
    ("tower-keep", |room| {
        Box::new(Ours::new(room, |size| Some(read_micros(size))))
    }),
];

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    let folder = folder();
    println!(
        "promotion (reads of Redis in % of requests at 1 / 5 / 20 % of the bytes asked for)\n"
    );
    println!("| trace | {} |", RULES.map(|(name, _)| name).join(" | "));
    println!("|---|{}", "---|".repeat(RULES.len()));
    let mut all = Vec::new();
    let unsized_ = unsized_(&folder)?.into_iter();
    let traces = unsized_.map(|trace| trace.with_sizes(drawn_size));
    for trace in traces.chain([sized(&folder)?]) {
        let left = RULES.map(|(_, rule)| CAPACITIES.map(|part| Left::of(&trace, rule, part)));
        tell(&trace.name, &left, |left| left.reads);
        all.push(left);
    }
    for (name, figure) in FIGURES {
        let means = (0..RULES.len()).map(|rule| {
            let figures = all.iter().flat_map(|left| left[rule].iter().map(figure));
            figures.sum::<f64>() / (all.len() * CAPACITIES.len()) as f64
        });
        let means: Vec<f64> = means.collect();
        let cells: Vec<_> = means.iter().map(|mean| format!("{mean:.1}")).collect();
        println!("| mean {name} | {} |", cells.join(" | "));
        let Some((ours, peers)) = means.split_last() else {
            continue;
        };
        for (peer, (rule, _)) in peers.iter().zip(RULES) {
            println!(
                "RATIO promotion/{name} ours={ours:.2} {rule}={peer:.2} ratio={:.3}",
                ours / peer
            );
        }
    }
    Ok(())
}

type Figure = fn(&Left) -> f64;

const FIGURES: [(&str, Figure); 3] = [
    ("reads", |left| left.reads),
    ("time", |left| left.micros),
    ("bytes", |left| left.bytes),
];

/// What is left to be read from Redis, in percent of what it would be without memory.
struct Left {
    reads: f64,
    micros: f64,
    bytes: f64,
}

impl Left {
    fn of(trace: &Trace, rule: Build, part: u64) -> Self {
        let mut cache = rule(trace.room(part));
        let (mut left, mut all) = ([0; 3], [0; 3]);
        for key in &trace.requests {
            let size = trace.size(*key);
            let is_there = cache.ask(*key, size);
            for (place, amount) in [1, read_micros(size), size].into_iter().enumerate() {
                all[place] += amount;
                left[place] += if is_there { 0 } else { amount };
            }
        }
        Self {
            reads: percent(left[0], all[0]),
            micros: percent(left[1], all[1]),
            bytes: percent(left[2], all[2]),
        }
    }
}

fn tell(name: &str, left: &[[Left; 3]], figure: Figure) {
    let cell = |left: &[Left; 3]| {
        left.each_ref()
            .map(|left| format!("{:.1}", figure(left)))
            .join(" / ")
    };
    let cells: Vec<_> = left.iter().map(cell).collect();
    println!("| {name} | {} |", cells.join(" | "));
}

/// A round trip, and decoding.
fn read_micros(size: u64) -> u64 {
    200 + size / 500
}

/// Log-normal about 4 KiB, always the same for a key.
fn drawn_size(key: u32) -> u64 {
    let state = FixedState::default();
    let uniform = |salt: u32| {
        let bits = state.hash_one((key, salt)) >> 11;
        (bits as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let normal = (-2.0 * uniform(0).ln()).sqrt() * (std::f64::consts::TAU * uniform(1)).cos();
    let size = (4096_f64.ln() + 1.2 * normal).exp();
    size.clamp(200.0, 102_400.0) as u64
}

/// Promotes what was found in Redis three times.
struct ThreeHits {
    memory: Lru,
    found: HashMap<u32, u8, FixedState>,
}

impl ThreeHits {
    fn new(room: Room) -> Self {
        Self {
            memory: Lru::new(room),
            found: HashMap::default(),
        }
    }
}

impl Ask for ThreeHits {
    fn ask(&mut self, key: u32, size: u64) -> bool {
        if self.memory.look(key) {
            return true;
        }
        let found = self.found.entry(key).or_default();
        *found += 1;
        if *found == 3 {
            *found = 0;
            self.memory.ask(key, size);
        }
        false
    }
}
