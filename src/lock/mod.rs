//! Locks: one at a time, over all instances, for work that must not be done twice at once.
//!
//! ```
//! use std::time::Duration;
//! use tower_keep::{Keep, Profile, lock::LockError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::azure_b1()).build()?; // with a Redis URL: one lock for the fleet
//! let minute = Duration::from_secs(60);
//!
//! // Asks once.
//! let lock = keep.lock("import:2026-01", minute).await?;
//! let fence = lock.token(); // goes with every write, see below
//!
//! // Whoever else asks is told so at once ..
//! let error = keep.lock("import:2026-01", minute).await.unwrap_err();
//! assert!(matches!(error, LockError::Held { free_in, .. } if free_in <= minute));
//!
//! // .. or waits, here for two seconds at most.
//! let next = tokio::spawn({
//!     let keep = keep.clone();
//!     async move { keep.lock("import:2026-01", minute).wait(Duration::from_secs(2)).await }
//! });
//! lock.extend(minute).await?; // between two steps of a long work: a minute from now on
//! assert!(lock.is_held());
//! assert!(lock.release().await, "held to the very end");
//!
//! let next = next.await??;
//! assert!(next.token() > fence);
//! # Ok(()) }
//! ```
//!
//! # What it does not promise, and what the token is for
//!
//! A lock with an expiry is a strong hint, not a proof. Two may believe that they hold it at the same time:
//!
//! - **A holder that was paused**, by a full processor, a suspended machine or a blocked thread, does not
//!   notice that its time is over. [`is_held`](Lock::is_held) helps only until the next line.
//! - **A failover loses what was not copied yet.** Replicas of Redis follow a moment later, and the new
//!   master may not know of a lock that the old one has given out. There is no Redlock here: it needs five
//!   independent servers, and does not help against pauses either.
//! - **A server that evicts** may drop a lock, since it expires: set `maxmemory-policy noeviction`. So may
//!   whoever says `FLUSHALL`, a restart without persistence, and an operator who puts the time of day
//!   on the server forward.
//!
//! For that each lock has a [`token`](Lock::token), which increases from holder to holder of a key. Let the
//! resource remember the largest one that it has seen, and refuse smaller ones:
//!
//! ```sql
//! UPDATE imports
//!    SET rows = $1, fence = $2
//!  WHERE id = $3 AND fence <= $2;  -- no row was changed: somebody else holds the lock by now. Stop.
//! ```
//!
//! A token is the server's time in microseconds, or one more than the last one where that is larger. So they
//! increase also where the last one was lost: by eviction, by `FLUSHALL`, in a failover to a server whose
//! clock is not behind. The last token of a key is remembered for 7 days after it was given out; only who
//! puts the server's clock back by more than has passed since meets a smaller one afterwards. What was locked
//! without Redis goes on increasing with Redis, as far as the clocks agree.
//!
//! A lock is no substitute for a unique constraint, nor for a transaction: where the database can say no
//! by itself, let it. A lock saves the work that would be refused.
//!
//! # Where Redis is away
//!
//! - None is configured: locks are in this process, by the same rules, for 10,000 keys at once; beyond that
//!   they are refused ([`TooMany`](LockError::TooMany)).
//! - It is configured and does not answer: nothing is given out
//!   ([`Unavailable`](LockError::Unavailable)), because a lock that two hold is worse than none. What is held
//!   goes on until it expires.
//!
//! # Ghosts
//!
//! A question that was not answered in time may be answered yes later on, with nobody to hear it. Each
//! attempt has a random name of its own. Asking again in that name does no harm, and giving up sends word of
//! it: a lock that was given out to that name is freed, and for a minute none is given out to it any more.
//! While Redis is away that word is sent again and again, by at most 1,024 attempts at once. Where it never
//! arrives, the lock ends when it expires. No answer that comes late makes a lock shorter.

mod acquire;
mod attempt;
mod engine;
mod error;
mod held;
mod keeper;
mod leaving;
mod memory;
mod name;
mod owner;
mod pauses;
#[cfg(feature = "redis")]
mod script;
#[cfg(feature = "redis")]
mod shared;

pub use acquire::Acquire;
#[cfg(feature = "redis")]
pub use engine::LockParts;
pub use engine::Locks;
pub use error::LockError;
pub use held::Lock;
