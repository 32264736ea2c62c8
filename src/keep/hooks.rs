//! What a service has told the builder that is asked only while the stack runs.

use std::fmt;

use crate::admin::AdminAuth;
use crate::identity::CallerResolver;
use crate::keep::relief::PurgeHook;

/// Closures that are called now and then.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// Says who is calling.
    pub(crate) callers: CallerResolver,
    /// Gives the allocator's free memory back.
    pub(crate) purge: Option<PurgeHook>,
    /// Says who may see details and change things. It holds no token yet.
    pub(crate) admin: AdminAuth,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("callers", &self.callers)
            .field("purge", &self.purge.is_some())
            .field("admin", &self.admin)
            .finish()
    }
}
