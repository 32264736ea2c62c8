//! What time does to values of the typed cache: how long they live where, and what may stand in at their end.
//!
//! The clock is moved by hand, and Tokio's stands still where somebody waits, so nothing here sleeps.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_keep::clock::{Clock, ManualClock};
use tower_keep::tiers::{CacheError, Cached, Computed, EntryOptions, MemoryCold, TypedCache};

use crate::redis::TestRedis;
use crate::store::until;
use crate::tiers_room::{Instance, Plan};

pub const NONE: EntryOptions = EntryOptions::new();
const SECOND: Duration = Duration::from_secs(1);

/// Counts how often it is asked. What it says is how often it has been.
#[derive(Clone, Default)]
pub struct Origin(Arc<AtomicU64>);

impl Origin {
    pub fn asked(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Answers at once.
    pub fn answer(
        &self,
    ) -> impl FnOnce() -> std::future::Ready<Result<u64, CacheError>> + Send + use<> {
        let origin = self.clone();
        move || ready(Ok(origin.next()))
    }

    /// Answers after a while.
    pub fn after(
        &self,
        takes: Duration,
    ) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Result<u64, CacheError>> + Send>>
    + Send
    + use<> {
        let origin = self.clone();
        move || {
            let nth = origin.next();
            Box::pin(async move {
                tokio::time::sleep(takes).await;
                Ok(nth)
            })
        }
    }

    /// Fails.
    pub fn fail(
        &self,
    ) -> impl FnOnce() -> std::future::Ready<Result<u64, std::io::Error>> + Send + use<> {
        let origin = self.clone();
        move || {
            origin.next();
            ready(Err(std::io::Error::other("the origin is away")))
        }
    }
}

/// Waits until so many entries of a cache are in Redis, and nobody has the lease of one.
pub async fn stored(server: &TestRedis, cache: &str, entries: usize) {
    let mut raw = server.raw();
    until("it is written", || {
        let keys = raw.must(&["KEYS", &format!("*{{*{cache}:*")]);
        let is_lease = |key: &crate::redis::Answer| key.text().ends_with("}:lease");
        keys.array().len() == entries && !keys.array().iter().any(is_lease)
    })
    .await;
}

struct ByHand {
    instance: Instance,
    hand: ManualClock,
    cache: TypedCache<u64>,
    origin: Origin,
}

impl ByHand {
    async fn new() -> Self {
        Self::of(Plan::default()).await
    }

    async fn of(mut plan: Plan) -> Self {
        let (clock, hand) = Clock::manual();
        plan.clock = Some(clock);
        let instance = plan.start().await;
        Self {
            cache: instance.tiers.cache("number"),
            instance,
            hand,
            origin: Origin::default(),
        }
    }

    async fn ask(&self, options: &EntryOptions) -> u64 {
        let asking = self.cache.get_or_compute(7, options, self.origin.answer());
        *asking.await.unwrap()
    }

    async fn ask_in_vain(&self, options: &EntryOptions) -> Result<Cached<u64>, CacheError> {
        self.cache
            .get_or_compute(7, options, self.origin.fail())
            .await
    }

    /// Waits until nothing is computed any more behind anybody's back: as many tasks run as did before.
    async fn quiet(&self, tasks: usize) {
        let spawner = self.instance.tasks.spawner();
        until("all flights have ended", || spawner.running() <= tasks).await;
    }

    fn tasks(&self) -> usize {
        self.instance.tasks.spawner().running()
    }
}

#[tokio::test]
async fn what_is_stale_is_served_at_once_and_computed_anew_behind_the_callers_back() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND * 10)
        .stale_while_revalidate(SECOND * 5);
    let tasks = by_hand.tasks();
    assert_eq!(by_hand.ask(&options).await, 1);
    by_hand.hand.advance(SECOND * 12);
    let asking = by_hand
        .cache
        .get_or_compute(7, &options, by_hand.origin.after(SECOND / 50));
    assert_eq!(*asking.await.unwrap(), 1, "stale, and at once");
    assert_eq!(by_hand.cache.stats().served_stale, 1);
    by_hand.quiet(tasks).await;
    assert_eq!(by_hand.cache.peek(7).as_deref(), Some(&2));
    assert_eq!(by_hand.ask(&options).await, 2);
    // Past its grace it is nothing.
    by_hand.hand.advance(SECOND * 15);
    assert_eq!(by_hand.ask(&options).await, 3);
    assert_eq!(by_hand.cache.stats().served_stale, 1);
}

#[tokio::test]
async fn a_stale_value_is_computed_anew_once_for_all_who_are_served_it() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND)
        .stale_while_revalidate(SECOND * 60);
    by_hand.ask(&options).await;
    by_hand.hand.advance(SECOND * 2);
    let tasks = by_hand.tasks();
    for _ in 0..100 {
        let slow = by_hand.origin.after(SECOND / 20);
        let value = by_hand.cache.get_or_compute(7, &options, slow).await;
        assert_eq!(*value.unwrap(), 1);
    }
    by_hand.quiet(tasks).await;
    assert_eq!(by_hand.origin.asked(), 2);
    let stats = by_hand.cache.stats();
    assert_eq!((stats.served_stale, stats.computed), (100, 2));
    assert_eq!(by_hand.ask(&options).await, 2);
}

#[tokio::test]
async fn what_is_stale_stands_in_where_computing_fails_as_long_as_it_may() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND * 10)
        .stale_if_error(SECOND * 100);
    assert_eq!(by_hand.ask(&options).await, 1);
    for _ in 0..3 {
        by_hand.hand.advance(SECOND * 20);
        assert_eq!(*by_hand.ask_in_vain(&options).await.unwrap(), 1);
        assert!(by_hand.cache.peek(7).is_none(), "it is not fresh for that");
        assert!(by_hand.cache.get(7).await.is_none());
    }
    assert_eq!(by_hand.origin.asked(), 4, "each time it was tried");
    by_hand.hand.advance(SECOND * 50);
    let error = by_hand.ask_in_vain(&options).await.unwrap_err();
    assert!(error.is_failed(), "{error}");
    assert_eq!(by_hand.ask(&options).await, 6);
    let stats = by_hand.cache.stats();
    assert_eq!(
        (stats.computed, stats.failed, stats.served_stale),
        (2, 4, 3)
    );
}

/// A purge is no failure: what it has reached must not stand in for anything.
#[tokio::test]
async fn what_was_purged_does_not_stand_in_for_anything() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND * 10)
        .stale_while_revalidate(SECOND * 100)
        .stale_if_error(SECOND * 100)
        .soft_timeout(SECOND / 100);
    by_hand.ask(&options).await;
    by_hand.hand.advance(SECOND * 11);
    by_hand.cache.purge(7).await.unwrap();
    assert!(by_hand.ask_in_vain(&options).await.is_err());
    let slow = by_hand.origin.after(SECOND / 20);
    let value = by_hand.cache.get_or_compute(7, &options, slow).await;
    assert_eq!(*value.unwrap(), 3);
}

/// Nor what is purged while it is computed anew: whoever computes found the old value in Redis before.
#[tokio::test]
async fn what_is_purged_meanwhile_does_not_stand_in_for_a_computation_that_fails() {
    let server = TestRedis::start();
    let by_hand = ByHand::of(Plan::redis(&server.url())).await;
    let options = EntryOptions::new()
        .ttl(SECOND * 10)
        .ttl_hot(SECOND * 5)
        .stale_if_error(SECOND * 100);
    by_hand.ask(&options).await;
    stored(&server, "number", 1).await;
    for purged in [false, true] {
        by_hand.hand.advance(SECOND * 11);
        by_hand.instance.verified().await;
        let (cache, fail) = (by_hand.cache.clone(), by_hand.origin.fail());
        let outcome = by_hand
            .cache
            .get_or_compute(7, &options, move || async move {
                if purged {
                    drop(cache.purge(7));
                }
                fail().await
            });
        let outcome = outcome.await;
        assert_eq!(outcome.is_err(), purged, "{:?}", outcome.as_deref());
    }
}

#[tokio::test]
async fn what_was_expired_is_served_while_it_is_computed_anew() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND * 1_000)
        .stale_while_revalidate(SECOND * 60);
    let tasks = by_hand.tasks();
    by_hand.ask(&options).await;
    by_hand.cache.expire(7).await.unwrap();
    assert!(by_hand.cache.peek(7).is_none());
    assert_eq!(by_hand.ask(&options).await, 1);
    by_hand.quiet(tasks).await;
    assert_eq!(by_hand.cache.peek(7).as_deref(), Some(&2));
    // Where nothing may be served past its end, the end is the end.
    let strict = EntryOptions::new().ttl(SECOND * 1_000);
    let other = || {
        by_hand
            .cache
            .get_or_compute(8, &strict, by_hand.origin.answer())
    };
    assert_eq!(*other().await.unwrap(), 3);
    by_hand.cache.expire(8).await.unwrap();
    assert_eq!(*other().await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_soft_timeout_serves_what_is_stale_and_stores_what_comes_late() {
    let by_hand = ByHand::new().await;
    for options in [
        EntryOptions::new().stale_while_revalidate(SECOND * 60),
        EntryOptions::new().stale_if_error(SECOND * 60),
    ] {
        by_hand.cache.purge(7).await.unwrap();
        let options = options.ttl(SECOND * 10).soft_timeout(SECOND);
        let first = by_hand.ask(&options).await;
        by_hand.hand.advance(SECOND * 11);
        // In time.
        let quick = by_hand.origin.after(SECOND / 2);
        let value = by_hand.cache.get_or_compute(7, &options, quick).await;
        assert_eq!(*value.unwrap(), first + 1);
        by_hand.hand.advance(SECOND * 11);
        // Too late.
        let tasks = by_hand.tasks();
        let began = tokio::time::Instant::now();
        let slow = by_hand.origin.after(SECOND * 5);
        let value = by_hand.cache.get_or_compute(7, &options, slow).await;
        assert_eq!(*value.unwrap(), first + 1, "what is stale");
        let waited = began.elapsed();
        assert!(waited >= SECOND && waited < SECOND * 2, "{waited:?}");
        // Whoever comes when it has been on its way for so long already does not wait at all.
        tokio::time::advance(SECOND).await;
        let began = tokio::time::Instant::now();
        let value = by_hand
            .cache
            .get_or_compute(7, &options, by_hand.origin.answer());
        assert_eq!(*value.await.unwrap(), first + 1);
        assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
        by_hand.quiet(tasks).await;
        assert_eq!(by_hand.cache.peek(7).as_deref(), Some(&(first + 2)));
        assert_eq!(by_hand.origin.asked(), first + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_soft_timeout_cuts_nothing_short_where_there_is_nothing_to_stand_in() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .stale_if_error(SECOND * 60)
        .soft_timeout(SECOND / 10);
    let slow = by_hand.origin.after(SECOND * 5);
    let value = by_hand.cache.get_or_compute(7, &options, slow).await;
    assert_eq!(*value.unwrap(), 1);
    assert_eq!(by_hand.cache.stats().served_stale, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hard_timeout_ends_the_computation_and_something_stale_stands_in() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND * 10)
        .stale_if_error(SECOND * 60)
        .hard_timeout(SECOND);
    by_hand.ask(&options).await;
    by_hand.hand.advance(SECOND * 11);
    for stands_in in [true, false] {
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let began = tokio::time::Instant::now();
        let outcome = by_hand.cache.get_or_compute(7, &options, || async move {
            let _inside = inside;
            std::future::pending::<Result<u64, CacheError>>().await
        });
        let outcome = outcome.await;
        assert!(began.elapsed() < SECOND * 2, "{:?}", began.elapsed());
        if stands_in {
            assert_eq!(*outcome.unwrap(), 1);
        } else {
            assert!(outcome.unwrap_err().is_timed_out());
        }
        // It is gone, with all it held, and nobody waits behind it.
        until("dropped", || Arc::strong_count(&held) == 1).await;
        by_hand.hand.advance(SECOND * 60);
    }
    assert_eq!(by_hand.ask(&options).await, 2);
    let stats = by_hand.cache.stats();
    assert_eq!((stats.computed, stats.failed), (2, 2));
}

#[tokio::test]
async fn that_there_is_nothing_lives_as_long_as_is_said_for_it() {
    let by_hand = ByHand::new().await;
    let cache: TypedCache<Option<u64>> = by_hand.instance.tiers.cache("maybe");
    let options = EntryOptions::new()
        .ttl(SECOND * 100)
        .ttl_negative(SECOND * 5);
    let ask = async |found: Option<u64>| {
        let origin = by_hand.origin.clone();
        let value = cache.get_or_compute(7, &options, move || {
            origin.next();
            ready(Ok::<_, CacheError>(Computed::optional(found)))
        });
        *value.await.unwrap()
    };
    assert_eq!(ask(None).await, None);
    assert_eq!(ask(Some(1)).await, None, "it is remembered");
    by_hand.hand.advance(SECOND * 6);
    assert_eq!(ask(Some(1)).await, Some(1));
    by_hand.hand.advance(SECOND * 90);
    assert_eq!(ask(None).await, Some(1), "what there is lives longer");
    assert_eq!(by_hand.origin.asked(), 2);
}

#[tokio::test]
async fn a_failure_is_remembered_for_as_long_as_is_said_and_by_no_other_key() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new().ttl_error(SECOND * 5);
    for _ in 0..3 {
        let error = by_hand.ask_in_vain(&options).await.unwrap_err();
        assert!(error.downcast_ref::<std::io::Error>().is_some(), "{error}");
    }
    assert_eq!(by_hand.origin.asked(), 1);
    assert!(by_hand.cache.peek(7).is_none() && by_hand.cache.get(7).await.is_none());
    let many = by_hand.cache.get_many([7, 8]).await;
    assert!(many.iter().all(Option::is_none));
    let other = by_hand
        .cache
        .get_or_compute(8, &options, by_hand.origin.answer());
    assert_eq!(*other.await.unwrap(), 2);
    by_hand.hand.advance(SECOND * 6);
    assert_eq!(by_hand.ask(&options).await, 3);
    // Whoever purges wants to know anew.
    by_hand.cache.purge(7).await.unwrap();
    assert!(by_hand.ask_in_vain(&options).await.is_err());
    by_hand.cache.purge(7).await.unwrap();
    assert_eq!(by_hand.ask(&options).await, 5);
}

/// A value that took ten seconds to compute, and ends in a millisecond.
async fn near_its_end(by_hand: &ByHand, options: &EntryOptions) {
    let (origin, hand) = (by_hand.origin.clone(), by_hand.hand.clone());
    let asking = by_hand.cache.get_or_compute(7, options, move || {
        hand.advance(SECOND * 10);
        ready(Ok::<_, CacheError>(origin.next()))
    });
    assert_eq!(asking.await.unwrap().cost(), SECOND * 10);
    by_hand.hand.advance(SECOND * 100 - SECOND / 1_000);
    assert!(by_hand.cache.peek(7).is_some(), "still fresh");
}

/// One question in ten thousand is not followed by an early computation.
async fn until_early(by_hand: &ByHand, ask: impl AsyncFn()) {
    for _ in 0..10 {
        ask().await;
        if by_hand.cache.stats().refreshed_early > 0 {
            return;
        }
    }
    panic!("nothing was computed early");
}

#[tokio::test]
async fn a_value_near_its_end_is_computed_before_it_and_nobody_waits() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new().ttl(SECOND * 100).early_refresh(1.0);
    near_its_end(&by_hand, &options).await;
    let tasks = by_hand.tasks();
    until_early(&by_hand, async || {
        assert_eq!(by_hand.ask(&options).await, 1)
    })
    .await;
    by_hand.quiet(tasks).await;
    assert_eq!(by_hand.cache.peek(7).as_deref(), Some(&2));
    by_hand.hand.advance(SECOND);
    assert_eq!(by_hand.ask(&options).await, 2, "past the end of the first");
    let stats = by_hand.cache.stats();
    assert_eq!((stats.misses, stats.computed), (1, 2));
    assert_eq!((stats.refreshed_early, stats.served_stale), (1, 0));
    // And long before its end nothing of the kind happens.
    for _ in 0..1_000 {
        by_hand.ask(&options).await;
    }
    assert_eq!(by_hand.origin.asked(), 2);
}

#[tokio::test]
async fn what_was_stored_together_does_not_end_together() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new().ttl(SECOND * 100).jitter_percent(50);
    for key in 0..200_u64 {
        let asking = by_hand
            .cache
            .get_or_compute(key, &options, by_hand.origin.answer());
        asking.await.unwrap();
    }
    let living = || {
        (0..200_u64)
            .filter(|key| by_hand.cache.peek(key).is_some())
            .count()
    };
    by_hand.hand.advance(SECOND * 50 - SECOND / 1_000);
    assert_eq!(living(), 200, "half of a life is everybody's");
    by_hand.hand.advance(SECOND * 25);
    let left = living();
    assert!((50..150).contains(&left), "about half of them: {left}");
    by_hand.hand.advance(SECOND * 26);
    assert_eq!(living(), 0, "and nobody has more than a whole one");
}

#[tokio::test]
async fn a_life_of_zero_is_shared_by_those_who_ask_together_and_stored_nowhere() {
    let server = TestRedis::start();
    let cold = Arc::new(MemoryCold::new(1 << 20));
    let mut plan = Plan::redis(&server.url());
    plan.cold = Some(Arc::<MemoryCold>::clone(&cold));
    let instance = plan.start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let (origin, options) = (Origin::default(), EntryOptions::new().ttl(Duration::ZERO));
    let together =
        (0..20).map(|_| cache.get_or_compute(7, &options, origin.after(Duration::from_millis(50))));
    for value in futures_util::future::join_all(together).await {
        assert_eq!(*value.unwrap(), 1);
    }
    assert!(cache.get(7).await.is_none());
    assert!(instance.tiers.is_empty() && cold.is_empty());
    let left = server.raw().must(&["KEYS", "*number*"]);
    assert_eq!(left.array().len(), 0, "{left:?}");
    let value = cache.get_or_compute(7, &options, origin.answer()).await;
    assert_eq!(*value.unwrap(), 2);
}

#[tokio::test]
async fn a_century_counts_as_ten_years() {
    let by_hand = ByHand::new().await;
    for life in [SECOND * 86_400 * 36_525, Duration::MAX] {
        let options = EntryOptions::new()
            .ttl(life)
            .stale_if_error(Duration::MAX)
            .stale_while_revalidate(Duration::MAX);
        by_hand.cache.purge(7).await.unwrap();
        let first = by_hand.ask(&options).await;
        by_hand.hand.advance(SECOND * 86_400 * 365 * 9);
        assert_eq!(by_hand.ask(&options).await, first);
        assert!(by_hand.cache.peek(7).is_some());
        by_hand.hand.advance(SECOND * 86_400 * 365 * 2);
        assert!(by_hand.cache.peek(7).is_none(), "ten years are over");
    }
}

#[tokio::test]
async fn a_copy_leaves_memory_at_its_cap_and_is_found_in_redis_with_what_is_left_of_its_life() {
    let server = TestRedis::start();
    let by_hand = ByHand::of(Plan::redis(&server.url())).await;
    let options = EntryOptions::new()
        .ttl(SECOND * 1_000)
        .ttl_hot(SECOND * 60)
        .ttl_warm(SECOND * 2_000);
    by_hand.ask(&options).await;
    stored(&server, "number", 1).await;
    let cache = by_hand.cache.clone().options(options.clone());
    for moved in 1..=15 {
        by_hand.hand.advance(SECOND * 61);
        by_hand.instance.verified().await;
        assert!(cache.peek(7).is_none(), "the copy has left");
        assert_eq!(cache.get(7).await.as_deref(), Some(&1));
        assert!(cache.peek(7).is_some(), "and come back");
        assert_eq!(cache.stats().hits_warm, moved);
    }
    assert_eq!(by_hand.ask(&options).await, 1);
    // 915 of a thousand seconds have passed; however often it was moved, its end is where it was.
    by_hand.hand.advance(SECOND * 59);
    by_hand.instance.verified().await;
    assert_eq!(cache.get(7).await.as_deref(), Some(&1));
    by_hand.hand.advance(SECOND * 27);
    by_hand.instance.verified().await;
    assert!(cache.peek(7).is_none() && cache.get(7).await.is_none());
    assert_eq!(by_hand.ask(&options).await, 2);
}

#[tokio::test]
async fn a_copy_that_has_left_redis_is_found_in_the_cold_store_and_shared_again() {
    let server = TestRedis::start();
    let cold = Arc::new(MemoryCold::new(1 << 20));
    let mut plan = Plan::redis(&server.url());
    plan.cold = Some(Arc::<MemoryCold>::clone(&cold));
    let by_hand = ByHand::of(plan).await;
    let options = EntryOptions::new()
        .ttl(SECOND * 7_200)
        .ttl_warm(SECOND * 5_000);
    by_hand.ask(&options).await;
    stored(&server, "number", 1).await;
    until("it is cold", || cold.len() == 1).await;
    let key = server.raw().must(&["KEYS", "*number*"]);
    let key = key.array()[0].text();
    let left = server.raw().must(&["PTTL", &key]).integer();
    assert!((4_900_000..=5_000_000).contains(&left), "{left}");
    server.raw().must(&["DEL", &key]);
    by_hand.hand.advance(SECOND * 1_000);
    by_hand.instance.verified().await;
    assert_eq!(by_hand.ask(&options).await, 1);
    assert_eq!(by_hand.cache.stats().hits_cold, 1);
    let left = server.raw().must(&["PTTL", &key]).integer();
    assert!((4_900_000..=5_000_000).contains(&left), "{left}");
    // Its end is where it was.
    by_hand.hand.advance(SECOND * 6_201);
    by_hand.instance.verified().await;
    assert_eq!(by_hand.ask(&options).await, 2);
}

/// A computation that fails early, while there is a good value, once put the failure in its place.
#[tokio::test]
async fn a_failure_is_not_remembered_in_place_of_a_value_that_is_still_fresh() {
    let by_hand = ByHand::new().await;
    let options = EntryOptions::new()
        .ttl(SECOND * 100)
        .ttl_error(SECOND * 1_000)
        .early_refresh(1.0);
    near_its_end(&by_hand, &options).await;
    let tasks = by_hand.tasks();
    until_early(&by_hand, async || {
        assert_eq!(*by_hand.ask_in_vain(&options).await.unwrap(), 1);
    })
    .await;
    by_hand.quiet(tasks).await;
    assert_eq!(by_hand.cache.stats().failed, 1);
    assert_eq!(by_hand.cache.peek(7).as_deref(), Some(&1));
    assert_eq!(*by_hand.ask_in_vain(&options).await.unwrap(), 1);
}

/// What is never to be in Redis is computed by each instance, and what is never to be in memory by none twice.
#[tokio::test]
async fn a_cap_of_zero_keeps_a_copy_out_of_its_tier() {
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    let instance = plan.start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let origin = Origin::default();
    let not_hot = EntryOptions::new().ttl_hot(Duration::ZERO);
    for _ in 0..3 {
        let value = cache.get_or_compute("not hot", &not_hot, origin.answer());
        assert_eq!(*value.await.unwrap(), 1);
        stored(&server, "number", 1).await;
    }
    assert!(instance.tiers.is_empty());
    let not_warm = EntryOptions::new().ttl_warm(Duration::ZERO);
    for _ in 0..3 {
        let value = cache.get_or_compute("not warm", &not_warm, origin.answer());
        assert_eq!(*value.await.unwrap(), 2);
    }
    let left = server.raw().must(&["KEYS", "*number*"]);
    assert_eq!(left.array().len(), 1, "{left:?}");
}
