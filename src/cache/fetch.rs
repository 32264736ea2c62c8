//! Requests on their way to the service, and what the look into memory found out about them.

use std::sync::Arc;

use crate::cache::behind::Writing;
use crate::cache::entry::Entry;
use crate::cache::found::Wishes;
use crate::cache::key::CacheKey;
use crate::cache::landing::Pilot;
use crate::cache::plan::RoutePlan;
use crate::cache::status::FwdReason;

/// A request to the service whose answer may be stored.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) key: CacheKey,
    pub(crate) reason: FwdReason,
    /// Held by whoever others wait for.
    pub(crate) pilot: Option<Pilot>,
    /// What is stored but may not be served unasked.
    pub(crate) stale: Option<Arc<Entry>>,
    /// `stale-if-error`, as far as the client accepts it.
    pub(crate) stale_if_error: Option<u64>,
    /// Whether something in it identifies the caller.
    pub(crate) credentials: bool,
    pub(crate) wishes: Wishes,
    pub(crate) route: Option<Arc<RoutePlan>>,
    /// How its answer is written behind memory; `None` until that was looked at.
    pub(crate) writing: Option<Writing>,
}

/// A HEAD on its way to the service, and what is stored for it.
#[derive(Debug)]
pub(crate) struct Inquiry {
    pub(crate) key: CacheKey,
    pub(crate) entry: Arc<Entry>,
    pub(crate) reason: FwdReason,
    pub(crate) credentials: bool,
    pub(crate) route: Option<Arc<RoutePlan>>,
}
