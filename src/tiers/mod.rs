//! What is stored, and where: in this process, in Redis, and on a medium that outlives it.

#[cfg(not(feature = "redis"))]
mod absent;
mod behind;
mod bets;
mod claiming;
mod codec;
mod cold;
mod computed;
mod config;
mod door;
mod engine;
mod fault;
mod flight;
mod flying;
mod frame;
mod getting;
mod hashed;
mod held;
mod key;
mod looking;
mod luck;
mod options;
mod path;
mod queue;
mod raw;
mod reading;
#[cfg(feature = "redis")]
mod script;
mod seal;
#[cfg(feature = "encryption")]
mod seal_keys;
mod shares;
mod shelf;
mod space;
mod spaces;
mod squeeze;
mod storing;
mod tally;
mod terms;
#[cfg(any(test, feature = "fault-injection"))]
mod trial;
mod typed;
mod unreadable;
mod uses;
#[cfg(feature = "redis")]
mod warm;
mod worth;

pub use codec::{Codec, CodecError, Json, MessagePack};
pub use cold::{BATCH_BYTES_MAX, BATCH_MAX, COLD_KEY_BYTES_MAX, ENTRY_WEIGHT};
pub use cold::{ColdEntry, ColdError, ColdFuture, ColdStore, MemoryCold, is_storable};
pub use computed::Computed;
pub use config::TiersConfig;
pub use engine::{Tiers, TiersParts};
pub use fault::{CacheError, KEY_BYTES_MAX};
pub use getting::Getting;
pub use held::Cached;
pub use key::{EntryKey, KeyText};
pub use options::{ENTRY_TAGS_MAX, EntryOptions};
#[cfg(feature = "encryption")]
pub use seal_keys::SealKeys;
pub use tally::CacheStats;
#[cfg(feature = "fault-injection")]
#[doc(hidden)]
pub use trial::frame_holds;
pub use typed::TypedCache;

#[cfg(not(feature = "redis"))]
pub(crate) use absent::Lease;
pub(crate) use claiming::{Claiming, Turn};
pub(crate) use flight::{Boarding, Flights, Passenger, Pilot, Waited};
pub(crate) use frame::Header;
pub(crate) use hashed::HashedKey;
pub(crate) use raw::{Spot, Stored};
pub(crate) use shelf::{Shelf, Shelved};
pub(crate) use uses::Uses;
#[cfg(feature = "redis")]
pub(crate) use warm::Lease;
