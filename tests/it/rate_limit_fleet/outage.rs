//! Redis goes away in the middle, in several ways: still limited, nobody waits long, and when it is back
//! nobody gets a second burst.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tower_keep::rate_limit::{Decision, Mode, Quota, RateLimitConfig, Scope};

use super::passed::{Passed, micros, most_at_once, used};
use super::{Instance, SECOND, SLACK, TIMEOUT, at_once, brisk, only};
use crate::redis::TestRedis;
use crate::store::{patient, until};

const INSTANCES: u32 = 4;

/// Tasks that ask at the same time on each instance.
const TASKS: usize = 3;

const PER_SECOND: u32 = 200;
const BURST: u32 = 80;
const INTERVAL: u64 = 1_000_000 / PER_SECOND as u64;

fn config(mode: Mode, instances: Option<u32>) -> RateLimitConfig {
    let mut rule = at_once("hot", 1).mode(mode);
    rule.quota = Some(Quota::requests(PER_SECOND).per(SECOND).burst(BURST));
    RateLimitConfig {
        instances,
        ..only([rule])
    }
}

/// A fleet whose instances ask again and again whether a request may pass, and what has passed.
struct Crowd {
    instances: Vec<Arc<Instance>>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    passed: Mutex<Vec<Passed>>,
    longest: Mutex<Duration>,
    over: AtomicBool,
}

impl Crowd {
    /// Counts together when this returns, and asks.
    async fn start(server: &TestRedis, config: &RateLimitConfig) -> Self {
        let redis = brisk(&server.url());
        let mut instances = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(Arc::new(Instance::join(&redis, config).await));
        }
        let known = format!("shares: {INSTANCES}");
        for instance in &instances {
            until("it knows of all", || instance.says(&known)).await;
        }
        let seen = Arc::<Seen>::default();
        for instance in &instances {
            for _ in 0..TASKS {
                tokio::spawn(ask(Arc::clone(instance), Arc::clone(&seen)));
            }
        }
        Self { instances, seen }
    }

    fn count(&self) -> usize {
        self.seen.passed.lock().unwrap().len()
    }

    /// Goes on until as many have passed as the quota lets through in this time.
    async fn go_on(&self, time: Duration) {
        let enough = self.count() as f64 + 0.8 * f64::from(PER_SECOND) * time.as_secs_f64();
        until("so many pass", || self.count() as f64 >= enough).await;
    }

    async fn counts_alone(&self) {
        for instance in &self.instances {
            until("it counts alone", || instance.says("up: false")).await;
        }
    }

    async fn counts_together(&self) {
        for instance in &self.instances {
            instance.counts_together().await;
        }
    }

    fn end(self) -> (Vec<Passed>, Duration) {
        self.seen.over.store(true, Ordering::Relaxed);
        let passed = std::mem::take(&mut *self.seen.passed.lock().unwrap());
        (passed, *self.seen.longest.lock().unwrap())
    }
}

async fn ask(instance: Arc<Instance>, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::Relaxed) {
        let (asked, began) = (micros(), Instant::now());
        let decision = instance.ask("alice").await;
        let (answered, waited) = (micros(), began.elapsed());
        {
            let mut longest = seen.longest.lock().unwrap();
            *longest = (*longest).max(waited);
        }
        match decision {
            Decision::Allow(_) => {
                seen.passed.lock().unwrap().push(Passed { asked, answered });
                tokio::task::yield_now().await;
            }
            Decision::Deny(standing) => {
                let soon = Duration::from_millis(5);
                tokio::time::sleep(standing.retry_after().min(soon)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// How Redis goes away and comes back.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGSTOP and SIGCONT.
    Stopped,
    /// SIGKILL, and a server that has nothing.
    Lost,
    /// SIGKILL, and a server that has all that the first one had.
    Restarted,
}

async fn survive(fault: Fault, mode: Mode, instances: Option<u32>) {
    let server = match fault {
        Fault::Restarted => TestRedis::with(&["--appendonly", "yes", "--appendfsync", "always"]),
        Fault::Stopped | Fault::Lost => TestRedis::start(),
    };
    let crowd = Crowd::start(&server, &config(mode, instances)).await;
    crowd.go_on(SECOND).await;
    tokio::task::block_in_place(|| match fault {
        Fault::Stopped => server.stop(),
        Fault::Lost | Fault::Restarted => server.kill(),
    });
    crowd.counts_alone().await;
    let alone = micros();
    crowd.go_on(SECOND).await;
    tokio::task::block_in_place(|| match fault {
        Fault::Stopped => server.cont(),
        Fault::Lost | Fault::Restarted => server.restart(),
    });
    crowd.counts_together().await;
    let back = micros();
    crowd.go_on(SECOND * 2).await;
    let (passed, longest) = crowd.end();
    let most = most_at_once(&passed, INTERVAL);
    let part = used(&passed, INTERVAL, BURST.into());
    let meanwhile = passed
        .iter()
        .filter(|one| one.asked > alone && one.answered < back);
    let meanwhile = meanwhile.count();
    let told = format!(
        "{fault:?}, {mode:?}, {instances:?}: {} passed, {meanwhile} of them alone in {} ms, \
         {most} at once, {part:.3} used, {longest:?} waited",
        passed.len(),
        (back - alone) / 1000,
    );
    eprintln!("{told}");
    // Each may have heard of the bucket for the last time before others were granted their last ones.
    let not_yet_heard = u64::from(INSTANCES);
    assert!(most <= u64::from(BURST) + not_yet_heard, "{told}");
    assert!(longest < 2 * TIMEOUT + SLACK, "{told}");
    assert!(part > 0.6, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server() {
    survive(Fault::Stopped, Mode::Exact, Some(INSTANCES)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_without_its_data() {
    survive(Fault::Lost, Mode::Exact, Some(INSTANCES)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_with_its_data() {
    survive(Fault::Restarted, Mode::Exact, Some(INSTANCES)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_count_each_other() {
    survive(Fault::Lost, Mode::Exact, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_leases() {
    survive(Fault::Lost, Mode::Leased, Some(INSTANCES)).await;
}

/// A server that is there and says no to every question, as one whose memory is full does.
async fn refuse(server: &TestRedis) {
    let mut raw = server.raw();
    raw.must(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    raw.must(&["CONFIG", "SET", "maxmemory", "1"]);
}

/// Each caller has a question of its own, and all of them share a bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_everybody() {
    let server = TestRedis::start();
    let all = at_once("all", 100).scope(Scope::Global);
    let config = RateLimitConfig {
        instances: Some(INSTANCES),
        ..only([all, at_once("each", 1000)])
    };
    let instance = Arc::new(Instance::join(&patient(&server.url()), &config).await);
    refuse(&server).await;
    let callers = (0..100).map(|caller| {
        let instance = Arc::clone(&instance);
        tokio::spawn(async move { instance.count(&format!("caller{caller}"), 20).await })
    });
    let mut passed = 0;
    for caller in callers.collect::<Vec<_>>() {
        passed += caller.await.unwrap();
    }
    let stats = server.raw().must(&["INFO", "errorstats"]);
    assert!(stats.line("errorstat_OOM").is_some(), "nobody was refused");
    assert_eq!(passed, 100 / INSTANCES as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_quota_in_the_middle_of_an_outage_is_no_fresh_share() {
    let server = TestRedis::start();
    let config = |requests| RateLimitConfig {
        instances: Some(INSTANCES),
        ..only([at_once("r", requests)])
    };
    let instance = Instance::join(&patient(&server.url()), &config(80)).await;
    tokio::task::block_in_place(|| server.kill());
    until("it counts alone", || instance.says("up: false")).await;
    assert_eq!(instance.count("alice", 100).await, 20);
    instance.limiter.reconfigure(&config(120)).unwrap();
    assert_eq!(instance.count("alice", 100).await, 0);
    instance.limiter.reconfigure(&only_of(&config(1))).unwrap();
    instance.limiter.reconfigure(&config(40)).unwrap();
    assert_eq!(instance.count("alice", 100).await, 0);
    tokio::task::block_in_place(|| server.restart());
    instance.counts_together().await;
    // The server has lost everything but what it is told: a quarter of it was used up, and a little more.
    let mut passed = 0;
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        passed += instance.count("alice", 100).await;
        if passed >= 29 {
            break;
        }
    }
    passed += instance.count("alice", 100).await;
    assert!((29..=30).contains(&passed), "{passed}");
}

/// The same without its rules.
fn only_of(config: &RateLimitConfig) -> RateLimitConfig {
    RateLimitConfig {
        rules: vec![at_once("other", 1)],
        ..config.clone()
    }
}
