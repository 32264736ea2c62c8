//! Answers to POST that are what a GET would be sent (RFC 9110 §9.3.3).

use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower::Layer;
use tower_keep::cache::{CacheFor, CacheLayer, CacheRule, CacheTags, KeyPart, NoStore, Store};
use tower_keep::journal::Marker;

use crate::cache_room::{
    Cached, Content, Room, answer, ask, get, get_with, piped, read, request, room, room_with, send,
    text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const HERE: (&str, &str) = ("content-location", "/c?x=1");
const HOST: (&str, &str) = ("host", "here.example");

fn post() -> Request<()> {
    request("POST", "/c?x=1", &[HOST])
}

fn get_it() -> Request<()> {
    get_with("/c?x=1", &[HOST])
}

/// A service whose answer to a change has these fields.
fn posting(room: &Room, fields: &'static [(&str, &str)]) -> Cached {
    changing(room, move || text(fields, "posted"))
}

fn changing(room: &Room, answer: impl Fn() -> Response<Content> + Send + Sync + 'static) -> Cached {
    room.answering(move |request| match request.method().as_str() {
        "GET" => text(&[MINUTE], "got"),
        _ => answer(),
    })
}

/// RFC 9110 §9.3.3: "Responses to POST requests are only cacheable when they include explicit freshness
/// information .. and a Content-Location header field that has the same value as the POST's target URI ..  A
/// cached POST response can be reused to satisfy a later GET or HEAD request."
#[tokio::test]
async fn the_answer_to_a_post_that_says_what_it_is_is_served_to_a_get() {
    let room = room();
    let service = posting(&room, &[MINUTE, HERE, ("etag", "\"a\"")]);
    ask(&service, get_it()).await;
    let posted = ask(&service, post()).await;
    assert_eq!(
        (posted.text(), posted.said()),
        ("posted", "fwd=method; stored")
    );
    room.pass_secs(59);
    let hit = ask(&service, get_it()).await;
    assert_eq!(
        (hit.text(), hit.said(), hit.field("age")),
        ("posted", "hit", "59")
    );
    let head = ask(&service, request("HEAD", "/c?x=1", &[HOST])).await;
    assert_eq!((head.said(), head.field("content-length")), ("hit", "6"));
    // "POST cannot be satisfied by a cached POST response".
    assert_eq!(ask(&service, post()).await.said(), "fwd=method; stored");
    room.pass_secs(60);
    assert_eq!(ask(&service, get_it()).await.said(), "fwd=stale; stored");
    assert_eq!(service.inner().calls(), 4);
}

/// The same value, however it is written.
#[tokio::test]
async fn only_the_answer_s_own_place_counts() {
    for (place, stored) in [
        ("/c?x=1", true),
        ("c?x=1", true),
        ("http://here.example/c?x=1", true),
        ("//HERE.example/c?x=1", true),
        ("/c?x=1#part", true),
        ("/%63?x=1", true),
        ("/c", false),
        ("/c?x=2", false),
        ("/c/7", false),
        ("http://there.example/c?x=1", false),
        ("//there.example/c?x=1", false),
        ("", false),
    ] {
        let room = room();
        let service = changing(&room, move || {
            text(&[MINUTE, ("content-location", place)], "posted")
        });
        ask(&service, post()).await;
        assert_eq!(
            ask(&service, get_it()).await.said() == "hit",
            stored,
            "{place}"
        );
    }
}

/// Without explicit freshness no guess is made, whatever the operator allows for GET.
#[tokio::test]
async fn what_does_not_say_all_that_it_must_is_not_stored() {
    const MODIFIED: (&str, &str) = ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT");
    for fields in [
        &[MINUTE][..],
        &[HERE],
        &[HERE, MODIFIED],
        &[HERE, ("cache-control", "public"), MODIFIED],
        &[HERE, ("cache-control", "no-store, max-age=60")],
        &[HERE, ("cache-control", "private, max-age=60")],
        &[HERE, MINUTE, ("set-cookie", "a=1")],
        &[HERE, MINUTE, ("vary", "*")],
    ] {
        let room = room_with(|config| {
            config.ttl_default = Duration::from_secs(60);
            config.heuristic_freshness = true;
        });
        let service = posting(&room, fields);
        assert_eq!(
            ask(&service, post()).await.said(),
            "fwd=method",
            "{fields:?}"
        );
        assert!(
            room.cache.stored(None, HOST.1, "/c?x=1").is_empty(),
            "{fields:?}"
        );
    }
    for fields in [
        &[HERE, ("cache-control", "s-maxage=60")][..],
        &[HERE, ("expires", "Thu, 01 Jan 2026 01:00:00 GMT")],
        &[
            HERE,
            ("cdn-cache-control", "max-age=60"),
            ("cache-control", "no-store"),
        ],
    ] {
        let room = room();
        let service = posting(&room, fields);
        ask(&service, post()).await;
        assert_eq!(ask(&service, get_it()).await.text(), "posted", "{fields:?}");
    }
}

#[tokio::test]
async fn only_a_200_to_a_post_is_stored() {
    for (method, status, stored) in [
        ("POST", 200, true),
        ("POST", 201, false),
        ("POST", 303, false),
        ("POST", 500, false),
        ("PUT", 200, false),
        ("PATCH", 200, false),
        ("DELETE", 200, false),
    ] {
        let room = room();
        let service = changing(&room, move || {
            let mut response = text(&[MINUTE, HERE], "posted");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        });
        ask(&service, request(method, "/c?x=1", &[HOST])).await;
        let hit = ask(&service, get_it()).await.said() == "hit";
        assert_eq!(hit, stored, "{method} {status}");
    }
}

/// Computed before that, perhaps, and stored after it.
#[tokio::test]
async fn a_purge_of_anything_else_meanwhile_keeps_it_out() {
    for marker in [
        Marker::tag("elsewhere"),
        Marker::tag("/c"),
        Marker::Everything,
    ] {
        let room = room();
        let cache = room.cache.clone();
        let purge = marker.clone();
        let service = changing(&room, move || {
            drop(cache.journal().append(std::slice::from_ref(&purge)));
            text(&[MINUTE, HERE], "posted")
        });
        assert_eq!(
            ask(&service, post()).await.said(),
            "fwd=method",
            "{marker:?}"
        );
        assert_eq!(ask(&service, get_it()).await.text(), "got", "{marker:?}");
    }
}

/// After its head has come, and before its body has ended.
#[tokio::test]
async fn a_purge_while_it_is_read_counts_too() {
    let room = room();
    let (pipes, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = changing(&room, move || {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        answer(&[MINUTE, HERE], body)
    });
    let response = send(&service, post()).await.unwrap();
    drop(room.cache.journal().append([Marker::tag("/c")]));
    let pipe = receiver.recv().await.unwrap();
    pipe.send("posted");
    drop(pipe);
    read(response).await.unwrap();
    assert_eq!(ask(&service, get_it()).await.text(), "got");
}

/// RFC 9111 §3.5.
#[tokio::test]
async fn what_was_posted_by_somebody_is_shared_only_if_it_is_public() {
    for (line, shared) in [
        ("max-age=60", false),
        ("public, max-age=60", true),
        ("s-maxage=60", true),
        ("max-age=60, must-revalidate", true),
    ] {
        for credentials in [
            ("authorization", "Bearer anna"),
            ("cookie", "a=1"),
            ("x-api-key", "k"),
        ] {
            let room = room();
            let service = changing(&room, move || {
                text(&[("cache-control", line), HERE], "posted")
            });
            ask(&service, request("POST", "/c?x=1", &[HOST, credentials])).await;
            let hit = ask(&service, get_it()).await.said() == "hit";
            assert_eq!(hit, shared, "{line} {credentials:?}");
        }
    }
}

/// RFC 9111 §5.2.1.5: "The no-store request directive indicates that a cache MUST NOT store any part of either
/// this request or any response to it."
#[tokio::test]
async fn a_post_that_says_no_store_is_heard() {
    let room = room();
    let service = posting(&room, &[MINUTE, HERE]);
    let asked = [HOST, ("cache-control", "no-store")];
    let seen = ask(&service, request("POST", "/c?x=1", &asked)).await;
    assert_eq!(seen.said(), "fwd=method");
    assert_eq!(ask(&service, get_it()).await.text(), "got");
}

#[tokio::test]
async fn what_a_handler_says_in_code_counts_for_a_post() {
    let room = room();
    let service = room.answering(|request| {
        if request.method() == "GET" {
            return text(&[MINUTE], "got");
        }
        let mut response = text(&[HERE], "posted");
        let minute = CacheFor(Duration::from_secs(60));
        response.extensions_mut().insert(minute);
        response.extensions_mut().insert(CacheTags::new(["posts"]));
        if request.headers().contains_key("x-secret") {
            response.extensions_mut().insert(NoStore);
        }
        response
    });
    let secret = request("POST", "/c?x=1", &[HOST, ("x-secret", "1")]);
    assert_eq!(ask(&service, secret).await.said(), "fwd=method");
    ask(&service, post()).await;
    assert_eq!(ask(&service, get_it()).await.text(), "posted");
    drop(room.cache.journal().append([Marker::tag("posts")]));
    assert_eq!(ask(&service, get_it()).await.text(), "got");
}

#[tokio::test]
async fn the_tags_of_a_post_s_answer_are_those_of_its_fields_and_its_route_too() {
    for tag in ["listed", "of-route"] {
        let room = room_with(|config| {
            config.rules = vec![CacheRule::new("/c").tags(["of-route"])];
        });
        let service = posting(&room, &[MINUTE, HERE, ("surrogate-key", "listed")]);
        ask(&service, post()).await;
        assert_eq!(ask(&service, get_it()).await.said(), "hit");
        drop(room.cache.journal().append([Marker::tag(tag)]));
        assert_eq!(ask(&service, get_it()).await.text(), "got", "{tag}");
    }
}

#[tokio::test]
async fn a_route_that_is_never_stored_is_not_by_way_of_a_post() {
    let room = room_with(|config| {
        config.rules = vec![CacheRule::new("/c").store(Store::Never)];
    });
    let service = posting(&room, &[MINUTE, HERE]);
    assert_eq!(ask(&service, post()).await.said(), "fwd=method");
    assert!(room.cache.is_empty());
}

/// RFC 9111 §4.1: the fields of the POST are those that selected it.
#[tokio::test]
async fn what_was_posted_in_one_language_is_not_served_in_another() {
    let room = room();
    let service = posting(&room, &[MINUTE, HERE, ("vary", "accept-language")]);
    let german = ("accept-language", "de");
    ask(&service, request("POST", "/c?x=1", &[HOST, german])).await;
    assert_eq!(
        ask(&service, get_with("/c?x=1", &[HOST, german]))
            .await
            .text(),
        "posted"
    );
    assert_eq!(ask(&service, get_it()).await.text(), "got");
}

#[tokio::test]
async fn a_post_stays_with_its_host_and_its_tenant() {
    let room = room();
    let part = KeyPart::new(|request| {
        let tenant = request.headers.get("x-tenant")?;
        tenant.to_str().ok().map(Into::into)
    });
    let cache = room.cache.clone().with_key_part(part);
    let inner = posting(&room, &[MINUTE, HERE]).inner().clone();
    let service = CacheLayer::new(cache).layer(inner);
    let anna = ("x-tenant", "anna");
    ask(&service, request("POST", "/c?x=1", &[HOST, anna])).await;
    for (fields, body) in [
        (&[HOST, anna][..], "posted"),
        (&[HOST, ("x-tenant", "berta")], "got"),
        (&[("host", "there.example"), anna], "got"),
        (&[HOST], "got"),
    ] {
        assert_eq!(
            ask(&service, get_with("/c?x=1", fields)).await.text(),
            body,
            "{fields:?}"
        );
    }
    // Nobody's POST is stored for nobody.
    let before = room.cache.len();
    ask(&service, post()).await;
    assert_eq!(room.cache.len(), before);
}

#[tokio::test]
async fn a_post_whose_answer_breaks_off_leaves_nothing_and_still_invalidates() {
    let room = room();
    let service = changing(&room, || {
        let (pipe, body) = piped();
        pipe.send("pos");
        pipe.break_off();
        answer(&[MINUTE, HERE], body)
    });
    ask(&service, get_it()).await;
    let response = send(&service, post()).await.unwrap();
    assert!(read(response).await.is_err());
    let next = ask(&service, get_it()).await;
    assert_eq!((next.text(), next.said()), ("got", "fwd=uri-miss; stored"));
}

/// RFC 9111 §4.4: its other pages are old all the same.
#[tokio::test]
async fn a_post_that_is_stored_invalidates_the_rest_of_its_path() {
    let room = room();
    let service = posting(&room, &[MINUTE, HERE]);
    for target in ["/c", "/c?x=2", "/other"] {
        ask(&service, get_with(target, &[HOST])).await;
    }
    ask(&service, post()).await;
    for (target, said) in [
        ("/c", "fwd=uri-miss; stored"),
        ("/c?x=2", "fwd=uri-miss; stored"),
        ("/other", "hit"),
    ] {
        assert_eq!(
            ask(&service, get_with(target, &[HOST])).await.said(),
            said,
            "{target}"
        );
    }
    assert_eq!(
        ask(&service, get("/other")).await.said(),
        "fwd=uri-miss; stored",
        "another host's"
    );
}
