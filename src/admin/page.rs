//! The dashboard's page: one file, which loads nothing from anywhere and runs nothing but its own script.

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS};
use http::{HeaderName, StatusCode};
use sha2::{Digest, Sha256};

use crate::admin::answer::{Answer, answer};
use crate::admin::body::AdminBody;

/// The page as it is sent, and what a browser is told it may do.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    html: Bytes,
    policy: Option<HeaderValue>,
}

impl Page {
    /// The page; `asks` if it is to ask for a token before it asks for figures.
    pub(crate) fn new(asks: bool) -> Self {
        let html = match asks {
            true => HTML.replacen(OPEN, ASKING, 1),
            false => HTML.to_owned(),
        };
        Self {
            policy: policy(&html),
            html: html.into(),
        }
    }

    pub(crate) fn answer(&self) -> Answer {
        let body = AdminBody::whole(self.html.clone());
        let Some(policy) = &self.policy else {
            // Without its script the page shows nothing, and without a policy it is not sent.
            let words = "the page is broken";
            return crate::admin::answer::problem(StatusCode::INTERNAL_SERVER_ERROR, words);
        };
        let mut response = answer(StatusCode::OK, CONTENT_TYPE, body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        let own = HeaderValue::from_static("same-origin");
        headers.insert(OPENER_POLICY, own.clone());
        headers.insert(RESOURCE_POLICY, own);
        response
    }
}

/// Nothing is loaded but figures from where the page came from; of scripts and styles only those in the page
/// run, each known by its digest (CSP Level 3 §2.3.1).
fn policy(html: &str) -> Option<HeaderValue> {
    let script = source(html, "<script>", "</script>")?;
    let style = source(html, "<style>", "</style>")?;
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).ok()
}

/// What stands between two tags, as a source of a policy.
fn source(html: &str, open: &str, close: &str) -> Option<String> {
    let (_, behind) = html.split_once(open)?;
    let (text, _) = behind.split_once(close)?;
    Some(format!("'sha256-{}'", base64(&Sha256::digest(text))))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            match place <= three.len() {
                true => {
                    let letter = (bits >> (18 - 6 * place)) & 63;
                    text.push(char::from(LETTERS[letter as usize]));
                }
                false => text.push('='),
            }
        }
    }
    text
}

const HTML: &str = include_str!("dashboard.html");

/// Where the page is told that it has to ask for a token.
const OPEN: &str = "<html lang=\"en\" data-auth=\"ambient\">";
const ASKING: &str = "<html lang=\"en\" data-auth=\"token\">";

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_the_standard_shows_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    /// One script and one style, so that the two digests speak of all there is; nothing from elsewhere, and
    /// nothing that a policy of digests forbids.
    #[test]
    fn the_page_is_one_small_file_that_loads_nothing() {
        assert!(HTML.contains(OPEN));
        assert!(Page::new(true).html.starts_with(b"<!doctype html>"));
        assert!(HTML.len() < 60 << 10, "{} bytes", HTML.len());
        for (tag, count) in [
            ("<script", 1),
            ("<style", 1),
            ("<script>", 1),
            ("<style>", 1),
        ] {
            assert_eq!(HTML.matches(tag).count(), count, "{tag}");
        }
        for word in [
            "http://",
            "https://",
            "//cdn",
            " src=",
            " style=",
            "@import",
            "url(",
            "onclick",
            "onload",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "EventSource",
        ] {
            let found = HTML.matches(word).count();
            // The name of the SVG namespace is no address to be loaded.
            let allowed =
                usize::from(word == "http://" && HTML.contains("http://www.w3.org/2000/svg"));
            assert!(found <= allowed, "{word} stands in the page");
        }
    }
}
