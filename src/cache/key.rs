//! What an answer is stored under.

use std::hash::{Hash, Hasher};

use http::header::HOST;
use http::{HeaderMap, Uri};
use quick_cache::Equivalent;

/// The authority and the target of a request, owned. Compared in full: a crafted collision of hashes
/// is a miss, never somebody else's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheKey {
    authority: Box<str>,
    target: Box<str>,
}

/// A [`CacheKey`] that borrows from the request, so that looking up allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyView<'a> {
    authority: &'a str,
    target: &'a str,
}

impl<'a> KeyView<'a> {
    /// The key of a request. `None` where there is no telling what it is for: a Host field that is not
    /// text, or two of them (RFC 9112 §3.2), or one that differs from the target's authority, of which
    /// a handler may read either; or a target without a path.
    pub(crate) fn of(uri: &'a Uri, headers: &'a HeaderMap, by_authority: bool) -> Option<Self> {
        let target = uri.path_and_query()?.as_str();
        if !by_authority {
            return Some(Self {
                authority: "",
                target,
            });
        }
        let mut lines = headers.get_all(HOST).iter();
        let host = match lines.next() {
            Some(host) => Some(host.to_str().ok()?),
            None => None,
        };
        if lines.next().is_some() {
            return None;
        }
        let authority = match (uri.authority(), host) {
            (Some(authority), Some(host)) if !host.eq_ignore_ascii_case(authority.as_str()) => {
                return None;
            }
            (Some(authority), _) => authority.as_str(),
            (None, host) => host.unwrap_or_default(),
        };
        Some(Self { authority, target })
    }

    /// The same, owned.
    pub(crate) fn to_owned(self) -> CacheKey {
        CacheKey {
            authority: self.authority.into(),
            target: self.target.into(),
        }
    }

    /// The path and query.
    pub(crate) const fn target(&self) -> &'a str {
        self.target
    }
}

impl CacheKey {
    pub(crate) fn bytes(&self) -> usize {
        self.authority.len() + self.target.len()
    }

    pub(crate) fn view(&self) -> KeyView<'_> {
        KeyView {
            authority: &self.authority,
            target: &self.target,
        }
    }
}

/// The path of a target: what stands before the query.
pub(crate) fn path(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view().hash(state);
    }
}

impl Hash for KeyView<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.authority.hash(state);
        self.target.hash(state);
    }
}

impl Equivalent<CacheKey> for KeyView<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        *self.target == *key.target && *self.authority == *key.authority
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn hosts_are_kept_apart_and_the_query_counts() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.example"));
        let uri = Uri::from_static("/x?y=1");
        let key = KeyView::of(&uri, &headers, true).unwrap();
        assert_eq!((key.authority, key.target), ("a.example", "/x?y=1"));
        assert!(key.equivalent(&key.to_owned()));
        let full = Uri::from_static("http://b.example/x?y=1");
        let none = HeaderMap::new();
        let other = KeyView::of(&full, &none, true).unwrap();
        assert!(!other.equivalent(&key.to_owned()));
        assert_eq!(path(key.target()), "/x");
    }

    #[test]
    fn a_request_for_nobody_or_for_two_has_no_key() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/x");
        headers.append(HOST, HeaderValue::from_static("a"));
        headers.append(HOST, HeaderValue::from_static("b"));
        assert_eq!(KeyView::of(&uri, &headers, true), None);
        assert!(KeyView::of(&uri, &headers, false).is_some());
        headers.insert(HOST, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(KeyView::of(&uri, &headers, true), None);
        // A handler that reads Host would fill the key of the other name.
        let full = Uri::from_static("http://victim.example/x");
        headers.insert(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(KeyView::of(&full, &headers, true), None);
        headers.insert(HOST, HeaderValue::from_static("Victim.example"));
        assert!(KeyView::of(&full, &headers, true).is_some());
        let authority_form = Uri::from_static("example.org:443");
        assert_eq!(KeyView::of(&authority_form, &HeaderMap::new(), true), None);
    }
}
