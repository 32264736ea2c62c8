//! The API key that a request was let in with.
//!
//! A key is counted only once somebody has checked it: a raw field would let every client make up as many
//! keys, and so as many quotas, as it likes. Either an outer layer puts the checked [`ApiKey`] into the
//! request's extensions, or a closure tells it:
//!
//! ```
//! use std::borrow::Cow;
//! use tower_keep::identity::ApiKeyResolver;
//!
//! let keys = ApiKeyResolver::new(|request| {
//!     let key = request.headers.get("x-api-key")?.to_str().ok()?;
//!     // Look the key up; whatever is returned is believed.
//!     (key == "k-7").then_some(Cow::Borrowed(key))
//! });
//! # let _ = keys;
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::identity::view::RequestView;

/// A checked API key, for whoever checks it to leave in the request's extensions.
///
/// Not shown by `Debug`, and nowhere else in clear.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ApiKey(Arc<str>);

impl ApiKey {
    /// A key that was checked.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self(key.into())
    }

    /// The key itself: a secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

type Resolve = dyn for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync;

/// Finds the API key of a request. Cheap to clone.
///
/// The closure runs at most once per request and layer, on the request's thread: it should look
/// something up in memory, and must not block.
#[derive(Clone, Default)]
pub struct ApiKeyResolver {
    resolve: Option<Arc<Resolve>>,
}

impl ApiKeyResolver {
    /// Asks `resolve` wherever no [`ApiKey`] is in the request's extensions.
    #[must_use]
    pub fn new<F>(resolve: F) -> Self
    where
        F: for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Self {
            resolve: Some(Arc::new(resolve)),
        }
    }

    /// Knows only the keys in the requests' extensions.
    #[must_use]
    pub const fn none() -> Self {
        Self { resolve: None }
    }

    /// The key of `request`, if it was let in with one: first the one in its extensions.
    #[must_use]
    pub fn api_key<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        if let Some(known) = request.extensions.get::<ApiKey>() {
            return Some(Cow::Borrowed(known.as_str()));
        }
        self.resolve.as_ref().and_then(|resolve| resolve(request))
    }
}

impl fmt::Debug for ApiKeyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyResolver")
            .field("closure", &self.resolve.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extensions_come_before_the_closure_and_a_raw_field_is_no_key() {
        let mut request = http::Request::builder()
            .header("x-api-key", "k-7")
            .body(())
            .unwrap();
        let none = ApiKeyResolver::none();
        assert_eq!(none.api_key(&RequestView::of(&request)), None);
        let resolver = ApiKeyResolver::new(|request| {
            let key = request.headers.get("x-api-key")?;
            key.to_str().ok().map(Cow::Borrowed)
        });
        let found = resolver.api_key(&RequestView::of(&request));
        assert_eq!(found.as_deref(), Some("k-7"));
        request.extensions_mut().insert(ApiKey::new("k-8"));
        for resolver in [resolver, none] {
            let found = resolver.api_key(&RequestView::of(&request));
            assert_eq!(found.as_deref(), Some("k-8"));
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", ApiKey::new("sk_live_1"));
        assert!(!shown.contains("sk_live_1"), "{shown}");
    }
}
