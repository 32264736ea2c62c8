//! Which bytes of an answer a client asks for (RFC 9110 §14).

use http::header::{DATE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderValue};

use crate::cache::lifetime::http_date;

/// A span of bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Span {
    /// How many bytes it has.
    pub(crate) const fn bytes(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What a request asks for of an answer of a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// These spans, at least one, in the order asked for.
    Spans(Vec<Span>),
    /// Bytes beyond its end.
    Nothing,
}

/// One member of a `Range` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    FromTo(u64, u64),
    From(u64),
    Last(u64),
}

/// What a request of these fields wants of `stored`, which has `len` bytes in all.
pub(crate) fn wanted(request: &HeaderMap, stored: &HeaderMap, len: u64) -> Wanted {
    let Some(specs) = specs(request).filter(|_| range_applies(request, stored)) else {
        return Wanted::Whole;
    };
    // §14.1.2: "If the selected representation is shorter than the specified suffix-length, the entire
    // representation is used", be it empty.
    if len == 0 && specs.iter().any(|spec| matches!(spec, Spec::Last(1..))) {
        return Wanted::Whole;
    }
    let spans: Vec<Span> = specs.iter().filter_map(|spec| spec.within(len)).collect();
    if spans.is_empty() {
        return Wanted::Nothing;
    }
    // §14.2: "A server that supports range requests MAY ignore or reject a Range header field that
    // contains .. many small ranges that are requested out of order": more bytes than there are is no
    // wish that parts can serve.
    let bytes = spans
        .iter()
        .fold(0_u64, |sum, span| sum.saturating_add(span.bytes()));
    if bytes > len && spans.len() > 1 {
        return Wanted::Whole;
    }
    Wanted::Spans(spans)
}

/// The members of the one `Range` field, if it is one of bytes. "A server MUST ignore a Range header
/// field received with a .. range unit it does not understand" (§14.2), and what is malformed is ignored.
fn specs(request: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = request.get_all(RANGE).iter();
    let line = lines.next()?.to_str().ok()?;
    if lines.next().is_some() {
        return None;
    }
    let (unit, set) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let members = set
        .split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty());
    let specs: Option<Vec<Spec>> = members.map(Spec::read).take(SPANS_MAX + 1).collect();
    specs.filter(|specs| (1..=SPANS_MAX).contains(&specs.len()))
}

impl Spec {
    fn read(member: &str) -> Option<Self> {
        let (first, last) = member.split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // §14.1.1: "An int-range is invalid if the last-pos value is present and less than
                // first-pos."
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    /// The bytes it stands for in an answer of `len` bytes; `None` if there are none.
    fn within(self, len: u64) -> Option<Span> {
        let end = len.checked_sub(1)?;
        match self {
            Self::FromTo(first, last) if first <= end => Some(Span {
                first,
                last: last.min(end),
            }),
            Self::From(first) if first <= end => Some(Span { first, last: end }),
            Self::Last(bytes) if bytes > 0 => Some(Span {
                first: len.saturating_sub(bytes),
                last: end,
            }),
            _ => None,
        }
    }
}

/// Digits and nothing else; a number beyond all bodies is the largest there is.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// RFC 9110 §13.1.5: "A recipient of an If-Range header field MUST ignore the Range header field if the
/// If-Range condition evaluates as false."
fn range_applies(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(condition) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let text = condition.as_bytes();
    if text.starts_with(b"\"") || text.starts_with(b"W/") {
        // "the strong comparison function": a weak tag never matches.
        return !text.starts_with(b"W/") && stored.get(ETAG) == Some(condition);
    }
    // "If the HTTP-date validator provided is not a strong validator in the sense defined by Section
    // 8.8.2.2, the condition is false": the answer must be a second older than its date.
    let date = |value: Option<&HeaderValue>| value.and_then(http_date);
    match (
        date(Some(condition)),
        date(stored.get(LAST_MODIFIED)),
        date(stored.get(DATE)),
    ) {
        (Some(condition), Some(modified), Some(date)) => {
            condition == modified
                && date
                    .duration_since(modified)
                    .is_ok_and(|gap| gap.as_secs() > 0)
        }
        _ => false,
    }
}

/// How many spans one request may ask for; with more it gets the whole.
const SPANS_MAX: usize = 16;

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

    fn spans(spans: &[(u64, u64)]) -> Wanted {
        let span = |&(first, last): &(u64, u64)| Span { first, last };
        Wanted::Spans(spans.iter().map(span).collect())
    }

    /// RFC 9110 §14.1.1, §14.1.2 and §14.2, of ten bytes.
    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (range, expected) in [
            ("bytes=0-4", spans(&[(0, 4)])),
            ("bytes=5-", spans(&[(5, 9)])),
            ("bytes=-3", spans(&[(7, 9)])),
            ("bytes=-30", spans(&[(0, 9)])),
            ("bytes=8-99", spans(&[(8, 9)])),
            ("bytes=8-99999999999999999999999", spans(&[(8, 9)])),
            ("Bytes = 0 - 1 , 3-4", spans(&[(0, 1), (3, 4)])),
            ("bytes=0-1,,99-", spans(&[(0, 1)])),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=99-,100-200", Wanted::Nothing),
            // Ignored: another unit, no range, the wrong way round, more than there is.
            ("lines=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,4-2", Wanted::Whole),
            ("bytes=0-9,0-9", Wanted::Whole),
        ] {
            let asked = headers(&[("range", range)]);
            assert_eq!(wanted(&asked, &headers(&[]), 10), expected, "{range}");
        }
        let twice = headers(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]);
        assert_eq!(wanted(&twice, &headers(&[]), 10), Wanted::Whole);
        let many = format!("bytes={}", "0-0,".repeat(17));
        let many = headers(&[("range", &many)]);
        assert_eq!(wanted(&many, &headers(&[]), 100), Wanted::Whole);
        let empty = headers(&[("range", "bytes=0-")]);
        assert_eq!(wanted(&empty, &headers(&[]), 0), Wanted::Nothing);
        let suffix = headers(&[("range", "bytes=-5")]);
        assert_eq!(wanted(&suffix, &headers(&[]), 0), Wanted::Whole);
    }

    /// RFC 9110 §13.1.5.
    #[test]
    fn a_range_counts_only_if_its_condition_holds() {
        let stored = headers(&[
            ("etag", "\"a\""),
            ("last-modified", "Wed, 31 Dec 2025 23:59:00 GMT"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ]);
        for (condition, applies) in [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            ("Wed, 31 Dec 2025 23:59:00 GMT", true),
            ("Wed, 31 Dec 2025 23:59:01 GMT", false),
            ("yesterday", false),
            ("", false),
        ] {
            let asked = headers(&[("range", "bytes=0-0"), ("if-range", condition)]);
            let found = wanted(&asked, &stored, 10) != Wanted::Whole;
            assert_eq!(found, applies, "{condition}");
        }
        // Modified within the second of its date: it may have changed again since (§8.8.2.2).
        let date = "Thu, 01 Jan 2026 00:00:00 GMT";
        let weak = headers(&[("last-modified", date), ("date", date)]);
        let asked = headers(&[("range", "bytes=0-0"), ("if-range", date)]);
        assert_eq!(wanted(&asked, &weak, 10), Wanted::Whole);
        let weak_tag = headers(&[("etag", "W/\"a\"")]);
        let asked = headers(&[("range", "bytes=0-0"), ("if-range", "W/\"a\"")]);
        assert_eq!(wanted(&asked, &weak_tag, 10), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_lies_within_the_answer(
            line in "(bytes=)?([0-9]{0,21}-?[0-9]{0,21},? ?){0,6}|.{0,40}",
            len in prop_oneof![0u64..40, any::<u64>()],
        ) {
            let Ok(value) = HeaderValue::from_str(&line) else { return Ok(()) };
            let asked = HeaderMap::from_iter([(RANGE, value)]);
            if let Wanted::Spans(spans) = wanted(&asked, &HeaderMap::new(), len) {
                prop_assert!(!spans.is_empty());
                for span in spans {
                    prop_assert!(span.first <= span.last && span.last < len);
                }
            }
        }
    }
}
