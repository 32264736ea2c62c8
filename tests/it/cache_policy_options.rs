//! What the operator decides where RFC 9111 leaves room, seen through the layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use tower_keep::cache::{Cache, CacheConfig, CacheParts, CacheRule, StatusDetail, Store};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig, Marker};

use crate::cache_room::{
    Broken, Cached, Content, Room, ask, get, get_with, request, room, room_with, send, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const SECOND: Duration = Duration::from_secs(1);
/// Ten minutes before the clock of these tests begins.
const MODIFIED: (&str, &str) = ("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT");

fn of_status(status: u16, fields: &[(&str, &str)]) -> Response<Content> {
    let mut response = text(fields, "x");
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// A service that always answers so.
fn saying(room: &Room, status: u16, fields: &'static [(&str, &str)]) -> Cached {
    room.answering(move |_| of_status(status, fields))
}

/// Whether a second request is a hit after so many seconds.
async fn is_hit_after(room: &Room, service: &Cached, secs: u64) -> bool {
    room.cache.clear();
    ask(service, get("/")).await;
    room.pass_secs(secs);
    ask(service, get("/")).await.said() == "hit"
}

/// RFC 9111 §4.2.2: "A typical setting of this fraction might be 10%."
#[tokio::test]
async fn a_lifetime_is_guessed_from_the_last_change_only_if_that_is_wanted() {
    let guessing = room_with(|config| config.heuristic_freshness = true);
    let service = saying(&guessing, 200, &[MODIFIED]);
    assert!(is_hit_after(&guessing, &service, 59).await);
    let service = saying(
        &guessing,
        200,
        &[("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT")],
    );
    assert!(is_hit_after(&guessing, &service, 24 * 3600 - 1).await);
    assert!(
        !is_hit_after(&guessing, &service, 24 * 3600).await,
        "at most a day"
    );
    let plain = room();
    let service = saying(&plain, 200, &[MODIFIED]);
    assert!(!is_hit_after(&plain, &service, 0).await);
}

/// RFC 9111 §4.2.2: "A cache MUST NOT use heuristics .. when an explicit expiration time is present", nor for
/// what is not "defined as heuristically cacheable".
#[tokio::test]
async fn nothing_is_guessed_of_what_speaks_for_itself_or_must_not_be_guessed_at() {
    const COOKIE: (&str, &str) = ("set-cookie", "a=1");
    for (status, fields) in [
        (200, &[MODIFIED, ("cache-control", "max-age=0")][..]),
        (200, &[MODIFIED, ("expires", "0")]),
        (200, &[MODIFIED, ("cache-control", "no-store")]),
        (200, &[MODIFIED, ("cache-control", "private")]),
        (200, &[MODIFIED, COOKIE]),
        (302, &[MODIFIED]),
        (301, &[MODIFIED]),
        (500, &[MODIFIED]),
        (403, &[MODIFIED]),
    ] {
        let room = room_with(|config| {
            config.heuristic_freshness = true;
            config.set_cookie_shared = true;
        });
        let service = saying(&room, status, fields);
        assert!(
            !is_hit_after(&room, &service, 0).await,
            "{status} {fields:?}"
        );
    }
}

#[tokio::test]
async fn what_is_missing_is_remembered_for_as_long_as_told() {
    let room = room_with(|config| config.ttl_negative = 30 * SECOND);
    for (status, fields, after, hit) in [
        (404, &[][..], 29, true),
        (404, &[], 30, false),
        (410, &[], 29, true),
        (405, &[], 0, false),
        (200, &[], 0, false),
        (404, &[MINUTE], 59, true),
        (404, &[("cache-control", "max-age=5")], 5, false),
        (404, &[("cache-control", "no-store")], 0, false),
        (404, &[("cache-control", "private")], 0, false),
        (404, &[("set-cookie", "a=1")], 0, false),
    ] {
        let service = saying(&room, status, fields);
        let found = is_hit_after(&room, &service, after).await;
        assert_eq!(found, hit, "{status} {fields:?} after {after} s");
    }
    let silent = self::room();
    let service = saying(&silent, 404, &[]);
    assert!(!is_hit_after(&silent, &service, 0).await, "the default");
}

/// RFC 9213 §2.2: a valid targeted field is used, and "the Cache-Control and Expires header fields" are ignored.
#[tokio::test]
async fn a_field_for_this_cache_takes_the_place_of_those_for_all() {
    const CDN: &str = "cdn-cache-control";
    for (fields, after, hit) in [
        (
            &[(CDN, "max-age=60"), ("cache-control", "no-store")][..],
            59,
            true,
        ),
        (
            &[
                (CDN, "max-age=60"),
                ("cache-control", "private, max-age=600"),
            ],
            60,
            false,
        ),
        (&[(CDN, "no-store"), MINUTE], 0, false),
        (&[(CDN, "private"), MINUTE], 0, false),
        (&[(CDN, "max-age=60"), ("expires", "0")], 59, true),
        (
            &[
                (CDN, "public"),
                ("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
            ],
            0,
            false,
        ),
        (&[(CDN, "max-age=10, s-maxage=60")], 59, true),
        // §2.1: "empty or a parsing error is encountered .. MUST be ignored".
        (&[(CDN, ""), MINUTE], 59, true),
        (&[(CDN, "no-store, &&"), MINUTE], 59, true),
        (&[(CDN, "max-age =600"), MINUTE], 60, false),
        // Another's field.
        (
            &[
                ("other-cache-control", "max-age=600"),
                ("cache-control", "no-store"),
            ],
            0,
            false,
        ),
    ] {
        let room = room();
        let service = saying(&room, 200, fields);
        assert_eq!(
            is_hit_after(&room, &service, after).await,
            hit,
            "{fields:?}"
        );
    }
}

/// It also says for whom: what `Cache-Control` says of that is for other caches.
#[tokio::test]
async fn a_field_for_this_cache_says_who_may_share_as_well() {
    for (cdn, all, shared) in [
        ("max-age=60", "public, max-age=60", false),
        ("public, max-age=60", "private", true),
    ] {
        let room = room();
        let service = room
            .answering(move |_| text(&[("cdn-cache-control", cdn), ("cache-control", all)], "x"));
        ask(&service, get_with("/", &[("cookie", "a=1")])).await;
        let next = ask(&service, get("/")).await;
        assert_eq!(next.said() == "hit", shared, "{cdn}; {all}");
        assert_eq!(next.field("cache-control"), all, "which goes on as it is");
    }
}

/// RFC 9213 §2.2: "in order, .. the first that is present with a valid, non-empty value".
#[tokio::test]
async fn of_several_targeted_fields_the_first_of_the_operator_s_list_counts() {
    let room = room_with(|config| {
        config.targeted_fields = vec!["Keep-Cache-Control".into(), "cdn-cache-control".into()];
    });
    for (fields, after, hit) in [
        (
            &[
                ("cdn-cache-control", "max-age=600"),
                ("keep-cache-control", "max-age=60"),
            ][..],
            60,
            false,
        ),
        (
            &[
                ("cdn-cache-control", "no-store"),
                ("keep-cache-control", "max-age=60"),
            ],
            59,
            true,
        ),
        (
            &[
                ("cdn-cache-control", "max-age=60"),
                ("keep-cache-control", "&"),
            ],
            59,
            true,
        ),
        (&[("cdn-cache-control", "max-age=60")], 59, true),
    ] {
        let service = saying(&room, 200, fields);
        assert_eq!(
            is_hit_after(&room, &service, after).await,
            hit,
            "{fields:?}"
        );
    }
    let deaf = room_with(|config| config.targeted_fields = Vec::new());
    let service = saying(&deaf, 200, &[("cdn-cache-control", "no-store"), MINUTE]);
    assert!(is_hit_after(&deaf, &service, 59).await);
}

/// A service that is there until it is not: it fails without an answer then, or with this one.
fn failing(room: &Room, line: &'static str, status: Option<u16>) -> (Cached, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = Arc::clone(&gone);
    let service = room.before(move |_| {
        let gone = is_gone.load(Ordering::SeqCst);
        Box::pin(async move {
            match status {
                Some(status) if gone => Ok(of_status(status, &[])),
                None if gone => Err(Broken),
                _ => Ok(text(&[("cache-control", line), ("etag", "\"a\"")], "hello")),
            }
        })
    });
    (service, gone)
}

/// RFC 9111 §4.2.4: "A cache MUST NOT generate a stale response unless it is disconnected or doing so is
/// explicitly permitted", nor "if it is prohibited by an explicit in-protocol directive".
#[tokio::test]
async fn what_is_stored_stands_in_for_a_service_that_is_gone_if_that_is_wanted() {
    for (line, after, stands_in) in [
        ("max-age=60", 61, true),
        ("max-age=60", 60 + 3599, true),
        ("max-age=60", 60 + 3600, false),
        ("max-age=60, must-revalidate", 61, false),
        ("max-age=60, proxy-revalidate", 61, false),
        ("s-maxage=60", 61, false),
        ("max-age=60, no-cache", 1, false),
    ] {
        let room = room_with(|config| config.stale_if_disconnected = 3600 * SECOND);
        let (service, gone) = failing(&room, line, None);
        ask(&service, get("/")).await;
        gone.store(true, Ordering::SeqCst);
        room.pass_secs(after);
        let answered = send(&service, get("/")).await;
        assert_eq!(answered.is_ok(), stands_in, "{line} after {after} s");
        if stands_in {
            let seen = ask(&service, get("/")).await;
            assert_eq!((seen.text(), seen.status), ("hello", StatusCode::OK));
            assert!(
                seen.said().starts_with("fwd=stale; detail="),
                "{}",
                seen.said()
            );
            assert_eq!(seen.field("age"), after.to_string());
            let range = ask(&service, get_with("/", &[("range", "bytes=0-1")])).await;
            assert_eq!((range.text(), range.status.as_u16()), ("he", 206));
            let known = ask(&service, get_with("/", &[("if-none-match", "\"a\"")])).await;
            assert_eq!(known.status, StatusCode::NOT_MODIFIED);
        }
    }
    let room = room();
    let (service, gone) = failing(&room, "max-age=60", None);
    ask(&service, get("/")).await;
    gone.store(true, Ordering::SeqCst);
    room.pass_secs(61);
    assert_eq!(
        send(&service, get("/")).await.err(),
        Some(Broken),
        "the default"
    );
}

/// Whoever answers is there. And nothing stands in for what was purged, or was never stored.
#[tokio::test]
async fn an_answer_that_says_error_is_no_disconnection() {
    for status in [500, 502, 503, 504] {
        let room = room_with(|config| config.stale_if_disconnected = 3600 * SECOND);
        let (service, gone) = failing(&room, "max-age=60", Some(status));
        ask(&service, get("/")).await;
        gone.store(true, Ordering::SeqCst);
        room.pass_secs(61);
        assert_eq!(ask(&service, get("/")).await.status.as_u16(), status);
    }
    let room = room_with(|config| config.stale_if_disconnected = 3600 * SECOND);
    let (service, gone) = failing(&room, "max-age=60", None);
    ask(&service, get("/")).await;
    gone.store(true, Ordering::SeqCst);
    assert_eq!(send(&service, get("/other")).await.err(), Some(Broken));
    room.pass_secs(61);
    drop(room.cache.journal().append([Marker::tag("/")]));
    assert_eq!(send(&service, get("/")).await.err(), Some(Broken), "purged");
}

/// RFC 9111 §7.3: "caches .. Set-Cookie .. does not inhibit caching".
#[tokio::test]
async fn a_cookie_is_shared_only_where_the_operator_and_the_answer_say_so() {
    const COOKIE: (&str, &str) = ("set-cookie", "a=1");
    for (shares, fields, hit) in [
        (true, &[MINUTE, COOKIE][..], true),
        (
            true,
            &[("cache-control", "private, max-age=60"), COOKIE],
            false,
        ),
        // On a guess it is not.
        (true, &[COOKIE], false),
        (true, &[COOKIE, MODIFIED], false),
        (false, &[MINUTE, COOKIE], false),
        (
            false,
            &[("cache-control", "public, s-maxage=60"), COOKIE],
            false,
        ),
    ] {
        let room = room_with(|config| {
            config.set_cookie_shared = shares;
            config.ttl_default = 60 * SECOND;
        });
        let service = saying(&room, 200, fields);
        ask(&service, get("/")).await;
        let next = ask(&service, get("/")).await;
        assert_eq!(next.said() == "hit", hit, "{shares} {fields:?}");
        assert_eq!(next.field("set-cookie"), "a=1");
    }
}

/// RFC 9111 §4.4: "a non-error status code .. is 2xx or 3xx".
#[tokio::test]
async fn whether_a_failed_change_counts_is_the_operator_s_choice() {
    for (status, when_on, when_off) in [
        (200, true, true),
        (204, true, true),
        (303, true, true),
        (404, false, false),
        (422, false, false),
        (408, true, false),
        (500, true, false),
        (503, true, false),
    ] {
        for on in [true, false] {
            let room = room_with(|config| config.error_invalidates = on);
            let service = room.answering(move |request| {
                let status = if request.method() == "GET" {
                    200
                } else {
                    status
                };
                of_status(status, &[MINUTE])
            });
            ask(&service, get("/")).await;
            ask(&service, request("POST", "/", &[])).await;
            let gone = ask(&service, get("/")).await.said() != "hit";
            let expected = if on { when_on } else { when_off };
            assert_eq!(gone, expected, "{status}, error_invalidates = {on}");
        }
    }
}

/// RFC 9110 §12.5.4: order may be a priority, "however, this behavior cannot be relied upon".
#[tokio::test]
async fn the_order_of_languages_counts_unless_the_operator_says_otherwise() {
    for any in [true, false] {
        let room = room_with(|config| config.any_preference_order = any);
        let service = saying(&room, 200, &[MINUTE, ("vary", "accept-language")]);
        let speak = |languages| get_with("/", &[("accept-language", languages)]);
        ask(&service, speak("en, de")).await;
        for (languages, hit) in [
            ("EN,de", true),
            ("de, en", any),
            ("en", false),
            ("de, en;q=0.5", false),
        ] {
            let said = ask(&service, speak(languages)).await.said() == "hit";
            assert_eq!(said, hit, "{languages}, any order = {any}");
        }
    }
}

/// RFC 9110 §12.5.3: codings are case-insensitive, and their order means nothing.
#[tokio::test]
async fn codings_are_the_same_in_any_order_and_case() {
    let room = room();
    let service = saying(&room, 200, &[MINUTE, ("vary", "Accept-Encoding")]);
    let accept = |codings| get_with("/", &[("accept-encoding", codings)]);
    ask(&service, accept("gzip, br")).await;
    for (codings, hit) in [
        ("gzip, br", true),
        ("br,gzip", true),
        ("BR , Gzip", true),
        ("gzip", false),
        ("gzip;q=0, br", false),
        ("", false),
    ] {
        let said = ask(&service, accept(codings)).await.said() == "hit";
        assert_eq!(said, hit, "{codings}");
    }
    let lines = [("accept-encoding", "br"), ("accept-encoding", "gzip")];
    assert_eq!(ask(&service, get_with("/", &lines)).await.said(), "hit");
}

/// All that RFC 9111 allows at once, beside the defaults, which allow none of it.
#[tokio::test]
async fn the_settings_of_the_rfc_share_what_the_defaults_keep_apart() {
    for (fields, asked, next) in [
        (&[MODIFIED][..], ("x", "1"), ("x", "1")),
        (&[MINUTE, ("set-cookie", "a=1")], ("x", "1"), ("x", "1")),
        (&[MINUTE], ("cookie", "a=1"), ("cookie", "b=2")),
        (&[MINUTE], ("x-api-key", "anna"), ("x-api-key", "berta")),
        (
            &[MINUTE, ("vary", "accept-language")],
            ("accept-language", "a, b"),
            ("accept-language", "b, a"),
        ),
    ] {
        for open in [true, false] {
            let room = room_with(|config| {
                if open {
                    *config = CacheConfig::rfc9111();
                }
            });
            let service = saying(&room, 200, fields);
            ask(&service, get_with("/", &[asked])).await;
            let hit = ask(&service, get_with("/", &[next])).await.said() == "hit";
            assert_eq!(hit, open, "{fields:?} {asked:?}");
        }
    }
}

/// Even so, what the RFC forbids stays forbidden.
#[tokio::test]
async fn the_settings_of_the_rfc_still_keep_what_must_not_be_shared() {
    let bearer = ("authorization", "Bearer anna");
    for (fields, asked) in [
        (&[MINUTE][..], bearer),
        (&[("cache-control", "private, max-age=60")], ("x", "1")),
        (&[("cache-control", "no-store, max-age=60")], ("x", "1")),
        (&[MINUTE, ("vary", "*")], ("x", "1")),
        (&[("set-cookie", "a=1"), MODIFIED], ("x", "1")),
    ] {
        let room = room_with(|config| *config = CacheConfig::rfc9111());
        let service = saying(&room, 200, fields);
        ask(&service, get_with("/", &[asked])).await;
        assert_ne!(ask(&service, get("/")).await.said(), "hit", "{fields:?}");
    }
    let room = room_with(|config| *config = CacheConfig::rfc9111());
    let (service, gone) = failing(&room, "max-age=60", None);
    ask(&service, get("/")).await;
    gone.store(true, Ordering::SeqCst);
    room.pass_secs(3600);
    assert_eq!(
        ask(&service, get("/")).await.text(),
        "hello",
        "disconnected"
    );
}

/// RFC 9211 §2: as much as the operator wants of it.
#[tokio::test]
async fn cache_status_tells_as_much_as_it_is_told_to() {
    let asks = |detail| async move {
        let room = room_with(|config| config.cache_status = detail);
        let service = saying(&room, 200, &[MINUTE]);
        let mut told = Vec::new();
        for (secs, line) in [(0, ""), (20, ""), (50, "max-stale"), (0, "only-if-cached")] {
            room.pass_secs(secs);
            let asked = get_with("/a?b=1", &[("cache-control", line)]);
            told.push(ask(&service, asked).await.field("cache-status").to_owned());
        }
        told
    };
    for (detail, expected) in [
        (StatusDetail::Off, ["", "", "", ""]),
        (
            StatusDetail::Outcome,
            [
                "keep; fwd=uri-miss; stored",
                "keep; hit",
                "keep; hit; detail=max-stale",
                "keep; detail=only-if-cached",
            ],
        ),
        (
            StatusDetail::Ttl,
            [
                "keep; fwd=uri-miss; stored",
                "keep; hit; ttl=40",
                "keep; hit; detail=max-stale; ttl=-10",
                "keep; detail=only-if-cached",
            ],
        ),
        (
            StatusDetail::Key,
            [
                "keep; fwd=uri-miss; stored",
                "keep; hit; ttl=40; key=\"/a?b=1\"",
                "keep; hit; detail=max-stale; ttl=-10; key=\"/a?b=1\"",
                "keep; detail=only-if-cached",
            ],
        ),
    ] {
        assert_eq!(asks(detail).await, expected, "{detail:?}");
    }
}

/// RFC 9211 §2: caches closer to the origin come first.
#[tokio::test]
async fn what_another_cache_said_stays_and_stands_first() {
    let room = room();
    let service = saying(&room, 200, &[MINUTE, ("cache-status", "origin-cache; hit")]);
    for own in ["keep; fwd=uri-miss; stored", "keep; hit", "keep; hit"] {
        let seen = ask(&service, get("/")).await;
        let said: Vec<_> = seen.headers.get_all("cache-status").iter().collect();
        assert_eq!(said, ["origin-cache; hit", own]);
    }
}

/// A change to the settings, and the fault that it makes: the field, and its value where that is as it was given.
type Wrong = (fn(&mut CacheConfig), &'static str, &'static str);

const WRONG_NUMBERS: &[Wrong] = &[
    (
        |c| c.ttl_negative = 366 * 86_400 * SECOND,
        "cache.ttl_negative_ms",
        "",
    ),
    (
        |c| c.ttl_default = 366 * 86_400 * SECOND,
        "cache.ttl_default_ms",
        "",
    ),
    (
        |c| c.stale_if_error = 86_401 * SECOND,
        "cache.stale_if_error_ms",
        "",
    ),
    (
        |c| c.stale_while_revalidate = 86_401 * SECOND,
        "cache.stale_while_revalidate_ms",
        "",
    ),
    (
        |c| c.stale_if_disconnected = 31 * 86_400 * SECOND,
        "cache.stale_if_disconnected_ms",
        "",
    ),
    (|c| c.variants_max = 0, "cache.variants_max", "0"),
    (|c| c.variants_max = 65, "cache.variants_max", "65"),
];

const WRONG_LISTS: &[Wrong] = &[
    (
        |c| c.query_ignored = vec!["a&b".into()],
        "cache.query_ignored",
        "a&b",
    ),
    (
        |c| c.query_ignored = vec![String::new()],
        "cache.query_ignored",
        "",
    ),
    (
        |c| c.query_only = vec!["a=b".into()],
        "cache.query_only",
        "a=b",
    ),
    (
        |c| c.query_only = vec!["a".into(); 65],
        "cache.query_only",
        "65",
    ),
    (
        |c| c.targeted_fields = vec!["a b".into()],
        "cache.targeted_fields",
        "a b",
    ),
    (
        |c| c.tag_fields = vec!["tag:".into()],
        "cache.tag_fields",
        "tag:",
    ),
    (
        |c| c.credential_headers = vec!["ä".into()],
        "cache.credential_headers",
        "ä",
    ),
];

const WRONG_RULES: &[Wrong] = &[
    (
        |c| c.rules = vec![CacheRule::new("no-slash")],
        "cache.rules[0].route",
        "no-slash",
    ),
    (
        |c| c.rules = vec![CacheRule::new("/{a}"), CacheRule::new("/{b}")],
        "cache.rules[1].route",
        "/{b}",
    ),
    (
        |c| c.rules = vec![CacheRule::new("/").store(Store::Force)],
        "cache.rules[0].ttl_ms",
        "0",
    ),
    (
        |c| c.rules = vec![CacheRule::new("/").tags(["/a"])],
        "cache.rules[0].tags",
        "/a",
    ),
    (
        |c| c.rules = vec![CacheRule::new("/").query_only(["a&b"])],
        "cache.rules[0].query_only",
        "a&b",
    ),
    (
        |c| c.rules = vec![CacheRule::new("/"); 257],
        "cache.rules",
        "257",
    ),
];

#[test]
fn a_setting_that_is_wrong_is_refused_by_its_name_and_value() {
    for (change, field, value) in [WRONG_NUMBERS, WRONG_LISTS, WRONG_RULES].concat() {
        let mut config = CacheConfig::default();
        change(&mut config);
        let parts = CacheParts {
            journal: Journal::new(&JournalConfig::default(), Events::none()).unwrap(),
            clock: Clock::system(),
            events: Events::none(),
            spawner: None,
            tiers: None,
        };
        let refused = Cache::new(&config, parts).map(drop);
        let faults = refused.map_err(|error| error.faults().to_vec());
        let faults = faults.expect_err(field);
        let named = faults.iter().find(|fault| fault.field == field);
        let named = named.unwrap_or_else(|| panic!("{field} is not in {faults:?}"));
        assert!(value.is_empty() || named.value == value, "{named:?}");
        assert!(!named.allowed.is_empty(), "{named:?}");
    }
}

/// What is written to a file is read back as the same.
#[test]
fn settings_survive_being_written_down() {
    let mut config = CacheConfig::rfc9111();
    config.rules = vec![
        CacheRule::new("/a/{id}")
            .ttl(SECOND)
            .tags(["a"])
            .query_only(["page"]),
    ];
    let written = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<CacheConfig>(&written).unwrap(), config);
    let rule: CacheRule = toml::from_str("route = \"/a\"").unwrap();
    assert_eq!(rule, CacheRule::new("/a"));
    assert!(toml::from_str::<CacheConfig>("query_sortd = true").is_err());
}
