//! A value that is in memory, beside a look into the engine; and one that has to be computed.

use std::hint::black_box;
use std::sync::Arc;

use criterion::BenchmarkGroup;
use criterion::Criterion;
use criterion::measurement::WallTime;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, UnitWeighter};
use tokio::runtime::{Builder, Runtime};
use tower_keep::clock::Clock;
use tower_keep::tiers::{CacheError, EntryOptions, TypedCache};

use crate::goals::{nanos, note, quantile};
use crate::stand::{Report, Stand, at_once, stand};

/// As many as the nearest caches of a processor hold, and more than that.
const SIZES: [usize; 2] = [100, 10_000];
const NONE: EntryOptions = EntryOptions::new();

type Engine<K> = Cache<
    K,
    Arc<Report>,
    UnitWeighter,
    foldhash::quality::RandomState,
    DefaultLifecycle<K, Arc<Report>>,
>;

/// The engine with the hasher that the tiers hash keys with.
fn engine<K: std::hash::Hash + Eq>(items: usize) -> Engine<K> {
    Cache::with(
        items * 2,
        items as u64 * 2,
        UnitWeighter,
        foldhash::quality::RandomState::default(),
        DefaultLifecycle::default(),
    )
}

/// The second part of the keys that have two.
const WEEKLY: &str = "weekly";

/// A key of two parts as it is asked for.
#[derive(Hash, PartialEq, Eq)]
struct Two<'a>(u64, &'a str);

impl Equivalent<(u64, Arc<str>)> for Two<'_> {
    fn equivalent(&self, key: &(u64, Arc<str>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

/// Everybody asks for the same, in the same order.
struct Draws {
    names: Vec<Arc<str>>,
    order: Vec<u32>,
}

impl Draws {
    fn of(items: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % items
        };
        Self {
            names: (0..items)
                .map(|at| format!("report-{at:08}").into())
                .collect(),
            order: (0..1 << 14).map(|_| draw() as u32).collect(),
        }
    }

    /// Asks for one after the other, for ever.
    fn turn<'a>(&'a self, mut ask: impl FnMut(u64, &Arc<str>) + 'a) -> Box<dyn FnMut() + 'a> {
        let mut at = 0;
        Box::new(move || {
            at = (at + 1) % self.order.len();
            let item = self.order[at];
            ask(u64::from(item), &self.names[item as usize]);
        })
    }
}

/// A hit of a key that is text, of one with two parts, and of a tenant, each beside the engine alone.
pub(crate) fn hits(criterion: &mut Criterion) {
    let runtime = runtime();
    let stand = runtime.block_on(stand(None));
    for items in SIZES {
        let mut group = criterion.benchmark_group(format!("tiers/hit of {items}"));
        let draws = Draws::of(items);
        text(&mut group, (&runtime, &stand), &draws);
        tuple(&mut group, (&runtime, &stand), &draws);
        group.finish();
    }
    let clock = Clock::system();
    println!(
        "of each hit the clock is {:.1} ns",
        nanos(|| {
            black_box(clock.now());
        })
    );
}

fn text(
    group: &mut BenchmarkGroup<'_, WallTime>,
    (runtime, stand): (&Runtime, &Stand),
    draws: &Draws,
) {
    let items = draws.names.len();
    let floor = engine::<Arc<str>>(items);
    let plain = stand.tiers.cache::<Report>(&format!("text {items}"));
    let tenant = plain.for_tenant("acme");
    for (id, name) in (0..).zip(&draws.names) {
        floor.insert(Arc::clone(name), Arc::new(Report::new(id, 100)));
        for cache in [&plain, &tenant] {
            fill(runtime, cache, &**name, id);
        }
    }
    let mut alone = draws.turn(|_, name| {
        let report = floor.get(&**name).expect("it is there");
        black_box(&*report);
    });
    let mut ours = draws.turn(|_, name| hit(&plain, &**name));
    let mut theirs = draws.turn(|_, name| hit(&tenant, &**name));
    compare(
        group,
        &mut [
            ("floor: quick_cache, text", &mut alone),
            ("text", &mut ours),
            ("text, a tenant's", &mut theirs),
        ],
        items,
    );
}

fn tuple(
    group: &mut BenchmarkGroup<'_, WallTime>,
    (runtime, stand): (&Runtime, &Stand),
    draws: &Draws,
) {
    let items = draws.names.len();
    let floor = engine::<(u64, Arc<str>)>(items);
    let plain = stand.tiers.cache::<Report>(&format!("tuple {items}"));
    let weekly: Arc<str> = WEEKLY.into();
    for id in 0..items as u64 {
        floor.insert((id, Arc::clone(&weekly)), Arc::new(Report::new(id, 100)));
        fill(runtime, &plain, (id, WEEKLY), id);
    }
    let mut alone = draws.turn(|id, _| {
        let report = floor.get(&Two(id, WEEKLY)).expect("it is there");
        black_box(&*report);
    });
    let mut ours = draws.turn(|id, _| hit(&plain, (id, WEEKLY)));
    compare(
        group,
        &mut [
            ("floor: quick_cache, tuple", &mut alone),
            ("tuple", &mut ours),
        ],
        items,
    );
}

/// A name, and one round.
type Contender<'a> = (&'static str, &'a mut dyn FnMut());

/// Measures them by turns, so that whatever else the machine does befalls all of them; the first is the floor.
fn compare(
    group: &mut BenchmarkGroup<'_, WallTime>,
    contenders: &mut [Contender<'_>],
    items: usize,
) {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..9 {
        for ((_, round), times) in contenders.iter_mut().zip(&mut times) {
            times.push(nanos(round));
        }
    }
    let medians: Vec<f64> = times
        .into_iter()
        .map(|times| quantile(times, 0.5))
        .collect();
    for ((name, round), seen) in contenders.iter_mut().zip(&medians) {
        println!("hit of {items}, {name}: {seen:.1} ns");
        group.bench_function(*name, |bench| bench.iter(&mut **round));
        if !name.starts_with("floor") {
            note(
                format!("hit of {items}, {name}, to its floor"),
                seen / medians[0],
                1.5,
                "",
            );
        }
    }
}

fn hit(cache: &TypedCache<Report>, key: impl tower_keep::tiers::EntryKey) {
    let report = at_once(cache.get_or_compute(key, &NONE, never)).expect("it is there");
    black_box(&*report);
}

async fn never() -> Result<Report, CacheError> {
    unreachable!("it is there")
}

fn fill(
    runtime: &Runtime,
    cache: &TypedCache<Report>,
    key: impl tower_keep::tiers::EntryKey,
    id: u64,
) {
    let compute = move || async move { Ok::<_, CacheError>(Report::new(id, 100)) };
    let filled = runtime.block_on(cache.get_or_compute(key, &NONE, compute));
    assert_eq!(filled.expect("it is computed").id, id);
}

/// What is nowhere: it is computed, by a task of its own, and stored in memory.
pub(crate) fn misses(criterion: &mut Criterion) {
    let runtime = runtime();
    let stand = runtime.block_on(stand(None));
    let cache = stand.tiers.cache::<Report>("report");
    let mut id = 0;
    let mut miss = || {
        id += 1;
        fill(&runtime, &cache, id, id);
    };
    println!(
        "miss, compute and fill in memory: {:.0} ns",
        nanos(&mut miss)
    );
    criterion.bench_function("tiers/miss", |bench| bench.iter(&mut miss));
    let spawned = nanos(|| {
        let task = async { Arc::new(Report::new(7, 100)) };
        let value = runtime.block_on(async { tokio::spawn(task).await });
        black_box(value.expect("a value"));
    });
    println!("of it a task that computes: {spawned:.0} ns");
}

pub(crate) fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime")
}
