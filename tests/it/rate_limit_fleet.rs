//! The limiter of a fleet against real servers, with real processes: what it promises together.

mod bans;
mod bucket;
mod hammer;
mod outage;
mod passed;
mod process;
mod settle;
mod thrift;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::identity::{Caller, RequestView};
use tower_keep::rate_limit::{
    Decision, Quota, RateLimitConfig, RateLimitParts, RateLimiter, Rule, Scope,
};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::redis::{Raw, TestRedis};
use crate::store::{patient, until, until_up};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// How long a [`brisk`] instance waits for Redis.
const TIMEOUT: Duration = Duration::from_millis(250);

/// What a machine with other things to do may add to the longest wait.
const SLACK: Duration = Duration::from_secs(2);

fn brisk(url: &str) -> RedisConfig {
    RedisConfig {
        command_timeout: TIMEOUT,
        ..patient(url)
    }
}

/// One of a fleet: a limiter, and what it stands on. Dropped, it is as if it had crashed.
struct Instance {
    limiter: RateLimiter,
    pool: RedisPool,
    tasks: Tasks,
}

impl Instance {
    /// Begins to connect.
    fn start(redis: &RedisConfig, config: &RateLimitConfig) -> Self {
        let tasks = Tasks::new().unwrap();
        let parts = StoreParts {
            scripts: RateLimiter::scripts().to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let pool = RedisPool::new(redis, &parts).unwrap();
        let parts = RateLimitParts {
            clock: Clock::system(),
            events: Events::none(),
            redis: pool.clone(),
            spawner: tasks.spawner(),
        };
        let limiter = RateLimiter::shared(config, &[], parts).unwrap();
        Self {
            limiter,
            pool,
            tasks,
        }
    }

    /// Counts together with the others when this returns.
    async fn join(redis: &RedisConfig, config: &RateLimitConfig) -> Self {
        let instance = Self::start(redis, config);
        instance.counts_together().await;
        instance
    }

    async fn counts_together(&self) {
        until_up(&self.pool).await;
        until("it counts together", || self.says("up: true")).await;
    }

    /// Whether this stands in what the limiter says of itself, which is the only way to look inside.
    fn says(&self, words: &str) -> bool {
        format!("{:?}", self.limiter).contains(words)
    }

    /// Decides about a request by `caller`.
    async fn ask(&self, caller: &str) -> Decision {
        let request = by(caller);
        let check = self.limiter.check(&RequestView::of(&request));
        check.await.expect("a rule speaks of it")
    }

    async fn passes(&self, caller: &str) -> bool {
        self.ask(caller).await.is_allow()
    }

    /// How many of up to `most` requests pass before one is refused.
    async fn count(&self, caller: &str, most: usize) -> usize {
        for passed in 0..most {
            if !self.passes(caller).await {
                return passed;
            }
        }
        most
    }
}

/// So many instances that nothing hurries.
async fn fleet(server: &TestRedis, count: usize, config: &RateLimitConfig) -> Vec<Arc<Instance>> {
    let redis = patient(&server.url());
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Arc::new(Instance::join(&redis, config).await));
    }
    all
}

fn by(caller: &str) -> Request<()> {
    let mut request = Request::get("/").body(()).unwrap();
    request.extensions_mut().insert(Caller::new(caller));
    request
}

/// Only these rules.
fn only(rules: impl IntoIterator<Item = Rule>) -> RateLimitConfig {
    RateLimitConfig {
        keys_max: 50_000,
        default_rule: false,
        rules: rules.into_iter().collect(),
        ..RateLimitConfig::default()
    }
}

/// So many per caller at once, of which none grows back while a test runs.
fn at_once(name: &str, requests: u32) -> Rule {
    let slow = Quota::requests(requests).per(HOUR * 24);
    Rule::new(name, slow).scope(Scope::Caller)
}

/// How many decisions a server was asked for since it was started or told to begin anew. Announcements are
/// calls as well, each of which adds one name to a set.
fn questions(raw: &mut Raw) -> u64 {
    let [fcall, evalsha, zadd] = calls(raw, ["fcall", "evalsha", "zadd"]);
    fcall + evalsha - zadd
}

/// How often each of these commands was called.
fn calls<const N: usize>(raw: &mut Raw, commands: [&str; N]) -> [u64; N] {
    let stats = raw.must(&["INFO", "commandstats"]);
    commands.map(|command| {
        let line = stats.line(&format!("cmdstat_{command}"));
        let calls = line.map(|line| {
            let calls = line.strip_prefix("calls=").expect("it begins so");
            let end = calls.find(',').unwrap_or(calls.len());
            calls[..end].parse().expect("a number")
        });
        calls.unwrap_or(0)
    })
}
