//! What counts as a hit of the cache, and what as a miss.

use std::sync::Arc;

use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::metrics::{CacheTotals, Metrics, MetricsConfig};

use crate::cache_room::{
    Room, answer, ask, get, get_with, piped, request, room_heard_by, send, settle, text,
};

const FOR_A_WHILE: (&str, &str) = (
    "cache-control",
    "max-age=10, stale-while-revalidate=10, stale-if-error=100",
);

/// A cache, and who counts what it tells.
fn counted_room() -> (Room, Metrics) {
    let metrics = Metrics::new(&MetricsConfig::default(), Clock::manual().0).unwrap();
    let events = Events::to(vec![Arc::new(metrics.clone())]);
    (room_heard_by(events, |_| {}), metrics)
}

/// Served, missed for want of anything, and missed because it was too old.
fn outcomes(metrics: &Metrics) -> (u64, u64, u64) {
    let cache: CacheTotals = metrics.snapshot().cache;
    assert_eq!(cache.missed(), cache.misses + cache.stale_misses);
    (cache.served(), cache.misses, cache.stale_misses)
}

/// Once all that is forwarded and all that is stored were taken together for misses, whosever they were.
#[tokio::test]
async fn a_miss_is_counted_where_it_is_known() {
    let (room, metrics) = counted_room();
    let service = room.answering(|request| match request.uri().path() {
        "/never" => text(&[("cache-control", "no-store")], "x"),
        "/posted" => text(&[FOR_A_WHILE, ("content-location", "/posted")], "x"),
        _ => text(&[FOR_A_WHILE], "x"),
    });
    for _ in 0..3 {
        ask(&service, get("/never")).await;
    }
    assert_eq!(outcomes(&metrics), (0, 0, 0), "may not be stored");
    assert_eq!(
        ask(&service, get("/a")).await.said(),
        "fwd=uri-miss; stored"
    );
    assert_eq!(outcomes(&metrics), (0, 1, 0));
    room.pass_secs(15);
    ask(&service, get("/a")).await;
    settle().await;
    assert_eq!(service.inner().calls(), 5);
    assert_eq!(outcomes(&metrics), (1, 1, 0), "refreshed in the background");
    let anew = get_with("/a", &[("cache-control", "no-cache")]);
    assert_eq!(ask(&service, anew).await.said(), "fwd=request; stored");
    let posted = ask(&service, request("POST", "/posted", &[])).await;
    assert_eq!(posted.said(), "fwd=method; stored");
    assert_eq!(outcomes(&metrics), (1, 1, 0), "nothing could have answered");
    room.pass_secs(25);
    assert_eq!(ask(&service, get("/a")).await.said(), "fwd=stale; stored");
    assert_eq!(outcomes(&metrics), (1, 1, 1), "and not as stored once more");
    assert_eq!(metrics.snapshot().cache.stored, 5);
}

#[tokio::test]
async fn a_part_and_another_variant_are_missed_and_what_breaks_off_is_as_well() {
    let (room, metrics) = counted_room();
    let service = room.answering(|request| match request.uri().path() {
        "/varied" => text(&[FOR_A_WHILE, ("vary", "accept-language")], "x"),
        _ => {
            let (pipe, body) = piped();
            pipe.break_off();
            answer(&[FOR_A_WHILE], body)
        }
    });
    for language in ["de", "en", "de"] {
        let of_it = get_with("/varied", &[("accept-language", language)]);
        ask(&service, of_it).await;
    }
    assert_eq!(outcomes(&metrics), (1, 2, 0));
    for _ in 0..2 {
        drop(send(&service, get("/broken")).await.unwrap());
    }
    assert_eq!(outcomes(&metrics), (1, 4, 0));
}

#[tokio::test]
async fn what_stands_in_for_an_error_is_missed_once() {
    let (room, metrics) = counted_room();
    let service = room.answering(|request| {
        if request.headers().contains_key("x-fail") {
            let mut failed = text(&[], "x");
            *failed.status_mut() = http::StatusCode::BAD_GATEWAY;
            return failed;
        }
        text(&[FOR_A_WHILE], "x")
    });
    ask(&service, get("/a")).await;
    room.pass_secs(30);
    let said = ask(&service, get_with("/a", &[("x-fail", "1")])).await;
    assert_eq!(said.said(), "fwd=stale; detail=stale-if-error");
    assert_eq!(outcomes(&metrics), (0, 1, 1));
    ask(&service, get_with("/b", &[("x-fail", "1")])).await;
    assert_eq!(outcomes(&metrics), (0, 1, 1), "an error is not stored");
}

/// What has to be asked about whenever it is used saves the service some work and is no bad cache: once each of these
/// requests was a miss, and an alert said so.
#[tokio::test]
async fn what_is_asked_about_whenever_it_is_used_is_never_missed() {
    for line in ["no-cache", "max-age=0", "public, no-cache, max-age=60"] {
        let (room, metrics) = counted_room();
        let service = room.answering(move |request| {
            let mut answer = text(&[("cache-control", line), ("etag", "\"1\"")], "x");
            if request.headers().contains_key("if-none-match") {
                *answer.status_mut() = http::StatusCode::NOT_MODIFIED;
            }
            answer
        });
        for said in ["uri-miss", "stale; fwd-status=304", "stale; fwd-status=304"] {
            let seen = ask(&service, get("/a")).await;
            assert_eq!(seen.said(), format!("fwd={said}; stored"), "{line}");
        }
        ask(&service, request("HEAD", "/a", &[])).await;
        assert_eq!(outcomes(&metrics), (0, 0, 0), "{line}");
        assert_eq!(metrics.snapshot().cache.forwards["stale"], 3, "{line}");
    }
}
