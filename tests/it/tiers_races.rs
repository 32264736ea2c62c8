//! The typed cache under callers that leave, tasks that are aborted, purges in the worst moment and computations
//! that wait for each other; and whether what it counts adds up.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tower_keep::tiers::{CacheError, EntryOptions, TiersConfig, TypedCache};

use crate::redis::TestRedis;
use crate::store::until;
use crate::tiers_room::{Instance, Plan};
use crate::tiers_time::{NONE, Origin, stored};

const MILLI: Duration = Duration::from_millis(1);

/// A computation that ends when it is told to, and says whether it has begun.
#[derive(Clone, Default)]
struct Gate {
    begun: Arc<AtomicBool>,
    open: Arc<Notify>,
}

impl Gate {
    fn compute(
        &self,
        value: u64,
    ) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Result<u64, CacheError>> + Send>>
    + Send
    + use<> {
        let gate = self.clone();
        move || {
            Box::pin(async move {
                gate.begun.store(true, Ordering::SeqCst);
                gate.open.notified().await;
                Ok(value)
            })
        }
    }

    async fn begun(&self) {
        until("it is being computed", || self.begun.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn whoever_asks_after_a_purge_is_not_served_by_a_flight_that_began_before_it() {
    let server = TestRedis::start();
    for plan in [Plan::default(), Plan::redis(&server.url())] {
        let instance = plan.start().await;
        let cache: TypedCache<u64> = instance.tiers.cache("number");
        let gate = Gate::default();
        let old = tokio::spawn(cache.get_or_compute(7, &NONE, gate.compute(1)));
        gate.begun().await;
        cache.purge(7).await.unwrap();
        let late = cache.get_or_compute(7, &NONE, || ready(Ok::<_, CacheError>(2)));
        let late = tokio::spawn(late);
        until("it waits", || cache.stats().collapsed == 1).await;
        gate.open.notify_one();
        assert_eq!(
            *old.await.unwrap().unwrap(),
            1,
            "who asked before the purge"
        );
        assert_eq!(*late.await.unwrap().unwrap(), 2, "who asked after it");
        assert_eq!(cache.get(7).await.as_deref(), Some(&2));
    }
}

#[tokio::test]
async fn a_computation_goes_on_when_everybody_who_asked_has_left() {
    let instance = Plan::default().start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let gate = Gate::default();
    let callers: Vec<_> = (0..10)
        .map(|_| tokio::spawn(cache.get_or_compute(7, &NONE, gate.compute(1))))
        .collect();
    gate.begun().await;
    for caller in &callers {
        caller.abort();
    }
    for caller in callers {
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    // Whoever comes now joins it, and may leave as well.
    let joining = cache.get_or_compute(7, &NONE, || ready(Ok::<_, CacheError>(2)));
    assert!(tokio::time::timeout(MILLI * 5, joining).await.is_err());
    gate.open.notify_one();
    until("it has landed", || cache.peek(7).is_some()).await;
    assert_eq!(cache.peek(7).as_deref(), Some(&1));
    assert_eq!(cache.stats().computed, 1);
}

#[tokio::test]
async fn a_question_that_is_never_polled_computes_nothing() {
    let instance = Plan::default().start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let origin = Origin::default();
    drop(cache.get_or_compute(7, &NONE, origin.answer()));
    let value = cache.get_or_compute(7, &NONE, origin.answer()).await;
    assert_eq!(*value.unwrap(), 1);
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.computed), (1, 1));
}

#[tokio::test]
async fn whoever_waits_at_a_shutdown_is_answered_and_whoever_comes_later_too() {
    let server = TestRedis::start();
    for plan in [Plan::default(), Plan::redis(&server.url())] {
        let instance = plan.start().await;
        let cache: TypedCache<u64> = instance.tiers.cache("number");
        let gate = Gate::default();
        let caller = tokio::spawn(cache.get_or_compute(7, &NONE, gate.compute(1)));
        gate.begun().await;
        let ending = async {
            let ended = instance.tasks.shutdown(Duration::from_secs(10)).await;
            assert_eq!(ended, 0, "nothing had to be aborted");
        };
        let opening = async {
            until("it is closed", || !instance.tasks.spawner().is_open()).await;
            gate.open.notify_one();
        };
        tokio::join!(ending, opening);
        assert_eq!(*caller.await.unwrap().unwrap(), 1);
        let origin = Origin::default();
        for key in 0..3_u64 {
            let value = cache.get_or_compute(("late", key), &NONE, origin.answer());
            assert_eq!(*soon(value).await.unwrap(), key + 1);
        }
    }
}

#[tokio::test]
async fn a_flight_that_is_aborted_leaves_nobody_waiting() {
    let instance = Plan::default().start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let gate = Gate::default();
    let leader = tokio::spawn(cache.get_or_compute(7, &NONE, gate.compute(1)));
    gate.begun().await;
    let follower = cache.get_or_compute(7, &NONE, || ready(Ok::<_, CacheError>(2)));
    let follower = tokio::spawn(follower);
    until("it waits", || cache.stats().collapsed == 1).await;
    drop(instance.tasks);
    let error = soon(leader).await.unwrap().unwrap_err();
    assert!(error.is_busy(), "its computation is gone: {error}");
    assert_eq!(*soon(follower).await.unwrap().unwrap(), 2);
}

async fn soon<F: Future>(future: F) -> F::Output {
    let soon = tokio::time::timeout(Duration::from_secs(10), future);
    soon.await.expect("nobody waits for ever")
}

/// The one waits for the other, in two tasks that know nothing of each other: nobody can see it, so it has to end
/// by itself.
#[tokio::test(start_paused = true)]
async fn computations_that_wait_for_each_other_come_to_an_end() {
    let tiers = TiersConfig {
        flight_wait: MILLI * 200,
        ..TiersConfig::default()
    };
    let plan = Plan {
        tiers,
        ..Plan::default()
    };
    let instance = plan.start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let ask = |mine: u64, other: u64| {
        let inner = cache.clone();
        cache.get_or_compute(mine, &NONE, move || async move {
            // Both have begun before either asks.
            tokio::time::sleep(MILLI).await;
            let again = inner.clone();
            let value = inner.get_or_compute(other, &NONE, move || async move {
                let value = again.get_or_compute(mine, &NONE, || ready(Ok::<_, CacheError>(0)));
                value.await.map(|value| *value)
            });
            value.await.map(|value| *value)
        })
    };
    let both = async { tokio::join!(ask(1, 2), ask(2, 1)) };
    let began = tokio::time::Instant::now();
    let (one, two) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    for outcome in [one, two] {
        let error = outcome.unwrap_err();
        assert!(
            error.is_failed() || error.is_busy() || error.is_nested(),
            "{error}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // And nothing is left of it.
    for key in [1, 2] {
        let value = cache.get_or_compute(key, &NONE, move || ready(Ok::<_, CacheError>(key)));
        assert_eq!(*value.await.unwrap(), key);
    }
}

#[tokio::test]
async fn other_keys_tenants_and_caches_may_be_asked_for_within_a_computation() {
    let instance = Plan::default().start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let others = [
        cache.for_tenant("a"),
        cache.for_tenant("b"),
        instance.tiers.cache::<u64>("figure"),
        cache.clone(),
    ];
    let asking = cache.get_or_compute(7, &NONE, move || async move {
        let mut sum = 0;
        for (at, other) in others.iter().enumerate() {
            let key = if at == 3 { 8 } else { 7 };
            let value = other.get_or_compute(key, &NONE, || ready(Ok::<_, CacheError>(1)));
            sum += *value.await?;
        }
        Ok::<_, CacheError>(sum)
    });
    assert_eq!(*soon(asking).await.unwrap(), 4);
}

#[derive(Debug, thiserror::Error)]
#[error("on purpose")]
struct CacheErrorLike;

/// Who came to a flight that had begun before a purge, three times in a row, was once told that the cache is
/// busy: on a key that is purged more often than it can be computed that was nearly everybody.
#[tokio::test(start_paused = true)]
async fn a_storm_of_purges_is_nobodys_error() {
    let instance = Plan::default().start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let over = Arc::new(AtomicBool::new(false));
    let storm = {
        let (cache, over) = (cache.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                cache.purge(7).await.unwrap();
                tokio::time::sleep(MILLI).await;
            }
        })
    };
    let origin = Origin::default();
    let mut callers = tokio::task::JoinSet::new();
    for nth in 0..20_u32 {
        let (cache, origin) = (cache.clone(), origin.clone());
        callers.spawn(async move {
            tokio::time::sleep(MILLI * nth / 3).await;
            for _ in 0..20 {
                let value = cache.get_or_compute(7, &NONE, origin.after(MILLI * 5));
                value.await.unwrap();
            }
        });
    }
    callers.join_all().await;
    over.store(true, Ordering::SeqCst);
    storm.await.unwrap();
    assert!(origin.asked() < 400, "some were shared: {}", origin.asked());
}

/// A task that was to ask Redis for all who waited, and was aborted before it ran, once left behind a list that
/// nobody would ever ask for: everybody who came later waited for ever.
#[tokio::test]
async fn a_question_to_redis_that_is_aborted_leaves_nobody_waiting() {
    let server = TestRedis::start();
    let instance = Plan::redis(&server.url()).start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let first = tokio::spawn(cache.get(7));
    // One turn: it asks, and the task that asks for it has not run yet.
    tokio::task::yield_now().await;
    drop(instance.tasks);
    assert_eq!(soon(first).await.unwrap(), None);
    assert_eq!(soon(cache.get(7)).await, None);
    let value = cache.get_or_compute(7, &NONE, || ready(Ok::<_, CacheError>(1)));
    assert_eq!(*soon(value).await.unwrap(), 1);
}

/// A value that is found is no miss, and one that is looked at and not taken is no hit.
#[tokio::test]
async fn what_is_found_in_redis_is_a_hit_and_not_a_miss() {
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    let (one, two) = (plan.start().await, plan.start().await);
    let origin = Origin::default();
    let caches: [TypedCache<u64>; 2] = [&one, &two].map(|one: &Instance| one.tiers.cache("number"));
    let options = EntryOptions::new().stale_while_revalidate(Duration::from_secs(60));
    let ask = async |cache: &TypedCache<u64>| {
        let value = cache.get_or_compute(7, &options, origin.answer()).await;
        *value.unwrap()
    };
    assert_eq!(ask(&caches[0]).await, 1);
    stored(&server, "number", 1).await;
    assert_eq!(ask(&caches[1]).await, 1);
    let stats = caches[1].stats();
    assert_eq!((stats.hits_warm, stats.misses), (1, 0), "{stats:?}");
    let stats = caches[0].stats();
    assert_eq!((stats.misses, stats.computed), (1, 1), "{stats:?}");
    // It is stale: who computes it anew finds it in Redis, and has no use for it.
    caches[1].expire(7).await.unwrap();
    assert_eq!(ask(&caches[1]).await, 1);
    until("it is computed", || origin.asked() == 2).await;
    until("and here", || caches[1].peek(7).is_some()).await;
    let stats = caches[1].stats();
    assert_eq!((stats.hits_warm, stats.misses), (1, 0), "{stats:?}");
    assert_eq!((stats.computed, stats.served_stale), (1, 1), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_adds_up() {
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    let (one, two) = (plan.start().await, plan.start().await);
    let origin = Origin::default();
    let failing = Arc::new(AtomicU64::new(0));
    let mut callers = tokio::task::JoinSet::new();
    const CALLERS: u64 = 16;
    const CALLS: u64 = 200;
    for caller in 0..CALLERS {
        let instance = if caller % 2 == 0 { &one } else { &two };
        let cache: TypedCache<u64> = instance.tiers.cache("number");
        let (origin, failing) = (origin.clone(), Arc::clone(&failing));
        callers.spawn(async move {
            let mut errors = 0;
            for call in 0..CALLS {
                let key = call * 7 % 40;
                let (origin, failing) = (origin.clone(), Arc::clone(&failing));
                let value = cache.get_or_compute(key, &NONE, move || async move {
                    tokio::time::sleep(MILLI).await;
                    let nth = origin.next();
                    if key % 10 == 9 {
                        failing.fetch_add(1, Ordering::SeqCst);
                        return Err(CacheErrorLike);
                    }
                    Ok(nth)
                });
                errors += u64::from(value.await.is_err());
                if call % 50 == 49 {
                    cache.purge(key).await.unwrap();
                }
            }
            errors
        });
    }
    let errors: u64 = callers.join_all().await.into_iter().sum();
    assert!(errors > 0);
    let stats: [_; 2] = [&one, &two].map(|one| one.tiers.stats());
    let sum = |what: fn(&tower_keep::tiers::CacheStats) -> u64| stats.iter().map(what).sum::<u64>();
    let failed = failing.load(Ordering::SeqCst);
    assert_eq!(sum(|stats| stats.failed), failed, "{stats:?}");
    assert_eq!(
        sum(|stats| stats.computed),
        origin.asked() - failed,
        "{stats:?}"
    );
    assert_eq!(sum(|stats| stats.misses), origin.asked(), "{stats:?}");
    // Each call was answered by memory, by Redis, by its own computation or by that of somebody it waited for.
    let answers = sum(|stats| {
        stats.hits_hot + stats.hits_warm + stats.computed + stats.failed + stats.collapsed
    });
    assert!(answers >= CALLERS * CALLS, "{answers}: {stats:?}");
    assert_eq!(sum(|stats| stats.unreadable + stats.served_stale), 0);
    for (instance, stats) in [&one, &two].into_iter().zip(stats) {
        let cache: TypedCache<u64> = instance.tiers.cache("number");
        assert_eq!(cache.stats().hits_hot, stats.hits_hot);
        assert!(stats.entries <= 36, "{stats:?}");
    }
}
