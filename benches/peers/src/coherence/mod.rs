//! Whether what was invalidated is served again: the harness of `tests/it/coherence` before public caches.
//!
//! Each has the same readers, writers and slow database in one process: whoever changes a key invalidates
//! it, waits until that is done, and notes that nothing older may be served to whoever asks from then on.
//! Every peer is asked in the way that its documentation shows, and loses the same race: a value is computed
//! or fetched, what it was made of changes and is invalidated, and then the old value is stored.
//!
//! They are controls: if one of them is not caught, the harness is blind, and this room fails. It fails as
//! well if tower-keep's journal, under the same schedule, lets anything through.
//!
//! Three numbers a line: what was served in vain of all that was served from memory, and how much of that
//! came later than 100 ms after the acknowledgement, which no message under way explains.

#[path = "../../../../tests/it/coherence/cached.rs"]
mod cached;
#[path = "../../../../tests/it/coherence/chance.rs"]
mod chance;
#[path = "../../../../tests/it/coherence/drive.rs"]
mod drive;
mod in_memory;
#[path = "../../../../tests/it/coherence/judge.rs"]
mod judge;
mod moka_future;
mod redis_cache_aio;
#[path = "../../../../tests/it/coherence/registers.rs"]
mod registers;
mod tower_http;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::coherence::cached::{Cached, Database};
use crate::coherence::drive::{Kinds, Plan, drive};
use crate::coherence::judge::{Count, Judge, Tally};
use crate::coherence::registers::Registers;
use crate::measure::Bench;
use crate::test_redis::TestRedis;

/// Few, so that readers and writers meet.
const KEYS: u32 = 64;
const LASTS: Duration = Duration::from_secs(4);

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let server = TestRedis::start();
    println!("coherence ({KEYS} keys, {} s each)", LASTS.as_secs());
    println!(
        "  {:<28}{:>12}{:>12}{:>12}",
        "cache", "stale", "hits", "stuck"
    );
    let ours = try_out(&runtime, "tower-keep, in memory", |database| {
        Ok(in_memory::InMemory::new(database)?)
    })?;
    let peers = [
        try_out(&runtime, "moka, get_with", |_| Ok(moka_future::Moka::new()))?,
        try_out(&runtime, "redis, cache-aio", |database| {
            runtime.block_on(redis_cache_aio::CacheAio::new(&server, database))
        })?,
        try_out(&runtime, "tower-http-cache", |database| {
            Ok(tower_http::TowerHttp::new(database))
        })?,
    ];
    println!();
    let caught = peers.iter().filter(|peer| peer.violations() > 0).count();
    if caught < peers.len() {
        return Err(format!("only {caught} of {} controls were caught", peers.len()).into());
    }
    if ours.violations() > 0 || ours.hits() == 0 {
        return Err("tower-keep served what was invalidated, or nothing at all".into());
    }
    Ok(())
}

/// Drives the cache that `make` makes before a database of its own, and prints what came of it.
fn try_out<C: Cached>(
    runtime: &Runtime,
    name: &str,
    make: impl FnOnce(&Database) -> Result<C, Failure>,
) -> Result<Tally, Failure> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = format!("keep-coherence-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(file);
    Registers::create(&path, KEYS)?;
    let registers = Arc::new(Registers::open(&path)?);
    // Whoever has it open keeps it.
    std::fs::remove_file(&path)?;
    let database = Database {
        registers: Arc::clone(&registers),
        takes: Duration::from_millis(5),
    };
    let plan = Plan {
        process: 0,
        processes: 1,
        readers: 32,
        writers: 4,
        rest: Duration::from_millis(10),
        kinds: Kinds::Keys,
        seed: 1,
    };
    let (cache, judge) = (
        Arc::new(make(&database)?),
        Arc::new(Judge::new(registers, 0)),
    );
    let stop = Arc::new(AtomicBool::new(false));
    runtime.block_on(async {
        let stopping = async {
            tokio::time::sleep(LASTS).await;
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(stopping, drive(&cache, &judge, &database, &plan, &stop));
    });
    let tally = judge.tally();
    let (stale, hits, stuck) = (tally.violations(), tally.hits(), tally.of(Count::Stuck));
    println!("  {name:<28}{stale:>12}{hits:>12}{stuck:>12}");
    if let Some(first) = judge.violations().first() {
        println!("    {first}");
    }
    Ok(tally)
}
