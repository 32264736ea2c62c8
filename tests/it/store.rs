//! The store against real servers: what it promises while all is well.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_keep::store::{
    Batch, Call, Command, DownKind, Push, PushSink, RedisConfig, RedisPool, RedisStatus, Script,
    StoreError, StoreParts,
};
use tower_keep::task::Tasks;

use crate::redis::TestRedis;

/// A pool with the owner of its tasks; dropping it closes every connection.
pub struct Store {
    pub pool: RedisPool,
    pub tasks: Tasks,
}

impl std::ops::Deref for Store {
    type Target = RedisPool;

    fn deref(&self) -> &RedisPool {
        &self.pool
    }
}

pub static ECHO: Script = Script::reading("echo", "return {keys[1], args[1], #args}");
pub static PUT: Script = Script::new(
    "put",
    "redis.call('SET', keys[1], args[1], 'PX', 60000) return redis.call('GET', keys[1])",
);
pub static TELL: Script = Script::new("tell", "return publish(keys[1], args[1])");

pub fn settings(url: &str) -> RedisConfig {
    RedisConfig {
        url: Some(url.to_owned()),
        command_timeout: Duration::from_millis(50),
        max_connections: 2,
        ..RedisConfig::default()
    }
}

/// For tests that measure nothing: a busy machine is no outage.
pub fn patient(url: &str) -> RedisConfig {
    RedisConfig {
        command_timeout: Duration::from_secs(5),
        bulk_timeout: Duration::from_secs(20),
        ..settings(url)
    }
}

pub fn open(config: &RedisConfig) -> Store {
    let tasks = Tasks::new().unwrap();
    let parts = StoreParts {
        scripts: vec![&ECHO, &PUT, &TELL],
        ..StoreParts::new(tasks.spawner())
    };
    Store {
        pool: RedisPool::new(config, &parts).unwrap(),
        tasks,
    }
}

pub async fn until_up(pool: &RedisPool) {
    let mut status = pool.watch();
    let up = tokio::time::timeout(Duration::from_secs(10), status.until_up()).await;
    assert!(up.is_ok_and(|up| up), "still {}", pool.status());
}

/// Looks again and again until it is so, or fails after ten seconds.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came true: {what}");
}

async fn up(server: &TestRedis) -> Store {
    let store = open(&patient(&server.url()));
    until_up(&store).await;
    store
}

fn get(key: impl AsRef<[u8]>) -> Command {
    Command::new("GET").key(key)
}

fn set(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Command {
    Command::new("SET").key(key).arg(value.as_ref())
}

#[tokio::test]
async fn commands_are_answered_over_one_connection() {
    let server = TestRedis::start();
    let store = up(&server).await;
    let key = store.key("a");
    assert_eq!(key, "keep:a");
    store.run::<()>(&set(&key, b"\0\xff")).await.unwrap();
    assert_eq!(store.run(&get(&key)).await, Ok(Some(vec![0_u8, 0xff])));
    assert_eq!(store.run(&get("nobody")).await, Ok(None::<String>));
    let many = (0..200).map(|n| {
        let pool = store.pool.clone();
        tokio::spawn(async move {
            pool.run::<u64>(&Command::new("INCRBY").key("n").arg(n))
                .await
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert_eq!(store.run(&get("n")).await, Ok(19_900_u64));
    assert_eq!(server.clients(), 1);
    let figures = store.figures();
    assert_eq!((figures.connections, figures.under_way), (1, 0));
    assert!(figures.server.unwrap().starts_with("redis "));
}

#[tokio::test]
async fn a_refusal_concerns_its_command_only() {
    let server = TestRedis::start();
    let store = up(&server).await;
    store.run::<()>(&set("text", "x")).await.unwrap();
    let batch = Batch::new()
        .command(get("text"))
        .command(Command::new("INCR").key("text"))
        .call(Call::new(&ECHO).key("k").arg("v"));
    let mut answers = store.run_all(&batch).await.unwrap();
    assert_eq!(answers.read(), Ok("x".to_owned()));
    let refused = answers.read::<i64>().unwrap_err();
    assert_eq!(refused.code(), Some("ERR"));
    assert!(!refused.may_have_run());
    assert_eq!(answers.read(), Ok(("k".to_owned(), "v".to_owned(), 1_i64)));
    assert!(answers.is_empty() && answers.read::<()>().is_err());
    let wrong = store.run::<i64>(&get("text")).await.unwrap_err();
    assert!(matches!(wrong, StoreError::Unreadable { .. }) && wrong.may_have_run());
    assert!(store.status().is_up());
}

#[tokio::test]
async fn what_would_change_the_connection_for_everybody_is_not_sent() {
    let server = TestRedis::start();
    let store = up(&server).await;
    for command in [Command::new("MULTI"), Command::new("SELECT").arg(3_u8)] {
        let unfit = store.run::<()>(&command).await.unwrap_err();
        assert!(matches!(unfit, StoreError::Unfit(_)), "{unfit}");
        let unfit = store.run_all(&Batch::new().command(command)).await;
        assert!(matches!(unfit.unwrap_err(), StoreError::Unfit(_)));
    }
    store.run::<()>(&set("a", "1")).await.unwrap();
    assert_eq!(store.run(&get("a")).await, Ok(1_i64));
}

#[tokio::test]
async fn scripts_that_the_server_has_lost_are_loaded_again_unseen() {
    let server = TestRedis::start();
    let store = up(&server).await;
    for flush in [
        ["FUNCTION", "FLUSH"],
        ["SCRIPT", "FLUSH"],
        ["FUNCTION", "FLUSH"],
    ] {
        server.raw().command(&flush);
        let calls = (0..64).map(|n| {
            let pool = store.pool.clone();
            tokio::spawn(async move {
                let key = format!("k{n}");
                let call = Call::new(&PUT).key(&key).arg(b"\0bin");
                let batch = Batch::new().command(set("plain", "1")).call(call.clone());
                let alone = pool.call::<Vec<u8>>(&call).await;
                let mut batched = pool.run_all(&batch).await.unwrap();
                batched.read::<()>().unwrap();
                (alone, batched.read::<Vec<u8>>())
            })
        });
        for call in calls.collect::<Vec<_>>() {
            let (alone, batched) = call.await.unwrap();
            assert_eq!(alone, Ok(b"\0bin".to_vec()));
            assert_eq!(batched, Ok(b"\0bin".to_vec()));
        }
    }
    static UNKNOWN: Script = Script::new("unknown", "return 1");
    let unfit = store.call::<()>(&Call::new(&UNKNOWN)).await.unwrap_err();
    assert!(matches!(unfit, StoreError::Unfit(_)));
}

#[tokio::test]
async fn large_values_take_the_reserve_and_the_cap_holds() {
    let server = TestRedis::start();
    let store = up(&server).await;
    let large = vec![7_u8; 4 << 20];
    store.run::<()>(&set("large", &large)).await.unwrap();
    assert_eq!(server.clients(), 2, "the lane and the reserve");
    let readers = (0..16).map(|_| {
        let pool = store.pool.clone();
        tokio::spawn(async move { pool.run::<Vec<u8>>(&get("large").bulk()).await })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..200 {
        assert_eq!(store.run(&get("nobody")).await, Ok(None::<String>));
        assert!(server.clients() <= 2);
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().len(), large.len());
    }
    assert!(store.status().is_up());
}

#[tokio::test]
async fn with_a_cap_of_one_large_values_take_the_lane() {
    let server = TestRedis::start();
    let mut config = patient(&server.url());
    config.max_connections = 1;
    let store = open(&config);
    until_up(&store).await;
    store
        .run::<()>(&set("large", vec![7_u8; 1 << 20]))
        .await
        .unwrap();
    let read = store.run::<Vec<u8>>(&get("large").bulk()).await.unwrap();
    assert_eq!((read.len(), server.clients()), (1 << 20, 1));
}

/// Writes down what it hears.
#[derive(Default)]
pub struct Heard(Mutex<Vec<String>>);

impl Heard {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl PushSink for Heard {
    fn push(&self, push: Push<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = match push {
            Push::Subscribed { channel, .. } => format!("subscribed {}", text(channel)),
            Push::Message { payload, .. } => text(payload),
            Push::Invalidated { keys, .. } => format!("invalidated {}", keys.map_or(0, <[_]>::len)),
            Push::Lost { .. } => "lost".to_owned(),
            _ => "something new".to_owned(),
        };
        self.0.lock().unwrap().push(said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_heard_before_any_later_reply() {
    let server = TestRedis::start();
    let store = up(&server).await;
    let heard = Arc::new(Heard::default());
    store.subscribe("news", Arc::<Heard>::clone(&heard));
    until("subscribed", || heard.all() == ["subscribed news"]).await;
    for n in 0..2_000 {
        let told: i64 = store
            .call(&Call::new(&TELL).key("news").arg(n))
            .await
            .unwrap();
        assert_eq!(told, 1);
        assert_eq!(
            heard.all().last(),
            Some(&n.to_string()),
            "the reply overtook the message"
        );
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_once_and_the_channel_comes_back() {
    let server = TestRedis::start();
    let store = up(&server).await;
    let heard = Arc::new(Heard::default());
    store.subscribe("news", Arc::<Heard>::clone(&heard));
    store.track("watched:", Arc::<Heard>::clone(&heard));
    until("subscribed", || heard.all().len() == 2).await;
    server.raw().command(&["SET", "watched:1", "x"]);
    until("invalidated", || {
        heard.all().contains(&"invalidated 1".to_owned())
    })
    .await;
    server.raw().command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let again = |heard: &Heard| {
        heard
            .all()
            .iter()
            .filter(|said| said.starts_with("subscribed"))
            .count()
    };
    until("subscribed again", || again(&heard) == 4).await;
    // Sinks are told while the connection is made ready, a moment before commands may use it.
    until_up(&store).await;
    assert_eq!(store.publish("news", "hello").await, Ok(1));
    until("heard", || {
        heard.all().last().is_some_and(|last| last == "hello")
    })
    .await;
    let lost = heard.all().iter().filter(|said| *said == "lost").count();
    assert_eq!(lost, 2, "once for each subscription: {:?}", heard.all());
}

#[tokio::test]
async fn without_a_url_everything_fails_at_once() {
    let tasks = Tasks::new().unwrap();
    let parts = StoreParts::new(tasks.spawner());
    let pool = RedisPool::new(&RedisConfig::default(), &parts).unwrap();
    assert_eq!(pool.status(), RedisStatus::Disabled);
    let error = pool.run::<()>(&get("a")).await.unwrap_err();
    assert!(error.is_unavailable() && !error.may_have_run());
    assert_eq!(tasks.spawner().running(), 0);
}

#[tokio::test]
async fn a_redis_that_comes_late_is_found() {
    let server = TestRedis::start();
    server.kill();
    let store = open(&settings(&server.url()));
    let mut status = store.watch();
    let refused = |status: &RedisStatus| matches!(status, RedisStatus::Down { reason } if reason.kind() == DownKind::Unreachable);
    until("refused", || refused(&status.now())).await;
    let error = store.run::<()>(&get("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)));
    server.restart();
    assert!(status.until_up().await);
    assert_eq!(store.run(&get("a")).await, Ok(None::<String>));
}

#[tokio::test]
async fn shutdown_closes_every_connection() {
    let server = TestRedis::start();
    let store = up(&server).await;
    store
        .run::<()>(&set("large", vec![7_u8; 1 << 20]))
        .await
        .unwrap();
    assert_eq!(store.tasks.shutdown(Duration::from_secs(5)).await, 0);
    let error = store.run::<()>(&get("a")).await.unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
    until("closed", || server.clients() == 0).await;
}
