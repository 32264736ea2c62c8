//! Decisions of a fleet, through a Redis server of its own.
//!
//! Wall time, because most of the work is another process', and commands as the server has counted them.
//! `five_rules` is a request of which five rules speak, asked about at once or rule by rule; `hot_key` is a
//! client that comes over and over, one request after the other: counted exactly, by leases, or refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Request;
use tokio::runtime::Builder;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::identity::{PeerAddr, RequestView};
use tower_keep::rate_limit::{
    Decision, Mode, Quota, RateLimitConfig, RateLimitParts, RateLimiter, Rule, RuleLimiter, Scope,
};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use super::goal;
use crate::Failure;
use crate::measure::{Bench, ROUNDS, median};
use crate::test_redis::TestRedis;

/// Requests of a turn.
const REQUESTS: usize = 1_000;
/// Requests of the hot key.
const HOT: usize = 20_000;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 0, 113, 7));
const RULES: [&str; 5] = ["one", "two", "three", "four", "five"];

const ENDLESS: Quota = Quota::requests(500_000).per(Duration::from_secs(1));
const SPENT: Quota = Quota::requests(1).per(Duration::from_secs(86_400));

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    let server = TestRedis::start();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        five_rules(&server).await?;
        hot_key(&server).await
    })
}

async fn five_rules(server: &TestRedis) -> Result<(), Failure> {
    let case = "rate_limit/redis_five_rules";
    let rules = RULES.map(|name| Rule::new(name, ENDLESS));
    let fleet = Fleet::new(server, rules.to_vec()).await?;
    let rules = RULES.iter().map(|name| fleet.rule(name));
    let each_rule: Vec<RuleLimiter> = rules.collect::<Result<_, _>>()?;
    let mut request = Request::new(());
    let peer = PeerAddr(SocketAddr::new(CLIENT, 50_000));
    request.extensions_mut().insert(peer);
    let (mut at_once, mut one_by_one) = (Vec::new(), Vec::new());
    let mut commands = (0, 0);
    for _ in 0..ROUNDS {
        let (before, begun) = (fleet.commands(server), Instant::now());
        for _ in 0..REQUESTS {
            allowed(fleet.limiter.check(&RequestView::of(&request)).await)?;
        }
        at_once.push(each(begun, REQUESTS));
        commands.0 += fleet.commands(server) - before;
        let (before, begun) = (fleet.commands(server), Instant::now());
        for _ in 0..REQUESTS {
            for rule in &each_rule {
                allowed(rule.check_ip(CLIENT, 1).await)?;
            }
        }
        one_by_one.push(each(begun, REQUESTS));
        commands.1 += fleet.commands(server) - before;
    }
    let asked = (ROUNDS * REQUESTS) as f64;
    let commands = (commands.0 as f64 / asked, commands.1 as f64 / asked);
    let ratios = one_by_one
        .iter()
        .zip(&at_once)
        .map(|(five, one)| five / one);
    let gain = median(ratios.collect());
    let (one, five) = (median(at_once), median(one_by_one));
    println!("{case} ({REQUESTS} requests a round, medians of {ROUNDS}, wall time)");
    println!("  at once     {one:>10.0} ns {:>8.3} commands", commands.0);
    println!("  one by one  {five:>10.0} ns {:>8.3} commands", commands.1);
    // Whoever is part of a fleet says so now and then.
    goal::at_most(case, "commands", commands.0, 1.01);
    goal::at_least(case, "one_by_one/at_once", gain, 2.5);
    println!();
    Ok(())
}

async fn hot_key(server: &TestRedis) -> Result<(), Failure> {
    let case = "rate_limit/redis_hot_key";
    let rules = vec![
        Rule::new("exact", ENDLESS).scope(Scope::Ip),
        Rule::new("leased", ENDLESS)
            .scope(Scope::Ip)
            .mode(Mode::Leased),
        Rule::new("spent", SPENT).scope(Scope::Ip),
    ];
    let fleet = Fleet::new(server, rules).await?;
    println!("{case} ({HOT} requests of one client, wall time)");
    let mut commands = Vec::new();
    for (rule, may_pass) in [("exact", true), ("leased", true), ("spent", false)] {
        let limiter = fleet.rule(rule)?;
        // The one that is left, or the first of many.
        let _ = limiter.check_ip(CLIENT, 1).await;
        let (before, begun) = (fleet.commands(server), Instant::now());
        for _ in 0..HOT {
            let decision = limiter.check_ip(CLIENT, 1).await;
            if decision.is_some_and(|decision| decision.is_allow()) != may_pass {
                return Err(format!("{rule} has decided otherwise").into());
            }
        }
        let (took, sent) = (each(begun, HOT), fleet.commands(server) - before);
        println!("  {rule:<10}{took:>12.0} ns {sent:>10} commands");
        commands.push(sent as f64);
    }
    goal::at_least(
        case,
        "exact/leased",
        commands[0] / commands[1].max(1.0),
        20.0,
    );
    goal::at_most(case, "commands_per_denial", commands[2] / HOT as f64, 0.001);
    println!();
    Ok(())
}

fn each(begun: Instant, count: usize) -> f64 {
    begun.elapsed().as_nanos() as f64 / count as f64
}

fn allowed(decision: Option<Decision>) -> Result<(), Failure> {
    match decision {
        Some(decision) if decision.is_allow() => Ok(()),
        other => Err(format!("not let through: {other:?}").into()),
    }
}

/// An instance that counts through the server.
struct Fleet {
    limiter: RateLimiter,
    /// Keeps the connection alive.
    _tasks: Tasks,
}

impl Fleet {
    async fn new(server: &TestRedis, rules: Vec<Rule>) -> Result<Self, Failure> {
        let tasks = Tasks::new()?;
        let first = rules.first().map(|rule| rule.name.clone());
        let first = first.unwrap_or_default();
        let config = RedisConfig {
            url: Some(server.url()),
            ..RedisConfig::default()
        };
        let parts = StoreParts {
            scripts: RateLimiter::scripts().to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let redis = RedisPool::new(&config, &parts)?;
        let config = RateLimitConfig {
            default_rule: false,
            rules,
            ..RateLimitConfig::default()
        };
        let parts = RateLimitParts {
            clock: Clock::system(),
            events: Events::none(),
            redis: redis.clone(),
            spawner: tasks.spawner(),
        };
        let limiter = RateLimiter::shared(&config, &[], parts)?;
        redis.watch().until_up().await;
        let fleet = Self {
            limiter,
            _tasks: tasks,
        };
        fleet.until_together(server, &first).await?;
        Ok(fleet)
    }

    fn rule(&self, name: &str) -> Result<RuleLimiter, Failure> {
        Ok(self.limiter.rule(name).ok_or("no such rule")?)
    }

    /// Waits until decisions are made in Redis.
    async fn until_together(&self, server: &TestRedis, rule: &str) -> Result<(), Failure> {
        let rule = self.rule(rule)?;
        for _ in 0..500 {
            let before = self.commands(server);
            for _ in 0..10 {
                let _ = rule.check_ip(CLIENT, 1).await;
            }
            if self.commands(server) >= before + 10 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("decisions are never made in Redis".into())
    }

    /// How many scripts the server has run.
    fn commands(&self, server: &TestRedis) -> u64 {
        let stats = server.raw().must(&["INFO", "commandstats"]).text();
        let calls = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let runs = matches!(name, "fcall" | "fcall_ro" | "evalsha" | "eval");
            let (calls, _) = figures.split_once(',')?;
            runs.then(|| calls.parse::<u64>().ok()).flatten()
        };
        stats.lines().filter_map(calls).sum()
    }
}
