//! What the fields of a request say to a cache.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Read in one walk over the fields: a look-up for each of them would cost more than the look into the
/// store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The cache takes no part: conditions on changing an answer, a change of protocol, a method that is
    /// said in a field, and a GET with content, which no key could tell apart.
    pub(crate) stays_out: bool,
    /// A field says that the method is another one.
    pub(crate) overridden: bool,
    /// There are directives to be read.
    pub(crate) directives: bool,
    /// The client asks whether what it has still holds.
    pub(crate) conditions: bool,
    /// The client asks for a part.
    pub(crate) range: bool,
    /// Something identifies the caller.
    pub(crate) credentials: bool,
    /// The first `Host`.
    pub(crate) host: Option<&'a HeaderValue>,
    /// There is another one.
    pub(crate) hosts: bool,
}

impl<'a> Asked<'a> {
    #[inline]
    pub(crate) fn by(headers: &'a HeaderMap, credentials: &Credentials) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers {
            asked.credentials |= credentials.include(name);
            match name.as_str() {
                "host" => {
                    asked.hosts = asked.host.is_some();
                    asked.host = asked.host.or(Some(value));
                }
                "cache-control" | "pragma" => asked.directives = true,
                "if-none-match" | "if-modified-since" => asked.conditions = true,
                "range" => asked.range = true,
                "content-length" => asked.stays_out |= value != "0",
                "if-match" | "if-unmodified-since" | "upgrade" | "transfer-encoding" => {
                    asked.stays_out = true
                }
                "x-http-method" | "x-http-method-override" | "x-method-override" => {
                    (asked.stays_out, asked.overridden) = (true, true);
                }
                _ => {}
            }
        }
        asked
    }
}

/// The fields that identify a caller: `Authorization`, and those that the operator named.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    names: Vec<HeaderName>,
    /// A bit for the length of each, by which nearly all other names are ruled out at once.
    lengths: u64,
}

impl Credentials {
    pub(crate) fn new(names: &[HeaderName]) -> Self {
        let names: Vec<_> = std::iter::once(http::header::AUTHORIZATION)
            .chain(names.iter().cloned())
            .collect();
        let bits = names.iter().map(|name| bit(name.as_str().len()));
        Self {
            lengths: bits.fold(0, |all, bit| all | bit),
            names,
        }
    }

    #[inline]
    pub(crate) fn include(&self, name: &HeaderName) -> bool {
        self.lengths & bit(name.as_str().len()) != 0 && self.names.contains(name)
    }
}

const fn bit(len: usize) -> u64 {
    1 << (len % 64)
}

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
    fn one_walk_finds_all_that_matters() {
        let credentials = Credentials::new(&[HeaderName::from_static("x-api-key")]);
        let by = |pairs: &[(&'static str, &'static str)]| {
            let headers = headers(pairs);
            let asked = Asked::by(&headers, &credentials);
            (
                asked.stays_out,
                asked.directives,
                asked.conditions,
                asked.range,
                asked.credentials,
                asked.hosts,
            )
        };
        let none = (false, false, false, false, false, false);
        assert_eq!(
            by(&[("host", "a"), ("accept", "*/*"), ("cookie", "a=b")]),
            none
        );
        assert_eq!(by(&[("content-length", "0")]), none);
        assert!(by(&[("host", "a"), ("host", "a")]).5);
        for name in ["authorization", "x-api-key"] {
            assert!(by(&[(name, "x")]).4, "{name}");
        }
        assert!(!by(&[("x-api-kez", "x"), ("abcdefghijklm", "x")]).4);
        assert!(by(&[("range", "bytes=0-1")]).3);
        assert!(by(&[("if-none-match", "*")]).2);
        assert!(by(&[("pragma", "no-cache")]).1);
        for (name, value) in [
            ("if-match", "*"),
            ("transfer-encoding", "chunked"),
            ("content-length", "1"),
            ("content-length", "zero"),
            ("upgrade", "websocket"),
            ("x-http-method-override", "DELETE"),
        ] {
            assert!(by(&[(name, value)]).0, "{name}");
        }
    }
}
