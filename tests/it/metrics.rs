//! The metrics layer around whole services, and the text that comes out of it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_keep::clock::Clock;
use tower_keep::event::{Event, Recorder};
use tower_keep::metrics::{Metrics, MetricsConfig, MetricsLayer};

use crate::prometheus_text::Scrape;

fn metrics_for(routes: &[&str]) -> Metrics {
    let config = MetricsConfig {
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
        ..MetricsConfig::default()
    };
    Metrics::new(&config, Clock::system()).unwrap()
}

fn scrape(metrics: &Metrics) -> Scrape {
    Scrape::of(&metrics.prometheus())
}

fn answered(route: &str, method: &str, status: &str) -> String {
    let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
    format!("keep_http_requests_total{{{labels}}}")
}

/// The classes of each row that any answer had. 5xx is told before there is one.
fn classes(scrape: &Scrape) -> Vec<&str> {
    let mut series = scrape.series("keep_http_requests_total");
    series.retain(|series| scrape.value(series) > 0.0);
    series
}

#[tokio::test]
async fn failures_and_misses_are_series_before_there_are_any() {
    let metrics = metrics_for(&["/a"]);
    let service = tower::service_fn(|request: Request<()>| async move {
        let answer = Response::builder();
        let answer = match request.method() == Method::GET {
            true => answer.header("cache-status", "keep; hit"),
            false => answer,
        };
        Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
    });
    let service = MetricsLayer::new(metrics.clone()).layer(service);
    for method in [Method::GET, Method::PUT] {
        let request = Request::builder()
            .method(method)
            .uri("/a")
            .body(())
            .unwrap();
        service.clone().oneshot(request).await.unwrap();
    }
    let scrape = scrape(&metrics);
    assert_eq!(scrape.value(&answered("/a", "GET", "5xx")), 0.0);
    assert_eq!(scrape.series("keep_http_requests_total").len(), 4);
    let by_cache = scrape.series("keep_http_requests_cacheable_total");
    assert_eq!(by_cache.len(), 2, "{by_cache:?}");
}

#[tokio::test]
async fn a_bare_service_counts_by_its_own_templates() {
    let metrics = metrics_for(&["/contacts/{id}", "/contacts/new"]);
    let service = tower::service_fn(|request: Request<()>| async move {
        let status = if request.uri().path() == "/gone" {
            404
        } else {
            200
        };
        let body = Full::new(Bytes::from_static(b"text"));
        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
    });
    let service = MetricsLayer::new(metrics.clone()).layer(service);
    for (method, path) in [
        ("GET", "/contacts/1"),
        ("GET", "/contacts/2?page=7"),
        ("PUT", "/contacts/2"),
        ("GET", "/contacts/new"),
        ("GET", "/gone"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let scrape = scrape(&metrics);
    for (series, count) in [
        (answered("/contacts/{id}", "GET", "2xx"), 2.0),
        (answered("/contacts/{id}", "PUT", "2xx"), 1.0),
        (answered("/contacts/new", "GET", "2xx"), 1.0),
        (answered("unmatched", "GET", "4xx"), 1.0),
    ] {
        assert_eq!(scrape.value(&series), count, "{series}");
    }
    assert_eq!(classes(&scrape).len(), 4);
    let latency = r#"_count{route="/contacts/{id}",method="GET"}"#;
    assert_eq!(
        scrape.value(&format!("keep_http_request_duration_seconds{latency}")),
        2.0
    );
}

#[tokio::test]
async fn thousands_of_invented_paths_and_methods_make_one_series_each() {
    let metrics = metrics_for(&["/a"]);
    let service = tower::service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    });
    let service = MetricsLayer::new(metrics.clone()).layer(service);
    for number in 0..2_000 {
        let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        for (method, path) in [
            (method, "/a".to_owned()),
            (Method::GET, format!("/{number}")),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            service.clone().oneshot(request).await.unwrap();
        }
    }
    assert_eq!(
        classes(&scrape(&metrics)),
        [
            answered("/a", "_OTHER", "2xx"),
            answered("unmatched", "GET", "2xx")
        ]
    );
}

#[tokio::test]
async fn the_text_is_what_it_was() {
    let (clock, hand) = Clock::manual();
    let config = MetricsConfig {
        routes: vec!["/contacts/{id}".to_owned()],
        ..MetricsConfig::default()
    };
    let metrics = Metrics::new(&config, clock).unwrap();
    let service = tower::service_fn(move |_: Request<()>| {
        hand.advance(Duration::from_millis(7));
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"text")))) }
    });
    let service = MetricsLayer::new(metrics.clone()).layer(service);
    let request = || Request::builder().uri("/contacts/1").body(()).unwrap();
    let whole = service.clone().oneshot(request()).await.unwrap();
    whole.into_body().collect().await.unwrap();
    drop(service.clone().oneshot(request()).await.unwrap());
    let _in_flight = service.oneshot(request()).await.unwrap();
    record_one_of_each(&metrics);
    metrics
        .gauge("keep_cache_bytes", "Bytes held by the cache.", || 1.0)
        .unwrap();
    metrics
        .gauge("keep_cache_bytes", "Bytes held by the cache.", || 4096.5)
        .unwrap();

    let text = metrics.prometheus();
    Scrape::of(&text);
    // After a change that was meant: write `text` over the file and read the difference.
    assert_eq!(text, include_str!("metrics.prom"));
}

const AND_MORE: [Event<'static>; 5] = [
    Event::TierHit { tier: "warm" },
    Event::ValueComputed {
        took: Duration::from_millis(30),
        failed: true,
    },
    Event::EntryUnreadable {
        tier: "warm",
        why: "corrupt",
    },
    Event::Warmed {
        class: "boot",
        outcome: "computed",
    },
    Event::Warning { text: "odd" },
];

const OF_OVERLOAD: [Event<'static>; 11] = [
    Event::GuardLeft {
        waited: Duration::from_millis(30),
    },
    Event::GuardRefused {
        why: "overloaded",
        waited: Duration::ZERO,
    },
    Event::GuardSlotsChanged { slots: 7 },
    Event::RuntimeLagging {
        lag: Duration::from_millis(30),
    },
    Event::MemoryRelieved {
        action: "evict",
        before_bytes: 9,
        after_bytes: 7,
    },
    Event::LeakSuspected {
        bytes_per_hour: 9,
        until_limit: Duration::from_secs(9),
    },
    Event::CircuitChanged {
        circuit: "a.test",
        from: "closed",
        to: "open",
    },
    Event::CircuitRefused { circuit: "a.test" },
    Event::ConnectionOpened,
    Event::ConnectionClosed { why: "stale" },
    Event::ConnectionRefused { why: "full" },
];

const OF_STORES: [Event<'static>; 6] = [
    Event::CacheMissed { stale: false },
    Event::CacheMissed { stale: true },
    Event::RedisAnswered {
        took: Duration::from_millis(30),
    },
    Event::RedisFailed { why: "timeout" },
    Event::DatabaseWaited {
        waited: Duration::from_millis(30),
        served: false,
    },
    Event::AlertChanged {
        rule: "errors",
        severity: "critical",
        state: "firing",
    },
];

/// Every event that ends in a figure, once.
pub fn record_one_of_each(metrics: &Metrics) {
    let took = Duration::from_millis(30);
    for event in [
        Event::CacheHit { stale: false },
        Event::CacheHit { stale: true },
        Event::CacheForwarded { reason: "uri-miss" },
        Event::CacheCollapsed,
        Event::CacheStored { bytes: 1_234 },
        Event::RateLimitAllowed {
            rule: "login \"strict\"",
        },
        Event::RateLimitDenied {
            rule: "login \"strict\"",
            shadow: false,
        },
        Event::RateLimitDenied {
            rule: "all",
            shadow: true,
        },
        Event::ClientBanned {
            who: "caller:a",
            lasts: took,
        },
        Event::ClientShutOut { why: "banned" },
        Event::PeerUnknown,
        Event::GuardAdmitted {
            waited: Duration::ZERO,
        },
        Event::PressureChanged {
            from: "normal",
            to: "high",
            used_bytes: 9,
            budget_bytes: 10,
        },
        Event::Invalidated {
            seq: 70,
            markers: 3,
        },
        Event::InvalidationPending { why: "queued" },
        Event::JournalUnverified { why: "gap" },
        Event::JournalReplaced,
        Event::CoherencyChecked { window: "10ms" },
        Event::CoherencyViolation {
            invariant: "served",
            window: "10ms",
            detail: "by 7",
        },
        Event::QueryFinished {
            name: "contacts",
            took,
            slow: true,
        },
        Event::RemoteQuotaWaited {
            remote: "a.test",
            waited: took,
        },
        Event::RemoteQuotaRefused { remote: "a.test" },
        Event::RemoteQuotaBlocked {
            remote: "a.test",
            lasts: took,
        },
        Event::ProgressPublished,
        Event::RedisUp,
        Event::RedisDown { reason: "gone" },
    ]
    .into_iter()
    .chain(AND_MORE.into_iter().chain(OF_OVERLOAD).chain(OF_STORES))
    {
        metrics.record(&event);
    }
}

#[test]
fn a_gauge_cannot_break_the_text() {
    let metrics = metrics_for(&[]);
    for name in [
        "",
        "9lives",
        "with space",
        "ümlaut",
        "keep_http_requests_total",
        "keep_http_requests_in_flight",
        // The same family as the counter's, where OpenMetrics is spoken.
        "keep_http_requests",
        "http_server_active_requests",
        "odd_created",
        "keep_http_request_duration_seconds",
        "keep_guard_queue_wait_seconds_count",
    ] {
        let error = metrics.gauge(name, "help", || 0.0).unwrap_err();
        assert_eq!(error.faults()[0].value, name);
    }
    metrics.gauge("odd", "line\nbreak", || f64::NAN).unwrap();
    assert!(scrape(&metrics).value("odd").is_nan());
}

/// A service on a real socket, and clients that each have a connection of their own.
#[cfg(feature = "axum")]
mod served {
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use axum::Router;
    use axum::routing::{any, get};
    use http_body::{Body, Frame};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tower_keep::metrics::HttpTotals;

    use super::*;

    type Wire = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

    struct Served {
        base: String,
        _server: JoinSet<()>,
    }

    async fn serve(router: Router) -> Served {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Served {
            base,
            _server: server,
        }
    }

    fn client() -> Wire {
        Client::builder(TokioExecutor::new()).build_http()
    }

    impl Served {
        fn request(&self, method: &str, path: &str) -> Request<Full<Bytes>> {
            let request = Request::builder().method(method);
            let request = request.uri(format!("{}{path}", self.base));
            request.body(Full::new(Bytes::new())).unwrap()
        }

        /// The status, after the whole body was read.
        async fn ask(&self, client: &Wire, method: &str, path: &str) -> u16 {
            let response = client.request(self.request(method, path)).await.unwrap();
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            status
        }
    }

    /// Waits, at most 10 s, until `done` says so of the metrics.
    async fn until(metrics: &Metrics, done: fn(&HttpTotals) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !done(&metrics.snapshot().http) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        if waited.await.is_err() {
            panic!("still waiting: {:?}", metrics.snapshot().http);
        }
    }

    /// A body whose frames come through a channel.
    struct Channel(mpsc::UnboundedReceiver<Bytes>);

    impl Body for Channel {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let bytes = self.0.poll_recv(cx);
            bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// A handler that waits for ever, and all the ways in which one may answer.
    fn router(metrics: &Metrics) -> Router {
        Router::new()
            .route(
                "/contacts/{id}",
                get(async || "contact").put(async || "put"),
            )
            .route("/any", any(async || "any"))
            .route("/empty", get(async || http::StatusCode::NO_CONTENT))
            .route("/stuck", get(async || std::future::pending::<()>().await))
            .route(
                "/panics",
                get(async || -> &'static str { panic!("a handler's") }),
            )
            .nest("/v1", Router::new().route("/x/{y}", get(async || "x")))
            .layer(MetricsLayer::new(metrics.clone()))
    }

    #[tokio::test]
    async fn routes_count_by_template_over_all_connections() {
        let metrics = metrics_for(&[]);
        let served = serve(router(&metrics)).await;
        for connection in 0..4 {
            let client = client();
            for (method, path, status) in [
                ("GET", format!("/contacts/{connection}"), 200),
                ("HEAD", format!("/contacts/{connection}"), 200),
                ("PUT", "/contacts/7".to_owned(), 200),
                ("DELETE", "/contacts/7".to_owned(), 405),
                ("GET", "/empty".to_owned(), 204),
                ("GET", format!("/v1/x/{connection}"), 200),
                ("GET", format!("/wp-login-{connection}.php"), 404),
            ] {
                assert_eq!(
                    served.ask(&client, method, &path).await,
                    status,
                    "{method} {path}"
                );
            }
        }
        // All of these are counted before their last byte is sent, so there is nothing to wait for.
        let scrape = scrape(&metrics);
        let series = [
            answered("/contacts/{id}", "DELETE", "4xx"),
            answered("/contacts/{id}", "GET", "2xx"),
            answered("/contacts/{id}", "HEAD", "2xx"),
            answered("/contacts/{id}", "PUT", "2xx"),
            answered("/empty", "GET", "2xx"),
            answered("/v1/x/{y}", "GET", "2xx"),
            answered("unmatched", "GET", "4xx"),
        ];
        assert_eq!(classes(&scrape), series);
        for series in series {
            assert_eq!(scrape.value(&series), 4.0, "{series}");
        }
        let http = metrics.snapshot().http;
        assert_eq!((http.cancelled, http.in_flight), (0, 0));
    }

    #[tokio::test]
    async fn two_hundred_invented_methods_make_one_series() {
        let metrics = metrics_for(&[]);
        let served = serve(router(&metrics)).await;
        let client = client();
        for number in 0..200 {
            assert_eq!(
                served.ask(&client, &format!("M{number}"), "/any").await,
                200
            );
        }
        let series = answered("/any", "_OTHER", "2xx");
        let scrape = scrape(&metrics);
        assert_eq!(classes(&scrape), [series.as_str()]);
        assert_eq!(scrape.value(&series), 200.0);
    }

    #[tokio::test]
    async fn ten_of_ten_aborted_requests_are_counted_as_cancelled() {
        let metrics = metrics_for(&[]);
        let served = Arc::new(serve(router(&metrics)).await);
        let mut waiting = JoinSet::new();
        for _ in 0..10 {
            let served = Arc::clone(&served);
            waiting.spawn(async move { served.ask(&client(), "GET", "/stuck").await });
        }
        until(&metrics, |http| http.in_flight == 10).await;
        drop(waiting);
        until(&metrics, |http| http.in_flight == 0).await;
        let http = metrics.snapshot().http;
        assert_eq!((http.cancelled, http.requests), (10, 10));
    }

    #[tokio::test]
    async fn a_panicking_handler_returns_its_place_and_counts_as_5xx() {
        let metrics = metrics_for(&[]);
        let served = serve(router(&metrics)).await;
        let broken = client().request(served.request("GET", "/panics")).await;
        assert!(broken.is_err());
        until(&metrics, |http| http.requests == 1).await;
        let http = metrics.snapshot().http;
        assert_eq!((http.status.server_error, http.in_flight), (1, 0));
    }

    /// A route `/stream` whose next answer's body comes from the returned sender.
    fn streaming(metrics: &Metrics) -> (Router, mpsc::UnboundedSender<Bytes>) {
        let (frames, body) = mpsc::unbounded_channel();
        let body = Arc::new(Mutex::new(Some(Channel(body))));
        let handler = get(async move || {
            let body = body.lock().unwrap().take().unwrap();
            Response::new(axum::body::Body::new(body))
        });
        let router = Router::new().route("/stream", handler);
        (router.layer(MetricsLayer::new(metrics.clone())), frames)
    }

    #[tokio::test]
    async fn a_streaming_body_stays_in_flight_until_its_end() {
        let metrics = metrics_for(&[]);
        let (router, frames) = streaming(&metrics);
        let served = serve(router).await;
        let response = client()
            .request(served.request("GET", "/stream"))
            .await
            .unwrap();
        let mut body = response.into_body();
        for _ in 0..3 {
            frames.send(Bytes::from_static(b"chunk")).unwrap();
            body.frame().await.unwrap().unwrap();
            let http = metrics.snapshot().http;
            assert_eq!((http.in_flight, http.requests), (1, 0));
        }
        drop(frames);
        assert!(body.frame().await.is_none());
        let http = metrics.snapshot().http;
        assert_eq!(
            (http.in_flight, http.status.success, http.cancelled),
            (0, 1, 0)
        );
    }

    #[tokio::test]
    async fn a_stream_whose_reader_leaves_is_cancelled() {
        let metrics = metrics_for(&[]);
        let (router, frames) = streaming(&metrics);
        let served = serve(router).await;
        let client = client();
        let response = client
            .request(served.request("GET", "/stream"))
            .await
            .unwrap();
        let mut body = response.into_body();
        frames.send(Bytes::from_static(b"chunk")).unwrap();
        body.frame().await.unwrap().unwrap();
        drop((body, client));
        until(&metrics, |http| http.in_flight == 0).await;
        let http = metrics.snapshot().http;
        assert_eq!((http.cancelled, http.status.success), (1, 0));
    }

    #[tokio::test]
    async fn the_operators_endpoints_show_the_same_figures() {
        use tower_keep::admin::{AdminAuth, AdminService, AdminSources};
        use tower_keep::health::HealthBoard;

        let metrics = metrics_for(&[]);
        let sources = AdminSources::new(metrics.clone(), HealthBoard::new());
        let endpoints = AdminService::new(sources, AdminAuth::none());
        let served = serve(router(&metrics).merge(endpoints.router())).await;
        let client = client();
        for path in ["/alive", "/ready", "/health", "/contacts/1"] {
            assert_eq!(served.ask(&client, "GET", path).await, 200);
        }
        let response = client
            .request(served.request("GET", "/metrics"))
            .await
            .unwrap();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let scrape = Scrape::of(std::str::from_utf8(&text).unwrap());
        assert_eq!(scrape.value(&answered("/contacts/{id}", "GET", "2xx")), 1.0);
        assert_eq!(classes(&scrape).len(), 1);
    }
}
