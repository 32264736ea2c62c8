//! The stamped journal: whatever was invalidated is never served again.
//!
//! Nearly every cache loses one race: a computation begins, the value it read is changed and the key
//! is invalidated, and only then is the (old) result stored, to be served until it expires. Here an
//! invalidation deletes nothing. It appends one record of [`Marker`]s under the next sequence number,
//! and every entry carries a [`Stamp`]: the journal's position read *before* its computation began.
//! On each read the entry is judged: it holds only if no marker that concerns it is younger than its
//! stamp. A late store is therefore harmless, tags that turn up during the computation are covered,
//! and no clock takes part.
//!
//! Appending costs the same whatever the number of entries. Judging an entry costs one comparison as
//! long as nothing was appended since it was last found to hold ([`Checked`]).
//!
//! Memory is bounded: where markers are forgotten, the `floor` rises to the youngest of them and older
//! entries stop holding. Overflow costs misses, never staleness.
//!
//! ```
//! use tower_keep::event::Events;
//! use tower_keep::journal::{Checked, Journal, JournalConfig, Marker, Subject};
//!
//! let journal = Journal::new(&JournalConfig::default(), Events::none())?;
//! let subject = Subject::of("report:7", &["sales".into()]);
//! let born = journal.position(); // then compute ..
//! let checked = Checked::at(born);
//! assert!(journal.holds(born, &checked, &subject));
//! let _ = journal.append([Marker::tag("sales")]);
//! assert!(!journal.holds(born, &checked, &subject));
//! # Ok::<(), tower_keep::error::ConfigError>(())
//! ```
//!
//! # Several instances
//!
//! With Redis the records are a stream there, and each instance keeps a *mirror*: which names and patterns
//! were invalidated, and when. It is kept by what the server says on a channel, over the connection that
//! commands take, in the order in which that is read.
//!
//! - **What cannot be heard is noticed.** Records are numbered, so a gap shows; a lost connection, a heartbeat
//!   that is not answered, and another incarnation show as well. Then the mirror is *unverified*
//!   ([`JournalStatus`]): nothing stored is served from memory until what was missed has been read, which
//!   usually takes a millisecond. Nothing is thrown away for it.
//! - **An incarnation** is a random number that is drawn anew whenever the past may be lost: the keys were
//!   evicted or deleted, or another server answers than the one that wrote them (by its `run_id`: a failover
//!   may have lost the last records). Then everything stored before is old.
//! - **Acknowledged means everywhere** ([`Acknowledge::Everywhere`]): each instance holds a lease, which its
//!   heartbeat renews, and serves from memory only while it does. Whoever appends waits until every other
//!   instance has said that it has carried the record out, or until its lease has ended. So after a
//!   [`Receipt`] there is no instance that would serve the old value, be it slow, stopped or cut off. Where
//!   that takes longer than `acknowledge_ms`, the outcome is [`Pending`].
//! - **Redis away.** What is invalidated then is carried out here at once, queued within a bound, and appended
//!   before this instance is verified again.
//! - **What is read from Redis** comes with where the journal stands in the same round trip
//!   (`Journal::read`), so that it can be judged by everything that was acknowledged before.
//!
//! Limits. An instance that is on the other side of a partition with a primary that still takes writes sees
//! only that side: bound this by `min-replicas-to-write`. Clocks are used for leases only, and only their pace
//! counts: an instance whose clock runs at half speed would keep its lease for twice as long, and a server whose
//! time of day is put forward ends leases early. Always
//! invalidate after the change is committed; and where reads go to replicas of the database, let the record
//! [settle](Record::settle).

#[cfg(feature = "redis")]
mod barrier;
#[cfg(feature = "redis")]
mod confirmations;
#[cfg(feature = "redis")]
mod fleet;
#[cfg(feature = "redis")]
mod keeper;
#[cfg(feature = "redis")]
mod line;
#[cfg(feature = "redis")]
mod message;
#[cfg(feature = "redis")]
mod scribe;
#[cfg(feature = "redis")]
mod script;
#[cfg(feature = "redis")]
mod sink;
#[cfg(feature = "redis")]
mod witness;
#[cfg(feature = "redis")]
mod words;

mod appending;
mod chance;
mod config;
mod index;
mod inquiry;
mod log;
mod marker;
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "a fleet needs more of it")
)]
mod mirror;
mod overseer;
mod pieces;
mod probe;
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "a fleet needs more of it")
)]
mod record;
#[cfg(feature = "fault-injection")]
mod sabotage;
mod settling;
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "a fleet needs more of it")
)]
mod shard;
mod stamp;
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "a fleet needs more of it")
)]
mod standing;
mod tables;
mod times;
#[cfg(feature = "fault-injection")]
mod wrecking;

pub use appending::Appending;
#[cfg(feature = "redis")]
pub use barrier::Barrier;
pub use config::{Acknowledge, JournalConfig};
#[cfg(feature = "redis")]
pub use fleet::JournalParts;
pub(crate) use inquiry::Inquiry;
pub use log::{Journal, JournalFigures};
pub use marker::{Marker, Subject};
pub(crate) use overseer::Sample;
pub(crate) use probe::{ASKED_MAX, Answer, Asked, Found};
pub use probe::{Probed, Probing, Seen, Temperature, Tier, Wanted};
pub use record::{Record, SETTLE_MAX};
pub use stamp::{Checked, Pending, Receipt, Stamp, Verdict};
pub use standing::{JournalStatus, Unverified};
