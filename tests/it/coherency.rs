//! Whether it is found where instances serve what was invalidated, and whether nothing is where they do not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tower::ServiceExt;
use tower_keep::clock::Clock;
use tower_keep::event::{Event, Recorder};
use tower_keep::invalidation::{CoherencyReport, Invariant};
use tower_keep::journal::JournalStatus;
use tower_keep::{Keep, KeepBuilder, Profile};

use crate::redis::TestRedis;
use crate::store::until;

/// The violations that an instance has told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Recorder for Told {
    fn record(&self, event: &Event<'_>) {
        if let Event::CoherencyViolation { invariant, .. } = event {
            self.0
                .lock()
                .unwrap()
                .push(format!("{invariant}: {event:?}"));
        }
    }
}

/// What is behind the caches: one number for all of them.
#[derive(Debug, Default)]
struct Source {
    value: AtomicU64,
    /// Whether a computation that has read the number waits before it answers.
    holds: AtomicBool,
    read: Notify,
    released: Notify,
}

/// One instance of a service.
#[derive(Clone)]
struct Site {
    keep: Keep,
    app: Router,
    source: Arc<Source>,
    told: Arc<Told>,
}

async fn read(State(source): State<Arc<Source>>, Path(id): Path<u64>) -> impl IntoResponse {
    let value = source.value.load(Ordering::SeqCst);
    if source.holds.load(Ordering::SeqCst) {
        source.read.notify_one();
        source.released.notified().await;
    }
    let fresh = [
        ("cache-control", "public, max-age=86400".to_owned()),
        ("etag", format!("\"{id}-{value}\"")),
    ];
    (fresh, format!("{id}={value}"))
}

fn builder() -> KeepBuilder {
    Keep::builder(Profile::azure_b1())
        .rate_limit(|limits| limits.enabled = false)
        .invalidation(|settings| settings.coherency.sample_every = Duration::from_millis(100))
}

impl Site {
    fn of(builder: KeepBuilder, source: &Arc<Source>) -> Self {
        let told = Arc::new(Told::default());
        let recorder = Arc::clone(&told) as Arc<dyn Recorder>;
        let keep = builder.recorder(recorder).build().unwrap();
        let source = Arc::clone(source);
        let app = Router::new()
            .route("/things/{id}", get(read))
            .layer(keep.layer())
            .with_state(Arc::clone(&source));
        Self {
            keep,
            app,
            source,
            told,
        }
    }

    /// Instances that share a Redis, and have heard from it.
    async fn fleet<const N: usize>(url: &str) -> [Self; N] {
        let source = Arc::new(Source::default());
        let with_redis = || {
            builder().redis(|redis| {
                redis.url = Some(url.to_owned());
                redis.command_timeout = Duration::from_secs(5);
            })
        };
        let fleet = [(); N].map(|()| Self::of(with_redis(), &source));
        for site in &fleet {
            let journal = site.keep.http_cache().journal().clone();
            let verified = move || journal.status() == JournalStatus::Verified;
            until("the journal is verified", verified).await;
        }
        fleet
    }

    async fn get(&self, id: u64) -> String {
        let request = Request::get(format!("/things/{id}"))
            .body(axum::body::Body::empty())
            .unwrap();
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Changes the number, and tells all instances.
    async fn change(&self, id: u64) {
        self.source.value.fetch_add(1, Ordering::SeqCst);
        let purged = self.keep.invalidator().purge_path(&format!("/things/{id}"));
        let _ = purged.await;
    }

    /// Waits until this instance, which has invalidated, has found that.
    async fn finds(&self, invariant: Invariant) {
        let found = || {
            let told = self.told.0.lock().unwrap();
            told.iter().any(|told| told.starts_with(invariant.as_str()))
        };
        let finding = async {
            while !found() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(10), finding).await;
        let report = self.keep.coherency();
        assert!(found.is_ok(), "{invariant:?} is not found: {report:#?}");
        assert!(report.violations[&invariant] > 0, "{report:#?}");
        let only = report.violations.keys().all(|key| *key == invariant);
        assert!(only, "something else is found: {report:#?}");
    }
}

#[tokio::test]
async fn a_push_that_one_instance_overlooks_is_found() {
    let server = TestRedis::start();
    let [a, b] = Site::fleet(&server.url()).await;
    let old = b.get(7).await;
    b.keep.http_cache().journal().lose_next_push();
    a.change(7).await;
    assert_eq!(b.get(7).await, old, "the fault does what it says");
    a.finds(Invariant::Served).await;
    // And at once, by whoever asks.
    let report = a.keep.check_coherency().await;
    assert_eq!(report.windows[0].window, "on_demand");
    assert_eq!((report.windows[0].checks, report.windows[0].clean), (1, 0));
    assert_eq!((report.answers, report.silent), (2, 0), "{report:#?}");
}

#[tokio::test]
async fn markers_that_are_forgotten_without_raising_the_floor_are_found() {
    let server = TestRedis::start();
    let [a, b] = Site::fleet(&server.url()).await;
    let old = b.get(7).await;
    a.change(7).await;
    b.keep.http_cache().journal().forget_markers();
    a.finds(Invariant::Served).await;
    assert_eq!(b.get(7).await, old, "the fault does what it says");
}

#[tokio::test]
async fn an_entry_that_is_stamped_when_it_is_stored_is_found() {
    let server = TestRedis::start();
    let [a, b] = Site::fleet(&server.url()).await;
    b.keep.http_cache().journal().stamp_late(true);
    b.source.holds.store(true, Ordering::SeqCst);
    let asking = tokio::spawn({
        let b = b.clone();
        async move { b.get(7).await }
    });
    b.source.read.notified().await;
    a.change(7).await;
    b.source.holds.store(false, Ordering::SeqCst);
    b.source.released.notify_one();
    let old = asking.await.unwrap();
    assert_eq!(b.get(7).await, old, "the fault does what it says");
    a.finds(Invariant::Stamped).await;
}

/// Reads and changes, some of which overtake each other.
async fn traffic(sites: &[Site], rounds: u64, pause: impl AsyncFn()) {
    for round in 0..rounds {
        let site = |turn: u64| &sites[(turn % sites.len() as u64) as usize];
        if round % 50 == 0 {
            // A computation that is overtaken by an invalidation of what it reads.
            let (reader, id) = (site(round / 50).clone(), round % 7);
            reader.change(1_000 + id).await;
            reader.source.holds.store(true, Ordering::SeqCst);
            let asking = tokio::spawn({
                let reader = reader.clone();
                async move { reader.get(1_000 + id).await }
            });
            reader.source.read.notified().await;
            reader.source.holds.store(false, Ordering::SeqCst);
            site(round / 50 + 1).change(1_000 + id).await;
            reader.source.released.notify_one();
            let _ = asking.await;
        }
        let _ = site(round).get(round % 7).await;
        let _ = site(round / 3).get(1_000 + round % 7).await;
        if round % 5 == 0 {
            site(round / 5).change(round % 7).await;
        }
        pause().await;
    }
}

fn is_clean(report: &CoherencyReport) {
    assert!(report.is_clean(), "{report:#?}");
    for window in &report.windows {
        assert_eq!(window.checks, window.clean, "{report:#?}");
    }
}

#[tokio::test]
async fn three_instances_that_work_raise_nothing() {
    let server = TestRedis::start();
    let sites = Site::fleet::<3>(&server.url()).await;
    traffic(&sites, 400, async || {
        tokio::time::sleep(Duration::from_millis(5)).await;
    })
    .await;
    for site in &sites {
        is_clean(&site.keep.coherency());
        let now = site.keep.check_coherency().await;
        is_clean(&now);
        assert!(now.windows[0].checks > 0, "{now:#?}");
        assert_eq!(now.answers + now.silent, 3, "{now:#?}");
        assert!(now.answers >= 1, "{now:#?}");
        assert!(site.told.0.lock().unwrap().is_empty());
    }
    let checked: u64 = sites
        .iter()
        .map(|site| site.keep.coherency().windows[0].checks)
        .sum();
    assert!(checked >= 10, "{checked} checks prove little");
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_clean_traffic_raises_nothing_and_costs_next_to_nothing() {
    let (clock, hand) = Clock::manual();
    let settings = builder()
        .clock(clock)
        .invalidation(|settings| settings.coherency.sample_every = Duration::from_secs(10));
    let site = Site::of(settings, &Arc::default());
    let sites = [site.clone()];
    // Two thirds of the time in coarse steps, and bursts in between.
    let step = Duration::from_millis(200);
    let rounds = 3_600 * 5;
    traffic(&sites, rounds, async || {
        hand.advance(step);
        tokio::time::sleep(step).await;
    })
    .await;
    let report = site.keep.coherency();
    is_clean(&report);
    assert!(site.told.0.lock().unwrap().is_empty());
    assert_eq!(report.windows.len(), 5, "{report:#?}");
    assert!((340..=361).contains(&report.samples), "{report:#?}");
    assert!(report.windows[4].checks >= 330, "{report:#?}");
    assert!((2.5..2.6).contains(&report.windows[0].nines), "{report:#?}");
    // What that costs: a look takes some 100 ns, and there are at most 65,536 of them per question, whatever
    // is stored. So an hour's questions take 12 s of it at the very worst, a third of a hundredth; and what
    // was stored here a fraction of a millisecond.
    assert!(report.probes <= 361 * 5, "{report:#?}");
    let worst = Duration::from_nanos(report.probes * 65_536 * 100);
    assert!(worst < Duration::from_secs(3_600) / 100, "{worst:?}");
    assert!(report.looks <= report.probes * 14, "{report:#?}");
}

#[tokio::test]
async fn without_a_sample_there_is_nothing_to_say() {
    let settings = builder().invalidation(|settings| settings.coherency.enabled = false);
    let site = Site::of(settings, &Arc::default());
    site.change(7).await;
    let report = site.keep.check_coherency().await;
    assert_eq!((report.samples, report.probes), (0, 0));
    assert!(report.windows.is_empty());
    is_clean(&report);
}

#[tokio::test(start_paused = true)]
async fn a_process_alone_finds_its_own_faults() {
    let site = Site::of(builder(), &Arc::default());
    let old = site.get(7).await;
    site.change(7).await;
    site.keep.http_cache().journal().forget_markers();
    assert_eq!(site.get(7).await, old, "the fault does what it says");
    site.finds(Invariant::Served).await;
}
