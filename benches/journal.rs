//! What an invalidation costs, how soon everybody has heard of it, and what it costs to ask whether an entry
//! holds; beside what each could not be less than, and the goal it was built for.
//!
//! `cargo bench --bench journal`. It starts a `redis-server` of its own and a fleet of eight instances in this
//! process: they share its cores, as eight services on machines of their own would not. A table at the end
//! says which goals were met.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, measures time, and criterion's macros make undocumented functions"
)]

#[path = "../tests/it/redis/mod.rs"]
mod test_redis;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group};
use futures_util::future::join_all;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, service_fn};
use tower_keep::cache::{Cache, CacheConfig, CacheLayer, CacheParts};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{
    Acknowledge, Checked, Journal, JournalConfig, JournalParts, JournalStatus, Marker, Record,
    Stamp, Subject, Verdict,
};
use tower_keep::pattern::Pattern;
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::test_redis::TestRedis;

const INSTANCES: usize = 8;
const MARKERS: u64 = 100_000;
const PATTERNS: u64 = 100_000;
/// More than the processor's nearest caches hold.
const ENTRIES: u64 = 10_000;

/// What was to be reached, and what was seen.
static GOALS: Mutex<Vec<(String, f64, f64, &str)>> = Mutex::new(Vec::new());

fn note(what: impl Into<String>, seen: f64, most: f64, unit: &'static str) {
    let mut goals = GOALS.lock().expect("nobody panics in here");
    goals.push((what.into(), seen, most, unit));
}

fn table() {
    let goals = GOALS.lock().expect("nobody panics in here");
    println!("\n{:<66} {:>10} {:>12}  met", "goal", "at most", "seen");
    for (what, seen, most, unit) in goals.iter() {
        let met = if seen <= most { "yes" } else { "NO" };
        println!("{what:<66} {most:>7} {unit:<2} {seen:>9.2} {unit:<2}  {met}");
    }
}

/// Nanoseconds of one round: the median of many batches, each long enough for the clock.
fn nanos(mut round: impl FnMut()) -> f64 {
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

fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values[at.min(values.len() - 1)]
}

/// Measures a round for the table, and once more as criterion does it.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut round: impl FnMut()) -> f64 {
    let seen = nanos(&mut round);
    group.bench_function(name, |bench| bench.iter(&mut round));
    seen
}

fn journal() -> Journal {
    let config = JournalConfig {
        markers_max: 1 << 20,
        patterns_max: 1 << 17,
        ..JournalConfig::default()
    };
    Journal::new(&config, Events::none()).expect("settings")
}

fn invalidate(journal: &Journal, marker: Marker) {
    let done = journal.append([marker]).now();
    assert!(matches!(done, Some(Ok(_))), "alone, it is done at once");
}

fn pattern(text: &str) -> Marker {
    Marker::pattern(Pattern::parse(text).expect("a pattern"))
}

/// A cache that holds so many answers, all of one tag, and asks its service for whatever it lacks.
struct Cached {
    journal: Journal,
    forwarded: Arc<AtomicU64>,
    drive: Box<dyn FnMut(u64)>,
}

impl Cached {
    fn holding(entries: u64) -> Self {
        let journal = journal();
        let config = CacheConfig {
            capacity_bytes: (entries * 4096).max(64 << 20),
            ..CacheConfig::default()
        };
        let parts = CacheParts {
            journal: journal.clone(),
            clock: Clock::system(),
            events: Events::none(),
            spawner: None,
        };
        let layer = CacheLayer::new(Cache::new(&config, parts).expect("settings"));
        let forwarded = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&forwarded);
        let mut service = layer.layer(service_fn(move |_: Request<()>| {
            count.fetch_add(1, Ordering::Relaxed);
            answer()
        }));
        let drive = move |entry: u64| {
            let target = format!("/items/{entry}");
            let request = Request::get(target).body(()).expect("a request");
            let mut cx = Context::from_waker(Waker::noop());
            let _ = service.poll_ready(&mut cx);
            let Poll::Ready(Ok(answer)) = pin!(service.call(request)).poll(&mut cx) else {
                unreachable!("nothing here waits");
            };
            let mut body = pin!(answer.into_body());
            while let Poll::Ready(Some(_)) = http_body::Body::poll_frame(body.as_mut(), &mut cx) {}
        };
        let mut cached = Self {
            journal,
            forwarded,
            drive: Box::new(drive),
        };
        (0..entries).for_each(&mut cached.drive);
        // All of them are there: a sample is asked for again.
        assert_eq!(cached.forwarded(|cached| cached.sample(entries)), 0);
        cached
    }

    fn sample(&mut self, entries: u64) {
        (0..100).for_each(|at| (self.drive)(at * entries / 100));
    }

    fn forwarded(&mut self, deed: impl FnOnce(&mut Self)) -> u64 {
        let before = self.forwarded.load(Ordering::Relaxed);
        deed(self);
        self.forwarded.load(Ordering::Relaxed) - before
    }
}

fn answer() -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"{}")));
    let fields = [
        ("cache-control", "max-age=3600"),
        ("surrogate-key", "items"),
    ];
    for (name, value) in fields {
        let headers = answer.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    ready(Ok(answer))
}

/// The same invalidation with few and with a million entries in the cache that it concerns.
fn invalidations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/invalidate");
    let mut million = Cached::holding(1_000_000);
    let tag = ("a tag with 1 / 1M entries", Marker::tag("items"), 1);
    let pattern = ("a pattern over 1k / 1M keys", pattern("*/items/*"), 1_000);
    for (what, marker, entries) in [tag, pattern] {
        let mut few = Cached::holding(entries);
        // By turns, so that whatever else the machine does befalls both.
        let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            of_few.push(nanos(|| invalidate(&few.journal, marker.clone())));
            of_many.push(nanos(|| invalidate(&million.journal, marker.clone())));
        }
        let (least, most) = (quantile(of_few, 0.5), quantile(of_many, 0.5));
        println!("invalidate {what}: {least:.0} ns / {most:.0} ns");
        note(format!("invalidate {what}, ratio"), most / least, 1.2, "");
        group.bench_function(what, |bench| {
            bench.iter(|| invalidate(&million.journal, marker.clone()));
        });
        // It did what it says: what was asked for is not served any more, here and there.
        assert_eq!(few.forwarded(|cached| (cached.drive)(0)), 1);
        assert_eq!(
            million.forwarded(|cached| cached.sample(1_000_000)),
            100,
            "{what}"
        );
    }
    group.finish();
}

/// A journal in which every tag was invalidated, and entries that were born after that.
fn checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/check");
    let journal = journal();
    (0..MARKERS).for_each(|at| invalidate(&journal, Marker::tag(&format!("tag:{at}"))));
    let born = journal.position();
    let tags = |at: u64| {
        [0, 1, 2, 3].map(|n| Arc::from(format!("tag:{}", (at * 7919 + n * 31_337) % MARKERS)))
    };
    let entries: Vec<Subject> = (0..ENTRIES)
        .map(|at| Subject::of(format!("report:{at}"), &tags(at)))
        .collect();
    let now = Clock::system().now();
    let (epoch, until, checked) = (AtomicU64::new(7), AtomicU64::new(u64::MAX), 7_u64);
    let floor = measure(&mut group, "floor: two loads", || {
        let until = black_box(&until).load(Ordering::Acquire);
        let epoch = black_box(&epoch).load(Ordering::Acquire);
        black_box(black_box(now).as_nanos() < until && black_box(checked) == epoch);
    });
    let (hot, subject) = (Checked::at(born), &entries[0]);
    let seen = measure(&mut group, "nothing changed", || {
        let verdict = black_box(&journal).judge(born, black_box(&hot), subject, black_box(now));
        assert!(verdict == Verdict::Fresh);
    });
    println!("check of a hot hit: {seen:.2} ns, floor {floor:.2} ns");
    note("check of a hot hit, nothing changed", seen, 3.0, "ns");
    // Something else was invalidated since, so every entry has to be judged.
    invalidate(&journal, Marker::key("something else"));
    let mut at = 0;
    let seen = measure(&mut group, "100k markers, 4 tags", || {
        at = (at + 1) % entries.len();
        let verdict = journal.judge(born, &Checked::at(born), &entries[at], now);
        assert!(verdict == Verdict::Fresh);
    });
    note(
        "the same, 100k markers and 4 tags to check again",
        seen,
        500.0,
        "ns",
    );
    group.finish();
}

/// Patterns that name no key that is asked for, and such keys.
type Shape = (&'static str, fn(u64) -> String, fn(u64) -> String);

const SHAPES: [Shape; 4] = [
    (
        "segments",
        |at| format!("report:*:{at}:*"),
        |at| format!("report:acme:{}:summary.pdf", at + PATTERNS),
    ),
    (
        "begins",
        |at| format!("/users/{at:06}*"),
        |at| format!("/users/{:06}/orders/7", at + PATTERNS),
    ),
    (
        "ends",
        |at| format!("*-{at:06}.json"),
        |at| format!("/exports/daily-{:06}.json", at + PATTERNS),
    ),
    (
        "anywhere",
        |at| format!("*x{at:06}y*"),
        |at| format!("/a/bx{:06}yc/list?page=2", at + PATTERNS),
    ),
];

fn patterns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/patterns");
    let now = Clock::system().now();
    for (shape, text, key) in SHAPES {
        let journal = journal();
        let born = Stamp::stored(journal.position().inc, 0);
        let entries: Vec<Subject> = (0..ENTRIES).map(|at| Subject::of(key(at), &[])).collect();
        let judge = |entry: &Subject| {
            let verdict = journal.judge(born, &Checked::at(born), entry, now);
            assert!(verdict == Verdict::Fresh, "{}", entry.key());
        };
        let mut at = 0;
        let mut next = || {
            at = (at + 1) % entries.len();
            judge(&entries[at]);
        };
        invalidate(&journal, Marker::key("something else"));
        let without = nanos(&mut next);
        (0..PATTERNS).for_each(|at| invalidate(&journal, pattern(&text(at))));
        let seen = measure(&mut group, shape, &mut next);
        let list: Vec<Pattern> = (0..PATTERNS)
            .map(|at| Pattern::parse(&text(at)).expect("a pattern"))
            .collect();
        let begun = Instant::now();
        for entry in entries.iter().take(20) {
            assert!(!list.iter().any(|pattern| pattern.matches(entry.key())));
        }
        let linear = begun.elapsed().as_nanos() as f64 / 20.0;
        println!(
            "{shape}: {seen:.0} ns, {without:.0} ns of it without patterns; a list takes {linear:.0} ns, {:.0} times as long",
            linear / seen
        );
        note(
            format!("check against 100k patterns, {shape}"),
            seen,
            200.0,
            "ns",
        );
    }
    group.finish();
}

/// Instances of one service, and the server where they meet.
struct Fleet {
    journals: Vec<Journal>,
    pool: RedisPool,
    server: TestRedis,
    runtime: Runtime,
    _tasks: Vec<Tasks>,
}

impl Fleet {
    fn of(instances: usize, acknowledge: Acknowledge) -> Self {
        let server = TestRedis::start();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let config = JournalConfig {
            acknowledge,
            ..JournalConfig::default()
        };
        let redis = RedisConfig {
            url: Some(server.url()),
            command_timeout: Duration::from_secs(5),
            ..RedisConfig::default()
        };
        let joined = runtime
            .block_on(async { join_all((0..instances).map(|_| join(&redis, &config))).await });
        // Leases that may have been given before the journal was begun are waited for at first.
        std::thread::sleep(config.lease);
        let pool = joined[0].1.clone();
        let mut journals = Vec::new();
        let mut all = Vec::new();
        for (journal, _, tasks) in joined {
            journals.push(journal);
            all.push(tasks);
        }
        Self {
            journals,
            pool,
            server,
            runtime,
            _tasks: all,
        }
    }

    /// What the server has spent, in µs: on commands that were sent by instances, and in all.
    fn spent(&self) -> (f64, f64) {
        let mut raw = self.server.raw();
        let stats = raw.must(&["INFO", "commandstats"]);
        let fcalls = stats.line("cmdstat_fcall").expect("scripts have run");
        let usec = fcalls
            .split(',')
            .find_map(|part| part.strip_prefix("usec="));
        let cpu = raw.must(&["INFO", "cpu"]);
        let seconds = |name| -> f64 {
            let text = cpu.line(name).expect("a figure");
            text.trim().parse().expect("a number")
        };
        let cpu = seconds("used_cpu_user") + seconds("used_cpu_sys");
        (
            usec.and_then(|usec| usec.parse().ok()).expect("a number"),
            cpu * 1e6,
        )
    }
}

/// Has heard everything when this returns.
async fn join(redis: &RedisConfig, config: &JournalConfig) -> (Journal, RedisPool, Tasks) {
    let tasks = Tasks::new().expect("a runtime");
    let parts = StoreParts {
        scripts: Journal::scripts().to_vec(),
        ..StoreParts::new(tasks.spawner())
    };
    let pool = RedisPool::new(redis, &parts).expect("settings");
    let parts = JournalParts {
        clock: Clock::system(),
        events: Events::none(),
        redis: pool.clone(),
        spawner: tasks.spawner(),
    };
    let journal = Journal::shared(config, parts).expect("settings");
    while journal.status() != JournalStatus::Verified {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (journal, pool, tasks)
}

const RECORDS: usize = 4_000;

/// One record after the other, from every instance in turn, and when everybody has it.
fn fleet(_: &mut Criterion) {
    for (acknowledge, name) in [
        (Acknowledge::Everywhere, "everywhere"),
        (Acknowledge::Recorded, "recorded"),
    ] {
        let fleet = Fleet::of(INSTANCES, acknowledge);
        let before = fleet.spent();
        let [mut receipts, mut lags] = [Vec::new(), Vec::new()];
        for at in 0..RECORDS {
            let begun = Instant::now();
            let done = fleet.journals[at % INSTANCES].append([Marker::key("k")]);
            let receipt = fleet.runtime.block_on(done).expect("a receipt");
            receipts.push(begun.elapsed().as_secs_f64() * 1e3);
            let acknowledged = Instant::now();
            while !fleet
                .journals
                .iter()
                .all(|it| it.position().seq >= receipt.0.seq)
            {
                std::thread::yield_now();
            }
            lags.push(acknowledged.elapsed().as_secs_f64() * 1e3);
        }
        let after = fleet.spent();
        let [script, cpu] = [after.0 - before.0, after.1 - before.1].map(|us| us / RECORDS as f64);
        let of = |values: &Vec<f64>| [0.5, 0.99].map(|part| quantile(values.clone(), part));
        let ([p50, p99], [lag, lag_p99]) = (of(&receipts), of(&lags));
        println!(
            "{name}: append to receipt {p50:.3} ms, p99 {p99:.3} ms; receipt to all {lag:.3} ms, p99 {lag_p99:.3} ms; \
             the server's scripts {script:.1} us a record, its processor time in all {cpu:.1} us"
        );
        note(
            format!("server time per record, 8 instances, {name}"),
            script,
            50.0,
            "us",
        );
        let what = format!("acknowledged ({name}) to every mirror, p99");
        note(what, lag_p99, 2.0, "ms");
        one_way(&fleet, name);
    }
}

/// From the call to the mirror of another instance.
fn one_way(fleet: &Fleet, name: &str) {
    let mut ways = Vec::new();
    for at in 0..RECORDS {
        let (from, to) = (at % INSTANCES, (at + 1) % INSTANCES);
        let (from, to) = (&fleet.journals[from], &fleet.journals[to]);
        let before = to.position().seq;
        let begun = Instant::now();
        let done = fleet.runtime.spawn(from.append([Marker::key("k")]));
        while to.position().seq <= before {
            std::thread::yield_now();
        }
        ways.push(begun.elapsed().as_secs_f64() * 1e3);
        let done = fleet.runtime.block_on(done).expect("no panic");
        assert!(done.is_ok());
        // The next one begins when all have this one.
        let last = to.position().seq;
        while !fleet.journals.iter().all(|it| it.position().seq >= last) {
            std::thread::yield_now();
        }
    }
    let [p50, p99] = [0.5, 0.99].map(|part| quantile(ways.clone(), part));
    println!("{name}: call to another's mirror {p50:.3} ms, p99 {p99:.3} ms");
}

/// What a marker takes up in the stream.
fn memory(_: &mut Criterion) {
    const EACH: usize = 20_000;
    let fleet = Fleet::of(1, Acknowledge::Recorded);
    let stream = fleet.pool.key("{cj:0}:j");
    let mut raw = fleet.server.raw();
    let mut usage = || {
        raw.must(&["MEMORY", "USAGE", &stream, "SAMPLES", "0"])
            .integer() as f64
    };
    let mut before = usage();
    for markers in [1, 3] {
        let mut made = 0;
        while made < EACH {
            let records = (made..made + 500).map(|at| {
                let names = (0..markers).map(|n| Marker::key(&format!("{markers}:{at}:{n}")));
                fleet.journals[0].append(Record::of(names.collect::<Vec<_>>()))
            });
            let done = fleet.runtime.block_on(join_all(records));
            assert!(done.iter().all(Result::is_ok), "all are recorded");
            made += done.len();
        }
        let after = usage();
        let each = (after - before) / (EACH * markers) as f64;
        note(
            format!("memory in Redis per marker, {markers} in a record"),
            each,
            40.0,
            "B",
        );
        before = after;
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = checks, patterns, invalidations, memory, fleet
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    table();
}
