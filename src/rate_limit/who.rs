//! Whom a decision is about, in texts that people and other instances read.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use crate::rate_limit::charges::Charge;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::scope::Scope;
use crate::rate_limit::subject::Subject;

/// Tells whom a request is counted against. Texts are asked for only where they are needed: never for a
/// request that memory lets through.
pub(crate) trait Who {
    /// Whose the bucket of this charge is.
    fn owner(&self, charge: &Charge<'_>) -> Arc<str>;

    /// Who is struck and banned: the caller, or the address of one who has not signed in; nobody where
    /// strangers would suffer with it.
    fn client(&self) -> Option<Arc<str>>;
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

/// Somebody who is not to be struck for what is decided.
#[cfg(feature = "redis")]
pub(crate) struct Spared<'w, W>(pub(crate) &'w W);

impl Sender<'_, '_> {
    fn client(&self) -> Option<Owner<'_>> {
        let client = self.subject.owner(&Scope::Caller);
        Some(client).filter(|client| *client != Owner::Unknown)
    }

    /// The client's text, hashed; nothing if it can't be banned. Allocates nothing.
    pub(crate) fn hash(&self, hasher: impl Hasher) -> Option<u64> {
        let mut text = Hashed(hasher);
        let written = self.client()?.write(&mut text, self.ipv6_prefix);
        written.is_ok().then(|| text.0.finish())
    }
}

impl Who for Sender<'_, '_> {
    fn owner(&self, charge: &Charge<'_>) -> Arc<str> {
        let owner = self.subject.owner(&charge.rule.scope);
        owner.text(self.ipv6_prefix)
    }

    fn client(&self) -> Option<Arc<str>> {
        Some(self.client()?.text(self.ipv6_prefix))
    }
}

impl Who for Somebody<'_> {
    fn owner(&self, _: &Charge<'_>) -> Arc<str> {
        self.owner.text(self.ipv6_prefix)
    }

    fn client(&self) -> Option<Arc<str>> {
        let is_client = matches!(self.owner, Owner::Caller(_) | Owner::Ip(_));
        is_client.then(|| self.owner.text(self.ipv6_prefix))
    }
}

#[cfg(feature = "redis")]
impl<W: Who> Who for Spared<'_, W> {
    fn owner(&self, charge: &Charge<'_>) -> Arc<str> {
        self.0.owner(charge)
    }

    fn client(&self) -> Option<Arc<str>> {
        None
    }
}

/// A text that is hashed as it is written.
struct Hashed<H>(H);

impl<H: Hasher> fmt::Write for Hashed<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.0.write_u8(byte));
        Ok(())
    }
}
