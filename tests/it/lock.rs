//! Locks against real servers and in memory: one suite for the twins, and what only Redis can do to them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tower_keep::clock::Clock;
use tower_keep::lock::{LockError, LockParts, Locks};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;
use tower_keep::{Keep, Profile};

use crate::redis::{Answer, Proxy, TestCluster, TestRedis};
use crate::store::{patient, settings, until, until_up};

const MINUTE: Duration = Duration::from_secs(60);
/// The shortest that is allowed, for locks that expire in a test.
const BRIEF: Duration = Duration::from_millis(100);
/// Longer than anything here takes; what is waited for comes sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a machine with other things to do may add.
const SLACK: Duration = Duration::from_secs(2);

/// One instance: its locks, and what they stand on.
struct Instance {
    locks: Locks,
    pool: RedisPool,
    /// Ends the connections with the instance.
    _tasks: Tasks,
}

impl Instance {
    async fn start(config: &RedisConfig) -> Self {
        let tasks = Tasks::new().unwrap();
        let parts = StoreParts {
            scripts: Locks::scripts().to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let pool = RedisPool::new(config, &parts).unwrap();
        until_up(&pool).await;
        let locks = Locks::shared(LockParts {
            clock: Clock::system(),
            redis: pool.clone(),
            spawner: tasks.spawner(),
        });
        Self {
            locks,
            pool,
            _tasks: tasks,
        }
    }
}

/// Two who share locks, whatever they stand on.
#[derive(Clone)]
struct Pair {
    one: Locks,
    two: Locks,
    /// Makes the place forget all it knows; memory cannot.
    forget: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Says the same of memory, of one server with functions and one without, and of a cluster.
async fn of_all<F: Future<Output = ()> + Send>(says: impl Fn(Pair) -> F + Send + Sync) {
    let one = Locks::in_memory(Clock::system());
    let forget = None;
    says(Pair {
        two: one.clone(),
        one,
        forget,
    })
    .await;
    for options in [&[][..], &["--rename-command", "FUNCTION", ""]] {
        let server = Arc::new(TestRedis::with(options));
        let url = server.url();
        let flushed = Arc::clone(&server);
        let forget = move || drop(flushed.raw().must(&["FLUSHALL"]));
        of_url(&url, Arc::new(forget), &says).await;
    }
    let cluster = Arc::new(TestCluster::start());
    let url = cluster.url();
    let forget = move || {
        for node in cluster.nodes() {
            node.raw().must(&["FLUSHALL"]);
        }
    };
    of_url(&url, Arc::new(forget), &says).await;
}

async fn of_url<F: Future<Output = ()> + Send>(
    url: &str,
    forget: Arc<dyn Fn() + Send + Sync>,
    says: impl Fn(Pair) -> F + Send + Sync,
) {
    let config = patient(url);
    let (one, two) = (
        Instance::start(&config).await,
        Instance::start(&config).await,
    );
    says(Pair {
        one: one.locks.clone(),
        two: two.locks.clone(),
        forget: Some(forget),
    })
    .await;
    drop((one, two));
}

/// For how long it is held at most, by the error that another one gets.
fn free_in(error: &LockError) -> Duration {
    match error {
        LockError::Held { free_in, .. } => *free_in,
        other => panic!("not held: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_holds_a_key_and_others_are_told_for_how_long() {
    of_all(async |pair| {
        let lock = pair.one.lock("a", MINUTE).await.unwrap();
        assert_eq!(lock.key(), "a");
        assert!(lock.is_held() && lock.held_for() > MINUTE / 2 && lock.held_for() < MINUTE);
        for other in [&pair.one, &pair.two] {
            let error = other.lock("a", MINUTE).await.unwrap_err();
            assert!(free_in(&error) > MINUTE / 2 && free_in(&error) <= MINUTE);
            assert!(
                error.is_held() && error.to_string().contains("\"a\""),
                "{error}"
            );
            // By the holder's clock it ends sooner than anybody else may have it.
            assert!(lock.held_for() <= free_in(&error));
        }
        let beside = pair.two.lock("b{a}", MINUTE).await.unwrap();
        assert!(lock.release().await);
        let next = pair.two.lock("a", MINUTE).await.unwrap();
        assert!(beside.release().await && next.release().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_hands_on_and_the_first_holder_may_do_nothing_any_more() {
    of_all(async |pair| {
        let first = pair.one.lock("a", BRIEF).await.unwrap();
        let began = Instant::now();
        let second = pair.two.lock("a", MINUTE).wait(PATIENCE).await.unwrap();
        // Told when it ends, nobody waits much longer than that.
        assert!(began.elapsed() < BRIEF + SLACK, "{:?}", began.elapsed());
        assert!(!first.is_held() && first.held_for().is_zero());
        assert!(second.token() > first.token());
        let lost = first.extend(MINUTE).await.unwrap_err();
        assert!(
            matches!(&lost, LockError::Lost { key } if &**key == "a"),
            "{lost}"
        );
        assert!(!first.is_held());
        assert!(!first.release().await, "somebody else's was released");
        // Neither did that touch the second one.
        second.extend(MINUTE).await.unwrap();
        assert!(pair.one.lock("a", BRIEF).await.unwrap_err().is_held());
        assert!(second.release().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_is_not_extended_though_nobody_else_has_come() {
    of_all(async |pair| {
        let lock = pair.one.lock("a", BRIEF).await.unwrap();
        let token = lock.token();
        // Another key's expiry is later than this one's.
        let later = pair.one.lock("b", BRIEF).await.unwrap();
        drop(pair.two.lock("b", MINUTE).wait(PATIENCE).await.unwrap());
        let lost = lock.extend(MINUTE).await.unwrap_err();
        assert!(matches!(lost, LockError::Lost { .. }), "{lost}");
        assert!(!lock.release().await && !later.release().await);
        let next = pair.two.lock("a", MINUTE).await.unwrap();
        assert!(next.token() > token);
        assert!(next.release().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_lasts_and_never_shortens() {
    of_all(async |pair| {
        let lock = pair.one.lock("a", BRIEF).await.unwrap();
        lock.extend(MINUTE).await.unwrap();
        assert!(lock.held_for() > MINUTE / 2);
        lock.extend(BRIEF).await.unwrap();
        assert!(lock.held_for() > MINUTE / 2);
        let error = pair.two.lock("a", BRIEF).await.unwrap_err();
        assert!(free_in(&error) > MINUTE / 2, "{error}");
        let invalid = lock.extend(BRIEF / 2).await.unwrap_err();
        assert!(matches!(invalid, LockError::Invalid(_)), "{invalid}");
        assert!(lock.is_held() && lock.release().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_dropped_is_released() {
    of_all(async |pair| {
        drop(pair.one.lock("a", MINUTE).await.unwrap());
        let next = pair.two.lock("a", MINUTE).wait(MINUTE / 2).await.unwrap();
        assert!(next.release().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_asking_leaves_nothing_locked() {
    of_all(async |pair| {
        for polls in 0..6 {
            // Dropped at another await each time.
            let mut asked = Box::pin(pair.one.lock("a", MINUTE).into_future());
            for _ in 0..polls {
                tokio::select! {
                    biased;
                    _ = &mut asked => break,
                    () = tokio::task::yield_now() => {}
                }
            }
            drop(asked);
        }
        let next = pair.two.lock("a", MINUTE).wait(MINUTE / 2).await.unwrap();
        assert!(next.release().await);
    })
    .await;
}

#[tokio::test]
async fn who_waits_in_vain_is_told_who_was_in_the_way() {
    of_all(async |pair| {
        let lock = pair.one.lock("a", MINUTE).await.unwrap();
        let began = Instant::now();
        let error = pair.two.lock("a", MINUTE).wait(BRIEF).await.unwrap_err();
        assert!(free_in(&error) > MINUTE / 2);
        assert!((BRIEF..BRIEF + SLACK).contains(&began.elapsed()));
        assert!(lock.release().await);
    })
    .await;
}

/// 64 tasks of each of two instances, one lock, and a counter that two at once would get wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_tasks_of_two_instances_one_holds_at_a_time() {
    of_all(async |pair| {
        let (inside, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let last = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for task in 0..128 {
            let locks = if task % 2 == 0 { &pair.one } else { &pair.two }.clone();
            let (inside, count) = (Arc::clone(&inside), Arc::clone(&count));
            let last = Arc::clone(&last);
            tasks.spawn(async move {
                let lock = locks.lock("counter", MINUTE).wait(PATIENCE).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                let before = last.swap(lock.token(), Ordering::SeqCst);
                assert!(lock.token() > before, "{} after {before}", lock.token());
                // Read, let others run, write: what two at once would lose.
                let read = count.load(Ordering::SeqCst);
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                count.store(read + 1, Ordering::SeqCst);
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                assert!(lock.release().await);
            });
        }
        tasks.join_all().await;
        assert_eq!(count.load(Ordering::SeqCst), 128);
    })
    .await;
}

/// No lock is ever lost here, so each holder's whole time is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_shortest_ttl_and_holders_that_die_none_holds_within_anothers_time() {
    of_all(async |pair| {
        let held = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            let locks = if task % 2 == 0 { &pair.one } else { &pair.two }.clone();
            let held = Arc::clone(&held);
            tasks.spawn(async move {
                let lock = locks.lock("a", BRIEF).wait(PATIENCE).await.unwrap();
                let began = Instant::now();
                let left = lock.held_for();
                held.lock()
                    .unwrap()
                    .push((lock.token(), began, began + left));
                // It dies without a word.
                let _dead = std::mem::ManuallyDrop::new(lock);
            });
        }
        tasks.join_all().await;
        let mut held = held.lock().unwrap().clone();
        held.sort();
        assert_eq!(held.len(), 16);
        for pair in held.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].2 <= pair[1].1, "{pair:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_increase_though_the_server_forgets_everything() {
    of_all(async |pair| {
        let Some(forget) = pair.forget else { return };
        let mut last = 0;
        for round in 0..4 {
            let lock = pair.one.lock("a", MINUTE).await.unwrap();
            assert!(lock.token() > last, "round {round}");
            last = lock.token();
            forget();
            // What was forgotten can be held by the next one. The token tells them apart.
            let second = pair.two.lock("a", MINUTE).await.unwrap();
            assert!(second.token() > last);
            last = second.token();
            let lost = lock.extend(MINUTE).await.unwrap_err();
            assert!(matches!(lost, LockError::Lost { .. }), "{lost}");
            assert!(!lock.is_held() && !lock.release().await);
            assert!(second.release().await);
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_locked_is_refused_before_anybody_is_asked() {
    of_all(async |pair| {
        let long = "k".repeat(513);
        for (key, ttl, named) in [
            ("", MINUTE, "key = \"\""),
            (&long, MINUTE, "has 513"),
            ("a\tb", MINUTE, r"a\tb"),
            ("a", Duration::ZERO, "ttl = 0ns"),
            ("a", Duration::MAX, "ttl = "),
        ] {
            let error = pair.one.lock(key, ttl).await.unwrap_err();
            assert!(matches!(error, LockError::Invalid(_)), "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
        let wait = pair.one.lock("a", MINUTE).wait(Duration::MAX).await;
        assert!(wait.unwrap_err().to_string().contains("wait = "));
        assert!(pair.one.lock("a", MINUTE).await.unwrap().release().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_gives_nothing_out_and_keeps_nothing_locked_afterwards() {
    let server = TestRedis::start();
    let timeout = Duration::from_millis(250);
    let brisk = RedisConfig {
        command_timeout: timeout,
        ..patient(&server.url())
    };
    let (one, two) = (Instance::start(&brisk).await, Instance::start(&brisk).await);
    let held = one.locks.lock("held", MINUTE).await.unwrap();
    server.stop();
    let began = Instant::now();
    let error = one.locks.lock("a", MINUTE).await.unwrap_err();
    assert!(matches!(error, LockError::Unavailable(_)), "{error}");
    assert!(began.elapsed() < timeout + SLACK);
    // Whoever waits, waits no longer for a server than for a holder.
    let began = Instant::now();
    let error = two
        .locks
        .lock("a", MINUTE)
        .wait(2 * timeout)
        .await
        .unwrap_err();
    assert!(matches!(error, LockError::Unavailable(_)), "{error}");
    assert!(began.elapsed() < 3 * timeout + SLACK);
    let error = held.extend(MINUTE).await.unwrap_err();
    assert!(matches!(error, LockError::Unavailable(_)), "{error}");
    assert!(held.is_held(), "it still is, as far as anybody knows");
    server.cont();
    until_up(&two.pool).await;
    // Both questions have reached the server by now, and both are taken back long before they would expire.
    let next = two.locks.lock("a", MINUTE).wait(MINUTE / 2).await.unwrap();
    assert!(next.release().await);
    until_up(&one.pool).await;
    held.extend(MINUTE).await.unwrap();
    assert!(held.release().await);
    // The word of who gave up is there, and nothing is locked by a question that came later.
    let mut raw = server.raw();
    let mut gone = || raw.must(&["KEYS", "keep:lock:{a}:gone:*"]).array().len();
    until("it gave up", || gone() > 0).await;
    let mut raw = server.raw();
    let mut locked = || raw.must(&["EXISTS", "keep:lock:{a}"]) == Answer::Integer(1);
    until("all is given back", || !locked()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_gets_the_lock_after_an_outage() {
    let server = Arc::new(TestRedis::start());
    let one = Instance::start(&settings(&server.url())).await;
    server.kill();
    let waiting = one.locks.lock("a", MINUTE).wait(PATIENCE);
    let waiting = tokio::spawn(waiting.into_future());
    until("it is noticed", || !one.pool.status().is_up()).await;
    let error = one.locks.lock("a", MINUTE).await.unwrap_err();
    assert!(matches!(error, LockError::Unavailable(_)), "{error}");
    server.restart();
    assert!(waiting.await.unwrap().unwrap().release().await);
}

/// Its answer comes too late, so that it asks again for what is granted already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_was_granted_unheard_is_granted_once_and_then_free() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let config = RedisConfig {
        command_timeout: Duration::from_millis(100),
        ..patient(&proxy.url())
    };
    let one = Instance::start(&config).await;
    let two = Instance::start(&patient(&server.url())).await;
    proxy.delay(MINUTE);
    let waiting = one.locks.lock("a", MINUTE).wait(PATIENCE);
    let waiting = tokio::spawn(waiting.into_future());
    let mut raw = server.raw();
    let granted = || raw.must(&["EXISTS", "keep:lock:{a}"]) == Answer::Integer(1);
    until("it is granted", granted).await;
    let token = raw.must(&["GET", "keep:lock:{a}:token"]).text();
    until("nobody heard of it", || !one.pool.status().is_up()).await;
    proxy.forward();
    proxy.cut();
    let lock = waiting.await.unwrap().unwrap();
    assert_eq!(lock.token().to_string(), token);
    assert!(two.locks.lock("a", MINUTE).await.unwrap_err().is_held());
    assert!(lock.release().await);
    let next = two.locks.lock("a", MINUTE).await.unwrap();
    assert!(next.release().await);
}

#[tokio::test]
async fn keys_expire_and_what_is_no_lock_is_left_alone() {
    let server = TestRedis::start();
    let one = Instance::start(&patient(&server.url())).await;
    let mut raw = server.raw();
    let lock = one.locks.lock("a", MINUTE).await.unwrap();
    let token = raw.must(&["GET", "keep:lock:{a}:token"]).text();
    assert_eq!(token, lock.token().to_string());
    let week = 7 * 24 * 3_600;
    let kept = raw.must(&["TTL", "keep:lock:{a}:token"]).integer();
    assert!((week - 60..=week).contains(&kept), "{kept}");
    assert!(lock.release().await);
    assert_eq!(
        raw.must(&["KEYS", "keep:lock:*"]).array().len(),
        1,
        "one token"
    );
    // Ahead of the clock, it is counted on from; what is no token is an error and no new beginning.
    raw.must(&["SET", "keep:lock:{a}:token", "9000000000000000"]);
    let ahead = one.locks.lock("a", MINUTE).await.unwrap();
    assert_eq!(ahead.token(), 9_000_000_000_000_001);
    assert!(ahead.release().await);
    for junk in ["junk", "9007199254740991", "nan", "1e300"] {
        raw.must(&["SET", "keep:lock:{a}:token", junk]);
        let error = one.locks.lock("a", MINUTE).await.unwrap_err();
        assert!(matches!(error, LockError::Refused(_)), "{junk}: {error}");
        assert_eq!(raw.must(&["EXISTS", "keep:lock:{a}"]).integer(), 0);
    }
    raw.must(&["RPUSH", "keep:lock:{list}", "junk"]);
    let error = one.locks.lock("list", MINUTE).await.unwrap_err();
    assert!(matches!(error, LockError::Refused(_)), "{error}");
    raw.must(&["SET", "keep:lock:{theirs}", "an operator's"]);
    let error = one.locks.lock("theirs", MINUTE).await.unwrap_err();
    assert_eq!(free_in(&error), Duration::ZERO);
    assert_eq!(
        raw.must(&["GET", "keep:lock:{theirs}"]).text(),
        "an operator's"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_locks_in_redis_where_it_has_one_and_else_in_memory() {
    let alone = Keep::builder(Profile::azure_b1()).build().unwrap();
    let lock = alone.lock("a", MINUTE).await.unwrap();
    assert!(alone.lock("a", MINUTE).await.unwrap_err().is_held());
    assert!(lock.release().await);

    let server = TestRedis::start();
    let stack = || {
        Keep::builder(Profile::azure_b1())
            .redis(|redis| *redis = patient(&server.url()))
            .build()
            .unwrap()
    };
    let (one, two) = (stack(), stack());
    // Not connected yet, it is waited for, and not locked in memory meanwhile.
    let lock = one.lock("a", MINUTE).wait(PATIENCE).await.unwrap();
    until_up(two.redis()).await;
    assert!(two.lock("a", MINUTE).await.unwrap_err().is_held());
    drop(lock);
    let next = two.lock("a", MINUTE).wait(PATIENCE).await.unwrap();
    assert!(next.release().await);

    let nowhere = Keep::builder(Profile::azure_b1())
        .redis(|redis| redis.url = Some("redis://127.0.0.1:1".to_owned()))
        .build()
        .unwrap();
    let error = nowhere.lock("a", MINUTE).await.unwrap_err();
    assert!(matches!(error, LockError::Unavailable(_)), "{error}");
}
