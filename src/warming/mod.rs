//! Warming: what is asked for again and again is computed before somebody waits for it.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use tower_keep::tiers::{CacheError, EntryOptions};
//! use tower_keep::warming::{KeyPartError, Schedule, WarmKey};
//! use tower_keep::{Keep, Profile};
//!
//! # async fn report(id: u64, kind: String) -> Result<String, KeyPartError> { Ok(format!("{kind} report {id}")) }
//! # async fn wait_for(so: impl Fn() -> bool) { while !so() { tokio::time::sleep(Duration::from_millis(5)).await } }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::azure_b1()).redis_from_env().build()?;
//! let reports = keep.cache::<String>("report");
//! let options = EntryOptions::dashboard();
//!
//! // Says how a report is computed from its key. From here on, reports that are in use are computed anew when
//! // they are invalidated and before they end, and those that were hot before a restart are there after it.
//! keep.warmer().register(&reports, &options, |key: WarmKey| async move {
//!     report(key.part(0)?, key.part(1)?).await // asked for as `(7, "weekly")`
//! });
//!
//! // What everybody will look at in the morning:
//! let (warmer, hot) = (keep.warmer().clone(), reports.clone());
//! keep.warmer().every("front page", Schedule::cron("55 5 * * mon-fri")?, move || {
//!     warmer.warm(&hot, [(1, "weekly"), (2, "weekly")]);
//!     std::future::ready(Ok::<_, CacheError>(()))
//! });
//!
//! // What a user will look at who has just signed in:
//! let (warmer, own) = (keep.warmer().clone(), reports.clone());
//! keep.warmer().per_user("home", move |user: Arc<str>| {
//!     let id: u64 = if &*user == "alice" { 7 } else { 8 };
//!     warmer.warm(&own, [(id, "personal")]);
//!     std::future::ready(Ok::<_, CacheError>(()))
//! });
//! keep.warmer().warm_user("alice");
//!
//! wait_for(|| reports.peek((7, "personal")).is_some()).await;
//! assert_eq!(*reports.peek((7, "personal")).unwrap(), "personal report 7");
//! # keep.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # What is computed when
//!
//! One worker does what is most urgent first; what is behind drops its oldest, and nothing waits twice:
//!
//! | class | why | found |
//! |---|---|---|
//! | `invalidated` | purged or expired while it was in use | within 50 ms where it is hot, 1 s elsewhere |
//! | `near_expiry` | in use, and ends soon (or leaves memory, while Redis has it) | two sweeps before its end, or four times as long as computing it takes; at most a quarter of its life |
//! | `boot` | was hot before this instance started, and is not in Redis | at the start |
//! | `scheduled` | [`every`](Warmer::every), [`warm_user`](Warmer::warm_user), [`warm`](Warmer::warm) | when somebody says so |
//!
//! **In use** is what was asked for since the last sweep, or twice within the half-life; what was not asked for
//! since it was computed is not computed again. A sweep is a walk through memory once a second, or less often
//! where there is so much that it would take more than a fiftieth of a core. A hit does nothing for it.
//!
//! Everything is computed in the flights and under the leases that callers use: who asks meanwhile waits for the
//! same computation, and of all instances one computes. What fails is not tried again until it is in use again;
//! callers compute for themselves, as if there was no warmer.
//!
//! # How fast
//!
//! As many at once as the origin bears: one more as long as it answers as fast as usual, half as many when it
//! does not, or fails; at most [`concurrency_max`](WarmingConfig::concurrency_max) at once and
//! [`jobs_per_second_max`](WarmingConfig::jobs_per_second_max). None begins while memory is short
//! ([`Pressure::High`](crate::guard::Pressure) and above).
//!
//! # After a restart
//!
//! What is hot is learned in each instance (the thousand keys that are used most, by uses that count for half
//! after ten minutes), and told to Redis every [`save_every`](WarmingConfig::save_every) as [`Recipe`]s. An
//! instance that starts fetches them from Redis, a hundred in one question, for each cache as soon as it is opened:
//! for this nothing need be registered. What is not there is computed at the pace above, once it is registered,
//! within the first five minutes. Keys of [`sealed`](crate::tiers::TypedCache::sealed) caches are not told to
//! Redis. Without Redis nothing is restored.
//!
//! # What it does not do
//!
//! It knows typed caches, not the HTTP cache. It forgets a computation that was overtaken by another
//! invalidation: the next caller computes. What can be set is in [`WarmingConfig`], what was done in
//! [`WarmerStats`] and in the metrics `keep_warming_jobs_total` and `keep_warmed_total`.
//!
//! # Schedules
//!
//! ```
//! use std::time::Duration;
//! use tower_keep::warming::Schedule;
//!
//! # fn main() -> Result<(), tower_keep::error::ConfigError> {
//! let nightly = Schedule::cron("30 2 * * mon-fri")?; // UTC
//! // Friday, 2 January 2026, noon: the next is on Monday.
//! assert_eq!(nightly.next_after(1_767_355_200, 0), Some(1_767_580_200));
//!
//! // Each instance passes a seed of its own, and so they do not all come in the same second.
//! let often = Schedule::every(Duration::from_secs(300))?.jitter(Duration::from_secs(20));
//! let next = often.next_after(1_767_355_200, 7);
//! assert!(next.is_some_and(|next| (1_767_355_201..=1_767_355_520).contains(&next)));
//!
//! let error = Schedule::cron("61 * * * *").unwrap_err();
//! assert_eq!(error.faults()[0].value, "61 * * * *");
//! # Ok(()) }
//! ```

mod agenda;
#[cfg(feature = "redis")]
mod boot;
mod config;
mod cron;
mod errand;
mod key;
mod pace;
mod queue;
mod recipe;
#[cfg(feature = "redis")]
mod saving;
mod schedule;
mod shared;
mod stats;
#[cfg(feature = "redis")]
mod store;
mod sweep;
mod top;
mod warmer;
mod worker;

pub use config::WarmingConfig;
pub use key::{KeyPartError, WarmKey};
pub use recipe::{Recipe, RecipeError};
pub use schedule::Schedule;
pub use stats::{JobStats, WarmerStats};
pub use warmer::{Warmer, WarmerParts};
