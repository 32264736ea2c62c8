//! The directives of `Cache-Control` (RFC 9111 §5.2) and its relatives.
//!
//! Parsing never fails. What cannot be read is taken in the way that serves nothing wrong: an
//! unreadable lifetime is zero, an unknown directive is passed over.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// What the `Cache-Control` lines of a message say together. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `no-store`: keep nothing of this exchange.
    pub no_store: bool,
    /// `no-cache`: do not use without asking the origin. The form with field names counts as the
    /// plain one, as RFC 9111 §5.2.2.4 allows.
    pub no_cache: bool,
    /// `private`: not for a shared cache. The form with field names counts as the plain one.
    pub private: bool,
    /// `public`: may be stored even where it otherwise might not.
    pub public: bool,
    /// `must-revalidate`: never serve stale.
    pub must_revalidate: bool,
    /// `proxy-revalidate`: a shared cache never serves stale.
    pub proxy_revalidate: bool,
    /// `must-understand`: store only if the status code is understood, and then whatever `no-store` says.
    pub must_understand: bool,
    /// `only-if-cached`: the client wants a stored answer or none.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<u64>,
    /// `s-maxage`: the lifetime for shared caches.
    pub s_maxage: Option<u64>,
    /// `min-fresh`: the client wants this much life left.
    pub min_fresh: Option<u64>,
    /// `max-stale`: the client takes answers up to this much past their life; `u64::MAX` without a value.
    pub max_stale: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<u64>,
}

impl CacheControl {
    /// Reads all `Cache-Control` lines of a response.
    #[must_use]
    pub fn of_response(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            control.read(line.as_bytes());
        }
        control
    }

    /// Reads all `Cache-Control` lines of a request; `Pragma: no-cache` counts where there are none
    /// (RFC 9111 §5.4).
    #[must_use]
    pub fn of_request(headers: &HeaderMap) -> Self {
        let mut control = Self::of_response(headers);
        if !headers.contains_key(CACHE_CONTROL)
            && let Some(pragma) = headers.get(PRAGMA)
        {
            control.no_cache = directives(pragma.as_bytes())
                .any(|(name, _)| name.eq_ignore_ascii_case(b"no-cache"));
        }
        control
    }

    /// RFC 9111 §3.5: what a response must say to be stored, and served to others, although the request had
    /// credentials.
    pub(crate) const fn is_for_everyone(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    fn read(&mut self, line: &[u8]) {
        for (name, value) in directives(line) {
            let mut lower = [0; DIRECTIVE_BYTES_MAX];
            // A longer name is none of these.
            let Some(lower) = lower.get_mut(..name.len()) else {
                continue;
            };
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            self.note(lower, value.map(seconds));
        }
    }

    /// Takes note of a directive: its name in lower case, and what its value is worth in seconds.
    pub(crate) fn note(&mut self, name: &[u8], value: Option<u64>) {
        let lifetime = value.unwrap_or(0);
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => shortest(&mut self.max_age, lifetime),
            b"s-maxage" => shortest(&mut self.s_maxage, lifetime),
            // A client that asks for more life left, or less staleness, is the one to please.
            b"min-fresh" => self.min_fresh = self.min_fresh.max(Some(lifetime)),
            b"max-stale" => shortest(&mut self.max_stale, value.unwrap_or(u64::MAX)),
            b"stale-while-revalidate" => shortest(&mut self.stale_while_revalidate, lifetime),
            b"stale-if-error" => shortest(&mut self.stale_if_error, lifetime),
            _ => {}
        }
    }
}

/// "If there are duplicate directives .. the most restrictive directive should be honored"
/// (RFC 9111 §4.2.1, which allows it or the first).
fn shortest(known: &mut Option<u64>, new: u64) {
    *known = Some(known.map_or(new, |old| old.min(new)));
}

/// A delta-seconds (RFC 9111 §1.2.2). Recipients are to take both the token and the quoted form; too
/// large a number is 2^31; and anything else is no lifetime at all.
fn seconds(digits: &[u8]) -> u64 {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let all = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    all.unwrap_or(DELTA_SECONDS_MAX).min(DELTA_SECONDS_MAX)
}

/// The directives of one line: names, and values without their quotes.
fn directives(line: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    split_outside_quotes(line).filter_map(|part| {
        let part = part.trim_ascii();
        let (name, value) = match part.iter().position(|byte| *byte == b'=') {
            Some(at) => (&part[..at], Some(unquoted(&part[at + 1..]))),
            None => (part, None),
        };
        // A space between name and `=` is not in the grammar; such a directive is an unknown one.
        (!name.is_empty()).then_some((name, value))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    }
}

/// Splits at commas that are not inside a quoted string. A quote that never ends takes the rest.
fn split_outside_quotes(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in text.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    rest = Some(&text[at + 1..]);
                    return Some(&text[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

/// "If a cache receives a delta-seconds value greater than the greatest integer it can represent .. the
/// cache MUST consider the value to be 2147483648" (RFC 9111 §1.2.2).
pub(crate) const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// The length of `stale-while-revalidate`, the longest name that is known here.
const DIRECTIVE_BYTES_MAX: usize = 22;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        CacheControl::of_response(&headers)
    }

    /// RFC 9111 §5.2: names are case-insensitive, values may be tokens or quoted strings.
    #[test]
    fn directives_are_read_in_any_case_order_and_quoting() {
        let read = read(&[
            "MAX-AGE=60 , Public",
            r#"s-maxage="30",no-cache="set-cookie, x""#,
        ]);
        assert_eq!(read.max_age, Some(60));
        assert_eq!(read.s_maxage, Some(30));
        assert!(read.public && read.no_cache);
        assert!(!read.no_store && !read.private);
    }

    #[test]
    fn a_lifetime_that_cannot_be_read_is_zero_and_a_huge_one_is_capped() {
        for (line, expected) in [
            ("max-age", 0),
            ("max-age=", 0),
            ("max-age=-1", 0),
            ("max-age=1.5", 0),
            ("max-age=abc", 0),
            ("max-age=99999999999999999999999", 1 << 31),
            ("max-age=4294967296", 1 << 31),
            ("max-age=10, max-age=5", 5),
        ] {
            assert_eq!(read(&[line]).max_age, Some(expected), "{line}");
        }
        assert_eq!(read(&["max-age =60"]).max_age, None, "not in the grammar");
    }

    #[test]
    fn a_directive_inside_a_quoted_value_is_not_a_directive() {
        let read = read(&[r#"x="no-store, max-age=1", max-age=60"#]);
        assert!(!read.no_store);
        assert_eq!(read.max_age, Some(60));
    }

    /// RFC 9111 §5.2.1.2: "If no value is assigned to max-stale, then the client will accept a stale
    /// response of any age."
    #[test]
    fn max_stale_without_a_value_has_no_limit() {
        assert_eq!(read(&["max-stale"]).max_stale, Some(u64::MAX));
        assert_eq!(read(&["max-stale=7"]).max_stale, Some(7));
    }

    /// RFC 9111 §5.4: Pragma counts only when Cache-Control is absent.
    #[test]
    fn pragma_counts_only_without_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        assert!(CacheControl::of_request(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        assert!(!CacheControl::of_request(&headers).no_cache);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in prop::collection::vec(0x20u8..0xff, 0..60)) {
            let mut control = CacheControl::default();
            control.read(&line);
        }
    }
}
