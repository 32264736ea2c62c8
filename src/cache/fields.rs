//! The fields of stored answers: which are kept, how a 304 or a HEAD updates them, and where they live.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, LAST_MODIFIED,
    SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::lifetime::http_date;
use crate::cache::list::listed_names;
use crate::cache::status::{CACHE_STATUS, STATUS_PLACE};
use crate::cache::well_known::well_known;
use crate::response::decimal;

/// What the operator wants of stored fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldRules {
    /// Whether answers get a `Cache-Status`.
    pub(crate) status: bool,
    /// Fields that are for this cache only.
    pub(crate) stripped: Vec<HeaderName>,
}

/// The fields of a response as they are stored: those of one connection go (RFC 9111 §3.1), `Date` is
/// set where the origin gave none (RFC 9110 §6.6.1), `Age` is worked out anew. It and `Cache-Status` get
/// the first places, so that they are found without a look-up when the answer is served.
pub(crate) fn stored_fields(
    response: &HeaderMap,
    rules: &FieldRules,
    now: SystemTime,
) -> HeaderMap {
    let listed: Vec<HeaderName> = listed_names(response, &CONNECTION).collect();
    let date = (!response.contains_key(DATE)).then(|| date_text(now));
    let kept = |name: &HeaderName| {
        !(is_of_connection(name)
            || *name == AGE
            || listed.contains(name)
            || rules.stripped.contains(name)
            || rules.stripped.contains(name))
    };
    let mut headers = HeaderMap::with_capacity(response.keys_len() + 4);
    headers.insert(AGE, HeaderValue::from_static("0"));
    if rules.status && !response.contains_key(CACHE_STATUS) {
        headers.insert(CACHE_STATUS, STATUS_PLACE);
    }
    append_compact(&mut headers, response, kept, date);
    headers
}

/// Appends what is `kept` of `from`, and a `date`, with all values in one buffer of their own. A value that
/// came over a wire is a slice of its connection's read buffer, and would keep all of that alive unweighed.
/// What nearly every service says needs no buffer at all.
fn append_compact(
    headers: &mut HeaderMap,
    from: &HeaderMap,
    kept: impl Fn(&HeaderName) -> bool,
    date: Option<DateText>,
) {
    let mut lines = Vec::with_capacity(from.len());
    let mut text = Vec::with_capacity(TEXT_BYTES);
    for (name, value) in from.iter().filter(|(name, _)| kept(name)) {
        let known = well_known(value);
        if known.is_none() {
            text.extend_from_slice(value.as_bytes());
        }
        lines.push((name, value, known));
    }
    text.extend(date.iter().flatten());
    // To measure: what grew has room to spare, which would not be weighed.
    let mut rest = Bytes::from(text.into_boxed_slice());
    for (name, value, known) in lines {
        let stored = known.unwrap_or_else(|| {
            let text = rest.split_to(value.len());
            // What was a value a line ago is one still, but a value must be proven text.
            let mut own = HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| value.clone());
            own.set_sensitive(value.is_sensitive());
            own
        });
        headers.append(name, stored);
    }
    if date.is_some() {
        headers.insert(DATE, HeaderValue::from_maybe_shared(rest).unwrap_or(EPOCH));
    }
}

/// RFC 9110 §7.6.1 and RFC 9111 §3.1: fields for the next hop only.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a 304 may be speaking of the stored answer: "if none of the initial set contains at least
/// one of the same strong validators, then the cache MUST NOT use the new response to update any stored
/// responses" (RFC 9111 §4.3.4).
pub(crate) fn may_update(stored: &HeaderMap, answer: &HeaderMap) -> bool {
    match answer.get(ETAG) {
        Some(strong) if !strong.as_bytes().starts_with(b"W/") => stored.get(ETAG) == Some(strong),
        _ => true,
    }
}

/// Whether the answer to a HEAD speaks of the stored answer: "matching values for any received validator
/// fields .. and, if the HEAD response has a Content-Length header field, the value of Content-Length matches"
/// (RFC 9111 §4.3.5). `None` if it has none of them: then it proves nothing.
pub(crate) fn head_matches(stored: &HeaderMap, len: u64, head: &HeaderMap) -> Option<bool> {
    let same = |name: &HeaderName| {
        head.get(name)
            .is_none_or(|value| stored.get(name) == Some(value))
    };
    let modified = |headers: &HeaderMap| headers.get(LAST_MODIFIED).and_then(http_date);
    let announced = head.get(CONTENT_LENGTH);
    let proves = announced.is_some() || head.contains_key(ETAG) || head.contains_key(LAST_MODIFIED);
    let matches = same(&ETAG)
        && (!head.contains_key(LAST_MODIFIED) || modified(head) == modified(stored))
        && announced.is_none_or(|announced| *announced == decimal(len));
    proves.then_some(matches)
}

/// The stored fields after a 304 or the answer to a HEAD (RFC 9111 §3.2): what it carries replaces what was
/// stored, but for what describes the content that it does not carry. `Date` is that of the update even if
/// it says none, or the answer would be as old as ever; `Age` is the update's own, for the reckoning of its
/// age.
pub(crate) fn updated_fields(
    stored: &HeaderMap,
    update: &HeaderMap,
    rules: &FieldRules,
    now: SystemTime,
) -> HeaderMap {
    let mut headers = stored.clone();
    let mut update = update.clone();
    let age = update.remove(AGE).unwrap_or(HeaderValue::from_static("0"));
    let listed: Vec<HeaderName> = listed_names(&update, &CONNECTION).collect();
    // Cookies are for the one client that asked; validators were found equal or are weaker.
    let kept = |name: &HeaderName| {
        !(is_of_connection(name)
            || listed.contains(name)
            || rules.stripped.contains(name)
            || [
                CONTENT_LENGTH,
                CONTENT_ENCODING,
                CONTENT_RANGE,
                SET_COOKIE,
                CACHE_STATUS,
            ]
            .contains(name)
            || name == "content-md5"
            || (*name == ETAG && stored.contains_key(ETAG)))
    };
    let names: Vec<HeaderName> = update.keys().filter(|name| !kept(name)).cloned().collect();
    for name in names {
        update.remove(name);
    }
    for name in update.keys() {
        headers.remove(name);
    }
    let date = (!update.contains_key(DATE)).then(|| date_text(now));
    append_compact(&mut headers, &update, |_| true, date);
    // In its place: whatever it says now, the served one is worked out anew.
    headers.insert(AGE, age);
    headers
}

/// What a map of fields takes up: its buckets, and the text that is not everybody's.
pub(crate) fn weight(headers: &HeaderMap) -> usize {
    let text = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let further = headers.len() - headers.keys_len();
    headers.iter().map(text).sum::<usize>() + (headers.capacity() + further) * HEADER_OVERHEAD
}

/// `Thu, 01 Jan 1970 00:00:00 GMT`.
type DateText = [u8; 29];

/// The time of day as HTTP writes it. Each thread writes it once a second.
fn date_text(now: SystemTime) -> DateText {
    thread_local! {
        static LAST: Cell<(u64, DateText)> = const { Cell::new((0, *EPOCH_TEXT)) };
    }
    let secs = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (at, text) = LAST.get();
    if at == secs {
        return text;
    }
    let fresh = httpdate::fmt_http_date(now);
    let text = DateText::try_from(fresh.as_bytes()).unwrap_or(*EPOCH_TEXT);
    LAST.set((secs, text));
    text
}

/// What the values of most answers fit into.
const TEXT_BYTES: usize = 256;

const EPOCH_TEXT: &DateText = b"Thu, 01 Jan 1970 00:00:00 GMT";

/// What a map of fields adds for each field it has room for: index words and the bucket.
const HEADER_OVERHEAD: usize = 112;

const EPOCH: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn rules() -> FieldRules {
        FieldRules {
            status: true,
            stripped: Vec::new(),
        }
    }

    fn stored(response: &HeaderMap) -> HeaderMap {
        stored_fields(response, &rules(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn fields_of_one_connection_are_not_stored() {
        let response = headers(&[
            ("connection", "x-private-hop, close"),
            ("x-private-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("age", "7"),
            ("x-kept", "1"),
        ]);
        let stored = stored(&response);
        let names: Vec<&str> = stored.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["age", "cache-status", "x-kept", "date"]);
        assert_eq!(
            (&stored["age"], &stored["cache-status"]),
            (&HeaderValue::from_static("0"), &STATUS_PLACE)
        );
    }

    #[test]
    fn what_is_for_this_cache_only_goes_no_further() {
        let rules = FieldRules {
            status: false,
            stripped: vec![HeaderName::from_static("surrogate-key")],
        };
        let response = headers(&[("surrogate-key", "a b"), ("cache-control", "max-age=9")]);
        let stored = stored_fields(&response, &rules, SystemTime::UNIX_EPOCH);
        let names: Vec<&str> = stored.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["age", "cache-control", "date"]);
    }

    /// RFC 9211 §2: caches closer to the origin stand first.
    #[test]
    fn what_other_caches_said_keeps_its_place() {
        let stored = stored(&headers(&[("cache-status", "origin-cache; hit")]));
        assert_eq!(stored.get_all("cache-status").iter().count(), 1);
        assert_eq!(stored["cache-status"], "origin-cache; hit");
    }

    #[test]
    fn an_update_replaces_what_it_carries_and_leaves_the_content_alone() {
        let stored = headers(&[
            ("etag", "\"a\""),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("cache-control", "max-age=1"),
            ("x-gone", "1"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ]);
        let answer = headers(&[
            ("cache-control", "max-age=9"),
            ("cache-control", "public"),
            ("content-length", "0"),
            ("content-encoding", "gzip"),
            ("content-type", "text/html"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("x-new", "1"),
        ]);
        let fresh = updated_fields(&stored, &answer, &rules(), SystemTime::UNIX_EPOCH);
        let lines: Vec<_> = fresh.get_all("cache-control").iter().collect();
        assert_eq!(lines, ["max-age=9", "public"]);
        assert_eq!(fresh["content-length"], "5");
        assert_eq!(fresh["content-type"], "text/html");
        assert_eq!(
            (&fresh["x-new"], &fresh["x-gone"]),
            (&fresh["x-gone"], &fresh["x-new"])
        );
        assert_eq!(fresh["etag"], "\"a\"");
        assert_eq!(fresh["date"], "Thu, 01 Jan 1970 00:00:00 GMT");
        for name in ["x-hop", "connection", "set-cookie", "content-encoding"] {
            assert!(!fresh.contains_key(name), "{name}");
        }
    }

    /// RFC 9111 §4.3.4: a strong validator names what the 304 speaks of.
    #[test]
    fn a_304_of_another_strong_tag_updates_nothing() {
        let stored = headers(&[("etag", "\"a\"")]);
        for (etag, may) in [("\"a\"", true), ("W/\"b\"", true), ("\"b\"", false)] {
            assert_eq!(may_update(&stored, &headers(&[("etag", etag)])), may);
        }
        assert!(may_update(&stored, &headers(&[])));
    }

    /// RFC 9111 §4.3.5.
    #[test]
    fn the_answer_to_a_head_speaks_of_what_has_the_same_validators_and_length() {
        let date = "Thu, 01 Jan 2026 00:00:00 GMT";
        let same = "Thursday, 01-Jan-26 00:00:00 GMT";
        let stored = headers(&[("etag", "\"a\""), ("last-modified", date)]);
        for (head, matches) in [
            (&[][..], None),
            (
                &[
                    ("etag", "\"a\""),
                    ("last-modified", same),
                    ("content-length", "5"),
                ],
                Some(true),
            ),
            (&[("etag", "\"b\"")], Some(false)),
            (
                &[("last-modified", "Thu, 01 Jan 2026 00:00:01 GMT")],
                Some(false),
            ),
            (&[("content-length", "6")], Some(false)),
        ] {
            assert_eq!(
                head_matches(&stored, 5, &headers(head)),
                matches,
                "{head:?}"
            );
        }
    }

    #[test]
    fn stored_values_do_not_keep_the_read_buffer_alive() {
        let wire = Bytes::from(vec![b'x'; 100_000]);
        let mut response = HeaderMap::new();
        let value = HeaderValue::from_maybe_shared(wire.slice(..5)).unwrap();
        response.append("x-a", value.clone());
        response.append("x-a", value);
        let stored = stored(&response);
        drop(response);
        assert!(wire.is_unique());
        assert_eq!(stored.get_all("x-a").iter().count(), 2);
    }
}
