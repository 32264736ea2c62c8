//! The operator's endpoints: who may see and change what, what is answered to whatever is sent, and that changes
//! are made.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_keep::admin::{Access, AdminAuth, AdminBody, AdminService, AdminSources};
use tower_keep::clock::Clock;
use tower_keep::health::{HealthBoard, HealthStatus};
use tower_keep::metrics::{Metrics, MetricsConfig};
use tower_keep::rate_limit::{PenaltyConfig, Quota, Rule};
use tower_keep::tiers::{CacheError, EntryOptions};
use tower_keep::warming::WarmKey;
use tower_keep::{Keep, KeepBuilder, Profile};

const TOKEN: &str = "0123456789-of-the-operator";
const MINUTE: EntryOptions = EntryOptions::new().ttl(Duration::from_secs(60));

const PROBES: [&str; 4] = ["/alive", "/ready", "/health", "/metrics"];

const DETAILS: [&str; 12] = [
    "/health/detailed",
    "/report",
    "/alerts",
    "/slow",
    "/cache",
    "/limiter",
    "/journal",
    "/tenants",
    "/dashboard/data",
    "/dashboard/events",
    "/limiter/peek?who=ip:203.0.113.7",
    "/limiter/peek?who=caller:alice&path=/x%20y&method=POST&tier=premium&tenant=acme",
];

const CHANGES: [(&str, &str); 5] = [
    ("/cache/purge", r#"{"tags": ["t"]}"#),
    ("/cache/warm", r#"{"recipes": ["report:7"]}"#),
    ("/limiter/unban", r#"{"who": "ip:203.0.113.7"}"#),
    ("/limiter/peek", r#"{"who": "203.0.113.7"}"#),
    ("/tenants/acme/clear", ""),
];

fn builder() -> KeepBuilder {
    Keep::builder(Profile::azure_b1())
}

fn with_token() -> Keep {
    let keep = builder().admin(|admin| admin.token = Some(TOKEN.to_owned()));
    keep.build().unwrap()
}

/// A request, by what a table says of it: `Bearer` and a token, or nothing.
fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if method == "POST" {
        request = request.header("content-type", "application/json");
    }
    request
        .body(Full::from(Bytes::from(body.to_owned())))
        .unwrap()
}

async fn ask<B>(admin: &AdminService, request: Request<B>) -> Response<AdminBody>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    let answer = admin.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    answer
}

async fn status(admin: &AdminService, request: Request<Full<Bytes>>) -> u16 {
    ask(admin, request).await.status().as_u16()
}

async fn text(answer: Response<AdminBody>) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// What an operator's GET shows.
async fn shown(admin: &AdminService, path: &str) -> Value {
    let answer = ask(admin, request("GET", path, Some(TOKEN), "")).await;
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_str(&text(answer).await).unwrap()
}

/// What an operator's POST is answered with.
async fn done(admin: &AdminService, path: &str, said: Value) -> Value {
    let answer = ask(admin, request("POST", path, Some(TOKEN), &said.to_string())).await;
    let status = answer.status();
    let text = text(answer).await;
    assert_eq!(status, 200, "{path} {said} {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn without_authorisation_there_are_the_probes_and_nothing_else() {
    let keep = builder().build().unwrap();
    let admin = keep.admin_service();
    for path in PROBES {
        assert_eq!(status(&admin, request("GET", path, None, "")).await, 200);
    }
    let unknown = text(ask(&admin, request("GET", "/no-such-thing", None, "")).await).await;
    for token in [None, Some(TOKEN)] {
        for path in DETAILS.into_iter().chain(["/dashboard"]) {
            let answer = ask(&admin, request("GET", path, token, "")).await;
            assert_eq!(answer.status(), 404, "{path}");
            assert_eq!(text(answer).await, unknown, "{path} gives itself away");
        }
        for (path, body) in CHANGES {
            let asked = request("POST", path, token, body);
            assert_eq!(status(&admin, asked).await, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn details_and_changes_are_for_whoever_brings_the_token() {
    let keep = with_token();
    let admin = keep.admin_service();
    let mut refused = Vec::new();
    for (token, expected) in [
        (None, 401),
        (Some("0123456789-of-the-operatoR"), 403),
        (Some(TOKEN), 200),
    ] {
        // The limit on guesses is tested elsewhere: each row of the table asks a service of its own.
        let admin = |_: &str| with_auth(&keep);
        for path in PROBES.into_iter().chain(["/dashboard"]) {
            let asked = request("GET", path, token, "");
            assert_eq!(status(&admin(path), asked).await, 200, "{path}");
        }
        for (method, path, body) in DETAILS
            .into_iter()
            .flat_map(|path| [("GET", path, ""), ("HEAD", path, "")])
            .chain(CHANGES.into_iter().map(|(path, body)| ("POST", path, body)))
        {
            let answer = ask(&admin(path), request(method, path, token, body)).await;
            assert_eq!(answer.status(), expected, "{method} {path}");
            let challenge = answer.headers().get("www-authenticate");
            assert_eq!(challenge.is_some(), expected == 401, "{method} {path}");
            if expected != 200 && method != "HEAD" {
                refused.push(text(answer).await);
            }
        }
    }
    refused.dedup();
    assert_eq!(
        refused.len(),
        1,
        "who is turned away reads the same: {refused:?}"
    );
    assert!(!format!("{keep:?} {admin:?}").contains(TOKEN));
}

/// What has no source is missing for whoever may look, and looks like everything else to others. Why a part is
/// as it is stands where the operator looks, also without details of a source's own.
#[tokio::test]
async fn strangers_read_how_parts_are_and_the_operator_why() {
    let metrics = Metrics::new(&MetricsConfig::default(), Clock::system());
    let board = HealthBoard::new();
    board.set(
        "redis",
        HealthStatus::Degraded,
        "down: 10.0.0.7:6379 refused",
    );
    let mut sources = AdminSources::new(metrics.unwrap(), board);
    let admin = |sources: &AdminSources| {
        let auth = AdminAuth::none().asking(|request| match request.headers.get("authorization") {
            Some(_) => Access::Allow,
            None => Access::Challenge,
        });
        AdminService::new(sources.clone(), auth)
    };
    for path in ["/report", "/alerts"] {
        for (token, expected) in [(None, 401), (Some(TOKEN), 404)] {
            let asked = request("GET", path, token, "");
            assert_eq!(status(&admin(&sources), asked).await, expected, "{path}");
        }
    }
    let health = shown(&admin(&sources), "/health").await;
    assert_eq!(health["components"]["redis"], json!({"status": "degraded"}));
    let redis = shown(&admin(&sources), "/health/detailed").await["components"]["redis"].clone();
    assert_eq!(redis["detail"], "down: 10.0.0.7:6379 refused");
    sources.health_details = Some(Arc::new(|| json!({"status": "degraded", "why": "told"})));
    assert_eq!(
        shown(&admin(&sources), "/health/detailed").await["why"],
        "told"
    );
    assert_eq!(shown(&admin(&sources), "/health").await, health);
}

/// The endpoints of a stack, with a count of wrong tokens of their own.
fn with_auth(keep: &Keep) -> AdminService {
    AdminService::new(keep.admin_sources(), AdminAuth::new(&keep.config().admin))
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_and_the_operator_is_not() {
    let keep = with_token();
    let (admin, another) = (keep.admin_service(), keep.admin_service());
    let guess = || request("GET", "/slow", Some("not-the-token-at-all"), "");
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(status(&admin, guess()).await);
    }
    assert_eq!(answers.iter().filter(|status| **status == 403).count(), 20);
    let answer = ask(&another, guess()).await;
    assert_eq!(
        answer.status(),
        429,
        "all services of a stack count together"
    );
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    shown(&admin, "/slow").await;
    assert_eq!(status(&admin, request("GET", "/slow", None, "")).await, 401);
    assert_eq!(keep.metrics().gauge_value("keep_admin_denied"), Some(32.0));
}

#[tokio::test]
async fn a_closure_lets_in_whom_it_knows() {
    let keep = builder().admin_auth(|request| match request.headers.get("x-role") {
        Some(role) if role == "operator" => Access::Allow,
        Some(_) => Access::Deny,
        None => Access::Challenge,
    });
    let keep = keep.build().unwrap();
    let admin = keep.admin_service();
    for path in DETAILS.into_iter().chain(["/dashboard"]) {
        for (role, expected) in [(None, 401), (Some("reader"), 403), (Some("operator"), 200)] {
            let mut asked = request("GET", path, None, "");
            if let Some(role) = role {
                asked.headers_mut().insert("x-role", role.parse().unwrap());
            }
            let admin = AdminService::new(
                keep.admin_sources(),
                AdminAuth::none().asking(|request| {
                    match request.headers.get("x-role").map(|role| role.as_bytes()) {
                        Some(b"operator") => Access::Allow,
                        Some(_) => Access::Deny,
                        None => Access::Challenge,
                    }
                }),
            );
            assert_eq!(status(&admin, asked).await, expected, "{path} {role:?}");
        }
    }
    let mut asked = request("GET", "/slow", None, "");
    asked
        .headers_mut()
        .insert("x-role", "operator".parse().unwrap());
    assert_eq!(status(&admin, asked).await, 200);
}

#[tokio::test]
async fn a_method_that_an_endpoint_does_not_know_is_told_which_it_knows() {
    let admin = with_auth(&with_token());
    for (path, allow) in [
        ("/alive", "GET, HEAD"),
        ("/dashboard", "GET, HEAD"),
        ("/slow", "GET, HEAD"),
        ("/limiter/peek", "GET, HEAD, POST"),
        ("/cache/purge", "POST"),
        ("/tenants/acme/clear", "POST"),
    ] {
        for method in [
            "OPTIONS", "PUT", "DELETE", "TRACE", "PROPFIND", "get", "GET", "POST", "HEAD",
        ] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = ask(&admin, request(method, path, Some(TOKEN), "")).await;
            assert_eq!(answer.status(), 405, "{method} {path}");
            assert_eq!(answer.headers()["allow"], allow);
        }
    }
}

#[tokio::test]
async fn head_says_how_long_the_answer_to_get_would_be() {
    let admin = with_auth(&with_token());
    for path in ["/alive", "/health", "/dashboard", "/tenants"] {
        let get = ask(&admin, request("GET", path, Some(TOKEN), "")).await;
        let head = ask(&admin, request("HEAD", path, Some(TOKEN), "")).await;
        assert_eq!(
            head.headers()["content-type"],
            get.headers()["content-type"]
        );
        let length = head.headers()["content-length"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(text(head).await, "");
        assert_eq!(length, text(get).await.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn paths_that_only_look_like_an_endpoint_are_none() {
    let admin = with_auth(&with_token()).under("/admin/");
    for (path, expected) in [
        ("/admin/alive", 200),
        ("/alive", 404),
        ("/admin", 404),
        ("/admin/", 404),
        ("/admin/alive/", 404),
        ("/admin//alive", 404),
        ("/admin/../admin/alive", 404),
        ("/admin/./alive", 404),
        ("/admin/%61live", 404),
        ("/admin/ALIVE", 404),
        ("/admin/alive%00", 404),
        ("/admin/dashboard/../../etc/passwd", 404),
        ("/admin/tenants/%2e%2e/clear/", 404),
        ("/administration/alive", 404),
        ("/admin/%", 404),
        ("/admin/alive?x=%zz&&&=", 200),
        ("/admin/report?window=5m", 200),
        ("/admin/report?window=6m", 400),
        ("/admin/report?format=xml", 400),
        ("/admin/limiter/peek", 400),
        ("/admin/limiter/peek?who=%ff", 400),
        ("/admin/limiter/peek?who=tenant:acme", 400),
        ("/admin/limiter/peek?who=::1&method=G%20T", 400),
        (
            "/admin/limiter/peek?who=::1&path=no-slash%20or%20space",
            400,
        ),
        ("/admin/limiter/peek?who=%00%0a", 400),
    ] {
        let asked = request("GET", path, Some(TOKEN), "");
        assert_eq!(status(&admin, asked).await, expected, "{path}");
    }
    for path in ["/admin/tenants/%ff/clear", "/admin/tenants/%80abc/clear"] {
        let asked = request("POST", path, Some(TOKEN), "{}");
        assert_eq!(status(&admin, asked).await, 400, "{path}");
    }
    let long = format!("/admin/limiter/peek?who={}", "a".repeat(5_000));
    assert_eq!(
        status(&admin, request("GET", &long, Some(TOKEN), "")).await,
        400
    );
}

#[tokio::test]
async fn what_is_no_proper_change_is_refused_and_nothing_is_changed() {
    let keep = with_token();
    let admin = with_auth(&keep);
    let before = keep.journal().position();
    let deep = format!("{{\"tags\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let many = json!({"keys": vec!["/a"; 1_001]}).to_string();
    let huge = format!("{{\"tags\": [\"{}\"]}}", "t".repeat(70_000));
    for (path, body, expected) in [
        ("/cache/purge", "", 400),
        ("/cache/purge", "{}", 400),
        ("/cache/purge", "{", 400),
        ("/cache/purge", "[]", 400),
        ("/cache/purge", "null", 400),
        ("/cache/purge", "\u{feff}{}", 400),
        ("/cache/purge", "{\"tags\": [\"\\ud800\"]}", 400),
        ("/cache/purge", "{\"tags\": [\"a\\u0000\"]}", 400),
        ("/cache/purge", "{\"tags\": \"t\"}", 400),
        ("/cache/purge", "{\"everything\": true}", 400),
        ("/cache/purge", "{\"patterns\": [\"*\"]}", 400),
        ("/cache/purge", &deep, 400),
        ("/cache/purge", &many, 400),
        ("/cache/purge", &huge, 413),
        ("/cache/warm", "{}", 400),
        ("/cache/warm", "{\"recipes\": [\"no-recipe\"]}", 400),
        ("/limiter/unban", "{}", 400),
        ("/limiter/unban", "{\"who\": 7}", 400),
        ("/limiter/peek", "{\"who\": \"nobody\"}", 400),
        ("/tenants/acme/clear", "{\"really\": true}", 400),
    ] {
        let answer = ask(&admin, request("POST", path, Some(TOKEN), body)).await;
        assert_eq!(answer.status(), expected, "{path} {body:.80}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let told = text(answer).await;
        assert!(told.len() < 1_000, "{told}");
    }
    // What a form of another site can send is not what changes anything.
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        for (path, body) in CHANGES {
            let mut asked = request("POST", path, Some(TOKEN), body);
            match content_type {
                Some(it) => asked
                    .headers_mut()
                    .insert("content-type", it.parse().unwrap()),
                None => asked.headers_mut().remove("content-type"),
            };
            assert_eq!(status(&admin, asked).await, 415, "{path} {content_type:?}");
        }
    }
    assert_eq!(keep.journal().position(), before);
}

/// A body that goes on for ever, in frames or not at all.
struct Endless {
    frame: Option<Bytes>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &self.frame {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame.clone())))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_an_end_and_one_that_never_comes_are_given_up() {
    let keep = with_token();
    let admin = with_auth(&keep);
    for (frame, expected) in [(Some(vec![b' '; 1_024]), 413), (None, 408)] {
        let frame = frame.map(Bytes::from);
        let (parts, _) = request("POST", "/cache/purge", Some(TOKEN), "").into_parts();
        let asked = Request::from_parts(parts, Endless { frame });
        assert_eq!(ask(&admin, asked).await.status(), expected);
    }
    // What is said to be too long is not even begun.
    let (mut parts, _) = request("POST", "/cache/purge", Some(TOKEN), "").into_parts();
    parts
        .headers
        .insert("content-length", "65537".parse().unwrap());
    let asked = Request::from_parts(parts, Endless { frame: None });
    let began = tokio::time::Instant::now();
    assert_eq!(ask(&admin, asked).await.status(), 413);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_purge_by_hand_makes_stored_answers_and_values_old() {
    let keep = with_token();
    let admin = keep.admin_service();
    let (made, values) = (Arc::new(AtomicUsize::new(0)), keep.cache::<u64>("report"));
    let served = Arc::clone(&made);
    let app: Router = Router::new()
        .route(
            "/reports/{id}",
            get(async move || {
                let nth = served.fetch_add(1, Ordering::SeqCst);
                (
                    [("cache-control", "max-age=600"), ("cache-tag", "reports")],
                    nth.to_string(),
                )
            }),
        )
        .layer(keep.layer());
    let read = async || {
        let asked = Request::get("/reports/7")
            .body(axum::body::Body::empty())
            .unwrap();
        let body = app.clone().oneshot(asked).await.unwrap().into_body();
        let body = body.collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert_eq!(
        (read().await, read().await),
        ("0".to_owned(), "0".to_owned())
    );
    for (nth, said) in [
        json!({"keys": ["/reports/7"]}),
        json!({"paths": ["/reports/7"]}),
        json!({"tags": ["reports"]}),
        json!({"patterns": ["/reports/*"]}),
        json!({"all": true}),
    ]
    .into_iter()
    .enumerate()
    {
        let told = done(&admin, "/cache/purge", said.clone()).await;
        assert_eq!(told["confirmed"], true, "{told}");
        let expected = (nth + 1).to_string();
        assert_eq!(
            (read().await, read().await),
            (expected.clone(), expected),
            "{said}"
        );
    }
    assert_eq!(shown(&admin, "/cache").await["answers"]["urls"], 1);

    let acme = values.for_tenant("acme");
    for cache in [&values, &acme] {
        let compute = || async { Ok::<_, CacheError>(42) };
        cache.get_or_compute("7", &MINUTE, compute).await.unwrap();
    }
    let tenants = shown(&admin, "/tenants").await;
    assert_eq!(tenants["memory"][0]["tenant"], "acme");
    assert_eq!(tenants["memory"][0]["entries"], 1);
    done(&admin, "/tenants/acme/clear", json!({})).await;
    assert!(acme.get("7").await.is_none());
    assert!(values.get("7").await.is_some(), "nobody else's");
    done(
        &admin,
        "/cache/purge",
        json!({"keys": ["report:7"], "soft": false}),
    )
    .await;
    assert!(values.get("7").await.is_none());

    let journal = shown(&admin, "/journal").await;
    assert_eq!(
        (&journal["status"], &journal["seq"]),
        (&json!("verified"), &json!(7))
    );
    assert_eq!(keep.metrics().gauge_value("keep_admin_changes"), Some(7.0));
}

#[tokio::test(start_paused = true)]
async fn what_is_warmed_by_hand_is_computed_without_being_asked_for() {
    let keep = with_token();
    let (admin, cache) = (keep.admin_service(), keep.cache::<u64>("report"));
    keep.warmer().register(&cache, &MINUTE, |_: WarmKey| async {
        Ok::<_, CacheError>(42)
    });
    let users = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&users);
    keep.warmer().per_user("start page", move |user| {
        seen.fetch_add(usize::from(&*user == "anna"), Ordering::SeqCst);
        async { Ok::<_, CacheError>(()) }
    });
    let told = done(
        &admin,
        "/cache/warm",
        json!({"recipes": ["report:7"], "user": "anna"}),
    )
    .await;
    assert_eq!(told["waiting"], 2);
    tokio::time::timeout(Duration::from_secs(60), async {
        while cache.peek("7").is_none() || users.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let shown = shown(&admin, "/cache").await;
    assert_eq!(shown["warming"]["scheduled"]["computed"], 2, "{shown}");
    assert_eq!(shown["values"]["entries"], 1);
}

#[tokio::test]
async fn a_ban_ends_by_hand_and_how_somebody_stands_is_told_without_counting() {
    let quota = Quota::requests(5).per(Duration::from_secs(3600));
    let keep = builder()
        .admin(|admin| admin.token = Some(TOKEN.to_owned()))
        .rate_limit(|limits| {
            limits.penalty = Some(PenaltyConfig::default());
            limits.rules = vec![Rule::new("reports", quota).route("/reports/{id}")];
        });
    let keep = keep.build().unwrap();
    let admin = keep.admin_service();
    for who in ["203.0.113.7", "ip:203.0.113.7"] {
        let path = format!("/limiter/peek?who={who}&path=/reports/7");
        for _ in 0..7 {
            let told = shown(&admin, &path).await;
            assert_eq!(told["allowed"], true, "{told}");
            assert_eq!(told["standing"]["rule"], "reports");
            assert_eq!(told["standing"]["limit"], 5);
            assert_eq!(told["banned_for_ms"], Value::Null);
        }
    }
    assert!(keep.limiter().ban("203.0.113.7", Duration::from_secs(3600)));
    let who = json!({"who": "ip:203.0.113.7"});
    let told = done(&admin, "/limiter/peek", who.clone()).await;
    let left = told["banned_for_ms"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    assert_eq!(
        done(&admin, "/limiter/unban", who.clone()).await["was_banned"],
        true
    );
    assert_eq!(
        done(&admin, "/limiter/unban", who.clone()).await["was_banned"],
        false
    );
    assert_eq!(
        done(&admin, "/limiter/peek", who).await["banned_for_ms"],
        Value::Null
    );
    let limiter = shown(&admin, "/limiter").await;
    assert_eq!(
        (&limiter["enabled"], &limiter["bans"]),
        (&json!(true), &json!(1))
    );
}

#[tokio::test]
async fn reports_and_alerts_are_shown_as_their_sources_tell_them() {
    let metrics = Metrics::new(&MetricsConfig::default(), Clock::system());
    let mut sources = AdminSources::new(metrics.unwrap(), HealthBoard::new());
    sources.report = Some(Arc::new(
        |window| json!({"window": window.name(), "score": 93, "routes": []}),
    ));
    sources.report_text = Some(Arc::new(|window| format!("the last {}", window.name())));
    sources.alerts = Some(Arc::new(|| json!({"states": []})));
    sources.health_details = Some(Arc::new(|| json!({"status": "healthy", "uptime_ms": 7})));
    let auth = || AdminAuth::none().asking(|_| Access::Allow);
    let admin = AdminService::new(sources, auth());
    assert_eq!(shown(&admin, "/report").await["window"], "5m");
    assert_eq!(
        shown(&admin, "/report?format=json&window=1h").await["window"],
        "1h"
    );
    assert_eq!(shown(&admin, "/alerts").await, json!({"states": []}));
    assert_eq!(shown(&admin, "/health/detailed").await["uptime_ms"], 7);
    let data = shown(&admin, "/dashboard/data").await;
    assert_eq!(
        data["report"],
        json!({"score": 93}),
        "what the page shows of it"
    );
    let answer = ask(
        &admin,
        request("GET", "/report?format=text&window=1m", None, ""),
    )
    .await;
    assert_eq!(
        answer.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    assert_eq!(text(answer).await, "the last 1m");
    for query in [
        "window=2m",
        "window=",
        "format=xml",
        "format=JSON",
        "window=%ff",
    ] {
        let asked = request("GET", &format!("/report?{query}"), None, "");
        assert_eq!(status(&admin, asked).await, 400, "{query}");
    }
    // Without engines there is nothing to look into or to change.
    for (method, path) in [
        ("GET", "/cache"),
        ("POST", "/cache/purge"),
        ("POST", "/tenants/a/clear"),
    ] {
        let asked = request(method, path, None, "");
        assert_eq!(status(&admin, asked).await, 404, "{path}");
    }
}

/// A report takes as long as some hundred requests: a page that is looked at all day must not cost that every
/// second.
#[tokio::test]
async fn the_dashboard_takes_the_report_every_ten_seconds_and_the_rest_every_second() {
    let (clock, hand) = Clock::manual();
    let metrics = Metrics::new(&MetricsConfig::default(), clock.clone()).unwrap();
    let mut sources = AdminSources::new(metrics, HealthBoard::new());
    let (reports, alerts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (made, told) = (Arc::clone(&reports), Arc::clone(&alerts));
    sources.clock = clock;
    sources.report = Some(Arc::new(
        move |_| json!({"score": made.fetch_add(1, Ordering::Relaxed)}),
    ));
    sources.alerts = Some(Arc::new(move || {
        json!(told.fetch_add(1, Ordering::Relaxed))
    }));
    let admin = AdminService::new(sources, AdminAuth::none().asking(|_| Access::Allow));
    for _ in 0..20 {
        let data = shown(&admin, "/dashboard/data").await;
        assert_eq!(data["windows"][2]["window"], "1h", "{data}");
        assert!(data["report"]["score"].is_u64(), "{data}");
        hand.advance(Duration::from_secs(1));
    }
    let counts = (
        reports.load(Ordering::Relaxed),
        alerts.load(Ordering::Relaxed),
    );
    assert_eq!(counts, (2, 20));
}

#[tokio::test]
async fn it_serves_a_plain_hyper_connection_without_any_framework() {
    let keep = with_token();
    let service = TowerToHyperService::new(keep.admin_service().under("/admin"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = hyper::server::conn::http1::Builder::new();
        let _ = connection
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    let client = Client::builder(TokioExecutor::new()).build_http();
    let read = async |method: &str, path: &str, body: &str| {
        let asked = request(
            method,
            &format!("http://{address}/admin{path}"),
            Some(TOKEN),
            body,
        );
        let answer: Response<hyper::body::Incoming> = client.request(asked).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(read("GET", "/alive", "").await, (200, "alive".to_owned()));
    assert_eq!(read("HEAD", "/health", "").await, (200, String::new()));
    let (status, told) = read("POST", "/cache/purge", r#"{"tags": ["t"]}"#).await;
    assert!(
        status == 200 && told.contains("\"confirmed\":true"),
        "{told}"
    );
    assert!(read("GET", "/dashboard", "").await.1.contains("<title>"));
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn a_router_nested_under_a_prefix_answers_there_and_streams_until_shutdown() {
    let keep = with_token();
    let app: Router = Router::new()
        .route("/cache", get(async || "the application's own"))
        .layer(keep.layer())
        .nest("/admin", keep.admin_router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::builder(TokioExecutor::new()).build_http();
    let send = async |method: &str, path: &str, body: &str| {
        let asked = request(
            method,
            &format!("http://{address}{path}"),
            Some(TOKEN),
            body,
        );
        let answer: Response<hyper::body::Incoming> = client.request(asked).await.unwrap();
        answer
    };
    let body = send("GET", "/cache", "")
        .await
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "the application's own");
    for (path, expected) in [
        ("/admin/cache", 200),
        ("/admin/nothing", 404),
        ("/slow", 404),
    ] {
        assert_eq!(send("GET", path, "").await.status(), expected, "{path}");
    }
    assert_eq!(
        send("POST", "/admin/tenants/a%20b/clear", "")
            .await
            .status(),
        200
    );
    assert_eq!(
        send("HEAD", "/admin/dashboard/events", "").await.status(),
        200
    );

    let mut stream = send("GET", "/admin/dashboard/events", "").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let frame = stream.body_mut().frame().await.unwrap().unwrap();
    let frame = frame.into_data().unwrap();
    let figures = frame.strip_prefix(b"data: ").unwrap();
    let figures: Value = serde_json::from_slice(figures).unwrap();
    assert_eq!(
        figures["requests"]["requests"], 3,
        "the application's and what it does not have, not these"
    );
    assert_eq!(figures["health"]["status"], "healthy", "{figures}");
    keep.shutdown().await;
    tokio::time::timeout(Duration::from_secs(10), stream.into_body().collect())
        .await
        .expect("a stream that does not end would hold up the server's shutdown")
        .unwrap();
}

/// The probes alone may be merged into any application, whatever its paths are.
#[tokio::test]
async fn without_authorisation_the_router_takes_no_path_but_the_probes() {
    let keep = builder().build().unwrap();
    let app: Router = Router::new()
        .route("/cache", get(async || "mine"))
        .route("/dashboard", get(async || "mine"))
        .route("/report", get(async || "mine"))
        .merge(keep.admin_router());
    for (path, expected) in [
        ("/cache", "mine"),
        ("/dashboard", "mine"),
        ("/alive", "alive"),
    ] {
        let asked = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let body = app.clone().oneshot(asked).await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), expected);
    }
}

#[tokio::test]
async fn the_token_comes_from_the_environment_and_shows_nowhere() {
    let of = |token: &'static str| {
        let env = move |name: &str| (name == "KEEP_ADMIN_TOKEN").then(|| token.to_owned());
        builder().env_from(env).build()
    };
    for token in [TOKEN, "12345678901234567890"] {
        let keep = of(token).unwrap();
        assert_eq!(keep.config().admin.token.as_deref(), Some(token));
        assert!(!format!("{:?}", keep.config()).contains(token));
    }
    let error = of("short-secret").unwrap_err().to_string();
    assert!(
        error.contains("admin.token = (hidden): must be 16 to 512"),
        "{error}"
    );
    assert!(!error.contains("short-secret"));
    let wrong = builder().overlay(json!({"admin": {"token": ["s3cr3t-s3cr3t-s3cr3t"]}}));
    let error = wrong.build().unwrap_err().to_string();
    assert!(
        error.contains("admin.token") && !error.contains("s3cr3t"),
        "{error}"
    );
}
