//! What the journal says of stored answers, and what the cache makes of it: expired, gone, not yet settled, not
//! known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get as route;
use bytes::Bytes;
use http::{Request, StatusCode};
use tower::{Layer, ServiceExt};
use tower_keep::cache::{CacheLayer, HTTP_NAMESPACE, KeyPart};
use tower_keep::event::Events;
use tower_keep::invalidation::{InvalidationConfig, Invalidator};
use tower_keep::journal::JournalStatus;
use tower_keep::{Keep, Profile};

use crate::cache_room::{Cached, Room, answer, ask, empty, get, get_with, room, settle, text};
use crate::redis::TestRedis;
use crate::store::until;

fn invalidator(room: &Room) -> Invalidator {
    let config = InvalidationConfig::default();
    Invalidator::new(&config, &[], room.cache.journal().clone(), Events::none()).unwrap()
}

/// A service whose answers are counted, with these terms.
fn counting(room: &Room, terms: &'static str) -> Cached {
    let count = AtomicUsize::new(0);
    room.answering(move |request| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let unchanged = request.headers().contains_key("if-none-match");
        let fields = [("cache-control", terms), ("etag", "\"v\"")];
        match request.uri().path() {
            "/same" if unchanged => {
                let mut response = answer(&fields, empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            "/fails" if n > 0 => {
                let mut response = answer(&[], empty());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
            _ => text(&fields, n.to_string()),
        }
    })
}

#[tokio::test]
async fn what_is_expired_is_served_stale_while_it_is_fetched_anew() {
    let room = room();
    let service = counting(&room, "max-age=60, stale-while-revalidate=30");
    assert_eq!(ask(&service, get("/a")).await.text(), "0");
    drop(invalidator(&room).expire("/a"));
    let stale = ask(&service, get("/a")).await;
    assert_eq!(
        (stale.text(), stale.said()),
        ("0", "hit; detail=stale-while-revalidate")
    );
    settle().await;
    let fresh = ask(&service, get("/a")).await;
    assert_eq!((fresh.text(), fresh.said()), ("1", "hit"));
}

#[tokio::test]
async fn what_is_expired_and_must_not_be_served_stale_is_asked_about() {
    let room = room();
    let service = counting(&room, "max-age=60");
    assert_eq!(ask(&service, get("/same")).await.text(), "0");
    drop(invalidator(&room).softly().purge_path("/same"));
    let confirmed = ask(&service, get("/same")).await;
    assert_eq!(confirmed.text(), "0", "{confirmed:?}");
    assert!(
        confirmed.said().starts_with("fwd=stale; fwd-status=304"),
        "{confirmed:?}"
    );
    let again = ask(&service, get("/same")).await;
    assert_eq!(
        (again.text(), again.said()),
        ("0", "hit"),
        "its life began anew"
    );
}

#[tokio::test]
async fn what_is_expired_stands_in_for_a_service_that_fails_and_what_is_purged_never_does() {
    let terms = "max-age=60, stale-if-error=600";
    for (soft, status) in [
        (true, StatusCode::OK),
        (false, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let room = room();
        let service = counting(&room, terms);
        ask(&service, get("/fails")).await;
        let invalidator = invalidator(&room);
        let invalidator = if soft {
            invalidator.softly()
        } else {
            invalidator
        };
        drop(invalidator.purge("/fails"));
        assert_eq!(
            ask(&service, get("/fails")).await.status,
            status,
            "softly: {soft}"
        );
    }
}

#[tokio::test]
async fn a_purge_of_the_namespace_or_of_everything_reaches_all_answers() {
    let room = room();
    let service = counting(&room, "max-age=60");
    let invalidator = invalidator(&room);
    for purge in [
        |this: &Invalidator| this.purge_namespace(HTTP_NAMESPACE),
        |this: &Invalidator| this.purge_everything(),
    ] {
        ask(&service, get("/a")).await;
        assert_eq!(ask(&service, get("/a")).await.said(), "hit");
        drop(invalidator.purge_namespace("another"));
        assert_eq!(ask(&service, get("/a")).await.said(), "hit");
        drop(purge(&invalidator));
        assert_eq!(
            ask(&service, get("/a")).await.said(),
            "fwd=uri-miss; stored"
        );
    }
}

#[tokio::test]
async fn one_tenant_s_answers_go_and_another_s_stay() {
    let room = room();
    let inner = room.answering(|_| text(&[("cache-control", "max-age=60")], "x"));
    let part = KeyPart::new(|request| {
        let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
        Some(tenant.into())
    });
    let service =
        CacheLayer::new(room.cache.clone().with_key_part(part)).layer(inner.inner().clone());
    let asked = async |tenant: &str| {
        let seen = ask(&service, get_with("/a", &[("x-tenant", tenant)])).await;
        seen.said().starts_with("hit")
    };
    let invalidator = invalidator(&room);
    for purge in [
        |this: &Invalidator| this.purge_tenant("acme"),
        |this: &Invalidator| this.for_tenant("acme").purge("/a"),
        |this: &Invalidator| this.for_tenant("acme").purge_everything(),
    ] {
        for tenant in ["acme", "zeta"] {
            asked(tenant).await;
            assert!(asked(tenant).await);
        }
        drop(purge(&invalidator));
        assert!(asked("zeta").await);
        assert!(!asked("acme").await);
    }
}

#[tokio::test]
async fn what_a_lagging_replica_may_have_supplied_is_not_stored() {
    let room = room();
    let service = counting(&room, "max-age=600");
    let invalidator = invalidator(&room).settling(Duration::from_secs(5));
    ask(&service, get("/a")).await;
    drop(invalidator.purge("/a"));
    for _ in 0..2 {
        let seen = ask(&service, get("/a")).await;
        assert!(!seen.said().contains("stored"), "{seen:?}");
        assert_eq!(ask(&service, get("/b")).await.status, StatusCode::OK);
    }
    assert_eq!(
        ask(&service, get("/b")).await.said(),
        "hit",
        "which was not named"
    );
    room.pass_secs(6);
    assert_eq!(
        ask(&service, get("/a")).await.said(),
        "fwd=uri-miss; stored"
    );
    assert_eq!(ask(&service, get("/a")).await.said(), "hit");
}

/// A stack with Redis before a service that counts.
fn stack(redis: &TestRedis, calls: &Arc<AtomicUsize>) -> (Keep, Router) {
    let keep = Keep::builder(Profile::azure_b1())
        .redis(|settings| {
            settings.url = Some(redis.url());
            settings.command_timeout = Duration::from_secs(2);
        })
        .rate_limit(|limits| limits.enabled = false)
        .build()
        .unwrap();
    let calls = Arc::clone(calls);
    let page = move || async move {
        calls.fetch_add(1, Ordering::SeqCst);
        ([("cache-control", "max-age=600")], "page")
    };
    let app = Router::new().route("/", route(page)).layer(keep.layer());
    (keep, app)
}

async fn hit(app: &Router) -> bool {
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let said = response.headers()["cache-status"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), Bytes::from_static(b"page"));
    said.contains("; hit")
}

#[tokio::test]
async fn a_lost_connection_does_not_cost_what_is_stored() {
    let (redis, calls) = (TestRedis::start(), Arc::default());
    let (keep, app) = stack(&redis, &calls);
    let verified = || keep.journal().status() == JournalStatus::Verified;
    until("it is verified", verified).await;
    assert!(!hit(&app).await);
    for _ in 0..10 {
        redis.raw().command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        redis.raw().command(&["CLIENT", "KILL", "TYPE", "normal"]);
        until("it has noticed", || !verified()).await;
        until("redis is back", || keep.redis().status().is_up()).await;
        // Whether what is stored still holds is not known yet, and soon will be.
        assert!(hit(&app).await);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn while_redis_is_away_nothing_is_served_from_memory_and_nothing_waits() {
    let (redis, calls) = (TestRedis::start(), Arc::default());
    let (keep, app) = stack(&redis, &calls);
    let verified = || keep.journal().status() == JournalStatus::Verified;
    until("it is verified", verified).await;
    assert!(!hit(&app).await);
    assert!(hit(&app).await);
    redis.kill();
    until("it has noticed", || !verified()).await;
    for _ in 0..3 {
        assert!(!hit(&app).await);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}
