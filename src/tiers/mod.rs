//! What is stored, and where: in this process, in Redis, and on a medium that outlives it.

#[cfg_attr(not(test), expect(dead_code, reason = "the engine comes next"))]
pub(crate) mod behind;
mod bets;
mod cold;
pub(crate) mod flight;
#[cfg_attr(
    not(any(test, feature = "fault-injection")),
    expect(dead_code, reason = "the engine comes next")
)]
mod frame;
pub(crate) mod hashed;
#[cfg_attr(
    all(feature = "encryption", not(any(test, feature = "fault-injection"))),
    expect(dead_code, reason = "the engine comes next")
)]
mod seal;
#[cfg(feature = "encryption")]
mod seal_keys;
mod queue;
pub(crate) mod shelf;
mod squeeze;
#[cfg(any(test, feature = "fault-injection"))]
mod trial;
#[expect(dead_code, reason = "the engine comes next")]
mod unreadable;
pub(crate) mod uses;

#[cfg(feature = "encryption")]
pub use seal_keys::SealKeys;
#[cfg(feature = "fault-injection")]
#[doc(hidden)]
pub use trial::frame_holds;
pub use cold::{BATCH_BYTES_MAX, BATCH_MAX, ENTRY_WEIGHT, KEY_BYTES_MAX};
pub use cold::{ColdEntry, ColdError, ColdFuture, ColdStore, MemoryCold, is_storable};
