//! Several parts of an answer in one body (RFC 9110 §14.6).

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use http::HeaderValue;

use crate::cache::range::Span;

/// The media type and the content for these spans of an answer of `complete` bytes.
pub(crate) fn multipart(
    spans: &[Span],
    complete: u64,
    kind: Option<&HeaderValue>,
    slice: impl Fn(&Span) -> Bytes,
) -> (HeaderValue, Bytes) {
    // Random, so that nobody can store content that has it within.
    let boundary = format!("keep-{:016x}", RandomState::new().hash_one(complete));
    let mut content = Vec::new();
    for span in spans {
        content.extend_from_slice(b"\r\n--");
        content.extend_from_slice(boundary.as_bytes());
        if let Some(kind) = kind {
            content.extend_from_slice(b"\r\nContent-Type: ");
            content.extend_from_slice(kind.as_bytes());
        }
        let range = format!(
            "\r\nContent-Range: bytes {}-{}/{complete}\r\n\r\n",
            span.first, span.last
        );
        content.extend_from_slice(range.as_bytes());
        content.extend_from_slice(&slice(span));
    }
    content.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let kind = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
    let kind = kind.unwrap_or(HeaderValue::from_static("multipart/byteranges"));
    (kind, content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_says_what_it_is() {
        let whole = Bytes::from_static(b"0123456789");
        let spans = [Span { first: 0, last: 1 }, Span { first: 8, last: 9 }];
        let text = HeaderValue::from_static("text/plain");
        let (kind, content) = multipart(&spans, 10, Some(&text), |span| {
            whole.slice(span.first as usize..=span.last as usize)
        });
        let kind = kind.to_str().unwrap();
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(content, expected);
    }
}
