//! Parts of answers (RFC 9110 §14): cut from what is stored whole, stored themselves, and joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use tower_keep::journal::Marker;

use crate::cache_room::{
    Cached, Content, Room, Seen, ask, get, get_with, request, room, room_with, send, settle, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"v1\"");
const TEN: &str = "0123456789";

fn part(range: &str) -> Request<()> {
    get_with("/", &[("range", range)])
}

/// A 206 of these fields and this content.
fn partial(fields: &[(&str, &str)], range: &str, body: &str) -> Response<Content> {
    let mut fields = fields.to_vec();
    fields.push(("content-range", range));
    let mut response = text(&fields, body.to_owned());
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response
}

/// A service that knows `bytes=a-b` of `whole` and answers it with these fields.
fn cutting(room: &Room, fields: &'static [(&str, &str)], whole: &'static str) -> Cached {
    room.answering(move |request| cut(request, fields, whole))
}

fn cut(request: &Request<()>, fields: &[(&str, &str)], whole: &'static str) -> Response<Content> {
    let asked = request.headers().get("range");
    let span = asked.and_then(|asked| {
        let (first, last) = asked
            .to_str()
            .ok()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    let Some((first, last)): Option<(usize, usize)> = span else {
        return text(fields, whole);
    };
    let range = format!("bytes {first}-{last}/{}", whole.len());
    partial(fields, &range, &whole[first..=last])
}

/// What a part says of itself: status, `Content-Range`, content.
fn told(seen: &Seen) -> (u16, &str, &str) {
    (
        seen.status.as_u16(),
        seen.field("content-range"),
        seen.text(),
    )
}

/// RFC 9110 §14.2: "If all of the preconditions are true, the server supports the Range header field for
/// the target resource, the received Range field-value contains a valid ranges-specifier .. the server
/// SHOULD send a 206 (Partial Content) response".
#[tokio::test]
async fn a_part_is_cut_from_what_is_stored_whole() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG, ("content-type", "text/plain")], TEN));
    ask(&service, get("/")).await;
    room.pass_secs(7);
    for (range, expected) in [
        ("bytes=2-5", ("bytes 2-5/10", "2345")),
        ("bytes=0-0", ("bytes 0-0/10", "0")),
        ("bytes=7-", ("bytes 7-9/10", "789")),
        ("bytes=-3", ("bytes 7-9/10", "789")),
        ("bytes=-99", ("bytes 0-9/10", TEN)),
        ("bytes=8-99", ("bytes 8-9/10", "89")),
    ] {
        let seen = ask(&service, part(range)).await;
        assert_eq!(told(&seen), (206, expected.0, expected.1), "{range}");
        assert_eq!(seen.field("content-length"), expected.1.len().to_string());
        // §15.3.7: "Date .. ETag, Expires, Content-Location, Cache-Control, and/or Vary, if the header field
        // would have been sent in a 200 (OK) response to the same request".
        assert_eq!((seen.said(), seen.field("age")), ("hit", "7"), "{range}");
        for name in ["date", "etag", "cache-control", "content-type"] {
            assert_ne!(seen.field(name), "", "{name}");
        }
    }
    assert_eq!(service.inner().calls(), 1);
}

/// RFC 9110 §14.2: a range of another unit or form is ignored, and more bytes than there are may be.
#[tokio::test]
async fn what_is_no_range_or_asks_for_too_much_gets_the_whole() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG], TEN));
    ask(&service, get("/")).await;
    let many = format!("bytes={}", ["0-0"; 17].join(","));
    for range in [
        "lines=0-1",
        "bytes",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=0-7,2-9",
        &many,
    ] {
        let seen = ask(&service, part(range)).await;
        assert_eq!(
            (told(&seen), seen.said()),
            ((200, "", TEN), "hit"),
            "{range}"
        );
        assert_eq!(seen.field("content-length"), "10");
    }
    let twice = ask(
        &service,
        get_with("/", &[("range", "bytes=0-1"), ("range", "bytes=2-3")]),
    )
    .await;
    assert_eq!(told(&twice), (200, "", TEN));
}

/// RFC 9110 §15.3.7.2: "a server that generates a multipart response .. MUST generate a 206 .. multipart/byteranges
/// media type", each part with its own `Content-Range`.
#[tokio::test]
async fn several_parts_come_as_one_multipart_body() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG, ("content-type", "text/plain")], TEN));
    ask(&service, get("/")).await;
    let seen = ask(&service, part("bytes=0-1, 5-5,-2")).await;
    assert_eq!((seen.status.as_u16(), seen.said()), (206, "hit"));
    // §15.3.7.2: "MUST NOT generate a Content-Range header field in the HTTP header section".
    assert_eq!(seen.field("content-range"), "");
    let boundary = seen
        .field("content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut expected = String::new();
    for (range, bytes) in [("0-1", "01"), ("5-5", "5"), ("8-9", "89")] {
        expected.push_str(&format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}"
        ));
    }
    expected.push_str(&format!("\r\n--{boundary}--\r\n"));
    assert_eq!(seen.text(), expected);
    assert_eq!(seen.field("content-length"), expected.len().to_string());
    // Of several wishes the one that can be met is, and comes as a single part.
    let one = ask(&service, part("bytes=3-3,50-60")).await;
    assert_eq!(told(&one), (206, "bytes 3-3/10", "3"));
    assert_eq!(one.field("content-type"), "text/plain");
}

/// Whoever chooses the content must not be able to end a part with it.
#[tokio::test]
async fn the_boundary_is_another_one_each_time() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE], TEN));
    ask(&service, get("/")).await;
    let one = ask(&service, part("bytes=0-1,5-6")).await;
    let other = ask(&service, part("bytes=0-1,5-6")).await;
    assert_ne!(one.field("content-type"), other.field("content-type"));
}

/// RFC 9110 §15.5.17: "a server that generates a 416 response to a byte-range request SHOULD generate a
/// Content-Range header field specifying the current length".
#[tokio::test]
async fn a_part_beyond_the_end_is_refused_with_the_length() {
    let room = room();
    let service = room.answering(|_| {
        text(
            &[MINUTE, TAG, ("content-type", "text/plain"), ("x-own", "1")],
            TEN,
        )
    });
    ask(&service, get("/")).await;
    for range in ["bytes=10-", "bytes=-0", "bytes=99-100,200-"] {
        let seen = ask(&service, part(range)).await;
        assert_eq!(told(&seen), (416, "bytes */10", ""), "{range}");
        assert_eq!((seen.said(), seen.field("content-length")), ("hit", "0"));
        for name in ["etag", "content-type", "x-own", "cache-control"] {
            assert_eq!(seen.field(name), "", "{name}");
        }
    }
    assert_eq!(ask(&service, get("/")).await.text(), TEN);
}

/// RFC 9110 §13.1.5: "A recipient of an If-Range header field MUST ignore the Range header field if the
/// If-Range condition evaluates as false." Tags are compared strongly, and a date must be the exact one of
/// an answer that was a second old by then.
#[tokio::test]
async fn a_condition_on_the_range_decides_between_part_and_whole() {
    const MODIFIED: (&str, &str) = ("last-modified", "Wed, 31 Dec 2025 23:00:00 GMT");
    for (fields, condition, applies) in [
        (&[MINUTE, TAG][..], "\"v1\"", true),
        (&[MINUTE, TAG], "\"v0\"", false),
        (&[MINUTE, TAG], "W/\"v1\"", false),
        (&[MINUTE, ("etag", "W/\"v1\"")], "W/\"v1\"", false),
        (&[MINUTE, ("etag", "W/\"v1\"")], "\"v1\"", false),
        (&[MINUTE, MODIFIED], MODIFIED.1, true),
        (&[MINUTE, MODIFIED], "Wed, 31 Dec 2025 23:00:01 GMT", false),
        (&[MINUTE, MODIFIED], "Thu, 01 Jan 2026 00:00:00 GMT", false),
        (
            &[MINUTE, ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")],
            "Thu, 01 Jan 2026 00:00:00 GMT",
            false,
        ),
        (&[MINUTE], "\"v1\"", false),
    ] {
        let room = room();
        let service = room.answering(move |_| text(fields, TEN));
        ask(&service, get("/")).await;
        let asked = [("range", "bytes=0-1"), ("if-range", condition)];
        let seen = ask(&service, get_with("/", &asked)).await;
        let expected = if applies { (206, "01") } else { (200, TEN) };
        let case = format!("{fields:?} {condition}");
        assert_eq!((seen.status.as_u16(), seen.text()), expected, "{case}");
        assert_eq!(seen.said(), "hit", "{case}");
    }
}

/// RFC 9110 §13.2.2: If-None-Match is judged before the range.
#[tokio::test]
async fn whoever_has_it_is_told_so_before_any_part_is_cut() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG], TEN));
    ask(&service, get("/")).await;
    let range = ("range", "bytes=0-1");
    let has = ask(
        &service,
        get_with("/", &[range, ("if-none-match", "\"v1\"")]),
    )
    .await;
    assert_eq!(told(&has), (304, "", ""));
    let beyond = [("range", "bytes=99-"), ("if-none-match", "\"v1\"")];
    assert_eq!(ask(&service, get_with("/", &beyond)).await.status, 304);
    let has_not = ask(
        &service,
        get_with("/", &[range, ("if-none-match", "\"v0\"")]),
    )
    .await;
    assert_eq!(told(&has_not), (206, "bytes 0-1/10", "01"));
}

/// RFC 9110 §14.2: "A server MUST ignore a Range header field received with a request method that is
/// unrecognized or for which range handling is not defined."
#[tokio::test]
async fn a_range_means_nothing_to_a_head() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE, TAG], TEN));
    ask(&service, get("/")).await;
    for range in ["bytes=0-1", "bytes=99-"] {
        let seen = ask(&service, request("HEAD", "/", &[("range", range)])).await;
        assert_eq!(told(&seen), (200, "", ""), "{range}");
        assert_eq!((seen.said(), seen.field("content-length")), ("hit", "10"));
    }
}

/// RFC 9110 §14.2: ranges are of what "would be a 200 (OK)".
#[tokio::test]
async fn only_a_success_is_cut() {
    let room = room();
    let service = room.answering(|_| {
        let mut response = text(&[MINUTE], TEN);
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    });
    ask(&service, get("/")).await;
    let seen = ask(&service, part("bytes=0-1")).await;
    assert_eq!((told(&seen), seen.said()), ((404, "", TEN), "hit"));
}

/// RFC 9111 §3.3: "a cache MAY store a 206 (Partial Content) response if it understands .. Range", and
/// "MUST NOT use an incomplete response to answer requests unless .. the request is a range request that is
/// wholly within the incomplete response".
#[tokio::test]
async fn a_stored_part_serves_what_lies_within_it_and_nothing_else() {
    let room = room();
    let service = cutting(&room, &[MINUTE, TAG], TEN);
    let miss = ask(&service, part("bytes=2-5")).await;
    assert_eq!(told(&miss), (206, "bytes 2-5/10", "2345"));
    assert_eq!(miss.said(), "fwd=uri-miss; stored");
    for (range, expected) in [
        ("bytes=2-5", ("bytes 2-5/10", "2345")),
        ("bytes=3-4", ("bytes 3-4/10", "34")),
        ("bytes=5-5", ("bytes 5-5/10", "5")),
    ] {
        let seen = ask(&service, part(range)).await;
        assert_eq!(told(&seen), (206, expected.0, expected.1), "{range}");
        assert_eq!(seen.said(), "hit", "{range}");
    }
    // The length of the whole is known, so that this needs no question.
    let beyond = ask(&service, part("bytes=10-")).await;
    assert_eq!(
        (told(&beyond), beyond.said()),
        ((416, "bytes */10", ""), "hit")
    );
    let several = ask(&service, part("bytes=2-2,5-5")).await;
    assert_eq!(
        (several.status, several.said()),
        (StatusCode::PARTIAL_CONTENT, "hit")
    );
    for of_it in ["bytes 2-2/10\r\n\r\n2\r\n", "bytes 5-5/10\r\n\r\n5\r\n"] {
        assert!(several.text().contains(of_it), "{}", several.text());
    }
    let wider = ask(&service, part("bytes=7-8")).await;
    assert_eq!((wider.text(), wider.said()), ("78", "fwd=partial; stored"));
    let head = ask(&service, request("HEAD", "/", &[])).await;
    assert_eq!(head.said(), "fwd=partial");
    let whole = ask(&service, get("/")).await;
    assert_eq!(
        (told(&whole), whole.said()),
        ((200, "", TEN), "fwd=partial; stored")
    );
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

/// A request whose condition on the range fails wants the whole, which a part is not.
#[tokio::test]
async fn a_stored_part_is_no_answer_to_a_range_whose_condition_fails() {
    let room = room();
    let service = room.answering(|request| {
        if request.headers().contains_key("if-range") {
            text(&[MINUTE, TAG], TEN)
        } else {
            cut(request, &[MINUTE, TAG], TEN)
        }
    });
    ask(&service, part("bytes=0-4")).await;
    let asked = [("range", "bytes=0-1"), ("if-range", "\"v0\"")];
    let seen = ask(&service, get_with("/", &asked)).await;
    assert_eq!(
        (told(&seen), seen.said()),
        ((200, "", TEN), "fwd=partial; stored")
    );
}

/// RFC 9110 §15.3.7.3: "A client MAY combine .. if they all have in common the same strong validator"; RFC
/// 9111 §3.4 says the same of a cache.
#[tokio::test]
async fn parts_of_one_strong_tag_become_one_and_in_the_end_the_whole() {
    let room = room();
    let service = cutting(&room, &[MINUTE, TAG], TEN);
    for (range, said) in [
        ("bytes=2-3", "fwd=uri-miss; stored"),
        ("bytes=4-6", "fwd=partial; stored"),
        ("bytes=2-6", "hit"),
        ("bytes=1-3", "fwd=partial; stored"),
        ("bytes=1-6", "hit"),
        ("bytes=0-0", "fwd=partial; stored"),
    ] {
        assert_eq!(ask(&service, part(range)).await.said(), said, "{range}");
    }
    let stored = room.cache.stored(None, "", "/");
    assert_eq!(stored.len(), 1);
    assert_eq!(
        (stored[0].part, stored[0].body_bytes),
        (Some((0, 6, 10)), 7)
    );
    assert_eq!(
        ask(&service, part("bytes=7-9")).await.said(),
        "fwd=partial; stored"
    );
    let whole = ask(&service, get("/")).await;
    assert_eq!((told(&whole), whole.said()), ((200, "", TEN), "hit"));
    assert_eq!(whole.field("content-length"), "10");
    assert_eq!(service.inner().calls(), 5);
    let stored = room.cache.stored(None, "", "/");
    assert_eq!((stored[0].part, stored[0].status), (None, StatusCode::OK));
}

/// A 206 of all there is says as much as a 200.
#[tokio::test]
async fn a_part_that_is_the_whole_serves_everybody() {
    let room = room();
    let service = cutting(&room, &[MINUTE], TEN);
    let miss = ask(&service, part("bytes=0-9")).await;
    assert_eq!(miss.status, StatusCode::PARTIAL_CONTENT);
    let whole = ask(&service, get("/")).await;
    assert_eq!((told(&whole), whole.said()), ((200, "", TEN), "hit"));
    assert_eq!(whole.field("content-length"), "10");
}

/// Whatever one of the parts can be purged by, the joined one must be.
#[tokio::test]
async fn a_purge_by_the_tag_of_one_part_reaches_what_was_joined_with_it() {
    for (first, second) in [("old", ""), ("", "old"), ("old", "other"), ("old", "old")] {
        let room = room();
        let service = room.answering(move |request| {
            let tags = match request.headers().get("range") {
                Some(range) if range == "bytes=0-4" => first,
                Some(_) => second,
                None => "",
            };
            let new = request.headers().contains_key("x-new");
            let whole = if new { "ABCDEFGHIJ" } else { TEN };
            cut(request, &[MINUTE, TAG, ("surrogate-key", tags)], whole)
        });
        ask(&service, part("bytes=0-4")).await;
        ask(&service, part("bytes=5-9")).await;
        drop(room.cache.journal().append([Marker::tag("old")]));
        for range in ["bytes=0-9", "bytes=0-4", "bytes=5-9"] {
            let seen = ask(&service, get_with("/", &[("range", range), ("x-new", "1")])).await;
            let purged = match range {
                "bytes=0-9" => true,
                "bytes=0-4" => first == "old",
                _ => second == "old",
            };
            let old = seen.text().contains(|letter: char| letter.is_ascii_digit());
            assert!(
                !(purged && old),
                "{first}, {second}: {range} {}",
                seen.said()
            );
        }
    }
}

/// What lies between two parts is not known.
#[tokio::test]
async fn parts_that_do_not_touch_are_not_joined() {
    let room = room();
    let service = cutting(&room, &[MINUTE, TAG], TEN);
    ask(&service, part("bytes=0-1")).await;
    ask(&service, part("bytes=8-9")).await;
    assert_eq!(ask(&service, part("bytes=8-9")).await.said(), "hit");
    let stored = room.cache.stored(None, "", "/");
    let parts: Vec<_> = stored.iter().map(|answer| answer.part).collect();
    assert_eq!(parts, [Some((8, 9, 10))], "the newest");
    let all = ask(&service, part("bytes=1-8")).await;
    assert_eq!(
        (all.text(), all.said()),
        ("12345678", "fwd=partial; stored")
    );
}

/// RFC 9110 §15.3.7.3: without a common strong validator nothing says that two parts are of one whole.
#[tokio::test]
async fn parts_without_a_strong_tag_are_never_joined() {
    for fields in [
        &[MINUTE][..],
        &[MINUTE, ("etag", "W/\"v1\"")],
        &[MINUTE, ("last-modified", "Wed, 31 Dec 2025 23:00:00 GMT")],
    ] {
        let room = room();
        let service = room.answering(move |request| cut(request, fields, TEN));
        ask(&service, part("bytes=0-4")).await;
        ask(&service, part("bytes=5-9")).await;
        let stored = room.cache.stored(None, "", "/");
        let parts: Vec<_> = stored.iter().map(|answer| answer.part).collect();
        assert_eq!(parts, [Some((5, 9, 10))], "{fields:?}");
        assert_eq!(
            ask(&service, part("bytes=4-5")).await.said(),
            "fwd=partial; stored"
        );
    }
}

#[tokio::test]
async fn a_part_of_another_version_takes_the_place_of_the_old_one() {
    let room = room();
    let service = room.answering(|request| {
        let new = request.headers().contains_key("x-new");
        if new {
            cut(request, &[MINUTE, ("etag", "\"v2\"")], "ABCDEFGHIJ")
        } else {
            cut(request, &[MINUTE, TAG], TEN)
        }
    });
    ask(&service, part("bytes=0-4")).await;
    let new = [("range", "bytes=5-9"), ("x-new", "1")];
    assert_eq!(ask(&service, get_with("/", &new)).await.text(), "FGHIJ");
    // Neither joined nor beside it.
    let stored = room.cache.stored(None, "", "/");
    assert_eq!(stored.len(), 1);
    assert_eq!(ask(&service, part("bytes=5-9")).await.text(), "FGHIJ");
    assert_eq!(
        ask(&service, part("bytes=0-4")).await.said(),
        "fwd=partial; stored"
    );
    // A part of another version drives out a whole of the old one, too.
    ask(&service, get_with("/", &[("cache-control", "no-cache")])).await;
    assert_eq!(ask(&service, get("/")).await.text(), TEN);
    let again = [
        ("range", "bytes=5-9"),
        ("x-new", "1"),
        ("cache-control", "no-cache"),
    ];
    ask(&service, get_with("/", &again)).await;
    let seen = ask(&service, get("/")).await;
    assert_eq!(seen.said(), "fwd=partial; stored");
}

/// A tag that a service gives twice is its own mistake; that a purge lay between is known here.
#[tokio::test]
async fn a_purge_between_two_parts_keeps_them_apart() {
    for marker in [
        Marker::tag("/"),
        Marker::tag("/elsewhere"),
        Marker::Everything,
    ] {
        let room = room();
        let service = room.answering(|request| {
            let new = request.headers().contains_key("x-new");
            cut(
                request,
                &[MINUTE, TAG],
                if new { "ABCDEFGHIJ" } else { TEN },
            )
        });
        ask(&service, part("bytes=0-4")).await;
        drop(room.cache.journal().append(std::slice::from_ref(&marker)));
        let new = [("range", "bytes=5-9"), ("x-new", "1")];
        ask(&service, get_with("/", &new)).await;
        let whole = ask(&service, get("/")).await;
        assert_ne!(whole.said(), "hit", "{marker:?}");
        assert_ne!(whole.text(), "01234FGHIJ", "{marker:?}");
    }
}

/// Born before the purge, although it arrives after it.
#[tokio::test]
async fn a_part_that_was_under_way_during_a_purge_joins_nothing_newer() {
    let room = room();
    let cache = room.cache.clone();
    let service = room.answering(move |request| {
        let mut seen = cut(request, &[MINUTE, TAG], TEN);
        if request.headers().contains_key("x-purge") {
            drop(cache.journal().append([Marker::tag("/")]));
            seen = cut(request, &[MINUTE, TAG], "ABCDEFGHIJ");
        }
        seen
    });
    let crossed = [("range", "bytes=0-4"), ("x-purge", "1")];
    ask(&service, get_with("/", &crossed)).await;
    assert!(room.cache.stored(None, "", "/").is_empty(), "it never held");
    ask(&service, part("bytes=5-9")).await;
    assert_eq!(ask(&service, part("bytes=0-4")).await.text(), "01234");
    assert_eq!(ask(&service, get("/")).await.text(), TEN);
}

/// A part that nobody asked for is a mistake.
#[tokio::test]
async fn a_part_as_the_answer_to_a_request_for_all_is_passed_on_and_never_stored() {
    let room = room();
    let service = room.answering(|_| partial(&[MINUTE, TAG], "bytes 0-1/10", "01"));
    for _ in 0..2 {
        let seen = ask(&service, get("/")).await;
        assert_eq!(
            (told(&seen), seen.said()),
            ((206, "bytes 0-1/10", "01"), "fwd=uri-miss")
        );
    }
    assert!(room.cache.stored(None, "", "/").is_empty());
}

/// RFC 9110 §14.4: a part that is not what its `Content-Range` says "MUST NOT [be] attempt[ed] to recombine".
#[tokio::test]
async fn a_part_that_is_not_as_long_as_it_says_is_not_stored() {
    for (range, body) in [
        ("bytes 0-4/10", "0123"),
        ("bytes 0-4/10", "012345"),
        ("bytes 0-4/10", ""),
        ("bytes 4-0/10", "01234"),
        ("bytes 0-10/10", "0123456789a"),
        ("bytes 0-4/*", "01234"),
        ("bytes */10", "01234"),
        ("lines 0-4/10", "01234"),
    ] {
        let room = room();
        let service = room.answering(move |_| partial(&[MINUTE, TAG], range, body));
        for _ in 0..2 {
            let seen = ask(&service, part("bytes=0-4")).await;
            assert_eq!(seen.text(), body, "{range}");
            assert_ne!(seen.said(), "hit", "{range} {body}");
        }
        assert!(
            room.cache.stored(None, "", "/").is_empty(),
            "{range} {body}"
        );
    }
}

#[tokio::test]
async fn several_parts_of_the_service_s_own_making_are_not_stored() {
    let room = room();
    let service = room.answering(|_| {
        let body = "\r\n--b\r\nContent-Range: bytes 0-0/10\r\n\r\n0\r\n--b--\r\n";
        let kind = ("content-type", "multipart/byteranges; boundary=b");
        let mut response = text(&[MINUTE, TAG, kind], body);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
    });
    for _ in 0..2 {
        let seen = ask(&service, part("bytes=0-0,5-5")).await;
        assert_eq!(seen.said(), "fwd=uri-miss");
    }
    assert!(room.cache.stored(None, "", "/").is_empty());
}

/// RFC 9111 §4.3: what is stored whole and stale is asked about whole; the part is cut after that.
#[tokio::test]
async fn a_range_of_something_stale_is_answered_from_what_the_validation_brings() {
    let room = room();
    let service = room.answering(|request| {
        let asked = request.headers();
        let new = asked.contains_key("x-new");
        if !new
            && asked
                .get("if-none-match")
                .is_some_and(|tag| tag == "\"v1\"")
        {
            let mut response = text(&[MINUTE, TAG], "");
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        if new {
            return text(&[MINUTE, ("etag", "\"v2\"")], "ABCDEFGHIJ");
        }
        text(&[MINUTE, TAG], TEN)
    });
    ask(&service, get("/")).await;
    for (range, expected) in [
        ("bytes=2-3", (206, "bytes 2-3/10", "23")),
        ("bytes=10-", (416, "bytes */10", "")),
        ("bytes=0-9,0-9", (200, "", TEN)),
    ] {
        room.pass_secs(61);
        let seen = ask(&service, part(range)).await;
        assert_eq!(told(&seen), expected, "{range}");
        assert_eq!(seen.said(), "fwd=stale; fwd-status=304; stored", "{range}");
    }
    // Confirmed for all.
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
    room.pass_secs(61);
    let new = [("range", "bytes=2-3"), ("x-new", "1")];
    let seen = ask(&service, get_with("/", &new)).await;
    assert_eq!(
        (told(&seen), seen.said()),
        ((200, "", "ABCDEFGHIJ"), "fwd=stale; stored")
    );
    assert_eq!(ask(&service, part("bytes=2-3")).await.text(), "CD");
}

/// RFC 9110 §13.2.2 once more: the client's own condition is judged by what was confirmed.
#[tokio::test]
async fn a_condition_beside_the_range_is_judged_after_the_validation() {
    let room = room();
    let service = room.answering(|request| {
        let mut response = text(&[MINUTE, TAG], TEN);
        if request.headers().contains_key("if-none-match") {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    });
    ask(&service, get("/")).await;
    for (known, expected) in [
        ("\"v1\"", (304, "", "")),
        ("\"v0\"", (206, "bytes 0-1/10", "01")),
    ] {
        room.pass_secs(61);
        let asked = [("range", "bytes=0-1"), ("if-none-match", known)];
        let seen = ask(&service, get_with("/", &asked)).await;
        assert_eq!(told(&seen), expected, "{known}");
    }
}

/// Of a part no 304 could say which it speaks of.
#[tokio::test]
async fn a_stale_part_is_fetched_anew_without_a_question() {
    let room = room();
    let service = room.answering(|request| {
        assert!(!request.headers().contains_key("if-none-match"));
        cut(request, &[MINUTE, TAG], TEN)
    });
    ask(&service, part("bytes=0-4")).await;
    room.pass_secs(61);
    let seen = ask(&service, part("bytes=0-4")).await;
    assert_eq!((seen.text(), seen.said()), ("01234", "fwd=stale; stored"));
    assert_eq!(ask(&service, part("bytes=0-4")).await.field("age"), "0");
}

/// RFC 9111 §3.5 holds for parts as for the whole.
#[tokio::test]
async fn a_part_for_somebody_who_is_signed_in_is_nobody_else_s() {
    let hers = |range| get_with("/", &[("range", range), ("cookie", "session=anna")]);
    let room = room();
    let service = cutting(&room, &[MINUTE, TAG], TEN);
    for _ in 0..2 {
        assert_eq!(
            ask(&service, hers("bytes=0-4")).await.said(),
            "fwd=uri-miss"
        );
    }
    assert!(room.cache.is_empty());
    ask(&service, get("/")).await;
    let seen = ask(&service, hers("bytes=0-4")).await;
    assert_eq!((seen.text(), seen.said()), ("01234", "fwd=bypass"));
    let everyone = &[("cache-control", "public, max-age=60"), TAG];
    let service = cutting(&self::room(), everyone, TEN);
    ask(&service, hers("bytes=0-4")).await;
    assert_eq!(ask(&service, hers("bytes=1-2")).await.said(), "hit");
    assert_eq!(ask(&service, part("bytes=1-2")).await.said(), "hit");
}

#[tokio::test]
async fn parts_of_what_is_kept_squeezed_are_parts_of_what_was_sent() {
    let room = room_with(|config| config.compress_above_bytes = 100);
    let whole = "the same again, ".repeat(1000);
    let service = room.answering({
        let whole = whole.clone();
        move |_| text(&[MINUTE, TAG], whole.clone())
    });
    ask(&service, get("/")).await;
    let stored = room.cache.stored(None, "", "/");
    assert_eq!(stored[0].body_bytes, 16_000);
    assert!(
        stored[0].bytes < 4000,
        "it is squeezed: {}",
        stored[0].bytes
    );
    for (first, last) in [(0, 0), (5, 20), (15_990, 15_999), (1234, 9876)] {
        let seen = ask(&service, part(&format!("bytes={first}-{last}"))).await;
        assert_eq!(seen.text(), &whole[first..=last]);
        let range = format!("bytes {first}-{last}/16000");
        assert_eq!(seen.field("content-range"), range);
    }
    let beyond = ask(&service, part("bytes=16000-")).await;
    assert_eq!(told(&beyond), (416, "bytes */16000", ""));
    assert_eq!(service.inner().calls(), 1);
}

/// Two parts of a squeezable whole are cut and joined as they are.
#[tokio::test]
async fn parts_are_joined_where_wholes_are_squeezed() {
    let room = room_with(|config| config.compress_above_bytes = 4);
    let service = cutting(&room, &[MINUTE, TAG], "aaaaaaaaaabbbbbbbbbbcccccccccc");
    ask(&service, part("bytes=0-14")).await;
    ask(&service, part("bytes=15-29")).await;
    let whole = ask(&service, get("/")).await;
    assert_eq!(
        (whole.text(), whole.said()),
        ("aaaaaaaaaabbbbbbbbbbcccccccccc", "hit")
    );
}

/// A whole that one request waits for is no part of another; nor do parts wait for each other.
#[tokio::test]
async fn requests_for_parts_neither_lead_nor_follow() {
    let room = room();
    let (open, gate) = tokio::sync::watch::channel(false);
    let service = room.before(move |request| {
        let mut gate = gate.clone();
        Box::pin(async move {
            let _ = gate.wait_for(|open| *open).await;
            Ok(cut(&request, &[MINUTE, TAG], TEN))
        })
    });
    let spawn = |request: Request<()>| {
        let service = service.clone();
        tokio::spawn(async move { ask(&service, request).await })
    };
    let asking = [
        spawn(part("bytes=0-4")),
        spawn(part("bytes=0-4")),
        spawn(get("/")),
        spawn(get("/")),
        spawn(part("bytes=0-4")),
    ];
    settle().await;
    // Three parts and one whole; the other whole waits for it.
    assert_eq!(service.inner().calls(), 4);
    assert_eq!(room.cache.totals().flights, 1);
    open.send_replace(true);
    let mut said = Vec::new();
    for seen in asking {
        said.push(seen.await.unwrap());
    }
    assert_eq!((said[2].text(), said[3].text()), (TEN, TEN));
    assert_eq!(said[3].said(), "fwd=uri-miss; collapsed");
    for at in [0, 1, 4] {
        assert_eq!(told(&said[at]), (206, "bytes 0-4/10", "01234"));
    }
    assert_eq!(service.inner().calls(), 4);
}

/// The whole has the same bytes and more.
#[tokio::test]
async fn a_part_does_not_drive_out_the_whole_it_is_of() {
    let room = room();
    let service = cutting(&room, &[MINUTE, TAG], TEN);
    ask(&service, get("/")).await;
    let anew = [("range", "bytes=0-4"), ("cache-control", "no-cache")];
    assert_eq!(ask(&service, get_with("/", &anew)).await.text(), "01234");
    let whole = ask(&service, get("/")).await;
    assert_eq!((whole.text(), whole.said()), (TEN, "hit"));
}

/// A client that leaves in the middle of its part leaves nothing behind.
#[tokio::test]
async fn a_part_that_breaks_off_is_not_stored() {
    let room = room();
    let service = room.answering(|_| {
        let (pipe, body) = crate::cache_room::piped();
        pipe.send("012");
        pipe.break_off();
        let fields = [MINUTE, TAG, ("content-range", "bytes 0-4/10")];
        let mut response = crate::cache_room::answer(&fields, body);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
    });
    let response = send(&service, part("bytes=0-4")).await.unwrap();
    assert!(crate::cache_room::read(response).await.is_err());
    assert!(room.cache.is_empty());
}

/// Readers, a writer and the joining of parts on threads of their own: a part's bytes are those of one version, and not
/// of one that was purged before it was asked for.
#[test]
fn real_threads_join_parts_of_one_version_only() {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let room = room();
        let (current, acknowledged) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let acknowledged = Arc::new(acknowledged);
        let turns = Arc::new(AtomicUsize::new(0));
        let version = Arc::clone(&current);
        let service = room.before(move |request| {
            let version = version.load(Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                let asked = request.headers()["range"].to_str().unwrap();
                let (first, last) = asked["bytes=".len()..].split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                let letter = char::from(LETTERS[version % 26]);
                let body: String = std::iter::repeat_n(letter, last - first + 1).collect();
                let (tag, range) = (format!("\"{version}\""), format!("bytes {first}-{last}/24"));
                Ok(partial(&[MINUTE, ("etag", &tag)], &range, &body))
            })
        });
        let readers: Vec<_> = (0..4_usize)
            .map(|reader| {
                let (service, acknowledged) = (service.clone(), Arc::clone(&acknowledged));
                let turns = Arc::clone(&turns);
                tokio::spawn(async move {
                    for turn in 0..1000_usize {
                        let at = (turn * 7 + reader * 5) % 4;
                        let last = (at * 6 + 5 + turn % 3 * 6).min(23);
                        turns.fetch_add(1, Ordering::SeqCst);
                        let least = acknowledged.load(Ordering::SeqCst);
                        let seen = ask(&service, part(&format!("bytes={}-{last}", at * 6))).await;
                        let version: usize = seen.field("etag").trim_matches('"').parse().unwrap();
                        assert!(version >= least, "{version} was purged before {least}");
                        let letter = LETTERS[version % 26];
                        assert!(
                            seen.body.iter().all(|byte| *byte == letter),
                            "{}",
                            seen.text()
                        );
                        assert_eq!(seen.body.len(), last - at * 6 + 1);
                    }
                })
            })
            .collect();
        // A version for every thirty questions: time enough for parts of one to meet.
        let mut version = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            if turns.load(Ordering::SeqCst) / 30 > version {
                version += 1;
                current.store(version, Ordering::SeqCst);
                drop(room.cache.journal().append([Marker::tag("/")]));
                acknowledged.store(version, Ordering::SeqCst);
            }
            tokio::task::yield_now().await;
        }
        for reader in readers {
            reader.await.unwrap();
        }
    });
}
