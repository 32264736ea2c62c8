//! The typed cache over memory, over Redis, and over Redis with a cold store: one suite for all of them, and
//! what only some of them can do.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::tiers::{CacheError, Computed, EntryOptions, MemoryCold, Tiers, TypedCache};

use crate::redis::TestRedis;
use crate::store::until;
use crate::tiers_room::{Instance, Plan};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    id: u64,
    text: String,
}

impl Report {
    fn new(id: u64, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { id, text }
    }
}

const NONE: EntryOptions = EntryOptions::new();

/// Counts how often it is computed.
#[derive(Clone, Default)]
struct Origin(Arc<AtomicU64>);

impl Origin {
    fn asked(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// A computation whose value says which one it is.
    fn report(
        &self,
        id: u64,
    ) -> impl FnOnce() -> std::future::Ready<Result<Report, CacheError>> + Send + 'static {
        let origin = self.clone();
        move || {
            let nth = origin.0.fetch_add(1, Ordering::SeqCst) + 1;
            std::future::ready(Ok(Report::new(id, format!("computed {nth}"))))
        }
    }
}

/// Two instances that share what they can.
struct Pair {
    one: Instance,
    two: Instance,
    shared: bool,
    _server: Option<TestRedis>,
}

impl Pair {
    fn caches(&self) -> (TypedCache<Report>, TypedCache<Report>) {
        (
            self.one.tiers.cache("report"),
            self.two.tiers.cache("report"),
        )
    }
}

/// Says the same of memory, of Redis, and of Redis with a cold store.
async fn of_all<F: Future<Output = ()> + Send>(says: impl Fn(Pair) -> F + Send + Sync) {
    let plan = Plan::default();
    says(Pair {
        one: plan.start().await,
        two: plan.start().await,
        shared: false,
        _server: None,
    })
    .await;
    for cold in [false, true] {
        let server = TestRedis::start();
        let mut plan = Plan::redis(&server.url());
        if cold {
            plan.cold = Some(Arc::new(MemoryCold::new(1 << 20)));
        }
        says(Pair {
            one: plan.start().await,
            two: plan.start().await,
            shared: true,
            _server: Some(server),
        })
        .await;
    }
}

#[tokio::test]
async fn a_value_is_computed_once_and_found_afterwards() {
    of_all(async |pair| {
        let (one, two) = pair.caches();
        let origin = Origin::default();
        for _ in 0..3 {
            let report = one
                .get_or_compute((7, "weekly"), &NONE, origin.report(7))
                .await
                .unwrap();
            assert_eq!(*report, Report::new(7, "computed 1"));
        }
        assert_eq!(one.peek((7, "weekly")).unwrap().text, "computed 1");
        assert_eq!(one.stats().hits_hot, 2);
        if pair.shared {
            let report = loop {
                if let Some(report) = two.get((7, "weekly")).await {
                    break report;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(report.text, "computed 1");
            assert_eq!(two.stats().hits_warm, 1);
        }
        assert_eq!(origin.asked(), 1);
    })
    .await;
}

/// What belongs to no tenant is invalidated in every shard, and stamped in one of them.
#[tokio::test]
async fn what_is_set_is_there_in_however_many_shards_the_journal_is() {
    let server = TestRedis::start();
    let mut plan = Plan::redis(&server.url());
    plan.journal.shards = 4;
    let instance = plan.start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    let receipt = cache.set(7, 1, &NONE).await.unwrap();
    assert_eq!(receipt.0.inc, instance.journal.position().inc);
    assert_eq!(cache.peek(7).as_deref(), Some(&1));
    let acme = cache.for_tenant("acme");
    acme.set(7, 2, &NONE).await.unwrap();
    assert_eq!(acme.peek(7).as_deref(), Some(&2));
}

#[tokio::test]
async fn what_is_purged_is_computed_anew_everywhere() {
    of_all(async |pair| {
        let (one, two) = pair.caches();
        let origin = Origin::default();
        let options = EntryOptions::new().tag("reports");
        let nth = async |cache: &TypedCache<Report>| {
            let report = cache
                .get_or_compute(7, &options, origin.report(7))
                .await
                .unwrap();
            report.text.clone()
        };
        nth(&one).await;
        let before = nth(&two).await;
        for purge in 0..4 {
            match purge {
                0 => one.purge(7).await.unwrap(),
                1 => one.purge_tag("reports").await.unwrap(),
                2 => one.purge_all().await.unwrap(),
                _ => two.purge(7).await.unwrap(),
            };
            let asked = origin.asked();
            let (mine, its) = (nth(&one).await, nth(&two).await);
            assert_ne!(mine, before, "purge {purge}");
            let new = origin.asked() - asked;
            if pair.shared {
                assert_eq!((new, its), (1, mine), "purge {purge}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_that_was_invalidated_while_it_was_computed_is_not_stored() {
    of_all(async |pair| {
        let (one, _) = pair.caches();
        let cache = one.clone();
        let old = one.get_or_compute(7, &NONE, move || async move {
            cache.purge(7).await.unwrap();
            Ok::<_, CacheError>(Report::new(7, "old"))
        });
        assert_eq!(old.await.unwrap().text, "old", "for who asked before");
        assert!(one.get(7).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn tags_that_the_computation_finds_out_count() {
    of_all(async |pair| {
        let (one, two) = pair.caches();
        let compute = || async {
            let report = Computed::new(Report::new(7, "x")).tag("author:3");
            Ok::<_, CacheError>(report)
        };
        one.get_or_compute(7, &NONE, compute).await.unwrap();
        two.get_or_compute(7, &NONE, compute).await.unwrap();
        one.purge_tag("author:3").await.unwrap();
        assert!(one.get(7).await.is_none());
        if pair.shared {
            assert!(two.get(7).await.is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn many_callers_are_answered_by_one_computation() {
    of_all(async |pair| {
        let (one, two) = pair.caches();
        let origin = Origin::default();
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..500 {
            let cache = if n % 2 == 0 || !pair.shared {
                one.clone()
            } else {
                two.clone()
            };
            let origin = origin.clone();
            callers.spawn(async move {
                let slow = move || async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    origin.report(7)().await
                };
                cache
                    .get_or_compute(7, &NONE, slow)
                    .await
                    .unwrap()
                    .text
                    .clone()
            });
        }
        for text in callers.join_all().await {
            assert_eq!(text, "computed 1");
        }
        assert_eq!(origin.asked(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_error_a_panic_and_a_limit_reach_everybody_who_waits() {
    of_all(async |pair| {
        let (one, _) = pair.caches();
        let limit = EntryOptions::new().hard_timeout(Duration::from_millis(20));
        type Test = fn(&CacheError) -> bool;
        let kinds: [(&str, Test); 3] = [
            ("error", CacheError::is_failed),
            ("panic", CacheError::is_panicked),
            ("slow", CacheError::is_timed_out),
        ];
        for (kind, is) in kinds {
            let callers = (0..10).map(|_| {
                one.get_or_compute(kind, &limit, move || async move {
                    tokio::task::yield_now().await;
                    match kind {
                        "error" => Err(std::io::Error::other("no")),
                        "panic" => panic!("on purpose"),
                        _ => std::future::pending::<Result<Report, _>>().await,
                    }
                })
            });
            for outcome in futures_util::future::join_all(callers).await {
                let error = outcome.unwrap_err();
                assert!(is(&error), "{kind}: {error}");
                assert_eq!(
                    error.downcast_ref::<std::io::Error>().is_some(),
                    kind == "error"
                );
            }
            // And nothing is left behind.
            let origin = Origin::default();
            one.get_or_compute(kind, &NONE, origin.report(1))
                .await
                .unwrap();
            assert_eq!(origin.asked(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_computation_that_asks_for_itself_is_told_so() {
    of_all(async |pair| {
        let (one, _) = pair.caches();
        let (inner, again) = (one.clone(), one.clone());
        let outer = one.get_or_compute(1, &NONE, move || async move {
            let middle = inner.get_or_compute(2, &NONE, move || async move {
                let report = again.get_or_compute(1, &NONE, || async {
                    Ok::<_, CacheError>(Report::new(1, "never"))
                });
                report.await.map(|report| (*report).clone())
            });
            middle.await.map(|report| (*report).clone())
        });
        let error = outer.await.unwrap_err();
        let mut words = error.to_string();
        let mut source: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(error) = source {
            words = error.to_string();
            source = error.source();
        }
        assert!(words.contains("`report:1`"), "{words}");
    })
    .await;
}

/// One asks, and while his computation lasts others do, whom its value does not do. Returns how many
/// computations there were.
async fn crowd(cache: &TypedCache<Report>, purges: bool) -> u64 {
    let (origin, gate) = (Origin::default(), Arc::new(Semaphore::new(0)));
    let ask = || {
        let (origin, gate, purged) = (origin.clone(), Arc::clone(&gate), cache.clone());
        let asked = cache.get_or_compute(7, &NONE, move || async move {
            let report = origin.report(7)().await;
            drop(gate.acquire().await);
            if purges {
                purged.purge(7).await.unwrap();
            }
            report
        });
        tokio::spawn(asked)
    };
    let first = ask();
    until("the first computes", || origin.asked() == 1).await;
    let others: Vec<_> = (0..20).map(|_| ask()).collect();
    until("the others wait", || cache.stats().collapsed == 20).await;
    gate.add_permits(1);
    for outcome in futures_util::future::join_all(others).await {
        outcome.unwrap().unwrap();
    }
    first.await.unwrap().unwrap();
    origin.asked()
}

/// Those who waited in vain three times over were told that others take too long.
#[tokio::test]
async fn whoever_asks_for_what_is_purged_all_the_time_is_answered() {
    of_all(async |pair| {
        let (one, _) = pair.caches();
        // One for whoever asked first, and one for those who asked before it began.
        assert_eq!(crowd(&one, true).await, 2);
    })
    .await;
}

/// The same where nobody can say whether anything holds.
#[tokio::test]
async fn whoever_asks_while_redis_is_away_is_answered() {
    let server = TestRedis::start();
    let one = Plan::redis(&server.url()).start().await;
    let cache = one.tiers.cache::<Report>("report");
    let origin = Origin::default();
    cache
        .get_or_compute(1, &NONE, origin.report(1))
        .await
        .unwrap();
    assert!(cache.peek(1).is_some());
    server.kill();
    until("memory does not count any more", || cache.peek(1).is_none()).await;
    assert_eq!(crowd(&cache, false).await, 2);
}

/// Counts what is told while it asks the tiers how they are.
#[derive(Default)]
struct Asks(OnceLock<Tiers>, AtomicU64);

impl Recorder for Asks {
    fn record(&self, event: &Event<'_>) {
        if let (Event::Warning { .. }, Some(tiers)) = (event, self.0.get()) {
            self.1
                .fetch_add(1 + tiers.stats().entries, Ordering::SeqCst);
        }
    }
}

/// A recorder that asks would wait for itself if it were told while a lock is held, so all of it is on a thread of
/// its own.
#[test]
fn whoever_hears_of_a_cache_with_two_types_may_ask_the_tiers() {
    let (done, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let asks = Arc::new(Asks::default());
            let plan = Plan {
                events: Events::to(vec![Arc::<Asks>::clone(&asks)]),
                ..Plan::default()
            };
            let tiers = plan.build().tiers;
            assert!(asks.0.set(tiers.clone()).is_ok());
            let (_reports, _texts) = (tiers.cache::<Report>("r"), tiers.cache::<String>("r"));
            let _ = done.send(asks.1.load(Ordering::SeqCst));
        });
    });
    let within = Duration::from_secs(60);
    assert_eq!(seen.recv_timeout(within), Ok(1), "it waits for itself");
}
