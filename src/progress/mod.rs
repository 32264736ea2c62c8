//! Progress streams: long work tells how far it is, and browsers watch it by Server-Sent Events.
//!
//! A request that takes minutes cannot be answered in one piece behind a front end that cuts idle
//! connections after 230 to 240 seconds. It is answered at once with the name of a stream instead;
//! the worker holds the [`Progress`] that [`ProgressHub::open`] gives out, and anyone who knows the
//! name may watch through [`ProgressHub::respond`], lose the connection and come back for the rest.
//!
//! ```
//! # use tower_keep::{clock::Clock, event::Events};
//! use tower_keep::progress::{ProgressConfig, ProgressHub, ProgressKind, ProgressUpdate};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = ProgressHub::new(&ProgressConfig::default(), Clock::system(), Events::none())?;
//! let job = hub.open("export-17")?;
//! let first = job.publish(ProgressUpdate::at(40.0).message("writing rows"))?;
//! job.finish(ProgressUpdate::at(100.0))?;
//!
//! // Whoever has seen the first event gets exactly the rest.
//! let last_seen = first.to_string();
//! let mut watcher = hub.subscribe("export-17", Some(&last_seen)).ok_or("no such stream")?;
//! let event = watcher.next().await.ok_or("ended early")?;
//! assert_eq!(event.kind(), ProgressKind::Finished);
//! assert!(watcher.next().await.is_none());
//! # Ok(()) }
//! ```
//!
//! Streams live in the process that publishes them: of several instances only that one can be watched for a job, so a
//! balancer has to send its watchers there (session affinity, or an instance's own name in the stream's address).
//!
//! # What is bounded
//!
//! A hub holds at most [`bytes_max`](ProgressConfig::bytes_max) of events, whatever publishers do.
//! Watchers have no queue of their own: each has a place in the stream's events, and whoever falls
//! so far behind that its place is gone is told [`Resync`](ProgressKind::Resync) and goes on with the
//! oldest event that is kept. A watcher costs its connection and a few hundred bytes; how many
//! connections there may be is for whoever accepts them to say.
//!
//! # How a watcher learns the end
//!
//! Every stream ends in one event that [is terminal](ProgressKind::is_terminal), even if the worker
//! panics: dropping a [`Progress`] says [`Aborted`](ProgressKind::Aborted). The body ends after it.
//! A browser's `EventSource` then reconnects all the same, and is told to stop by a 204.

mod config;
mod error;
mod hub;
mod id;
mod log;
mod publisher;
mod sse;
mod stream;
mod subscription;
mod update;

pub use config::ProgressConfig;
pub use error::ProgressError;
pub use hub::ProgressHub;
pub use id::{EventId, NotAnId};
pub use publisher::Progress;
pub use sse::{SseBody, sse_response};
pub use subscription::Subscription;
pub use update::{ProgressEvent, ProgressKind, ProgressUpdate};
