//! What an operator says of single routes, what answers can be purged by, and what the cache tells of what it has.

use std::time::Duration;

use http::{Response, StatusCode};
use tower_keep::cache::{Browser, CacheRule, CacheTags, NoStore, Store};
use tower_keep::journal::Marker;

use crate::cache_room::{
    Cached, Content, Room, answer, ask, empty, get, get_with, piped, read, request, room,
    room_with, send, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"v1\"");
const SECOND: Duration = Duration::from_secs(1);

fn ruled(rules: impl IntoIterator<Item = CacheRule>) -> Room {
    room_with(|config| config.rules = rules.into_iter().collect())
}

fn saying(room: &Room, fields: &'static [(&str, &str)]) -> Cached {
    room.answering(move |_| text(fields, "x"))
}

/// For how many seconds a page of this path is a hit, looked at in steps of ten: 0 for not at all.
async fn hits_for(room: &Room, service: &Cached, path: &str) -> u64 {
    room.cache.clear();
    ask(service, get(path)).await;
    let mut secs = 0;
    while ask(service, get(path)).await.said() == "hit" {
        room.pass_secs(10);
        secs += 10;
        assert!(secs < 10_000, "it never ends");
    }
    secs
}

#[tokio::test]
async fn a_rule_says_whether_and_how_long_answers_are_stored() {
    let rule = |store| CacheRule::new("/a").store(store).ttl(30 * SECOND);
    for (rule, fields, secs) in [
        (CacheRule::new("/a"), &[MINUTE][..], 60),
        (CacheRule::new("/a"), &[], 0),
        (rule(Store::Obey), &[], 30),
        (rule(Store::Obey), &[MINUTE], 30),
        (rule(Store::Obey), &[("expires", "0")], 30),
        (rule(Store::Obey), &[("cache-control", "no-store")], 0),
        (
            rule(Store::Obey),
            &[("cache-control", "private, max-age=60")],
            0,
        ),
        (rule(Store::Obey), &[("cache-control", "no-cache"), TAG], 0),
        (CacheRule::new("/a").store(Store::Never), &[MINUTE], 0),
        (
            CacheRule::new("/a").store(Store::Never),
            &[("cache-control", "public, s-maxage=60")],
            0,
        ),
        (rule(Store::Force), &[("cache-control", "no-store")], 30),
        (
            rule(Store::Force),
            &[("cache-control", "private, max-age=600")],
            30,
        ),
        (
            rule(Store::Force),
            &[("cache-control", "no-cache, must-revalidate")],
            30,
        ),
        (rule(Store::Force), &[("cdn-cache-control", "no-store")], 30),
        (rule(Store::Force), &[("expires", "0")], 30),
        // One person's, and what no cache can tell apart, is not to be forced.
        (rule(Store::Force), &[MINUTE, ("set-cookie", "a=1")], 0),
        (rule(Store::Force), &[MINUTE, ("vary", "*")], 0),
    ] {
        let case = format!("{rule:?} {fields:?}");
        let room = ruled([rule]);
        let service = saying(&room, fields);
        assert_eq!(hits_for(&room, &service, "/a").await, secs, "{case}");
    }
}

/// Nobody is sent what was made for somebody else.
#[tokio::test]
async fn what_is_forced_is_still_not_shared_with_or_by_somebody_who_is_signed_in() {
    let room = ruled([CacheRule::new("/a").store(Store::Force).ttl(60 * SECOND)]);
    let service = room.answering(|request| {
        let hers = request.headers().contains_key("cookie");
        text(
            &[("cache-control", "no-store")],
            if hers { "anna's" } else { "anyone's" },
        )
    });
    let hers = || get_with("/a", &[("cookie", "session=anna")]);
    for said in ["fwd=uri-miss", "fwd=uri-miss"] {
        assert_eq!(ask(&service, hers()).await.said(), said);
    }
    assert_eq!(ask(&service, get("/a")).await.text(), "anyone's");
    let seen = ask(&service, hers()).await;
    assert_eq!((seen.text(), seen.said()), ("anna's", "fwd=bypass"));
    let hit = ask(&service, get("/a")).await;
    assert_eq!((hit.text(), hit.said()), ("anyone's", "hit"));
}

/// The handler speaks of this one answer, the rule of all of them.
#[tokio::test]
async fn what_a_handler_says_in_code_stands_above_the_rule() {
    let room = ruled([CacheRule::new("/{path}")
        .store(Store::Force)
        .ttl(30 * SECOND)]);
    let service = room.answering(|request| {
        let mut response = text(&[], "x");
        if request.uri() == "/secret" {
            response.extensions_mut().insert(NoStore);
        } else {
            let long = tower_keep::cache::CacheFor(90 * SECOND);
            response.extensions_mut().insert(long);
        }
        response
    });
    assert_eq!(hits_for(&room, &service, "/secret").await, 0);
    assert_eq!(hits_for(&room, &service, "/long").await, 90);
}

/// A lifetime that is given to a route's pages is none for its accidents: one 503 would be everybody's for minutes,
/// and one redirection to a login everybody's page.
#[tokio::test]
async fn a_rule_s_lifetime_is_not_that_of_errors_and_redirections() {
    for status in [302, 303, 307, 401, 403, 500, 502, 503] {
        let room = ruled([CacheRule::new("/a").ttl(300 * SECOND)]);
        let service = room.answering(move |_| {
            let mut response = text(&[], "x");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        });
        ask(&service, get("/a")).await;
        let next = ask(&service, get("/a")).await;
        assert_ne!(next.said(), "hit", "{status}");
    }
}

#[tokio::test]
async fn of_several_rules_the_most_exact_one_counts() {
    let room = ruled([
        CacheRule::new("/{*all}").ttl(10 * SECOND),
        CacheRule::new("/reports/{id}").ttl(20 * SECOND),
        CacheRule::new("/reports/today").ttl(30 * SECOND),
        CacheRule::new("/reports/{id}/raw").store(Store::Never),
    ]);
    let service = saying(&room, &[]);
    for (path, secs) in [
        ("/anything/else", 10),
        ("/reports/7", 20),
        ("/reports/7?page=2", 20),
        ("/reports/today", 30),
        ("/reports/today?x", 30),
        ("/reports/7/raw", 0),
        ("/reports/7/other", 10),
        ("/", 0),
    ] {
        assert_eq!(hits_for(&room, &service, path).await, secs, "{path}");
    }
}

#[tokio::test]
async fn the_tags_of_a_route_purge_its_answers_and_no_others() {
    let room = ruled([
        CacheRule::new("/reports/{id}").tags(["reports", "all"]),
        CacheRule::new("/people/{id}").tags(["people", "all"]),
    ]);
    let service = room.answering(|request| {
        let mut response = text(&[MINUTE], "x");
        let own = request.uri().path().replace('/', ":");
        response.extensions_mut().insert(CacheTags::new([own]));
        response
    });
    let paths = ["/reports/1", "/reports/2", "/people/1", "/other"];
    for (tag, gone) in [
        ("reports", &["/reports/1", "/reports/2"][..]),
        ("all", &["/reports/1", "/reports/2", "/people/1"]),
        (":reports:1", &["/reports/1"]),
        ("nothing", &[]),
    ] {
        for path in paths {
            ask(&service, get(path)).await;
        }
        drop(room.cache.journal().append([Marker::tag(tag)]));
        for path in paths {
            let hit = ask(&service, get(path)).await.said() == "hit";
            assert_eq!(hit, !gone.contains(&path), "{tag}: {path}");
        }
    }
}

/// Browsers are told in place of what the service says; this cache goes by what the service says.
#[tokio::test]
async fn browsers_are_told_what_the_rule_says_on_the_miss_and_on_the_hit() {
    let said = "public, max-age=60";
    for (browser, told) in [
        (Browser::AsSaid, said),
        (Browser::Revalidate, "no-cache"),
        (Browser::NoStore, "no-store"),
        (Browser::Immutable, "public, max-age=31536000, immutable"),
    ] {
        let room = ruled([CacheRule::new("/a").browser(browser)]);
        let expires = ("expires", "Thu, 01 Jan 2026 00:01:00 GMT");
        let service =
            room.answering(move |_| text(&[("cache-control", said), expires, TAG], "hello"));
        for status in ["fwd=uri-miss; stored", "hit", "hit"] {
            let seen = ask(&service, get("/a")).await;
            assert_eq!((seen.said(), seen.text()), (status, "hello"));
            let lines: Vec<_> = seen.headers.get_all("cache-control").iter().collect();
            assert_eq!(lines, [told], "{browser:?}, {status}");
            assert_eq!(
                seen.headers.contains_key("expires"),
                browser == Browser::AsSaid
            );
        }
        for asked in [
            request("HEAD", "/a", &[]),
            get_with("/a", &[("if-none-match", "\"v1\"")]),
            get_with("/a", &[("range", "bytes=0-1")]),
        ] {
            let seen = ask(&service, asked).await;
            assert_eq!(
                seen.field("cache-control"),
                told,
                "{browser:?} {}",
                seen.status
            );
        }
        assert_eq!(hits_for(&room, &service, "/a").await, 60, "{browser:?}");
        let other = ask(&service, get("/other")).await;
        assert_eq!(other.field("cache-control"), said);
    }
}

/// A file that is asked for before it is there must not be missing for a year.
#[tokio::test]
async fn nothing_but_a_success_is_immutable() {
    for (status, told) in [
        (200, "public, max-age=31536000, immutable"),
        (404, "max-age=5"),
        (410, "max-age=5"),
        (302, "max-age=5"),
        (500, "max-age=5"),
    ] {
        let room = ruled([CacheRule::new("/{*file}").browser(Browser::Immutable)]);
        let service = room.answering(move |_| {
            let mut response = text(&[("cache-control", "max-age=5")], "x");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        });
        for said in ["fwd=uri-miss; stored", "hit"] {
            let seen = ask(&service, get("/app.js")).await;
            assert_eq!(
                (seen.said(), seen.field("cache-control")),
                (said, told),
                "{status}"
            );
        }
    }
}

/// What is not stored is the service's own business.
#[tokio::test]
async fn what_is_not_stored_keeps_what_it_says() {
    let room = ruled([CacheRule::new("/a").browser(Browser::Immutable)]);
    let service = saying(&room, &[("cache-control", "no-store")]);
    let seen = ask(&service, get("/a")).await;
    assert_eq!(seen.field("cache-control"), "no-store");
}

#[tokio::test]
async fn answers_are_purged_by_the_tags_that_their_fields_list() {
    const FIELDS: &[(&str, &str)] = &[
        MINUTE,
        ("surrogate-key", "one two,three"),
        ("surrogate-key", "four"),
        ("cache-tag", "five, six"),
    ];
    for (tag, purges) in [
        ("one", true),
        ("two", true),
        ("three", true),
        ("four", true),
        ("five", true),
        ("six", true),
        ("on", false),
        ("one two", false),
    ] {
        let room = room();
        let service = saying(&room, FIELDS);
        ask(&service, get("/")).await;
        drop(room.cache.journal().append([Marker::tag(tag)]));
        let hit = ask(&service, get("/")).await.said() == "hit";
        assert_eq!(hit, !purges, "{tag}");
    }
    let room = room_with(|config| config.tag_fields = vec!["X-Tags".into()]);
    let service = saying(
        &room,
        &[MINUTE, ("x-tags", "own"), ("surrogate-key", "one")],
    );
    ask(&service, get("/")).await;
    let stored = room.cache.stored(None, "", "/");
    let tags: Vec<&str> = stored[0].tags.iter().map(|tag| &**tag).collect();
    assert_eq!(tags, ["own"]);
}

/// Tags show what a service is made of.
#[tokio::test]
async fn clients_are_spared_the_tags_where_that_is_wanted() {
    for stripped in [true, false] {
        let room = room_with(|config| config.tag_fields_stripped = stripped);
        let service = room.answering(|request| {
            let line = match request.uri().path() {
                "/stored" => "max-age=60",
                _ => "no-store",
            };
            let tags = [("surrogate-key", "a"), ("cache-tag", "b"), ("x-other", "c")];
            let fields = [("cache-control", line), tags[0], tags[1], tags[2]];
            text(&fields, "x")
        });
        for (method, path, said) in [
            ("GET", "/stored", "fwd=uri-miss; stored"),
            ("GET", "/stored", "hit"),
            ("HEAD", "/stored", "hit"),
            ("GET", "/passed", "fwd=uri-miss"),
            ("HEAD", "/passed", "fwd=uri-miss"),
            ("POST", "/passed", "fwd=method"),
            ("OPTIONS", "/passed", "fwd=method"),
        ] {
            let seen = ask(&service, request(method, path, &[])).await;
            assert_eq!(seen.said(), said, "{method} {path}");
            for name in ["surrogate-key", "cache-tag"] {
                let there = seen.headers.contains_key(name);
                assert_eq!(there, !stripped, "{name}: {method} {path}");
            }
            assert_eq!(seen.field("x-other"), "c");
        }
        drop(room.cache.journal().append([Marker::tag("b")]));
        assert_ne!(
            ask(&service, get("/stored")).await.said(),
            "hit",
            "they count all the same"
        );
    }
}

/// A 304 and the answer to a HEAD bring fields, too.
#[tokio::test]
async fn clients_are_spared_the_tags_of_a_confirmation_as_well() {
    for how in ["GET", "HEAD"] {
        let room = room_with(|config| config.tag_fields_stripped = true);
        let service = room.answering(|request| {
            let fields = [MINUTE, TAG, ("surrogate-key", "a"), ("cache-tag", "b")];
            if request.headers().contains_key("if-none-match") {
                let mut response = answer(&fields, empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
            let body = if request.method() == "HEAD" {
                empty()
            } else {
                crate::cache_room::full("x")
            };
            answer(&fields, body)
        });
        ask(&service, get("/")).await;
        room.pass_secs(61);
        for asked in [how, "GET", "HEAD"] {
            let seen = ask(&service, request(asked, "/", &[])).await;
            for name in ["surrogate-key", "cache-tag"] {
                assert!(
                    !seen.headers.contains_key(name),
                    "{how}: {name}, {}",
                    seen.said()
                );
            }
        }
    }
}

/// A service of three answers that differ by `x-v`.
fn varied(room: &Room) -> Cached {
    room.answering(|request| {
        let v = request.headers().get("x-v");
        let v = v.map_or("none", |v| v.to_str().unwrap()).to_owned();
        let mut response = text(
            &[MINUTE, ("vary", "x-v, accept"), ("x-own", "1")],
            v.repeat(3),
        );
        response.extensions_mut().insert(CacheTags::new([v]));
        response
    })
}

#[tokio::test]
async fn what_is_said_of_stored_answers_is_true() {
    let room = room();
    let service = varied(&room);
    assert!(room.cache.stored(None, "a.example", "/p?q=1").is_empty());
    let asking = |fields: &[(&str, &str)]| {
        let mut all = vec![("host", "a.example")];
        all.extend_from_slice(fields);
        get_with("/p?q=1", &all)
    };
    ask(
        &service,
        asking(&[("x-v", "one"), ("accept", "text/html, */*")]),
    )
    .await;
    room.pass_secs(20);
    ask(&service, asking(&[])).await;
    room.pass_secs(5);
    for _ in 0..3 {
        assert_eq!(ask(&service, asking(&[])).await.said(), "hit");
    }
    let stored = room.cache.stored(None, "a.example", "/p?q=1");
    let [newest, older] = &stored[..] else {
        panic!("two variants, not {stored:?}");
    };
    assert_eq!(
        (newest.age, newest.ttl, newest.hits),
        (5 * SECOND, 55 * SECOND, 3)
    );
    assert_eq!(
        (older.age, older.ttl, older.hits),
        (25 * SECOND, 35 * SECOND, 0)
    );
    assert_eq!((newest.body_bytes, older.body_bytes), (12, 9));
    assert_eq!((newest.status, newest.part), (StatusCode::OK, None));
    let vary = |accept: Option<&str>, v: Option<&str>| {
        vec![
            ("accept".to_owned(), accept.map(str::to_owned)),
            ("x-v".to_owned(), v.map(str::to_owned)),
        ]
    };
    assert_eq!(newest.vary, vary(None, None));
    assert_eq!(older.vary, vary(Some("text/html,*/*"), Some("one")));
    let tags =
        |tags: &[std::sync::Arc<str>]| tags.iter().map(|tag| tag.to_string()).collect::<Vec<_>>();
    assert_eq!(
        (tags(&newest.tags), tags(&older.tags)),
        (vec!["none".into()], vec!["one".into()])
    );
    assert_eq!(newest.headers["x-own"], "1");
    assert!(newest.holds && older.holds && newest.bytes > newest.body_bytes);
    // Looking is no use of it, and changes nothing.
    assert_eq!(room.cache.stored(None, "a.example", "/p?q=1")[0].hits, 3);
    assert!(
        room.cache.stored(None, "", "/p?q=1").is_empty(),
        "another host"
    );
    assert!(
        room.cache.stored(None, "a.example", "/p").is_empty(),
        "another target"
    );
}

#[tokio::test]
async fn what_no_longer_holds_is_shown_as_such_until_it_goes() {
    let room = room();
    let service = varied(&room);
    ask(&service, get_with("/", &[("x-v", "one")])).await;
    ask(&service, get_with("/", &[("x-v", "two")])).await;
    drop(room.cache.journal().append([Marker::tag("one")]));
    let holds = |at: usize| room.cache.stored(None, "", "/")[at].holds;
    assert_eq!((holds(0), holds(1)), (true, false), "the newest first");
    drop(room.cache.journal().append([Marker::Everything]));
    assert_eq!((holds(0), holds(1)), (false, false));
    // A stale one holds as long as nothing says that it does not.
    ask(&service, get_with("/", &[("x-v", "one")])).await;
    room.pass_secs(3600);
    let stored = room.cache.stored(None, "", "/");
    assert!(stored[0].holds && stored[0].ttl.is_zero());
    assert_eq!(stored[0].age, 3600 * SECOND);
}

/// "Its fields as they are sent, but for `Age` and `Cache-Status`."
#[tokio::test]
async fn the_fields_of_a_stored_answer_are_shown_without_those_that_are_made_anew() {
    let room = room();
    let service = saying(&room, &[MINUTE, ("age", "7"), ("x-own", "1")]);
    ask(&service, get("/")).await;
    let stored = room.cache.stored(None, "", "/");
    let names: Vec<&str> = stored[0].headers.keys().map(|name| name.as_str()).collect();
    for name in ["cache-control", "date", "content-length", "x-own"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for name in ["age", "cache-status"] {
        assert!(!names.contains(&name), "{name} is in {names:?}");
    }
}

#[tokio::test]
async fn a_part_is_shown_with_its_place_in_the_whole() {
    let room = room();
    let service = room.answering(|_| {
        let mut response = text(&[MINUTE, TAG, ("content-range", "bytes 2-5/10")], "2345");
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
    });
    ask(&service, get_with("/", &[("range", "bytes=2-5")])).await;
    let stored = room.cache.stored(None, "", "/");
    assert_eq!(
        (stored[0].part, stored[0].body_bytes),
        (Some((2, 5, 10)), 4)
    );
    let json = serde_json::to_value(&stored[0]).unwrap();
    assert_eq!(json["part"], serde_json::json!([2, 5, 10]));
    assert_eq!(
        (json["status"].as_u64(), json["ttl_ms"].as_u64()),
        (Some(206), Some(60_000))
    );
}

#[tokio::test]
async fn the_totals_are_those_of_what_is_stored_and_under_way() {
    let room = room();
    let (pipes, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |request| {
        if request.uri() == "/slow" {
            let (pipe, body) = piped();
            let _ = pipes.send(pipe);
            return answer(&[MINUTE, ("content-length", "1000")], body);
        }
        let line = if request.uri() == "/no" {
            "no-store"
        } else {
            "max-age=60"
        };
        text(&[("cache-control", line)], "x".repeat(500))
    });
    let totals = || {
        let totals = room.cache.totals();
        (totals.urls, totals.recorded_bytes, totals.flights)
    };
    assert_eq!((totals(), room.cache.totals().bytes), ((0, 0, 0), 0));
    assert_eq!(
        room.cache.totals().capacity_bytes,
        room.cache.capacity_bytes()
    );
    for path in ["/a", "/b", "/b?x", "/no", "/a"] {
        ask(&service, get(path)).await;
    }
    assert_eq!(totals(), (4, 0, 0), "three answers and a marker");
    let bytes = room.cache.totals().bytes;
    assert!((1500..8000).contains(&bytes), "{bytes}");
    let mut response = send(&service, get("/slow")).await.unwrap();
    assert_eq!(totals(), (4, 0, 1));
    let pipe = receiver.recv().await.unwrap();
    pipe.send("x".repeat(400));
    let frame = http_body_util::BodyExt::frame(response.body_mut()).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap().len(), 400);
    let (urls, recorded, flights) = totals();
    assert_eq!((urls, flights), (4, 1));
    assert!(
        (400..=1000).contains(&recorded),
        "what has come, or all that will: {recorded}"
    );
    pipe.send("x".repeat(600));
    drop(pipe);
    read(response).await.unwrap();
    assert_eq!(totals(), (5, 0, 0));
    assert!(room.cache.totals().bytes > bytes + 1000);
    room.cache.clear();
    assert_eq!((totals(), room.cache.totals().bytes), ((0, 0, 0), 0));
}

/// Whoever lets go of it takes its share along.
#[tokio::test]
async fn a_recording_that_is_given_up_is_no_longer_counted() {
    let room = room();
    let (pipes, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        answer(&[MINUTE], body)
    });
    let mut response: Response<tower_keep::cache::CacheBody<Content>> =
        send(&service, get("/")).await.unwrap();
    receiver.recv().await.unwrap().send("hello");
    let _ = http_body_util::BodyExt::frame(response.body_mut()).await;
    assert_eq!(
        (
            room.cache.totals().recorded_bytes,
            room.cache.totals().flights
        ),
        (5, 1)
    );
    drop(response);
    assert_eq!(
        (
            room.cache.totals().recorded_bytes,
            room.cache.totals().flights
        ),
        (0, 0)
    );
}
