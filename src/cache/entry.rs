//! One stored answer.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, DATE, ETAG, PROXY_AUTHENTICATE, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::list::listed_names;
use crate::cache::policy::Terms;
use crate::cache::status::{CACHE_STATUS, STATUS_PLACE};
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::journal::{Checked, Journal, Stamp, Subject};

/// A stored answer with everything that decides whether it may be served.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) selector: Selector,
    pub(crate) terms: Terms,
    /// When its head arrived.
    pub(crate) arrived: Moment,
    /// The journal's position before the origin was asked.
    pub(crate) born: Stamp,
    pub(crate) checked: Checked,
    pub(crate) subject: Subject,
}

impl Entry {
    /// RFC 9111 §4.2.3, `current_age`.
    pub(crate) fn age(&self, now: Moment) -> Duration {
        self.terms
            .initial_age
            .saturating_add(now.since(self.arrived))
    }

    /// Whether nothing that was invalidated since its birth concerns it.
    #[inline]
    pub(crate) fn holds(&self, journal: &Journal) -> bool {
        journal.holds(self.born, &self.checked, &self.subject)
    }

    /// What it takes up, in bytes: content, fields, and the structures around them.
    pub(crate) fn bytes(&self) -> usize {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + HEADER_OVERHEAD
        };
        let fields: usize = self.headers.iter().map(field).sum();
        let names = size_of_val(self.subject.names()) + self.subject.key().len();
        size_of::<Self>() + self.body.len() + fields + names + self.selector.bytes()
    }
}

/// The fields of a response as they are stored: those of one connection go (RFC 9111 §3.1), `Date` is
/// set where the origin gave none (RFC 9110 §6.6.1), `Age` is worked out anew. It and `Cache-Status` get
/// their places here, so that serving the answer does not make the map grow.
pub(crate) fn stored_fields(response: &HeaderMap, now: SystemTime) -> HeaderMap {
    let mut headers = response.clone();
    strip_connection_fields(&mut headers);
    headers.insert(AGE, HeaderValue::from_static("0"));
    headers.entry(CACHE_STATUS).or_insert(STATUS_PLACE);
    headers.entry(DATE).or_insert_with(|| date(now));
    headers
}

/// RFC 9110 §7.6.1: fields for the next hop only, those that `Connection` lists among them.
fn strip_connection_fields(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = listed_names(headers, &CONNECTION).collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authentication-info",
    ] {
        headers.remove(name);
    }
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

/// The stored fields after a 304 (RFC 9111 §3.2): what it carries replaces what was stored, but for
/// what describes the content that it does not carry. `Date` is that of the 304 even if it says none,
/// or the answer would be as old as ever; `Age` is the 304's, for the reckoning of its age.
pub(crate) fn freshened_fields(
    stored: &HeaderMap,
    answer: &HeaderMap,
    now: SystemTime,
) -> HeaderMap {
    let mut headers = stored.clone();
    let mut update = answer.clone();
    strip_connection_fields(&mut update);
    for name in [CONTENT_LENGTH, SET_COOKIE] {
        update.remove(name);
    }
    update.entry(DATE).or_insert_with(|| date(now));
    headers.insert(AGE, HeaderValue::from_static("0"));
    for name in ["content-encoding", "content-type", "content-range"] {
        update.remove(name);
    }
    for name in update.keys() {
        headers.remove(name);
    }
    for (name, value) in &update {
        headers.append(name, value.clone());
    }
    headers
}

/// The same fields, with their values in one buffer of their own. A value that came over a wire is a
/// slice of its connection's read buffer, and would keep all of that alive unweighed.
pub(crate) fn compact(headers: &HeaderMap) -> HeaderMap {
    let len = headers.values().map(HeaderValue::len).sum();
    let mut text = Vec::with_capacity(len);
    for value in headers.values() {
        text.extend_from_slice(value.as_bytes());
    }
    let mut rest = Bytes::from(text);
    let mut compact = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        let text = rest.split_to(value.len());
        // What was a value a line ago is one still, but a value must be proven text.
        let mut own = HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| value.clone());
        own.set_sensitive(value.is_sensitive());
        compact.append(name, own);
    }
    // A clone is to measure, a map that was built has room to grow.
    compact.clone()
}

fn date(now: SystemTime) -> HeaderValue {
    // Unreachable for a date that httpdate has written, but a header value must be proven text.
    HeaderValue::from_str(&httpdate::fmt_http_date(now)).unwrap_or(EPOCH)
}

/// What a map of fields adds per field: two index words, the bucket, and two counted strings.
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
        let stored = stored_fields(&response, SystemTime::UNIX_EPOCH);
        let names: Vec<&str> = stored.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["age", "x-kept", "cache-status", "date"]);
        assert_eq!(
            (&stored["age"], &stored["cache-status"]),
            (&HeaderValue::from_static("0"), &STATUS_PLACE)
        );
    }

    #[test]
    fn a_304_updates_what_it_carries_and_leaves_the_content_alone() {
        let stored = headers(&[
            ("etag", "\"a\""),
            ("content-length", "5"),
            ("cache-control", "max-age=1"),
        ]);
        let answer = headers(&[
            ("cache-control", "max-age=9"),
            ("content-length", "0"),
            ("x-new", "1"),
        ]);
        let fresh = freshened_fields(&stored, &answer, SystemTime::UNIX_EPOCH);
        assert_eq!(fresh["cache-control"], "max-age=9");
        assert_eq!(fresh["content-length"], "5");
        assert_eq!(fresh["x-new"], "1");
        assert_eq!(fresh["etag"], "\"a\"");
        assert_eq!(fresh["date"], "Thu, 01 Jan 1970 00:00:00 GMT");
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

    #[test]
    fn stored_values_do_not_keep_the_read_buffer_alive() {
        let wire = Bytes::from(vec![b'x'; 100_000]);
        let mut response = HeaderMap::new();
        let value = HeaderValue::from_maybe_shared(wire.slice(..5)).unwrap();
        response.append("x-a", value.clone());
        response.append("x-a", value);
        let stored = compact(&stored_fields(&response, SystemTime::UNIX_EPOCH));
        drop(response);
        assert!(wire.is_unique());
        assert_eq!(stored.get_all("x-a").iter().count(), 2);
    }
}
