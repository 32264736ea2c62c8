//! The whole stack: the builder's faults, each feature switched off, real connections, the end.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_keep::cache::CacheTags;
use tower_keep::error::ConfigError;
use tower_keep::event::{Event, Recorder};
use tower_keep::guard::Pressure;
use tower_keep::identity::PeerAddr;
use tower_keep::invalidation::{Invalidate, InvalidationEntity, InvalidationRule, Variables};
use tower_keep::metrics::Window;
use tower_keep::rate_limit::{Quota, Rule, Scope};
use tower_keep::refusal::Refusal;
use tower_keep::{Keep, Profile};

const MINUTE: Duration = Duration::from_secs(60);

pub type Http = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

/// A client that opens a connection of its own for every request.
pub fn client() -> Http {
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http()
}

async fn send(client: &Http, method: &str, url: String) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(url);
    let response = client
        .request(request.body(Full::default()).unwrap())
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// A register behind the stack: reads are cached under a tag, writes purge by rule.
#[derive(Clone, Default)]
struct Register {
    value: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

async fn read(State(register): State<Register>, Path(id): Path<String>) -> impl IntoResponse {
    register.reads.fetch_add(1, Ordering::SeqCst);
    let value = register.value.load(Ordering::SeqCst);
    let tags = axum::Extension(CacheTags::new([format!("register:{id}")]));
    (
        tags,
        [("cache-control", "public, max-age=600")],
        format!("{id}={value}"),
    )
}

async fn write(State(register): State<Register>, Path(id): Path<String>) -> impl IntoResponse {
    register.value.fetch_add(1, Ordering::SeqCst);
    (
        axum::Extension(Invalidate::tag(&format!("register:{id}"))),
        StatusCode::NO_CONTENT,
    )
}

/// Serves `keep`'s stack around the register on a port of its own.
async fn serve(keep: &Keep, register: Register) -> SocketAddr {
    let app = Router::new()
        .route("/registers/{id}", get(read).put(write))
        .route("/views/{id}", get(read))
        .layer(keep.layer())
        .with_state(register)
        .merge(keep.admin_router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

fn fields(error: &ConfigError) -> Vec<&str> {
    error.faults().iter().map(|fault| &*fault.field).collect()
}

#[tokio::test]
async fn every_fault_of_every_room_is_told_at_once() {
    let error = Keep::builder(Profile::production())
        .routes(["/contacts/{id}"])
        .guard(|guard| guard.slots = 0)
        .cache(|cache| cache.capacity_bytes = 1)
        .rate_limit(|limits| {
            limits.window = Duration::ZERO;
            limits.requests_max = 0;
            let quota = Quota::requests(5).per(MINUTE);
            limits.rules.push(Rule::new("login", quota).route("/login"));
        })
        .invalidation(|rules| {
            rules
                .rules
                .push(InvalidationRule::new("/contacts/{id}").tags(["contact:{{contact}}"]));
            rules
                .rules
                .push(InvalidationRule::new("/nowhere").tags(["x"]));
        })
        .database(|database| database.connections_max = 0)
        .env_from(|name| (name == "ENABLE_METRICS").then(|| "perhaps".to_owned()))
        .build()
        .unwrap_err();
    let found = fields(&error);
    for expected in [
        "ENABLE_METRICS",
        "guard.slots",
        "cache.capacity_bytes",
        "rate_limit.requests_max",
        "rate_limit.window_ms",
        "rate_limit.rules[0].route",
        "invalidation.rules[0].tags",
        "invalidation.rules[1].route",
        "database.connections_max",
    ] {
        assert!(
            found.iter().any(|field| field.starts_with(expected)),
            "{expected} in\n{error}"
        );
    }
    let twice = |at: &usize| error.faults()[..*at].contains(&error.faults()[*at]);
    let again = (0..found.len()).find(twice);
    assert_eq!(again, None, "no fault is told twice:\n{error}");
    assert!(
        error.to_string().contains("guard.slots = 0: must be"),
        "{error}"
    );
}

#[test]
fn building_outside_of_a_runtime_is_an_error_and_no_panic() {
    let error = Keep::builder(Profile::azure_b1()).build().unwrap_err();
    assert_eq!(fields(&error), ["build()"]);
}

#[tokio::test]
async fn a_file_sets_up_rules_and_rooms() {
    let config = toml::from_str(
        r#"
        profile = "azure_b1"
        [rate_limit]
        requests_max = 3
        [[rate_limit.rules]]
        name = "login"
        route = "/login"
        methods = ["POST"]
        scope = "ip"
        quota = { requests = 5, per_ms = 3600000 }
        [[invalidation.rules]]
        route = "/contacts/{id}"
        tags = ["contact:{{id}}"]
        [cache]
        ttl_default_ms = 1000
        "#,
    )
    .unwrap();
    let keep = Keep::from_config(config).build().unwrap();
    assert_eq!(keep.config().rate_limit.rules[0].name, "login");
    assert_eq!(keep.config().invalidation.rules.len(), 1);
    assert_eq!(keep.config().database.connections_max, 3);
}

#[tokio::test]
async fn a_limit_of_two_holds_over_four_connections() {
    let keep = Keep::builder(Profile::azure_b1())
        .rate_limit(|limits| {
            limits.requests_max = 2;
            limits.window = MINUTE;
        })
        .build()
        .unwrap();
    let address = serve(&keep, Register::default()).await;
    let client = client();
    let four: Vec<_> = (0..4)
        .map(|_| {
            let (client, url) = (client.clone(), format!("http://{address}/registers/a"));
            tokio::spawn(async move { send(&client, "GET", url).await })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in four {
        answers.push(answer.await.unwrap());
    }
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status() == 429)
        .collect();
    assert_eq!(refused.len(), 2, "{answers:?}");
    for refusal in refused {
        assert_eq!(
            refusal.headers()["content-type"],
            "application/problem+json"
        );
        assert!(refusal.headers().contains_key("retry-after"));
        assert!(refusal.headers().contains_key("ratelimit"));
        let problem: serde_json::Value = serde_json::from_slice(refusal.body()).unwrap();
        assert_eq!(problem["status"], 429);
    }
    let figures = send(&client, "GET", format!("http://{address}/metrics")).await;
    let figures = String::from_utf8(figures.body().to_vec()).unwrap();
    let counted =
        r#"keep_http_requests_total{route="/registers/{id}",method="GET",status="4xx"} 2"#;
    assert!(figures.contains(counted), "{figures}");
}

#[tokio::test]
async fn a_read_after_a_write_never_sees_the_old_value() {
    let keep = Keep::builder(Profile::production())
        .rate_limit(|limits| limits.enabled = false)
        .build()
        .unwrap();
    let register = Register::default();
    let address = serve(&keep, register.clone()).await;
    let client = client();
    for round in 1..=50 {
        // The view has another path than the write: only the tag connects them.
        let url = format!("http://{address}/views/a");
        let first = send(&client, "GET", url.clone()).await;
        assert_eq!(first.body(), &format!("a={}", round - 1));
        assert_eq!(
            send(&client, "GET", url.clone()).await.headers()["cache-status"],
            "keep; hit"
        );
        let put = send(&client, "PUT", format!("http://{address}/registers/a")).await;
        assert_eq!(put.status(), 204);
        let after = send(&client, "GET", url).await;
        assert_eq!(after.body(), &format!("a={round}"));
        assert_eq!(
            after.headers()["cache-status"],
            "keep; fwd=uri-miss; stored"
        );
    }
}

/// The handler says nothing: rule, entity and closure together name the tag of what was read.
#[tokio::test]
async fn a_rule_an_entity_and_a_closure_purge_through_the_whole_stack() {
    let keep = Keep::builder(Profile::production())
        .invalidation(|config| {
            let register = InvalidationEntity::new(["id"]).tags(["register:{{id}}"]);
            config.entities.insert("register".to_owned(), register);
            let rule = InvalidationRule::new("/writes")
                .supplied(["id"])
                .changes("register", []);
            config.rules.push(rule);
        })
        .invalidation_variables(|_request, response| {
            let id = response.headers["x-register"].to_str().unwrap();
            Variables::new().set("id", id)
        })
        .build()
        .unwrap();
    let register = Register::default();
    let writes = |State(register): State<Register>| async move {
        register.value.fetch_add(1, Ordering::SeqCst);
        ([("x-register", "a")], StatusCode::NO_CONTENT)
    };
    let app = Router::new()
        .route("/registers/{id}", get(read))
        .route("/writes", axum::routing::post(writes))
        .layer(keep.layer())
        .with_state(register.clone());
    let ask = async |request: Request<Body>| {
        let answer = app.clone().oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let get = |id: &str| {
        let request = Request::get(format!("http://x/registers/{id}"));
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(ask(get("a")).await, "a=0");
    assert_eq!(ask(get("b")).await, "b=0");
    ask(Request::post("http://x/writes")
        .body(Body::empty())
        .unwrap())
    .await;
    assert_eq!(ask(get("a")).await, "a=1");
    assert_eq!(ask(get("b")).await, "b=0", "another register is left alone");
    assert_eq!(register.reads.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn nested_routers_keep_their_answers_apart_and_equivalent_targets_together() {
    let keep = Keep::builder(Profile::production()).build().unwrap();
    let said = |what: &'static str| {
        let answer = move || async move { ([("cache-control", "public, max-age=600")], what) };
        Router::new()
            .route("/{id}", get(answer).put(StatusCode::NO_CONTENT))
            .layer(keep.layer())
    };
    let app = Router::<()>::new()
        .nest("/contacts", said("contact"))
        .nest("/orders", said("order"));
    let ask = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let status = head.headers["cache-status"].to_str().unwrap().to_owned();
        (String::from_utf8(body.to_vec()).unwrap(), status)
    };
    let miss = "keep; fwd=uri-miss; stored".to_owned();
    assert_eq!(
        ask("GET", "/contacts/7").await,
        ("contact".to_owned(), miss.clone())
    );
    assert_eq!(
        ask("GET", "/orders/7").await,
        ("order".to_owned(), miss.clone())
    );
    assert_eq!(ask("GET", "/contacts/7").await.1, "keep; hit");
    // The same contact by another spelling: what one changes, the other must not serve.
    ask("PUT", "/contacts/%37").await;
    assert_eq!(ask("GET", "/contacts/7").await.1, miss);
    assert_eq!(ask("GET", "/orders/7").await.1, "keep; hit");
}

#[tokio::test]
async fn a_thousand_requests_for_one_missing_answer_cost_one_call() {
    let keep = Keep::builder(Profile::production())
        .rate_limit(|limits| limits.enabled = false)
        .build()
        .unwrap();
    let (calls, inside) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (counted, gate) = (Arc::clone(&calls), Arc::clone(&inside));
    let slow = tower::service_fn(move |_: Request<Empty<Bytes>>| {
        let (counted, gate) = (Arc::clone(&counted), Arc::clone(&gate));
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            let answer = Response::builder().header("cache-control", "public, max-age=60");
            Ok::<_, std::convert::Infallible>(answer.body(Full::<Bytes>::from("x")).unwrap())
        }
    });
    // 1,000 callers are more than the guard lets in at once, so the cache is tried alone.
    let service = keep.cache_layer().layer(slow);
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                let request = Request::get("/slow").body(Empty::new()).unwrap();
                let answer = service.oneshot(request).await.unwrap();
                answer.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    inside.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "x");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let cache = keep.metrics().snapshot().cache;
    assert_eq!((cache.served(), cache.missed()), (999, 1));
}

#[tokio::test]
async fn a_miss_is_what_might_have_been_served() {
    let keep = Keep::builder(Profile::production()).build().unwrap();
    let service = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
        let line = match request.uri().path() {
            "/never" => "no-store",
            "/asked" => "no-cache",
            _ => "public, max-age=60",
        };
        let answer = Response::builder().header("cache-control", line);
        let answer = match request.headers().contains_key("if-none-match") {
            true => answer.status(304),
            false => answer.header("etag", "\"1\""),
        };
        Ok::<_, std::convert::Infallible>(answer.body(Full::<Bytes>::from("x")).unwrap())
    });
    let service = keep.layer().layer(service);
    for path in [
        "/never", "/never", "/kept", "/kept", "/asked", "/kept", "/never", "/asked", "/asked",
    ] {
        let request = Request::get(path).body(Empty::new()).unwrap();
        let answer = service.clone().oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    let figures = keep.metrics().window(Window::Minute);
    let cache = &figures.figures.cache;
    assert_eq!((cache.served(), cache.missed()), (2, 1));
    assert_eq!(figures.hit_ratio(), Some(2.0 / 3.0));
    let http = figures.figures.http;
    assert_eq!((http.cached, http.uncached, http.requests), (2, 1, 9));
}

/// A service before which another instance stands counts that one's hits for itself no longer.
#[tokio::test]
async fn what_another_cache_says_of_itself_is_not_counted() {
    for (cache, outcomes) in [
        (serde_json::json!({ "enabled": true }), (1, 1)),
        (serde_json::json!({ "enabled": false }), (0, 0)),
        (serde_json::json!({ "cache_status": "off" }), (0, 0)),
    ] {
        let keep = Keep::builder(Profile::production())
            .overlay(serde_json::json!({ "cache": cache }))
            .build()
            .unwrap();
        let service = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
            let answer = Response::builder().header("cache-status", "keep; hit");
            let answer = answer.header("cache-control", &request.uri().path()[1..]);
            Ok::<_, std::convert::Infallible>(answer.body(Full::<Bytes>::from("x")).unwrap())
        });
        let service = keep.layer().layer(service);
        for path in ["/no-store", "/max-age=60", "/max-age=60"] {
            let request = Request::get(path).body(Empty::new()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap();
            answer.into_body().collect().await.unwrap();
        }
        let http = keep.metrics().snapshot().http;
        assert_eq!((http.cached, http.uncached), outcomes, "{cache}");
        assert_eq!(http.requests, 3);
    }
}

/// Anybody may ask so, and would raise an alert on errors.
#[tokio::test]
async fn that_nothing_is_stored_is_no_failure_and_no_miss() {
    for told in ["off", "outcome", "key"] {
        let overlay = serde_json::json!({ "cache": { "cache_status": told } });
        let keep = Keep::builder(Profile::production()).overlay(overlay);
        let keep = keep.build().unwrap();
        let service = keep
            .layer()
            .layer(tower::service_fn(async |_: Request<Empty<Bytes>>| {
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
            }));
        let request = Request::get("/a").header("cache-control", "only-if-cached");
        let request = request.body(Empty::new()).unwrap();
        let answer = service.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 504);
        answer.into_body().collect().await.unwrap();
        let figures = keep.metrics().window(Window::Minute);
        let http = &figures.figures.http;
        assert_eq!(
            (http.status.client_error, http.cached, http.uncached),
            (1, 0, 0)
        );
        assert_eq!(
            (figures.error_ratio(), figures.hit_ratio()),
            (Some(0.0), None)
        );
    }
}

#[tokio::test]
async fn each_feature_can_be_switched_off_by_itself() {
    let off = [
        "metrics",
        "guard",
        "rate_limit",
        "invalidation",
        "cache",
        "progress",
    ];
    for room in off {
        let overlay = serde_json::json!({ room: { "enabled": false } });
        let keep = Keep::builder(Profile::azure_b1())
            .overlay(overlay)
            .build()
            .unwrap();
        let address = serve(&keep, Register::default()).await;
        let client = client();
        let url = format!("http://{address}/registers/a");
        send(&client, "GET", url.clone()).await;
        let again = send(&client, "GET", url).await;
        assert_eq!(again.status(), 200, "{room}");
        let has = |name| again.headers().contains_key(name);
        assert_eq!(has("cache-status"), room != "cache", "{room}");
        assert_eq!(has("ratelimit"), room != "rate_limit", "{room}");
        let counted = keep
            .metrics()
            .prometheus()
            .contains("route=\"/registers/{id}\"");
        assert_eq!(counted, room != "metrics", "{room}");
        assert_eq!(
            keep.progress().open("job").is_ok(),
            room != "progress",
            "{room}"
        );
    }
}

#[tokio::test]
async fn hostile_requests_are_answered_and_leave_nothing_behind() {
    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    let service = keep
        .layer()
        .layer(tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
        }));
    let giant = "9".repeat(64 << 10);
    let mut requests = Vec::new();
    for name in [
        "x-forwarded-for",
        "forwarded",
        "cache-control",
        "range",
        "vary",
        "if-none-match",
    ] {
        for value in [&*giant, "\"", ",,,;;;==", "max-age=-1, \"", "\u{fe}bytes=-"] {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            requests.push(
                Request::get("/x")
                    .header(name, value)
                    .body(Empty::new())
                    .unwrap(),
            );
        }
    }
    for method in ["PURGE", "M-SEARCH", "X"] {
        requests.push(
            Request::builder()
                .method(method)
                .uri("/x")
                .body(Empty::new())
                .unwrap(),
        );
    }
    requests.push(Request::get("*").body(Empty::new()).unwrap());
    requests.push(Request::get("/%00%ff/../..//?").body(Empty::new()).unwrap());
    requests.push(
        Request::connect("example.org:443")
            .body(Empty::new())
            .unwrap(),
    );
    for request in requests {
        let label = format!("{} {}", request.method(), request.uri());
        let answer = service.clone().oneshot(request).await.unwrap();
        assert!(answer.status() == 200 || answer.status() == 429, "{label}");
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(keep.guard().in_flight(), 0);
    let figures = keep.metrics().prometheus();
    assert!(figures.contains(r#"method="_OTHER""#), "{figures}");
    assert!(!figures.contains("M-SEARCH"));
}

#[tokio::test]
async fn requests_without_a_peer_share_one_bucket() {
    let keep = Keep::builder(Profile::azure_b1())
        .rate_limit(|limits| {
            limits.requests_max = 2;
            limits.window = MINUTE;
        })
        .build()
        .unwrap();
    let service = keep
        .layer()
        .layer(tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
        }));
    let mut statuses = Vec::new();
    for at in 0..3 {
        let request = Request::get(format!("/{at}")).body(Empty::new()).unwrap();
        let answer = service.clone().oneshot(request).await.unwrap();
        statuses.push(answer.status().as_u16());
        let refused = answer.extensions().get::<Refusal>().is_some();
        assert_eq!(refused, answer.status() == 429);
    }
    assert_eq!(statuses, [200, 200, 429]);
    let mut known = Request::get("/").body(Empty::new()).unwrap();
    known
        .extensions_mut()
        .insert(PeerAddr(SocketAddr::from(([192, 0, 2, 1], 1))));
    assert_eq!(
        service.oneshot(known).await.unwrap().status(),
        200,
        "a known peer has its own"
    );
}

#[tokio::test]
async fn a_checked_key_has_a_bucket_of_its_own_and_a_made_up_one_has_none() {
    let keep = Keep::builder(Profile::production())
        .rate_limit(|limits| {
            limits.default_rule = false;
            let quota = Quota::requests(2).per(MINUTE);
            limits.rules = vec![Rule::new("keys", quota).scope(Scope::ApiKey)];
        })
        .api_keys(|request| {
            let key = request.headers.get("x-api-key")?.to_str().ok()?;
            key.starts_with("k-").then_some(Cow::Borrowed(key))
        })
        .build()
        .unwrap();
    let answer = async |_| Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()));
    let service = keep.rate_limit_layer().layer(tower::service_fn(answer));
    let ask = async |peer: [u8; 4], key: &str| {
        let mut request = Request::new(());
        let peer = SocketAddr::from((peer, 1234));
        request.extensions_mut().insert(PeerAddr(peer));
        request
            .headers_mut()
            .insert("x-api-key", key.parse().unwrap());
        service
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let (home, away) = ([203, 0, 113, 7], [203, 0, 113, 8]);
    // The key's two, from wherever; then another key's.
    assert_eq!(ask(home, "k-1").await, 200);
    assert_eq!(ask(away, "k-1").await, 200);
    assert_eq!(ask(home, "k-1").await, 429);
    assert_eq!(ask(home, "k-2").await, 200);
    // Whoever makes keys up is the address that he comes from.
    for (made_up, status) in [("x", 200), ("y", 200), ("z", 429), ("", 429)] {
        assert_eq!(ask(home, made_up).await, status, "{made_up}");
    }
    assert_eq!(ask(away, "x").await, 200);
}

#[tokio::test]
async fn memory_pressure_shrinks_the_cache_and_spares_the_critical_routes() {
    // More than the smallest budget allows is in use from the start.
    let ballast = vec![1_u8; 48 << 20];
    let keep = Keep::builder(Profile::azure_b1())
        .guard(|guard| {
            guard.memory_budget_bytes = Some(16 << 20);
            guard.critical = vec!["/views/{id}".to_owned()];
        })
        .cache(|cache| {
            cache.capacity_bytes = 8 << 20;
            cache.body_bytes_max = 1 << 20;
        })
        .build()
        .unwrap();
    let address = serve(&keep, Register::default()).await;
    let client = client();
    assert_eq!(keep.http_cache().capacity_bytes(), (8 << 20) / 16);
    assert_eq!(keep.tiers().capacity_bytes(), (16 << 20) / 16);
    assert!(keep.warmer().stats().paused);
    let refused = send(&client, "GET", format!("http://{address}/registers/a")).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let served = send(&client, "GET", format!("http://{address}/views/a")).await;
    assert_eq!(served.status(), 200);
    assert_eq!(
        send(&client, "GET", format!("http://{address}/ready"))
            .await
            .status(),
        503
    );
    assert_eq!(
        send(&client, "GET", format!("http://{address}/alive"))
            .await
            .status(),
        200
    );
    until(async || {
        let health = send(&client, "GET", format!("http://{address}/health")).await;
        health.status() == 503
    })
    .await;
    assert!(ballast.iter().all(|byte| *byte == 1));
}

/// What was done about memory, in order.
#[derive(Default)]
struct Relieved(std::sync::Mutex<Vec<(&'static str, u64, u64)>>);

impl Recorder for Relieved {
    fn record(&self, event: &Event<'_>) {
        if let Event::MemoryRelieved {
            action,
            before_bytes,
            after_bytes,
        } = *event
        {
            let mut told = self.0.lock().unwrap();
            told.push((action, before_bytes, after_bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_purge_hook_gives_back_lowers_the_level_within_two_seconds() {
    // So much that what the other tests of this process use hardly matters beside it.
    let ballast = std::sync::Mutex::new(Some(vec![1_u8; 640 << 20]));
    let relieved = Arc::new(Relieved::default());
    let keep = Keep::builder(Profile::azure_b1())
        .recorder(Arc::clone(&relieved) as Arc<dyn Recorder>)
        .guard(|guard| guard.memory_budget_bytes = Some(600 << 20))
        .purge_memory(move || drop(ballast.lock().unwrap().take()))
        .build()
        .unwrap();
    assert_eq!(keep.guard().pressure(), Pressure::Critical);
    let began = std::time::Instant::now();
    until(async || keep.guard().pressure() <= Pressure::Elevated).await;
    assert!(began.elapsed() < Duration::from_secs(2));
    let purged = || {
        relieved
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|(action, ..)| *action == "purge")
    };
    until(async || purged()).await;
    let told = relieved.0.lock().unwrap().clone();
    let actions: Vec<_> = told.iter().map(|(action, ..)| *action).take(2).collect();
    assert_eq!(actions, ["freeze", "evict"], "{told:?}");
    let (_, before, after) = told.iter().find(|(action, ..)| *action == "purge").unwrap();
    assert!(*after + (400 << 20) < *before, "{told:?}");
    let health = keep.health();
    let runtime = &health.components["runtime"];
    assert!(runtime.detail.contains("lag"), "{runtime:?}");
    assert!(
        keep.guard()
            .runtime()
            .descriptors
            .is_none_or(|open| open > 2)
    );
}

#[tokio::test]
async fn shutdown_ends_every_task_and_dropping_leaks_none() {
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    assert!(
        runtime.metrics().num_alive_tasks() > before,
        "the memory is sampled"
    );
    assert_eq!(keep.shutdown().await, 0, "all of them stop when asked");
    assert_eq!(runtime.metrics().num_alive_tasks(), before);

    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    let (layer, router) = (keep.layer(), keep.admin_router::<()>());
    drop(keep);
    until(async || runtime.metrics().num_alive_tasks() == before).await;
    drop((layer, router));
}

/// Counts nothing; whether it is still alive shows whether the stack that tells it is.
#[derive(Debug)]
pub struct Witness;

impl Recorder for Witness {
    fn record(&self, _: &Event<'_>) {}
}

#[tokio::test]
async fn dropping_the_stack_frees_it_and_lifts_what_nobody_watches_any_more() {
    let ballast = vec![1_u8; 48 << 20];
    let witness = Arc::new(Witness);
    let keep = Keep::builder(Profile::azure_b1())
        .recorder(Arc::clone(&witness) as Arc<dyn Recorder>)
        .guard(|guard| guard.memory_budget_bytes = Some(16 << 20))
        .cache(|cache| {
            cache.capacity_bytes = 8 << 20;
            cache.body_bytes_max = 1 << 20;
        })
        .build()
        .unwrap();
    let service = keep
        .layer()
        .layer(tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
        }));
    let ask = async || {
        let request = Request::get("/").body(Empty::new()).unwrap();
        service.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(ask().await, 503, "the budget is spent");
    let cache = keep.http_cache().clone();
    drop(keep);
    assert_eq!(
        ask().await,
        200,
        "nobody would ever learn that it is not any more"
    );
    assert_eq!(cache.capacity_bytes(), 8 << 20);
    drop((service, cache));
    // An aborted task is let go by its runtime.
    until(async || Arc::strong_count(&witness) == 1).await;
    assert!(ballast.iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn ready_says_no_once_it_is_told_to_drain() {
    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    let address = serve(&keep, Register::default()).await;
    let url = format!("http://{address}/ready");
    assert_eq!(send(&client(), "GET", url.clone()).await.status(), 200);
    let (progress, stream) = (keep.progress().clone(), "import");
    let publisher = progress.open(stream).unwrap();
    keep.drain();
    keep.drain();
    assert_eq!(send(&client(), "GET", url.clone()).await.status(), 503);
    assert!(!keep.is_ready());
    assert_eq!(
        progress.streams(),
        0,
        "its watchers would hold up the server's end"
    );
    drop(publisher);
    // Whatever else it did it does on.
    assert!(keep.spawner().spawn(async {}));
    keep.shutdown().await;
    assert_eq!(send(&client(), "GET", url).await.status(), 503);
}

/// axum takes the fallback of the router that is merged last, where none has one of its own.
#[tokio::test]
async fn with_the_readme_s_routers_unknown_paths_meet_the_stack() {
    let keep = Keep::builder(Profile::azure_b1())
        .rate_limit(|limits| (limits.requests_max, limits.burst) = (3, None))
        .admin(|admin| admin.token = Some("of-the-operator-0123456789".to_owned()))
        .build()
        .unwrap();
    let app: Router = Router::new()
        .route("/reports/{id}", get(async || "slow to make"))
        .layer(keep.layer());
    let app = keep
        .probe_router()
        .merge(app)
        .nest("/admin", keep.admin_router());
    let ask = async |path: String| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap().status()
    };
    for nth in 0..3 {
        assert_eq!(ask(format!("/nope{nth}")).await, 404);
    }
    assert_eq!(ask("/nope".to_owned()).await, 429);
    assert_eq!(ask("/alive".to_owned()).await, 200);
    let unmatched = keep.metrics().snapshot().routes;
    let unmatched = unmatched
        .iter()
        .find(|row| &*row.route == "unmatched")
        .unwrap();
    assert_eq!(unmatched.counts.requests, 4);
}

#[tokio::test]
async fn a_shutdown_that_is_cancelled_leaves_nobody_refused_for_want_of_memory() {
    let keep = Keep::builder(Profile::azure_b1())
        .guard(|guard| guard.memory_budget_bytes = Some(16 << 20))
        .cache(|cache| {
            cache.capacity_bytes = 8 << 20;
            cache.body_bytes_max = 1 << 20;
        })
        .build()
        .unwrap();
    assert_eq!(keep.guard().pressure(), Pressure::Critical);
    keep.spawner().spawn(std::future::pending());
    assert!(keep.shutdown().now_or_never().is_none());
    assert_eq!(keep.guard().pressure(), Pressure::Unknown);
}

#[tokio::test]
async fn requests_that_want_an_answer_of_their_own_do_not_queue_for_each_other() {
    let keep = Keep::builder(Profile::production()).build().unwrap();
    // Nobody goes on before all eight are inside.
    let together = Arc::new(tokio::sync::Barrier::new(8));
    let gate = Arc::clone(&together);
    let slow = tower::service_fn(move |request: Request<Empty<Bytes>>| {
        let gate = Arc::clone(&gate);
        async move {
            if request.headers().contains_key("cache-control") {
                gate.wait().await;
            }
            let answer = Response::builder().header("cache-control", "public, max-age=60");
            Ok::<_, std::convert::Infallible>(answer.body(Full::<Bytes>::from("x")).unwrap())
        }
    });
    let service = keep.cache_layer().layer(slow);
    let ask = |fresh: bool| {
        let mut request = Request::get("/page").body(Empty::new()).unwrap();
        if fresh {
            request
                .headers_mut()
                .insert("cache-control", "no-cache".parse().unwrap());
        }
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service.oneshot(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        })
    };
    ask(false).await.unwrap();
    let all: Vec<_> = (0..8).map(|_| ask(true)).collect();
    for one in all {
        let answered = tokio::time::timeout(Duration::from_secs(4), one).await;
        assert_eq!(
            answered.expect("within less than a flight's wait").unwrap(),
            "x"
        );
    }
}

#[tokio::test]
async fn the_stack_compiles_and_answers_around_bare_services_too() {
    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    let bare = keep
        .layer()
        .layer(tower::service_fn(async |_: Request<Body>| {
            Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from("bare")))
        }));
    let answer = bare
        .oneshot(Request::get("/").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "bare"
    );
    // Applied again and again, as axum does per connection, it is still one stack.
    let mut request = Request::get("/registers/b").body(Body::empty()).unwrap();
    let peer = SocketAddr::from(([192, 0, 2, 9], 1));
    request.extensions_mut().insert(ConnectInfo(peer));
    let app = Router::new()
        .route("/registers/{id}", get(read))
        .with_state(Register::default());
    let answer = app.layer(keep.layer()).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// Asks again and again until it is so, for ten seconds at most.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    let patience = tokio::time::timeout(Duration::from_secs(10), async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    });
    patience.await.expect("it should have come to this by now");
}
