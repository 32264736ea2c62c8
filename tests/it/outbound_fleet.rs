//! Remote quotas of several instances over one real Redis, which comes, goes, and is lost.

use std::time::{Duration, Instant};

use tower_keep::outbound::{QuotaConfig, RemoteQuota, SCRIPTS};
use tower_keep::store::{Command, RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::outbound::{Api, Came, Quotaed, at_once, came, client, impatient, quota, until};
use crate::redis::{TestCluster, TestRedis};

const MINUTE: Duration = Duration::from_secs(60);

/// One instance of a service. Dropping it is killing it: nothing is said or given back.
struct Instance {
    quota: RemoteQuota,
    client: Quotaed,
    pool: RedisPool,
    _tasks: Tasks,
}

impl Instance {
    /// One that has not reached Redis yet, and may never.
    fn beside(redis: &RedisConfig, config: &QuotaConfig) -> Self {
        let tasks = Tasks::new().unwrap();
        let parts = StoreParts {
            scripts: SCRIPTS.to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let pool = RedisPool::new(redis, &parts).unwrap();
        let quota = quota(config).share(&pool, &tasks.spawner());
        Self {
            client: client(&quota),
            quota,
            pool,
            _tasks: tasks,
        }
    }

    async fn with(redis: &RedisConfig, config: &QuotaConfig) -> Self {
        let instance = Self::beside(redis, config);
        crate::store::until_up(&instance.pool).await;
        instance
    }

    async fn at(server: &TestRedis) -> Self {
        Self::with(&patient(server), &impatient()).await
    }

    async fn came(&self, api: &Api) -> Came {
        came(&self.client, api).await
    }

    /// The first request, whose answer brings the quota; returns when it is in Redis.
    async fn begins(&self, api: &Api) {
        assert_eq!(self.came(api).await, Came::Back(200));
        self.until_told(api, "").await;
    }

    /// Returns when Redis knows that so many are left of the remote's window.
    async fn until_told(&self, api: &Api, left: &str) {
        let key = self
            .pool
            .key(format_args!("{{outbound}}:at:{}", api.name()));
        let window = Command::new("HGET").key(key).arg("wall");
        for _ in 0..2_000 {
            let told: Option<String> = self.pool.run(&window).await.unwrap();
            if told.is_some_and(|told| told.starts_with(left)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it was never told");
    }

    fn is_blocked(&self, api: &Api) -> bool {
        let standing = self.quota.standing(&api.name());
        standing.is_some_and(|standing| standing.blocked_for.is_some())
    }
}

fn patient(server: &TestRedis) -> RedisConfig {
    crate::store::patient(&server.url())
}

fn clients(instances: &[Instance]) -> Vec<Quotaed> {
    let clients = instances.iter().map(|instance| instance.client.clone());
    clients.collect()
}

/// The commands that Redis has carried out so far, but for those that ask and those of the heartbeat.
fn calls(server: &TestRedis) -> u64 {
    let stats = server.raw().command(&["INFO", "commandstats"]);
    let calls = stats.line("cmdstat_fcall").unwrap_or_default();
    let calls = calls.split([',', '=']).nth(1).map(str::parse);
    calls.map_or(0, Result::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_is_told_the_others_know_at_once_and_late_comers_too() {
    let server = TestRedis::start();
    let api = Api::saying(200, &[]).await;
    let [one, other] = [Instance::at(&server).await, Instance::at(&server).await];
    for instance in [&one, &other] {
        assert_eq!(instance.came(&api).await, Came::Back(200));
    }
    api.says(429, &[("retry-after", "60")]);
    assert_eq!(one.came(&api).await, Came::Back(429));
    until("the other has heard", || other.is_blocked(&api)).await;
    assert_eq!(other.came(&api).await, Came::Refused);
    // Nobody tells this one; it looks.
    let late = Instance::at(&server).await;
    assert_eq!(late.came(&api).await, Came::Refused);
    assert_eq!(api.counts().0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_instances_send_what_is_left_and_not_four_times_that() {
    let server = TestRedis::start();
    let api = Api::start(50, MINUTE).await;
    let mut fleet = Vec::new();
    for _ in 0..4 {
        fleet.push(Instance::at(&server).await);
    }
    fleet[0].begins(&api).await;
    let served = at_once(&clients(&fleet), &api, 400).await;
    assert_eq!((served, api.counts()), (49, (50, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_after_the_other_is_used_up_by_all_together() {
    let server = TestRedis::start();
    let api = Api::start(20, Duration::from_secs(1)).await;
    let config = QuotaConfig {
        wait_max: Duration::from_secs(30),
        ..QuotaConfig::default()
    };
    let mut fleet = Vec::new();
    for _ in 0..3 {
        fleet.push(Instance::with(&patient(&server), &config).await);
    }
    fleet[0].begins(&api).await;
    let began = Instant::now();
    assert_eq!(at_once(&clients(&fleet), &api, 99).await, 99);
    assert_eq!(api.counts(), (100, 0));
    // Five windows are enough by the remote's count; some more, because ends are scattered and rounded.
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_tells_nothing_costs_redis_one_call_and_a_busy_one_few() {
    let server = TestRedis::start();
    let instance = Instance::at(&server).await;
    let silent = Api::saying(200, &[]).await;
    for _ in 0..300 {
        assert_eq!(instance.came(&silent).await, Came::Back(200));
    }
    let quiet = calls(&server);
    // And another one if the channel was joined after the first.
    assert!((1..=2).contains(&quiet), "{quiet} calls for 300 requests");
    let busy = Api::start(10_000, MINUTE).await;
    for _ in 0..500 {
        assert_eq!(instance.came(&busy).await, Came::Back(200));
    }
    let calls = calls(&server) - quiet;
    assert!(calls < 500 / 10, "{calls} calls for 500 requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_instance_held_comes_back() {
    let server = TestRedis::start();
    let api = Api::start(10, MINUTE).await;
    let config = QuotaConfig {
        wait_max: Duration::from_secs(30),
        ..QuotaConfig::default()
    };
    let killed = Instance::at(&server).await;
    let lives = Instance::with(&patient(&server), &config).await;
    killed.begins(&api).await;
    // It takes all that is left, and is killed before any of it has reached the remote.
    let mut under_way = Vec::new();
    for _ in 0..9 {
        under_way.push(killed.quota.ask(&api.name()).granted().await.unwrap());
    }
    drop(killed);
    let began = Instant::now();
    assert_eq!(lives.came(&api).await, Came::Back(200));
    // For as long as it may just be slow, and not for the whole minute.
    let held = Duration::from_secs(9)..Duration::from_secs(20);
    assert!(held.contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(at_once(&[lives.client.clone()], &api, 8).await, 8);
    assert_eq!(api.counts(), (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_holds_nobody_up_and_what_was_learned_meanwhile_is_told_when_it_is_back() {
    let server = TestRedis::start();
    let api = Api::start(40, MINUTE).await;
    let redis = RedisConfig {
        command_timeout: Duration::from_millis(50),
        ..patient(&server)
    };
    let [one, other] = [
        Instance::with(&redis, &impatient()).await,
        Instance::with(&redis, &impatient()).await,
    ];
    assert_eq!(one.came(&api).await, Came::Back(200));
    assert_eq!(other.came(&api).await, Came::Back(200));
    server.kill();
    for _ in 0..5 {
        for instance in [&other, &one] {
            let began = Instant::now();
            assert_eq!(instance.came(&api).await, Came::Back(200));
            assert!(began.elapsed() < Duration::from_secs(2));
        }
    }
    // Each counts for itself by the remote's words, which count for all; this one has heard the last.
    let alone = at_once(std::slice::from_ref(&one.client), &api, 100).await;
    assert_eq!((alone, api.counts()), (28, (40, 0)));
    assert_eq!(one.came(&api).await, Came::Refused);
    server.restart();
    crate::store::until_up(&one.pool).await;
    crate::store::until_up(&other.pool).await;
    // What was learned alone is told.
    one.until_told(&api, "0 ").await;
    let late = Instance::at(&server).await;
    assert_eq!(late.came(&api).await, Came::Refused);
    assert_eq!(other.came(&api).await, Came::Refused);
    assert_eq!(api.counts(), (40, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_holds_up_one_request_and_not_the_next() {
    let server = TestRedis::start();
    let api = Api::start(1000, MINUTE).await;
    let redis = RedisConfig {
        command_timeout: Duration::from_millis(100),
        ..patient(&server)
    };
    let config = QuotaConfig::default();
    let instance = Instance::with(&redis, &config).await;
    assert_eq!(instance.came(&api).await, Came::Back(200));
    server.stop();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(instance.came(&api).await, Came::Back(200));
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    server.cont();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_redis_that_answers_nobody_waits_for_one() {
    let nobody = crate::store::settings("redis://127.0.0.1:1");
    let api = Api::start(3, MINUTE).await;
    let instance = Instance::beside(&nobody, &impatient());
    assert_eq!(instance.came(&api).await, Came::Back(200));
    let served = at_once(std::slice::from_ref(&instance.client), &api, 50).await;
    assert_eq!((served, api.counts()), (2, (3, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_does_it_as_well() {
    let cluster = TestCluster::start();
    let redis = crate::store::patient(&cluster.url());
    let api = Api::start(30, MINUTE).await;
    let fleet = [
        Instance::with(&redis, &impatient()).await,
        Instance::with(&redis, &impatient()).await,
    ];
    fleet[0].begins(&api).await;
    let served = at_once(&clients(&fleet), &api, 100).await;
    assert_eq!((served, api.counts()), (29, (30, 0)));
    let other = Api::saying(200, &[]).await;
    for instance in &fleet {
        assert_eq!(instance.came(&other).await, Came::Back(200));
    }
    other.says(503, &[("retry-after", "60")]);
    assert_eq!(fleet[1].came(&other).await, Came::Back(503));
    until("the first has heard", || fleet[0].is_blocked(&other)).await;
}
