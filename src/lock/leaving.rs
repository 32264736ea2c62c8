//! Who lets go of what.

use crate::clock::Moment;
use crate::lock::name::Name;
use crate::lock::owner::Owner;

/// A lock that is let go of, or an attempt to take one.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "redis"),
    expect(
        dead_code,
        reason = "memory answers at once, so nothing is doubtful there"
    )
)]
pub(crate) struct Leaving {
    pub(crate) name: Name,
    pub(crate) owner: Owner,
    /// Whether a question of the owner's may still be under way.
    pub(crate) doubtful: bool,
    /// When it is over by itself.
    pub(crate) until: Moment,
}
