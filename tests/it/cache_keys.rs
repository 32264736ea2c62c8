//! What tells answers apart: host, target, what of the query counts, and a part of the service's own choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use tower::Layer;
use tower_keep::cache::{CacheLayer, CacheRule, KeyPart};
use tower_keep::journal::Marker;
use tower_keep::pattern::Pattern;

use crate::cache_room::{Cached, Room, ask, get, get_with, request, room, room_with, settle, text};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

/// A service that says which target it was asked for.
fn echoing(room: &Room) -> Cached {
    room.answering(|request| text(&[MINUTE], request.uri().to_string()))
}

/// Asks for `first`, and says for each of the others whether it is served the same.
async fn alike(service: &Cached, first: &str, others: &[(&str, bool)]) {
    assert_eq!(
        ask(service, get(first)).await.text(),
        first,
        "as the client sent it"
    );
    for (other, same) in others {
        let seen = ask(service, get(other)).await;
        let expected = if *same { first } else { *other };
        assert_eq!(seen.text(), expected, "{first} and {other}");
        assert_eq!(seen.said() == "hit", *same, "{first} and {other}");
    }
}

#[tokio::test]
async fn parameters_that_do_not_count_tell_nothing_apart() {
    let room = room_with(|config| {
        config.query_ignored = vec!["utm_*".into(), "fbclid".into()];
    });
    let service = echoing(&room);
    alike(
        &service,
        "/a?page=2&utm_source=x",
        &[
            ("/a?page=2", true),
            ("/a?utm_medium=y&page=2&fbclid=7", true),
            ("/a?page=2&", true),
            ("/a?page=2&utm%5Fsource=z", true),
            ("/a?page=3", false),
            ("/a?page=2&fbclida=1", false),
            ("/a?page=2&UTM_source=x", false),
            ("/a", false),
        ],
    )
    .await;
    alike(
        &service,
        "/b?utm_source=x",
        &[("/b", true), ("/b?", true), ("/b?fbclid", true)],
    )
    .await;
}

#[tokio::test]
async fn if_only_some_parameters_count_no_others_do() {
    let room = room_with(|config| {
        config.query_only = vec!["page".into(), "q*".into()];
        config.query_ignored = vec!["qx".into()];
    });
    let service = echoing(&room);
    alike(
        &service,
        "/a?page=2&q=x&new=1",
        &[
            ("/a?page=2&q=x", true),
            ("/a?any=1&page=2&thing=2&q=x", true),
            ("/a?page=2&q=x&qx=7", true),
            ("/a?q=x&page=2", false),
            ("/a?page=2&q=x&query=1", false),
            ("/a?page=2", false),
        ],
    )
    .await;
}

/// The first of several values of one name often wins, so their order is theirs.
#[tokio::test]
async fn sorted_parameters_are_the_same_in_any_order_but_for_those_of_one_name() {
    let room = room_with(|config| config.query_sorted = true);
    let service = echoing(&room);
    alike(
        &service,
        "/a?b=1&a=2&a=1",
        &[
            ("/a?a=2&a=1&b=1", true),
            ("/a?a=2&b=1&a=1", true),
            ("/a?a=1&a=2&b=1", false),
            ("/a?b=1&a=2", false),
        ],
    )
    .await;
}

#[tokio::test]
async fn unless_told_otherwise_every_byte_of_the_query_counts() {
    let service_room = room();
    let service = echoing(&service_room);
    alike(
        &service,
        "/a?b=1&a=2",
        &[
            ("/a?a=2&b=1", false),
            ("/a?b=1&a=2&", false),
            ("/a?b=1&a=2&utm_source=x", false),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_rule_says_for_its_route_alone_what_counts() {
    let room = room_with(|config| {
        config.query_ignored = vec!["utm_*".into()];
        config.rules = vec![
            CacheRule::new("/list/{name}").query_only(["page"]),
            CacheRule::new("/list/all"),
        ];
    });
    let service = echoing(&room);
    alike(
        &service,
        "/list/a?page=2&x=1",
        &[
            ("/list/a?x=2&page=2", true),
            ("/list/a?page=2", true),
            ("/list/a?page=3", false),
        ],
    )
    .await;
    // The more exact rule says nothing of the query, and no rule nothing at all.
    alike(
        &service,
        "/list/all?page=2&x=1",
        &[("/list/all?page=2", false)],
    )
    .await;
    alike(&service, "/other?page=2&x=1", &[("/other?page=2", false)]).await;
    alike(&service, "/other?x=1&utm_id=3", &[("/other?x=1", true)]).await;
}

/// Whatever counts, what is stored is found by its path, its tags and patterns over what counts.
#[tokio::test]
async fn a_purge_reaches_what_is_stored_under_a_shorter_query() {
    for marker in [
        Marker::tag("/a"),
        Marker::key("/a?page=2"),
        Marker::pattern(Pattern::parse("/a*").unwrap()),
        Marker::Everything,
    ] {
        let room = room_with(|config| {
            config.query_ignored = vec!["utm_*".into()];
            config.query_sorted = true;
        });
        let service = echoing(&room);
        ask(&service, get("/a?utm_source=x&page=2")).await;
        assert_eq!(ask(&service, get("/a?page=2")).await.said(), "hit");
        drop(room.cache.journal().append(std::slice::from_ref(&marker)));
        let seen = ask(&service, get("/a?page=2")).await;
        assert_eq!(seen.said(), "fwd=uri-miss; stored", "{marker:?}");
    }
}

fn tenant() -> KeyPart {
    KeyPart::new(|request| {
        let tenant = request.headers.get("x-tenant")?;
        tenant.to_str().ok().map(Arc::from)
    })
}

/// A service before which tenants are kept apart, and which says whose answer it is.
fn by_tenant(room: &Room) -> Cached {
    let inner = room.answering(|request| {
        let tenant = request.headers().get("x-tenant");
        let tenant = tenant.map_or("nobody", |value| value.to_str().unwrap());
        text(&[MINUTE, ("etag", "\"same\"")], format!("{tenant}'s"))
    });
    let cache = room.cache.clone().with_key_part(tenant());
    CacheLayer::new(cache).layer(inner.inner().clone())
}

fn of(tenant: &str, method: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut all = vec![("host", "a.example"), ("x-tenant", tenant)];
    all.extend_from_slice(fields);
    request(method, "/a", &all)
}

#[tokio::test]
async fn two_tenants_never_see_each_other_s_answers() {
    let room = room();
    let service = by_tenant(&room);
    for said in ["fwd=uri-miss; stored", "hit"] {
        for (name, body) in [("anna", "anna's"), ("berta", "berta's"), ("", "'s")] {
            let seen = ask(&service, of(name, "GET", &[])).await;
            assert_eq!((seen.text(), seen.said()), (body, said));
        }
    }
    let part = ask(&service, of("berta", "GET", &[("range", "bytes=0-0")])).await;
    assert_eq!(part.text(), "b");
    let head = ask(&service, of("anna", "HEAD", &[])).await;
    assert_eq!((head.said(), head.field("content-length")), ("hit", "6"));
    let stored = room.cache.stored(Some("anna"), "a.example", "/a");
    assert_eq!((stored.len(), stored[0].hits), (1, 2));
    for (part, answers) in [
        (Some("berta"), 1),
        (Some(""), 1),
        (Some("clara"), 0),
        (None, 0),
    ] {
        let stored = room.cache.stored(part, "a.example", "/a");
        assert_eq!(stored.len(), answers, "{part:?}");
    }
}

/// A stale answer of one is no stand-in, and no question, for another.
#[tokio::test]
async fn tenants_neither_validate_nor_wait_for_each_other() {
    let room = room();
    let asked = Arc::new(AtomicUsize::new(0));
    let (questions, cache) = (
        Arc::clone(&asked),
        room.cache.clone().with_key_part(tenant()),
    );
    let (open, gate) = tokio::sync::watch::channel(true);
    let inner = room.before(move |request| {
        let mut gate = gate.clone();
        let question = request.headers().contains_key("if-none-match");
        questions.fetch_add(usize::from(question), Ordering::SeqCst);
        Box::pin(async move {
            let _ = gate.wait_for(|open| *open).await;
            let tenant = request.headers()["x-tenant"].to_str().unwrap().to_owned();
            Ok(text(&[MINUTE, ("etag", "\"same\"")], tenant))
        })
    });
    let service = CacheLayer::new(cache).layer(inner.inner().clone());
    ask(&service, of("anna", "GET", &[])).await;
    room.pass_secs(61);
    ask(&service, of("berta", "GET", &[])).await;
    assert_eq!(
        asked.load(Ordering::SeqCst),
        0,
        "nothing of anna's is asked about"
    );
    room.cache.clear();
    open.send_replace(false);
    let asking: Vec<_> = (0..12)
        .map(|at| {
            let service = service.clone();
            let name = ["anna", "berta", "clara"][at % 3];
            tokio::spawn(async move { (name, ask(&service, of(name, "GET", &[])).await) })
        })
        .collect();
    settle().await;
    assert_eq!(service.inner().calls(), 2 + 3, "one for each tenant");
    open.send_replace(true);
    for seen in asking {
        let (name, seen) = seen.await.unwrap();
        assert_eq!(seen.text(), name);
    }
    assert_eq!(service.inner().calls(), 2 + 3);
}

#[tokio::test]
async fn whoever_has_no_part_goes_past_the_cache() {
    let room = room();
    let service = by_tenant(&room);
    for method in ["GET", "GET", "HEAD"] {
        let seen = ask(&service, request(method, "/a", &[("host", "a.example")])).await;
        assert_eq!(seen.said(), "fwd=bypass");
    }
    assert!(room.cache.is_empty());
}

/// Part and host stand beside each other in the key, and must not run into each other.
#[tokio::test]
async fn a_crafted_part_cannot_stand_for_another_host_s() {
    let room = room();
    let service = by_tenant(&room);
    let ask_as = |tenant: &'static str, host: &'static str| {
        let service = service.clone();
        async move {
            let fields = [("host", host), ("x-tenant", tenant)];
            ask(&service, get_with("/a", &fields)).await
        }
    };
    assert_eq!(
        ask_as("a", "bc.example").await.said(),
        "fwd=uri-miss; stored"
    );
    assert_eq!(
        ask_as("ab", "c.example").await.said(),
        "fwd=uri-miss; stored"
    );
    assert_eq!(
        ask_as("abc.example", "").await.said(),
        "fwd=uri-miss; stored"
    );
    assert_eq!(ask_as("a", "bc.example").await.text(), "a's");
}

#[tokio::test]
async fn a_purge_and_a_change_reach_all_tenants() {
    for how in ["path", "key", "everything", "PUT"] {
        let room = room();
        let service = by_tenant(&room);
        for name in ["anna", "berta"] {
            ask(&service, of(name, "GET", &[])).await;
        }
        match how {
            "path" => drop(room.cache.journal().append(&[Marker::tag("/a")])),
            "key" => drop(room.cache.journal().append(&[Marker::key("/a")])),
            "everything" => drop(room.cache.journal().append(&[Marker::Everything])),
            method => drop(ask(&service, of("anna", method, &[])).await),
        }
        for name in ["anna", "berta"] {
            let seen = ask(&service, of(name, "GET", &[])).await;
            assert_eq!(seen.said(), "fwd=uri-miss; stored", "{how}, {name}");
        }
    }
}

/// RFC 9112 §3.2: "A server MUST respond with a 400 .. to any request message that .. contains more than one Host
/// header field line"; §3.2.2: of a target in absolute form and another Host the target counts, but not every
/// handler knows. Whoever can make one URL fill another's key poisons it.
#[tokio::test]
async fn a_request_that_names_two_hosts_fills_no_key() {
    let room = room();
    let service = room.answering(|request| {
        let host = request.headers().get_all("host").iter().next_back();
        let host = host
            .map_or("none", |host| host.to_str().unwrap())
            .to_owned();
        text(&[MINUTE], host)
    });
    for (uri, fields) in [
        (
            "/",
            &[("host", "victim.example"), ("host", "evil.example")][..],
        ),
        (
            "/",
            &[("host", "victim.example"), ("host", "victim.example")],
        ),
        ("http://victim.example/", &[("host", "evil.example")]),
        ("http://victim.example/", &[("host", "")]),
        ("http://victim.example/", &[("host", "victim.example:80")]),
        (
            "http://victim.example/",
            &[("host", "victim.example"), ("host", "evil.example")],
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let seen = ask(&service, request(method, uri, fields)).await;
            assert_eq!(seen.said(), "fwd=bypass", "{uri} {fields:?}");
        }
    }
    assert!(room.cache.is_empty());
    let honest = ask(&service, get_with("/", &[("host", "victim.example")])).await;
    assert_eq!(
        (honest.text(), honest.said()),
        ("victim.example", "fwd=uri-miss; stored")
    );
}

/// One host under its name, in a target and in a field.
#[tokio::test]
async fn the_same_host_is_the_same_wherever_it_is_named() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE], "x"));
    ask(&service, get_with("/", &[("host", "a.example")])).await;
    for (uri, fields) in [
        ("http://a.example/", &[][..]),
        ("http://a.example/", &[("host", "a.example")]),
        ("http://a.example/", &[("host", "A.EXAMPLE")]),
    ] {
        assert_eq!(
            ask(&service, get_with(uri, fields)).await.said(),
            "hit",
            "{uri} {fields:?}"
        );
    }
    for host in [
        "b.example",
        "a.example:8080",
        "a.example.",
        "xa.example",
        "",
    ] {
        let seen = ask(&service, get_with("/", &[("host", host)])).await;
        assert_eq!(seen.said(), "fwd=uri-miss; stored", "{host}");
    }
}

#[tokio::test]
async fn where_hosts_do_not_count_they_share() {
    let room = room_with(|config| config.key_authority = false);
    let service = room.answering(|_| text(&[MINUTE], "x"));
    ask(&service, get_with("/", &[("host", "a.example")])).await;
    for fields in [
        &[("host", "b.example")][..],
        &[],
        &[("host", "a"), ("host", "b")],
    ] {
        assert_eq!(
            ask(&service, get_with("/", fields)).await.said(),
            "hit",
            "{fields:?}"
        );
    }
    assert_eq!(room.cache.stored(None, "", "/").len(), 1);
}

/// What a framework makes of such a GET is another method's answer.
#[tokio::test]
async fn a_method_that_is_said_in_a_field_goes_past_the_cache() {
    let room = room();
    let service = room.answering(|request| {
        let overridden = request
            .headers()
            .iter()
            .any(|(name, _)| name.as_str().contains("method"));
        text(&[MINUTE], if overridden { "deleted" } else { "page" })
    });
    for name in [
        "x-http-method-override",
        "X-HTTP-Method",
        "x-method-override",
    ] {
        let seen = ask(&service, get_with("/", &[(name, "DELETE")])).await;
        assert_eq!(
            (seen.text(), seen.said()),
            ("deleted", "fwd=bypass"),
            "{name}"
        );
    }
    assert_eq!(ask(&service, get("/")).await.text(), "page");
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ] {
        let seen = ask(&service, get_with("/", &[(name, "PUT")])).await;
        assert_eq!(seen.said(), "fwd=bypass", "{name}");
    }
}

/// RFC 9110 §9.3.1: content in a GET "has no generally defined semantics", and no key tells it apart.
#[tokio::test]
async fn content_in_a_get_goes_past_the_cache() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE], "x"));
    for field in [
        ("content-length", "3"),
        ("content-length", "00"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(
            ask(&service, get_with("/", &[field])).await.said(),
            "fwd=bypass",
            "{field:?}"
        );
    }
    assert!(room.cache.is_empty());
}
