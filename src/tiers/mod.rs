//! Hot, warm, cold: values in this process, in Redis, and on a medium that outlives it, behind one typed API.
//!
//! ```
//! use tower_keep::pattern::Pattern;
//! use tower_keep::tiers::{CacheError, Computed, EntryOptions};
//! use tower_keep::{Keep, Profile};
//!
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Report { title: String, author: u64 }
//! # async fn from_the_database(id: u64) -> Result<Report, CacheError> {
//! #     Ok(Report { title: format!("Report {id}"), author: 3 })
//! # }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::azure_b1()).redis_from_env().build()?;
//! let reports = keep.cache::<Report>("report").options(EntryOptions::dashboard());
//!
//! let id = 7;
//! let report = reports
//!     .get_or_compute((id, "weekly"), &EntryOptions::new(), move || async move {
//!         let report = from_the_database(id).await?;
//!         let author = format!("author:{}", report.author); // known only now
//!         Ok::<_, CacheError>(Computed::new(report).tag(author))
//!     })
//!     .await?;
//! assert_eq!(report.title, "Report 7"); // a shared, decoded `Report`
//!
//! // Whatever of these is awaited, no instance serves that report any more:
//! reports.purge((id, "weekly")).await?;
//! keep.invalidator().purge_tag("author:3")?.await?;
//! keep.invalidator().ban(&Pattern::parse("report:7:*")?)?.await?;
//! # Ok(()) }
//! ```
//!
//! # Where a value is looked for
//!
//! | tier | what is there | how long at most | what finding it costs |
//! |---|---|---|---|
//! | hot | decoded values, by bytes | 5 min (`ttl_hot`); without a tier behind, its life | a lookup, no allocation |
//! | warm | entries in Redis, which all instances share | 1 h (`ttl_warm`) | a share of a round trip, and decoding |
//! | cold | a [`ColdStore`]: a table of SQLite or PostgreSQL, say | 24 h (`ttl_cold`) | a query |
//!
//! These are caps on the stay. What is promoted takes its stamp and its end along, and never lives longer for it.
//! What is computed is written to all tiers; what is found in one is taken into those before it. Which values
//! stay in memory is decided by how often they are asked for and by what fetching them again would cost for each
//! byte that they take up. Reads of one moment share one question to Redis.
//!
//! # What is promised
//!
//! - **Nothing invalidated is served**, from no tier: every entry carries the [journal](crate::journal)'s position
//!   from before its computation began, and is judged when it is read. That covers tags that the computation
//!   finds out, values that come too late, and what a stopped instance writes when it goes on.
//! - **One computation** for all who ask at one time: a flight in the process, and a lease in Redis between
//!   processes, which its holder puts off while it works. If the holder dies, another one takes over within
//!   [`lease_ms`](TiersConfig). All waits are bounded.
//! - **A computation that has begun is finished**, although its caller has left. A panic is an error for all who
//!   wait. One that asks for its own key is told so.
//! - **Redis may go.** What is in memory and in the cold store is served as long as the journal allows
//!   ([`max_unverified_ms`](crate::journal::JournalConfig); not at all by default), and what is in neither is
//!   computed, in each instance.
//! - **What cannot be read is a miss**: damaged, foreign, of another version, of another key. It is counted.
//! - **Tenants are apart**: [`for_tenant`](TypedCache::for_tenant) gives each entries, a purge, counts and memory
//!   of its own, and none has to give way to others while it has no more than its fair share.
//!
//! What is stale is served only where the [options](EntryOptions) say so, while it is computed anew, or where that
//! fails. With [`sealed`](TypedCache::sealed), entries are encrypted where they leave this process.
//!
//! The HTTP [`cache`](crate::cache) keeps its answers in the same tiers behind memory, by the same rules. The
//! [warming](crate::warming) room computes what is hot before somebody has to wait for it.
//!
//! # What it does not do
//!
//! A flush or a restart of Redis, or a failover that loses the journal, makes everything old, in all tiers: nobody
//! can know any more what was invalidated. Without Redis the journal is the process' own, so that what a cold
//! store has is old after a restart. The lifetimes of entries in Redis go by the instances' wall clocks; invalidation
//! does not.

#[cfg(not(feature = "redis"))]
mod absent;
mod behind;
mod bets;
mod chest;
mod claiming;
mod codec;
mod cold;
mod computed;
mod config;
mod door;
mod engine;
mod fault;
mod figures;
mod flight;
mod flying;
mod frame;
mod getting;
mod hashed;
mod held;
mod key;
#[cfg(feature = "redis")]
mod lease;
mod looking;
mod luck;
mod opened;
mod options;
mod path;
mod place;
mod probe;
mod queue;
mod raw;
mod reading;
mod refetching;
mod renewing;
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
mod waiting;
mod walk;
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
pub use figures::{ColdFigures, TenantFigures};
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
pub(crate) use claiming::{Claiming, Turn, Unfit};
pub(crate) use flight::{Boarding, Flights, Passenger, Pilot, Waited};
pub(crate) use frame::Header;
pub(crate) use hashed::HashedKey;
pub(crate) use held::Reason;
#[cfg(feature = "redis")]
pub(crate) use lease::Lease;
pub(crate) use raw::{Spot, Stored};
pub(crate) use renewing::{Renewal, Renewed};
pub(crate) use shelf::{Shelf, Shelved};
pub(crate) use terms::millis;
pub(crate) use uses::Uses;
pub(crate) use walk::{Seen, Watched};
