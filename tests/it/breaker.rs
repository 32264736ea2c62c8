//! Circuit breakers as layers: over real connections, around clients, below the cache.

use std::borrow::Cow;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::timeout::TimeoutLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_keep::breaker::{
    BreakerConfig, BreakerLayer, CircuitBreaker, CircuitBreakers, CircuitState, Outcome,
};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::Events;
use tower_keep::health::HealthStatus;
use tower_keep::invalidation::InvalidationRule;
use tower_keep::refusal::Refusal;
use tower_keep::{Keep, Profile};

const SECOND: Duration = Duration::from_secs(1);

/// Circuits with a clock that is moved by hand.
struct Set {
    breakers: CircuitBreakers,
    hand: ManualClock,
}

impl Set {
    fn new() -> Self {
        let (clock, hand) = Clock::manual();
        let config = BreakerConfig::default();
        let breakers = CircuitBreakers::new(&config, clock, Events::none()).unwrap();
        Self { breakers, hand }
    }

    fn breaker(&self) -> CircuitBreaker {
        self.breakers.of("it")
    }

    fn layer(&self) -> BreakerLayer {
        BreakerLayer::new(self.breaker())
    }

    fn open(&self) {
        for _ in 0..5 {
            self.breaker().admit().unwrap().failed();
        }
        assert_eq!(self.breaker().state(), CircuitState::Open);
    }
}

/// Serves it until the set of tasks is dropped.
async fn serve(app: Router) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, tasks)
}

/// One connection; the set of tasks drives it.
async fn connect(address: SocketAddr, tasks: &mut JoinSet<()>) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", "keep.test");
    request.body(Empty::new()).unwrap()
}

/// Asks again and again until it is so, for ten seconds at most.
async fn eventually(what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let within = tokio::time::timeout(10 * SECOND, wait);
    assert!(within.await.is_ok(), "never saw {what}");
}

#[tokio::test]
async fn errors_over_two_connections_open_one_circuit() {
    let set = Set::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let handler = move || async move {
        called.fetch_add(1, Ordering::SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let app = Router::new().route("/", get(handler)).layer(set.layer());
    let (address, mut tasks) = serve(app).await;
    let mut connections = [
        connect(address, &mut tasks).await,
        connect(address, &mut tasks).await,
    ];
    for turn in 0..50 {
        let connection = &mut connections[turn % 2];
        connection.ready().await.unwrap();
        let answer = connection.send_request(request("/")).await.unwrap();
        if turn < 5 {
            assert_eq!(answer.status(), 500, "{turn}");
            continue;
        }
        assert_eq!(answer.status(), 503, "{turn}");
        assert_eq!(answer.headers()["retry-after"], "30");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["title"], "Circuit open");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

/// Every layer that counts results sees none here: fifty calls to a dependency that hangs, each dropped by a
/// timeout around the breaker.
#[tokio::test(start_paused = true)]
async fn a_dependency_that_hangs_opens_it_though_every_call_was_dropped_by_a_timeout() {
    let set = Set::new();
    let (calls, hand) = (AtomicUsize::new(0), set.hand.clone());
    let hangs = service_fn(|_: Request<()>| {
        calls.fetch_add(1, Ordering::SeqCst);
        // Paused time passes by itself; the clock's is moved by hand.
        hand.advance(2 * SECOND);
        pending::<Result<Response<Full<Bytes>>, std::io::Error>>()
    });
    let mut service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(2 * SECOND))
        .layer(set.layer())
        .service(hangs);
    let mut refused = 0;
    for _ in 0..50 {
        let answer = service.ready().await.unwrap().call(Request::new(())).await;
        refused += usize::from(answer.is_ok_and(|answer| answer.status() == 503));
    }
    assert_eq!((calls.into_inner(), refused), (5, 45));
}

/// The timeout is far shorter than `probe_ms`: each probe is dropped, and its place given to the next caller.
#[tokio::test(start_paused = true)]
async fn a_dependency_that_still_hangs_opens_it_again_though_every_probe_was_dropped_by_a_timeout()
{
    let set = Set::new();
    set.open();
    set.hand.advance(30 * SECOND);
    let mut hung = 0;
    while let Ok(call) = set.breaker().admit() {
        hung += 1;
        assert!(hung < 10, "still {:?}", set.breaker().state());
        let hand = set.hand.clone();
        let hangs = async move {
            let _call = call;
            // Paused time passes by itself; the clock's is moved by hand.
            hand.advance(2 * SECOND);
            pending::<()>().await;
        };
        let call = tokio::time::timeout(2 * SECOND, hangs).await;
        assert!(call.is_err(), "it hangs");
    }
    assert_eq!(hung, 3, "as many as there are probes");
    assert_eq!(set.breaker().state(), CircuitState::Open);
}

#[tokio::test]
async fn clients_that_leave_early_do_not_open_it_and_those_who_waited_do() {
    let set = Set::new();
    let inside = Arc::new(AtomicUsize::new(0));
    let entered = Arc::clone(&inside);
    let handler = move || async move {
        entered.fetch_add(1, Ordering::SeqCst);
        let _gone = OnDrop(entered);
        pending::<()>().await;
    };
    let app = Router::new().route("/", get(handler)).layer(set.layer());
    let (address, _server) = serve(app).await;
    for turn in 0..25 {
        let mut tasks = JoinSet::new();
        let mut connection = connect(address, &mut tasks).await;
        tasks.spawn(async move {
            let _ = connection.send_request(request("/")).await;
        });
        eventually("it arrive", || inside.load(Ordering::SeqCst) == 1).await;
        assert_eq!(set.breaker().figures().failed, 0);
        if turn == 24 {
            set.hand.advance(SECOND);
        }
        drop(tasks);
        eventually("it leave", || inside.load(Ordering::SeqCst) == 0).await;
    }
    eventually("the last count", || set.breaker().figures().failed == 1).await;
    assert_eq!(set.breaker().state(), CircuitState::Closed);
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn of_many_who_come_at_once_a_few_are_sent_to_see() {
    let set = Set::new();
    let (door, inside) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, entered) = (Arc::clone(&door), Arc::clone(&inside));
    let service = set.layer().layer(service_fn(move |_: Request<()>| {
        let (held, entered) = (Arc::clone(&held), Arc::clone(&entered));
        async move {
            entered.fetch_add(1, Ordering::SeqCst);
            held.acquire().await.unwrap().forget();
            Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from("x")))
        }
    }));
    set.open();
    set.hand.advance(30 * SECOND);
    let mut all = JoinSet::new();
    for _ in 0..20 {
        all.spawn(service.clone().oneshot(Request::new(())));
    }
    for _ in 0..17 {
        let refused = all.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    assert_eq!(inside.load(Ordering::SeqCst), 3);
    assert_eq!(set.breaker().state(), CircuitState::HalfOpen);
    door.add_permits(3);
    while let Some(done) = all.join_next().await {
        assert_eq!(done.unwrap().unwrap().status(), 200);
    }
    assert_eq!(set.breaker().state(), CircuitState::Closed);
}

#[tokio::test]
async fn hosts_are_kept_apart_and_errors_stay_errors() {
    let set = Set::new();
    let client = service_fn(|request: Request<()>| async move {
        match request.uri().host() {
            Some("down.test" | "DOWN.test") => Err(std::io::Error::other("refused")),
            _ => Ok(Response::new(Full::<Bytes>::from("x"))),
        }
    });
    let mut client = BreakerLayer::by_host(set.breakers.clone()).layer(client);
    let get = |uri: &str| Request::get(uri).body(()).unwrap();
    for _ in 0..5 {
        for uri in [
            "http://down.test/a",
            "http://DOWN.test/b",
            "http://up.test/",
        ] {
            let answer = client.ready().await.unwrap().call(get(uri)).await;
            match answer {
                Ok(answer) => assert!(uri.contains("up") || answer.status() == 503),
                Err(error) => assert_eq!(error.to_string(), "refused"),
            }
        }
    }
    let answer = client.ready().await.unwrap().call(get("http://down.test/"));
    let answer = answer.await.unwrap();
    assert!(matches!(
        answer.extensions().get(),
        Some(Refusal::CircuitOpen { .. })
    ));
    assert_eq!(set.breakers.open(), [Arc::<str>::from("down.test")]);
    let answer = client.ready().await.unwrap().call(get("http://up.test/"));
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_closure_names_circuits_judges_answers_and_says_what_to_answer_instead() {
    let set = Set::new();
    let layer = BreakerLayer::by(set.breakers.clone(), |request| {
        let path = request.uri.path().strip_prefix("/by/")?;
        Some(Cow::Borrowed(path))
    })
    .outcomes(|answer| match answer.headers.contains_key("x-broken") {
        true => Outcome::Failed,
        false => Outcome::Ignored,
    })
    .fallback(|refusal, request| {
        assert_eq!(refusal.retry_after(), Some(30 * SECOND));
        let body = Bytes::copy_from_slice(request.uri.path().as_bytes());
        (request.uri.path() != "/by/c").then(|| Response::new(body))
    });
    let mut service = layer.layer(service_fn(|_: Request<()>| async {
        let response = Response::builder().header("x-broken", "1");
        Ok::<_, std::convert::Infallible>(response.body(Full::<Bytes>::from("x")).unwrap())
    }));
    let mut ask = async |path: &str| {
        let request = Request::get(path).body(()).unwrap();
        let answer = service.ready().await.unwrap().call(request).await.unwrap();
        let refused = answer.extensions().get::<Refusal>().is_some();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, refused, String::from_utf8(body.to_vec()).unwrap())
    };
    for path in ["/by/b", "/by/c", "/plain"] {
        for _ in 0..5 {
            assert_eq!(ask(path).await, (200, false, "x".to_owned()));
        }
    }
    assert_eq!(ask("/by/b").await, (200, true, "/by/b".to_owned()));
    let (status, refused, _) = ask("/by/c").await;
    assert_eq!((status, refused), (503, true));
    assert_eq!(ask("/plain").await, (200, false, "x".to_owned()));
}

/// Whoever catches a panic further outside drops the future later, when nobody panics any more.
#[tokio::test]
async fn a_handler_that_panics_has_failed() {
    let set = Set::new();
    let service = set.layer().layer(service_fn(|_: Request<()>| async {
        assert!(std::hint::black_box(false), "a mistake");
        Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
    }));
    for _ in 0..5 {
        let mut answer = Box::pin(service.clone().oneshot(Request::new(())));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let mut cx = Context::from_waker(Waker::noop());
            matches!(answer.as_mut().poll(&mut cx), Poll::Ready(_))
        }));
        assert!(polled.is_err());
        drop(answer);
    }
    assert_eq!(set.breaker().state(), CircuitState::Open);
}

/// A stack with a breaker inside, its handler's status, and its clock.
fn stack(
    change: impl FnOnce(&mut serde_json::Value),
) -> (Keep, Router, Arc<AtomicU16>, ManualClock) {
    let (clock, hand) = Clock::manual();
    let mut overlay = serde_json::json!({"rate_limit": {"enabled": false}});
    change(&mut overlay);
    let keep = Keep::builder(Profile::azure_b1()).overlay(overlay);
    let rule = InvalidationRule::new("/{*path}").tags(["all"]);
    let keep = keep.invalidation(|changes| changes.rules.push(rule));
    let keep = keep.clock(clock).build().unwrap();
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    let handler = move |headers: HeaderMap| async move {
        let status = StatusCode::from_u16(says.load(Ordering::SeqCst)).unwrap();
        // An error that says how long it holds would be stored as well (RFC 9111 §3).
        let terms = match status.is_success() {
            true => headers["x-terms"].to_str().unwrap().to_owned(),
            false => "no-store".to_owned(),
        };
        (
            status,
            [("cache-control", &*terms), ("cache-tag", "all")],
            "fresh",
        )
            .into_response()
    };
    let app = Router::new()
        .route("/{*path}", get(handler))
        .layer(keep.breaker_layer("reports"))
        .layer(keep.layer());
    (keep, app, status, hand)
}

async fn ask(app: &Router, path: &str, terms: &str) -> (u16, String) {
    let request = Request::get(path).header("host", "keep.test");
    let request = request.header("x-terms", terms);
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = app.clone().oneshot(request).await.unwrap();
    let said = answer.headers().get("cache-status");
    let said = said.map_or(String::new(), |said| said.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    answer.into_body().collect().await.unwrap();
    (status, said)
}

#[tokio::test]
async fn while_it_is_open_the_cache_answers_with_what_it_has() {
    let (keep, app, status, hand) = stack(|_| {});
    let terms = "max-age=60, stale-if-error=600";
    let (code, said) = ask(&app, "/a", terms).await;
    assert!(code == 200 && said.contains("stored"), "{said}");
    hand.advance(61 * SECOND);
    status.store(500, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(ask(&app, "/other", terms).await.0, 500);
    }
    assert_eq!(keep.breaker("reports").state(), CircuitState::Open);
    let (code, said) = ask(&app, "/a", terms).await;
    assert_eq!(code, 200);
    assert!(said.contains("stale-if-error"), "{said}");
    assert_eq!(ask(&app, "/other", terms).await.0, 503);
    // A change that nobody was asked for has changed nothing.
    let change = Request::post("/a").header("host", "keep.test");
    let change = change.body(axum::body::Body::empty()).unwrap();
    let refused = app.clone().oneshot(change).await.unwrap();
    assert_eq!(refused.status(), 503);
    let (code, said) = ask(&app, "/a", terms).await;
    assert!(code == 200 && said.contains("stale-if-error"), "{said}");
    // It works again: the probes close it, and what they bring is fresh.
    status.store(200, Ordering::SeqCst);
    hand.advance(30 * SECOND);
    for path in ["/a", "/b", "/c"] {
        assert_eq!(ask(&app, path, terms).await.0, 200);
    }
    assert_eq!(keep.breaker("reports").state(), CircuitState::Closed);
    let (code, said) = ask(&app, "/a", terms).await;
    assert!(code == 200 && said.contains("hit"), "{said}");
}

/// RFC 9111 §4.2.4: "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly
/// permitted". An answer of the service's own, if only an error, is a connection; a call that was not made is none.
#[tokio::test]
async fn a_circuit_that_is_open_counts_as_disconnected() {
    let (keep, app, status, hand) = stack(|overlay| {
        overlay["cache"] = serde_json::json!({"stale_if_disconnected_ms": 600_000});
    });
    assert_eq!(ask(&app, "/a", "max-age=60").await.0, 200);
    hand.advance(61 * SECOND);
    status.store(503, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(ask(&app, "/a", "max-age=60").await.0, 503);
    }
    assert_eq!(keep.breaker("reports").state(), CircuitState::Open);
    assert_eq!(ask(&app, "/a", "max-age=60").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn health_and_metrics_tell_of_open_circuits() {
    let (keep, _, _, _) = stack(|_| {});
    let component = |keep: &Keep| keep.health().components["circuits"].clone();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(component(&keep).status, HealthStatus::Healthy);
    keep.breaker("reports").force_open();
    assert!(keep.breaker("reports").admit().is_err());
    tokio::time::sleep(2 * SECOND).await;
    let told = component(&keep);
    assert_eq!(
        (told.status, &*told.detail),
        (HealthStatus::Degraded, "open: reports")
    );
    let text = keep.metrics().prometheus();
    assert!(text.contains("\nkeep_circuits_open 1\n"), "{text}");
    let circuits = keep.metrics().snapshot().circuits;
    assert_eq!((circuits.refused, circuits.changes["open"]), (1, 1));
    keep.breaker("reports").force_close();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(component(&keep).status, HealthStatus::Healthy);
}
