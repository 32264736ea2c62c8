//! How exactly a fleet counts together.

use serde::{Deserialize, Serialize};

/// How the instances of a fleet count together through Redis. In memory both are the same.
///
/// In files: `exact` or `leased`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// Every request that may pass is counted in Redis before it does: one round trip.
    #[default]
    Exact,
    /// An instance takes some of the quota in advance and grants from it without asking. Never more than
    /// the quota passes; what was taken and is not used comes back only as the bucket grows full again, so
    /// near its end a client may be refused a little early.
    Leased,
}
