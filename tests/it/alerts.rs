//! Alerts of whole stacks: rules that fire and resolve, handlers of every temper, and a fleet of one voice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_keep::alerts::{
    Alert, AlertError, AlertRule, AlertScope, AlertStage, AlertState, AlertTurn, Measure, Severity,
    Webhook,
};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::metrics::MetricsLayer;
use tower_keep::{Keep, KeepBuilder, Profile};

use crate::redis::TestRedis;

const SECOND: Duration = Duration::from_secs(1);

/// A figure that a test turns, and a rule that looks at it.
#[derive(Clone, Default)]
struct Knob(Arc<AtomicU64>);

impl Knob {
    /// Where there is no value.
    const NOTHING: u64 = u64::MAX;

    fn turn(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Fires at once above 10, and may be told again at once.
    fn rule(&self, name: &str) -> AlertRule {
        let seen = Arc::clone(&self.0);
        let measure = Measure::of(move || {
            let value = seen.load(Ordering::Relaxed);
            (value != Self::NOTHING).then_some(value as f64)
        });
        AlertRule {
            cooldown: Duration::ZERO,
            ..AlertRule::above(name, measure, 10.0)
        }
    }
}

/// What a handler was told, as `rule state`.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Alert>>>);

impl Told {
    fn push(&self, alert: Alert) {
        self.0.lock().unwrap().push(alert);
    }

    fn words(&self) -> Vec<String> {
        let told = self.0.lock().unwrap();
        let words = told
            .iter()
            .map(|alert| format!("{} {}", alert.rule, alert.state.name()));
        words.collect()
    }

    async fn until(&self, words: &[&str]) {
        until(&format!("{words:?}"), || self.words() == words).await;
    }
}

/// Looks until it is so; ten seconds are far more than anything here takes.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let patience = tokio::time::timeout(10 * SECOND, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    patience
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

/// A stack that judges only when it is asked to: the first round by itself finds nothing.
fn by_hand() -> (KeepBuilder, ManualClock) {
    let (clock, hand) = Clock::manual();
    let builder = Keep::builder(Profile::azure_b1())
        .clock(clock)
        .alerts(|alerts| alerts.every = Duration::from_secs(600));
    (builder, hand)
}

fn state(keep: &Keep, rule: &str) -> AlertState {
    let states = keep.alerts().states();
    let found = states.into_iter().find(|state| &*state.rule == rule);
    found.unwrap_or_else(|| panic!("no rule {rule}"))
}

/// Lets so many requests through the metrics layer, so many of which fail.
async fn requests(keep: &Keep, all: usize, failing: usize) {
    let service = tower::service_fn(|request: Request<bool>| async move {
        let status = match request.into_body() {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let layer = MetricsLayer::new(keep.metrics().clone());
    let service = tower::Layer::layer(&layer, service);
    for number in 0..all {
        let request = Request::new(number < failing);
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
}

/// Lets so many requests through the metrics layer that nobody answers, until their clients give up.
async fn requests_in_vain(keep: &Keep, all: usize) {
    let service = tower::service_fn(|_: Request<()>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    let layer = MetricsLayer::new(keep.metrics().clone());
    let service = tower::Layer::layer(&layer, service);
    for _ in 0..all {
        let given_up = service.clone().oneshot(Request::new(()));
        let patience = Duration::from_millis(1);
        assert!(tokio::time::timeout(patience, given_up).await.is_err());
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_told_though_it_fails_and_answers_nothing() {
    let (builder, hand) = by_hand();
    let keep = builder.build().unwrap();
    requests_in_vain(&keep, 49).await;
    assert_eq!(keep.alerts().judge(), 0);
    assert_eq!(state(&keep, "unanswered").value, None);
    requests_in_vain(&keep, 1).await;
    keep.alerts().judge();
    hand.advance(60 * SECOND);
    assert_eq!(keep.alerts().judge(), 1);
    let firing = state(&keep, "unanswered");
    assert_eq!(
        (firing.state, firing.severity),
        (AlertStage::Firing, Severity::Critical)
    );
    assert_eq!(firing.value, Some(1.0));
    assert_eq!(state(&keep, "errors").value, None, "nothing was answered");
    let report = keep.report(tower_keep::metrics::Window::FiveMinutes);
    assert_eq!(report.penalties[0].figure, "unanswered");
}

#[tokio::test]
async fn errors_of_real_requests_fire_get_worse_and_are_over() {
    let (builder, hand) = by_hand();
    let told = Told::default();
    let heard = told.clone();
    let keep = builder
        .on_alert(move |alert: Alert| {
            heard.push(alert);
            async { Ok::<(), AlertError>(()) }
        })
        .build()
        .unwrap();
    requests(&keep, 49, 49).await;
    assert_eq!(keep.alerts().judge(), 0);
    assert_eq!(state(&keep, "errors").value, None, "49 mean nothing yet");
    requests(&keep, 51, 1).await;
    assert_eq!(keep.alerts().judge(), 0);
    let pending = state(&keep, "errors");
    assert_eq!(pending.state, AlertStage::Pending);
    assert_eq!(pending.value, Some(0.5));
    hand.advance(60 * SECOND);
    assert_eq!(keep.alerts().judge(), 1);
    let firing = state(&keep, "errors");
    assert_eq!(
        (firing.state, firing.severity),
        (AlertStage::Firing, Severity::Critical)
    );
    assert!(
        firing
            .detail
            .starts_with("error_ratio is 50 %, more than 5 %: see which"),
        "{firing:?}"
    );
    let at = json!(firing)["since_ms"].as_u64().unwrap();
    assert_eq!(at, 1_767_225_600_000 + 60_000);
    told.until(&["errors firing"]).await;
    hand.advance(600 * SECOND);
    // New requests, so that whatever window there is has something in it.
    requests(&keep, 100, 100).await;
    keep.alerts().judge();
    let worse = state(&keep, "errors");
    assert_eq!(
        (worse.state, worse.severity),
        (AlertStage::Escalated, Severity::Emergency)
    );
    hand.advance(600 * SECOND);
    requests(&keep, 10_000, 0).await;
    keep.alerts().judge();
    assert_eq!(state(&keep, "errors").state, AlertStage::Resolved);
    let words = ["errors firing", "errors escalated", "errors resolved"];
    told.until(&words).await;
    let recent = keep.alerts().recent();
    let turns: Vec<_> = recent.iter().map(|alert| alert.state).collect();
    assert_eq!(
        turns,
        [AlertTurn::Resolved, AlertTurn::Escalated, AlertTurn::Firing]
    );
    assert_eq!(recent[0].severity, Severity::Emergency, "how bad it was");
    let counted = keep.metrics().snapshot().alerts;
    for word in ["firing", "escalated", "resolved"] {
        assert_eq!(counted[word], 1);
    }
    hand.advance(300 * SECOND);
    assert_eq!(state(&keep, "errors").state, AlertStage::Ok);
}

/// Figures that a test sets, in the place of the stack's own.
#[derive(Clone, Default)]
struct Dials(Arc<Mutex<HashMap<&'static str, f64>>>);

impl Dials {
    fn of(keep: &Keep) -> Self {
        let dials = Self::default();
        for name in [
            "keep_memory_used_bytes",
            "keep_memory_budget_bytes",
            "keep_guard_in_flight",
            "keep_guard_slots",
            "keep_guard_queued",
            "keep_redis_up",
            "keep_journal_verified",
        ] {
            let seen = dials.clone();
            let read = move || seen.0.lock().unwrap().get(name).copied();
            let gauge = move || read().unwrap_or(f64::NAN);
            keep.metrics().gauge(name, "A test's.", gauge).unwrap();
        }
        dials
    }

    fn set(&self, values: &[(&'static str, f64)]) {
        self.0.lock().unwrap().extend(values.iter().copied());
    }
}

#[tokio::test]
async fn memory_redis_and_journal_are_read_from_the_gauges_that_show_them() {
    let (builder, hand) = by_hand();
    let keep = builder.build().unwrap();
    let dials = Dials::of(&keep);
    let firing = || -> Vec<String> {
        for _ in 0..3 {
            hand.advance(60 * SECOND);
            keep.alerts().judge();
        }
        let states = keep.alerts().states().into_iter();
        let firing = states.filter(|state| state.state == AlertStage::Firing);
        firing.map(|state| state.rule.to_string()).collect()
    };
    assert_eq!(firing(), Vec::<String>::new());
    let without = state(&keep, "memory_high").detail;
    assert_eq!(without, "memory_ratio has no value");
    dials.set(&[
        ("keep_memory_used_bytes", 85.0),
        ("keep_memory_budget_bytes", 100.0),
        ("keep_guard_in_flight", 62.0),
        ("keep_guard_slots", 64.0),
        // Of 128 places.
        ("keep_guard_queued", 102.0),
        ("keep_redis_up", 0.0),
        ("keep_journal_verified", 0.0),
    ]);
    assert_eq!(
        firing().join(" "),
        "memory_high concurrency_full redis_down journal_unverified"
    );
    dials.set(&[
        ("keep_memory_used_bytes", 96.0),
        ("keep_guard_queued", 103.0),
        ("keep_redis_up", 1.0),
        ("keep_journal_verified", 1.0),
    ]);
    assert_eq!(
        firing().join(" "),
        "memory_high memory_very_high memory_exhausted concurrency_full queue_long"
    );
    assert_eq!(keep.metrics().gauge_value("keep_alerts_firing"), Some(5.0));
    let worst = state(&keep, "memory_exhausted").severity;
    assert_eq!(worst, Severity::Emergency);
    // Between the two thresholds nothing changes; nor where there is no value any more.
    dials.set(&[
        ("keep_memory_used_bytes", 78.0),
        ("keep_guard_queued", f64::NAN),
        ("keep_guard_in_flight", 1.0),
    ]);
    assert_eq!(firing(), ["memory_high", "queue_long"]);
    dials.set(&[("keep_memory_used_bytes", 75.0), ("keep_guard_queued", 0.0)]);
    assert_eq!(firing(), Vec::<String>::new());
}

#[tokio::test]
async fn a_handler_that_hangs_one_that_fails_and_one_that_panics_hold_up_nobody() {
    let (builder, _hand) = by_hand();
    let (knob, told) = (Knob::default(), Told::default());
    let (hanging, failing, panicking) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let tries = [
        Arc::clone(&hanging),
        Arc::clone(&failing),
        Arc::clone(&panicking),
    ];
    let heard = told.clone();
    let keep = builder
        .alerts(|alerts| alerts.handler_timeout = Duration::from_millis(20))
        .alert(knob.rule("knob"))
        .on_alert(move |_: Alert| {
            hanging.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<(), AlertError>>()
        })
        .on_alert(move |_: Alert| {
            failing.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), _>("no") }
        })
        .on_alert(
            move |_: Alert| -> std::future::Ready<Result<(), AlertError>> {
                panicking.fetch_add(1, Ordering::Relaxed);
                panic!("a handler's own mistake")
            },
        )
        .on_alert(move |alert: Alert| {
            heard.push(alert);
            async { Ok::<(), AlertError>(()) }
        })
        .build()
        .unwrap();
    knob.turn(11);
    keep.alerts().judge();
    told.until(&["knob firing"]).await;
    knob.turn(10);
    keep.alerts().judge();
    told.until(&["knob firing", "knob resolved"]).await;
    // Three tries for each of two alerts, with pauses of one and two seconds that shutdown cuts short.
    assert_eq!(keep.shutdown().await, 0, "all tasks ended by themselves");
    for tries in tries {
        assert_eq!(tries.load(Ordering::Relaxed), 6);
    }
    let figures = keep.alerts().figures();
    assert_eq!((figures.handlers, figures.told, figures.failed), (4, 2, 6));
    assert_eq!((figures.dropped, figures.waiting), (0, 0));
    // Afterwards nothing is told, and nothing breaks.
    knob.turn(11);
    assert_eq!(keep.alerts().judge(), 1);
    assert_eq!(told.words().len(), 2);
    assert_eq!(keep.alerts().figures().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_recovers_is_told_after_a_pause() {
    let tries = Arc::new(AtomicUsize::new(0));
    let (knob, told) = (Knob::default(), Told::default());
    let (tried, heard) = (Arc::clone(&tries), told.clone());
    let keep = by_hand()
        .0
        .alert(knob.rule("knob"))
        .on_alert(move |alert: Alert| {
            let fails = tried.fetch_add(1, Ordering::Relaxed) < 2;
            if !fails {
                heard.push(alert);
            }
            async move { if fails { Err("not yet") } else { Ok(()) } }
        })
        .build()
        .unwrap();
    let began = tokio::time::Instant::now();
    knob.turn(11);
    keep.alerts().judge();
    told.until(&["knob firing"]).await;
    assert!(began.elapsed() >= 3 * SECOND, "one second, then two");
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_full_queue_keeps_the_last_word_about_every_rule() {
    let (builder, _hand) = by_hand();
    let (gate, told) = (Arc::new(tokio::sync::Semaphore::new(0)), Told::default());
    let knobs: Vec<Knob> = (0..3).map(|_| Knob::default()).collect();
    let (opened, heard) = (Arc::clone(&gate), told.clone());
    let mut builder = builder.alerts(|alerts| {
        alerts.built_in = false;
        alerts.queue = 1;
    });
    for (number, knob) in knobs.iter().enumerate() {
        builder = builder.alert(knob.rule(&format!("r{number}")));
    }
    let keep = builder
        .on_alert(move |alert: Alert| {
            let (opened, heard) = (Arc::clone(&opened), heard.clone());
            async move {
                opened.acquire().await.map_err(AlertError::from)?.forget();
                heard.push(alert);
                Ok::<(), AlertError>(())
            }
        })
        .build()
        .unwrap();
    // The handler is busy with the first one; whatever comes then waits in as many places as there are rules.
    knobs[0].turn(11);
    keep.alerts().judge();
    until("the first is taken", || {
        keep.alerts().figures().waiting == 0
    })
    .await;
    for round in 0..10 {
        for knob in &knobs {
            knob.turn(if round % 2 == 0 { 0 } else { 11 });
        }
        keep.alerts().judge();
        until("it is handed on", || {
            let figures = keep.alerts().figures();
            figures.waiting <= 3
        })
        .await;
    }
    for knob in &knobs {
        knob.turn(0);
    }
    keep.alerts().judge();
    gate.add_permits(100);
    assert_eq!(keep.shutdown().await, 0);
    let figures = keep.alerts().figures();
    assert!(figures.dropped > 0 && figures.waiting == 0, "{figures:?}");
    let words = told.words();
    assert_eq!(words.len() as u64, figures.told);
    for number in 0..3 {
        let mut of_rule = words
            .iter()
            .filter(|word| word.starts_with(&format!("r{number} ")));
        assert_eq!(
            of_rule.next_back().unwrap(),
            &format!("r{number} resolved"),
            "{words:?}"
        );
    }
}

#[tokio::test]
async fn a_measure_that_panics_or_is_missing_has_no_value_and_leaves_the_others_alone() {
    let (builder, _hand) = by_hand();
    let (knob, broken) = (Knob::default(), Arc::new(AtomicBool::new(false)));
    let breaks = Arc::clone(&broken);
    let measure = Measure::of(move || {
        assert!(!breaks.load(Ordering::Relaxed), "a measure's own mistake");
        Some(1.0)
    });
    let keep = builder
        .alert(AlertRule::above("broken", measure, 0.5))
        .alert(AlertRule::above(
            "missing",
            Measure::gauge("nobody_has_it"),
            0.5,
        ))
        .alert(knob.rule("knob"))
        .build()
        .unwrap();
    keep.alerts().judge();
    assert_eq!(state(&keep, "broken").state, AlertStage::Firing);
    broken.store(true, Ordering::Relaxed);
    knob.turn(11);
    keep.alerts().judge();
    let left = state(&keep, "broken");
    assert_eq!((left.state, left.value), (AlertStage::Firing, None));
    assert!(left.detail.contains("has no value"), "{}", left.detail);
    assert_eq!(state(&keep, "missing").detail, "nobody_has_it has no value");
    assert_eq!(state(&keep, "knob").state, AlertStage::Firing);
}

#[tokio::test]
async fn the_rounds_run_by_themselves_and_a_stack_that_is_dropped_is_freed() {
    let (knob, told) = (Knob::default(), Told::default());
    let (heard, held) = (told.clone(), Arc::new(()));
    let inside = Arc::clone(&held);
    let keep = Keep::builder(Profile::azure_b1())
        .alerts(|alerts| alerts.every = Duration::from_millis(100))
        .alert(knob.rule("knob"))
        .on_alert(move |alert: Alert| {
            let _inside = &inside;
            heard.push(alert);
            async { Ok::<(), AlertError>(()) }
        })
        .build()
        .unwrap();
    knob.turn(11);
    told.until(&["knob firing"]).await;
    drop(keep);
    until("everything is freed", || Arc::strong_count(&held) == 1).await;
}

#[tokio::test]
async fn a_webhook_posts_json_and_only_2xx_is_success() {
    let (knob, seen) = (Knob::default(), Arc::new(Mutex::new(Vec::new())));
    let posted = Arc::clone(&seen);
    let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let posted = Arc::clone(&posted);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let mut posted = posted.lock().unwrap();
            posted.push((head, body));
            let status = if posted.len() == 1 { 302 } else { 204 };
            let answer = Response::builder().status(status);
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).unwrap())
        }
    });
    let secret = HeaderValue::from_static("Bearer abc");
    let webhook = Webhook::new("https://alerts.test/hooks/7?a=b", client).unwrap();
    let webhook = webhook.header(http::header::AUTHORIZATION, secret);
    assert!(!format!("{webhook:?}").contains("hooks"));
    let keep = by_hand()
        .0
        .alerts(|alerts| alerts.instance = "web-1".to_owned())
        .alert(AlertRule {
            advice: "turn it down".to_owned(),
            ..knob.rule("knob")
        })
        .on_alert(webhook)
        .build()
        .unwrap();
    knob.turn(11);
    keep.alerts().judge();
    until("it is told", || keep.alerts().figures().told == 1).await;
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.len(),
        2,
        "a redirect is no success, so it was tried again"
    );
    let (head, body) = &seen[1];
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri, "https://alerts.test/hooks/7?a=b");
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["authorization"], "Bearer abc");
    assert_eq!(
        serde_json::from_slice::<Value>(body).unwrap(),
        json!({
            "rule": "knob", "state": "firing", "severity": "warning", "measure": "custom",
            "route": null, "value": 11.0, "threshold": 10.0, "at_ms": 1_767_225_600_000_u64,
            "instance": "web-1", "detail": "custom is 11, more than 10: turn it down",
            "advice": "turn it down"
        })
    );
    for wrong in ["", "/hooks", "alerts.test", "a b", "https://"] {
        let client = tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(()))
        });
        let error = Webhook::new(wrong, client).map(drop).unwrap_err();
        assert_eq!(error.faults()[0].field, "webhook.url");
    }
}

fn of_one_route() -> KeepBuilder {
    Keep::builder(Profile::azure_b1()).routes(["/a"])
}

#[tokio::test]
async fn settings_say_rules_and_leave_those_alone_that_only_code_can_say() {
    let settings = r#"
        [alerts]
        off = ["hit_ratio_low"]
        [[alerts.rules]]
        name = "errors"
        measure = "error_ratio"
        route = "/a"
        threshold = 0.5
    "#;
    let knob = Knob::default();
    let keep = of_one_route()
        .overlay(toml::from_str(settings).unwrap())
        .alert(knob.rule("knob"))
        .overlay(json!({"alerts": {"queue": 9}, "cache": {"enabled": false}}))
        .env_from(|name| (name == "KEEP_ALERTS_EVERY_MS").then(|| "5000".to_owned()))
        .build()
        .unwrap();
    let config = keep.alerts().config();
    assert_eq!((config.queue, config.every), (9, 5 * SECOND));
    assert_eq!(state(&keep, "errors").threshold, 0.5);
    assert_eq!(state(&keep, "knob").threshold, 10.0);
    let off = |state: &AlertState| &*state.rule == "hit_ratio_low";
    assert!(!keep.alerts().states().iter().any(off));
    let off = of_one_route()
        .alerts(|alerts| alerts.enabled = false)
        .alert(knob.rule("knob"));
    let off = off.build().unwrap();
    knob.turn(11);
    assert_eq!(off.alerts().judge(), 0);
}

#[tokio::test]
async fn what_is_wrong_with_settings_is_named_with_its_value() {
    for (field, wrong, named, shown) in [
        ("measure", json!("errors"), "measure", "\"errors\""),
        (
            "measure",
            json!({"gauge": "a b"}),
            "measure.gauge",
            "\"a b\"",
        ),
        ("severity", json!("bad"), "severity", "\"bad\""),
        ("window", json!("2m"), "window", "\"2m\""),
        ("scope", json!("all"), "scope", "\"all\""),
        ("comparison", json!("over"), "comparison", "\"over\""),
        ("for_ms", json!(-1), "for_ms", "-1"),
        ("name", json!("A"), "name", "\"A\""),
        ("route", json!("/b"), "route", "\"/b\""),
        ("resolve", json!(0.6), "resolve", "0.6"),
    ] {
        let mut rule = json!({"name": "a", "measure": "error_ratio", "threshold": 0.5});
        rule[field] = wrong;
        let named = format!("alerts.rules[0].{named}");
        refused(&json!({ "rules": [rule] }), &named, shown);
    }
    refused(&json!({"every_ms": 1}), "alerts.every_ms", "1ms");
    refused(&json!({"off": ["nobody"]}), "alerts.off[0]", "\"nobody\"");
    refused(&json!({"queue": 0}), "alerts.queue", "0");
}

fn refused(alerts: &Value, field: &str, value: &str) {
    let builder = of_one_route().overlay(json!({ "alerts": alerts }));
    let error = builder.build().map(drop).unwrap_err();
    let faults = error.faults().iter();
    let faults: Vec<_> = faults.map(|it| (&*it.field, &*it.value)).collect();
    assert_eq!(faults, [(field, value)], "{error}");
}

/// One instance of a fleet, and what its handler was told.
struct Instance {
    keep: Keep,
    knob: Knob,
    told: Told,
}

impl Instance {
    async fn at(server: &TestRedis) -> Self {
        let instance = Self::with(server.url(), Duration::from_secs(600));
        let mut status = instance.keep.redis().watch();
        assert!(status.until_up().await);
        instance
    }

    fn with(url: String, every: Duration) -> Self {
        let (knob, told) = (Knob::default(), Told::default());
        let heard = told.clone();
        let keep = Keep::builder(Profile::azure_b1())
            .redis(|redis| {
                redis.url = Some(url);
                redis.command_timeout = Duration::from_millis(500);
            })
            .alerts(|alerts| {
                alerts.built_in = false;
                alerts.every = every;
                alerts.instance = "the same name everywhere".to_owned();
            })
            .alert(AlertRule {
                cooldown: 60 * SECOND,
                ..knob.rule("shared")
            })
            .alert(AlertRule {
                scope: AlertScope::Instance,
                ..knob.rule("own")
            })
            .on_alert(move |alert: Alert| {
                heard.push(alert);
                async { Ok::<(), AlertError>(()) }
            })
            .build()
            .unwrap();
        Self { keep, knob, told }
    }

    fn set(&self, value: u64) {
        self.knob.turn(value);
        self.keep.alerts().judge();
    }

    fn shared(&self) -> Vec<String> {
        let words = self.told.words().into_iter();
        words.filter(|word| word.starts_with("shared")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_stacks_on_one_redis_exactly_one_speaks_and_it_says_when_it_is_over() {
    let server = TestRedis::start();
    let (one, two) = (Instance::at(&server).await, Instance::at(&server).await);
    one.set(11);
    two.set(11);
    // Rules of the instance are told by each, and after them whatever was asked before.
    for instance in [&one, &two] {
        until("its own is told", || {
            instance.told.words().contains(&"own firing".to_owned())
        })
        .await;
    }
    let spoke = |instance: &Instance| instance.shared() == ["shared firing"];
    assert!(
        spoke(&one) != spoke(&two),
        "{:?} {:?}",
        one.shared(),
        two.shared()
    );
    let (speaker, silent) = if spoke(&one) {
        (&one, &two)
    } else {
        (&two, &one)
    };
    assert!(state(&silent.keep, "shared").told_by_other);
    assert!(!state(&speaker.keep, "shared").told_by_other);
    assert_eq!(state(&silent.keep, "shared").state, AlertStage::Firing);
    // The silent one is over it first, and says nothing: for the speaker it goes on.
    silent.set(0);
    silent.told.until(&["own firing", "own resolved"]).await;
    speaker.set(0);
    until("it is over", || speaker.shared().len() == 2).await;
    assert_eq!(speaker.shared(), ["shared firing", "shared resolved"]);
    assert!(silent.shared().is_empty());
    assert!(!state(&silent.keep, "shared").told_by_other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_speaker_dies_another_instance_speaks_and_without_redis_each_does() {
    let server = TestRedis::start();
    let every = Duration::from_millis(100);
    let (one, two) = (
        Instance::with(server.url(), every),
        Instance::with(server.url(), every),
    );
    for instance in [&one, &two] {
        assert!(instance.keep.redis().watch().until_up().await);
    }
    one.knob.turn(11);
    until("one speaks", || one.shared().len() == 1).await;
    two.knob.turn(11);
    until("two is silent", || state(&two.keep, "shared").told_by_other).await;
    // The lease of six rounds is renewed: after many of them the other is silent still.
    let mut raw = server.raw();
    let mut left = || raw.must(&["PTTL", "keep:alert:shared"]).integer();
    let (mut before, mut renewed) = (left(), 0);
    until("it is renewed for two leases", || {
        let now = left();
        renewed += usize::from(now > before);
        before = now;
        renewed >= 12
    })
    .await;
    assert!(two.shared().is_empty(), "{:?}", two.shared());
    drop(one);
    until("two speaks", || two.shared() == ["shared firing"]).await;
    assert!(!state(&two.keep, "shared").told_by_other);
    server.kill();
    until("redis is away", || !two.keep.redis().status().is_up()).await;
    let three = Instance::with(server.url(), every);
    three.knob.turn(11);
    until("three speaks as well", || {
        three.shared() == ["shared firing"]
    })
    .await;
    two.knob.turn(0);
    until("two says it is over", || two.shared().len() == 2).await;
}

/// One that speaks and one that is silent, both of which find the rule firing.
async fn speaker_and_silent(server: &TestRedis) -> [Instance; 2] {
    let every = Duration::from_millis(100);
    let both = [(); 2].map(|()| Instance::with(server.url(), every));
    for instance in &both {
        assert!(instance.keep.redis().watch().until_up().await);
    }
    both[0].knob.turn(11);
    until("one speaks", || both[0].shared() == ["shared firing"]).await;
    both[1].knob.turn(11);
    until("two is silent", || {
        state(&both[1].keep, "shared").told_by_other
    })
    .await;
    both
}

/// The speaker used to keep the lease for the cooldown, and nobody heard that it went on elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_is_over_for_the_speaker_alone_another_says_that_it_still_fires() {
    let server = TestRedis::start();
    let [one, two] = speaker_and_silent(&server).await;
    one.knob.turn(0);
    until("one is over it", || one.shared().len() == 2).await;
    until("two speaks", || two.shared() == ["shared firing"]).await;
    assert!(!state(&two.keep, "shared").told_by_other);
    two.knob.turn(0);
    until("two is over it", || two.shared().len() == 2).await;
    assert_eq!(one.shared(), ["shared firing", "shared resolved"]);
    assert_eq!(two.shared(), ["shared firing", "shared resolved"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_instance_speaks_in_the_end_when_redis_stays_away() {
    let server = TestRedis::start();
    let [one, two] = speaker_and_silent(&server).await;
    server.kill();
    until("two speaks", || two.shared() == ["shared firing"]).await;
    two.knob.turn(0);
    until("two is over it", || two.shared().len() == 2).await;
    assert_eq!(one.shared(), ["shared firing"]);
}

/// The speaker kept the lease, and nobody said that it got worse or was over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_speaker_has_no_value_any_more_one_that_has_takes_the_word() {
    let server = TestRedis::start();
    let [one, two] = speaker_and_silent(&server).await;
    one.knob.turn(Knob::NOTHING);
    until("two speaks", || two.shared() == ["shared firing"]).await;
    two.knob.turn(0);
    let over = ["shared firing", "shared resolved"];
    until("two is over it", || two.shared() == over).await;
    assert_eq!(one.shared(), ["shared firing"]);
    // It is back in rotation, and fires there still.
    one.knob.turn(11);
    let again = ["shared firing", "shared firing"];
    until("one says so", || one.shared() == again).await;
}

/// Whoever was told that it fires used never to hear that it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_speaker_dies_after_it_was_over_for_another_that_one_says_so() {
    let server = TestRedis::start();
    let [one, two] = speaker_and_silent(&server).await;
    two.knob.turn(0);
    // What is the instance's own is told after what is the fleet's.
    two.told.until(&["own firing", "own resolved"]).await;
    drop(one);
    until("two says it", || two.shared() == ["shared resolved"]).await;
}

/// Both went on believing that they had the word, and one of them never heard that it was over elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_spoke_while_redis_was_away_one_falls_silent_until_it_is_over_for_the_other() {
    let server = TestRedis::start();
    let every = Duration::from_millis(100);
    let both = [(); 2].map(|()| Instance::with(server.url(), every));
    for instance in &both {
        assert!(instance.keep.redis().watch().until_up().await);
    }
    server.kill();
    for instance in &both {
        let away = || !instance.keep.redis().status().is_up();
        until("redis is away", away).await;
        instance.knob.turn(11);
        let spoke = || instance.shared() == ["shared firing"];
        until("each speaks", spoke).await;
    }
    server.restart();
    let by_other = |at: usize| state(&both[at].keep, "shared").told_by_other;
    until("one falls silent", || by_other(0) || by_other(1)).await;
    let (silent, speaker) = if by_other(0) { (0, 1) } else { (1, 0) };
    both[speaker].knob.turn(0);
    let over = ["shared firing", "shared resolved"];
    until("one is over it", || both[speaker].shared() == over).await;
    let again = ["shared firing", "shared firing"];
    until("the other goes on", || both[silent].shared() == again).await;
    assert!(!by_other(silent));
}

/// The handler's task waited for alerts that nobody would tell, and the shutdown for the task.
#[tokio::test(start_paused = true)]
async fn a_handler_of_alerts_that_are_not_enabled_does_not_hold_up_the_shutdown() {
    let keep = Keep::builder(Profile::azure_b1())
        .alerts(|alerts| alerts.enabled = false)
        .on_alert(async |_: Alert| Ok::<(), AlertError>(()))
        .build()
        .unwrap();
    let began = tokio::time::Instant::now();
    keep.shutdown().await;
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_instance_is_called_the_same_in_alerts_as_in_its_health_and_reports() {
    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    assert_eq!(keep.alerts().instance(), keep.health_details().instance);
    let named = Keep::builder(Profile::azure_b1())
        .alerts(|alerts| alerts.instance = "seven".to_owned())
        .build();
    assert_eq!(named.unwrap().alerts().instance(), "seven");
}
