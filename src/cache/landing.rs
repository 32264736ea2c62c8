//! How the flight for an answer ended: see [`Flights`](crate::tiers::Flights).

use std::sync::Arc;

use crate::cache::entry::Entry;
use crate::cache::key::CacheKey;

/// How a flight ended, if it did not break off.
#[derive(Clone, Debug)]
pub(crate) enum Landing {
    /// With this answer to whoever asked for the same key, which need not be stored any more when a follower
    /// looks for it. Without a key nobody was there to be brought it.
    Stored(Arc<Entry>, Option<CacheKey>),
    /// The service fails: whoever may be sent what is stale is better off with that.
    Failed,
    /// The answer cannot be stored: everybody for themselves.
    Unusable,
}

/// All flights under way.
pub(crate) type Flights = crate::tiers::Flights<Landing>;
/// What boarding came to.
pub(crate) type Boarding = crate::tiers::Boarding<Landing>;
/// The leader's part.
pub(crate) type Pilot = crate::tiers::Pilot<Landing>;
/// A follower's part.
pub(crate) type Passenger = crate::tiers::Passenger<Landing>;
