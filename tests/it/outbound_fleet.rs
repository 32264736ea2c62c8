//! Remote quotas of several instances over one real Redis, which comes, goes, and is lost.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tower_keep::clock::Clock;
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::outbound::{QuotaConfig, RemoteQuota, SCRIPTS};
use tower_keep::store::{Call, Command, RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::outbound::{Api, Came, Quotaed, at_once, came, client, impatient, quota, until};
use crate::redis::{TestCluster, TestRedis};

const MINUTE: Duration = Duration::from_secs(60);

/// One instance of a service. Dropping it is killing it: nothing is said or given back.
struct Instance {
    quota: RemoteQuota,
    client: Quotaed,
    pool: RedisPool,
    tasks: Tasks,
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
            tasks,
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
    assert_eq!(
        at_once(std::slice::from_ref(&lives.client), &api, 8).await,
        8
    );
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
async fn a_pool_that_does_not_know_the_script_is_told_of_once_and_not_waited_for() {
    let server = TestRedis::start();
    let tasks = Tasks::new().unwrap();
    let parts = StoreParts::new(tasks.spawner());
    let pool = RedisPool::new(&patient(&server), &parts).unwrap();
    crate::store::until_up(&pool).await;
    let heard = Arc::new(Warnings::default());
    let events = Events::to(vec![Arc::<Warnings>::clone(&heard)]);
    let quota = RemoteQuota::new(&impatient(), Clock::system(), events).unwrap();
    let client = client(&quota.share(&pool, &tasks.spawner()));
    for _ in 0..5 {
        let api = Api::saying(200, &[]).await;
        for _ in 0..5 {
            assert_eq!(came(&client, &api).await, Came::Back(200));
        }
    }
    let warnings = heard.0.lock().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("are not shared"), "{warnings:?}");
}

/// Writes down what operators are warned of.
#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

impl Recorder for Warnings {
    fn record(&self, event: &Event<'_>) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push((*text).to_owned());
        }
    }
}

#[tokio::test]
async fn after_shutdown_nobody_waits_for_who_would_ask() {
    let server = TestRedis::start();
    let instance = Instance::at(&server).await;
    let api = Api::start(5, MINUTE).await;
    instance.begins(&api).await;
    instance.tasks.shutdown(Duration::from_secs(5)).await;
    assert_eq!(instance.came(&api).await, Came::Back(200));
    let late = Api::saying(200, &[]).await;
    assert_eq!(instance.came(&late).await, Came::Back(200));
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

/// What the script is told, in its words: everything but the keys.
struct Says<'a> {
    instance: &'a str,
    held: u64,
    want: u64,
    ahead: u64,
    /// Milliseconds from now, or 0.
    block: u64,
    /// How long ago somebody has to have said that he holds something to be forgotten.
    hold: u64,
    /// Name, left, limit or -1, and from now: the end, and how long ago it was sent and heard.
    windows: &'a [(&'a str, u64, i64, u64, u64, u64)],
}

const NOTHING: Says<'_> = Says {
    instance: "one",
    held: 0,
    want: 0,
    ahead: 0,
    block: 0,
    hold: 10_000,
    windows: &[],
};

/// What the script answers.
#[derive(Debug)]
struct Said {
    granted: u64,
    blocked: bool,
    /// Name and what is left, by name.
    windows: Vec<(String, u64)>,
}

async fn say(pool: &RedisPool, remote: &str, says: Says<'_>) -> Said {
    let time: Vec<u64> = pool.run(&Command::new("TIME")).await.unwrap();
    let now = time[0] * 1000 + time[1] / 1000;
    let mut call = Call::new(SCRIPTS[0])
        .key(pool.key(format_args!("{{outbound}}:at:{remote}")))
        .key(pool.key("{outbound}:news"))
        .arg(says.instance)
        .arg(remote)
        .arg(says.held)
        .arg(says.want)
        .arg(says.ahead)
        .arg(if says.block > 0 { now + says.block } else { 0 })
        .arg(says.hold);
    for (name, left, limit, ends, sent, heard) in says.windows {
        call = call.arg(*name).arg(*left).arg(*limit);
        call = call.arg(now + ends).arg(now - sent).arg(now - heard);
    }
    let words: Vec<String> = pool.call(&call).await.unwrap();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let windows = words[3..].chunks(6);
    let mut windows: Vec<_> = windows
        .map(|window| (window[0].clone(), window[1].parse().unwrap()))
        .collect();
    windows.sort();
    Said {
        granted: number(1),
        blocked: number(2) > 0,
        windows,
    }
}

#[tokio::test]
async fn the_script_hands_out_what_is_left_and_less_ahead_than_to_whoever_waits() {
    let server = TestRedis::start();
    let instance = Instance::at(&server).await;
    let pool = &instance.pool;
    // Of an unknown remote everything is granted, and nothing is kept.
    let said = say(
        pool,
        "a",
        Says {
            want: 7,
            ahead: 3,
            ..NOTHING
        },
    )
    .await;
    assert_eq!((said.granted, said.windows.len()), (10, 0));
    let kept = ["EXISTS", "keep:{outbound}:at:a"];
    assert_eq!(server.raw().must(&kept).integer(), 0);
    let minute = &[("minute", 20, 100, 60_000, 20, 10)];
    for (instance, held, want, ahead, granted) in [
        // Ahead goes half of the rest, a fourth with two instances, and so on.
        ("one", 0, 4, 64, 4 + 16 / 2),
        ("two", 0, 4, 64, 4 + 4 / 4),
        ("three", 0, 0, 64, 3 / 6),
        ("three", 0, 9, 64, 3),
        ("four", 0, 9, 64, 0),
        // What is held no more is there for others, and what is held already counts once.
        ("one", 10, 0, 0, 0),
        ("four", 0, 9, 64, 2),
        ("four", 2, 9, 64, 0),
    ] {
        let windows = minute;
        let says = Says {
            instance,
            held,
            want,
            ahead,
            windows,
            ..NOTHING
        };
        let said = say(pool, "a", says).await;
        assert_eq!(said.granted, granted, "{instance} {held} {want}");
    }
    // They are gone by the server's clock, which only time moves.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let says = Says {
        instance: "five",
        want: 100,
        hold: 1,
        ..NOTHING
    };
    assert_eq!(say(pool, "a", says).await.granted, 20);
    let ttl = server
        .raw()
        .must(&["PTTL", "keep:{outbound}:at:a"])
        .integer();
    assert!((60_000..=120_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn the_script_believes_the_newer_word() {
    let server = TestRedis::start();
    let instance = Instance::at(&server).await;
    let minute = 60_000;
    for (left, ends, sent, heard, known) in [
        (5, minute, 5_000, 4_990, 5),
        // Sent before the last was heard: of the same window the lower one counts.
        (7, minute, 4_995, 4_980, 5),
        (4, minute, 4_994, 4_970, 4),
        // Sent after: it knows better.
        (9, minute, 4_900, 4_890, 9),
        // Heard before the last was even sent.
        (1, minute, 5_000, 4_970, 9),
        // Overlapping, but of the next window; and then of the last one.
        (50, minute + 3_000, 4_895, 4_800, 50),
        (0, minute, 4_895, 4_800, 50),
        // Over already when it is told.
        (0, 0, 10, 5, 50),
    ] {
        let windows = &[("w", left, -1, ends, sent, heard)];
        let said = say(&instance.pool, "a", Says { windows, ..NOTHING }).await;
        assert_eq!(said.windows, [("w".to_owned(), known)], "{left} {sent}");
    }
}

#[tokio::test]
async fn the_script_ends_windows_and_keeps_few() {
    let server = TestRedis::start();
    let instance = Instance::at(&server).await;
    let windows = &[("known", 0, 30, 40, 9, 8), ("unknown", 0, -1, 40, 9, 8)];
    let said = say(
        &instance.pool,
        "a",
        Says {
            want: 5,
            windows,
            ..NOTHING
        },
    )
    .await;
    assert_eq!((said.granted, said.windows.len()), (0, 2));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let said = say(
        &instance.pool,
        "a",
        Says {
            want: 50,
            ..NOTHING
        },
    )
    .await;
    assert_eq!(
        (said.granted, said.windows),
        (30, vec![("known".to_owned(), 30)])
    );
    // A remote makes up names.
    for name in 0..100 {
        let name = name.to_string();
        let windows = &[(&*name, 100 - name.len() as u64, -1, 60_000, 9, 8)];
        let said = say(&instance.pool, "b", Says { windows, ..NOTHING }).await;
        assert!(said.windows.len() <= 4);
    }
    assert!(
        server
            .raw()
            .must(&["HLEN", "keep:{outbound}:at:b"])
            .integer()
            <= 6
    );
}

#[tokio::test]
async fn the_scripts_block_beats_windows_and_the_longer_one_counts() {
    let server = TestRedis::start();
    let instance = Instance::at(&server).await;
    let windows = &[("w", 5, -1, 60_000, 9, 8)];
    say(&instance.pool, "a", Says { windows, ..NOTHING }).await;
    let mut ttl = 0;
    for (block, longer) in [(90_000, true), (30_000, false), (120_000, true)] {
        let said = say(
            &instance.pool,
            "a",
            Says {
                block,
                want: 3,
                ..NOTHING
            },
        )
        .await;
        assert!(said.blocked && said.granted == 0 && said.windows.is_empty());
        let now = server
            .raw()
            .must(&["PTTL", "keep:{outbound}:at:a"])
            .integer();
        assert_eq!(now > ttl, longer, "{block}");
        ttl = now;
    }
    let short = Says {
        block: 20,
        ..NOTHING
    };
    assert!(say(&instance.pool, "b", short).await.blocked);
    tokio::time::sleep(Duration::from_millis(30)).await;
    let said = say(&instance.pool, "b", Says { want: 3, ..NOTHING }).await;
    assert!(!said.blocked && said.granted == 3);
    assert_eq!(
        server
            .raw()
            .must(&["EXISTS", "keep:{outbound}:at:b"])
            .integer(),
        0
    );
}
