//! Whom a rule counts against.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::RequestView;

/// Whose requests share a bucket.
///
/// Where a request lacks what a scope asks for, the client's IP stands in for it, so that leaving a
/// key or a login away is never a way around a rule.
///
/// In files: `ip`, `caller`, `tenant` or `global`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Scope {
    /// The client's IP: behind trusted proxies, IPv6 by its prefix. Each tier with a quota of its own
    /// has buckets of its own, because people of several plans may share an address.
    Ip,
    /// The signed-in caller, whatever address it comes from.
    #[default]
    Caller,
    /// All callers of a tenant together. A caller without a tenant is one by itself.
    Tenant,
    /// Everybody together, per tier with a quota of its own.
    Global,
    /// What a closure says; see [`Scope::custom`].
    Custom(CustomScope),
}

type Name = dyn for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync;

/// A closure that names whom a request counts against; see [`Scope::custom`].
#[derive(Clone)]
pub struct CustomScope {
    name: Arc<Name>,
}

impl Scope {
    /// Counts by whatever `name` says; where it says nothing, by IP.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use tower_keep::rate_limit::Scope;
    ///
    /// let scope = Scope::custom(|request| {
    ///     let device = request.headers.get("x-device-id")?;
    ///     device.to_str().ok().map(Cow::Borrowed)
    /// });
    /// # let _ = scope;
    /// ```
    ///
    /// A name that clients choose freely limits nobody: take one that was checked.
    #[must_use]
    pub fn custom<F>(name: F) -> Self
    where
        F: for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Self::Custom(CustomScope {
            name: Arc::new(name),
        })
    }
}

impl CustomScope {
    pub(crate) fn name<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        (self.name)(request)
    }
}

impl PartialEq for CustomScope {
    /// Two are the same if they hold the same closure.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.name, &other.name)
    }
}

impl fmt::Debug for CustomScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomScope").finish_non_exhaustive()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Ip => "ip",
            Scope::Caller => "caller",
            Scope::Tenant => "tenant",
            Scope::Global => "global",
            // Written for whoever looks at a configuration; it does not read back.
            Scope::Custom(_) => "custom",
        }
        .to_owned()
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "ip" => Ok(Self::Ip),
            "caller" => Ok(Self::Caller),
            "tenant" => Ok(Self::Tenant),
            "global" => Ok(Self::Global),
            _ => Err(format!(
                "unknown scope {text:?}: must be ip, caller, tenant or global"
            )),
        }
    }
}
