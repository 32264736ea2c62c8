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
//! This is the journal of a single process. Memory is bounded: where markers are pruned, the `floor`
//! rises to the youngest pruned one and older entries stop holding. Overflow costs misses, never
//! staleness.
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
//! journal.append(&[Marker::tag("sales")]);
//! assert!(!journal.holds(born, &checked, &subject));
//! # Ok::<(), tower_keep::error::ConfigError>(())
//! ```

mod config;
mod log;
mod marker;
mod mirror;
mod stamp;

pub use config::JournalConfig;
pub use log::Journal;
pub use marker::{Marker, Subject};
pub use stamp::{Checked, Receipt, Stamp};
