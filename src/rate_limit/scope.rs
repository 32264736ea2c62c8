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
/// In files: `ip`, `caller` (or `user`), `tenant`, `api_key`, `fingerprint` or `global`.
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
    /// The API key that the request was let in with: an [`ApiKey`](crate::identity::ApiKey) in its
    /// extensions, or what the closure of [`KeepBuilder::api_keys`](crate::KeepBuilder::api_keys)
    /// says. Never a field as the client sent it.
    ApiKey,
    /// The client's IP together with what its browser or library says of itself in every request
    /// (`User-Agent`, `Accept-Language`, `Accept-Encoding`, `Sec-CH-UA`, `Sec-CH-UA-Platform`).
    ///
    /// It keeps people apart who share an address, an office or a mobile network, and have not signed in.
    /// It identifies nobody: two alike machines behind one address share a bucket, and a client may say of
    /// itself what it likes, with every request anew. Of one address no more than 256 are therefore told
    /// apart, so that this multiplies a quota and never lifts it; a rule of scope `ip` beside it bounds
    /// the whole.
    Fingerprint,
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
            Scope::ApiKey => "api_key",
            Scope::Fingerprint => "fingerprint",
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
            "caller" | "user" => Ok(Self::Caller),
            "tenant" => Ok(Self::Tenant),
            "api_key" => Ok(Self::ApiKey),
            "fingerprint" => Ok(Self::Fingerprint),
            "global" => Ok(Self::Global),
            _ => Err(format!(
                "unknown scope {text:?}: must be ip, caller, tenant, api_key, fingerprint or global"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_all_but_closures() {
        for (text, scope) in [
            ("ip", Scope::Ip),
            ("caller", Scope::Caller),
            ("tenant", Scope::Tenant),
            ("api_key", Scope::ApiKey),
            ("fingerprint", Scope::Fingerprint),
            ("global", Scope::Global),
        ] {
            assert_eq!(Scope::try_from(text.to_owned()).as_ref(), Ok(&scope));
            assert_eq!(String::from(scope), text);
        }
        assert_eq!(Scope::try_from("user".to_owned()), Ok(Scope::Caller));
        for text in ["custom", "IP", "", "apikey"] {
            assert!(Scope::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
