//! Warming: what is asked for again and again is computed before somebody waits for it.
//!
//! - What is hot is learned from what is asked for, and remembered as [`Recipe`]s: in memory, and in Redis for
//!   the instance that starts next.
//! - A [`Schedule`] says when something is to be made anew, by an interval or as cron does.
//! - Jobs wait in a queue of four classes, and are done at a pace that the origin bears.
//!
//! What can be set is in [`WarmingConfig`].
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
