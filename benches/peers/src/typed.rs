//! Values of one type, computed where they are missing: the typed cache beside moka, cached and
//! multi-tier-cache.
//!
//! What each is given, so that none is made to look bad:
//! - moka hashes with foldhash, as tower-keep does, in place of SipHash, and is asked by reference; once with
//!   no life of its entries, which tower-keep never is without, and once with one.
//! - cached is the store that its macro makes for an async function, with keys that are cheap to clone. It has
//!   no part in the second tier: its asynchronous Redis store comes with OpenSSL or not at all.
//! - multi-tier-cache keeps bytes in memory, so that each of its hits reads the value anew: as MessagePack,
//!   the smaller of its formats. What its hits are without that stands beside it. Promotion to memory is
//!   off where its second tier is measured.
//! - Values are shared, not cloned, wherever the peer can do that.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cached::{CachedAsync, LruCache};
use foldhash::quality::RandomState;
use multi_tier_cache::serialization::MsgPackSerializer;
use multi_tier_cache::{
    CacheManager, CacheSerializer, CacheStrategy, CacheTier, L1Cache, L2Cache, MokaCacheConfig,
};
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig, JournalParts, JournalStatus};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;
use tower_keep::tiers::{CacheError, EntryOptions, Tiers, TiersConfig, TiersParts, TypedCache};

use crate::Failure;
use crate::measure::{Bench, Case, Compare, Contender, Role};
use crate::store::{compare, contender};
use crate::test_redis::TestRedis;
use crate::traffic::Traffic;

const KEYS: usize = 10_000;
const NONE: EntryOptions = EntryOptions::new();
const LIFE: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Report {
    id: u64,
    text: String,
}

impl Report {
    fn new(id: usize, bytes: usize) -> Self {
        let id = id as u64;
        let letter = |at: usize| char::from(b'a' + ((at as u64 * 7 + id) % 26) as u8);
        Self {
            id,
            text: (0..bytes).map(letter).collect(),
        }
    }

    fn bytes(&self) -> u64 {
        self.text.len() as u64
    }
}

fn names() -> Arc<[Arc<str>]> {
    (0..KEYS)
        .map(|at| format!("report-{at:08}").into())
        .collect()
}

/// An instance of a service with nothing but tiers, and what keeps it alive.
async fn tiers(url: Option<String>) -> Result<(Tiers, Tasks), Failure> {
    let tasks = Tasks::new()?;
    let parts = StoreParts {
        scripts: [Journal::scripts(), Tiers::scripts()].concat(),
        ..StoreParts::new(tasks.spawner())
    };
    let redis = match url {
        None => RedisPool::disabled(),
        url => {
            let config = RedisConfig {
                url,
                command_timeout: Duration::from_secs(5),
                ..RedisConfig::default()
            };
            RedisPool::new(&config, &parts)?
        }
    };
    let (clock, events, spawner) = (Clock::system(), Events::none(), tasks.spawner());
    let parts = JournalParts {
        clock: clock.clone(),
        events: events.clone(),
        redis: redis.clone(),
        spawner: spawner.clone(),
    };
    let journal = Journal::shared(&JournalConfig::default(), parts)?;
    while journal.status() != JournalStatus::Verified {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let parts = TiersParts {
        journal,
        clock,
        events,
        spawner,
        redis,
        cold: None,
    };
    Ok((Tiers::new(&TiersConfig::default(), parts)?, tasks))
}

/// Everybody's memory has everything: what a hit costs.
pub(crate) fn hot(_: &Bench) -> Result<(), Failure> {
    // The same for all, on this thread; one of them needs connections.
    let runtime = Rc::new(Builder::new_current_thread().enable_all().build()?);
    let names = names();
    for (name, traffic) in [
        ("tiers/hot-1", Traffic::each_once(1)?),
        ("tiers/hot-zipf", Traffic::zipf(KEYS as u32)?),
    ] {
        // New ones each time: what they have already would not come into memory.
        let [server, other] = [(); 2].map(|()| TestRedis::start());
        let contenders = vec![
            floor(&traffic, &names),
            ours(&runtime, &traffic, &names)?,
            moka(&runtime, ("moka", None), &traffic, &names),
            moka(&runtime, ("moka-ttl", Some(LIFE)), &traffic, &names),
            cached(&runtime, &traffic, &names),
            multi_tier(&runtime, &server, &traffic, &names)?,
            multi_tier_bytes(&runtime, &other, &traffic, &names)?,
        ];
        Case {
            name,
            requests: 50_000,
            compare: Compare::Total,
            contenders,
        }
        .run();
    }
    Ok(())
}

/// A value of a tenth of a kilobyte.
fn small(at: usize) -> Report {
    Report::new(at, 100)
}

/// The engine inside of tower-keep, and nothing else.
fn floor(traffic: &Traffic, names: &Arc<[Arc<str>]>) -> Contender {
    let (hasher, names) = (RandomState::default(), Arc::clone(names));
    let cache = quick_cache::sync::Cache::with(
        KEYS * 2,
        KEYS as u64 * 2,
        UnitWeighter,
        hasher,
        DefaultLifecycle::default(),
    );
    for (at, name) in names.iter().enumerate() {
        cache.insert(Arc::clone(name), Arc::new(small(at)));
    }
    Contender::calling("floor", Role::Baseline, traffic, move |traffic, times| {
        let found = (0..times).filter_map(|_| cache.get(&*names[traffic.draw()]));
        found.map(|report| report.bytes()).sum()
    })
}

fn ours(
    runtime: &Rc<Runtime>,
    traffic: &Traffic,
    names: &Arc<[Arc<str>]>,
) -> Result<Contender, Failure> {
    let (runtime, names) = (Rc::clone(runtime), Arc::clone(names));
    let (tiers, tasks) = runtime.block_on(tiers(None))?;
    let cache = tiers.cache::<Report>("report");
    let run = move |traffic: &mut Traffic, times| {
        // It runs as long as this is used.
        let _tasks = &tasks;
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..times {
                let at = traffic.draw();
                let compute = move || async move { Ok::<_, CacheError>(small(at)) };
                let report = cache.get_or_compute(&*names[at], &NONE, compute).await;
                bytes += report.map_or(0, |report| report.bytes());
            }
            bytes
        })
    };
    Ok(Contender::calling("tower-keep", Role::Ours, traffic, run))
}

fn moka(
    runtime: &Rc<Runtime>,
    (name, life): (&'static str, Option<Duration>),
    traffic: &Traffic,
    names: &Arc<[Arc<str>]>,
) -> Contender {
    let (runtime, names) = (Rc::clone(runtime), Arc::clone(names));
    let mut builder = moka::future::Cache::<String, Arc<Report>>::builder()
        .max_capacity(KEYS as u64 * 2)
        .initial_capacity(KEYS * 2);
    if let Some(life) = life {
        builder = builder.time_to_live(life);
    }
    let cache = builder.build_with_hasher(RandomState::default());
    Contender::calling(name, Role::Peer, traffic, move |traffic, times| {
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..times {
                let at = traffic.draw();
                let compute = async { Arc::new(small(at)) };
                bytes += cache.get_with_by_ref(&*names[at], compute).await.bytes();
            }
            bytes
        })
    })
}

fn cached(runtime: &Rc<Runtime>, traffic: &Traffic, names: &Arc<[Arc<str>]>) -> Contender {
    let (runtime, names) = (Rc::clone(runtime), Arc::clone(names));
    let cache = Mutex::new(LruCache::<Arc<str>, Arc<Report>>::with_size(KEYS * 2));
    Contender::calling("cached", Role::Peer, traffic, move |traffic, times| {
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..times {
                let at = traffic.draw();
                let compute = move || async move { Arc::new(small(at)) };
                let mut cache = cache.lock().await;
                let found = cache.async_get_or_set_with(Arc::clone(&names[at]), compute);
                let report = Arc::clone(found.await);
                drop(cache);
                bytes += report.bytes();
            }
            bytes
        })
    })
}

/// Both of its tiers; what is not to be found in the first one has a `capacity` of 0 there.
async fn manager(url: &str, capacity: u64) -> Result<CacheManager, Failure> {
    let config = MokaCacheConfig {
        max_capacity: capacity,
        time_to_live: LIFE,
        time_to_idle: LIFE,
    };
    let tiers = vec![
        CacheTier::new(Arc::new(L1Cache::new(config)?), 1, false, 1, 1.0),
        CacheTier::new(Arc::new(L2Cache::with_url(url).await?), 2, false, 10, 1.0),
    ];
    let mut manager = CacheManager::new_with_tiers(tiers, None)?;
    manager.set_serializer(CacheSerializer::MsgPack(MsgPackSerializer));
    Ok(manager)
}

async fn from_manager(
    manager: &CacheManager,
    name: &str,
    report: impl FnOnce() -> Report + Send,
) -> u64 {
    let compute = || async { Ok(report()) };
    let strategy = CacheStrategy::Custom(LIFE);
    let found = manager.get_or_compute_typed::<Report, _, _>(name, strategy, compute);
    found.await.map_or(0, |report| report.bytes())
}

fn multi_tier(
    runtime: &Rc<Runtime>,
    server: &TestRedis,
    traffic: &Traffic,
    names: &Arc<[Arc<str>]>,
) -> Result<Contender, Failure> {
    let (runtime, names) = (Rc::clone(runtime), Arc::clone(names));
    let manager = runtime.block_on(manager(&server.url(), KEYS as u64 * 2))?;
    let run = move |traffic: &mut Traffic, times| {
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..times {
                let at = traffic.draw();
                bytes += from_manager(&manager, &names[at], move || small(at)).await;
            }
            bytes
        })
    };
    Ok(Contender::calling(
        "multi-tier-cache",
        Role::Peer,
        traffic,
        run,
    ))
}

/// The same without reading the value: its bytes, and a few of them are not the text.
fn multi_tier_bytes(
    runtime: &Rc<Runtime>,
    server: &TestRedis,
    traffic: &Traffic,
    names: &Arc<[Arc<str>]>,
) -> Result<Contender, Failure> {
    let (runtime, names) = (Rc::clone(runtime), Arc::clone(names));
    let manager = runtime.block_on(async {
        let manager = manager(&server.url(), KEYS as u64 * 2).await?;
        for (at, name) in names.iter().enumerate() {
            let bytes = small(at).text.into();
            manager
                .set_with_strategy(name, bytes, CacheStrategy::Custom(LIFE))
                .await?;
        }
        Ok::<_, Failure>(manager)
    })?;
    let run = move |traffic: &mut Traffic, times| {
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..times {
                let found = manager.get(&names[traffic.draw()]).await;
                bytes += found.ok().flatten().map_or(0, |found| found.len() as u64);
            }
            bytes
        })
    };
    Ok(Contender::calling(
        "multi-tier-bytes",
        Role::Peer,
        traffic,
        run,
    ))
}

/// Nobody's memory has anything, and Redis has everything: values of 1 KiB.
pub(crate) fn warm(_: &Bench) -> Result<(), Failure> {
    // A server for each, so that nobody's keys are another's load.
    let [first, second] = [(); 2].map(|()| TestRedis::start());
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let names = names();
    let (tiers, _tasks) = runtime.block_on(tiers(Some(first.url())))?;
    let options = NONE.ttl(LIFE).ttl_hot(Duration::ZERO);
    let ours = tiers.cache::<Report>("report").options(options);
    let manager = Arc::new(runtime.block_on(manager(&second.url(), 0))?);
    runtime.block_on(async {
        for (at, name) in names.iter().enumerate() {
            read(&ours, name, at).await;
            from_manager(&manager, name, move || Report::new(at, 1024)).await;
        }
        for name in names.iter() {
            // It is written behind the caller's back.
            while ours.get(&**name).await.is_none() {
                tokio::task::yield_now().await;
            }
        }
    });
    for (callers, times) in [(1, 4_000), (64, 60_000)] {
        sides(&runtime, &names, (&ours, &manager), (callers, times));
    }
    let computed = ours.stats().computed;
    assert_eq!(computed, KEYS as u64, "all that was measured was found");
    Ok(())
}

async fn read(cache: &TypedCache<Report>, name: &str, at: usize) -> u64 {
    let compute = move || async move { Ok::<_, CacheError>(Report::new(at, 1024)) };
    let report = cache.get_or_compute(name, &NONE, compute).await;
    report.map_or(0, |report| report.bytes())
}

/// Where the next caller begins, so that seldom two ask for the same.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Asks so often, for one after the other, and says how long each took.
macro_rules! walk {
    ($each:expr, $at:ident, $ask:expr) => {{
        let from = NEXT.fetch_add(997, Ordering::Relaxed);
        let mut latencies = Vec::with_capacity($each);
        for number in from..from + $each {
            let $at = number % KEYS;
            let begun = Instant::now();
            assert_eq!($ask.await, 1024, "a value");
            latencies.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        latencies
    }};
}

fn sides(
    runtime: &Runtime,
    names: &Arc<[Arc<str>]>,
    (ours, manager): (&TypedCache<Report>, &Arc<CacheManager>),
    (callers, times): (usize, usize),
) {
    let keep = contender(runtime, "tower-keep", 1, |each| {
        let (cache, names) = (ours.clone(), Arc::clone(names));
        async move { walk!(each, at, read(&cache, &names[at], at)) }
    });
    let multi = contender(runtime, "multi-tier-cache", 1, |each| {
        let (manager, names) = (Arc::clone(manager), Arc::clone(names));
        let none = || Report::new(0, 0);
        async move { walk!(each, at, from_manager(&manager, &names[at], none)) }
    });
    let case = format!("tiers/warm-{callers}");
    compare(&case, callers, times, vec![keep, multi]);
}
