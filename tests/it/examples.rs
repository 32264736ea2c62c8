//! The examples, as a stranger meets them: real processes, driven by a real HTTP client.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower_keep::clock::Clock;

/// Far more than anything here takes, also on a busy machine; only a hang comes to it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running example, and a client to it. Dropping it kills the process and removes what it wrote.
struct Example {
    process: Child,
    /// Where its temporary files go.
    folder: PathBuf,
    site: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Example {
    /// Starts an example on a free port and waits until it says where it listens.
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same with these variables in its environment.
    fn start_with(name: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = command(name);
        command.envs(variables.iter().copied());
        Self::started(command)
    }

    fn started(mut command: Command) -> Self {
        let folder = folder();
        let mut process = command
            .env("TMPDIR", &folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let out = process.stdout.take().expect("stdout is a pipe");
        let (say, said) = mpsc::channel();
        // Reads on to the end, so that the example never writes into a full or closed pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(site) = line.strip_prefix("listening on ") {
                    let _ = say.send(site.to_owned());
                }
            }
        });
        // Made before the wait, so that the process ends with the test also when it says nothing.
        let mut example = Self {
            process,
            folder,
            site: String::new(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        example.site = said.recv_timeout(DEADLINE).expect("it says its address");
        example
    }

    async fn ask(&self, method: Method, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.site));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Full::from(body.to_owned());
        let asked = self.client.request(request.body(body).unwrap());
        let response = within(asked).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn get_as(&self, key: &str, path: &str) -> Answer {
        self.ask(Method::GET, path, &[("x-api-key", key)], "").await
    }

    async fn send(&self, method: Method, path: &str, json: &str) -> Answer {
        let fields = [("content-type", "application/json")];
        self.ask(method, path, &fields, json).await
    }

    /// Asks the process to stop, as a supervisor does.
    fn terminate(&self) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.expect("there is a kill command").success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(ended).await
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let text = value.map(|value| value.to_str().unwrap());
        text.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// That it came from the store, or that it did not.
    #[track_caller]
    fn is_hit(&self) -> bool {
        self.field("cache-status").contains("; hit")
    }

    fn assert_hit(&self, hit: bool) {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let cache = self.field("cache-status");
        assert_eq!(cache.contains("; hit"), hit, "{cache}");
        if hit {
            self.field("age").parse::<u64>().expect("whole seconds");
        } else {
            assert!(cache.contains("; fwd="), "{cache}");
        }
    }

    #[track_caller]
    fn assert_problem(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.field("content-type"), "application/problem+json");
        assert_eq!(self.json()["status"], status, "{self:?}");
    }
}

/// A new folder beside what cargo builds.
fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "example-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The command that runs an example on a port of its own, with nothing of our environment that
/// could mean something to it.
fn command(name: &str) -> Command {
    let mut command = Command::new(built(name));
    command.env_clear();
    for kept in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.env("PORT", "0");
    command
}

/// The path of a built example.
///
/// It is built here, because `cargo test --test it` builds no examples and would leave those of last
/// week to be tested. Where they are as new as this test, which they are after a plain `cargo test`,
/// cargo finds nothing to do.
fn built(name: &str) -> PathBuf {
    // One at a time: cargo would make the others wait anyway, and once is enough.
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    // This program is target/<profile>/deps/it-<hash>; examples are in target/<profile>/examples.
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).expect("a build folder").to_owned();
    let profile = match folder.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        other => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.args(["build", "--example", name, "--profile", profile]);
    build.args(["--features", &features().join(",")]);
    build.env("CARGO_TARGET_DIR", folder.parent().unwrap());
    let output = build.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo could not build it: {text}");
    let path = folder.join("examples").join(name);
    built.insert(name.to_owned(), path.clone());
    path
}

/// The features this test was built with, so that cargo need not build the crate once more.
fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    if cfg!(feature = "axum") {
        features.push("axum");
    }
    if cfg!(feature = "redis") {
        features.push("redis");
    }
    if cfg!(feature = "redis-tls") {
        features.push("redis-tls");
    }
    if cfg!(feature = "sqlx-sqlite") {
        features.push("sqlx-sqlite");
    }
    if cfg!(feature = "sqlx-postgres") {
        features.push("sqlx-postgres");
    }
    features
}

async fn within<F: Future>(future: F) -> F::Output {
    let in_time = tokio::time::timeout(DEADLINE, future).await;
    in_time.expect("an answer within the deadline")
}

/// Runs an example that is expected to end by itself.
async fn run(name: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = command(name);
    command.envs(variables.iter().copied());
    let running = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output();
    // Some of them work for half a minute where nothing else does.
    let in_time = tokio::time::timeout(DEADLINE * 4, running).await;
    in_time.expect("its end within the deadline").unwrap()
}

#[cfg(all(feature = "axum", feature = "sqlx-sqlite"))]
mod service {
    use super::*;
    use crate::redis::TestRedis;

    const ADA: &str = r#"{"organization_id":299,"name":"Ada Byron","email":"ada@example.com"}"#;

    /// How many queries the figures count.
    fn queries(metrics: &str) -> u64 {
        let name = "keep_database_query_duration_seconds_count ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(name));
        count.expect("queries are counted").parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_answered_once_is_answered_from_memory() {
        let service = Example::start("service");
        let clock = Clock::system();
        let began = clock.now();
        let first = service.get("/reports/sales/7").await;
        first.assert_hit(false);
        assert!(clock.now().since(began) >= Duration::from_millis(150));
        let again = service.get("/reports/sales/7").await;
        again.assert_hit(true);
        assert_eq!(again.body, first.body);
        assert!(!first.json()["months"].as_array().unwrap().is_empty());

        for path in [
            "/contacts",
            "/contacts?page=2&q=ada",
            "/search?q=lovelace",
            "/organizations/7",
            "/contacts/7",
        ] {
            service.get(path).await.assert_hit(false);
            service.get(path).await.assert_hit(true);
        }
        let head = service.ask(Method::HEAD, "/contacts/7", &[], "").await;
        head.assert_hit(true);
        assert_eq!(head.body, "");
        assert_ne!(head.field("content-length"), "0");
    }

    #[tokio::test]
    async fn a_client_that_has_the_page_gets_304() {
        let service = Example::start("service");
        let page = service.get("/contacts/7").await;
        assert_eq!(page.field("etag"), "\"c7-v1\"");
        let had = [("if-none-match", "\"c7-v1\"")];
        let same = service.ask(Method::GET, "/contacts/7", &had, "").await;
        assert_eq!(same.status, StatusCode::NOT_MODIFIED);
        assert_eq!((same.field("etag"), &*same.body), ("\"c7-v1\"", ""));

        service.send(Method::PUT, "/contacts/7", ADA).await;
        let had = [("if-none-match", "\"c7-v1\"")];
        let changed = service.ask(Method::GET, "/contacts/7", &had, "").await;
        assert_eq!(changed.status, StatusCode::OK);
        assert_eq!(changed.field("etag"), "\"c7-v2\"");
    }

    #[tokio::test]
    async fn a_change_is_seen_at_once_wherever_it_shows() {
        let service = Example::start("service");
        let shows = [
            "/contacts/7",
            "/contacts/007",
            "/contacts",
            "/contacts?q=byron",
            "/search?q=byron",
            "/organizations/299",
            "/reports/sales/299",
        ];
        let shows_not = ["/contacts/8", "/organizations/7", "/reports/sales/7"];
        for path in shows.iter().chain(&shows_not) {
            service.get(path).await.assert_hit(false);
            service.get(path).await.assert_hit(true);
        }
        let changed = service.send(Method::PUT, "/contacts/7", ADA).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        for path in shows {
            let page = service.get(path).await;
            page.assert_hit(false);
            // A report names people only where they have an open deal.
            if !path.starts_with("/reports") {
                assert!(page.body.contains("Ada Byron"), "{path}: {}", page.body);
            }
        }
        for path in shows_not {
            service.get(path).await.assert_hit(true);
        }

        let grace = r#"{"organization_id":7,"name":"Grace Byron","email":"grace@example.com"}"#;
        let added = service.send(Method::POST, "/contacts", grace).await;
        assert_eq!(added.status, StatusCode::CREATED, "{added:?}");
        let path = added.field("location").to_owned();
        assert!(
            service
                .get("/search?q=byron")
                .await
                .body
                .contains("Grace Byron")
        );
        assert!(
            service
                .get("/organizations/7")
                .await
                .body
                .contains("Grace Byron")
        );
        assert!(service.get(&path).await.body.contains("Grace Byron"));

        let removed = service.send(Method::DELETE, &path, "").await;
        assert_eq!(removed.status, StatusCode::NO_CONTENT, "{removed:?}");
        service.get(&path).await.assert_problem(404);
        assert!(
            !service
                .get("/search?q=byron")
                .await
                .body
                .contains("Grace Byron")
        );
        assert!(
            !service
                .get("/organizations/7")
                .await
                .body
                .contains("Grace Byron")
        );
    }

    #[tokio::test]
    async fn a_refused_change_leaves_what_is_stored() {
        let service = Example::start("service");
        service.get("/contacts/7").await;
        let nobody = r#"{"organization_id":299,"name":"","email":"nobody"}"#;
        let refused = service.send(Method::PUT, "/contacts/7", nobody).await;
        refused.assert_problem(422);
        let fields: Vec<_> = refused.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["field"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(fields, ["name", "email"]);
        service.get("/contacts/7").await.assert_hit(true);
    }

    #[tokio::test]
    async fn the_sixth_login_is_refused_and_told_when_to_come_back() {
        let service = Example::start("service");
        let guess = r#"{"user":"eve","password":"guess"}"#;
        for _ in 0..5 {
            let wrong = service.send(Method::POST, "/login", guess).await;
            wrong.assert_problem(401);
        }
        let refused = service.send(Method::POST, "/login", guess).await;
        refused.assert_problem(429);
        let retry_after: u64 = refused.field("retry-after").parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{retry_after}");
        assert!(refused.field("ratelimit").contains("\"login\";r=0"));
        assert!(refused.field("ratelimit-policy").contains("\"login\";q=5"));
        assert!(refused.json()["type"].as_str().unwrap().contains("quota"));
        // The rest of the service is still there, for the same client.
        assert_eq!(service.get("/contacts/7").await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_used_up_quota_is_its_callers_alone() {
        let service = Example::start("service");
        for asked in 0..60 {
            let page = service.get_as("basic-key", "/contacts/7").await;
            assert_eq!(page.status, StatusCode::OK, "request {asked}: {page:?}");
        }
        // One a second grows back, so a slow machine may have to ask a few times more.
        let mut refused = service.get_as("basic-key", "/contacts/7").await;
        for _ in 0..1_000 {
            if refused.status != StatusCode::OK {
                break;
            }
            refused = service.get_as("basic-key", "/contacts/7").await;
        }
        refused.assert_problem(429);
        for key in ["premium-key", "admin-key", "no-such-key"] {
            let page = service.get_as(key, "/contacts/7").await;
            assert_eq!(page.status, StatusCode::OK, "{key}: {page:?}");
        }
        assert_eq!(service.get("/contacts/7").await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_answered_with_a_problem() {
        let service = Example::start("service");
        for (status, path) in [
            (400, "/contacts?page=0"),
            (400, "/contacts?page=two"),
            (400, "/contacts?page=-1"),
            (400, "/contacts/seven"),
            (400, "/contacts/99999999999999999999"),
            (400, "/organizations/%00"),
            (400, "/search?q=a"),
            (404, "/contacts/99999"),
            (404, "/organizations/0"),
            (404, "/reports/sales/501"),
            (404, "/nowhere"),
            (405, "/login"),
        ] {
            service.get(path).await.assert_problem(status);
        }
        let long = format!("/search?q={}", "x".repeat(101));
        service.get(&long).await.assert_problem(400);
        let large = "x".repeat(20_000);
        for (status, body) in [
            (422, "{"),
            (422, "{}"),
            (
                422,
                r#"{"organization_id":"seven","name":"A","email":"a@b.c"}"#,
            ),
            (422, r#"{"organization_id":501,"name":"A","email":"a@b.c"}"#),
            (
                422,
                r#"{"organization_id":1,"name":"A","email":"a@b.c","x":1}"#,
            ),
            (413, &*large),
        ] {
            let answer = service.send(Method::POST, "/contacts", body).await;
            answer.assert_problem(status);
        }
        let text = service.ask(Method::POST, "/contacts", &[], ADA).await;
        text.assert_problem(415);
        // `%` and `_` are letters here, not wildcards.
        for path in ["/contacts?q=%25", "/contacts?q=_"] {
            assert_eq!(service.get(path).await.json()["total"], 0, "{path}");
        }
    }

    #[tokio::test]
    async fn the_operator_sees_health_and_figures() {
        let service = Example::start("service");
        for path in ["/alive", "/ready", "/health"] {
            let probe = service.get(path).await;
            assert_eq!(probe.status, StatusCode::OK, "{path}: {probe:?}");
        }
        service.get("/contacts/7").await;
        service.get("/contacts/8").await;
        service.get("/nowhere").await;
        let metrics = service.get("/metrics").await.body;
        let counted = |route: &str| {
            let label = format!("route=\"{route}\"");
            metrics.lines().any(|line| line.contains(&label))
        };
        assert!(counted("/contacts/{id}"), "{metrics}");
        assert!(counted("unmatched"), "{metrics}");
        assert!(!metrics.contains("/contacts/7"), "{metrics}");
        assert_eq!(queries(&metrics), 2, "{metrics}");
    }

    #[tokio::test]
    async fn redis_may_come_and_go_while_it_answers() {
        let redis = TestRedis::start();
        let token = "of-the-operator-0123456789";
        let variables = [("REDIS_URL", &*redis.url()), ("KEEP_ADMIN_TOKEN", token)];
        let service = Example::start_with("service", &variables);
        let operator = [("authorization", &*format!("Bearer {token}"))];
        let told = async |status: &str, words: &str| {
            let looks = async {
                loop {
                    let path = "/admin/health/detailed";
                    let health = service.ask(Method::GET, path, &operator, "").await;
                    assert_eq!(health.status, StatusCode::OK);
                    let redis = &health.json()["components"]["redis"];
                    let detail = redis["detail"].as_str().unwrap();
                    if redis["status"] == status && detail.starts_with(words) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            within(looks).await;
        };
        let visited = async || {
            let count = service.get("/visits").await.json();
            let by = count["counted_by"].as_str().unwrap().to_owned();
            (count["visits"].as_u64().unwrap(), by)
        };
        told("healthy", "up: redis ").await;
        assert_eq!(visited().await, (1, "redis".to_owned()));
        assert_eq!(visited().await, (2, "redis".to_owned()));
        service.get("/contacts/7").await.assert_hit(false);

        redis.kill();
        told("degraded", "down: ").await;
        assert_eq!(visited().await, (3, "this instance".to_owned()));
        // What another instance may change meanwhile nobody would hear of here.
        service.get("/contacts/7").await.assert_hit(false);
        let changed = service.send(Method::PUT, "/contacts/7", ADA).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        service.get("/contacts/7").await.assert_hit(false);
        assert_eq!(service.get("/ready").await.status, StatusCode::OK);

        redis.restart();
        told("healthy", "up: redis ").await;
        let served_from_memory = async {
            while !service.get("/contacts/7").await.is_hit() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(served_from_memory).await;
        assert_eq!(visited().await, (1, "redis".to_owned()));
        let metrics = service.get("/metrics").await.body;
        for line in ["keep_redis_up 1", "keep_redis_connections 1"] {
            assert!(metrics.lines().any(|found| found == line), "{metrics}");
        }
    }

    /// Two processes at one Redis, and what has passed there by whom.
    struct Pair {
        redis: TestRedis,
        both: [Example; 2],
    }

    impl Pair {
        async fn start() -> Self {
            let redis = TestRedis::start();
            let url = redis.url();
            let variables = [("REDIS_URL", &*url), ("KEEP_RATE_LIMIT_INSTANCES", "2")];
            let both = [(); 2].map(|()| Example::start_with("service", &variables));
            let pair = Self { redis, both };
            pair.counts_together().await;
            pair
        }

        async fn says(&self, status: &str) {
            let look = async {
                for service in &self.both {
                    loop {
                        let health = service.get("/health").await.json();
                        if health["components"]["redis"]["status"] == status {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            };
            within(look).await;
        }

        async fn counts_together(&self) {
            self.says("healthy").await;
            let mut raw = self.redis.raw();
            let announced = async {
                while raw.must(&["ZCARD", "keep:rl:instances"]).integer() < 2 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            within(announced).await;
            // What each does once it was answered, and the second in which debts are told: nothing outside
            // says when that is over.
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }

        /// How many of so many requests with this key pass, asked of both in turn. Everybody else is refused.
        async fn passes(&self, key: &str, count: usize) -> u64 {
            let mut passed = 0;
            for n in 0..count {
                let answer = self.both[n % 2].get_as(key, "/contacts/7").await;
                match answer.status {
                    StatusCode::OK => passed += 1,
                    StatusCode::TOO_MANY_REQUESTS => answer.assert_problem(429),
                    other => panic!("{other}"),
                }
            }
            passed
        }
    }

    /// What `examples/service/fleet.sh` shows.
    #[tokio::test]
    async fn two_processes_share_the_quotas_of_a_tier_also_while_redis_is_gone() {
        let pair = Pair::start().await;
        let tiers = [("basic-key", 60), ("premium-key", 600)];
        let clock = Clock::system();
        let began = clock.now();
        // So much of a minute's quota has grown back, and each may not have heard of the other's last one.
        let grown = |quota: u64| {
            let millis = clock.now().since(began).as_millis();
            2 + quota * u64::try_from(millis).unwrap() / 60_000
        };
        let mut all = [0, 0];
        for ((key, quota), all) in tiers.iter().zip(&mut all) {
            *all = pair.passes(key, *quota as usize * 3 / 2).await;
            assert!(
                (*quota..=quota + grown(*quota)).contains(all),
                "{key}: {all}"
            );
        }
        pair.redis.kill();
        pair.says("degraded").await;
        for ((key, quota), all) in tiers.iter().zip(&mut all) {
            *all += pair.passes(key, 60).await;
            assert!(*all <= quota + grown(*quota), "{key}: {all}");
        }
        // Who comes for the first time has a half with each.
        let new = pair.passes("no-key", 360).await;
        assert!((300..=300 + grown(300)).contains(&new), "{new}");
        pair.redis.restart();
        pair.counts_together().await;
        for ((key, quota), all) in tiers.iter().zip(&mut all) {
            *all += pair.passes(key, 60).await;
            assert!(*all <= quota + grown(*quota), "{key}: {all}");
        }
    }

    /// What `examples/service/pair.sh` shows, for fewer rounds.
    #[tokio::test]
    async fn what_was_changed_through_one_process_is_never_read_old_through_the_other() {
        let redis = TestRedis::start();
        let (url, folder) = (redis.url(), folder());
        let database = folder.join("shared.sqlite").display().to_string();
        let variables = [
            ("REDIS_URL", &*url),
            ("DATABASE_PATH", &*database),
            ("KEEP_RATE_LIMIT_ENABLED", "false"),
            // Until the machine gets round to it.
            ("KEEP_JOURNAL_ACKNOWLEDGE_MS", "20000"),
        ];
        let [one, two] = [(); 2].map(|()| Example::start_with("service", &variables));
        for service in [&one, &two] {
            let hears = async {
                loop {
                    let health = service.get("/health").await.json();
                    if health["components"]["invalidation"]["status"] == "healthy" {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            within(hears).await;
        }
        let mut command = command("read_your_writes");
        command.args(["--rounds", "150", &one.site, &two.site]);
        let running = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output();
        let output = within(running).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("150 writes, 600 reads"), "{said}");
        assert!(said.contains("old values served: 0"), "{said}");
    }

    #[tokio::test]
    async fn asked_to_stop_it_finishes_what_is_under_way_and_leaves_nothing_behind() {
        let mut service = Example::start("service");
        let folder = service.folder.clone();
        let files = || std::fs::read_dir(&folder).unwrap().count();
        assert!(files() > 0);
        // Once its query is counted, the report has 150 ms of waiting ahead.
        let (report, ()) = tokio::join!(service.get("/reports/sales/7"), async {
            let began = async { while queries(&service.get("/metrics").await.body) == 0 {} };
            within(began).await;
            service.terminate();
        });
        assert_eq!(report.status, StatusCode::OK);
        assert!(service.ended().await.success());
        assert_eq!(files(), 0);
    }

    /// A stream that is cut off has no end of its own; one that would go on is, when the service's patience ends.
    #[tokio::test]
    async fn an_open_dashboard_does_not_hold_up_the_end() {
        let token = "of-the-operator-0123456789";
        let mut service = Example::start_with("service", &[("KEEP_ADMIN_TOKEN", token)]);
        let place = service.site.trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(&place).await.unwrap();
        let request = format!(
            "GET /admin/dashboard/events HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let begun = async {
            while !String::from_utf8_lossy(&heard).contains("data: ") {
                assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
            }
        };
        within(begun).await;
        service.terminate();
        within(stream.read_to_end(&mut heard)).await.unwrap();
        assert!(heard.ends_with(b"0\r\n\r\n"), "{}", heard.escape_ascii());
        assert!(service.ended().await.success());
    }

    #[tokio::test]
    async fn what_is_configured_wrongly_is_named_before_anything_runs() {
        for (name, value) in [
            ("PORT", "many"),
            // Reserved for documentation (RFC 5737), so no machine has it.
            ("HOST", "192.0.2.1"),
            ("RATE_LIMIT_MAX_REQUESTS", "none"),
            ("CACHE_MAX_SIZE_MB", "-1"),
        ] {
            let output = run("service", &[(name, value)]).await;
            assert!(!output.status.success(), "{name}");
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains(name) && told.contains(value), "{told}");
        }
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn minimal_caches_its_slow_page() {
    let minimal = Example::start("minimal");
    minimal.get("/slow").await.assert_hit(false);
    minimal.get("/slow").await.assert_hit(true);
}

#[tokio::test]
async fn hyper_service_has_the_same_layers_without_axum() {
    let mut service = Example::start("hyper_service");
    let first = service.get("/primes/1000").await;
    first.assert_hit(false);
    assert_eq!(first.body, "prime 1000 is 7919\n");
    let again = service.get("/primes/1000").await;
    again.assert_hit(true);
    assert!(again.headers.contains_key("ratelimit"), "{again:?}");
    assert_eq!(service.get("/primes/0").await.status, 400);
    assert_eq!(service.get("/").await.status, 404);
    let post = service.send(Method::POST, "/primes/9", "{}").await;
    assert_eq!(post.status, 405);
    let id = service.process.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    assert!(service.ended().await.success());
}

/// What an example that has ended well has said, without how long things took.
fn said(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let without_times = |line: &str| line.split(" in ").next().map(str::to_owned);
    text.lines().filter_map(without_times).collect()
}

const TYPED_CACHE: [&str; 8] = [
    "again: sales of 7000",
    "purged by its key: 1 computed",
    "purged by its tag: 1 computed",
    "two tenants: a value for each true",
    "one has purged: it has a value false, the other true",
    "expired: still served true",
    "a moment later there is a new one",
    "of the weeks 1 to 5 there are [1, 2, 3]",
];

#[tokio::test]
async fn typed_cache_shows_what_becomes_of_values_and_ends() {
    let told = said(&run("typed_cache", &[]).await);
    assert_eq!(told[0], "100 callers at once: 1 computed");
    assert_eq!(told[1..9], TYPED_CACHE);
    assert!(told[9].starts_with("in all: "), "{told:?}");
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn typed_cache_finds_in_redis_what_an_earlier_run_has_computed() {
    let redis = crate::redis::TestRedis::start();
    let variables = [("REDIS_URL", &*redis.url())];
    for computed in ["1 computed", "0 computed"] {
        let told = said(&run("typed_cache", &variables).await);
        assert_eq!(told[0], format!("100 callers at once: {computed}"));
        assert_eq!(told[1..9], TYPED_CACHE);
    }
}

/// What stands behind the proxy: answers each request on a connection of its own with what it was, and how many
/// there were before it.
async fn origin(listener: TcpListener) {
    for count in 0.. {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            if read == 0 {
                break;
            }
            asked.extend_from_slice(&bytes[..read]);
        }
        let line = String::from_utf8_lossy(&asked);
        let line = line.lines().next().unwrap_or_default().to_owned();
        if line.contains("/broken") {
            continue;
        }
        let status = if line.contains("/strange") { 799 } else { 200 };
        let body = format!("{count} {line}");
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncache-control: max-age=60\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\
             x-kept: 1\r\nx-kept: 2\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn cache_proxy_is_a_cache_before_any_origin_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let origin = tokio::spawn(origin(listener));
    let mut command = command("cache_proxy");
    command.args(["--listen", "127.0.0.1:0", "--origin", &address]);
    let proxy = Example::started(command);

    let first = proxy.get("/a?b=1").await;
    assert_eq!(first.body, "0 GET /a?b=1 HTTP/1.1");
    assert!(!first.headers.contains_key("x-hop"), "{first:?}");
    assert_eq!(first.headers.get_all("x-kept").iter().count(), 2);
    let again = proxy.get("/a?b=1").await;
    again.assert_hit(true);
    assert_eq!(again.body, first.body);
    let part = [("range", "bytes=2-4")];
    let part = proxy.ask(Method::GET, "/a?b=1", &part, "").await;
    assert_eq!(
        (part.status, &*part.body),
        (StatusCode::PARTIAL_CONTENT, "GET")
    );

    let strange = Method::from_bytes(b"FROBNICATE").unwrap();
    let strange = proxy.ask(strange, "/strange", &[], "").await;
    assert_eq!(strange.status.as_u16(), 799);
    assert_eq!(strange.body, "1 FROBNICATE /strange HTTP/1.1");

    assert_eq!(proxy.get("/broken").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(
        proxy.get("/c").await.body,
        "3 GET /c HTTP/1.1",
        "asked once"
    );
    origin.abort();
    assert!(origin.await.is_err());
    assert_eq!(proxy.get("/d").await.status, StatusCode::BAD_GATEWAY);
    proxy.get("/a?b=1").await.assert_hit(true);
}

/// Runs an example to its end and returns what it has said.
async fn told(name: &str, arguments: &[&str]) -> String {
    let mut command = command(name);
    command.args(arguments);
    let running = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output();
    let output = within(running).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its figures are for a quiet machine; here only that it measures.
#[tokio::test]
async fn overload_loads_what_is_guarded_and_what_is_not_and_prints_its_tables() {
    let told = told("overload", &["--quick"]).await;
    let (_, tables) = told.split_once("\nGOODPUT").expect("the first table");
    for table in ["CRITICAL", "RECOVERY", "REFUSAL", "the driver sent"] {
        assert!(tables.contains(table), "no {table}: {told}");
    }
    for variant in ["axum", "guard"] {
        let row = |load: &str| {
            let mut rows = tables.lines().map(|line| line.split_whitespace());
            rows.find_map(|mut row| {
                let is_it = row.next() == Some(variant) && row.next() == Some(load);
                is_it.then(|| row.next().unwrap().parse::<f64>().unwrap())
            })
        };
        // How many answers a second were good where not more was asked than can be answered.
        assert!(row("0.8x").expect("a row") > 0.0, "{variant}: {told}");
        for load in ["2x", "10x"] {
            assert!(row(load).is_some(), "{variant} at {load}: {told}");
        }
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn soak_floods_the_service_and_says_how_it_went() {
    // It finds the service beside itself.
    built("service");
    let told = told("soak", &["--seconds", "5"]).await;
    for part in [
        "memory: at most ",
        "levels:",
        "relief:",
        "end: exit status: 0",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
    let requests = told.lines().find(|line| line.starts_with("requests: "));
    let requests = requests.expect("what became of the requests");
    assert!(!requests.contains(" 0 answered"), "{told}");
    assert!(
        told.ends_with("the service has lived through it\n"),
        "{told}"
    );
}

#[tokio::test]
async fn cache_proxy_says_what_it_wants() {
    for arguments in [
        &[][..],
        &["--listen"],
        &["--listen", "x", "--origin", "y"],
        &["--x", "y"],
    ] {
        let mut command = command("cache_proxy");
        let output = command.args(arguments).output().unwrap();
        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            told.contains("--listen") && told.contains("--origin"),
            "{told}"
        );
    }
}
