//! The cache's rules, seen through its layer: what is served, to whom, and with which fields.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use tower::{Layer, ServiceExt};
use tower_keep::cache::{CacheFor, CacheLayer, CacheTags, NoStore, StatusDetail};
use tower_keep::journal::Marker;

use crate::cache_room::{Broken, ask, get, get_with, read, request, room, room_with, send, text};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"v1\"");

#[tokio::test]
async fn a_second_request_is_answered_from_memory_and_says_so() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, ("x-kept", "1")], "hello"));
    let miss = ask(&service, get("/a")).await;
    assert_eq!(
        (miss.text(), miss.said()),
        ("hello", "fwd=uri-miss; stored")
    );
    assert_eq!(miss.field("age"), "", "it comes from the service itself");
    room.pass_secs(7);
    let hit = ask(&service, get("/a")).await;
    assert_eq!((hit.text(), hit.said()), ("hello", "hit"));
    assert_eq!((hit.field("age"), hit.field("x-kept")), ("7", "1"));
    assert_eq!(hit.field("content-length"), "5");
    assert_eq!(hit.field("date"), "Thu, 01 Jan 2026 00:00:00 GMT");
    room.pass_secs(53);
    let late = ask(&service, get("/a")).await;
    assert_eq!(late.said(), "fwd=stale; stored");
    assert_eq!(service.inner().calls(), 2);
}

#[tokio::test]
async fn queries_and_hosts_are_different_things() {
    let room = room();
    let service = room.answering(|request| {
        let host = request
            .headers()
            .get("host")
            .map_or("", |host| host.to_str().unwrap());
        let text = format!("{host} {}", request.uri());
        crate::cache_room::text(&[MINUTE], text)
    });
    let requests = [
        get("/a"),
        get("/a?"),
        get("/a?x=1"),
        get("/A"),
        get("/a/"),
        get("/%61"),
        get("http://one.example/a"),
        get("http://one.example:80/a"),
        get_with("/a", &[("host", "two.example")]),
        get_with("/a", &[("host", "two.example:8080")]),
        get_with("/a", &[("host", "two.example.")]),
    ];
    for round in ["fwd=uri-miss; stored", "hit"] {
        for request in &requests {
            let mut copy = get("/");
            *copy.uri_mut() = request.uri().clone();
            *copy.headers_mut() = request.headers().clone();
            let seen = ask(&service, copy).await;
            let host = request
                .headers()
                .get("host")
                .map_or("", |host| host.to_str().unwrap());
            assert_eq!(seen.said(), round, "{}", request.uri());
            assert_eq!(seen.text(), format!("{host} {}", request.uri()));
        }
    }
}

/// RFC 9112 §3.2: such a request is not valid, and no cache may guess which of the two is meant.
#[tokio::test]
async fn a_request_for_two_hosts_goes_past_the_cache() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE], "x"));
    for _ in 0..2 {
        for (uri, hosts) in [
            ("/", &[("host", "a"), ("host", "b")][..]),
            ("/", &[("host", "a"), ("host", "a")]),
            ("http://a/", &[("host", "a"), ("host", "b")]),
            ("http://a/", &[("host", "b")]),
        ] {
            assert_eq!(
                ask(&service, get_with(uri, hosts)).await.said(),
                "fwd=bypass"
            );
        }
    }
    assert!(room.cache.is_empty());
}

#[tokio::test]
async fn variants_are_kept_apart() {
    let room = room();
    let service = room.answering(|request| {
        let language = request.headers().get("accept-language");
        let language = language.map_or("none", |language| language.to_str().unwrap());
        text(&[MINUTE, ("vary", "Accept-Language")], language.to_owned())
    });
    let speak = |language: &str| get_with("/", &[("accept-language", language)]);
    assert_eq!(
        ask(&service, speak("de")).await.said(),
        "fwd=uri-miss; stored"
    );
    assert_eq!(
        ask(&service, speak("en")).await.said(),
        "fwd=vary-miss; stored"
    );
    assert_eq!(
        ask(&service, get("/")).await.said(),
        "fwd=vary-miss; stored"
    );
    for (request, body) in [(speak("de"), "de"), (speak("en"), "en"), (get("/"), "none")] {
        let hit = ask(&service, request).await;
        assert_eq!((hit.text(), hit.said()), (body, "hit"));
    }
    assert_eq!(room.cache.len(), 1, "one URL");
}

#[tokio::test]
async fn variants_are_bounded_and_the_oldest_goes() {
    let room = room_with(|config| config.variants_max = 2);
    let service = room.answering(|_| text(&[MINUTE, ("vary", "x-v")], "x"));
    for v in ["1", "2", "3"] {
        ask(&service, get_with("/", &[("x-v", v)])).await;
    }
    for (v, said) in [("3", "hit"), ("2", "hit"), ("1", "fwd=vary-miss; stored")] {
        assert_eq!(
            ask(&service, get_with("/", &[("x-v", v)])).await.said(),
            said
        );
    }
}

/// RFC 9110 §9.3.2: HEAD is "identical to GET except that the server MUST NOT send content".
#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG], "hello"));
    let head = request("HEAD", "/", &[]);
    // Nothing is stored for a HEAD, for there is no content to store.
    assert_eq!(ask(&service, head).await.said(), "fwd=uri-miss");
    ask(&service, get("/")).await;
    let hit = ask(&service, request("HEAD", "/", &[])).await;
    assert_eq!(
        (hit.said(), hit.text(), hit.field("content-length")),
        ("hit", "", "5")
    );
    let unchanged = ask(
        &service,
        request("HEAD", "/", &[("if-none-match", "\"v1\"")]),
    )
    .await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert_eq!(ask(&service, get("/")).await.text(), "hello");
}

#[tokio::test]
async fn a_client_that_has_it_is_told_so() {
    let room = room();
    let modified = ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT");
    let service = room.answering(move |_| {
        text(
            &[
                MINUTE,
                TAG,
                modified,
                ("vary", "a"),
                ("content-type", "text/plain"),
            ],
            "hello",
        )
    });
    ask(&service, get("/")).await;
    for fields in [
        ("if-none-match", "\"v0\", W/\"v1\""),
        ("if-none-match", "*"),
        ("if-modified-since", modified.1),
    ] {
        let hit = ask(&service, get_with("/", &[fields])).await;
        assert_eq!(hit.status, StatusCode::NOT_MODIFIED, "{fields:?}");
        assert_eq!((hit.text(), hit.said(), hit.field("age")), ("", "hit", "0"));
        // RFC 9110 §15.4.5: "MUST generate any of the following .. Content-Location, Date, ETag, and
        // Vary; Cache-Control and Expires".
        for name in ["date", "etag", "vary", "cache-control"] {
            assert!(hit.headers.contains_key(name), "{name}");
        }
        for name in ["content-length", "content-type"] {
            assert!(!hit.headers.contains_key(name), "{name}");
        }
    }
    for fields in [
        ("if-none-match", "\"v0\""),
        ("if-modified-since", "Tue, 30 Dec 2025 00:00:00 GMT"),
    ] {
        assert_eq!(
            ask(&service, get_with("/", &[fields])).await.text(),
            "hello"
        );
    }
    assert_eq!(service.inner().calls(), 1);
}

/// RFC 9110 §13.2.1: a condition is judged only where the answer without it would be a success.
#[tokio::test]
async fn a_stored_404_stays_one_whatever_the_client_has() {
    let room = room();
    let service = room.answering(|_| {
        let mut response = text(&[MINUTE, TAG], "gone");
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    });
    ask(&service, get("/")).await;
    let hit = ask(&service, get_with("/", &[("if-none-match", "\"v1\"")])).await;
    assert_eq!((hit.status, hit.said()), (StatusCode::NOT_FOUND, "hit"));
}

/// RFC 9111 §4.3: the stored answer's validator goes to the origin, the client's own question is
/// answered from what comes of it.
#[tokio::test]
async fn a_stale_answer_is_validated_and_lives_again() {
    let room = room();
    let service = room.answering(|request| {
        let asked = request.headers().get("if-none-match");
        if asked.is_some_and(|tag| tag == "\"v1\"") {
            assert!(!request.headers().contains_key("if-modified-since"));
            let mut response = text(&[("x-new", "1"), TAG], "");
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        assert_eq!(asked, None, "the client's condition must not go on");
        text(&[MINUTE, TAG, ("x-old", "1")], "hello")
    });
    let clients = [("if-none-match", "\"clients\"")];
    assert_eq!(ask(&service, get_with("/", &clients)).await.text(), "hello");
    room.pass_secs(61);
    let validated = ask(&service, get_with("/", &clients)).await;
    assert_eq!(validated.said(), "fwd=stale; fwd-status=304; stored");
    assert_eq!((validated.text(), validated.field("age")), ("hello", "0"));
    assert_eq!(
        (validated.field("x-new"), validated.field("x-old")),
        ("1", "1")
    );
    // A 304 without Date must not leave the answer as old as it was.
    room.pass_secs(59);
    let hit = ask(&service, get("/")).await;
    assert_eq!((hit.said(), hit.field("age")), ("hit", "59"));
    room.pass_secs(2);
    let unchanged = ask(&service, get_with("/", &[("if-none-match", "\"v1\"")])).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert_eq!(unchanged.said(), "fwd=stale; fwd-status=304; stored");
    assert_eq!(service.inner().calls(), 3);
}

#[tokio::test]
async fn an_answer_without_a_tag_is_validated_by_its_date() {
    let room = room();
    let modified = ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT");
    let service = room.answering(move |request| {
        let since = request.headers().get("if-modified-since");
        let mut response = text(&[MINUTE, modified], "hello");
        if since.is_some_and(|since| since == modified.1) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    });
    ask(&service, get("/")).await;
    room.pass_secs(60);
    assert_eq!(
        ask(&service, get("/")).await.said(),
        "fwd=stale; fwd-status=304; stored"
    );
}

#[tokio::test]
async fn what_a_304_says_in_code_counts_and_what_it_leaves_out_goes_on() {
    let room = room();
    let service = room.answering(|request| {
        let mut response = text(&[TAG], "hello");
        if request.headers().contains_key("if-none-match") {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            if request.uri() == "/secret" {
                response.extensions_mut().insert(NoStore);
            }
        } else {
            response
                .extensions_mut()
                .insert(CacheFor(Duration::from_secs(60)));
            response.extensions_mut().insert(CacheTags::new(["all"]));
        }
        response
    });
    for path in ["/", "/secret"] {
        ask(&service, get(path)).await;
    }
    room.pass_secs(61);
    for path in ["/", "/secret"] {
        assert_eq!(ask(&service, get(path)).await.text(), "hello");
    }
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
    assert_ne!(ask(&service, get("/secret")).await.said(), "hit");
    drop(room.cache.journal().append([Marker::tag("all")]));
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn what_is_not_to_be_shared_is_not() {
    let everyone = ("cache-control", "public, max-age=60");
    let cookie = ("cookie", "session=anna");
    let bearer = ("authorization", "Bearer anna");
    let key = ("x-api-key", "anna");
    for (asked, answered, hit) in [
        (&[][..], &[MINUTE][..], true),
        (&[], &[("cache-control", "no-store")], false),
        (&[], &[("cache-control", "private, max-age=60")], false),
        (&[], &[MINUTE, ("set-cookie", "session=anna")], false),
        (&[], &[everyone, ("set-cookie", "session=anna")], false),
        (&[], &[MINUTE, ("vary", "*")], false),
        (&[], &[], false),
        (&[cookie], &[MINUTE], false),
        (&[bearer], &[MINUTE], false),
        (&[key], &[MINUTE], false),
        (&[cookie], &[everyone], true),
        (&[bearer], &[everyone], true),
        (&[bearer], &[("cache-control", "s-maxage=60")], true),
        (&[("cache-control", "no-store")], &[MINUTE], false),
    ] {
        let room = room();
        let fields = answered.to_vec();
        let service = room.answering(move |_| text(&fields, "anna's"));
        ask(&service, get_with("/", asked)).await;
        let next = ask(&service, get("/")).await;
        assert_eq!(
            next.said() == "hit",
            hit,
            "{asked:?} {answered:?}: {}",
            next.said()
        );
    }
}

#[tokio::test]
async fn what_is_stored_for_nobody_in_particular_is_not_served_to_somebody() {
    let room = room();
    let service = room.answering(|request| {
        text(
            &[MINUTE],
            if request.headers().contains_key("cookie") {
                "anna's"
            } else {
                "anyone's"
            },
        )
    });
    ask(&service, get("/")).await;
    let hers = ask(&service, get_with("/", &[("cookie", "a=1")])).await;
    assert_eq!((hers.text(), hers.said()), ("anna's", "fwd=bypass"));
    let anyones = ask(&service, get("/")).await;
    assert_eq!((anyones.text(), anyones.said()), ("anyone's", "hit"));
}

/// An answer that is not stored loses nothing by passing here: its owner still gets a 304.
#[tokio::test]
async fn the_client_of_a_private_answer_still_gets_its_304() {
    let room = room();
    let service = room.answering(|request| {
        let mut response = text(&[("cache-control", "private, max-age=60"), TAG], "hers");
        if request
            .headers()
            .get("if-none-match")
            .is_some_and(|tag| tag == "\"v1\"")
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    });
    let hers = || get_with("/", &[("cookie", "a=1"), ("if-none-match", "\"v1\"")]);
    for _ in 0..2 {
        assert_eq!(ask(&service, hers()).await.status, StatusCode::NOT_MODIFIED);
    }
}

/// RFC 9111 §5.2.1.
#[tokio::test]
async fn the_client_s_directives_are_heard() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE], "x"));
    let asking = |directives| get_with("/", &[("cache-control", directives)]);
    let refused = ask(&service, asking("only-if-cached")).await;
    assert_eq!(refused.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(refused.field("content-type"), "application/problem+json");
    ask(&service, get("/")).await;
    room.pass_secs(30);
    for (directives, said) in [
        ("only-if-cached", "hit"),
        ("max-age=30", "hit"),
        ("min-fresh=30", "hit"),
        ("no-store", "fwd=request"),
        ("max-age=29", "fwd=request; stored"),
    ] {
        assert_eq!(
            ask(&service, asking(directives)).await.said(),
            said,
            "{directives}"
        );
    }
    room.pass_secs(30);
    assert_eq!(
        ask(&service, asking("min-fresh=31")).await.said(),
        "fwd=request; stored"
    );
    assert_eq!(
        ask(&service, asking("no-cache")).await.said(),
        "fwd=request; stored"
    );
    room.pass_secs(70);
    assert_eq!(
        ask(&service, asking("only-if-cached")).await.status,
        StatusCode::GATEWAY_TIMEOUT
    );
    let stale = ask(&service, asking("only-if-cached, max-stale=10")).await;
    assert_eq!(
        (stale.said(), stale.field("age")),
        ("hit; detail=max-stale", "70")
    );
    assert_eq!(
        ask(&service, asking("max-stale=9")).await.said(),
        "fwd=stale; stored"
    );
}

/// RFC 9111 §4.4: "A cache MUST invalidate the target URI .. when it receives a non-error status code in
/// response to an unsafe request method".
#[tokio::test]
async fn a_successful_change_invalidates_its_path_and_where_it_points() {
    for (method, status, location, gone) in [
        ("POST", 201, "", &["/c", "/c?page=2"][..]),
        ("PUT", 200, "", &["/c", "/c?page=2"]),
        ("PATCH", 204, "", &["/c", "/c?page=2"]),
        ("DELETE", 200, "", &["/c", "/c?page=2"]),
        // RFC 9110 §9.2.1: what is not known to be safe is not.
        ("PURIFY", 200, "", &["/c", "/c?page=2"]),
        ("POST", 303, "/c/7", &["/c", "/c?page=2", "/c/7"]),
        (
            "POST",
            201,
            "http://here.example/c/7?x#y",
            &["/c", "/c?page=2", "/c/7"],
        ),
        (
            "POST",
            201,
            "//HERE.example/c/7",
            &["/c", "/c?page=2", "/c/7"],
        ),
        (
            "POST",
            201,
            "/c/7?back=http://here.example/",
            &["/c", "/c?page=2", "/c/7"],
        ),
        // Another origin's business.
        (
            "POST",
            201,
            "http://there.example/c/7",
            &["/c", "/c?page=2"],
        ),
        ("POST", 201, "//there.example/c/7", &["/c", "/c?page=2"]),
        // It may have committed before it failed.
        ("POST", 500, "", &["/c", "/c?page=2"]),
        ("POST", 404, "/c/7", &[]),
        ("POST", 422, "", &[]),
        ("OPTIONS", 200, "", &[]),
        ("TRACE", 200, "", &[]),
    ] {
        let room = room();
        let service = room.answering(move |request| {
            let mut response = text(&[MINUTE], "x");
            if request.method().as_str() != "GET" {
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if !location.is_empty() {
                    let location = http::HeaderValue::from_static(location);
                    response.headers_mut().insert("location", location);
                }
            }
            response
        });
        let host = [("host", "here.example")];
        let paths = ["/c", "/c?page=2", "/c/7", "/other"];
        for path in paths {
            ask(&service, get_with(path, &host)).await;
        }
        let changed = ask(&service, request(method, "/c", &host)).await;
        assert_eq!(changed.said(), "fwd=method");
        for path in paths {
            let hit = ask(&service, get_with(path, &host)).await.said() == "hit";
            let case = format!("{method} {status} {location}: {path}");
            assert_eq!(hit, !gone.contains(&path), "{case}");
        }
    }
}

#[tokio::test]
async fn a_change_whose_end_is_not_known_counts_as_one() {
    let room = room();
    let service = room.before(|request| {
        Box::pin(async move {
            match request.method().as_str() {
                "GET" => Ok(text(&[MINUTE], "x")),
                "PUT" => Err(Broken),
                _ => std::future::pending().await,
            }
        })
    });
    for method in ["PUT", "POST"] {
        ask(&service, get("/")).await;
        assert_eq!(ask(&service, get("/")).await.said(), "hit");
        let mut call = Box::pin(send(&service, request(method, "/", &[])));
        tokio::select! {
            biased;
            answer = &mut call => assert_eq!(answer.err(), Some(Broken)),
            () = tokio::task::yield_now() => {}
        }
        drop(call);
        assert_eq!(
            ask(&service, get("/")).await.said(),
            "fwd=uri-miss; stored",
            "{method}"
        );
    }
}

#[tokio::test]
async fn requests_that_the_cache_cannot_answer_go_past_it() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG], "hello"));
    ask(&service, get("/")).await;
    for field in [
        ("if-match", "\"v1\""),
        ("if-unmodified-since", "Wed, 31 Dec 2025 00:00:00 GMT"),
        ("upgrade", "websocket"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("x-http-method-override", "DELETE"),
    ] {
        assert_eq!(
            ask(&service, get_with("/", &[field])).await.said(),
            "fwd=bypass",
            "{field:?}"
        );
    }
    assert_eq!(
        ask(&service, get_with("/", &[("content-length", "0")]))
            .await
            .said(),
        "hit"
    );
}

/// RFC 5861 §3.
#[tokio::test]
async fn a_stale_answer_is_served_at_once_and_refreshed_once() {
    let room = room();
    let version = AtomicUsize::new(0);
    let service = room.answering(move |_| {
        let fields = [("cache-control", "max-age=60, stale-while-revalidate=30")];
        text(&fields, version.fetch_add(1, Ordering::SeqCst).to_string())
    });
    ask(&service, get("/")).await;
    room.pass_secs(70);
    for _ in 0..5 {
        let stale = ask(&service, get("/")).await;
        assert_eq!(
            (stale.text(), stale.said()),
            ("0", "hit; detail=stale-while-revalidate")
        );
        assert_eq!(stale.field("age"), "70");
    }
    let deadline = tokio::time::sleep(Duration::from_secs(10));
    tokio::pin!(deadline);
    while room.tasks.spawner().running() > 0 {
        tokio::select! {
            () = &mut deadline => panic!("the refresh never ended"),
            () = tokio::task::yield_now() => {}
        }
    }
    let fresh = ask(&service, get("/")).await;
    assert_eq!((fresh.text(), fresh.said()), ("1", "hit"));
    assert_eq!(service.inner().calls(), 2);
    room.pass_secs(91);
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=stale; stored");
}

/// RFC 5861 §4.
#[tokio::test]
async fn a_stale_answer_stands_in_for_an_origin_that_fails() {
    let room = room();
    let now = std::sync::Arc::new(AtomicU16::new(200));
    let says = std::sync::Arc::clone(&now);
    let service = room.before(move |_| {
        let status = says.load(Ordering::SeqCst);
        Box::pin(async move {
            let mut response = text(&[("cache-control", "max-age=60, stale-if-error=30")], "x");
            *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Broken)?;
            Ok(response)
        })
    });
    ask(&service, get("/")).await;
    room.pass_secs(80);
    // 0 stands for a service that fails without an answer.
    for status in [500, 502, 503, 504, 0] {
        now.store(status, Ordering::SeqCst);
        let stale = ask(&service, get("/")).await;
        assert_eq!(stale.status, StatusCode::OK, "{status}");
        assert_eq!(stale.said(), "fwd=stale; detail=stale-if-error");
    }
    now.store(501, Ordering::SeqCst);
    assert_eq!(
        ask(&service, get("/x")).await.status,
        StatusCode::NOT_IMPLEMENTED
    );
    room.pass_secs(11);
    now.store(0, Ordering::SeqCst);
    assert_eq!(send(&service, get("/")).await.err(), Some(Broken));
    now.store(503, Ordering::SeqCst);
    let failed = ask(&service, get("/")).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_was_invalidated_does_not_stand_in_either() {
    let room = room();
    let service = room.before(|request| {
        let fails = request.headers().contains_key("x-fail");
        Box::pin(async move {
            let mut response = text(&[("cache-control", "max-age=60, stale-if-error=3600")], "x");
            if fails {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok(response)
        })
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    drop(room.cache.journal().append([Marker::tag("/")]));
    let failed = ask(&service, get_with("/", &[("x-fail", "1")])).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// The race that nearly every cache loses: computed before the change, stored after it.
#[tokio::test]
async fn what_is_invalidated_while_it_is_computed_is_never_served_afterwards() {
    let room = room();
    let (go, gate) = tokio::sync::watch::channel(false);
    let service = room.before(move |_| {
        let mut gate = gate.clone();
        Box::pin(async move {
            let mut response = text(&[MINUTE], "old");
            response
                .extensions_mut()
                .insert(CacheTags::new(["contacts"]));
            gate.wait_for(|open| *open).await.map_err(|_| Broken)?;
            Ok(response)
        })
    });
    for marker in [
        Marker::tag("contacts"),
        Marker::tag("/c"),
        Marker::key("/c?x=1"),
        Marker::Everything,
    ] {
        go.send_replace(false);
        let asking = tokio::spawn({
            let service = service.clone();
            async move { ask(&service, get("/c?x=1")).await }
        });
        crate::cache_room::settle().await;
        drop(room.cache.journal().append(std::slice::from_ref(&marker)));
        go.send_replace(true);
        assert_eq!(asking.await.unwrap().said(), "fwd=uri-miss; stored");
        let next = ask(&service, get("/c?x=1")).await;
        assert_eq!(next.said(), "fwd=uri-miss; stored", "{marker:?}");
        assert_eq!(ask(&service, get("/c?x=1")).await.said(), "hit");
        drop(room.cache.journal().append([Marker::Everything]));
    }
}

/// A 304 by a date as coarse as a second must not confirm what was invalidated in that second.
#[tokio::test]
async fn what_was_invalidated_while_it_is_validated_is_not_confirmed() {
    let room = room();
    let cache = room.cache.clone();
    let service = room.answering(move |request| {
        let mut response = text(&[MINUTE, TAG], "x");
        if request.headers().contains_key("if-none-match") {
            drop(cache.journal().append([Marker::tag("/")]));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    let validated = ask(&service, get("/")).await;
    assert_eq!(validated.said(), "fwd=stale; fwd-status=304; stored");
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn fields_of_one_connection_reach_their_client_and_nobody_else() {
    let room = room();
    let fields = [
        MINUTE,
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
    ];
    let service = room.answering(move |_| text(&fields, "x"));
    let miss = ask(&service, get("/")).await;
    assert_eq!(
        (miss.field("x-hop"), miss.field("connection")),
        ("1", "x-hop")
    );
    let hit = ask(&service, get("/")).await;
    for name in ["x-hop", "connection", "keep-alive"] {
        assert_eq!(hit.field(name), "", "{name}");
    }
    assert_eq!(hit.said(), "hit");
}

#[tokio::test]
async fn a_hop_s_field_list_cannot_merge_variants() {
    let room = room();
    let fields = [MINUTE, ("vary", "x-v"), ("connection", "vary")];
    let service = room.answering(move |_| text(&fields, "x"));
    ask(&service, get_with("/", &[("x-v", "1")])).await;
    let other = ask(&service, get_with("/", &[("x-v", "2")])).await;
    assert_eq!(other.said(), "fwd=vary-miss; stored");
}

#[tokio::test]
async fn a_cache_that_is_switched_off_touches_nothing() {
    let room = room_with(|config| config.enabled = false);
    let service = room.answering(|request| {
        let asked = request.headers().get("if-none-match").cloned();
        let mut response = text(&[MINUTE], "x");
        response.headers_mut().insert("x-asked", asked.unwrap());
        response
    });
    for calls in 1..3 {
        let seen = ask(&service, get_with("/", &[("if-none-match", "\"a\"")])).await;
        assert_eq!(
            (seen.field("x-asked"), seen.field("cache-status")),
            ("\"a\"", "")
        );
        assert_eq!(service.inner().calls(), calls);
    }
    assert!(room.cache.is_empty());
}

#[tokio::test]
async fn without_the_status_header_nothing_tells_of_the_cache_but_age() {
    let room = room_with(|config| config.cache_status = StatusDetail::Off);
    let service = room.answering(|_| text(&[MINUTE], "x"));
    for age in ["", "0"] {
        let seen = ask(&service, get("/")).await;
        assert_eq!((seen.field("cache-status"), seen.field("age")), ("", age));
    }
}

#[tokio::test]
async fn the_readiness_of_the_service_is_respected() {
    let room = room();
    let (mock, mut handle) = tower_test::mock::pair::<http::Request<()>, Response<_>>();
    let mut service = CacheLayer::new(room.cache.clone()).layer(mock);
    handle.allow(0);
    let early = tokio::time::timeout(Duration::from_millis(20), service.ready()).await;
    assert!(early.is_err(), "the service behind is not ready");
    handle.allow(1);
    let call = tower::Service::call(service.ready().await.unwrap(), get("/"));
    let answer = async {
        let (request, reply) = handle.next_request().await.unwrap();
        assert_eq!(request.uri(), "/");
        reply.send_response(text(&[MINUTE], "x"));
    };
    let (response, ()) = tokio::join!(call, answer);
    assert_eq!(
        read(response.unwrap()).await.unwrap().said(),
        "fwd=uri-miss; stored"
    );
}
