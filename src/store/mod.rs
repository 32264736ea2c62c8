//! Where state is shared between instances: one pool of Redis connections for the whole crate.
//!
//! # One connection, and one in reserve
//!
//! A multiplexed connection carries any number of commands at once: a checkout per command would allow
//! one. So all commands share one connection, and `redis.max_connections` (2 on a small host) is a hard
//! cap, not a size. The second is the reserve: it is opened to replace the first while that one drains,
//! and for commands with large requests or replies (`Command::bulk`), behind which small ones would
//! wait; it closes after idling for five seconds. In a cluster the cap is per node.
//!
//! # Nobody waits for a Redis that is gone
//!
//! A supervisor owns the connection: it connects with a scattered backoff of at most 100 ms, tries the
//! server out (`HELLO`, `PING`, and a write), loads the scripts, subscribes, and only then publishes it.
//! While there is none, every command fails at once with [`StoreError::Unavailable`]. A connection is
//! given up when it breaks, when a command was not answered within `redis.command_timeout` and nothing
//! else was answered either, when half of what was asked in the last second came too late, and when the
//! server says that it cannot serve: `READONLY`, `LOADING`, `BUSY`, `NOAUTH`. A heartbeat notices the end
//! of an idle connection and keeps the way to it open.
//!
//! # Ghosts
//!
//! A command that timed out here may still run there, and so may one whose caller was dropped:
//! [`StoreError::may_have_run`]. Whoever repeats a command, or goes on without its answer, must know that
//! it does no harm twice. This is the contract that every room keeps which writes through this one:
//!
//! | write | why a ghost is harmless |
//! |---|---|
//! | the pool's own probe: `SET <prefix>:probe 1 PX 60000` | the same value each time, and it expires |
//! | a whole value under its key (`SET`, `HSET` of all fields, `DEL`, `PEXPIRE`) | idempotent: repeating it leaves the same |
//! | a value that has become old meanwhile | fenced: it carries its stamp, and readers judge by the stamp |
//! | counting (`INCR`, tokens taken, records appended) | only inside a `Script` that is given an id of the attempt, or where counting one too many is the safe side |
//! | the limiter's `limiter_take` and `limiter_settle` | charged twice, a bucket is too strict and nothing else; what is given back is never sent a second time |
//! | the locks' `lock_claim`, `lock_extend`, `lock_release` | each carries the random name of its attempt; one that gives up says so, and is not served later on |
//! | the alerts' leases (`SET NX PX` of the instance's random name) | whoever holds one without knowing speaks when it asks again |
//! | the journal's `journal_append` | a record twice invalidates twice, and costs misses |
//! | the journal's `journal_meet`, `journal_leave` | a lease that is longer than its holder thinks is waited for, and nothing else |
//! | the limiter's bans and announcements | a ban is never shortened, an announcement is a whole value |
//!
//! `FUNCTION LOAD REPLACE`, `SCRIPT LOAD`, `SUBSCRIBE` and `CLIENT SETNAME` are idempotent.

mod config;
mod error;
mod status;

#[cfg(feature = "redis")]
mod address;
#[cfg(feature = "redis")]
mod ask;
#[cfg(feature = "redis")]
mod backoff;
#[cfg(feature = "redis")]
mod classify;
#[cfg(feature = "redis")]
mod cluster;
#[cfg(feature = "redis")]
mod command;
#[cfg(feature = "redis")]
mod connect;
#[cfg(feature = "redis")]
mod credentials;
#[cfg(feature = "redis")]
mod deadline;
#[cfg(feature = "redis")]
mod farewell;
#[cfg(feature = "redis")]
mod figures;
#[cfg(feature = "redis")]
mod fitness;
#[cfg(feature = "redis")]
mod greet;
#[cfg(feature = "redis")]
mod hub;
#[cfg(feature = "redis")]
mod library;
#[cfg(feature = "redis")]
mod link;
#[cfg(feature = "redis")]
mod load;
#[cfg(feature = "redis")]
mod members;
#[cfg(feature = "redis")]
mod node;
#[cfg(feature = "redis")]
mod parts;
#[cfg(feature = "redis")]
mod pool;
#[cfg(feature = "redis")]
mod pulse;
#[cfg(feature = "redis")]
mod push;
#[cfg(feature = "redis")]
mod redirect;
#[cfg(feature = "redis")]
mod reply;
#[cfg(feature = "redis")]
mod resolver;
#[cfg(feature = "redis")]
mod script;
#[cfg(feature = "redis")]
mod seeds;
#[cfg(feature = "redis")]
mod sentinel;
#[cfg(feature = "redis")]
mod slots;
#[cfg(feature = "redis")]
mod supervisor;
#[cfg(feature = "redis")]
mod timed;
#[cfg(feature = "redis")]
mod tls;
#[cfg(feature = "redis")]
mod topology;
#[cfg(feature = "redis")]
mod url;
#[cfg(feature = "redis")]
mod vault;
#[cfg(feature = "redis")]
mod watch;
#[cfg(feature = "redis")]
mod window;

pub use config::RedisConfig;
pub use error::StoreError;
pub use status::{DownKind, DownReason, RedisStatus};

#[cfg(feature = "redis")]
pub use command::{Argument, Batch, Call, Command};
#[cfg(feature = "redis")]
pub use credentials::{Credentials, CredentialsError, CredentialsProvider};
#[cfg(feature = "redis")]
pub use figures::RedisFigures;
#[cfg(feature = "redis")]
pub use parts::StoreParts;
#[cfg(feature = "redis")]
pub use pool::RedisPool;
#[cfg(feature = "redis")]
pub use push::{Push, PushSink};
#[cfg(feature = "redis")]
pub use reply::{FromReply, Pairs, Replies, Reply};
#[cfg(feature = "redis")]
pub use script::Script;
#[cfg(feature = "redis")]
pub use watch::StatusWatch;
