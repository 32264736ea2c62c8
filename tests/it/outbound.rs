//! Remote quotas before a real client, over real sockets, alone and as a fleet.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::clock::Clock;
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::outbound::{QuotaConfig, QuotaLayer, QuotaService, RemoteQuota};
use tower_keep::refusal::Refusal;
use tower_keep::response::{AnswerBody, refuse};

const MINUTE: Duration = Duration::from_secs(60);

/// A remote service with a quota for all of its callers, which counts what it had to refuse.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    pub books: Arc<Mutex<Books>>,
    /// Answers are held back until there are permits.
    pub door: Arc<Semaphore>,
    _tasks: Arc<JoinSet<()>>,
}

#[derive(Debug)]
pub struct Books {
    quota: u64,
    window: Duration,
    ends: Option<Instant>,
    left: u64,
    served: u64,
    refused: u64,
    /// Instead of all of this.
    script: Option<(StatusCode, HeaderMap)>,
}

impl Api {
    /// So many requests in each window, which begins with its first request.
    pub async fn start(quota: u64, window: Duration) -> Self {
        let books = Books {
            quota,
            window,
            ends: None,
            left: quota,
            served: 0,
            refused: 0,
            script: None,
        };
        let state = (
            Arc::new(Mutex::new(books)),
            Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        );
        let app = Router::new().fallback(answer).with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            books: state.0,
            door: state.1,
            _tasks: Arc::new(tasks),
        }
    }

    /// Always answers this.
    pub async fn saying(status: u16, fields: &[(&str, &str)]) -> Self {
        let api = Self::start(0, MINUTE).await;
        api.says(status, fields);
        api
    }

    pub fn says(&self, status: u16, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| {
            let name = HeaderName::try_from(*name).unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let status = StatusCode::from_u16(status).unwrap();
        self.books.lock().unwrap().script = Some((status, fields.collect()));
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let uri = format!("http://{}/v1/things", self.address);
        Request::get(uri).body(Full::default()).unwrap()
    }

    /// How many it served, and how many it had to refuse.
    pub fn counts(&self) -> (u64, u64) {
        let books = self.books.lock().unwrap();
        (books.served, books.refused)
    }
}

type Shared = (Arc<Mutex<Books>>, Arc<Semaphore>);

async fn answer(State((books, door)): State<Shared>) -> impl IntoResponse {
    let (status, fields) = count(&mut books.lock().unwrap());
    // Counted before, answered after: as on a long way back.
    drop(door.acquire().await.unwrap());
    (status, fields, "thing")
}

fn count(books: &mut Books) -> (StatusCode, HeaderMap) {
    if let Some(script) = &books.script {
        books.served += 1;
        return script.clone();
    }
    let now = Instant::now();
    if books.ends.is_none_or(|ends| ends <= now) {
        (books.ends, books.left) = (Some(now + books.window), books.quota);
    }
    let left = books.ends.unwrap() - now;
    let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let mut fields = HeaderMap::new();
    let status = if books.left == 0 {
        books.refused += 1;
        fields.insert("retry-after", secs.into());
        StatusCode::TOO_MANY_REQUESTS
    } else {
        books.served += 1;
        books.left -= 1;
        StatusCode::OK
    };
    let text = |text: String| HeaderValue::try_from(text).unwrap();
    let policy = format!("\"all\";q={};w={}", books.quota, books.window.as_secs());
    fields.insert("ratelimit-policy", text(policy));
    fields.insert(
        "ratelimit",
        text(format!("\"all\";r={};t={secs}", books.left)),
    );
    (status, fields)
}

pub type Http = Client<HttpConnector, Full<Bytes>>;
pub type Quotaed = QuotaService<Http>;

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub fn impatient() -> QuotaConfig {
    QuotaConfig {
        wait_max: Duration::from_millis(200),
        ..QuotaConfig::default()
    }
}

pub fn quota(config: &QuotaConfig) -> RemoteQuota {
    RemoteQuota::new(config, Clock::system(), Events::none()).unwrap()
}

pub fn client(quota: &RemoteQuota) -> Quotaed {
    QuotaLayer::new(quota.clone()).layer(http())
}

type Answer = Result<Response<AnswerBody<hyper::body::Incoming>>, legacy::Error>;

async fn ask(client: &Quotaed, api: &Api) -> Answer {
    client.clone().oneshot(api.request()).await
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// From the remote.
    Back(u16),
    /// Was not sent.
    Refused,
}

pub async fn came(client: &Quotaed, api: &Api) -> Came {
    let response = ask(client, api).await.unwrap();
    let status = response.status().as_u16();
    let refused = response.extensions().get::<Refusal>().is_some();
    let body = response.into_body().collect().await.unwrap();
    if refused {
        assert_eq!(status, 429);
        return Came::Refused;
    }
    assert_eq!(body.to_bytes(), "thing");
    Came::Back(status)
}

/// Sends so many at once, with each of the clients by turns; returns how many came back as 200.
pub async fn at_once(clients: &[Quotaed], api: &Api, requests: usize) -> usize {
    let mut tasks = JoinSet::new();
    for client in clients.iter().cycle().take(requests) {
        let (client, api) = (client.clone(), api.clone());
        tasks.spawn(async move { came(&client, &api).await });
    }
    let all = tasks.join_all().await;
    all.iter().filter(|came| **came == Came::Back(200)).count()
}

/// Looks again and again until it is so, or fails after ten seconds.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never came true: {what}");
}

#[tokio::test]
async fn a_hundred_at_once_send_the_three_that_are_left() {
    let api = Api::start(4, MINUTE).await;
    let quota = quota(&impatient());
    let client = client(&quota);
    assert_eq!(came(&client, &api).await, Came::Back(200));
    assert_eq!(at_once(&[client], &api, 100).await, 3);
    assert_eq!(api.counts(), (4, 0));
    let standing = quota.standing(&api.name()).unwrap();
    assert_eq!(standing.left, Some(0));
    assert!(standing.blocked_for.unwrap() > Duration::from_secs(50));
    assert_eq!((standing.under_way, standing.waiting), (0, 0));
    assert_eq!(quota.waiting(), 0);
}

#[tokio::test]
async fn a_refusal_is_a_complete_answer_and_no_error() {
    let api = Api::saying(429, &[("retry-after", "30")]).await;
    let client = client(&quota(&QuotaConfig::default()));
    let from_remote = ask(&client, &api).await.unwrap();
    assert_eq!(from_remote.status(), 429);
    assert!(from_remote.extensions().get::<Refusal>().is_none());
    let refused = ask(&client, &api).await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(
        refused.headers()["content-type"],
        "application/problem+json"
    );
    let after: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    // Up to a second later than said, so that instances do not come at once.
    assert!((30..=31).contains(&after), "{after}");
    let refusal = refused.extensions().get::<Refusal>().unwrap();
    assert!(matches!(refusal, Refusal::OverQuota { rule, .. } if **rule == api.name()));
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"], 429);
    assert_eq!(api.counts().0, 1);
}

#[tokio::test]
async fn a_short_wait_is_waited_and_all_who_share_the_engine_wait() {
    let api = Api::start(3, Duration::from_secs(1)).await;
    let heard = Arc::new(Heard::default());
    let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
    let quota = RemoteQuota::new(&QuotaConfig::default(), Clock::system(), events).unwrap();
    // Clients with connections of their own, as each of several parts of a program would make one.
    let clients = [client(&quota), client(&quota)];
    let began = Instant::now();
    assert_eq!(came(&clients[0], &api).await, Came::Back(200));
    assert_eq!(at_once(&clients, &api, 8).await, 8);
    // Nine in windows of three: two windows had to end.
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(api.counts(), (9, 0));
    assert!(heard.waited.load(Ordering::SeqCst) >= 6);
    assert_eq!(heard.refused.load(Ordering::SeqCst), 0);
}

/// Counts what the engine tells.
#[derive(Debug, Default)]
struct Heard {
    waited: AtomicUsize,
    refused: AtomicUsize,
    blocked: AtomicUsize,
}

impl Recorder for Heard {
    fn record(&self, event: &Event<'_>) {
        let count = match event {
            Event::RemoteQuotaWaited { .. } => &self.waited,
            Event::RemoteQuotaRefused { .. } => &self.refused,
            Event::RemoteQuotaBlocked { .. } => &self.blocked,
            _ => return,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn githubs_403_stops_us_and_a_plain_one_does_not() {
    let reset = Clock::system().wall() + MINUTE;
    let reset = reset.duration_since(std::time::UNIX_EPOCH).unwrap();
    let reset = reset.as_secs().to_string();
    let primary = [
        ("x-ratelimit-limit", "60"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", &reset),
    ];
    for (fields, then) in [
        (&primary[..], Came::Refused),
        (&[("retry-after", "60")], Came::Refused),
        (&[], Came::Back(403)),
    ] {
        let api = Api::saying(403, fields).await;
        let client = client(&quota(&impatient()));
        assert_eq!(came(&client, &api).await, Came::Back(403));
        assert_eq!(came(&client, &api).await, then, "{fields:?}");
    }
}

#[tokio::test]
async fn hostile_answers_stop_nobody_for_long_and_break_nothing() {
    let config = QuotaConfig {
        block_max: Duration::from_secs(1),
        ..QuotaConfig::default()
    };
    let quota = quota(&config);
    let client = client(&quota);
    let long = "9".repeat(4000);
    let many = vec!["\"x\";r=0;t=999999999999999"; 400].join(",");
    let wild = "\"a\";r=0;t=1,".repeat(400);
    for (status, fields) in [
        (429, [("retry-after", "31536000"), ("ratelimit", "")]),
        (
            429,
            [("retry-after", "999999999999999"), ("ratelimit", &*many)],
        ),
        (
            429,
            [
                ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"),
                ("age", "x"),
            ],
        ),
        (200, [("ratelimit", &*many), ("ratelimit-policy", &*wild)]),
        (
            200,
            [
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "99999999999999"),
            ],
        ),
        (
            200,
            [("ratelimit", &*wild), ("x-ratelimit-remaining", &*long)],
        ),
        (
            200,
            [("ratelimit", "\"\\\";r=0"), ("x-ratelimit-reset", "-7")],
        ),
        (503, [("retry-after", &*long), ("ratelimit", "((((((((")]),
        (
            403,
            [
                ("retry-after", "\u{e9}\u{e9}"),
                ("x-ratelimit-remaining", "\u{e9}"),
            ],
        ),
    ] {
        let api = Api::saying(status, &fields).await;
        assert_eq!(came(&client, &api).await, Came::Back(status));
        let began = Instant::now();
        assert_eq!(came(&client, &api).await, Came::Back(status), "{fields:?}");
        // A second, what scatters it, and what a busy machine takes.
        assert!(began.elapsed() < Duration::from_secs(4), "{fields:?}");
    }
}

#[tokio::test]
async fn a_waiter_that_goes_away_takes_nothing_with_it() {
    let api = Api::start(3, MINUTE).await;
    let quota = quota(&QuotaConfig::default());
    let client = client(&quota);
    assert_eq!(came(&client, &api).await, Came::Back(200));
    // Two are under way and not answered; whoever comes now waits for what they bring.
    api.door.forget_permits(Semaphore::MAX_PERMITS);
    let spawn = || {
        let (client, api) = (client.clone(), api.clone());
        tokio::spawn(async move { came(&client, &api).await })
    };
    let under_way = [spawn(), spawn()];
    until("two are under way", || api.counts().0 == 3).await;
    let waiting: Vec<_> = (0..50).map(|_| spawn()).collect();
    until("fifty wait", || quota.waiting() == 50).await;
    waiting.iter().take(49).for_each(|task| task.abort());
    until("one waits", || quota.waiting() == 1).await;
    assert_eq!(quota.standing(&api.name()).unwrap().under_way, 2);
    // One that is under way is dropped as well: the remote has counted it.
    let [dropped, answered] = under_way;
    dropped.abort();
    until("one is under way", || {
        quota.standing(&api.name()).unwrap().under_way == 1
    })
    .await;
    api.door.add_permits(100);
    assert_eq!(answered.await.unwrap(), Came::Back(200));
    assert_eq!(
        waiting.into_iter().last().unwrap().await.unwrap(),
        Came::Refused
    );
    assert_eq!(api.counts(), (3, 0));
    let standing = quota.standing(&api.name()).unwrap();
    assert_eq!((standing.under_way, standing.waiting), (0, 0));
}

#[tokio::test]
async fn what_never_arrived_is_given_back() {
    let api = Api::start(100, MINUTE).await;
    let quota = quota(&impatient()).remotes(|_| Some("both".into()));
    let client = client(&quota);
    assert_eq!(came(&client, &api).await, Came::Back(200));
    // A port that nobody listens on.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nobody.local_addr().unwrap();
    drop(nobody);
    for _ in 0..200 {
        let uri = format!("http://{gone}/");
        let request = Request::get(uri).body(Full::default()).unwrap();
        assert!(client.clone().oneshot(request).await.is_err());
    }
    assert_eq!(quota.standing("both").unwrap().left, Some(99));
}

#[tokio::test]
async fn what_a_layer_of_our_own_answers_says_nothing_about_the_remote() {
    let quota = quota(&impatient());
    let guarded = service_fn(async |_: Request<()>| {
        let retry_after = MINUTE;
        Ok::<_, Infallible>(refuse::<Full<Bytes>>(Refusal::Overloaded { retry_after }))
    });
    let client = QuotaLayer::new(quota.clone()).layer(guarded);
    for _ in 0..3 {
        let request = Request::get("http://a.test/").body(()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 503);
    }
    assert_eq!(quota.standing("a.test").unwrap().blocked_for, None);
}

#[tokio::test]
async fn requests_that_no_quota_speaks_of_and_an_engine_that_is_off_change_nothing() {
    let api = Api::saying(429, &[("retry-after", "60")]).await;
    let off = QuotaConfig {
        enabled: false,
        ..QuotaConfig::default()
    };
    for quota in [
        quota(&off),
        quota(&QuotaConfig::default()).remotes(|_| None),
    ] {
        let client = client(&quota);
        for _ in 0..3 {
            assert_eq!(came(&client, &api).await, Came::Back(429));
        }
        assert_eq!(quota.known(), 0);
    }
}

#[tokio::test]
async fn names_without_end_are_kept_within_bounds() {
    let config = QuotaConfig {
        remotes_max: 100,
        ..QuotaConfig::default()
    };
    let number = AtomicU64::new(0);
    let quota = quota(&config).remotes(move |_| {
        let next = number.fetch_add(1, Ordering::Relaxed);
        Some(format!("{next}.{}", "x".repeat(100_000)).into())
    });
    let remote = service_fn(async |_: Request<()>| {
        let response = Response::builder().header("ratelimit", "\"a\";r=5;t=60");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
    });
    let mut client = QuotaLayer::new(quota.clone()).layer(remote);
    for _ in 0..5_000 {
        let request = Request::get("http://a.test/").body(()).unwrap();
        let response = client.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(quota.known() <= 100);
    }
}

#[test]
fn the_public_types_travel_between_threads() {
    fn travels<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    travels::<RemoteQuota>();
    travels::<QuotaLayer>();
    travels::<QuotaService<Http>>();
    fn sent<T: Send>() {}
    sent::<<Quotaed as Service<Request<Full<Bytes>>>>::Future>();
}
