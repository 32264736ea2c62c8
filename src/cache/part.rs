//! Parts of answers: what a 206 holds, and how two parts become one (RFC 9110 §14.4, §15.3.7.3).

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG};

use crate::cache::range::Span;

/// Which part of an answer a 206 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) span: Span,
    /// The length of the whole.
    pub(crate) complete: u64,
}

impl Part {
    /// What the one `Content-Range` of a 206 says. `None` if it cannot be told which bytes these are of how
    /// many, as in one of several parts.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(CONTENT_RANGE).iter();
        let line = lines.next()?.to_str().ok()?;
        let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let several = kind.is_some_and(|kind| {
            let kind = kind.get(..MULTIPART.len());
            kind.is_some_and(|kind| kind.eq_ignore_ascii_case(MULTIPART))
        });
        if several || lines.next().is_some() {
            return None;
        }
        let (unit, rest) = line.split_once(' ')?;
        let (span, complete) = rest.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| digits)
        };
        let (first, last, complete) = (number(first)?, number(last)?, number(complete)?);
        // §14.4: "A Content-Range field value is invalid if it contains a range-resp that has a last-pos
        // value less than its first-pos value, or a complete-length value less than or equal to its
        // last-pos value."
        let valid = unit.eq_ignore_ascii_case("bytes") && first <= last && last < complete;
        valid.then_some(Self {
            span: Span { first, last },
            complete,
        })
    }

    /// Whether it holds all of `span`.
    pub(crate) const fn holds(self, span: Span) -> bool {
        self.span.first <= span.first && span.last <= self.span.last
    }

    /// Whether it is the whole after all.
    pub(crate) const fn is_whole(self) -> bool {
        self.span.first == 0 && self.span.last + 1 == self.complete
    }
}

/// Whether two parts are of one and the same answer: "if they all have in common the same strong
/// validator" (RFC 9110 §15.3.7.3).
pub(crate) fn same_whole(one: &HeaderMap, other: &HeaderMap) -> bool {
    let strong = one
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""));
    strong.is_some() && strong == other.get(ETAG)
}

/// Whether the tags say that these are of two different answers.
pub(crate) fn are_of_two(one: &HeaderMap, other: &HeaderMap) -> bool {
    matches!((one.get(ETAG), other.get(ETAG)), (Some(one), Some(other)) if one != other)
}

/// Two parts of one answer as one, where nothing lies between them.
pub(crate) fn joined(
    (older, old): (Part, &Bytes),
    (newer, new): (Part, &Bytes),
) -> Option<(Part, Bytes)> {
    let ((left, left_bytes), (right, right_bytes)) = if older.span.first <= newer.span.first {
        ((older, old), (newer, new))
    } else {
        ((newer, new), (older, old))
    };
    if older.complete != newer.complete || right.span.first > left.span.last.checked_add(1)? {
        return None;
    }
    if right.span.last <= left.span.last {
        return Some((left, left_bytes.clone()));
    }
    // What the left one has already is left out of the right one.
    let seen = usize::try_from(left.span.last + 1 - right.span.first).ok()?;
    let mut all = Vec::with_capacity(left_bytes.len() + right_bytes.len().checked_sub(seen)?);
    all.extend_from_slice(left_bytes);
    all.extend_from_slice(right_bytes.get(seen..)?);
    let part = Part {
        span: Span {
            first: left.span.first,
            last: right.span.last,
        },
        complete: left.complete,
    };
    Some((part, all.into()))
}

const MULTIPART: &[u8] = b"multipart/";

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, last: u64, complete: u64) -> Part {
        Part {
            span: Span { first, last },
            complete,
        }
    }

    fn read(line: &str) -> Option<Part> {
        let value = HeaderValue::from_str(line).unwrap();
        Part::of(&HeaderMap::from_iter([(CONTENT_RANGE, value)]))
    }

    /// RFC 9110 §14.4.
    #[test]
    fn a_part_says_which_bytes_it_has_of_how_many() {
        assert_eq!(read("bytes 2-5/10"), Some(part(2, 5, 10)));
        assert_eq!(read("Bytes 0-0/1"), Some(part(0, 0, 1)));
        for line in [
            "bytes 2-5/*",
            "bytes */10",
            "bytes 5-2/10",
            "bytes 2-10/10",
            "bytes 2-5",
            "lines 2-5/10",
            "bytes +2-5/10",
            "bytes 2-5/99999999999999999999",
            "bytes  2-5/10",
            "",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        let mut several = HeaderMap::new();
        several.insert(CONTENT_RANGE, HeaderValue::from_static("bytes 2-5/10"));
        several.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("Multipart/byteranges"),
        );
        assert_eq!(Part::of(&several), None);
    }

    #[test]
    fn only_a_strong_validator_makes_parts_of_one_whole() {
        let tagged = |tag| HeaderMap::from_iter([(ETAG, HeaderValue::from_static(tag))]);
        assert!(same_whole(&tagged("\"a\""), &tagged("\"a\"")));
        assert!(!same_whole(&tagged("\"a\""), &tagged("\"b\"")));
        assert!(!same_whole(&tagged("W/\"a\""), &tagged("W/\"a\"")));
        assert!(!same_whole(&HeaderMap::new(), &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn parts_that_touch_become_one_with_the_same_bytes(
            complete in 1u64..60,
            ends in prop::array::uniform4(0u64..60),
        ) {
            let whole: Bytes = (0..complete).map(|at| at as u8).collect::<Vec<_>>().into();
            let [a, b, c, d] = ends.map(|end| end % complete);
            let (one, two) = (part(a.min(b), a.max(b), complete), part(c.min(d), c.max(d), complete));
            let cut = |part: Part| whole.slice(part.span.first as usize..=part.span.last as usize);
            let joined = joined((one, &cut(one)), (two, &cut(two)));
            let gap = one.span.last + 1 < two.span.first || two.span.last + 1 < one.span.first;
            prop_assert_eq!(joined.is_none(), gap);
            if let Some((all, bytes)) = joined {
                prop_assert_eq!(bytes, cut(all));
                prop_assert!(all.holds(one.span) && all.holds(two.span));
            }
        }
    }
}
