//! Where a request goes once it is known what memory says.

use crate::cache::errand::Errand;
use crate::cache::fetch::Inquiry;
use crate::cache::found::Found;
use crate::cache::key::CacheKey;
use crate::cache::landing::Passenger;
use crate::cache::status::FwdReason;

/// Where a request goes from here.
#[derive(Debug)]
pub(crate) enum Stop {
    /// To the client, with what is stored.
    Serve(Found),
    /// To the client with what is stored, while it is fetched anew.
    ServeAndFetch(Found, Box<Errand>),
    /// To the service, and what comes back is nobody else's.
    Pass(FwdReason),
    /// To the service, and what is stored under its path holds no longer.
    Unsafe,
    /// To the service, and what comes back may be stored.
    Fetch(Box<Errand>),
    /// A HEAD to the service, whose answer may speak of what is stored.
    Inquire(Box<Inquiry>),
    /// Somebody else is fetching it, for the same reason.
    Wait(Passenger, FwdReason),
    /// To whoever knows whether what is stored still holds.
    Verify(CacheKey),
    /// The client wants a stored answer or none, and there is none.
    Refuse,
}
