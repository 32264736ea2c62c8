//! What a command through the store costs, beside the bare connection that it is made of.
//!
//! `cargo bench --bench store`. It starts a `redis-server` of its own. Wall time of one command, from so
//! many callers at once: the reciprocal is the throughput. The same in turns, with latencies and with a
//! checkout per command, is `cargo run --release --manifest-path benches/peers/Cargo.toml -- store`.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, measures time, and criterion's macros make undocumented functions"
)]

#[path = "../tests/it/redis/mod.rs"]
mod test_redis;

use std::future::Future;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redis::aio::MultiplexedConnection;
use tokio::runtime::{Builder, Runtime};
use tower_keep::store::{Call, Command, RedisConfig, RedisPool, Script, StoreParts};
use tower_keep::task::Tasks;

use crate::test_redis::TestRedis;

static READ: Script = Script::reading("read", "return redis.call('GET', keys[1])");

/// A server, and both ways to it.
struct Stand {
    runtime: Runtime,
    pool: RedisPool,
    bare: MultiplexedConnection,
    _tasks: Tasks,
    _server: TestRedis,
}

fn stand() -> Stand {
    let server = TestRedis::start();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let (pool, bare, tasks) = runtime.block_on(async {
        let tasks = Tasks::new().expect("a runtime");
        let config = RedisConfig {
            url: Some(server.url()),
            ..RedisConfig::default()
        };
        let parts = StoreParts {
            scripts: vec![&READ],
            ..StoreParts::new(tasks.spawner())
        };
        let pool = RedisPool::new(&config, &parts).expect("settings");
        assert!(pool.watch().until_up().await, "{}", pool.status());
        let url = format!("{}?protocol=resp3", server.url());
        let client = redis::Client::open(url).expect("a URL");
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = client.get_connection_info().clone().set_tcp_settings(tcp);
        let client = redis::Client::open(info).expect("a URL");
        let bare = client
            .get_multiplexed_async_connection()
            .await
            .expect("a connection");
        let value = Command::new("SET").key("k").arg(vec![b'x'; 1024]);
        pool.run::<()>(&value).await.expect("a value");
        (pool, bare, tasks)
    });
    Stand {
        runtime,
        pool,
        bare,
        _tasks: tasks,
        _server: server,
    }
}

/// How long `commands` take from `callers` tasks, each of which runs its share one after the other.
fn spread<W>(runtime: &Runtime, callers: u64, commands: u64, caller: impl Fn(u64) -> W) -> Duration
where
    W: Future<Output = ()> + Send + 'static,
{
    let begun = Instant::now();
    let share = |index| commands / callers + u64::from(index < commands % callers);
    let tasks: Vec<_> = (0..callers)
        .map(|index| runtime.spawn(caller(share(index))))
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("a caller that ends well");
    }
    begun.elapsed()
}

fn gets(c: &mut Criterion) {
    let stand = stand();
    let mut group = c.benchmark_group("store/get");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for callers in [1, 16, 64, 256] {
        group.bench_function(BenchmarkId::new("bare", callers), |b| {
            b.iter_custom(|commands| {
                spread(&stand.runtime, callers, commands, |share| {
                    let mut bare = stand.bare.clone();
                    async move {
                        for _ in 0..share {
                            let mut get = redis::cmd("GET");
                            let read = get.arg("k").query_async::<Vec<u8>>(&mut bare);
                            assert_eq!(read.await.expect("a value").len(), 1024);
                        }
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("pool", callers), |b| {
            b.iter_custom(|commands| {
                spread(&stand.runtime, callers, commands, |share| {
                    let pool = stand.pool.clone();
                    async move {
                        for _ in 0..share {
                            let get = Command::new("GET").key("k");
                            let read = pool.run::<Vec<u8>>(&get);
                            assert_eq!(read.await.expect("a value").len(), 1024);
                        }
                    }
                })
            });
        });
    }
    group.finish();
}

fn scripts(c: &mut Criterion) {
    let stand = stand();
    let sha: String = stand.runtime.block_on(async {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg("return redis.call('GET', KEYS[1])");
        load.query_async(&mut stand.bare.clone())
            .await
            .expect("a script")
    });
    let mut group = c.benchmark_group("store/script");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for callers in [1, 64] {
        group.bench_function(BenchmarkId::new("bare EVALSHA", callers), |b| {
            b.iter_custom(|commands| {
                spread(&stand.runtime, callers, commands, |share| {
                    let (mut bare, sha) = (stand.bare.clone(), sha.clone());
                    async move {
                        for _ in 0..share {
                            let mut call = redis::cmd("EVALSHA");
                            call.arg(&sha).arg(1).arg("k");
                            let read = call.query_async::<Vec<u8>>(&mut bare);
                            assert_eq!(read.await.expect("a value").len(), 1024);
                        }
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("pool FCALL", callers), |b| {
            b.iter_custom(|commands| {
                spread(&stand.runtime, callers, commands, |share| {
                    let pool = stand.pool.clone();
                    async move {
                        for _ in 0..share {
                            let call = Call::new(&READ).key("k");
                            let read = pool.call::<Vec<u8>>(&call);
                            assert_eq!(read.await.expect("a value").len(), 1024);
                        }
                    }
                })
            });
        });
    }
    group.finish();
}

/// What a command costs while Redis is away: one look, no waiting.
fn away(c: &mut Criterion) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let pool = runtime.block_on(async {
        let tasks = Tasks::new().expect("a runtime");
        let config = RedisConfig {
            url: Some("redis://127.0.0.1:1".to_owned()),
            ..RedisConfig::default()
        };
        let parts = StoreParts::new(tasks.spawner());
        // Its owner goes, and with it the supervisor: nothing comes between.
        RedisPool::new(&config, &parts).expect("settings")
    });
    let get = Command::new("GET").key("k");
    c.bench_function("store/away", |b| {
        b.iter(|| {
            runtime
                .block_on(pool.run::<Vec<u8>>(&get))
                .expect_err("nobody is there")
        });
    });
}

criterion_group!(benches, gets, scripts, away);
criterion_main!(benches);
