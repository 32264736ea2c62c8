//! The guard over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::guard::{
    Guard, GuardConfig, GuardLayer, GuardRule, MemoryBounds, MemoryProbe, Pressure,
};
use tower_keep::refusal::Refusal;

/// Uses as many of 1,000 bytes as it is told.
#[derive(Clone, Default)]
struct FakeProbe(Arc<AtomicU64>);

impl MemoryProbe for FakeProbe {
    fn used_bytes(&mut self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst))
    }

    fn bounds(&mut self) -> Option<MemoryBounds> {
        Some(MemoryBounds {
            limit_bytes: Some(1000),
            total_bytes: 10_000,
            available_bytes: 5000,
        })
    }
}

/// A guard, what its memory probe says, and a door that handlers wait at.
struct Set {
    guard: Guard,
    used: Arc<AtomicU64>,
    door: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    most_inside: Arc<AtomicUsize>,
}

impl Set {
    fn new(slots: usize, queue: usize) -> Self {
        let probe = FakeProbe::default();
        let used = Arc::clone(&probe.0);
        let config = GuardConfig {
            slots,
            queue,
            queue_timeout: Duration::from_secs(30),
            retry_after: Duration::from_millis(2500),
            critical: vec!["/health".to_owned(), "/probe/{name}".to_owned()],
            ..GuardConfig::default()
        };
        let guard = Guard::with_probe(&config, Clock::system(), Events::none(), Box::new(probe));
        Self {
            guard: guard.unwrap(),
            used,
            door: Arc::new(Semaphore::new(0)),
            inside: Arc::default(),
            most_inside: Arc::default(),
        }
    }

    fn uses(&self, bytes: u64) -> Pressure {
        self.used.store(bytes, Ordering::SeqCst);
        self.guard.sample();
        self.guard.pressure()
    }

    /// `/held` answers once the door lets it, the others at once.
    fn app(&self) -> Router {
        let (door, inside) = (Arc::clone(&self.door), Arc::clone(&self.inside));
        let most = Arc::clone(&self.most_inside);
        let held = move || async move {
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            let _gone = OnDrop(inside);
            door.acquire().await.unwrap().forget();
            "held"
        };
        Router::new()
            .route("/held", get(held))
            .route("/quick", get(|| async { "quick" }))
            .route("/health", get(|| async { "healthy" }))
            .route("/probe/{name}", get(|| async { "probed" }))
            .route("/panic", get(panics))
    }

    async fn serve(&self) -> Server {
        Server::start(self.app().layer(GuardLayer::new(self.guard.clone()))).await
    }

    async fn until(&self, in_flight: usize, queued: usize) {
        let what = format!("{in_flight} in flight and {queued} queued");
        eventually(&what, || {
            (self.guard.in_flight(), self.guard.queued()) == (in_flight, queued)
        })
        .await;
    }
}

async fn panics() -> &'static str {
    panic!("a handler with a mistake")
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Asks again and again until it is so, for ten seconds at most.
async fn eventually(what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(10), wait);
    assert!(within.await.is_ok(), "never saw {what}");
}

/// An app that is served until this is dropped.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            _tasks: tasks,
        }
    }

    async fn client(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.unwrap(),
            read: Vec::new(),
        }
    }

    async fn ask(&self, path: &str) -> Answer {
        let mut client = self.client().await;
        client.send(path).await;
        client.answer().await
    }
}

/// One connection, spoken by hand so that it can be dropped at any point.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            (known == name).then_some(value)
        })
    }
}

impl Client {
    async fn send(&mut self, path: &str) {
        self.send_with(path, "").await;
    }

    async fn send_with(&mut self, path: &str, fields: &str) {
        let text = format!("GET {path} HTTP/1.1\r\nhost: keep.test\r\n{fields}\r\n");
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn more(&mut self) -> usize {
        let read = tokio::time::timeout(
            Duration::from_secs(10),
            self.stream.read_buf(&mut self.read),
        );
        read.await.expect("no answer within 10 s").unwrap()
    }

    async fn until(&mut self, text: &str) -> usize {
        loop {
            let seen = String::from_utf8_lossy(&self.read);
            if let Some(at) = seen.find(text) {
                return at + text.len();
            }
            assert_ne!(self.more().await, 0, "the connection ended early");
        }
    }

    async fn head(&mut self) -> String {
        let end = self.until("\r\n\r\n").await;
        String::from_utf8(self.read.drain(..end).collect()).unwrap()
    }

    async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let answer = Answer {
            head,
            body: String::new(),
        };
        let length: usize = answer.field("content-length").unwrap().parse().unwrap();
        while self.read.len() < length {
            assert_ne!(self.more().await, 0, "the connection ended early");
        }
        let body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        Answer { body, ..answer }
    }

    async fn is_closed_by_the_server(&mut self) -> bool {
        self.more().await == 0
    }
}

#[tokio::test]
async fn a_limit_of_two_holds_over_four_connections() {
    let set = Set::new(2, 8);
    let server = set.serve().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = server.client().await;
        client.send("/held").await;
        clients.push(client);
    }
    set.until(2, 2).await;
    eventually("two inside", || set.inside.load(Ordering::SeqCst) == 2).await;
    set.door.add_permits(4);
    for client in &mut clients {
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.body.as_str()), ("200", "held"));
    }
    assert_eq!(set.most_inside.load(Ordering::SeqCst), 2);
    set.until(0, 0).await;
}

#[tokio::test]
async fn an_idle_connection_holds_no_slot() {
    let set = Set::new(1, 0);
    let server = set.serve().await;
    let (mut idle, _silent) = (server.client().await, server.client().await);
    idle.send("/quick").await;
    assert_eq!(idle.answer().await.status(), "200");
    set.until(0, 0).await;
    assert_eq!(server.ask("/quick").await.status(), "200");
    idle.send("/quick").await;
    assert_eq!(idle.answer().await.status(), "200");
}

#[tokio::test]
async fn a_full_queue_is_answered_at_once_with_503_and_when_to_come_back() {
    let set = Set::new(1, 1);
    let server = set.serve().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.send("/held").await;
    set.until(1, 0).await;
    second.send("/held").await;
    set.until(1, 1).await;
    let answer = server.ask("/quick").await;
    assert_eq!(answer.status(), "503");
    assert_eq!(answer.field("retry-after"), Some("3"));
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(answer.field("connection"), None);
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], 503);
    set.door.add_permits(2);
    assert_eq!(first.answer().await.status(), "200");
    assert_eq!(second.answer().await.status(), "200");
    set.until(0, 0).await;
}

#[tokio::test]
async fn the_queue_timeout_is_a_503_and_the_queue_empties() {
    let config = GuardConfig {
        slots: 1,
        queue: 4,
        queue_timeout: Duration::from_millis(20),
        ..GuardConfig::default()
    };
    let guard = Guard::new(&config, Clock::system(), Events::none()).unwrap();
    let set = Set {
        guard,
        ..Set::new(1, 1)
    };
    let server = set.serve().await;
    let mut first = server.client().await;
    first.send("/held").await;
    set.until(1, 0).await;
    assert_eq!(server.ask("/quick").await.status(), "503");
    assert_eq!((set.guard.in_flight(), set.guard.queued()), (1, 0));
    set.door.add_permits(1);
    assert_eq!(first.answer().await.status(), "200");
}

#[tokio::test]
async fn clients_who_go_away_in_the_handler_or_in_the_queue_leave_nothing_behind() {
    let set = Set::new(1, 4);
    let server = set.serve().await;
    let mut clients = Vec::new();
    for (taken, waiting) in [(1, 0), (1, 1), (1, 2), (1, 3)] {
        let mut client = server.client().await;
        client.send("/held").await;
        set.until(taken, waiting).await;
        clients.push(client);
    }
    drop(clients.remove(2));
    set.until(1, 2).await;
    // The one inside goes: its slot is the next one's, who never notices and goes as well.
    drop(clients.remove(0));
    set.until(1, 1).await;
    drop(clients.remove(0));
    set.until(1, 0).await;
    set.door.add_permits(1);
    assert_eq!(clients[0].answer().await.status(), "200");
    set.until(0, 0).await;
    assert_eq!(set.inside.load(Ordering::SeqCst), 0);
}

/// A body that ends when its sender does.
struct Streamed(mpsc::Receiver<Bytes>);

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A server whose `/stream` answers with what is sent here.
async fn streaming(set: &Set) -> (Server, mpsc::Sender<Bytes>) {
    let (chunks, receiver) = mpsc::channel(1);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let stream = move || async move {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Response::new(Body::new(Streamed(receiver)))
    };
    let app = set
        .app()
        .route("/stream", get(stream))
        .layer(GuardLayer::new(set.guard.clone()));
    (Server::start(app).await, chunks)
}

#[tokio::test]
async fn a_streamed_body_keeps_its_slot_until_its_end() {
    let set = Set::new(1, 1);
    let (server, chunks) = streaming(&set).await;
    let mut client = server.client().await;
    client.send("/stream").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    let mut waiting = server.client().await;
    waiting.send("/quick").await;
    for text in ["one", "two", "three"] {
        chunks
            .send(Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
        client.until(text).await;
        set.until(1, 1).await;
    }
    drop(chunks);
    client.until("0\r\n\r\n").await;
    assert_eq!(waiting.answer().await.status(), "200");
    set.until(0, 0).await;
}

#[tokio::test]
async fn a_client_who_goes_away_mid_body_gives_its_slot_back() {
    let set = Set::new(1, 0);
    let (server, chunks) = streaming(&set).await;
    let mut client = server.client().await;
    client.send("/stream").await;
    chunks.send(Bytes::from_static(b"one")).await.unwrap();
    client.until("one").await;
    assert_eq!(set.guard.in_flight(), 1);
    drop(client);
    // The server notices when it next reads or writes.
    while chunks.send(Bytes::from(vec![b'x'; 65_536])).await.is_ok() {}
    set.until(0, 0).await;
    assert_eq!(server.ask("/quick").await.status(), "200");
}

#[tokio::test]
async fn a_handler_that_panics_gives_its_slot_back() {
    let set = Set::new(1, 0);
    let server = set.serve().await;
    for _ in 0..3 {
        let mut client = server.client().await;
        client.send("/panic").await;
        assert!(client.is_closed_by_the_server().await);
        set.until(0, 0).await;
    }
    assert_eq!(server.ask("/quick").await.status(), "200");
}

#[tokio::test]
async fn critical_pressure_sheds_everything_but_the_critical_routes() {
    let set = Set::new(4, 4);
    let server = set.serve().await;
    assert_eq!(set.uses(949), Pressure::Severe);
    assert_eq!(server.ask("/quick").await.status(), "200");
    assert_eq!(set.uses(950), Pressure::Critical);
    let refused = server.ask("/quick").await;
    assert_eq!(refused.status(), "503");
    assert_eq!(refused.field("retry-after"), Some("3"));
    assert!(
        refused.body.contains("Out of memory budget"),
        "{}",
        refused.body
    );
    assert_eq!(server.ask("/health").await.body, "healthy");
    assert_eq!(server.ask("/probe/db?x=1").await.body, "probed");
    assert_eq!(server.ask("/healthy").await.status(), "503");
    assert_eq!(set.uses(910), Pressure::Critical, "still");
    assert_eq!(server.ask("/quick").await.status(), "503");
    assert_eq!(set.uses(900), Pressure::Severe);
    assert_eq!(server.ask("/quick").await.status(), "200");
}

#[tokio::test]
async fn severe_pressure_closes_connections_after_their_answer() {
    let set = Set::new(4, 4);
    let server = set.serve().await;
    let mut client = server.client().await;
    client.send("/quick").await;
    assert_eq!(client.answer().await.field("connection"), None);
    set.uses(900);
    client.send("/quick").await;
    let answer = client.answer().await;
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(client.is_closed_by_the_server().await);
    set.uses(990);
    let mut client = server.client().await;
    client.send("/quick").await;
    assert_eq!(client.answer().await.field("connection"), Some("close"));
    assert!(client.is_closed_by_the_server().await);
}

#[tokio::test]
async fn http_2_never_gets_a_connection_field_and_refusals_say_their_reason() {
    let set = Set::new(1, 0);
    set.uses(960);
    let service = GuardLayer::new(set.guard.clone()).layer(tower::service_fn(echo));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.version_mut() = Version::HTTP_2;
    let response = service.oneshot(request).await.unwrap();
    assert!(!response.headers().contains_key("connection"));
    let refusal = response.extensions().get::<Refusal>();
    assert!(matches!(refusal, Some(Refusal::MemoryPressure { .. })));
}

async fn echo(request: Request<Empty<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from(request.uri().path().to_owned())))
}

#[tokio::test]
async fn the_last_frame_or_an_empty_body_gives_the_slot_back() {
    let set = Set::new(1, 0);
    let layer = GuardLayer::new(set.guard.clone());
    let service = layer.layer(tower::service_fn(echo));
    let response = service.oneshot(Request::new(Empty::new())).await.unwrap();
    assert_eq!(set.guard.in_flight(), 1, "the body has not been read");
    let mut body = response.into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "/"
    );
    assert_eq!(set.guard.in_flight(), 0);
    let empty =
        |_: Request<()>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) };
    let service = layer.layer(tower::service_fn(empty));
    let _response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(set.guard.in_flight(), 0);
}

/// A future that is polled by hand and counts how often it was woken.
struct Polled<F> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<F: Future> Polled<F> {
    fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            woken: Arc::default(),
        }
    }

    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }
}

/// `tower_test`'s mock refuses to be called without having been asked to be ready, and its clones
/// are not ready: both paths through the guard must call the very service that was asked.
#[tokio::test]
async fn the_inner_service_is_only_called_when_it_said_it_is_ready() {
    type Ask = Request<()>;
    type Reply = Response<Full<Bytes>>;
    let set = Set::new(1, 1);
    let (mut service, mut handle) =
        tower_test::mock::spawn_layer::<Ask, Reply, _>(GuardLayer::new(set.guard.clone()));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let mut first = Polled::new(service.call(Request::new(())));
    assert!(first.poll().is_pending());
    let (_, answer) = handle.next_request().await.unwrap();

    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let mut second = Polled::new(service.call(Request::new(())));
    assert!(second.poll().is_pending());
    assert_eq!((set.guard.in_flight(), set.guard.queued()), (1, 1));

    answer.send_response(Response::new(Full::from("first")));
    let Poll::Ready(response) = first.poll() else {
        panic!("the mock has answered");
    };
    drop(response.unwrap());
    assert!(second.is_woken());
    assert!(second.poll().is_pending());
    let (_, answer) = handle.next_request().await.unwrap();
    answer.send_error("the service failed");
    let Poll::Ready(response) = second.poll() else {
        panic!("the mock has failed");
    };
    assert_eq!(response.unwrap_err().to_string(), "the service failed");
    assert_eq!((set.guard.in_flight(), set.guard.queued()), (0, 0));
}

#[test]
fn every_public_part_can_go_where_services_go() {
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Guard>();
    travels::<GuardLayer>();
    travels::<tower_keep::guard::GuardService<Router>>();
    travels::<tower_keep::guard::GuardBody<Full<Bytes>>>();
    travels::<tower_keep::guard::Permit>();
    travels::<tower_keep::guard::Waiting>();
}

/// As [`Set::new`], with what `change` makes of the settings.
fn set_with(change: impl FnOnce(&mut GuardConfig)) -> Set {
    let mut config = GuardConfig {
        slots: 1,
        queue: 8,
        queue_timeout: Duration::from_secs(30),
        // Nobody is shed in here, however slow the machine is.
        codel_target: Duration::from_secs(30),
        codel_interval: Duration::from_secs(30),
        ..GuardConfig::default()
    };
    change(&mut config);
    Set {
        guard: Guard::new(&config, Clock::system(), Events::none()).unwrap(),
        ..Set::new(1, 1)
    }
}

/// A server that knows its peers, as `into_make_service_with_connect_info` tells them.
async fn serve_with_peers(set: &Set) -> Server {
    let app = set.app().layer(GuardLayer::new(set.guard.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server {
        address,
        _tasks: tasks,
    }
}

/// Which of two requests that wait is answered first, if the second says that it is critical.
async fn first_of_two(set: &Set, field: &str) -> &'static str {
    let server = serve_with_peers(set).await;
    let (mut holder, mut plain, mut vital) = (
        server.client().await,
        server.client().await,
        server.client().await,
    );
    holder.send("/held").await;
    set.until(1, 0).await;
    plain.send("/held").await;
    set.until(1, 1).await;
    vital.send_with("/held", field).await;
    set.until(1, 2).await;
    set.door.add_permits(2);
    assert_eq!(holder.answer().await.status(), "200");
    let first = tokio::select! {
        answer = plain.answer() => { assert_eq!(answer.status(), "200"); "plain" }
        answer = vital.answer() => { assert_eq!(answer.status(), "200"); "vital" }
    };
    set.door.add_permits(1);
    set.until(0, 0).await;
    first
}

#[tokio::test]
async fn a_field_makes_a_request_critical_only_from_a_trusted_peer() {
    let trusting = |peers: &str| {
        let peers = peers.to_owned();
        set_with(move |config| {
            config.criticality_field = Some("x-criticality".to_owned());
            config.trusted_peers = vec![peers];
        })
    };
    let field = "x-criticality: critical\r\n";
    assert_eq!(first_of_two(&trusting("127.0.0.1"), field).await, "vital");
    assert_eq!(first_of_two(&trusting("10.0.0.0/8"), field).await, "plain");
    assert_eq!(first_of_two(&set_with(|_| {}), field).await, "plain");
    let nonsense = "x-criticality: very\r\n";
    assert_eq!(
        first_of_two(&trusting("127.0.0.1"), nonsense).await,
        "plain"
    );
}

#[tokio::test]
async fn a_route_with_one_slot_has_it_over_all_connections_and_holds_up_no_other() {
    let set = set_with(|config| {
        config.slots = 4;
        config.rules = vec![GuardRule::new("/held").slots(1).queue(1)];
    });
    let server = set.serve().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.send("/held").await;
    set.until(1, 0).await;
    second.send("/held").await;
    set.until(1, 1).await;
    let third = server.ask("/held").await;
    assert_eq!(third.status(), "503");
    assert_eq!(server.ask("/quick").await.status(), "200");
    assert_eq!(set.inside.load(Ordering::SeqCst), 1);
    set.door.add_permits(2);
    assert_eq!(first.answer().await.status(), "200");
    assert_eq!(second.answer().await.status(), "200");
    assert_eq!(set.most_inside.load(Ordering::SeqCst), 1);
    set.until(0, 0).await;
}
