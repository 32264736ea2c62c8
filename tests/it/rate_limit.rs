//! The rate limiter over real sockets, and alone before a service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::middleware::{self, Next};
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::Events;
use tower_keep::identity::PeerAddr;
use tower_keep::rate_limit::{Quota, RateLimitConfig, RateLimitLayer, RateLimiter, Rule, Scope};
use tower_keep::refusal::Refusal;

const HOUR: Duration = Duration::from_secs(3600);

/// Only these rules.
fn config(rules: Vec<Rule>) -> RateLimitConfig {
    RateLimitConfig {
        keys_max: 1000,
        default_rule: false,
        rules,
        ..RateLimitConfig::default()
    }
}

/// A layer and the hand of its clock.
fn layer(config: &RateLimitConfig) -> (RateLimitLayer, ManualClock) {
    let (clock, hand) = Clock::manual();
    let limiter = RateLimiter::new(config, &[], clock, Events::none()).unwrap();
    (RateLimitLayer::new(limiter), hand)
}

fn two_an_hour() -> Rule {
    Rule::new("two", Quota::requests(2).per(HOUR)).scope(Scope::Ip)
}

/// An app served until this is dropped. Its own middleware tells the peer, so that the tests run
/// with and without the feature `axum`.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(layer: RateLimitLayer) -> Self {
        let app = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/login", get(|| async { "welcome" }))
            .layer(layer)
            .layer(middleware::from_fn(
                async |mut request: AxumRequest, next: Next| {
                    let peer = request.headers().get("x-test-peer").cloned();
                    if let Some(peer) = peer {
                        let peer = PeerAddr(peer.to_str().unwrap().parse().unwrap());
                        request.extensions_mut().insert(peer);
                    }
                    next.run(request).await
                },
            ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let app = app.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, app).await.unwrap();
        });
        Self {
            address,
            _tasks: tasks,
        }
    }

    async fn client(&self) -> Client {
        Client {
            stream: BufReader::new(TcpStream::connect(self.address).await.unwrap()),
        }
    }
}

/// One connection.
struct Client {
    stream: BufReader<TcpStream>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            (known == name).then_some(value)
        })
    }
}

impl Client {
    /// Asks with these lines as further fields, each ending in CRLF.
    async fn ask(&mut self, path: &str, fields: &str) -> Answer {
        let text = format!("GET {path} HTTP/1.1\r\nhost: keep.test\r\n{fields}\r\n");
        self.stream.write_all(text.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stream.read_line(&mut head).await.unwrap(), 0, "closed");
        }
        let mut answer = Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::new(),
        };
        let length = answer.field("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }
}

const PEER: &str = "x-test-peer: 198.51.100.9:1234\r\n";

#[tokio::test]
async fn a_limit_of_two_holds_over_four_connections_at_once() {
    let (layer, hand) = layer(&config(vec![two_an_hour()]));
    let server = Server::start(layer).await;
    for _ in 0..2 {
        let mut asking = JoinSet::new();
        for path in ["/", "/login", "/", "/nowhere"] {
            let mut client = server.client().await;
            asking.spawn(async move {
                let answers = [client.ask(path, PEER).await, client.ask(path, PEER).await];
                answers.map(|answer| answer.status)
            });
        }
        let answers = asking.join_all().await.concat();
        let refused = answers.iter().filter(|status| **status == 429).count();
        assert_eq!(refused, 6, "{answers:?}");
        hand.advance(HOUR);
    }
}

#[tokio::test]
async fn by_option_only_refusals_speak_of_the_quota() {
    let (layer, _hand) = layer(&RateLimitConfig {
        quota_headers: false,
        legacy_headers: true,
        ..config(vec![two_an_hour()])
    });
    let server = Server::start(layer).await;
    let mut client = server.client().await;
    for status in [200, 200, 429] {
        let answer = client.ask("/", PEER).await;
        assert_eq!(answer.status, status);
        for field in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit"] {
            assert_eq!(answer.field(field).is_some(), status == 429, "{field}");
        }
    }
}

#[tokio::test]
async fn an_answer_tells_the_quota_and_a_refusal_when_to_come_back() {
    let (layer, hand) = layer(&RateLimitConfig {
        legacy_headers: true,
        ..config(vec![two_an_hour()])
    });
    let server = Server::start(layer).await;
    let mut client = server.client().await;
    let first = client.ask("/", PEER).await;
    assert_eq!((first.status, first.body.as_str()), (200, "hello"));
    assert_eq!(first.field("ratelimit-policy"), Some("\"two\";q=2;w=3600"));
    assert_eq!(first.field("ratelimit"), Some("\"two\";r=1;t=1800"));
    assert_eq!(first.field("x-ratelimit-remaining"), Some("1"));
    assert_eq!(first.field("retry-after"), None);
    hand.advance(Duration::from_millis(500));
    let last = client.ask("/", PEER).await;
    assert_eq!(last.field("ratelimit"), Some("\"two\";r=0;t=1800"));
    let refused = client.ask("/", PEER).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.field("retry-after"), Some("1800"));
    assert_eq!(refused.field("ratelimit"), Some("\"two\";r=0;t=1800"));
    assert_eq!(
        refused.field("ratelimit-policy"),
        Some("\"two\";q=2;w=3600")
    );
    assert_eq!(
        refused.field("content-type"),
        Some("application/problem+json")
    );
    let problem: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(problem["status"], 429);
    assert!(
        problem["type"]
            .as_str()
            .unwrap()
            .ends_with("#quota-exceeded")
    );
    // Whoever obeys is let in.
    hand.advance(Duration::from_secs(1800));
    assert_eq!(client.ask("/", PEER).await.status, 200);
}

#[tokio::test]
async fn what_one_rule_denies_no_other_rule_counts() {
    let (layer, _hand) = layer(&config(vec![
        Rule::new("all", Quota::requests(4).per(HOUR)),
        Rule::new("login", Quota::requests(1).per(HOUR)).route("/login"),
    ]));
    let server = Server::start(layer).await;
    let mut client = server.client().await;
    assert_eq!(client.ask("/login", PEER).await.status, 200);
    for _ in 0..10 {
        let refused = client.ask("/login", PEER).await;
        assert_eq!(refused.status, 429);
        assert_eq!(
            refused.field("ratelimit-policy"),
            Some("\"login\";q=1;w=3600")
        );
    }
    for status in [200, 200, 200, 429] {
        assert_eq!(client.ask("/", PEER).await.status, status);
    }
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart_and_cannot_pretend() {
    let (layer, _hand) = layer(&RateLimitConfig {
        trusted_proxies: vec!["10.0.0.0/8".to_owned()],
        ..config(vec![two_an_hour()])
    });
    let server = Server::start(layer).await;
    let mut client = server.client().await;
    let proxy = "x-test-peer: 10.0.0.1:80\r\n";
    for (peer, lines, status) in [
        (proxy, "x-forwarded-for: 203.0.113.7:51234\r\n", 200),
        (proxy, "x-forwarded-for: 1.2.3.4, 203.0.113.7\r\n", 200),
        // The third of the same client, whatever it claims and in however many lines.
        (
            proxy,
            "x-forwarded-for: 5.6.7.8\r\nx-forwarded-for: 203.0.113.7\r\n",
            429,
        ),
        (proxy, "x-forwarded-for: 203.0.113.8\r\n", 200),
        // A stranger who says the same is the stranger.
        (PEER, "x-forwarded-for: 203.0.113.8\r\n", 200),
        (PEER, "x-forwarded-for: 203.0.113.9\r\n", 200),
        (PEER, "x-forwarded-for: 203.0.113.10\r\n", 429),
        (proxy, "x-forwarded-for: 203.0.113.8\r\n", 200),
    ] {
        let answer = client.ask("/", &format!("{peer}{lines}")).await;
        assert_eq!(answer.status, status, "{peer}{lines}");
    }
}

/// With the feature `axum` the peer is the connection's, else it is unknown: either way two of all
/// these requests pass.
#[tokio::test]
async fn without_a_named_peer_the_connections_or_the_shared_bucket_counts() {
    let (layer, _hand) = layer(&config(vec![two_an_hour()]));
    let server = Server::start(layer).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(server.client().await.ask("/", "").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_rule_for_a_template_holds_inside_a_nested_router() {
    let rule = two_an_hour().route("/api/items/{id}");
    let (layer, _hand) = layer(&config(vec![rule]));
    let inside = Router::new()
        .route("/items/{id}", get(|| async { "item" }))
        .route("/free/{id}", get(|| async { "free" }))
        .layer(layer);
    let app = Router::new().nest("/api", inside);
    for (path, status) in [
        ("/api/items/1", 200),
        ("/api/items/2", 200),
        ("/api/items/3", 429),
        ("/api/free/1", 200),
    ] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}

#[tokio::test]
async fn without_axum_any_service_is_limited_and_the_reason_is_in_the_extensions() {
    let (layer, _hand) = layer(&config(vec![two_an_hour()]));
    let answer = |_request: Request<()>| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"mine")));
        let own = "\"own\";r=7".parse().unwrap();
        response.headers_mut().insert("ratelimit", own);
        Ok::<_, Infallible>(response)
    };
    let service = layer.layer(service_fn(answer));
    let request = || {
        let mut request = Request::new(());
        let peer = PeerAddr("[2001:db8::1]:9".parse().unwrap());
        request.extensions_mut().insert(peer);
        request
    };
    for _ in 0..2 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.headers()["ratelimit"], "\"own\";r=7");
        assert_eq!(response.headers()["ratelimit-policy"], "\"two\";q=2;w=3600");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "mine");
    }
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let Some(Refusal::OverQuota { rule, retry_after }) = response.extensions().get() else {
        panic!("no reason");
    };
    assert_eq!((&**rule, *retry_after), ("two", HOUR / 2));
}

#[tokio::test]
async fn a_limiter_that_is_switched_off_forwards_untouched() {
    let (layer, _hand) = layer(&RateLimitConfig {
        enabled: false,
        ..config(vec![two_an_hour()])
    });
    let plain =
        async |_request: Request<()>| Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())));
    let service = layer.layer(service_fn(plain));
    for _ in 0..5 {
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty());
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for_and_a_refusal_does_not_reach_it() {
    let (layer, _hand) = layer(&config(vec![Rule::new(
        "one",
        Quota::requests(1).per(HOUR),
    )]));
    let (mut service, mut handle) =
        tower_test::mock::spawn_layer::<Request<()>, Response<Full<Bytes>>, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(2);
    assert!(service.poll_ready().is_ready());
    let answering = async {
        let (_request, respond) = handle.next_request().await.unwrap();
        respond.send_response(Response::new(Full::new(Bytes::from_static(b"inner"))));
    };
    let (response, ()) = tokio::join!(service.call(Request::new(())), answering);
    assert_eq!(response.unwrap().status(), 200);
    assert!(service.poll_ready().is_ready());
    let refused = service.call(Request::new(())).await.unwrap();
    assert_eq!(refused.status(), 429);
    drop(service);
    assert!(
        handle.next_request().await.is_none(),
        "the refused request went on"
    );
}

#[tokio::test]
async fn a_dropped_request_stays_counted_and_disturbs_nobody() {
    let (layer, _hand) = layer(&config(vec![two_an_hour()]));
    let never =
        |_request: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>();
    let mut service = layer.layer(service_fn(never));
    drop(service.call(Request::new(())));
    drop(service.call(Request::new(())));
    let refused = service.call(Request::new(())).await.unwrap();
    assert_eq!(refused.status(), 429);
}

/// The errors of the service are its own.
#[tokio::test]
async fn an_error_of_the_service_passes_through() {
    let (layer, _hand) = layer(&config(vec![two_an_hour()]));
    let fails = async |_request: Request<()>| Err::<Response<Full<Bytes>>, _>("broken");
    let error = layer
        .layer(service_fn(fails))
        .oneshot(Request::new(()))
        .await;
    assert_eq!(error.unwrap_err(), "broken");
}

#[test]
fn layer_and_service_can_be_shared_and_sent() {
    fn is<T: Send + Sync + Clone + 'static>() {}
    is::<RateLimiter>();
    is::<RateLimitLayer>();
    is::<tower_keep::rate_limit::RateLimitService<()>>();
}
