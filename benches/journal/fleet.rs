//! Eight instances that meet in Redis: what a record costs the server, and how soon everybody has it.

use std::time::{Duration, Instant};

use criterion::Criterion;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{
    Acknowledge, Journal, JournalConfig, JournalParts, JournalStatus, Marker, Record,
};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::goals::{note, quantile};
use crate::test_redis::TestRedis;

const INSTANCES: usize = 8;

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

    /// The same for each record, since then.
    fn spent_since(&self, (scripts, cpu): (f64, f64)) -> [f64; 2] {
        let now = self.spent();
        [now.0 - scripts, now.1 - cpu].map(|us| us / RECORDS as f64)
    }

    /// Waits until every mirror has so many records.
    fn all_have(&self, seq: u64) {
        while !self.journals.iter().all(|it| it.position().seq >= seq) {
            std::thread::yield_now();
        }
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
pub(crate) fn fleet(_: &mut Criterion) {
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
            // The moment is noted where it is known, lest the way back to here be left out.
            let done = async move { (done.await.expect("a receipt"), Instant::now()) };
            let done = fleet.runtime.spawn(done);
            let (receipt, acknowledged) = fleet.runtime.block_on(done).expect("no panic");
            fleet.all_have(receipt.0.seq);
            lags.push(millis(acknowledged.elapsed()));
            receipts.push(millis(acknowledged.duration_since(begun)));
        }
        let [script, cpu] = fleet.spent_since(before);
        let ([p50, p99], [lag, lag_p99]) = (both(&receipts), both(&lags));
        println!(
            "{name}: append to receipt {p50:.3} ms, p99 {p99:.3} ms; receipt to all {lag:.3} ms, p99 {lag_p99:.3} ms"
        );
        println!(
            "{name}: {script:.1} us of scripts a record, {cpu:.1} us of the server's processor in all"
        );
        let what = format!("server's scripts per record, 8 instances, {name}");
        note(what, script, 50.0, "us");
        let what = format!("acknowledged ({name}) to every mirror, p99");
        note(what, lag_p99, 2.0, "ms");
        one_way(&fleet, name);
        busy(&fleet, name);
    }
}

/// Sixty-four at a time from each, as a service does that has something to invalidate; and what it costs the
/// server only to tell eight instances something that means nothing to them.
fn busy(fleet: &Fleet, name: &str) {
    let before = fleet.spent();
    for _ in 0..RECORDS / INSTANCES / 64 {
        let all = fleet.journals.iter();
        let records = all.flat_map(|it| (0..64).map(|_| it.append([Marker::key("k")])));
        let done = fleet
            .runtime
            .block_on(join_all(records.collect::<Vec<_>>()));
        assert!(done.iter().all(Result::is_ok));
    }
    let made = (RECORDS / INSTANCES / 64 * 64 * INSTANCES) as f64 / RECORDS as f64;
    let [script, cpu] = fleet.spent_since(before).map(|each| each / made);
    let (channel, mut raw) = (fleet.pool.key("{cj:0}:c"), fleet.server.raw());
    let before = fleet.spent();
    for _ in 0..RECORDS {
        let heard = raw.must(&["PUBLISH", &channel, "nothing"]).integer();
        assert_eq!(heard, INSTANCES as i64);
    }
    let [_, floor] = fleet.spent_since(before);
    println!(
        "{name}, 512 at once: {script:.1} us of scripts a record, {cpu:.1} us in all; a bare PUBLISH to eight takes {floor:.1} us"
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The median, and what one in a hundred is beyond.
fn both(values: &[f64]) -> [f64; 2] {
    [0.5, 0.99].map(|part| quantile(values.to_vec(), part))
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
        ways.push(millis(begun.elapsed()));
        let done = fleet.runtime.block_on(done).expect("no panic");
        assert!(done.is_ok());
        // The next one begins when all have this one.
        fleet.all_have(to.position().seq);
    }
    let [p50, p99] = both(&ways);
    println!("{name}: call to another's mirror {p50:.3} ms, p99 {p99:.3} ms");
}

/// What a marker takes up in the stream.
pub(crate) fn memory(_: &mut Criterion) {
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
