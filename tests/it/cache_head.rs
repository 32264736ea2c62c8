//! HEAD: answered from what is stored for GET, and what its answer says of that (RFC 9111 §4.3.5).

use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use tower_keep::cache::NoStore;
use tower_keep::journal::Marker;

use crate::cache_room::{
    Cached, Content, Room, answer, ask, empty, get, get_with, request, room, settle, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"v1\"");
const MODIFIED: (&str, &str) = ("last-modified", "Wed, 31 Dec 2025 23:00:00 GMT");

fn head() -> Request<()> {
    request("HEAD", "/", &[])
}

/// A service that answers GET with five bytes, and HEAD with what `head` makes of it.
fn heading(room: &Room, head: impl Fn() -> Response<Content> + Send + Sync + 'static) -> Cached {
    room.answering(move |request| {
        if request.method() == "HEAD" {
            head()
        } else {
            let fields = [MINUTE, TAG, MODIFIED, ("x-version", "get"), ("x-kept", "1")];
            text(&fields, "hello")
        }
    })
}

/// RFC 9110 §9.3.2: "The server SHOULD send the same header fields in response to a HEAD request as it
/// would have sent if the request method had been GET", but no content.
#[tokio::test]
async fn a_fresh_head_is_answered_from_the_stored_get_whose_length_it_tells() {
    let room = room();
    let service = heading(&room, || panic!("it is fresh"));
    ask(&service, get("/")).await;
    room.pass_secs(9);
    let seen = ask(&service, head()).await;
    assert_eq!(
        (seen.said(), seen.text(), seen.field("age")),
        ("hit", "", "9")
    );
    for (name, value) in [("content-length", "5"), TAG, MODIFIED, ("x-version", "get")] {
        assert_eq!(seen.field(name), value, "{name}");
    }
    assert_eq!(service.inner().calls(), 1);
}

/// RFC 9111 §4.3.5: "the cache SHOULD consider .. matching .. [and] update the stored response with the header
/// fields provided in the HEAD response".
#[tokio::test]
async fn a_stale_head_goes_on_as_a_head_and_renews_what_is_stored() {
    let room = room();
    let service = heading(&room, || {
        let length = ("content-length", "5");
        answer(
            &[MINUTE, TAG, MODIFIED, length, ("x-version", "head")],
            empty(),
        )
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    let seen = ask(&service, head()).await;
    assert_eq!(
        (seen.said(), seen.field("x-version")),
        ("fwd=stale", "head")
    );
    room.pass_secs(59);
    let hit = ask(&service, get("/")).await;
    assert_eq!(
        (hit.said(), hit.text(), hit.field("age")),
        ("hit", "hello", "59")
    );
    assert_eq!((hit.field("x-version"), hit.field("x-kept")), ("head", "1"));
    assert_eq!(hit.field("content-length"), "5");
    assert_eq!(service.inner().calls(), 2);
    room.pass_secs(1);
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=stale; stored");
}

/// What only asks about the fields must not change what describes the content.
#[tokio::test]
async fn a_head_changes_no_field_of_the_content() {
    let room = room();
    let service = heading(&room, || {
        let fields = [
            MINUTE,
            TAG,
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/5"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ];
        answer(&fields, empty())
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    ask(&service, head()).await;
    let hit = ask(&service, get("/")).await;
    assert_eq!((hit.said(), hit.text()), ("hit", "hello"));
    for name in ["content-encoding", "content-range", "x-hop", "connection"] {
        assert_eq!(hit.field(name), "", "{name}");
    }
}

/// RFC 9111 §4.3.5: "if any .. do not match, the cache SHOULD consider the stored response to be stale".
#[tokio::test]
async fn a_head_that_speaks_of_another_version_takes_the_stored_one_out() {
    for other in [
        ("etag", "\"v2\""),
        ("etag", "W/\"v1\""),
        ("last-modified", "Wed, 31 Dec 2025 23:00:01 GMT"),
        ("content-length", "6"),
        // Nothing that could be confirmed in any case.
        ("cache-control", "no-store"),
    ] {
        let room = room();
        let service = heading(&room, move || {
            let mut fields = vec![MINUTE, TAG, MODIFIED, ("content-length", "5")];
            fields.retain(|(name, _)| *name != other.0);
            fields.push(other);
            answer(&fields, empty())
        });
        ask(&service, get("/")).await;
        let anew = request("HEAD", "/", &[("cache-control", "no-cache")]);
        assert_eq!(ask(&service, anew).await.said(), "fwd=request");
        assert!(room.cache.stored(None, "", "/").is_empty(), "{other:?}");
        let seen = ask(&service, get("/")).await;
        assert_eq!(seen.said(), "fwd=uri-miss; stored", "{other:?}");
    }
}

/// What is somebody's own, or no success, says nothing of what others are sent.
#[tokio::test]
async fn a_head_that_is_somebody_s_own_or_no_success_changes_nothing() {
    type Change = fn(&mut Response<Content>);
    let cookie: Change = |response| {
        let value = http::HeaderValue::from_static("a=1");
        response.headers_mut().insert("set-cookie", value);
    };
    let no_store: Change = |response| {
        response.extensions_mut().insert(NoStore);
    };
    let missing: Change = |response| *response.status_mut() = StatusCode::NOT_FOUND;
    let failed: Change = |response| *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let unchanged: Change = |response| *response.status_mut() = StatusCode::NOT_MODIFIED;
    let nothing: Change = |_| {};
    for (what, change, asked) in [
        ("cookie", cookie, ("x-a", "1")),
        ("no-store", no_store, ("x-a", "1")),
        ("404", missing, ("x-a", "1")),
        ("503", failed, ("x-a", "1")),
        ("304", unchanged, ("if-none-match", "\"v0\"")),
        ("signed in", nothing, ("authorization", "Bearer anna")),
        ("key", nothing, ("x-api-key", "anna")),
    ] {
        let room = room();
        let service = heading(&room, move || {
            let fields = [MINUTE, ("etag", "\"v2\""), ("x-version", "head")];
            let mut response = answer(&fields, empty());
            change(&mut response);
            response
        });
        ask(&service, get("/")).await;
        room.pass_secs(30);
        let fields = [asked, ("cache-control", "no-cache")];
        ask(&service, request("HEAD", "/", &fields)).await;
        let hit = ask(&service, get("/")).await;
        assert_eq!((hit.said(), hit.field("age")), ("hit", "30"), "{what}");
        assert_eq!(
            (hit.field("x-version"), hit.field("etag")),
            ("get", TAG.1),
            "{what}"
        );
    }
}

/// Where the stored answer is for everyone, a signed in client's HEAD reaches it, and still says nothing.
#[tokio::test]
async fn a_head_with_credentials_says_nothing_of_a_public_answer_either() {
    let room = room();
    let service = room.answering(|request| {
        let public = ("cache-control", "public, max-age=60");
        if request.method() == "HEAD" {
            answer(
                &[public, ("etag", "\"hers\""), ("x-version", "head")],
                empty(),
            )
        } else {
            text(&[public, TAG, ("x-version", "get")], "hello")
        }
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    let hers = request("HEAD", "/", &[("authorization", "Bearer anna")]);
    assert_eq!(ask(&service, hers).await.said(), "fwd=stale");
    let stored = room.cache.stored(None, "", "/");
    assert_eq!(
        (stored.len(), stored[0].headers["x-version"].as_bytes()),
        (1, &b"get"[..])
    );
    assert!(stored[0].ttl.is_zero(), "not renewed");
}

/// A service that says nothing of validators and length in a HEAD denies nothing.
#[tokio::test]
async fn a_head_without_validators_takes_nothing_out() {
    let room = room();
    let service = heading(&room, || answer(&[MINUTE], empty()));
    ask(&service, get("/")).await;
    let anew = request("HEAD", "/", &[("cache-control", "no-cache")]);
    ask(&service, anew).await;
    let hit = ask(&service, get("/")).await;
    assert_eq!(
        (hit.said(), hit.text(), hit.field("etag")),
        ("hit", "hello", TAG.1)
    );
}

/// Asked about one version, answered after another was stored.
#[tokio::test]
async fn a_late_head_touches_nothing_newer_than_what_it_was_asked_about() {
    for tag in ["\"v1\"", "\"v9\""] {
        let room = room();
        let (open, gate) = tokio::sync::watch::channel(false);
        let version = Arc::new(Mutex::new("\"v1\""));
        let now = Arc::clone(&version);
        let service = room.before(move |request| {
            let (mut gate, now) = (gate.clone(), *now.lock().unwrap());
            Box::pin(async move {
                if request.method() == "HEAD" {
                    let _ = gate.wait_for(|open| *open).await;
                    return Ok(answer(&[MINUTE, ("etag", tag), ("x-by", "head")], empty()));
                }
                Ok(text(&[MINUTE, ("etag", now)], "hello"))
            })
        });
        ask(&service, get("/")).await;
        room.pass_secs(61);
        let asking = tokio::spawn({
            let service = service.clone();
            async move { ask(&service, head()).await }
        });
        settle().await;
        *version.lock().unwrap() = "\"v2\"";
        assert_eq!(ask(&service, get("/")).await.said(), "fwd=stale; stored");
        open.send_replace(true);
        assert_eq!(asking.await.unwrap().field("x-by"), "head");
        let hit = ask(&service, get("/")).await;
        assert_eq!(
            (hit.said(), hit.field("etag"), hit.field("x-by")),
            ("hit", "\"v2\"", "")
        );
    }
}

/// What was purged while the HEAD was away must not come back by its word.
#[tokio::test]
async fn a_head_does_not_bring_back_what_was_purged_meanwhile() {
    let room = room();
    let cache = room.cache.clone();
    let service = heading(&room, move || {
        drop(cache.journal().append([Marker::tag("/")]));
        answer(&[MINUTE, TAG], empty())
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    ask(&service, head()).await;
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss; stored");
}

/// RFC 9111 §4.1: once the answer says that it depends on a field, requests that differ in it are others.
#[tokio::test]
async fn a_head_that_adds_a_field_to_vary_makes_nothing_fit_more_requests() {
    let room = room();
    let service = room.answering(|request| {
        let language = request.headers().get("accept-language");
        let language = language
            .map_or("none", |value| value.to_str().unwrap())
            .to_owned();
        if request.method() == "HEAD" {
            answer(&[MINUTE, ("vary", "accept-language")], empty())
        } else {
            text(&[MINUTE], language)
        }
    });
    let speak = |method, language| request(method, "/", &[("accept-language", language)]);
    assert_eq!(ask(&service, speak("GET", "de")).await.text(), "de");
    room.pass_secs(61);
    ask(&service, speak("HEAD", "de")).await;
    let seen = ask(&service, speak("GET", "en")).await;
    assert_eq!(seen.text(), "en", "{}", seen.said());
}

/// Each variant is spoken of by the HEAD that fits it.
#[tokio::test]
async fn a_head_speaks_of_its_own_variant() {
    let room = room();
    let service = room.answering(|request| {
        let v = request.headers()["x-v"].to_str().unwrap().to_owned();
        let tag = format!("\"{v}\"");
        let fields = [
            MINUTE,
            ("etag", &*tag),
            ("vary", "x-v"),
            ("x-by", request.method().as_str()),
        ];
        if request.method() == "HEAD" {
            answer(&fields, empty())
        } else {
            text(&fields, v)
        }
    });
    for v in ["1", "2"] {
        ask(&service, get_with("/", &[("x-v", v)])).await;
    }
    room.pass_secs(61);
    ask(&service, request("HEAD", "/", &[("x-v", "1")])).await;
    let hit = ask(&service, get_with("/", &[("x-v", "1")])).await;
    assert_eq!(
        (hit.said(), hit.text(), hit.field("x-by")),
        ("hit", "1", "HEAD")
    );
    let other = ask(&service, get_with("/", &[("x-v", "2")])).await;
    assert_eq!(other.said(), "fwd=stale; stored");
}
