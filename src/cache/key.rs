//! What an answer is stored under.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;
use http::Uri;
use quick_cache::Equivalent;

use crate::cache::asked::Asked;
use crate::cache::query::QueryRules;
use crate::identity::RequestView;
use crate::tiers::HashedKey;

/// Whatever else than host and target tells answers apart, and an answer's tenant or namespace: the
/// closure's text is a part of the key. `None` sends the request past the cache.
#[derive(Clone)]
pub struct KeyPart(Arc<PartOf>);

type PartOf = dyn Fn(&RequestView<'_>) -> Option<Arc<str>> + Send + Sync;

/// The part, the authority and the target of a request, owned. Compared in full: a crafted collision of
/// hashes is a miss, never somebody else's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheKey {
    hash: u64,
    part_len: u32,
    authority_len: u32,
    /// One after the other: part, authority, target.
    text: Box<str>,
}

/// A [`CacheKey`] that borrows from the request, so that looking up allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyView<'a> {
    hash: u64,
    part: Option<Arc<str>>,
    authority: &'a str,
    target: Cow<'a, str>,
}

/// Makes keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyMaker {
    /// Whether the host counts.
    pub(crate) authority: bool,
    pub(crate) query: QueryRules,
    /// Seeded at random, so that nobody can send keys of one hash.
    pub(crate) hasher: RandomState,
}

impl KeyPart {
    /// A part of the key made by `of`, which is asked for every GET, HEAD and POST: it should be quick.
    pub fn new(of: impl Fn(&RequestView<'_>) -> Option<Arc<str>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }
}

impl fmt::Debug for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPart").finish_non_exhaustive()
    }
}

impl KeyMaker {
    /// The key of a request. `None` where there is no telling what it is for: a Host field that is not
    /// text, or two of them (RFC 9112 §3.2), or one that differs from the target's authority, of which
    /// a handler may read either; or a target without a path.
    #[inline]
    pub(crate) fn key<'a>(
        &self,
        request: &RequestView<'a>,
        asked: &Asked<'a>,
        part: Option<&KeyPart>,
        query: Option<&QueryRules>,
    ) -> Option<KeyView<'a>> {
        let target = query
            .unwrap_or(&self.query)
            .target(request.uri.path_and_query()?);
        let authority = if self.authority {
            authority(request.uri, asked)?
        } else {
            ""
        };
        let part = match part {
            Some(part) => Some((part.0)(request)?),
            None => None,
        };
        Some(self.view(part, authority, target))
    }

    /// The key of these parts.
    #[inline]
    pub(crate) fn view<'a>(
        &self,
        part: Option<Arc<str>>,
        authority: &'a str,
        target: Cow<'a, str>,
    ) -> KeyView<'a> {
        let mut state = self.hasher.build_hasher();
        part.hash(&mut state);
        authority.hash(&mut state);
        target.hash(&mut state);
        KeyView {
            hash: state.finish(),
            part,
            authority,
            target,
        }
    }
}

#[inline]
fn authority<'a>(uri: &'a Uri, asked: &Asked<'a>) -> Option<&'a str> {
    if asked.hosts {
        return None;
    }
    let host = match asked.host {
        Some(host) => Some(host.to_str().ok()?),
        None => None,
    };
    match (uri.authority(), host) {
        (Some(authority), Some(host)) if !host.eq_ignore_ascii_case(authority.as_str()) => None,
        (Some(authority), _) => Some(authority.as_str()),
        (None, host) => Some(host.unwrap_or_default()),
    }
}

impl KeyView<'_> {
    /// The same, owned.
    pub(crate) fn to_owned(&self) -> CacheKey {
        let part = self.part.as_deref().unwrap_or_default();
        let mut text = String::with_capacity(part.len() + self.authority.len() + self.target.len());
        for piece in [part, self.authority, &self.target] {
            text.push_str(piece);
        }
        let len = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        CacheKey {
            hash: self.hash,
            part_len: len(part),
            authority_len: len(self.authority),
            text: text.into_boxed_str(),
        }
    }

    pub(crate) const fn hash_value(&self) -> u64 {
        self.hash
    }
}

impl CacheKey {
    pub(crate) const fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The path and query, as far as they count.
    pub(crate) fn target(&self) -> &str {
        let from = self.part_len as usize + self.authority_len as usize;
        self.text.get(from..).unwrap_or_default()
    }

    /// Whatever tells it apart from other keys of the same target.
    /// What the [`KeyPart`] said, unless that was nothing.
    pub(crate) fn part(&self) -> Option<&str> {
        Some(self.part_and_authority().0).filter(|part| !part.is_empty())
    }

    pub(crate) fn part_and_authority(&self) -> (&str, &str) {
        let (part, authority) = (self.part_len as usize, self.authority_len as usize);
        let part_text = self.text.get(..part).unwrap_or_default();
        (
            part_text,
            self.text.get(part..part + authority).unwrap_or_default(),
        )
    }
}

/// The path of a target: what stands before the query.
pub(crate) fn path(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

impl HashedKey for CacheKey {
    fn hash_value(&self) -> u64 {
        self.hash
    }
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for KeyView<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<CacheKey> for KeyView<'_> {
    #[inline]
    fn equivalent(&self, key: &CacheKey) -> bool {
        let part = self.part.as_deref().unwrap_or_default();
        self.hash == key.hash
            && *self.target == *key.target()
            && key.part_and_authority() == (part, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;
    use http::{HeaderMap, HeaderValue, Request};

    use super::*;
    use crate::cache::asked::Credentials;

    fn maker(authority: bool) -> KeyMaker {
        KeyMaker {
            authority,
            query: QueryRules::default(),
            hasher: RandomState::default(),
        }
    }

    fn key(maker: &KeyMaker, uri: &'static str, headers: &HeaderMap) -> Option<CacheKey> {
        key_with(maker, uri, headers, None)
    }

    fn key_with(
        maker: &KeyMaker,
        uri: &'static str,
        headers: &HeaderMap,
        part: Option<&KeyPart>,
    ) -> Option<CacheKey> {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_static(uri);
        let asked = Asked::by(headers, &Credentials::new(&[]));
        let view = maker.key(&RequestView::of(&request), &asked, part, None)?;
        let owned = view.to_owned();
        assert!(view.equivalent(&owned));
        Some(owned)
    }

    #[test]
    fn hosts_are_kept_apart_and_the_query_counts() {
        let maker = maker(true);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.example"));
        let first = key(&maker, "/x?y=1", &headers).unwrap();
        assert_eq!(first.part_and_authority(), ("", "a.example"));
        assert_eq!((first.target(), path(first.target())), ("/x?y=1", "/x"));
        let other = key(&maker, "http://b.example/x?y=1", &HeaderMap::new()).unwrap();
        assert_ne!(first, other);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let maker = maker(true);
        let part = |text: &'static str| KeyPart::new(move |_| Some(text.into()));
        let mut keys = Vec::new();
        for (name, host) in [("t", "a.example"), ("ta", ".example"), ("", "ta.example")] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            keys.push(key_with(&maker, "/x", &headers, Some(&part(name))).unwrap());
        }
        assert!(keys.iter().all(|key| *key.text == *"ta.example/x"));
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        let nobody = KeyPart::new(|_| None);
        assert_eq!(
            key_with(&maker, "/x", &HeaderMap::new(), Some(&nobody)),
            None
        );
    }

    /// Even one hash for all keys would only cost time.
    #[test]
    fn keys_are_compared_in_full() {
        let maker = maker(true);
        let view = maker.view(None, "a", Cow::Borrowed("/x"));
        let mut other = maker.view(None, "a", Cow::Borrowed("/y")).to_owned();
        other.hash = view.hash;
        assert!(!view.equivalent(&other));
    }

    #[test]
    fn a_request_for_nobody_or_for_two_has_no_key() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("a"));
        headers.append(HOST, HeaderValue::from_static("b"));
        assert_eq!(key(&maker(true), "/x", &headers), None);
        assert!(key(&maker(false), "/x", &headers).is_some());
        headers.insert(HOST, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(key(&maker(true), "/x", &headers), None);
        // A handler that reads Host would fill the key of the other name.
        headers.insert(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(key(&maker(true), "http://victim.example/x", &headers), None);
        headers.insert(HOST, HeaderValue::from_static("Victim.example"));
        assert!(key(&maker(true), "http://victim.example/x", &headers).is_some());
        assert_eq!(
            key(&maker(true), "example.org:443", &HeaderMap::new()),
            None
        );
    }
}
