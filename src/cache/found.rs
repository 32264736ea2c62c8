//! A stored answer for a request, and what the client wants of it.

use std::sync::Arc;

use crate::cache::entry::Entry;
use crate::cache::status::Service;
use crate::clock::Moment;

/// A stored answer that may be served.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: Arc<Entry>,
    pub(crate) now: Moment,
    pub(crate) service: Service,
    pub(crate) wishes: Wishes,
}

/// What a client wants other than the whole answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    /// It has something, and asks whether that still holds.
    pub(crate) conditions: bool,
    /// A part of it.
    pub(crate) range: bool,
    /// Its fields.
    pub(crate) head: bool,
}

impl Wishes {
    #[inline]
    pub(crate) const fn are_plain(self) -> bool {
        !(self.conditions | self.range | self.head)
    }
}
