//! What is stored is confirmed by a 304 (RFC 9111 §4.3.4): which of its fields are taken over, and for whom.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower_keep::cache::{Browser, CacheFor, CacheRule, CacheTags, NoStore};
use tower_keep::journal::Marker;

use crate::cache_room::{
    Cached, Content, Room, answer, ask, empty, get, get_with, room, room_with, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"v1\"");

/// A service that answers a question with a 304 of these fields, and anything else with a page.
fn confirming(room: &Room, update: &'static [(&str, &str)]) -> Cached {
    confirming_as(room, move |_| answer(update, empty()))
}

fn confirming_as(
    room: &Room,
    update: impl Fn(&Request<()>) -> Response<Content> + Send + Sync + 'static,
) -> Cached {
    room.answering(move |request| {
        if request.headers().contains_key("if-none-match") {
            let mut response = update(request);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        let fields = [
            MINUTE,
            TAG,
            ("content-type", "text/plain"),
            ("content-language", "en"),
            ("x-old", "1"),
            ("x-both", "old"),
        ];
        text(&fields, "hello")
    })
}

/// RFC 9111 §3.2: "the cache MUST add each header field in the provided response to the stored response,
/// replacing field values that are already present", but for those of one connection and those that describe
/// the content that a 304 does not have.
#[tokio::test]
async fn its_fields_replace_the_stored_ones_but_for_those_of_the_content() {
    let room = room();
    let service = confirming(
        &room,
        &[
            ("cache-control", "max-age=120"),
            TAG,
            ("x-both", "new"),
            ("x-both", "newer"),
            ("x-new", "1"),
            ("content-length", "0"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ],
    );
    ask(&service, get("/")).await;
    room.pass_secs(61);
    let confirmed = ask(&service, get("/")).await;
    room.pass_secs(119);
    let hit = ask(&service, get("/")).await;
    assert_eq!(hit.said(), "hit", "the new lifetime counts");
    assert_eq!((confirmed.field("age"), hit.field("age")), ("0", "119"));
    for seen in [&confirmed, &hit] {
        assert_eq!((seen.text(), seen.field("content-length")), ("hello", "5"));
        assert_eq!((seen.field("x-old"), seen.field("x-new")), ("1", "1"));
        assert_eq!(seen.field("content-type"), "text/plain");
        let both: Vec<_> = seen.headers.get_all("x-both").iter().collect();
        assert_eq!(both, ["new", "newer"]);
        for name in [
            "content-encoding",
            "content-range",
            "transfer-encoding",
            "x-hop",
            "connection",
        ] {
            assert_eq!(seen.field(name), "", "{name}");
        }
    }
    assert_eq!(hit.field("date"), "Thu, 01 Jan 2026 00:01:01 GMT");
    room.pass_secs(1);
    assert_ne!(ask(&service, get("/")).await.said(), "hit");
}

/// RFC 9111 §4.2.3: the age of a confirmed answer is reckoned from the 304's own `Age` and `Date`.
#[tokio::test]
async fn the_age_of_a_confirmation_is_its_own() {
    let room = room();
    let service = confirming(&room, &[TAG, ("age", "40")]);
    ask(&service, get("/")).await;
    room.pass_secs(61);
    assert_eq!(ask(&service, get("/")).await.field("age"), "40");
    room.pass_secs(19);
    let hit = ask(&service, get("/")).await;
    assert_eq!((hit.said(), hit.field("age")), ("hit", "59"));
    room.pass_secs(1);
    assert_ne!(ask(&service, get("/")).await.said(), "hit");
}

/// RFC 9111 §7.3: a cookie is for the one client that it was sent to.
#[tokio::test]
async fn its_cookie_goes_to_the_client_that_asked_and_to_nobody_else() {
    let room = room();
    let cookies = &[TAG, ("set-cookie", "a=1"), ("set-cookie", "b=2")];
    let service = confirming(&room, cookies);
    ask(&service, get("/")).await;
    room.pass_secs(61);
    let confirmed = ask(&service, get("/")).await;
    let sent: Vec<_> = confirmed.headers.get_all("set-cookie").iter().collect();
    assert_eq!(sent, ["a=1", "b=2"]);
    for answer in room.cache.stored(None, "", "/") {
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    room.pass_secs(61);
    // Even to a client that has the page already.
    let unchanged = ask(&service, get_with("/", &[("if-none-match", "\"v1\"")])).await;
    assert_eq!(
        (unchanged.status.as_u16(), unchanged.field("set-cookie")),
        (304, "a=1")
    );
}

/// RFC 9111 §3.5: what was said to somebody who is signed in is stored only if it says itself that it is for
/// everyone. That the stored answer says so is not enough: its fields are another answer's.
#[tokio::test]
async fn what_it_says_to_somebody_who_is_signed_in_is_stored_only_if_it_is_for_everyone() {
    for (line, stored) in [
        ("", false),
        ("max-age=60", false),
        ("private", false),
        ("public, max-age=60", true),
        ("max-age=60, must-revalidate", true),
        ("s-maxage=60", true),
    ] {
        let room = room();
        let service = room.answering(move |request| {
            if !request.headers().contains_key("if-none-match") {
                return text(&[("cache-control", "public, max-age=60"), TAG], "hello");
            }
            let mut fields = vec![TAG, ("x-hers", "1")];
            if !line.is_empty() {
                fields.push(("cache-control", line));
            }
            let mut response = answer(&fields, empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        });
        ask(&service, get("/")).await;
        room.pass_secs(61);
        let hers = ask(&service, get_with("/", &[("authorization", "Bearer anna")])).await;
        assert_eq!(
            (hers.text(), hers.field("x-hers")),
            ("hello", "1"),
            "{line}"
        );
        let kept = room.cache.stored(None, "", "/");
        assert_eq!(kept[0].headers.contains_key("x-hers"), stored, "{line}");
        assert_eq!(!kept[0].ttl.is_zero(), stored, "{line}");
        let next = ask(&service, get("/")).await;
        assert_eq!(next.said() == "hit", stored, "{line}");
    }
}

/// RFC 9111 §4.3.4: "If the .. validator is strong .. and none of the initial set contains at least one of the
/// same strong validators, then the cache MUST NOT use the new response to update any stored responses."
#[tokio::test]
async fn one_with_another_strong_tag_updates_nothing() {
    for (etag, updates) in [("\"v1\"", true), ("W/\"v1\"", true), ("\"v2\"", false)] {
        let room = room();
        let service = confirming_as(&room, move |_| {
            answer(&[MINUTE, ("etag", etag), ("x-new", "1")], empty())
        });
        ask(&service, get("/")).await;
        room.pass_secs(61);
        let seen = ask(&service, get("/")).await;
        assert_eq!(seen.text(), "hello", "{etag}");
        assert_eq!(
            seen.field("etag"),
            "\"v1\"",
            "{etag}: the content is that of the stored tag"
        );
        let kept = room.cache.stored(None, "", "/");
        assert_eq!(kept[0].headers.contains_key("x-new"), updates, "{etag}");
        assert_eq!(!kept[0].ttl.is_zero(), updates, "{etag}");
    }
}

/// RFC 9111 §5.2.2.5: "no-store .. MUST NOT store any part of either the immediate request or the response".
#[tokio::test]
async fn one_that_forbids_storing_serves_this_client_and_updates_nothing() {
    for line in ["no-store", "private, max-age=60"] {
        let room = room();
        let service = confirming_as(&room, move |_| {
            answer(&[("cache-control", line), TAG, ("x-new", "1")], empty())
        });
        ask(&service, get("/")).await;
        room.pass_secs(61);
        let seen = ask(&service, get("/")).await;
        assert_eq!((seen.text(), seen.field("cache-control")), ("hello", line));
        for answer in room.cache.stored(None, "", "/") {
            assert!(!answer.headers.contains_key("x-new"), "{line}");
            assert!(answer.ttl.is_zero(), "{line}");
        }
        assert_ne!(ask(&service, get("/")).await.said(), "hit", "{line}");
    }
}

#[tokio::test]
async fn what_a_handler_says_in_code_of_a_304_forbids_storing_as_well() {
    let room = room();
    let service = confirming_as(&room, |_| {
        let mut response = answer(&[MINUTE, TAG, ("x-new", "1")], empty());
        response.extensions_mut().insert(NoStore);
        response
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    assert_eq!(ask(&service, get("/")).await.text(), "hello");
    let kept = room.cache.stored(None, "", "/");
    assert!(kept.iter().all(|answer| answer.ttl.is_zero()));
}

/// RFC 9211 §2.6: "stored" says "whether the cache stored the response", and nothing else may be claimed.
#[tokio::test]
async fn one_that_is_not_stored_does_not_say_that_it_is() {
    let room = room();
    let service = confirming(&room, &[("cache-control", "no-store"), TAG]);
    ask(&service, get("/")).await;
    room.pass_secs(61);
    assert_eq!(
        ask(&service, get("/")).await.said(),
        "fwd=stale; fwd-status=304"
    );
}

/// A 304 without tags says nothing of them; one with tags adds them, and takes none away: what is still named by
/// an old one would escape its purge.
#[tokio::test]
async fn tags_outlive_a_304_and_are_added_to() {
    for (said, expected) in [
        ("", &["old"][..]),
        ("fields", &["new", "old"]),
        ("code", &["coded", "old"]),
    ] {
        let room = room();
        let service = room.answering(move |request| {
            let asked = request.headers().contains_key("if-none-match");
            let fields = match (asked, said) {
                (true, "fields") => vec![MINUTE, TAG, ("surrogate-key", "new")],
                _ => vec![MINUTE, TAG],
            };
            let mut response = text(&fields, if asked { "" } else { "hello" });
            let tags = match (asked, said) {
                (false, _) => CacheTags::new(["old"]),
                (true, "code") => CacheTags::new(["coded"]),
                (true, _) => return not_modified(response),
            };
            response.extensions_mut().insert(tags);
            if asked {
                not_modified(response)
            } else {
                response
            }
        });
        ask(&service, get("/")).await;
        room.pass_secs(61);
        ask(&service, get("/")).await;
        let kept = room.cache.stored(None, "", "/");
        let mut tags: Vec<&str> = kept[0].tags.iter().map(|tag| &**tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, expected, "{said}");
        for tag in expected {
            assert_eq!(ask(&service, get("/")).await.said(), "hit", "{said}");
            drop(room.cache.journal().append([Marker::tag(tag)]));
            ask(&service, get("/")).await;
            assert_eq!(ask(&service, get("/")).await.said(), "hit", "{said}");
            room.pass_secs(61);
            ask(&service, get("/")).await;
        }
    }
}

fn not_modified(mut response: Response<Content>) -> Response<Content> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// Each confirmation of a tagged answer must not make its list of tags longer: it has an end at 64, and beyond
/// that an old tag would be lost.
#[tokio::test]
async fn tags_that_are_said_again_are_not_counted_twice() {
    let room = room();
    let first = Arc::new(Mutex::new(true));
    let service = room.answering(move |request| {
        let mut first = first.lock().unwrap();
        let tags = if std::mem::take(&mut *first) {
            "again,old"
        } else {
            "again"
        };
        let response = text(&[MINUTE, TAG, ("cache-tag", tags)], "hello");
        if request.headers().contains_key("if-none-match") {
            return not_modified(response);
        }
        response
    });
    ask(&service, get("/")).await;
    for _ in 0..70 {
        room.pass_secs(61);
        ask(&service, get("/")).await;
    }
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
    let kept = room.cache.stored(None, "", "/");
    assert_eq!(kept[0].tags.len(), 2);
    drop(room.cache.journal().append([Marker::tag("old")]));
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn a_lifetime_given_in_code_outlives_a_304_that_gives_none() {
    let room = room();
    let service = room.answering(|request| {
        let mut response = text(&[TAG], "hello");
        if request.headers().contains_key("if-none-match") {
            return not_modified(response);
        }
        let minutes = CacheFor(Duration::from_secs(300));
        response.extensions_mut().insert(minutes);
        response
    });
    ask(&service, get("/")).await;
    for _ in 0..3 {
        room.pass_secs(299);
        assert_eq!(ask(&service, get("/")).await.said(), "hit");
        room.pass_secs(1);
        let confirmed = ask(&service, get("/")).await;
        assert_eq!(confirmed.said(), "fwd=stale; fwd-status=304; stored");
    }
}

#[tokio::test]
async fn a_lifetime_given_in_the_code_of_a_304_takes_the_place_of_the_old_one() {
    let room = room();
    let service = confirming_as(&room, |_| {
        let mut response = answer(&[TAG], empty());
        let ten = CacheFor(Duration::from_secs(10));
        response.extensions_mut().insert(ten);
        response
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    ask(&service, get("/")).await;
    room.pass_secs(9);
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
    room.pass_secs(1);
    assert_ne!(ask(&service, get("/")).await.said(), "hit");
}

/// What browsers are told is the operator's word, which a service's 304 does not unsay.
#[tokio::test]
async fn what_browsers_are_told_outlives_a_304() {
    let room = room_with(|config| {
        config.rules = vec![CacheRule::new("/").browser(Browser::Revalidate)];
    });
    let expires = ("expires", "Thu, 01 Jan 2026 01:00:00 GMT");
    let service = confirming_as(&room, move |_| {
        answer(
            &[("cache-control", "public, max-age=90"), TAG, expires],
            empty(),
        )
    });
    assert_eq!(
        ask(&service, get("/")).await.field("cache-control"),
        "no-cache"
    );
    room.pass_secs(61);
    for said in ["fwd=stale; fwd-status=304; stored", "hit"] {
        let seen = ask(&service, get("/")).await;
        assert_eq!((seen.said(), seen.text()), (said, "hello"));
        assert_eq!(
            (seen.field("cache-control"), seen.field("expires")),
            ("no-cache", "")
        );
    }
    // Here the service's own word counts.
    room.pass_secs(89);
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

/// RFC 9110 §15.4.5: a 304 to a question that the client asked and the cache passed on is the client's.
#[tokio::test]
async fn one_that_answers_the_client_s_own_question_stores_nothing() {
    let room = room();
    let service = confirming(&room, &[MINUTE, TAG]);
    let hers = [("cookie", "a=1"), ("if-none-match", "\"v1\"")];
    assert_eq!(ask(&service, get_with("/", &hers)).await.status, 304);
    assert!(room.cache.is_empty());
}

/// The followers of a question are answered by what it confirmed.
#[tokio::test]
async fn whoever_waits_for_a_confirmation_is_served_from_it() {
    let room = room();
    let (open, gate) = tokio::sync::watch::channel(true);
    let service = room.before(move |request| {
        let mut gate = gate.clone();
        Box::pin(async move {
            let _ = gate.wait_for(|open| *open).await;
            let response = text(&[MINUTE, TAG], "hello");
            if request.headers().contains_key("if-none-match") {
                return Ok(not_modified(response));
            }
            Ok(response)
        })
    });
    ask(&service, get("/")).await;
    room.pass_secs(61);
    open.send_replace(false);
    let asking: Vec<_> = (0..5)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { ask(&service, get("/")).await })
        })
        .collect();
    crate::cache_room::settle().await;
    assert_eq!(service.inner().calls(), 2);
    open.send_replace(true);
    let mut said = Vec::new();
    for seen in asking {
        let seen = seen.await.unwrap();
        assert_eq!(seen.text(), "hello");
        said.push(seen.said().to_owned());
    }
    assert_eq!(said[0], "fwd=stale; fwd-status=304; stored");
    assert!(
        said[1..].iter().all(|said| said == "fwd=stale; collapsed"),
        "{said:?}"
    );
    assert_eq!(service.inner().calls(), 2);
}

/// RFC 5861 §3: the question that goes out is about what is stored, whatever the client that is served meanwhile has,
/// and what comes back is for all.
#[tokio::test]
async fn a_refresh_in_the_background_asks_about_what_is_stored() {
    for changes in [false, true] {
        let room = room();
        let service = room.answering(move |request| {
            let asked = request.headers().get("if-none-match");
            let line = ("cache-control", "max-age=60, stale-while-revalidate=30");
            match asked.map(|asked| asked.to_str().unwrap()) {
                None => text(&[line, TAG], "hello"),
                Some("\"v1\"") if changes => text(&[line, ("etag", "\"v2\"")], "changed"),
                Some("\"v1\"") => not_modified(text(&[line, TAG], "")),
                Some(other) => panic!("asked about {other}"),
            }
        });
        ask(&service, get("/")).await;
        room.pass_secs(70);
        let known = [("if-none-match", "\"v0\"")];
        let stale = ask(&service, get_with("/", &known)).await;
        assert_eq!((stale.text(), stale.field("age")), ("hello", "70"));
        crate::cache_room::settle().await;
        assert_eq!(room.tasks.spawner().running(), 0, "it is done");
        let hit = ask(&service, get("/")).await;
        let body = if changes { "changed" } else { "hello" };
        assert_eq!(
            (hit.said(), hit.text(), hit.field("age")),
            ("hit", body, "0")
        );
        assert_eq!(service.inner().calls(), 2);
    }
}
