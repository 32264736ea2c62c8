//! Whom a decision is about, in texts that people and other instances read.

use std::sync::Arc;

use crate::rate_limit::charges::Charge;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::scope::Scope;
use crate::rate_limit::subject::Subject;

/// Tells whom a request is counted against. Asked only where a text is needed: never for a request that
/// memory lets through.
pub(crate) trait Who {
    /// Whose the bucket of this charge is.
    fn owner(&self, charge: &Charge<'_>) -> Arc<str>;

    /// Who is struck and banned: the caller, or the address of one who has not signed in.
    fn client(&self) -> Arc<str>;
}

/// Whoever sent a request.
pub(crate) struct Sender<'s, 'a> {
    pub(crate) subject: &'s Subject<'a>,
    pub(crate) ipv6_prefix: u8,
}

/// Somebody who is named without a request.
pub(crate) struct Somebody<'a> {
    pub(crate) owner: Owner<'a>,
    pub(crate) ipv6_prefix: u8,
}

impl Who for Sender<'_, '_> {
    fn owner(&self, charge: &Charge<'_>) -> Arc<str> {
        let owner = self.subject.owner(&charge.rule.scope);
        owner.text(self.ipv6_prefix)
    }

    fn client(&self) -> Arc<str> {
        self.subject.owner(&Scope::Caller).text(self.ipv6_prefix)
    }
}

impl Who for Somebody<'_> {
    fn owner(&self, _: &Charge<'_>) -> Arc<str> {
        self.owner.text(self.ipv6_prefix)
    }

    fn client(&self) -> Arc<str> {
        self.owner.text(self.ipv6_prefix)
    }
}
