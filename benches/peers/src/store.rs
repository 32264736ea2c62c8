//! The store beside what it is made of and beside what people use: the same commands, the same server,
//! the same runtime, in turns.
//!
//! Wall time here, not CPU time: what counts is how much gets through, and most of the work is another
//! process'. `ns` is the time of a round divided by its commands, so a ratio below 1 is a higher
//! throughput; the `p99` lines compare single commands' latencies.

use std::future::Future;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::runtime::{Builder, Runtime};
use tower_keep::store::{Call, Command, RedisConfig, RedisPool, Script, StoreParts};
use tower_keep::task::Tasks;

use crate::Failure;
use crate::measure::Bench;
use crate::test_redis::TestRedis;

/// How often every contender has its turn.
const ROUNDS: usize = 11;
/// Commands of one turn, by callers: a turn takes some tenths of a second.
const CASES: [(usize, usize); 4] = [(1, 4_000), (16, 40_000), (64, 100_000), (256, 160_000)];
/// What is read.
const VALUE: [u8; 1024] = [b'x'; 1024];

static READ: Script = Script::reading("read", "return redis.call('GET', keys[1])");

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    let server = TestRedis::start();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let stand = runtime.block_on(Stand::new(&server))?;
    for (callers, commands) in CASES {
        gets(&runtime, &stand, callers, commands);
    }
    scripts(&runtime, &stand);
    Ok(())
}

/// All contenders, connected.
struct Stand {
    ours: RedisPool,
    bare: MultiplexedConnection,
    checkout: deadpool_redis::Pool,
    sha: String,
    /// Keeps our connection alive.
    _tasks: Tasks,
}

impl Stand {
    async fn new(server: &TestRedis) -> Result<Self, Failure> {
        let tasks = Tasks::new()?;
        let config = RedisConfig {
            url: Some(server.url()),
            ..RedisConfig::default()
        };
        let parts = StoreParts {
            scripts: vec![&READ],
            ..StoreParts::new(tasks.spawner())
        };
        let ours = RedisPool::new(&config, &parts)?;
        ours.watch().until_up().await;
        // RESP3, as ours; without Nagle's delay, as ours.
        let client = redis::Client::open(format!("{}?protocol=resp3", server.url()))?;
        let info = client.get_connection_info().clone();
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let client = redis::Client::open(info.set_tcp_settings(tcp))?;
        let mut bare = client.get_multiplexed_async_connection().await?;
        let mut checkout = deadpool_redis::Config::from_url(server.url());
        checkout.pool = Some(deadpool_redis::PoolConfig::new(2));
        let checkout = checkout.create_pool(Some(deadpool_redis::Runtime::Tokio1))?;
        let () = redis::cmd("SET")
            .arg("k")
            .arg(&VALUE[..])
            .query_async(&mut bare)
            .await?;
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg("return redis.call('GET', KEYS[1])");
        let sha = load.query_async(&mut bare).await?;
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(
            "#!lua name=peer\nredis.register_function{function_name='peer_read', flags={'no-writes'}, \
             callback=function(keys) return redis.call('GET', keys[1]) end}",
        );
        let _: String = load.query_async(&mut bare).await?;
        Ok(Self {
            ours,
            bare,
            checkout,
            sha,
            _tasks: tasks,
        })
    }
}

/// One who takes part: sends so many commands from so many callers and returns each one's latency.
pub(crate) struct Contender<'a> {
    name: &'static str,
    /// Of a full turn, how much it is given: a slow one would take minutes.
    share: usize,
    turn: Box<dyn FnMut(usize, usize) -> Vec<u32> + 'a>,
}

/// `caller` makes what one caller runs: so many commands, one after the other, on a handle of its own.
pub(crate) fn contender<'a, W>(
    runtime: &'a Runtime,
    name: &'static str,
    share: usize,
    caller: impl Fn(usize) -> W + 'a,
) -> Contender<'a>
where
    W: Future<Output = Vec<u32>> + Send + 'static,
{
    let turn = move |callers: usize, commands: usize| {
        let each = commands.div_ceil(callers);
        let callers: Vec<_> = (0..callers).map(|_| runtime.spawn(caller(each))).collect();
        let mut latencies = Vec::with_capacity(commands);
        for one in callers {
            match runtime.block_on(one) {
                Ok(part) => latencies.extend(part),
                Err(error) => unreachable!("a caller ended: {error}"),
            }
        }
        latencies
    };
    Contender {
        name,
        share,
        turn: Box::new(turn),
    }
}

/// Runs a command so many times, all of which must deliver the value.
macro_rules! times {
    ($each:expr, $command:expr) => {{
        let mut latencies = Vec::with_capacity($each);
        for _ in 0..$each {
            let begun = Instant::now();
            let value: Vec<u8> = $command.await.unwrap_or_default();
            assert_eq!(value.len(), VALUE.len());
            latencies.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        latencies
    }};
}

fn get() -> redis::Cmd {
    let mut get = redis::cmd("GET");
    get.arg("k");
    get
}

fn gets(runtime: &Runtime, stand: &Stand, callers: usize, commands: usize) {
    let ours = contender(runtime, "tower-keep", 1, |each| {
        let pool = stand.ours.clone();
        async move { times!(each, pool.run(&Command::new("GET").key("k"))) }
    });
    let bare = contender(runtime, "bare", 1, |each| {
        let mut connection = stand.bare.clone();
        async move { times!(each, get().query_async(&mut connection)) }
    });
    let checkout = contender(runtime, "deadpool-redis-2", 10, |each| {
        let pool = stand.checkout.clone();
        async move {
            times!(each, async {
                match pool.get().await {
                    Ok(mut connection) => get().query_async(&mut connection).await.ok(),
                    Err(_) => None,
                }
            })
        }
    });
    compare(
        &format!("store/get-{callers}"),
        callers,
        commands,
        vec![ours, bare, checkout],
    );
}

fn scripts(runtime: &Runtime, stand: &Stand) {
    let ours = contender(runtime, "tower-keep", 1, |each| {
        let pool = stand.ours.clone();
        async move { times!(each, pool.call(&Call::new(&READ).key("k"))) }
    });
    let raw = |name: &'static str, target: &str| {
        let target = target.to_owned();
        contender(runtime, name, 1, move |each| {
            let (mut connection, target) = (stand.bare.clone(), target.clone());
            async move {
                times!(each, async {
                    let mut call = redis::cmd(name);
                    call.arg(&target).arg(1).arg("k");
                    call.query_async(&mut connection).await.ok()
                })
            }
        })
    };
    let (fcall, evalsha) = (raw("FCALL", "peer_read"), raw("EVALSHA", &stand.sha));
    compare("store/script-64", 64, 60_000, vec![ours, fcall, evalsha]);
}

/// Median of the rounds: nanoseconds for one command, and its latency in the middle and at the end.
struct Row {
    name: &'static str,
    each: f64,
    p50: f64,
    p99: f64,
}

pub(crate) fn compare(
    case: &str,
    callers: usize,
    commands: usize,
    mut contenders: Vec<Contender<'_>>,
) {
    let mut rounds: Vec<Vec<[f64; 3]>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..=ROUNDS {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let contender = &mut contenders[index];
            let begun = Instant::now();
            let mut latencies = (contender.turn)(callers, commands / contender.share);
            let took = begun.elapsed();
            // The first round warms up.
            if round > 0 {
                rounds[index].push(figures(took, &mut latencies));
            }
        }
    }
    let rows: Vec<Row> = contenders
        .iter()
        .zip(&rounds)
        .map(|(contender, rounds)| {
            let middle = |at: usize| median(rounds.iter().map(|figures| figures[at]).collect());
            Row {
                name: contender.name,
                each: middle(0),
                p50: middle(1),
                p99: middle(2),
            }
        })
        .collect();
    print(case, callers, &rows);
}

fn figures(took: Duration, latencies: &mut [u32]) -> [f64; 3] {
    latencies.sort_unstable();
    let at = |part: usize| latencies[(latencies.len() - 1) * part / 100];
    let each = took.as_nanos() as f64 / latencies.len() as f64;
    [each, f64::from(at(50)), f64::from(at(99))]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(case: &str, callers: usize, rows: &[Row]) {
    println!("{case} ({callers} callers, medians of {ROUNDS} rounds, wall time)");
    println!(
        "  {:<20}{:>14}{:>12}{:>12}{:>12}",
        "contender", "commands/s", "ns each", "p50 us", "p99 us"
    );
    for row in rows {
        let (rate, p50, p99) = (1e9 / row.each, row.p50 / 1e3, row.p99 / 1e3);
        println!(
            "  {:<20}{rate:>14.0}{:>12.0}{p50:>12.1}{p99:>12.1}",
            row.name, row.each
        );
    }
    let Some((ours, peers)) = rows.split_first() else {
        return;
    };
    for peer in peers {
        for (what, ours, theirs) in [("", ours.each, peer.each), ("-p99", ours.p99, peer.p99)] {
            let ratio = ours / theirs;
            println!(
                "RATIO {case}{what} ours={ours:.0} {}={theirs:.0} ratio={ratio:.3}",
                peer.name
            );
        }
    }
    println!();
}
