//! The HTTP cache over Redis and a cold store: two instances of a service.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_keep::cache::{Cache, CacheConfig, CacheLayer, CacheParts, CacheTags};
use tower_keep::event::Events;
use tower_keep::journal::{Marker, Record};
use tower_keep::metrics::{Metrics, MetricsConfig};
use tower_keep::tiers::MemoryCold;

use crate::redis::TestRedis;
use crate::store::until;
use crate::tiers_room::{Instance, Plan};

/// One instance with its cache, before a service that says how often it was asked.
struct Node {
    instance: Instance,
    cache: Cache,
    metrics: Metrics,
    asked: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: String,
}

impl Answer {
    fn says(&self) -> &str {
        self.fields["cache-status"].to_str().unwrap()
    }
}

impl Node {
    async fn start(plan: &Plan, asked: &Arc<AtomicU64>) -> Self {
        let instance = plan.start().await;
        let metrics = Metrics::new(&MetricsConfig::default(), instance.clock.clone()).unwrap();
        let parts = CacheParts {
            journal: instance.journal.clone(),
            clock: instance.clock.clone(),
            events: Events::to(vec![Arc::new(metrics.clone())]),
            spawner: Some(instance.tasks.spawner()),
            tiers: Some(instance.tiers.clone()),
        };
        Self {
            cache: Cache::new(&CacheConfig::default(), parts).unwrap(),
            instance,
            metrics,
            asked: Arc::clone(asked),
        }
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let asked = Arc::clone(&self.asked);
        let origin = tower::service_fn(move |request: Request<()>| {
            let asked = Arc::clone(&asked);
            async move { Ok::<_, Infallible>(origin(&request, &asked).await) }
        });
        let mut service = CacheLayer::new(self.cache.clone()).layer(origin);
        let mut request = Request::get(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            fields: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Whether Redis has so many entries.
    async fn redis_has(server: &TestRedis, entries: i64) {
        until("the answers are written", || {
            let keys = server.raw().must(&["KEYS", "keep:v:*#*}"]);
            keys.array().len() as i64 == entries
        })
        .await;
    }
}

async fn origin(request: &Request<()>, asked: &AtomicU64) -> Response<Full<Bytes>> {
    let nth = asked.fetch_add(1, Ordering::SeqCst) + 1;
    let language = request.headers().get("accept-language");
    let language = language
        .map_or("none", |value| value.to_str().unwrap())
        .to_owned();
    let path = request.uri().path();
    let mut response = Response::builder().header("cache-control", "max-age=60");
    match path {
        "/varied" => response = response.header("vary", "accept-language"),
        "/never" => return no_store(),
        "/slow" => tokio::time::sleep(Duration::from_millis(100)).await,
        "/large" => {
            let body = "x".repeat(2 << 20);
            return response.body(Full::from(body)).unwrap();
        }
        "/stale" => {
            if request
                .headers()
                .get("if-none-match")
                .is_some_and(|tag| tag == "\"1\"")
            {
                let unchanged = Response::builder().status(304).header("etag", "\"1\"");
                let fresh = unchanged.header("cache-control", "max-age=60");
                return fresh.body(Full::default()).unwrap();
            }
            response = Response::builder()
                .header("cache-control", "max-age=0, must-revalidate")
                .header("etag", "\"1\"");
        }
        _ => {}
    }
    response
        .header("x-made-by", format!("{nth}"))
        .extension(CacheTags::new(["all"]))
        .body(Full::from(format!("{path} {language} {nth}")))
        .unwrap()
}

fn no_store() -> Response<Full<Bytes>> {
    let response = Response::builder().header("cache-control", "no-store");
    response.body(Full::default()).unwrap()
}

async fn two(plan: &Plan) -> (Node, Node, Arc<AtomicU64>) {
    let asked = Arc::default();
    let (one, other) = (
        Node::start(plan, &asked).await,
        Node::start(plan, &asked).await,
    );
    (one, other, asked)
}

#[tokio::test]
async fn what_one_instance_has_fetched_the_other_finds() {
    let server = TestRedis::start();
    let (one, other, asked) = two(&Plan::redis(&server.url())).await;
    let first = one.get("/page", &[]).await;
    assert_eq!(first.says(), "keep; fwd=uri-miss; stored");
    Node::redis_has(&server, 1).await;
    let second = other.get("/page", &[]).await;
    assert_eq!(
        (second.status, &*second.body),
        (StatusCode::OK, "/page none 1")
    );
    assert_eq!(second.says(), "keep; hit");
    assert_eq!(second.fields["x-made-by"], "1");
    assert!(second.fields.contains_key("date") && second.fields.contains_key("age"));
    // From then on it is in memory.
    assert_eq!(other.get("/page", &[]).await.says(), "keep; hit");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// What is found behind memory is stored in memory, like the answer to a miss, and is none.
#[tokio::test]
async fn what_is_found_behind_memory_is_a_hit_whatever_else_is_forwarded() {
    let server = TestRedis::start();
    let (one, other, _) = two(&Plan::redis(&server.url())).await;
    for page in 0..5 {
        one.get(&format!("/{page}"), &[]).await;
    }
    Node::redis_has(&server, 5).await;
    for page in 0..5 {
        other.get(&format!("/{page}"), &[]).await;
        other.get("/never", &[]).await;
    }
    let counted = |node: &Node| node.metrics.snapshot().cache;
    let (first, second) = (counted(&one), counted(&other));
    assert_eq!((first.served(), first.missed()), (0, 5));
    assert_eq!((second.served(), second.missed()), (5, 0));
    assert_eq!((second.stored, second.forwards["uri-miss"]), (5, 5));
}

#[tokio::test]
async fn what_is_purged_is_fetched_anew_by_all() {
    let server = TestRedis::start();
    let (one, other, asked) = two(&Plan::redis(&server.url())).await;
    one.get("/page", &[]).await;
    Node::redis_has(&server, 1).await;
    other.get("/page", &[]).await;
    for (purge, marker) in [Marker::tag("all"), Marker::key("/page")]
        .into_iter()
        .enumerate()
    {
        one.instance
            .journal
            .append(Record::of([marker]))
            .await
            .unwrap();
        let nth = asked.load(Ordering::SeqCst) + 1;
        let answers = [other.get("/page", &[]).await, one.get("/page", &[]).await];
        assert_eq!(answers[0].body, format!("/page none {nth}"), "{purge}");
        // The second may come before the first is written, and waits for it then.
        assert_eq!(answers[1].body, answers[0].body, "{purge}");
    }
}

#[tokio::test]
async fn variants_are_found_by_the_fields_they_differ_by() {
    let server = TestRedis::start();
    let (one, other, asked) = two(&Plan::redis(&server.url())).await;
    for language in ["de", "en"] {
        one.get("/varied", &[("accept-language", language)]).await;
    }
    Node::redis_has(&server, 3).await;
    for (language, nth) in [("en", 2), ("de", 1), ("EN", 2)] {
        let answer = other.get("/varied", &[("accept-language", language)]).await;
        let expected = format!("/varied {} {nth}", language.to_lowercase());
        assert_eq!(answer.body, expected);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let third = other.get("/varied", &[("accept-language", "fr")]).await;
    assert_eq!(third.body, "/varied fr 3");
}

#[tokio::test]
async fn of_all_instances_one_asks_the_service() {
    let server = TestRedis::start();
    let (one, other, asked) = two(&Plan::redis(&server.url())).await;
    let each = (0..100).map(|n| if n % 2 == 0 { &one } else { &other });
    let answers = futures_util::future::join_all(each.map(|node| node.get("/slow", &[]))).await;
    assert!(answers.iter().all(|answer| answer.body == "/slow none 1"));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_too_large_for_redis_is_kept_in_memory_only() {
    let server = TestRedis::start();
    let (one, other, asked) = two(&Plan::redis(&server.url())).await;
    one.get("/large", &[]).await;
    one.get("/page", &[]).await;
    Node::redis_has(&server, 1).await;
    assert_eq!(one.get("/large", &[]).await.says(), "keep; hit");
    assert_eq!(
        other.get("/large", &[]).await.says(),
        "keep; fwd=uri-miss; stored"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_stale_in_redis_is_confirmed_by_the_service() {
    let server = TestRedis::start();
    let (one, other, asked) = two(&Plan::redis(&server.url())).await;
    one.get("/stale", &[]).await;
    Node::redis_has(&server, 1).await;
    let confirmed = other.get("/stale", &[]).await;
    assert_eq!(confirmed.body, "/stale none 1", "the content of the first");
    assert!(
        confirmed.says().contains("fwd-status=304"),
        "{}",
        confirmed.says()
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn redis_away_means_that_each_instance_asks_and_a_cold_store_helps() {
    let server = TestRedis::start();
    let mut plan = Plan::redis(&server.url());
    plan.journal.max_unverified = Duration::from_secs(60);
    let cold = Arc::new(MemoryCold::new(1 << 20));
    plan.cold = Some(Arc::<MemoryCold>::clone(&cold));
    let (one, other, asked) = two(&plan).await;
    one.get("/page", &[]).await;
    until("it is written behind", || !cold.is_empty()).await;
    server.kill();
    until("its end is noticed", || {
        !other.instance.pool.status().is_up()
    })
    .await;
    let answer = other.get("/page", &[]).await;
    assert_eq!(
        (&*answer.body, answer.says()),
        ("/page none 1", "keep; hit")
    );
    assert_eq!(other.get("/other", &[]).await.body, "/other none 2");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
