//! Conditional requests: from the client to us, and from us to the origin (RFC 9110 §13).

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue};

use crate::cache::lifetime::http_date;

/// What a client already has, as it told us.
#[derive(Clone, Debug, Default)]
pub(crate) struct Validators {
    none_match: Vec<HeaderValue>,
    modified_since: Option<HeaderValue>,
}

impl Validators {
    /// Takes the client's conditions out of a request, so that the origin sends the whole answer,
    /// which can be stored; the client's own question is then answered from it.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        let none_match = headers.get_all(IF_NONE_MATCH).iter().cloned().collect();
        headers.remove(IF_NONE_MATCH);
        Self {
            none_match,
            modified_since: headers.remove(IF_MODIFIED_SINCE),
        }
    }

    /// Whether the client has what `stored` describes.
    pub(crate) fn satisfied_by(&self, stored: &HeaderMap) -> bool {
        let lines = self.none_match.iter().map(HeaderValue::as_bytes);
        unchanged(lines, self.modified_since.as_ref(), stored)
    }
}

/// Whether a request asks a question that `stored` answers with "not modified".
pub(crate) fn not_modified(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let lines = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .map(HeaderValue::as_bytes);
    unchanged(lines, request.get(IF_MODIFIED_SINCE), stored)
}

/// RFC 9110 §13.2.2: If-None-Match first; If-Modified-Since only where it is absent.
fn unchanged(
    mut none_match: impl Iterator<Item: AsRef<[u8]>>,
    modified_since: Option<&HeaderValue>,
    stored: &HeaderMap,
) -> bool {
    if let Some(first) = none_match.next() {
        let etag = stored.get(ETAG).map(HeaderValue::as_bytes);
        return std::iter::once(first)
            .chain(none_match)
            .any(|line| names(line.as_ref(), etag));
    }
    // Most requests have neither; what is stored is not parsed for them.
    let Some(since) = modified_since else {
        return false;
    };
    // §13.1.3: "A recipient MUST ignore the If-Modified-Since header field if .. not a valid HTTP-date".
    // RFC 9111 §4.3.2: "If [Last-Modified] is not present .. the Date field value" stands in for it.
    let modified = stored.get(LAST_MODIFIED).or_else(|| stored.get(DATE));
    match (http_date(since), modified.and_then(http_date)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Whether a line of If-None-Match names `etag`. `*` names anything that exists. Comparison is weak
/// (RFC 9110 §8.8.3.2): the `W/` does not count.
fn names(line: &[u8], etag: Option<&[u8]>) -> bool {
    if line.trim_ascii() == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let mut rest = line.trim_ascii();
    while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
        let inner = &rest[start + 1..];
        // A quote that never ends is no entity tag.
        let Some(end) = inner.iter().position(|byte| *byte == b'"') else {
            return false;
        };
        if inner[..end] == *opaque(etag) {
            return true;
        }
        rest = &inner[end + 1..];
    }
    false
}

/// The text of an entity tag without `W/` and quotes.
fn opaque(etag: &[u8]) -> &[u8] {
    let strong = etag.strip_prefix(b"W/").unwrap_or(etag);
    match strong {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    }
}

/// Asks the origin whether what is stored still holds (RFC 9111 §4.3.1): by its entity tag, or else by
/// its date. Not by both: what changed twice within a second has another tag, but the same date, and
/// not every handler looks at the tag first.
pub(crate) fn ask(request: &mut HeaderMap, stored: &HeaderMap) {
    if let Some(etag) = stored.get(ETAG) {
        request.insert(IF_NONE_MATCH, etag.clone());
    } else if let Some(modified) = stored.get(LAST_MODIFIED) {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
}

/// The fields of a 304 made from a stored answer (RFC 9110 §15.4.5): those that guide caches stay,
/// those that describe a content that is not sent go.
pub(crate) fn strip_content_fields(headers: &mut HeaderMap) {
    for name in [
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_RANGE,
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// RFC 9110 §13.1.2 and §13.1.3.
    #[test]
    fn the_clients_question_is_answered_from_the_store() {
        let old = "Sat, 01 Jan 2022 00:00:00 GMT";
        let new = "Sun, 01 Jan 2023 00:00:00 GMT";
        let stored = headers(&[("etag", r#""a""#), ("last-modified", old)]);
        for (pairs, unchanged) in [
            (&[("if-none-match", r#""a""#)][..], true),
            (&[("if-none-match", r#"W/"a""#)], true),
            (&[("if-none-match", r#""b", W/"x,y", "a""#)], true),
            (
                &[("if-none-match", r#""b""#), ("if-none-match", r#""a""#)],
                true,
            ),
            (&[("if-none-match", "*")], true),
            (&[("if-none-match", r#""b""#)], false),
            (&[("if-none-match", r#""a"#)], false),
            (&[("if-none-match", "a")], false),
            (&[("if-modified-since", old)], true),
            (&[("if-modified-since", new)], true),
            (
                &[("if-modified-since", "Fri, 01 Jan 2021 00:00:00 GMT")],
                false,
            ),
            (&[("if-modified-since", "yesterday")], false),
            (
                &[("if-none-match", r#""b""#), ("if-modified-since", new)],
                false,
            ),
            (&[], false),
        ] {
            let mut request = headers(pairs);
            assert_eq!(not_modified(&request, &stored), unchanged, "{pairs:?}");
            let taken = Validators::take(&mut request);
            assert_eq!(taken.satisfied_by(&stored), unchanged, "{pairs:?}");
            assert!(request.is_empty());
        }
    }

    #[test]
    fn the_origin_is_asked_with_what_is_stored() {
        let mut request = headers(&[("if-none-match", r#""clients""#)]);
        ask(&mut request, &headers(&[("etag", r#"W/"s""#)]));
        assert_eq!(request, headers(&[("if-none-match", r#"W/"s""#)]));
    }

    proptest! {
        #[test]
        fn reading_conditions_never_panics(line in prop::collection::vec(0x20u8..0x7f, 0..40)) {
            let _ = names(&line, Some(b"\"a\""));
        }
    }
}
