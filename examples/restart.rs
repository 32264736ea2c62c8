//! One of four instances is restarted: how soon does its memory answer again, and what does the origin notice?
//!
//! ```text
//! cargo run --release --example restart -- [--rate 5000] [--capacity-mb 8] [--hot-keys 4096]
//! ```
//!
//! Four processes of this program share a Redis; each is asked for `--rate` of 100,000 keys a second, by Zipf's
//! law with exponent 1, and has memory for some of them. The hottest `--hot-keys` are remembered in Redis. When
//! all keys have been computed and the share that memory answers does not change any more, one process is killed
//! and started anew. What its first two seconds are like is compared
//! with the last seconds of its predecessor, and with a process that finds nothing in Redis.
//!
//! The goals: within 2 s memory answers 90 % of what it did, and the origin is asked for 1 % of what a
//! cold start asks for. The exit code tells whether they were met.
//!
//! It starts a `redis-server` of its own, or takes the one at `REDIS_URL`.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "it uses a part of what tests and examples share"
)]

#[path = "processes/processes.rs"]
mod processes;
#[path = "../tests/it/redis/mod.rs"]
mod redis;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_keep::clock::Clock;
use tower_keep::tiers::{CacheStats, EntryOptions, TypedCache};
use tower_keep::{Keep, Profile};

use processes::Processes;

type Failure = Box<dyn Error>;

const INSTANCES: usize = 4;
const KEYS: usize = 100_000;
/// How large a value is, in bytes.
const VALUE: usize = 200;
/// How long the origin takes.
const TAKES: Duration = Duration::from_millis(2);
/// How often an instance tells what it has done.
const TELLS_EVERY: Duration = Duration::from_millis(250);
/// Between two bunches of requests.
const TICK: Duration = Duration::from_millis(5);
/// So many of these are what is looked at after a restart: 2 s.
const LOOKS: usize = 8;
/// It is steady when memory's share changes by less than this from 2 s to 2 s.
const STEADY: f64 = 0.003;
/// If it is not by then, so be it: 2 s each.
const TRIES_MAX: usize = 40;
/// Requests under way before the start, to have all keys computed.
const AT_ONCE: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    if let Some(orders) = processes::orders() {
        serve(&orders).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut rate, mut capacity_mb, mut hot_keys) = (5_000_u64, 8_u64, 4_096_u64);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default().parse()?;
        match word.as_str() {
            "--rate" => rate = value,
            "--capacity-mb" => capacity_mb = value,
            "--hot-keys" => hot_keys = value,
            _ => return Err("restart [--rate 5000] [--capacity-mb 8] [--hot-keys 4096]".into()),
        }
    }
    let (url, _server) = match std::env::var("REDIS_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = redis::TestRedis::start();
            (server.url(), Some(server))
        }
    };
    // Another run may have left its entries there.
    let run = std::process::id();
    let orders = |cache: &str, part: usize| {
        format!("{url} {cache}-{run} {part} {rate} {capacity_mb} {hot_keys}")
    };
    println!(
        "{INSTANCES} instances, {rate} requests/s each, {KEYS} keys, {capacity_mb} MiB of memory, \
         {hot_keys} hot keys remembered"
    );

    let mut alone = Processes::new();
    let number = alone.start(&orders("nothing", INSTANCES))?;
    let cold = Look::first(&alone, number)?;
    drop(alone);
    println!("cold start, 2 s:     {}", cold.whole.text());

    let mut instances = Processes::new();
    for part in 0..INSTANCES {
        instances.start(&orders("item", part))?;
    }
    let steady = steady(&instances)?;
    println!("steady, 2 s:         {}", steady.text());
    instances.kill(0)?;
    let number = instances.start(&orders("item", INSTANCES))?;
    let again = Look::first(&instances, number)?;
    println!("restarted, 2 s:      {}", again.whole.text());
    println!("its last 250 ms:     {}", again.last.text());

    let hot = again.last.hot_share() / steady.hot_share();
    let origin = again.whole.computed as f64 / cold.whole.computed.max(1) as f64;
    println!(
        "memory answers {:.1} % of what it did (goal: 90 %)",
        hot * 100.0
    );
    println!(
        "the origin is asked for {:.2} % of a cold start's calls (goal: 1 %)",
        origin * 100.0
    );
    let good = hot >= 0.9 && origin <= 0.01;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What an instance has done.
#[derive(Clone, Copy, Default)]
struct Done {
    requests: u64,
    hot: u64,
    warm: u64,
    computed: u64,
}

impl Done {
    fn read(line: &str) -> Result<Self, Failure> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let Ok([requests, hot, warm, computed]) = <[u64; 4]>::try_from(numbers?) else {
            return Err(format!("four numbers, not: {line}").into());
        };
        Ok(Self {
            requests,
            hot,
            warm,
            computed,
        })
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            hot: self.hot - earlier.hot,
            warm: self.warm - earlier.warm,
            computed: self.computed - earlier.computed,
        }
    }

    fn hot_share(self) -> f64 {
        self.hot as f64 / self.requests.max(1) as f64
    }

    fn text(self) -> String {
        format!(
            "{:>6} requests, {:.1} % from memory, {} from Redis, {} computed",
            self.requests,
            self.hot_share() * 100.0,
            self.warm,
            self.computed
        )
    }
}

/// The first two seconds of an instance.
struct Look {
    whole: Done,
    last: Done,
}

impl Look {
    fn first(instances: &Processes, number: usize) -> Result<Self, Failure> {
        let (mut before, mut done) = (Done::default(), Done::default());
        for _ in 0..LOOKS {
            before = done;
            done = Done::read(&instances.hear_of(number)?)?;
        }
        let last = done.since(before);
        Ok(Self { whole: done, last })
    }
}

/// The last two seconds of the first instance, when it is like the two before.
fn steady(instances: &Processes) -> Result<Done, Failure> {
    let (mut done, mut share) = (Done::default(), 0.0);
    let mut last = Done::default();
    for _ in 0..TRIES_MAX {
        let before = done;
        for _ in 0..LOOKS {
            done = Done::read(&instances.hear_of(0)?)?;
        }
        last = done.since(before);
        if (last.hot_share() - share).abs() < STEADY && last.computed == 0 {
            break;
        }
        share = last.hot_share();
    }
    Ok(last)
}

/// One instance. Its orders: Redis, the cache's name, the part of the keys that it has computed before it begins
/// (or none, where there is no such part), the rate, the capacity.
async fn serve(orders: &str) -> Result<(), Failure> {
    let orders: Vec<&str> = orders.split(' ').collect();
    let [url, name, part, rate, capacity_mb, hot_keys] = orders.as_slice() else {
        return Err("six words".into());
    };
    let (part, rate, capacity_mb): (usize, u64, u64) =
        (part.parse()?, rate.parse()?, capacity_mb.parse()?);
    let hot_keys: usize = hot_keys.parse()?;
    let _told = processes::told();
    let builder = Keep::builder(Profile::development())
        .tiers(|tiers| {
            tiers.capacity_bytes = capacity_mb << 20;
            tiers.value_bytes_max = 64 << 10;
            tiers.tenant_bytes_max = capacity_mb << 20;
        })
        .warming(|warming| {
            (warming.keys_max, warming.boot_keys_max) = (hot_keys, hot_keys);
            // Nobody waits for half a minute here.
            warming.save_every = Duration::from_secs(2);
        });
    let keep = processes::instance(builder, url).await?;
    let cache = keep
        .cache::<String>(name)
        .options(EntryOptions::new().ttl(Duration::from_secs(3_600)));
    if part < INSTANCES {
        fill(&cache, part).await;
    }
    let clock = Clock::system();
    let (zipf, begun, before) = (Zipf::new(), clock.now(), cache.stats());
    let (mut requests, mut told) = (0, Duration::ZERO);
    let mut chance = u64::from(std::process::id());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut slow = JoinSet::new();
    loop {
        tick.tick().await;
        let now = clock.now().since(begun);
        let due = u64::try_from(now.as_micros())? * rate / 1_000_000;
        while requests < due && slow.len() < BACKLOG_MAX {
            requests += 1;
            let asked = cache.get_or_compute(zipf.key(&mut chance), &EntryOptions::new(), compute);
            slow.spawn(async move { asked.await.is_ok() });
        }
        while slow.try_join_next().is_some() {}
        if now >= told + TELLS_EVERY {
            told += TELLS_EVERY;
            tell(requests, &before, &cache.stats());
        }
    }
}

/// More requests than this are not under way; those that are due begin later.
const BACKLOG_MAX: usize = 2_000;

fn tell(requests: u64, before: &CacheStats, now: &CacheStats) {
    let (hot, warm) = (
        now.hits_hot - before.hits_hot,
        now.hits_warm - before.hits_warm,
    );
    println!("{requests} {hot} {warm} {}", now.computed - before.computed);
}

/// Has a part of all keys computed, in an order that leaves the frequent ones in memory.
async fn fill(cache: &TypedCache<String>, part: usize) {
    let mut under_way = JoinSet::new();
    for key in (0..KEYS).rev().filter(|key| key % INSTANCES == part) {
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        let asked = cache.get_or_compute(key as u64, &EntryOptions::new(), compute);
        under_way.spawn(async move { asked.await.is_ok() });
    }
    under_way.join_all().await;
}

async fn compute() -> Result<String, std::convert::Infallible> {
    tokio::time::sleep(TAKES).await;
    Ok("x".repeat(VALUE))
}

/// Key `k` is asked for as often as `1 / (k + 1)` says.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        let share = |key: usize| {
            sum += 1.0 / (key as f64 + 1.0);
            sum
        };
        Self((0..KEYS).map(share).collect())
    }

    /// By a SplitMix64 generator.
    fn key(&self, chance: &mut u64) -> u64 {
        *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let at = (mixed >> 11) as f64 / (1_u64 << 53) as f64 * self.0[KEYS - 1];
        self.0.partition_point(|sum| *sum <= at).min(KEYS - 1) as u64
    }
}
