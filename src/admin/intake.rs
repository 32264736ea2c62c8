//! What a request has to say: its query, and its body within bounds.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

/// Why a request is not understood: the status, and a sentence.
pub(crate) type Unread = (StatusCode, String);

/// The value of the first parameter called `name`; nothing where there is none.
///
/// # Errors
///
/// If it is no text, or longer than [`VALUE_MAX`].
pub(crate) fn parameter<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, Unread> {
    let mut pairs = query.split('&');
    let value = pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    value.map(|value| decoded(name, value)).transpose()
}

/// A text without its percent-encoding.
///
/// # Errors
///
/// If it is none, or longer than [`VALUE_MAX`].
pub(crate) fn decoded<'v>(name: &str, value: &'v str) -> Result<Cow<'v, str>, Unread> {
    let wrong = |words: &str| (StatusCode::BAD_REQUEST, format!("`{name}` {words}"));
    if value.len() > VALUE_MAX {
        return Err(wrong("is too long"));
    }
    let text = percent_decode_str(value).decode_utf8();
    text.map_err(|_| wrong("is no text in UTF-8"))
}

/// Reads a body of JSON.
///
/// # Errors
///
/// If it is said to be something else (415), too long (413), too slow (408), broken, or not what is wanted (400).
pub(crate) async fn read<T, B>(headers: &HeaderMap, body: B) -> Result<T, Unread>
where
    T: DeserializeOwned,
    B: Body,
{
    // Asked for even where there is no body: a page of another site may not send this content type, so that
    // no browser changes anything on its behalf.
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    if !essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE)) {
        let words = "the content type must be application/json";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, words.to_owned()));
    }
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_MAX as u64) {
        return Err(too_long());
    }
    let all = match tokio::time::timeout(BODY_WITHIN, collect(body)).await {
        Ok(all) => all?,
        Err(_) => {
            let words = "the body did not come in time".to_owned();
            return Err((StatusCode::REQUEST_TIMEOUT, words));
        }
    };
    let all: &[u8] = if all.is_empty() { b"{}" } else { &all };
    serde_json::from_slice(all).map_err(|error| {
        // What it quotes is the client's own, but no more of it than fits into a sentence.
        let words: String = error.to_string().chars().take(WORDS_MAX).collect();
        (StatusCode::BAD_REQUEST, words)
    })
}

async fn collect<B: Body>(body: B) -> Result<Bytes, Unread> {
    let mut body = pin!(body);
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|_| {
            let words = "the body ended before its time".to_owned();
            (StatusCode::BAD_REQUEST, words)
        })?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len() + data.remaining() > BODY_MAX {
            return Err(too_long());
        }
        all.put(data);
    }
    Ok(all.freeze())
}

fn too_long() -> Unread {
    let words = format!("the body has more than {BODY_MAX} bytes");
    (StatusCode::PAYLOAD_TOO_LARGE, words)
}

const MEDIA_TYPE: &[u8] = b"application/json";

/// A thousand tags of 64 bytes.
const BODY_MAX: usize = 64 << 10;

/// An operator's body is sent in one go.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The longest value of a parameter, in bytes and encoded.
const VALUE_MAX: usize = 2_048;

const WORDS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_decoded_and_bounded() {
        let long = format!("who={}", "a".repeat(VALUE_MAX + 1));
        for (query, found) in [
            ("", Ok(None)),
            ("&&=&x", Ok(None)),
            ("who", Ok(Some(""))),
            ("who=a&who=b", Ok(Some("a"))),
            ("x=1&who=caller%3Aalice", Ok(Some("caller:alice"))),
            ("who=100%", Ok(Some("100%"))),
            ("who=%ff", Err(400)),
            (&*long, Err(400)),
        ] {
            let parameter = parameter(query, "who");
            let parameter = match &parameter {
                Ok(value) => Ok(value.as_deref()),
                Err((status, _)) => Err(status.as_u16()),
            };
            assert_eq!(parameter, found, "{query}");
        }
    }
}
