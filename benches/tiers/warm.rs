//! A value that is in Redis and not in memory, beside a bare GET over the same connections; many of them at
//! once; and one on its way there.

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower_keep::store::{Command, RedisPool};
use tower_keep::tiers::{CacheError, Codec, EntryOptions, Json, MessagePack, TypedCache};

use crate::goals::{nanos, note, quantile};
use crate::hot::runtime;
use crate::stand::{Report, Stand, stand};
use crate::test_redis::TestRedis;

const NONE: EntryOptions = EntryOptions::new();
/// Nothing is ever found in memory.
const COLD_MEMORY: EntryOptions = EntryOptions::new()
    .ttl(Duration::from_secs(3600))
    .ttl_hot(Duration::ZERO);
const KIB: usize = 1 << 10;
/// More than there are callers, so that seldom two ask for the same.
const KEYS: u64 = 4_096;
const ROUNDS: usize = 9;

/// A server with entries of so many bytes, and an instance that finds nothing in its memory.
struct Filled {
    runtime: Runtime,
    stand: Stand,
    cache: TypedCache<Report>,
    server: TestRedis,
}

fn filled(bytes: usize) -> Filled {
    let server = TestRedis::start();
    let runtime = runtime();
    let stand = runtime.block_on(stand(Some(server.url())));
    let cache = stand.tiers.cache::<Report>("report").options(COLD_MEMORY);
    runtime.block_on(async {
        for id in 0..KEYS {
            let compute = move || async move { Ok::<_, CacheError>(Report::new(id, bytes)) };
            let filled = cache.get_or_compute(id, &NONE, compute).await;
            assert_eq!(filled.expect("it is computed").id, id);
        }
        // What was computed is written behind its caller's back.
        for id in 0..KEYS {
            while cache.get(id).await.is_none() {
                tokio::task::yield_now().await;
            }
        }
    });
    assert!(stand.tiers.is_empty(), "memory was to keep nothing");
    Filled {
        runtime,
        cache,
        stand,
        server,
    }
}

/// How long it takes so many callers to do something so often, each one after the other; in ns for one.
fn spread<W>(runtime: &Runtime, callers: u64, times: u64, caller: impl Fn(u64, u64) -> W) -> f64
where
    W: Future<Output = ()> + Send + 'static,
{
    let begun = Instant::now();
    let share = |index| times / callers + u64::from(index < times % callers);
    let tasks: Vec<_> = (0..callers)
        .map(|index| runtime.spawn(caller(index * (KEYS / callers), share(index))))
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("a caller that ends well");
    }
    begun.elapsed().as_nanos() as f64 / times as f64
}

/// Reads entry after entry with a bare GET.
async fn bare(pool: RedisPool, places: Arc<[String]>, from: u64, times: u64) {
    for at in from..from + times {
        let get = Command::new("GET").key(&*places[(at % KEYS) as usize]);
        let bytes: Vec<u8> = pool.run(&get).await.expect("an entry");
        assert!(bytes.len() > 100);
    }
}

async fn computed(cache: TypedCache<Report>, from: u64, times: u64) {
    for at in from..from + times {
        let id = at % KEYS;
        let never = || async { Err::<Report, _>("it is in Redis") };
        let report = cache.get_or_compute(id, &NONE, never).await;
        assert_eq!(report.expect("it is there").id, id);
    }
}

async fn got(cache: TypedCache<Report>, from: u64, times: u64) {
    for at in from..from + times {
        let report = cache.get(at % KEYS).await.expect("it is there");
        assert_eq!(report.id, at % KEYS);
    }
}

/// Warm hits of 1 KiB, one caller and 64, by turns with the bare command.
pub(crate) fn reads(criterion: &mut Criterion) {
    let all = filled(KIB);
    let places = (0..KEYS).map(|id| all.stand.pool.key(format!("v:{{report:{id}}}")));
    let places: Arc<[String]> = places.collect();
    let bare = |callers, times| {
        spread(&all.runtime, callers, times, |from, share| {
            bare(all.stand.pool.clone(), Arc::clone(&places), from, share)
        })
    };
    let computed = |callers, times| {
        spread(&all.runtime, callers, times, |from, share| {
            computed(all.cache.clone(), from, share)
        })
    };
    let got = |callers, times| {
        spread(&all.runtime, callers, times, |from, share| {
            got(all.cache.clone(), from, share)
        })
    };
    for (callers, times) in [(1, 4_000), (64, 100_000)] {
        let mut seen = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            seen[0].push(bare(callers, times));
            seen[1].push(computed(callers, times));
            seen[2].push(got(callers, times));
        }
        let [raw, ours, get] = seen.map(|times| quantile(times, 0.5));
        println!(
            "warm hit of 1 KiB, {callers} callers: {ours:.0} ns by get_or_compute, {get:.0} ns by get, floor: a bare GET {raw:.0} ns"
        );
        if callers > 1 {
            for (what, each) in [("get_or_compute", ours), ("get", get)] {
                let what = format!("warm hit, {callers} callers, {what}: time to a bare GET's");
                note(what, each / raw, 1.176, "");
            }
        }
    }
    let mut group = criterion.benchmark_group("tiers/warm hit, 64 callers");
    let took = |each: f64, times: u64| Duration::from_nanos((each * times as f64) as u64);
    group.bench_function("bare GET", |b| {
        b.iter_custom(|times| took(bare(64, times), times));
    });
    group.bench_function("get_or_compute", |b| {
        b.iter_custom(|times| took(computed(64, times), times));
    });
    group.finish();
    assert!(all.stand.tiers.is_empty(), "memory was to keep nothing");
    let stats = all.cache.stats();
    assert_eq!((stats.computed, stats.hits_hot), (KEYS, 0), "{stats:?}");
}

/// A hundred values with one question, beside one; by one caller.
pub(crate) fn many(_: &mut Criterion) {
    for bytes in [100, KIB] {
        let all = filled(bytes);
        let one = || {
            spread(&all.runtime, 1, 1_000, |from, share| {
                got(all.cache.clone(), from, share)
            })
        };
        let hundred = || {
            spread(&all.runtime, 1, 200, |_, share| {
                let cache = all.cache.clone();
                async move {
                    for at in 0..share {
                        let ids = (0..100).map(move |nth| (at * 100 + nth) % KEYS);
                        let found = cache.get_many(ids).await;
                        assert!(found.len() == 100 && found.iter().all(Option::is_some));
                    }
                }
            })
        };
        let raw = || {
            spread(&all.runtime, 1, 200, |_, share| {
                let pool = all.stand.pool.clone();
                let places: Vec<_> = (0..100)
                    .map(|id| pool.key(format!("v:{{report:{id}}}")))
                    .collect();
                async move {
                    for _ in 0..share {
                        let get = places
                            .iter()
                            .fold(Command::new("MGET"), |get, place| get.key(&**place));
                        let found: Vec<Vec<u8>> = pool.run(&get).await.expect("entries");
                        assert_eq!(found.len(), 100);
                    }
                }
            })
        };
        let mut seen = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            seen[0].push(one());
            seen[1].push(hundred());
            seen[2].push(raw());
        }
        let [one, hundred, raw] = seen.map(|times| quantile(times, 0.5) / 1e3);
        println!(
            "{bytes} B each: one warm get {one:.1} us, get_many of 100 {hundred:.1} us, floor: a bare MGET {raw:.1} us"
        );
        note(
            format!("get_many of 100, {bytes} B each, to one get"),
            hundred / one,
            2.0,
            "",
        );
    }
}

/// A list as an API returns it, of about 64 KiB as JSON.
fn list() -> Value {
    let contact = |id: u64| {
        let word = |salt: u64| (id + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        json!({
            "id": id,
            "name": format!("Person {:x}", word(1)),
            "email": format!("{:x}@example.com", word(2)),
            "organization": { "id": id % 300, "name": format!("Organization {}", id % 300) },
            "tags": ["customer", if id.is_multiple_of(3) { "lead" } else { "partner" }],
            "active": !id.is_multiple_of(5),
            "revenue": word(3) as f64 / 100.0,
            "updated_at": format!("2026-11-{:02}T{:02}:{:02}:00Z", id % 28 + 1, id % 24, id % 60),
        })
    };
    (0..310).map(contact).collect()
}

/// What it takes to write a value, and to compute one that is nowhere and write it.
pub(crate) fn writes(criterion: &mut Criterion) {
    let list = list();
    let mut group = criterion.benchmark_group("tiers/encode 64 KiB");
    let json = Json.encode(&list).expect("JSON");
    let bytes = MessagePack.encode(&list).expect("bytes");
    let packed = lz4_flex::block::compress(&bytes);
    println!(
        "a list of {} B as JSON: {} B as MessagePack, {} B squeezed, ratio {:.2} ({:.2} to JSON)",
        json.len(),
        bytes.len(),
        packed.len(),
        bytes.len() as f64 / packed.len() as f64,
        json.len() as f64 / packed.len() as f64,
    );
    let mut encode = || {
        black_box(MessagePack.encode(black_box(&list)).expect("bytes"));
    };
    let mut squeeze = || {
        black_box(lz4_flex::block::compress(black_box(&bytes)));
    };
    let mut decode = || {
        let bytes = lz4_flex::block::decompress(black_box(&packed), bytes.len());
        let read: Result<Value, _> = MessagePack.decode(&bytes.expect("it was packed here"));
        black_box(read.expect("it was written here"));
    };
    let copied = nanos(|| {
        black_box(black_box(&bytes).clone());
    });
    let [encoding, squeezing, reading] =
        [nanos(&mut encode), nanos(&mut squeeze), nanos(&mut decode)];
    println!(
        "to write it {:.1} us and to squeeze it {:.1} us, to unpack and read it {:.1} us; floor: a copy {:.1} us",
        encoding / 1e3,
        squeezing / 1e3,
        reading / 1e3,
        copied / 1e3,
    );
    group.bench_function("MessagePack", |b| b.iter(&mut encode));
    group.bench_function("LZ4", |b| b.iter(&mut squeeze));
    group.bench_function("unpack and read", |b| b.iter(&mut decode));
    group.finish();
    fills();
}

fn fills() {
    let all = filled(KIB);
    let mut next = KEYS;
    let mut seen = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let begin = next;
        next += 1_000;
        seen[0].push(spread(&all.runtime, 1, 1_000, |_, share| {
            let cache = all.cache.clone();
            async move {
                for id in begin..begin + share {
                    let compute = move || async move { Ok::<_, CacheError>(Report::new(id, 100)) };
                    let report = cache.get_or_compute(id, &NONE, compute).await;
                    assert_eq!(report.expect("it is computed").id, id);
                }
            }
        }));
        seen[1].push(spread(&all.runtime, 1, 1_000, |_, share| {
            let pool = all.stand.pool.clone();
            async move {
                for _ in 0..share {
                    let _: String = pool.run(&Command::new("PING")).await.expect("a word");
                }
            }
        }));
    }
    let [miss, trip] = seen.map(|times| quantile(times, 0.5) / 1e3);
    println!(
        "miss, claim, compute and fill through Redis: {miss:.1} us to the caller; floor: a round trip {trip:.1} us, of which it needs two"
    );
    let mut raw = all.server.raw();
    let words = raw.must(&["STRLEN", &all.stand.pool.key("v:{report:7}")]);
    println!("an entry of 1 KiB takes {} B in Redis", words.integer());
}
