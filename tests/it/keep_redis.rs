//! The whole stack beside a Redis that is there, is not there, comes, goes, or is none at all.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::net::TcpListener;
use tower_keep::cache::CacheTags;
use tower_keep::event::{Event, Recorder};
use tower_keep::identity::Caller;
use tower_keep::invalidation::Invalidate;
use tower_keep::store::{
    Batch, Call, Command, Credentials, CredentialsError, CredentialsProvider, RedisConfig,
    RedisStatus, Script,
};
use tower_keep::{Keep, KeepBuilder, Profile};

use crate::keep::{Http, Witness, client};
use crate::redis::{TestCluster, TestRedis, TestSentinel, TestTls};

/// Nobody waits so long for an answer that Redis has nothing to do with, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// A served stack, and somebody who asks it.
#[derive(Clone)]
struct Site {
    keep: Keep,
    address: SocketAddr,
    http: Http,
    heard: Arc<Heard>,
}

/// Writes down how Redis comes and goes.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, event: &Event<'_>) {
        let said = match event {
            Event::RedisUp => "up".to_owned(),
            Event::RedisDown { reason } => format!("down: {reason}"),
            Event::Warning { text } => format!("warning: {text}"),
            _ => return,
        };
        self.0.lock().unwrap().push(said);
    }
}

impl Heard {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A stack on a small host, whose callers may each ask eight times a minute.
fn builder(redis: impl FnOnce(&mut RedisConfig)) -> KeepBuilder {
    Keep::builder(Profile::azure_b1())
        .rate_limit(|limits| {
            limits.requests_max = 8;
            limits.window = Duration::from_secs(60);
        })
        .callers(|request| {
            let name = request.headers.get("x-caller")?.to_str().ok()?;
            Some(Caller::new(name))
        })
        // The only instance: while Redis is away nobody else can change anything.
        .journal(|journal| journal.max_unverified = Duration::from_secs(3600))
        // A dozen servers and their tests share this machine.
        .redis(|redis| redis.command_timeout = Duration::from_millis(250))
        .redis(redis)
}

fn at(url: impl Into<String>) -> impl FnOnce(&mut RedisConfig) {
    let url = url.into();
    move |redis| redis.url = Some(url)
}

/// How often each register was written.
type Shelf = Arc<Mutex<HashMap<String, usize>>>;

async fn read(State(shelf): State<Shelf>, Path(id): Path<String>) -> impl IntoResponse {
    let written = shelf.lock().unwrap().get(&id).copied().unwrap_or_default();
    let tags = Extension(CacheTags::new([format!("register:{id}")]));
    let fresh = [("cache-control", "public, max-age=600")];
    (tags, fresh, format!("{id}={written}"))
}

async fn write(State(shelf): State<Shelf>, Path(id): Path<String>) -> impl IntoResponse {
    *shelf.lock().unwrap().entry(id.clone()).or_default() += 1;
    let purged = Extension(Invalidate::tag(&format!("register:{id}")));
    (purged, StatusCode::NO_CONTENT)
}

/// Serves a stack on a port of its own: registers, and views of them that only a tag connects.
async fn serve(keep: &Keep) -> SocketAddr {
    let app = Router::new()
        .route("/registers/{id}", get(read).put(write))
        .route("/views/{id}", get(read))
        .layer(keep.layer())
        .with_state(Shelf::default())
        .merge(keep.admin_router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

impl Site {
    async fn new(redis: impl FnOnce(&mut RedisConfig)) -> Self {
        Self::of(builder(redis)).await
    }

    async fn of(builder: KeepBuilder) -> Self {
        let heard = Arc::new(Heard::default());
        let recorder = Arc::clone(&heard) as Arc<dyn Recorder>;
        let keep = builder.recorder(recorder).build().unwrap();
        let address = serve(&keep).await;
        let http = client();
        Self {
            keep,
            address,
            http,
            heard,
        }
    }

    async fn ask(&self, method: &str, path: &str, caller: &str) -> Response<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("x-caller", caller)
            .body(Full::default());
        let asked = async {
            let response = self.http.request(request.unwrap()).await.unwrap();
            let (head, body) = response.into_parts();
            Response::from_parts(head, body.collect().await.unwrap().to_bytes())
        };
        let answered = tokio::time::timeout(PATIENCE, asked).await;
        answered.unwrap_or_else(|_| panic!("{method} {path}: nothing within {PATIENCE:?}"))
    }

    /// Limiter, invalidation and cache do their work, whatever Redis does.
    async fn works(&self) {
        static ROUND: AtomicUsize = AtomicUsize::new(0);
        let caller = format!("caller-{}", ROUND.fetch_add(1, Ordering::Relaxed));
        let ask = |method: &'static str, path: &'static str| self.ask(method, path, &caller);
        for _ in 0..2 {
            assert_eq!(ask("PUT", "/registers/a").await.status(), 204);
            let before = self.keep.journal().position();
            let fresh = ask("GET", "/views/a").await;
            let stored = ask("GET", "/views/a").await;
            assert_eq!(
                fresh.headers()["cache-status"],
                "keep; fwd=uri-miss; stored"
            );
            if stored.headers()["cache-status"] != "keep; hit" {
                // Right, if the server has lost the journal in between, as one that was killed has, or if
                // what waited for it was recorded only now.
                until(|| self.keep.journal().position() != before).await;
            }
            assert_eq!(fresh.body(), stored.body());
            assert_eq!(ask("GET", "/registers/a").await.body(), fresh.body());
        }
        let ninth = ask("GET", "/views/a").await;
        assert_eq!(ninth.status(), 429, "eight were allowed");
        assert_eq!(self.ask("GET", "/ready", "prober").await.status(), 200);
    }

    /// The component `redis`: its status, and its words, which the page that is for everybody does not show.
    /// Redis alone takes nobody out of rotation.
    async fn redis(&self) -> (String, String) {
        let page = self.ask("GET", "/health", "prober").await;
        assert_eq!(page.status(), 200);
        let page: serde_json::Value = serde_json::from_slice(page.body()).unwrap();
        for (name, component) in page["components"].as_object().unwrap() {
            assert!(component.get("detail").is_none(), "{name}: {component}");
            // The journal stands and falls with Redis, and notices a moment later.
            let may_be_amiss = ["redis", "invalidation"].contains(&name.as_str());
            let well = component["status"] == "healthy" || may_be_amiss;
            assert!(well, "{name}: {component}");
        }
        assert!(page["components"]["redis"]["status"].is_string());
        // Status and words of one moment: the page, a moment ago, may have said something else.
        let redis = &self.keep.health().components["redis"];
        let status = serde_json::to_value(redis.status).unwrap();
        (status.as_str().unwrap().to_owned(), redis.detail.clone())
    }

    async fn until_healthy(&self) -> String {
        self.until("healthy", "up: redis ").await
    }

    /// Waits until the board says `degraded` in these words among others.
    async fn until_degraded(&self, words: &str) -> String {
        let all = self.until("degraded", words).await;
        assert!(all.starts_with("down: "), "{all}");
        assert!(!self.keep.redis().status().is_up());
        assert_eq!(self.figure("keep_redis_up").await, 0.0);
        all
    }

    async fn until(&self, status: &str, words: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (said, detail) = self.redis().await;
            if said == status && detail.contains(words) {
                return detail;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "not {status} ({words}), but {said}: {detail}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn figure(&self, name: &str) -> f64 {
        let text = self.ask("GET", "/metrics", "prober").await;
        let text = String::from_utf8(text.body().to_vec()).unwrap();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        let found = text.lines().find_map(value);
        found.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Nothing that the stack shows holds `secret`.
    async fn hides(&self, secret: &str) {
        let (keep, heard) = (format!("{:?}", self.keep), self.heard.all());
        let (_, health) = self.redis().await;
        for shown in [keep, health, heard.join("\n")] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

/// Requests, one after the other, for as long as it lives; each must be answered.
struct Traffic {
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    fn on(site: &Site) -> Self {
        let (site, enough) = (site.clone(), Arc::new(AtomicBool::new(false)));
        let (until, answered) = (Arc::clone(&enough), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&answered);
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let caller = format!("visitor-{}", count.fetch_add(1, Ordering::Relaxed));
                for (method, path, status) in [
                    ("GET", "/views/b", 200),
                    ("PUT", "/registers/b", 204),
                    ("GET", "/registers/b", 200),
                ] {
                    let answer = site.ask(method, path, &caller).await;
                    assert_eq!(answer.status(), status, "{method} {path}");
                }
                assert_eq!(site.ask("GET", "/ready", "prober").await.status(), 200);
            }
        });
        Self {
            enough,
            answered,
            task,
        }
    }

    /// Waits until some more were answered, as things are now.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let more = async {
            while self.answered.load(Ordering::Relaxed) < before + 3 {
                assert!(!self.task.is_finished(), "a request was not answered");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let patience = Duration::from_secs(30);
        let answered = tokio::time::timeout(patience, more).await;
        assert!(answered.is_ok(), "a request waits for its answer");
    }

    async fn end(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.task.await.expect("every request was answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_everything_is_in_memory_and_health_says_so() {
    let site = Site::new(|_| {}).await;
    site.works().await;
    let said = ("healthy", "not configured: state is in memory");
    let (status, detail) = site.redis().await;
    assert_eq!((&*status, &*detail), said);
    assert_eq!(site.keep.redis().status(), RedisStatus::Disabled);
    let page = site.ask("GET", "/metrics", "prober").await;
    let page = String::from_utf8(page.body().to_vec()).unwrap();
    assert!(
        !page.contains("keep_redis_up"),
        "there is nothing to be up: {page}"
    );
    assert_eq!(site.heard.all(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_absent_at_start_is_used_once_it_appears() {
    let server = TestRedis::start();
    server.kill();
    let site = Site::new(at(server.url())).await;
    let traffic = Traffic::on(&site);
    let words = site.until_degraded("refused").await;
    assert!(
        words.contains(&format!("127.0.0.1:{}", server.port())),
        "{words}"
    );
    site.works().await;
    traffic.goes_on().await;
    assert_eq!(site.figure("keep_redis_connections").await, 0.0);
    assert_eq!(site.figure("keep_redis_downs_total").await, 1.0);

    server.restart();
    let words = site.until_healthy().await;
    assert!(words.contains("1 connection, round trip"), "{words}");
    assert_eq!(site.figure("keep_redis_up").await, 1.0);
    assert_eq!(site.figure("keep_redis_connections").await, 1.0);
    assert_eq!(site.figure("keep_redis_downs_total").await, 1.0);
    let set = Command::new("SET").key(site.keep.redis().key("own")).arg(7);
    site.keep.redis().run::<()>(&set).await.unwrap();
    assert_eq!(server.raw().command(&["GET", "keep:own"]).text(), "7");
    assert_eq!(
        (server.clients(), server.clients_named("tower-keep")),
        (1, 1)
    );
    site.works().await;
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_is_missed_by_nobody() {
    let server = TestRedis::start();
    let site = Site::new(at(server.url())).await;
    site.until_healthy().await;
    let traffic = Traffic::on(&site);
    for round in 1..=3 {
        server.kill();
        site.until_degraded("").await;
        site.works().await;
        traffic.goes_on().await;
        server.restart();
        site.until_healthy().await;
        site.works().await;
        assert_eq!(site.figure("keep_redis_connections").await, 1.0);
        let downs = site.figure("keep_redis_downs_total").await;
        assert!(downs >= f64::from(round), "{downs}: {:?}", site.heard.all());
    }
    let heard = site.heard.all();
    let ups = heard.iter().filter(|said| *said == "up").count();
    assert_eq!(ups, 4, "{heard:?}");
    traffic.end().await;
}

/// A scrape and a change at the same moment once waited for each other for ever.
#[tokio::test]
async fn figures_are_read_while_changes_wait_for_a_redis_that_is_away() {
    let nobody = TestRedis::start();
    let url = nobody.url();
    nobody.kill();
    let keep = builder(at(url)).build().unwrap();
    let (done, both) = std::sync::mpsc::channel();
    let (invalidator, told) = (keep.invalidator().clone(), done.clone());
    // Threads that nobody waits for, so that two which wait for each other fail the test and do not hold it up.
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            drop(invalidator.purge_tag("register:a").unwrap());
        }
        let _ = told.send(());
    });
    let journal = keep.journal().clone();
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            assert!(journal.figures().waiting <= 20_000);
        }
        let _ = done.send(());
    });
    for _ in 0..2 {
        let ended = both.recv_timeout(Duration::from_secs(60));
        ended.expect("neither waits for the other");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_let_go_and_found_again() {
    let server = TestRedis::start();
    let site = Site::new(at(server.url())).await;
    site.until_healthy().await;
    let traffic = Traffic::on(&site);
    server.stop();
    site.until_degraded("").await;
    site.works().await;
    traffic.goes_on().await;
    server.cont();
    site.until_healthy().await;
    site.works().await;
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_no_writes_is_degraded_although_it_is_up() {
    let server = TestRedis::with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let site = Site::new(at(server.url())).await;
    site.until("degraded", "takes no writes: OOM").await;
    assert_eq!(site.figure("keep_redis_up").await, 1.0);
    site.works().await;
    server.raw().must(&["CONFIG", "SET", "maxmemory", "0"]);
    site.until_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_primary_takes_over_under_way() {
    let servers = TestSentinel::start();
    let site = Site::new(at(servers.url())).await;
    let first = site.until_healthy().await;
    let traffic = Traffic::on(&site);
    let old = servers.primary();
    old.kill();
    site.until_degraded("").await;
    site.works().await;
    let new = servers.await_other_primary(old);
    site.until_healthy().await;
    let set = Command::new("SET").key("where").arg("new");
    site.keep.redis().run::<()>(&set).await.unwrap();
    assert_eq!(new.raw().command(&["GET", "where"]).text(), "new");
    site.works().await;
    traffic.end().await;
    assert!(first.contains("1 connection"), "{first}");
    assert_eq!(new.clients_named("tower-keep"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_used_while_its_slots_move_and_its_masters_come_and_go() {
    let cluster = TestCluster::start();
    let site = Site::new(at(cluster.url())).await;
    let words = site.until_healthy().await;
    assert!(words.contains("3 connections"), "{words}");
    let traffic = Traffic::on(&site);
    let key = site.keep.redis().key("{own}");
    let slot = cluster.slot_of(&key);
    let add = Command::new("INCR").key(&key);
    for count in 1..=3 {
        let from = cluster.node_of_slot(slot);
        cluster.move_slot(slot, from, (from + 1) % 3);
        let counted = site.keep.redis().run::<i64>(&add).await;
        assert_eq!(counted, Ok(count));
        site.works().await;
    }
    assert_eq!(site.redis().await.0, "healthy");
    assert_eq!(site.heard.all(), ["up"]);

    let lost = &cluster.nodes()[0];
    lost.kill();
    let words = format!("master 127.0.0.1:{} of 3: ", lost.port());
    site.until_degraded(&words).await;
    site.works().await;
    traffic.goes_on().await;
    lost.restart();
    site.until_healthy().await;
    assert_eq!(site.figure("keep_redis_connections").await, 3.0);
    assert!(site.figure("keep_redis_downs_total").await >= 1.0);
    traffic.end().await;

    let heard = site.heard.all();
    assert_eq!(site.keep.shutdown().await, 0, "all of them stop when asked");
    for node in cluster.nodes() {
        until(|| node.clients_named("tower-keep") == 0).await;
    }
    assert_eq!(site.redis().await.1, "down: the stack was shut down");
    assert_eq!(
        site.heard.all(),
        heard,
        "an end that was asked for alarms nobody"
    );
}

#[tokio::test]
async fn shutdown_closes_every_connection_and_ends_every_task() {
    let server = TestRedis::start();
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    let heard = Arc::new(Heard::default());
    let recorder = Arc::clone(&heard) as Arc<dyn Recorder>;
    let keep = builder(at(server.url()))
        .recorder(recorder)
        .build()
        .unwrap();
    let pool = keep.redis().clone();
    assert!(pool.watch().until_up().await);
    // The reserve is open as well.
    let large = Command::new("SET").key("large").arg(vec![7_u8; 1 << 20]);
    pool.run::<()>(&large).await.unwrap();
    assert_eq!(server.clients(), 2);
    assert_eq!(keep.shutdown().await, 0, "all of them stop when asked");
    until(|| server.clients() == 0).await;
    until(|| runtime.metrics().num_alive_tasks() == before).await;
    let refused = pool.run::<()>(&large).await.unwrap_err();
    assert!(refused.to_string().contains("shut down"), "{refused}");
    let redis = &keep.health().components["redis"];
    assert_eq!(redis.detail, "down: the stack was shut down");
    assert_eq!(
        heard.all(),
        ["up"],
        "an end that was asked for alarms nobody"
    );
    server.kill();
    server.restart();
    assert_eq!(server.clients(), 0, "nothing connects any more");
}

#[tokio::test]
async fn dropping_the_stack_frees_it_and_its_connections() {
    let server = TestRedis::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("redis://{}", silent.local_addr().unwrap());
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    for (url, is_up) in [
        (server.url(), true),
        ("redis://127.0.0.1:1".to_owned(), false),
        (silent, false),
    ] {
        let witness = Arc::new(Witness);
        let recorder = Arc::clone(&witness) as Arc<dyn Recorder>;
        let keep = builder(at(&*url)).recorder(recorder).build().unwrap();
        let (layer, router) = (keep.layer(), keep.admin_router::<()>());
        let pool = keep.redis().clone();
        if is_up {
            assert!(pool.watch().until_up().await);
        }
        drop(keep);
        until(|| runtime.metrics().num_alive_tasks() == before).await;
        until(|| server.clients() == 0).await;
        let refused = pool.run::<()>(&Command::new("PING")).await.unwrap_err();
        assert!(refused.to_string().contains("shut down"), "{refused}");
        drop((layer, router, pool));
        until(|| Arc::strong_count(&witness) == 1).await;
    }
}

async fn until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(
            Instant::now() < deadline,
            "it should have come to this by now"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_right_are_named_before_anything_runs() {
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    let bad = [
        (
            json!({"url": "pa55word"}),
            "url = (hidden): must begin with",
        ),
        (
            json!({"url": "http://:pa55word@h"}),
            "url = (hidden): must begin with redis://",
        ),
        (
            json!({"url": "redis://:pa55word@h:99999"}),
            "url = redis://(hidden): must have a port",
        ),
        (
            json!({"url": "redis://:pa55word@/0"}),
            "url = redis://(hidden): ",
        ),
        (
            json!({"url": "redis://:pa55word@h/zero"}),
            "url = redis://(hidden): ",
        ),
        (
            json!({"max_connections": 0}),
            "max_connections = 0: must be 1 to 64 connections",
        ),
        (
            json!({"key_prefix": "a b"}),
            "key_prefix = \"a b\": must be at most 64 printable",
        ),
        (
            json!({"key_prefix": "a{b}"}),
            "key_prefix = \"a{b}\": must be at most 64 printable",
        ),
        (
            json!({"url": "rediss://:pa55word@h", "ca_certificate": "/nowhere/ca.pem"}),
            "ca_certificate = /nowhere/ca.pem: cannot be read",
        ),
        (
            json!({"url": "redis://:pa55word@h", "ca_certificate": "/nowhere/ca.pem"}),
            "ca_certificate = /nowhere/ca.pem: is for encrypted connections",
        ),
        (
            json!({"url": "redis://h", "username": "pa55word"}),
            "username = (hidden): ",
        ),
        (
            json!({"url": "redis://:pa55word@h", "command_timeout_ms": 0}),
            "command_timeout_ms = 0ns: must be 1ms to 60s",
        ),
    ];
    for (settings, expected) in bad {
        let overlay = json!({ "redis": settings });
        let error = builder(|_| {}).overlay(overlay).build().unwrap_err();
        let expected = format!("redis.{expected}");
        let text = error.to_string();
        assert!(text.contains(&expected), "{expected} in {text}");
        assert_eq!(error.faults().len(), 1, "{text}");
        assert!(!format!("{text} {error:?}").contains("pa55word"), "{text}");
    }
    until(|| runtime.metrics().num_alive_tasks() == before).await;
}

/// A server that waits for something to be said, says `answer` as often as commands came, and if
/// `hangs_up`, no more.
async fn impostor(answer: &'static str, hangs_up: bool) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://:pa55word@{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = vec![0; 16 << 10];
                while let Ok(bytes @ 1..) = stream.read(&mut heard).await {
                    let commands = heard[..bytes].iter().filter(|&&byte| byte == b'*');
                    let said = answer.repeat(commands.count().max(1));
                    if stream.write_all(said.as_bytes()).await.is_err() || hangs_up {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_redis_or_too_old_is_told_so_in_words() {
    let redis_5 = "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
    let http = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (answer, hangs_up, words) in [
        (redis_5, false, "Redis 6 or newer"),
        (
            "-ERR unknown command 'HELLO'\r\n",
            false,
            "Redis 6 or newer",
        ),
        (http, true, "not the Redis protocol"),
        (
            "220 mail.example ESMTP\r\n",
            false,
            "not the Redis protocol",
        ),
        (
            "-DENIED Redis is running in protected mode because ..\r\n",
            true,
            "DENIED",
        ),
    ] {
        let site = Site::new(at(impostor(answer, hangs_up).await)).await;
        let said = site.until_degraded(words).await;
        println!("{said}");
        site.works().await;
        site.hides("pa55word").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_without_it() {
    let server = TestRedis::with_password("right");
    for (user, words) in [("", "WRONGPASS"), ("somebody", "WRONGPASS")] {
        let url = format!("redis://{user}:pa55word@127.0.0.1:{}", server.port());
        let site = Site::new(at(url)).await;
        let said = site.until_degraded(words).await;
        println!("{said}");
        site.works().await;
        site.hides("pa55word").await;
        // Once the server takes it, so do we.
        if user.is_empty() {
            server
                .raw()
                .must(&["CONFIG", "SET", "requirepass", "pa55word"]);
            site.until_healthy().await;
            server.raw().try_command(&["AUTH", "pa55word"]).unwrap();
        }
    }
    let none = Site::new(at(format!("redis://127.0.0.1:{}", server.port()))).await;
    let said = none.until_degraded("NOAUTH").await;
    println!("{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_where_there_is_none_and_none_where_there_is_are_told_apart() {
    let plain = TestRedis::start();
    let site = Site::new(at(format!("rediss://127.0.0.1:{}", plain.port()))).await;
    let said = site.until_degraded("TLS").await;
    println!("{said}");
    site.works().await;

    let tls = TestTls::start();
    let site = Site::new(at(format!("redis://127.0.0.1:{}", tls.port()))).await;
    let said = site.until_degraded("TLS").await;
    println!("{said}");
    site.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_ones_own_authority_is_trusted_and_a_stranger_s_is_not() {
    let server = TestTls::start();
    let stranger = Site::new(at(server.url())).await;
    let said = stranger.until_degraded("certificate").await;
    println!("{said}");
    stranger.works().await;

    let ca_certificate = server.ca_path();
    let trusted = Site::new(|redis| {
        redis.url = Some(server.url());
        redis.ca_certificate = Some(ca_certificate);
    });
    let trusted = trusted.await;
    trusted.until_healthy().await;
    let set = Command::new("SET").key("a").arg("sealed");
    trusted.keep.redis().run::<()>(&set).await.unwrap();
    assert_eq!(server.raw().command(&["GET", "a"]).text(), "sealed");
    server.kill();
    trusted.until_degraded("").await;
    trusted.works().await;
    server.restart();
    trusted.until_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_a_user_and_a_database_are_found_by_url_or_beside_it() {
    let server = TestRedis::start();
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">s%cret/?",
        "~*",
        "&*",
        "+@all",
    ];
    server.raw().must(&user);
    let (port, socket) = (server.port(), server.unix_url());
    let beside = format!("redis://127.0.0.1:{port}/5");
    let by_url = |url: String| RedisConfig {
        url: Some(url),
        ..RedisConfig::default()
    };
    for (config, user, database) in [
        (by_url(socket.clone()), "default", 0),
        (
            by_url(format!("{socket}?db=2&user=app&pass=s%25cret%2F%3F")),
            "app",
            2,
        ),
        (
            by_url(format!("redis://app:s%25cret%2F%3F@127.0.0.1:{port}/3")),
            "app",
            3,
        ),
        (
            by_url(format!("valkey://app:s%25cret%2F%3F@localhost:{port}/4")),
            "app",
            4,
        ),
        (
            RedisConfig {
                username: Some("app".to_owned()),
                password: Some("s%cret/?".to_owned()),
                ..by_url(beside)
            },
            "app",
            5,
        ),
    ] {
        let shown = format!("{config:?}");
        let site = Site::new(|redis| {
            (redis.url, redis.username) = (config.url, config.username);
            redis.password = config.password;
        });
        let site = site.await;
        site.until_healthy().await;
        let pool = site.keep.redis();
        let who = pool.run::<String>(&Command::new("ACL").arg("WHOAMI")).await;
        assert_eq!(who.as_deref(), Ok(user), "{shown}");
        let own: String = pool.run(&Command::new("CLIENT").arg("INFO")).await.unwrap();
        assert!(own.contains(&format!(" db={database} ")), "{shown}: {own}");
        site.hides("s%cret").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_scripts_of_ones_own_take_the_same_pool() {
    static PUSH: Script = Script::new(
        "push",
        "redis.call('RPUSH', keys[1], args[1]) return redis.call('LLEN', keys[1])",
    );
    let server = TestRedis::start();
    let site = Site::of(builder(at(server.url())).redis_scripts([&PUSH])).await;
    site.until_healthy().await;
    let pool = site.keep.redis();
    let key = pool.key("queue");
    let push = |text: &str| Call::new(&PUSH).key(&key).arg(text);
    assert_eq!(pool.call(&push("a")).await, Ok(1_u64));
    server.raw().must(&["FUNCTION", "FLUSH"]);
    let batch = Batch::new()
        .call(push("b"))
        .command(Command::new("LRANGE").key(&key).arg(0).arg(-1));
    let answers = pool.run_all(&batch).await.unwrap();
    let answers: Result<Vec<_>, _> = answers.collect();
    assert!(answers.is_ok(), "{answers:?}");
    assert_eq!(pool.call(&push("c")).await, Ok(3_u64));
    assert_eq!(server.clients(), 1);
    let twice = builder(|_| {}).redis_scripts([&PUSH, &PUSH]).build();
    let broken = twice.map(drop).unwrap_err().to_string();
    assert!(broken.contains("push"), "{broken}");
}

/// Hands out whatever was put into it last, for a second each.
struct Desk(Arc<Mutex<(String, String)>>);

impl CredentialsProvider for Desk {
    fn fetch(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + '_>> {
        Box::pin(async {
            let (user, token) = self.0.lock().unwrap().clone();
            Ok(Credentials::new(user, token).refresh_after(Duration::from_secs(1)))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_on_the_open_connection() {
    let server = TestRedis::with_password("admin");
    let mut raw = server.raw();
    let mut user = |name: &str, token: &str| {
        raw.must(&[
            "ACL",
            "SETUSER",
            name,
            "on",
            "resetpass",
            "~*",
            "&*",
            "+@all",
            token,
        ]);
    };
    user("app", ">t0ken-1");
    let latest = Arc::new(Mutex::new(("app".to_owned(), "t0ken-1".to_owned())));
    let desk = Desk(Arc::clone(&latest));
    let url = format!("redis://127.0.0.1:{}", server.port());
    let site = Site::of(builder(at(url)).redis_credentials(desk)).await;
    site.until_healthy().await;
    let pool = site.keep.redis().clone();
    let id = || {
        let pool = pool.clone();
        async move { pool.run::<u64>(&Command::new("CLIENT").arg("ID")).await }
    };
    let who = async || {
        let ask = Command::new("ACL").arg("WHOAMI");
        pool.run::<String>(&ask).await.unwrap()
    };
    let first = id().await.unwrap();
    assert_eq!(who().await, "app");

    // Another token of the same user, which every later connection needs.
    let logins = || {
        let stats = server.raw().must(&["INFO", "commandstats"]);
        let calls = stats.line("cmdstat_auth").unwrap();
        let calls = calls.strip_prefix("calls=").unwrap();
        calls.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    user("app", ">t0ken-2");
    *latest.lock().unwrap() = ("app".to_owned(), "t0ken-2".to_owned());
    // `raw` logs in once each time it asks.
    let (before, mut looks) = (logins(), 0);
    until(|| {
        looks += 1;
        logins() > before + looks
    })
    .await;
    assert_eq!(id().await, Ok(first), "nothing was reconnected for it");

    // Another user altogether, which the server can be asked about.
    user("other", ">t0ken-3");
    *latest.lock().unwrap() = ("other".to_owned(), "t0ken-3".to_owned());
    let deadline = Instant::now() + Duration::from_secs(10);
    while who().await != "other" {
        assert!(Instant::now() < deadline, "still {}", who().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(id().await, Ok(first), "nothing was reconnected for it");
    assert!(site.keep.redis().status().is_up());

    // The next connection logs in with what is valid by now.
    server
        .raw()
        .must(&["CLIENT", "KILL", "ID", &first.to_string()]);
    until(|| server.clients_named("tower-keep") == 1).await;
    site.until_healthy().await;
    assert_ne!(id().await, Ok(first));
    assert_eq!(who().await, "other");
    assert!(!site.heard.all().iter().any(|said| said.contains("AUTH")));
    for token in ["t0ken-1", "t0ken-2", "t0ken-3"] {
        site.hides(token).await;
    }
    assert_eq!(site.keep.shutdown().await, 0, "all of them stop when asked");
}
