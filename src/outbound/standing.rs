//! How a remote stands, for whoever asks.

use std::time::Duration;

/// What is known of a remote's quota at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteStanding {
    /// How many requests are left of the window that has the least, after those under way. `None` if
    /// the remote has told of none.
    pub left: Option<u64>,
    /// How long until that window ends, if the remote has told of it.
    pub resets_in: Option<Duration>,
    /// How long until a request will be sent, if none is now: the remote wants to be left alone, or its
    /// quota is used up.
    pub blocked_for: Option<Duration>,
    /// Requests of this instance that are under way.
    pub under_way: u64,
    /// Requests of this instance that wait to be sent.
    pub waiting: usize,
}
