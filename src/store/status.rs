//! How the connection to Redis is.

use std::fmt;
use std::sync::Arc;

/// The state of a `RedisPool`, readable at any time without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisStatus {
    /// Commands are sent.
    Up,
    /// Commands fail at once; a connection is being sought in the background. Of a cluster this is told
    /// while any of its masters is away; commands for the slots of the others are sent all the same.
    Down {
        /// Why.
        reason: DownReason,
    },
    /// No Redis is configured: everything stays in memory.
    Disabled,
}

impl RedisStatus {
    /// Whether commands are sent.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

impl fmt::Display for RedisStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Down { reason } => write!(f, "down: {reason}"),
            Self::Disabled => f.write_str("not configured: state is in memory"),
        }
    }
}

/// Why there is no connection: a kind for programs, and words for people. The words hold neither a
/// password nor a token. Two reasons are equal when their kinds are.
#[derive(Clone, Debug)]
pub struct DownReason {
    kind: DownKind,
    words: Arc<str>,
}

/// What kind of trouble keeps the connection down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownKind {
    /// The first attempt is still under way.
    Starting,
    /// The host's name has no address.
    Unresolved,
    /// Nobody listens there, or the way there is broken.
    Unreachable,
    /// The server took the connection and does not answer, or stopped answering.
    NoProgress,
    /// The server answers, but too slowly too often.
    Slow,
    /// The connection broke.
    Disconnected,
    /// The server reads its data from disk (`LOADING`).
    Loading,
    /// A script or module holds the server up (`BUSY`).
    Busy,
    /// This is a replica, or its primary is gone (`READONLY`, `MASTERDOWN`).
    ReadOnly,
    /// The server takes no more clients (`max number of clients reached`).
    MaxClients,
    /// User, password or token is wrong or missing (`WRONGPASS`, `NOAUTH`), or may not do what is needed
    /// (`NOPERM`).
    Authentication,
    /// The credentials provider gave none.
    Credentials,
    /// The TLS handshake failed.
    Tls,
    /// What came back is not the Redis protocol.
    Protocol,
    /// The server is older than 6 and speaks no RESP3.
    TooOld,
    /// No Sentinel names a primary.
    NoPrimary,
    /// Slots of the cluster are served by nobody, or nobody tells which are (`CLUSTERDOWN`).
    Cluster,
    /// The stack was shut down.
    Stopped,
    /// No Redis is configured.
    Disabled,
}

impl DownReason {
    #[cfg(feature = "redis")]
    pub(crate) fn new(kind: DownKind, words: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            words: words.into(),
        }
    }

    /// Which kind of trouble.
    #[must_use]
    pub const fn kind(&self) -> DownKind {
        self.kind
    }
}

impl PartialEq for DownReason {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for DownReason {}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
