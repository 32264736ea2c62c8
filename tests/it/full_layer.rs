//! The full stack over real sockets: tower-http's layers and ours, each in its place.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_keep::http_config::HttpConfig;
use tower_keep::{Keep, KeepBuilder, Profile};

/// Long enough that only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(20);

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

/// What the handlers share: how often they were called, and a door that some wait at.
#[derive(Clone)]
struct House {
    calls: Arc<AtomicUsize>,
    door: Arc<Semaphore>,
}

fn page() -> String {
    "the same again, ".repeat(200)
}

async fn cached(State(house): State<House>) -> impl IntoResponse {
    house.calls.fetch_add(1, Ordering::SeqCst);
    ([("cache-control", "public, max-age=600")], page())
}

async fn held(State(house): State<House>) -> impl IntoResponse {
    house.calls.fetch_add(1, Ordering::SeqCst);
    house.door.acquire().await.unwrap().forget();
    ([("cache-control", "public, max-age=600")], page())
}

async fn plain() -> impl IntoResponse {
    ([("cache-control", "no-store")], page())
}

async fn events() -> impl IntoResponse {
    ([("content-type", "text/event-stream")], page())
}

async fn read(State(house): State<House>, body: Bytes) -> String {
    house.calls.fetch_add(1, Ordering::SeqCst);
    body.len().to_string()
}

async fn broken() -> String {
    let empty: Vec<String> = Vec::new();
    empty[0].clone()
}

struct Set {
    keep: Keep,
    house: House,
    address: SocketAddr,
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, Infallible>>,
}

async fn serve(change: impl FnOnce(KeepBuilder) -> KeepBuilder) -> Set {
    let keep = change(Keep::builder(Profile::development()))
        .build()
        .unwrap();
    let house = House {
        calls: Arc::default(),
        door: Arc::new(Semaphore::new(0)),
    };
    let app = Router::new()
        .route("/cached", get(cached))
        .route("/held", get(held).post(held))
        .route("/plain", get(plain))
        .route("/events", get(events))
        .route("/read", post(read))
        .route("/broken", get(broken))
        .layer(DefaultBodyLimit::disable())
        .layer(keep.full_layer())
        .with_state(house.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    Set {
        keep,
        house,
        address,
        client,
    }
}

impl Set {
    async fn send(&self, request: Request<UnsyncBoxBody<Bytes, Infallible>>) -> Option<Seen> {
        let exchange = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Seen(Response::from_parts(head, body)))
        };
        timeout(DEADLINE, exchange).await.unwrap()
    }

    fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> http::request::Builder {
        let request = Request::builder().method(method);
        let request = request.uri(format!("http://{}{path}", self.address));
        let named = fields.iter();
        named.fold(request, |request, (name, value)| {
            request.header(*name, *value)
        })
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let request = self.request("GET", path, fields);
        let request = request.body(Full::default().boxed_unsync()).unwrap();
        self.send(request).await.expect("an answer")
    }

    /// With a length, or in chunks without one.
    async fn post(&self, bytes: usize, is_chunked: bool) -> Seen {
        let content = Bytes::from(vec![b'x'; bytes]);
        let body = if is_chunked {
            let pieces: Vec<_> = content.chunks(10_000).map(Bytes::copy_from_slice).collect();
            let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
            StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
        } else {
            Full::from(content).boxed_unsync()
        };
        let request = self.request("POST", "/read", &[]).body(body).unwrap();
        self.send(request).await.expect("an answer")
    }

    fn calls(&self) -> usize {
        self.house.calls.load(Ordering::SeqCst)
    }

    async fn until_called(&self, calls: usize) {
        eventually("called", || self.calls() == calls).await;
    }
}

async fn eventually(what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let met = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(DEADLINE, met).await.is_ok(), "never {what}");
}

struct Seen(Response<Bytes>);

impl Seen {
    fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    fn field(&self, name: &str) -> &str {
        let value = self.0.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    fn is_gzip(&self) -> bool {
        self.field("content-encoding") == "gzip"
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.is_gzip() {
            let mut unzipped = flate2::read::GzDecoder::new(&self.0.body()[..]);
            unzipped.read_to_string(&mut text).unwrap();
        } else {
            text.push_str(std::str::from_utf8(self.0.body()).unwrap());
        }
        text
    }
}

#[tokio::test]
async fn a_hit_is_compressed_already_and_nothing_is_coded_again() {
    let set = serve(|keep| keep).await;
    let miss = set.get("/cached", &[GZIP]).await;
    assert!(miss.is_gzip() && miss.text() == page());
    for _ in 0..3 {
        let hit = set.get("/cached", &[GZIP]).await;
        assert_eq!(
            (hit.field("cache-status"), hit.is_gzip()),
            ("keep; hit", true)
        );
        assert_eq!(hit.0.body(), miss.0.body());
        // Known before the first byte: it lay there as it is sent.
        assert_eq!(hit.field("content-length"), hit.0.body().len().to_string());
        assert_eq!(hit.field("vary"), "accept-encoding");
    }
    assert_eq!(
        set.calls(),
        1,
        "and the compression is called when the handler is"
    );
    let plain = set.get("/cached", &[]).await;
    assert_eq!((plain.is_gzip(), plain.text()), (false, page()));
    for path in ["/events", "/plain"] {
        let seen = set.get(path, &[GZIP]).await;
        assert_eq!((seen.is_gzip(), seen.text()), (path == "/plain", page()));
    }
    let refused = set
        .get("/plain", &[("accept-encoding", "identity;q=0")])
        .await;
    assert_eq!((refused.status(), refused.is_gzip()), (200, false));
}

#[tokio::test]
async fn refusals_and_hits_carry_the_id_of_their_own_request() {
    let set = serve(|keep| {
        keep.guard(|guard| (guard.slots, guard.queue) = (1, 0))
            .rate_limit(|limits| limits.requests_max = 5)
    })
    .await;
    let id = ("x-request-id", "trace-7");
    assert_eq!(
        set.get("/cached", &[id]).await.field("x-request-id"),
        "trace-7"
    );
    let hit = set.get("/cached", &[("x-request-id", "trace-8")]).await;
    assert_eq!(hit.field("cache-status"), "keep; hit");
    assert_eq!(hit.field("x-request-id"), "trace-8");
    let long = "x".repeat(129);
    let unfit = set.get("/cached", &[("x-request-id", &long)]).await;
    assert_eq!(unfit.field("x-request-id").len(), 32, "a name of our own");
    let (mut socket, _) = held_by_hand(&set).await;
    let full = set.get("/cached", &[id]).await;
    assert_eq!(
        (full.status(), full.field("x-request-id")),
        (503, "trace-7")
    );
    assert_eq!(full.field("content-type"), "application/problem+json");
    set.house.door.add_permits(1);
    let mut answer = [0; 12];
    timeout(DEADLINE, socket.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    drop(socket);
    eventually("out", || set.keep.guard().in_flight() == 0).await;
    set.get("/cached", &[]).await;
    let over = set.get("/cached", &[id]).await;
    assert_eq!(
        (over.status(), over.field("x-request-id")),
        (429, "trace-7")
    );
}

/// A connection on which `/held` was asked for by POST, and how often it had been called before.
async fn held_by_hand(set: &Set) -> (TcpStream, usize) {
    let before = set.calls();
    let mut socket = TcpStream::connect(set.address).await.unwrap();
    let request = "POST /held HTTP/1.1\r\nHost: keep\r\nContent-Length: 0\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    set.until_called(before + 1).await;
    (socket, before)
}

#[tokio::test]
async fn a_panic_is_answered_and_the_service_lives_on() {
    let set = serve(|keep| keep.guard(|guard| guard.slots = 1)).await;
    for _ in 0..3 {
        let seen = set.get("/broken", &[]).await;
        assert_eq!(seen.status(), 500);
        assert_eq!(seen.field("content-type"), "application/problem+json");
        assert!(!seen.field("x-request-id").is_empty());
        assert!(!seen.text().contains("index"), "{}", seen.text());
    }
    assert_eq!(set.get("/cached", &[]).await.status(), 200);
    assert_eq!(set.keep.guard().in_flight(), 0);
    let status = set.keep.metrics().snapshot().http.status;
    assert_eq!((status.server_error, status.success), (3, 1));
}

#[tokio::test]
async fn who_takes_too_long_is_dropped_and_gives_its_slot_back() {
    let set = serve(|keep| {
        keep.http(|http| http.timeout = Duration::from_millis(50))
            .guard(|guard| (guard.slots, guard.queue) = (1, 0))
    })
    .await;
    for calls in 1..=2 {
        let seen = set.get("/held", &[]).await;
        assert_eq!((seen.status(), seen.text()), (503, String::new()));
        assert_eq!(set.calls(), calls, "what was not answered is not stored");
    }
    assert_eq!(set.keep.guard().in_flight(), 0);
    set.house.door.add_permits(1);
    assert_eq!(set.get("/held", &[]).await.text(), page());
}

#[tokio::test]
async fn too_long_a_body_is_refused_before_it_is_read_and_cut_where_nobody_knew() {
    let set = serve(|keep| keep.http(|http| http.body_bytes_max = 50_000)).await;
    for is_chunked in [false, true] {
        let fits = set.post(50_000, is_chunked).await;
        assert_eq!((fits.status(), fits.text()), (200, "50000".to_owned()));
        let calls = set.calls();
        let long = set.post(50_001, is_chunked).await;
        assert_eq!(long.status(), 413, "chunked: {is_chunked}");
        assert!(!long.field("x-request-id").is_empty());
        assert_eq!(set.calls(), calls);
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_takes_its_slot_along() {
    let set = serve(|keep| keep).await;
    let (socket, _) = held_by_hand(&set).await;
    assert_eq!(set.keep.guard().in_flight(), 1);
    drop(socket);
    eventually("counted", || {
        set.keep.metrics().snapshot().http.cancelled == 1
    })
    .await;
    assert_eq!(set.keep.guard().in_flight(), 0);
}

#[tokio::test]
async fn many_who_miss_the_same_share_one_call() {
    let set = serve(|keep| keep).await;
    let callers = futures_util::future::join_all((0..20).map(|_| set.get("/held", &[GZIP])));
    let open = async {
        set.until_called(1).await;
        eventually("all inside", || set.keep.guard().in_flight() == 20).await;
        set.house.door.add_permits(1);
    };
    let (seen, ()) = tokio::join!(callers, open);
    assert!(
        seen.iter()
            .all(|seen| seen.is_gzip() && seen.text() == page())
    );
    assert_eq!(set.calls(), 1);
}

/// What such a process uses without doing anything is more than 90 % of so small a budget.
#[tokio::test]
async fn nothing_is_compressed_while_memory_is_short() {
    let set = serve(|keep| {
        keep.cache(|cache| cache.enabled = false).guard(|guard| {
            guard.memory_budget_bytes = Some(16 << 20);
            guard.critical = vec!["/plain".to_owned()];
        })
    })
    .await;
    let seen = set.get("/plain", &[GZIP]).await;
    assert_eq!(
        (seen.status(), seen.is_gzip(), seen.text()),
        (200, false, page())
    );
}

#[tokio::test]
async fn what_is_switched_off_leaves_requests_and_answers_alone() {
    let off = |http: &mut HttpConfig| {
        http.request_id = false;
        http.compression = false;
        http.timeout = Duration::ZERO;
        http.catch_panic = false;
        http.body_bytes_max = 0;
    };
    let set = serve(|keep| keep.http(off)).await;
    for path in ["/cached", "/plain"] {
        let seen = set.get(path, &[GZIP, ("x-request-id", "trace-7")]).await;
        assert_eq!((seen.is_gzip(), seen.text()), (false, page()));
        for field in ["x-request-id", "vary"] {
            assert_eq!(seen.field(field), "", "{field}");
        }
    }
    for is_chunked in [false, true] {
        assert_eq!(
            set.post(3 << 20, is_chunked).await.text(),
            (3 << 20).to_string()
        );
    }
    let request = set.request("GET", "/broken", &[]);
    let request = request.body(Full::default().boxed_unsync()).unwrap();
    assert!(
        set.send(request).await.is_none(),
        "a panic breaks the connection, as without us"
    );
    assert_eq!(set.get("/plain", &[]).await.status(), 200);
    assert_eq!(set.keep.guard().in_flight(), 0);
}

/// A handler that takes half a minute is answered for at the profile's limit. The request never touches a
/// socket here, so that time can be paused.
#[tokio::test(start_paused = true)]
async fn the_profiles_limit_is_thirty_seconds() {
    use tower::{Layer, ServiceExt};

    let keep = Keep::builder(Profile::azure_b1()).build().unwrap();
    let hung = tower::service_fn(|_: Request<_>| async {
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = keep.full_layer().layer(hung);
    let request = Request::post("/hung")
        .body(Full::<Bytes>::default())
        .unwrap();
    let began = tokio::time::Instant::now();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(began.elapsed().as_secs(), 30);
}
