//! What is hot is computed before somebody has to wait for it, and what was hot is there after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::store::Command;
use tower_keep::tiers::{CacheError, EntryOptions, SealKeys, TypedCache};
use tower_keep::warming::{KeyPartError, Schedule, WarmKey};
use tower_keep::{Keep, KeepBuilder, Profile};

use crate::redis::TestRedis;
use crate::store::{until, until_up};

const MINUTE: EntryOptions = EntryOptions::new().ttl(Duration::from_secs(60));

fn alone() -> KeepBuilder {
    Keep::builder(Profile::azure_b1()).warming(|warming| {
        // Time is not what these tests wait for.
        warming.jobs_per_second_max = 10_000;
    })
}

/// One of several instances.
async fn shared(server: &TestRedis) -> Keep {
    shared_with(server, |builder| builder).await
}

async fn shared_with(server: &TestRedis, change: impl FnOnce(KeepBuilder) -> KeepBuilder) -> Keep {
    let keep = change(alone())
        .redis(|redis| {
            redis.url = Some(server.url());
            redis.command_timeout = Duration::from_secs(5);
        })
        .journal(|journal| journal.acknowledge_within = Duration::from_secs(5))
        .warming(|warming| warming.save_every = Duration::from_secs(1))
        .build()
        .unwrap();
    until_up(keep.redis()).await;
    let verified = tower_keep::journal::JournalStatus::Verified;
    until("the journal is heard", || {
        keep.journal().status() == verified
    })
    .await;
    keep
}

/// Computes, and counts.
#[derive(Clone, Default)]
struct Origin(Arc<AtomicU64>);

impl Origin {
    fn asked(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Values that say which computation they come from.
    fn register(&self, keep: &Keep, cache: &TypedCache<u64>) {
        let origin = self.clone();
        keep.warmer().register(cache, &MINUTE, move |_: WarmKey| {
            let nth = origin.next();
            async move { Ok::<_, CacheError>(nth) }
        });
    }

    /// Asks for a value as a request does.
    async fn ask(&self, cache: &TypedCache<u64>, key: &str) -> u64 {
        let origin = self.clone();
        let compute = move || async move { Ok::<_, CacheError>(origin.next()) };
        *cache.get_or_compute(key, &MINUTE, compute).await.unwrap()
    }

    /// Has a value be there, and in use.
    async fn use_often(&self, cache: &TypedCache<u64>, key: &str) {
        for _ in 0..4 {
            self.ask(cache, key).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_while_it_is_in_use_is_computed_before_anybody_asks() {
    let keep = alone().build().unwrap();
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    origin.register(&keep, &cache);
    origin.use_often(&cache, "hot").await;
    origin.ask(&cache, "cold").await;
    assert_eq!(origin.asked(), 2);
    cache.purge("hot").await.unwrap();
    cache.purge("cold").await.unwrap();
    until("it is computed anew", || cache.peek("hot").is_some()).await;
    assert_eq!(*cache.peek("hot").unwrap(), 3);
    let stats = keep.warmer().stats();
    assert_eq!(stats.invalidated.computed, 1, "{stats:?}");
    assert!(cache.peek("cold").is_none(), "nobody uses it");
    assert_eq!(keep.warmer().hottest(1)[0].to_string(), "report:hot");
    // Nobody has used it since, so that the next purge makes no work.
    cache.purge("hot").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(origin.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_hot_is_computed_within_a_tenth_of_a_second() {
    let keep = alone().build().unwrap();
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    origin.register(&keep, &cache);
    origin.use_often(&cache, "hot").await;
    // Long enough to be known as hot.
    tokio::time::sleep(Duration::from_millis(1_230)).await;
    let purged = tokio::time::Instant::now();
    cache.purge("hot").await.unwrap();
    until("it is computed anew", || cache.peek("hot").is_some()).await;
    let took = purged.elapsed();
    assert!(took <= Duration::from_millis(100), "{took:?}");
    assert_eq!(keep.warmer().stats().invalidated.computed, 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(origin.asked(), 2, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn what_is_expired_or_purged_by_tag_or_for_a_tenant_is_computed_as_well() {
    let keep = alone().build().unwrap();
    let options = MINUTE.tag("all");
    let cache = keep.cache::<String>("report").options(options.clone());
    keep.warmer()
        .register(&cache, &options, |key: WarmKey| async move {
            let tenant = key.tenant().unwrap_or("nobody");
            Ok::<_, KeyPartError>(format!("{} of {tenant}", key.part::<u32>(1)?))
        });
    let acme = cache.for_tenant("acme");
    for cache in [&cache, &acme] {
        for _ in 0..4 {
            let compute = || async { Ok::<_, CacheError>("asked".to_owned()) };
            (cache.get_or_compute(("a:b", 7), &MINUTE, compute))
                .await
                .unwrap();
        }
    }
    acme.purge_tag("all").await.unwrap();
    until("it is there", || acme.peek(("a:b", 7)).is_some()).await;
    assert_eq!(*acme.peek(("a:b", 7)).unwrap(), "7 of acme");
    assert_eq!(*cache.peek(("a:b", 7)).unwrap(), "asked");
    cache.expire(("a:b", 7)).await.unwrap();
    until("it is there", || cache.peek(("a:b", 7)).is_some()).await;
    assert_eq!(*cache.peek(("a:b", 7)).unwrap(), "7 of nobody");
}

fn by_hand() -> (KeepBuilder, ManualClock) {
    let (clock, hand) = Clock::manual();
    (alone().clock(clock), hand)
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_computed_anew_before_its_end_and_what_is_not_ends() {
    let (builder, hand) = by_hand();
    let keep = builder.build().unwrap();
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    origin.register(&keep, &cache);
    origin.use_often(&cache, "hot").await;
    origin.ask(&cache, "cold").await;
    hand.advance(Duration::from_secs(40));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(origin.asked(), 2, "there is time");
    hand.advance(Duration::from_secs(18));
    until("it is computed anew", || {
        cache.peek("hot").is_some_and(|value| *value == 3)
    })
    .await;
    hand.advance(Duration::from_secs(30));
    assert_eq!(*cache.peek("hot").unwrap(), 3, "the old one has ended");
    assert!(cache.peek("cold").is_none());
    let stats = keep.warmer().stats();
    assert_eq!(stats.near_expiry.computed, 1, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_and_a_panicking_computation_harm_nobody() {
    let keep = alone().build().unwrap();
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    let options = MINUTE.stale_if_error(Duration::from_secs(60));
    keep.warmer()
        .register(&cache, &options, |key: WarmKey| async move {
            match key.text() {
                "fails" => Err("no"),
                "panics" => panic!("never"),
                _ => Ok(42),
            }
        });
    for key in ["fails", "panics", "works"] {
        origin.use_often(&cache, key).await;
        cache.purge(key).await.unwrap();
    }
    until("the last one is there", || cache.peek("works").is_some()).await;
    until("all were tried", || {
        keep.warmer().stats().invalidated.failed == 2
    })
    .await;
    assert_eq!(origin.asked(), 3);
    assert_eq!(origin.ask(&cache, "fails").await, 4);
    assert_eq!(origin.ask(&cache, "panics").await, 5);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let failed = keep.warmer().stats().invalidated.failed;
    assert_eq!(failed, 2, "it is not tried again and again");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_computed_before_its_end_is_tried_once() {
    let (builder, hand) = by_hand();
    let keep = builder.build().unwrap();
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    keep.warmer().register(&cache, &MINUTE, |_: WarmKey| async {
        Err::<u64, _>("not now")
    });
    origin.use_often(&cache, "hot").await;
    hand.advance(Duration::from_secs(58));
    for _ in 0..19 {
        // It goes on being used, and is looked at again and again.
        assert_eq!(origin.ask(&cache, "hot").await, 1);
        tokio::time::sleep(Duration::from_millis(500)).await;
        hand.advance(Duration::from_millis(100));
    }
    assert_eq!(keep.warmer().stats().near_expiry.failed, 1);
    // That it is purged then is another reason.
    cache.purge("hot").await.unwrap();
    until("it is tried again", || {
        keep.warmer().stats().invalidated.failed == 1
    })
    .await;
}

/// A computation that goes on when it is told to, and how many of them run.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    fn register(keep: &Keep, cache: &TypedCache<u64>) -> Self {
        let gate = Self {
            open: Arc::new(Semaphore::new(0)),
            inside: Arc::default(),
            most: Arc::default(),
        };
        let its = gate.clone();
        keep.warmer().register(cache, &MINUTE, move |_: WarmKey| {
            let gate = its.clone();
            async move {
                let inside = gate.inside.fetch_add(1, Ordering::SeqCst) + 1;
                gate.most.fetch_max(inside, Ordering::SeqCst);
                gate.open.acquire().await.unwrap().forget();
                gate.inside.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, CacheError>(7)
            }
        });
        gate
    }

    fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_pace_allows_are_computed_at_once() {
    let keep = alone()
        .warming(|warming| warming.concurrency_max = 3)
        .build()
        .unwrap();
    let cache = keep.cache::<u64>("report");
    let gate = Gate::register(&keep, &cache);
    assert_eq!(keep.warmer().warm(&cache, 0..50), 50);
    until("one is begun", || gate.inside() == 1).await;
    assert_eq!(keep.warmer().stats().running, 1, "it begins with one");
    assert_eq!(keep.warmer().warm(&cache, 0..50), 49, "one is under way");
    gate.open.add_permits(50);
    until("all are there", || {
        keep.warmer().stats().scheduled.computed == 50
    })
    .await;
    let most = gate.most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most} at once");
    assert!((0..50).all(|key| cache.peek(key).is_some()));
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_it_is_paused_and_the_same_waits_only_once() {
    let keep = alone().build().unwrap();
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    origin.register(&keep, &cache);
    keep.warmer().pause();
    for _ in 0..5 {
        keep.warmer().warm(&cache, ["a", "b"]);
    }
    origin.use_often(&cache, "hot").await;
    cache.purge("hot").await.unwrap();
    until("they wait", || keep.warmer().stats().waiting == 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(origin.asked(), 1);
    keep.warmer().resume();
    until("all are there", || {
        ["a", "b", "hot"]
            .iter()
            .all(|key| cache.peek(*key).is_some())
    })
    .await;
    assert_eq!(origin.asked(), 4);
    assert_eq!(*cache.peek("hot").unwrap(), 2, "the most urgent first");
    // What is there and fresh is not computed again.
    keep.warmer().warm(&cache, ["a", "b", "hot"]);
    until("they are looked at", || {
        keep.warmer().stats().scheduled.found == 3
    })
    .await;
    assert_eq!(origin.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_asks_meanwhile_waits_for_the_same_computation() {
    let keep = alone().build().unwrap();
    let cache = keep.cache::<u64>("report");
    let gate = Gate::register(&keep, &cache);
    keep.warmer().warm(&cache, ["a"]);
    until("it is begun", || gate.inside() == 1).await;
    let asking = cache.get_or_compute("a", &MINUTE, || async {
        unreachable!("somebody does");
        #[expect(unreachable_code, reason = "names the types")]
        Ok::<u64, CacheError>(0)
    });
    gate.open.add_permits(1);
    assert_eq!(*asking.await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_is_under_way_and_those_who_wait_compute_for_themselves() {
    let keep = alone().build().unwrap();
    let cache = keep.cache::<u64>("report");
    let gate = Gate::register(&keep, &cache);
    keep.warmer().warm(&cache, ["a", "b"]);
    until("it is begun", || gate.inside() == 1).await;
    let key = match keep.warmer().stats() {
        stats if stats.waiting == 1 => "a",
        stats => panic!("{stats:?}"),
    };
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move {
            let compute = || async { Ok::<_, CacheError>(8) };
            *cache.get_or_compute(key, &MINUTE, compute).await.unwrap()
        }
    });
    until("it waits", || cache.stats().collapsed == 1).await;
    assert_eq!(keep.shutdown().await, 0, "nothing had to be aborted");
    assert_eq!(waiting.await.unwrap(), 8);
    let stats = keep.warmer().stats();
    assert_eq!((stats.running, stats.scheduled.dropped), (0, 1));
    keep.warmer().warm(&cache, ["c"]);
    assert_eq!(gate.inside(), 1, "nothing begins any more");
}

#[tokio::test(start_paused = true)]
async fn schedules_and_users_are_served_and_what_fails_is_done_again_the_next_time() {
    let (builder, hand) = by_hand();
    let keep = builder.build().unwrap();
    let done: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let note = |done: &Arc<std::sync::Mutex<Vec<String>>>, what: String| {
        done.lock().unwrap().push(what);
    };
    let every = Schedule::every(Duration::from_secs(60)).unwrap();
    let theirs = Arc::clone(&done);
    keep.warmer().every("front page", every.clone(), move || {
        let done = Arc::clone(&theirs);
        async move {
            note(&done, "front page".into());
            Err::<(), _>("never done")
        }
    });
    keep.warmer().every("broken", every, || async {
        assert!(std::hint::black_box(false), "a panic");
        Ok::<_, CacheError>(())
    });
    for name in ["profile", "inbox"] {
        let theirs = Arc::clone(&done);
        keep.warmer().per_user(name, move |user: Arc<str>| {
            let done = Arc::clone(&theirs);
            async move {
                note(&done, format!("{name} of {user}"));
                Ok::<_, CacheError>(())
            }
        });
    }
    assert_eq!(keep.warmer().warm_user("alice"), 2);
    let sorted = || {
        let mut done = done.lock().unwrap().clone();
        done.sort();
        done
    };
    until("alice is served", || sorted().len() == 2).await;
    assert_eq!(sorted(), ["inbox of alice", "profile of alice"]);
    for times in 1..=2 {
        hand.advance(Duration::from_secs(60));
        until("its time has come", || sorted().len() == 2 + times).await;
        until("both have failed", || {
            keep.warmer().stats().scheduled.failed == 2 * times as u64
        })
        .await;
    }
    assert_eq!(sorted()[..2], ["front page", "front page"]);
}

#[tokio::test]
async fn a_restarted_instance_has_what_was_hot_in_memory_without_computing() {
    let server = TestRedis::start();
    let old = shared(&server).await;
    let origin = Origin::default();
    let (reports, acme) = (
        old.cache::<u64>("report"),
        old.cache::<u64>("report").for_tenant("acme"),
    );
    for key in 0..40 {
        origin.use_often(&reports, &key.to_string()).await;
    }
    origin.use_often(&acme, "theirs").await;
    origin.use_often(&old.cache("late"), "x").await;
    assert_eq!(origin.asked(), 42);
    // Nothing is registered: what was learned is what was used.
    let count = Command::new("ZCARD").key(old.redis().key("warming:hot"));
    while old.redis().run::<u64>(&count).await.unwrap() < 42 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(old);

    let new = shared(&server).await;
    let reports = new.cache::<u64>("report");
    until("they are there", || {
        (0..40).all(|key| reports.peek(key).is_some())
    })
    .await;
    let acme = reports.for_tenant("acme");
    until("theirs as well", || acme.peek("theirs").is_some()).await;
    assert_eq!(new.warmer().stats().restored, 41);
    // A cache that is opened later has them as well.
    let late = new.cache::<u64>("late");
    until("it is there", || late.peek("x").is_some()).await;
    assert_eq!(new.warmer().stats().restored, 42);
    assert_eq!(new.cache_stats().computed, 0);
}

#[tokio::test]
async fn what_was_hot_and_is_not_in_redis_any_more_is_computed_at_the_start() {
    let server = TestRedis::start();
    let old = shared(&server).await;
    let origin = Origin::default();
    let reports = old.cache::<u64>("report");
    for key in ["a", "b"] {
        origin.use_often(&reports, key).await;
    }
    let count = Command::new("ZCARD").key(old.redis().key("warming:hot"));
    while old.redis().run::<u64>(&count).await.unwrap() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    reports.purge("a").await.unwrap();
    drop((old, reports));

    let new = shared(&server).await;
    let reports = new.cache::<u64>("report");
    until("one of them is there", || {
        new.warmer().stats().restored == 1
    })
    .await;
    // Said only now how it is done.
    origin.register(&new, &reports);
    until("the other one as well", || reports.peek("a").is_some()).await;
    assert_eq!(*reports.peek("a").unwrap(), 3);
    assert_eq!(origin.asked(), 3);
    assert_eq!(new.warmer().stats().boot.computed, 1);
}

#[tokio::test]
async fn the_keys_of_a_sealed_cache_are_not_written_down() {
    let server = TestRedis::start();
    let keep = shared_with(&server, |builder| {
        builder.seal_keys(SealKeys::new(1, [7; 32]))
    })
    .await;
    let origin = Origin::default();
    let sealed = keep.cache::<u64>("diagnosis").sealed().unwrap();
    origin.use_often(&sealed, "alice").await;
    origin.use_often(&keep.cache("report"), "hot").await;
    let all = Command::new("ZRANGE")
        .key(keep.redis().key("warming:hot"))
        .arg(0)
        .arg(-1);
    let told = loop {
        let told: Vec<String> = keep.redis().run(&all).await.unwrap();
        if !told.is_empty() {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(told, ["report:hot"]);
    assert_eq!(keep.warmer().stats().learned, 2);
}

#[tokio::test]
async fn what_is_in_use_and_leaves_memory_is_fetched_before_and_not_computed() {
    let server = TestRedis::start();
    let keep = shared(&server).await;
    let (cache, origin) = (keep.cache::<u64>("report"), Origin::default());
    let options = EntryOptions::new()
        .ttl(Duration::from_secs(3_600))
        .ttl_hot(Duration::from_secs(4));
    let cache = cache.options(options.clone());
    let computed = origin.clone();
    keep.warmer().register(&cache, &options, move |_: WarmKey| {
        let nth = computed.next();
        async move { Ok::<_, CacheError>(nth) }
    });
    for _ in 0..4 {
        let value = cache.get_or_compute("hot", &EntryOptions::new(), || async {
            Ok::<_, CacheError>(0)
        });
        value.await.unwrap();
    }
    let first = cache.peek("hot").unwrap();
    until("it is fetched", || {
        keep.warmer().stats().near_expiry.found == 1
    })
    .await;
    let second = cache.peek("hot").unwrap();
    assert!(!first.ptr_eq(&second), "it begins another stay");
    assert_eq!((*second, origin.asked()), (0, 0));
}

#[tokio::test]
async fn what_is_hot_on_two_instances_is_computed_by_one_of_them() {
    let server = TestRedis::start();
    let (one, two) = (shared(&server).await, shared(&server).await);
    let origin = Origin::default();
    let caches = [one.cache::<u64>("report"), two.cache::<u64>("report")];
    for (keep, cache) in [&one, &two].into_iter().zip(&caches) {
        origin.register(keep, cache);
        origin.use_often(cache, "hot").await;
    }
    let before = origin.asked();
    caches[0].purge("hot").await.unwrap();
    until("both have it", || {
        caches.iter().all(|cache| cache.peek("hot").is_some())
    })
    .await;
    assert_eq!(origin.asked(), before + 1);
    assert_eq!(caches[0].peek("hot"), caches[1].peek("hot"));
}
