//! The caller behind a request: who signed in, on which plan, for which tenant.
//!
//! The crate does not authenticate. It is told who is calling, either by a [`Caller`] that an outer
//! layer has put into the request's extensions, or by a closure:
//!
//! ```
//! use tower_keep::identity::{Caller, CallerResolver};
//!
//! let callers = CallerResolver::new(|request| {
//!     let key = request.headers.get("x-api-key")?.to_str().ok()?;
//!     // Look the key up and check it; whatever is returned is believed.
//!     (key == "k-7").then(|| Caller::new("user-7").tier("premium").tenant("acme"))
//! });
//! # let _ = callers;
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::identity::view::RequestView;

/// The tier of a signed-in caller for whom none was named.
pub const TIER_BASIC: &str = "basic";

/// The tier of requests nobody has signed in for. Rules may give it a quota like any other.
pub const TIER_ANONYMOUS: &str = "anonymous";

/// A tier above [`TIER_BASIC`], for which the preset rules know quotas.
pub const TIER_PREMIUM: &str = "premium";

/// The tier of those who run the service; see
/// [`RateLimitConfig::admin_bypass`](crate::rate_limit::RateLimitConfig::admin_bypass).
pub const TIER_ADMIN: &str = "admin";

/// The smallest plan of those that [`Rule::plans`](crate::rate_limit::Rule::plans) knows.
pub const TIER_FREE: &str = "free";

/// The middle plan of those that [`Rule::plans`](crate::rate_limit::Rule::plans) knows.
pub const TIER_PRO: &str = "pro";

/// The largest plan of those that [`Rule::plans`](crate::rate_limit::Rule::plans) knows.
pub const TIER_ENTERPRISE: &str = "enterprise";

/// Somebody who has signed in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Tells this caller from all others, also from those of other tenants.
    pub id: Arc<str>,
    /// The plan, by which rules choose the quota; `basic` unless said otherwise.
    pub tier: Arc<str>,
    /// The organisation on whose behalf the caller acts.
    pub tenant: Option<Arc<str>>,
}

impl Caller {
    /// A caller of tier `basic` and no tenant.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        // Shared, so that resolving a caller of the plain tier allocates nothing for it.
        static BASIC: LazyLock<Arc<str>> = LazyLock::new(|| TIER_BASIC.into());
        Self {
            id: id.into(),
            tier: Arc::clone(&BASIC),
            tenant: None,
        }
    }

    /// The same caller on the plan `tier`.
    #[must_use]
    pub fn tier(mut self, tier: impl Into<Arc<str>>) -> Self {
        self.tier = tier.into();
        self
    }

    /// The same caller on behalf of `tenant`.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<Arc<str>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }
}

type Resolve = dyn Fn(&RequestView<'_>) -> Option<Caller> + Send + Sync;

/// Finds the caller of a request. Cheap to clone.
///
/// The closure runs at most once per request and layer, on the request's thread: it should look
/// something up in memory, and must not block.
#[derive(Clone, Default)]
pub struct CallerResolver {
    resolve: Option<Arc<Resolve>>,
}

impl CallerResolver {
    /// Asks `resolve` wherever no [`Caller`] is in the request's extensions.
    #[must_use]
    pub fn new<F>(resolve: F) -> Self
    where
        F: Fn(&RequestView<'_>) -> Option<Caller> + Send + Sync + 'static,
    {
        Self {
            resolve: Some(Arc::new(resolve)),
        }
    }

    /// Knows only the callers in the requests' extensions.
    #[must_use]
    pub const fn none() -> Self {
        Self { resolve: None }
    }

    /// The caller of `request`, if somebody has signed in: first the one in its extensions.
    #[must_use]
    pub fn caller<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, Caller>> {
        if let Some(known) = request.extensions.get::<Caller>() {
            return Some(Cow::Borrowed(known));
        }
        self.resolve
            .as_ref()
            .and_then(|resolve| resolve(request))
            .map(Cow::Owned)
    }
}

impl fmt::Debug for CallerResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerResolver")
            .field("closure", &self.resolve.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_key(request: &RequestView<'_>) -> Option<Caller> {
        let key = request.headers.get("x-api-key")?.to_str().ok()?;
        Some(Caller::new(key))
    }

    #[test]
    fn the_extensions_come_before_the_closure() {
        let resolver = CallerResolver::new(by_key);
        let mut request = http::Request::builder()
            .header("x-api-key", "k-7")
            .body(())
            .unwrap();
        let found = resolver.caller(&RequestView::of(&request)).unwrap();
        assert_eq!(*found, Caller::new("k-7"));
        assert_eq!(&*found.tier, TIER_BASIC);
        let signed_in = Caller::new("u-1").tier("premium").tenant("acme");
        request.extensions_mut().insert(signed_in.clone());
        let found = resolver.caller(&RequestView::of(&request)).unwrap();
        assert_eq!(*found, signed_in);
    }

    #[test]
    fn where_nobody_knows_the_caller_there_is_none() {
        let request = http::Request::new(());
        let view = RequestView::of(&request);
        assert_eq!(CallerResolver::none().caller(&view), None);
        assert_eq!(CallerResolver::new(by_key).caller(&view), None);
    }
}
