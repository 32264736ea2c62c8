//! Reports, checks, baselines and trends of whole stacks, with and without a Redis.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_keep::health::{HealthCheck, HealthStatus};
use tower_keep::metrics::Window;
use tower_keep::report::{Day, ReportError, ReportStatus, Verdict};
use tower_keep::{Keep, KeepBuilder, Profile};

use crate::redis::{TestCluster, TestRedis};

/// A stack in which 20 ms are slow, and a service behind it.
struct Site {
    keep: Keep,
    app: Router,
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(25)).await;
    "late"
}

impl Site {
    fn of(builder: KeepBuilder) -> Self {
        let keep = builder
            .metrics(|metrics| metrics.slow_request = Duration::from_millis(20))
            .build()
            .unwrap();
        let cached = || async { ([("cache-control", "public, max-age=600")], "kept") };
        let app = Router::new()
            .route("/fast", get(|| async { "here" }))
            .route("/slow", get(slow))
            .route(
                "/fails/{id}",
                get(|| async { StatusCode::INTERNAL_SERVER_ERROR }),
            )
            .route("/cached", get(cached))
            .layer(keep.layer());
        Self { keep, app }
    }

    fn alone() -> Self {
        Self::of(Keep::builder(Profile::development()))
    }

    async fn beside(redis: &TestRedis) -> Self {
        Self::at(redis.url()).await
    }

    async fn at(url: String) -> Self {
        let site = Self::of(Keep::builder(Profile::development()).redis(|config| {
            config.url = Some(url);
            config.command_timeout = Duration::from_millis(500);
        }));
        site.until_up().await;
        site
    }

    async fn until_up(&self) {
        until("redis is up", || async {
            self.keep.redis().status().is_up()
        })
        .await;
    }

    async fn asked(&self, path: &str, times: usize) {
        for _ in 0..times {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = self.app.clone().oneshot(request).await.unwrap();
            answer.into_body().collect().await.unwrap();
        }
    }

    async fn today(&self) -> Day {
        self.keep.trend(1).await.pop().unwrap()
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_report_tells_slow_failing_and_cached_routes_apart() {
    let site = Site::alone();
    assert_eq!(site.keep.report(Window::Minute).score, 100);
    site.asked("/fast", 40).await;
    site.asked("/slow", 5).await;
    site.asked("/fails/1", 10).await;
    site.asked("/cached", 20).await;
    let report = site.keep.report(Window::Minute);
    let seen = &report.observed;
    assert_eq!((seen.traffic.requests, seen.traffic.errors), (75, 10));
    let line = |route: &str| {
        let found = seen.routes.iter().find(|line| &*line.route == route);
        found.unwrap().clone()
    };
    assert_eq!(
        &*seen.routes[0].route, "/fails/{id}",
        "what fails comes first"
    );
    assert_eq!(line("/fails/{id}").error_ratio, Some(1.0));
    assert!(line("/slow").p50.unwrap() >= Duration::from_millis(20));
    assert!(line("/slow").slow >= 5);
    assert_eq!(line("/cached").errors, 0);
    assert_eq!(seen.cache.hits, 19);
    assert_eq!(line("/cached").cache_share, Some(0.95));
    assert_eq!(
        line("/fast").cache_share,
        None,
        "what may not be stored is no miss"
    );
    assert!(seen.traffic.per_second > 0.0);
    let errors = &report.penalties[0];
    assert_eq!((errors.figure, errors.points), ("errors", 40));
    assert_eq!(errors.reason, "13 % of 75 answers were 5xx");
    let taken: u32 = report.penalties.iter().map(|penalty| penalty.points).sum();
    assert_eq!(report.score + taken, 100);
    assert!(report.status >= ReportStatus::Degraded);
    let degradation = site.keep.is_degraded();
    assert!(degradation.degraded);
    assert!(
        degradation.reasons.contains(&errors.reason),
        "{degradation:?}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["routes"][0]["route"], "/fails/{id}");
    assert_eq!(json["cache"]["hits"], 19);
    assert!(report.to_string().contains("GET /slow"));
}

#[tokio::test]
async fn a_check_that_fails_is_told_and_takes_nobody_out_of_rotation() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let mail = HealthCheck::new("mail", move || {
        let is_broken = is_broken.load(Ordering::SeqCst);
        async move {
            match is_broken {
                true => Err("relay refused"),
                false => Ok("relay answers"),
            }
        }
    });
    let builder = Keep::builder(Profile::development())
        .overlay(serde_json::json!({"health": {"failures_min": 1, "instance": "a1"}}));
    let mail = mail.required().every(Duration::from_millis(100));
    let site = Site::of(builder.health_check(mail));
    let keep = &site.keep;
    let status = |name: &str| keep.health().components[name].status;
    until("it fails", || async {
        status("mail") == HealthStatus::Unhealthy
    })
    .await;
    assert_eq!(keep.health().http_status(), 503);
    assert!(keep.is_ready(), "readiness knows nothing of checks");
    let details = keep.health_details();
    assert_eq!(details.instance, "a1");
    assert!(details.components["mail"].failures >= 1);
    assert!(details.components["mail"].detail.contains("relay refused"));
    let hidden = serde_json::to_string(&keep.health().without_details()).unwrap();
    assert!(!hidden.contains("relay"), "{hidden}");
    assert!(keep.is_degraded().reasons[0].contains("relay refused"));
    let penalties = keep.report(Window::Minute).penalties;
    assert_eq!((penalties[0].figure, penalties[0].points), ("health", 30));
    broken.store(false, Ordering::SeqCst);
    until("it is well", || async {
        status("mail") == HealthStatus::Healthy
    })
    .await;
    until("nothing is amiss", || async {
        !keep.is_degraded().degraded
    })
    .await;
    let taken = HealthCheck::new("mail", || async { Ok::<_, String>("") });
    let error = keep.add_health_check(taken).unwrap_err();
    assert!(
        error.to_string().contains("is a component already"),
        "{error}"
    );
}

#[tokio::test]
async fn a_check_under_a_components_name_is_a_fault() {
    let check = HealthCheck::new("memory", || async { Ok::<_, String>("") });
    let built = Keep::builder(Profile::development())
        .health_check(check)
        .build();
    assert!(
        built
            .unwrap_err()
            .to_string()
            .contains("health_check(\"memory\")")
    );
}

#[cfg(feature = "sqlx-sqlite")]
#[tokio::test]
async fn a_database_is_asked_over_its_pool_and_counts_as_a_wait() {
    let site = Site::alone();
    let keep = &site.keep;
    let pool = keep.database().sqlite("sqlite::memory:").await.unwrap();
    let check = keep.database().health_check("database", &pool);
    keep.add_health_check(check.every(Duration::from_millis(100)))
        .unwrap();
    let detail = || keep.health().components["database"].clone();
    until("it answers", || async {
        detail().status == HealthStatus::Healthy
    })
    .await;
    assert!(detail().detail.starts_with("answers; "), "{:?}", detail());
    let seen = keep.report(Window::Minute).observed.database;
    assert!(
        seen.queries >= 1 && seen.waits >= 1 && seen.unserved == 0,
        "{seen:?}"
    );
    pool.close().await;
    until("it fails", || async {
        detail().status == HealthStatus::Degraded
    })
    .await;
}

#[tokio::test]
async fn without_redis_days_and_baselines_live_as_long_as_the_process() {
    let site = Site::alone();
    site.asked("/fast", 7).await;
    let days = site.keep.trend(400).await;
    assert_eq!(days.len(), 30);
    let today = days.last().unwrap();
    assert_eq!((today.requests, today.of_all), (7, false));
    assert_eq!(days[0].requests, 0);
    let saved = site.keep.save_baseline("now", Window::Hour).await.unwrap();
    assert_eq!(site.keep.baseline("now").await, Ok(Some(saved)));
    assert_eq!(site.keep.baseline("then").await, Ok(None));
    let odd = site.keep.baseline("a b").await;
    assert_eq!(odd, Err(ReportError::Name("a b".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_in_redis_is_the_sum_of_all_instances_and_expires() {
    let server = TestRedis::start();
    let (one, two) = (Site::beside(&server).await, Site::beside(&server).await);
    one.asked("/fast", 30).await;
    one.asked("/fails/1", 2).await;
    two.asked("/cached", 10).await;
    two.asked("/slow", 1).await;
    one.keep.add_up_trend().await;
    // What is not in Redis yet is in its own instance's words all the same.
    let (by_one, by_two) = (one.today().await, two.today().await);
    assert_eq!((by_one.requests, by_one.of_all), (32, true));
    assert_eq!(by_two.requests, 43);
    two.keep.add_up_trend().await;
    let whole = one.today().await;
    assert_eq!(whole, two.today().await);
    assert_eq!((whole.requests, whole.errors), (43, 2));
    // What may not be stored is no look-up.
    assert_eq!((whole.hits, whole.lookups), (9, 10));
    assert_eq!(whole.error_ratio, Some(2.0 / 43.0));
    assert!(whole.slow >= 1);
    assert!(whole.p99_ms.unwrap() >= 25, "{whole:?}");
    // Nothing is added a second time.
    one.keep.add_up_trend().await;
    assert_eq!(two.today().await.requests, 43);
    let mut raw = server.raw();
    let key = format!("keep:trend:{}", whole.date.replace('-', ""));
    assert_eq!(raw.command(&["HGET", &key, "requests"]).text(), "43");
    let left = raw.command(&["TTL", &key]).integer();
    assert!((29 * 86_400..=30 * 86_400).contains(&left), "{left}");
    let fields = raw.command(&["HLEN", &key]).integer();
    assert!(fields <= 28, "{fields}");
}

#[tokio::test(flavor = "multi_thread")]
async fn days_and_baselines_may_lie_on_all_nodes_of_a_cluster() {
    let cluster = TestCluster::start();
    let (one, two) = (Site::at(cluster.url()).await, Site::at(cluster.url()).await);
    one.asked("/fast", 6).await;
    two.asked("/fast", 1).await;
    one.keep.add_up_trend().await;
    two.keep.add_up_trend().await;
    let days = two.keep.trend(30).await;
    assert!(days.iter().all(|day| day.of_all));
    assert_eq!(days.last().unwrap().requests, 7);
    for name in ["a", "b", "c", "d", "e", "f"] {
        let saved = one.keep.save_baseline(name, Window::Hour).await.unwrap();
        assert_eq!(two.keep.baseline(name).await, Ok(Some(saved)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_while_redis_is_away_is_added_once_it_is_back() {
    let server = TestRedis::start();
    let site = Site::beside(&server).await;
    site.asked("/fast", 3).await;
    site.keep.add_up_trend().await;
    assert_eq!(site.today().await.requests, 3);
    server.kill();
    until("it is away", || async {
        !site.keep.redis().status().is_up()
    })
    .await;
    site.asked("/fast", 4).await;
    for _ in 0..3 {
        site.keep.add_up_trend().await;
    }
    let alone = site.today().await;
    assert_eq!((alone.requests, alone.of_all), (7, false), "from memory");
    // It has kept nothing on disk, so what is there afterwards was added afterwards.
    server.restart();
    site.until_up().await;
    site.keep.add_up_trend().await;
    site.keep.add_up_trend().await;
    let back = site.today().await;
    assert_eq!((back.requests, back.of_all), (4, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_refuses_is_kept_and_what_may_have_run_is_not_repeated() {
    let server = TestRedis::start();
    let site = Site::beside(&server).await;
    let mut raw = server.raw();
    site.asked("/cached", 1).await;
    let date = site.today().await.date.replace('-', "");
    let key = format!("keep:trend:{date}");
    // One field that is no number: its step fails, and the others do not.
    raw.must(&["HSET", &key, "requests", "many"]);
    site.keep.add_up_trend().await;
    assert_eq!(raw.command(&["HGET", &key, "lookups"]).text(), "1");
    raw.must(&["HDEL", &key, "requests"]);
    site.keep.add_up_trend().await;
    assert_eq!(raw.command(&["HGET", &key, "requests"]).text(), "1");
    assert_eq!(raw.command(&["HGET", &key, "lookups"]).text(), "1");
    // A server that stands still takes the batch and answers too late.
    site.asked("/fast", 2).await;
    server.stop();
    site.keep.add_up_trend().await;
    server.cont();
    site.until_up().await;
    until("it has come", || {
        let requests = server.raw().command(&["HGET", &key, "requests"]).text();
        async move { requests == "3" }
    })
    .await;
    site.keep.add_up_trend().await;
    assert_eq!(raw.command(&["HGET", &key, "requests"]).text(), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_adds_what_was_counted_last() {
    let server = TestRedis::start();
    let site = Site::beside(&server).await;
    site.asked("/fast", 5).await;
    let date = site.today().await.date.replace('-', "");
    assert_eq!(site.keep.shutdown().await, 0);
    let key = format!("keep:trend:{date}");
    let requests = server.raw().command(&["HGET", &key, "requests"]).text();
    assert_eq!(requests, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_of_one_instance_shows_what_got_worse_on_another() {
    let server = TestRedis::start();
    let (before, after) = (Site::beside(&server).await, Site::beside(&server).await);
    before.asked("/fast", 150).await;
    before.asked("/fails/1", 1).await;
    let saved = before
        .keep
        .save_baseline("release-12", Window::Hour)
        .await
        .unwrap();
    let found = after.keep.baseline("release-12").await.unwrap().unwrap();
    assert_eq!(found, saved);
    after.asked("/fast", 150).await;
    after.asked("/fails/1", 50).await;
    let comparison = after.keep.report(Window::Hour).compare(&found).unwrap();
    let all = comparison
        .regressions()
        .find(|it| it.scope == "all" && it.figure == "errors");
    let (was, is) = all.map(|it| (it.before, it.now)).unwrap();
    assert_eq!((was, is), (1.0 / 151.0, 0.25));
    let of_fails = comparison
        .changes
        .iter()
        .find(|it| it.scope == "GET /fails/{id}");
    assert_eq!(of_fails.unwrap().verdict, Verdict::TooFew);
    let mut raw = server.raw();
    let key = "keep:report:baseline:release-12";
    assert!(raw.command(&["TTL", key]).integer() > 399 * 86_400);
    raw.must(&["SET", key, "gone"]);
    let read = after.keep.baseline("release-12").await;
    assert!(matches!(read, Err(ReportError::Unreadable(_))), "{read:?}");
    server.kill();
    until("it is away", || async {
        !after.keep.redis().status().is_up()
    })
    .await;
    let away = after.keep.baseline("release-12").await;
    assert!(matches!(away, Err(ReportError::Store(_))), "{away:?}");
}

#[tokio::test]
async fn a_report_of_five_hundred_routes_takes_a_moment() {
    let keep = Keep::builder(Profile::development()).build().unwrap();
    let routes = (0..500).fold(Router::new(), |routes, at| {
        routes.route(&format!("/{at}/{{id}}"), get(|| async { "here" }))
    });
    let app = routes.layer(keep.metrics_layer());
    for at in 0..500 {
        let request = Request::get(format!("/{at}/1"))
            .body(Body::empty())
            .unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    let quickest = |work: &dyn Fn()| {
        let timed = (0..10).map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        });
        timed.min().unwrap()
    };
    let report = quickest(&|| drop(keep.report(Window::Hour)));
    let degraded = quickest(&|| drop(keep.is_degraded()));
    println!("a report of 500 routes takes {report:?}, is_degraded {degraded:?}");
    let seen = keep.report(Window::Hour).observed;
    assert_eq!((seen.routes.len(), seen.traffic.requests), (20, 500));
    assert_eq!(seen.rest.unwrap().requests, 480);
    // Without optimisation and beside other tests; a release build takes a tenth.
    let moment = Duration::from_millis(100);
    assert!(
        report < moment && degraded < moment,
        "{report:?} {degraded:?}"
    );
}
