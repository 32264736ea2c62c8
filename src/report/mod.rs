//! How the service does, what to change, and whether it was better before.
//!
//! A [`Report`] judges a window of figures: a score with its reasons, recommendations that name the setting to
//! change, the routes that most need a look, and every part's figures. It is made on demand from what is counted
//! anyway.
//!
//! ```
//! use tower_keep::metrics::Window;
//! use tower_keep::{Keep, Profile};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::azure_b1()).build()?;
//! let report = keep.report(Window::FiveMinutes);
//! assert_eq!(report.score, 100, "nobody has asked for anything yet");
//! println!("{report}");
//!
//! // Before a release, and an hour after it:
//! keep.save_baseline("release-12", Window::Hour).await?;
//! if let Some(before) = keep.baseline("release-12").await? {
//!     for change in keep.report(Window::Hour).compare(&before)?.regressions() {
//!         println!("{change}");
//!     }
//! }
//!
//! // From day to day:
//! let today = keep.trend(7).await.pop();
//! assert_eq!(today.map(|day| day.requests), Some(0));
//! # Ok(()) }
//! ```
//!
//! [`judge`] makes reports of figures from elsewhere.

mod advice;
mod baseline;
mod chance;
mod compare;
mod config;
mod date;
#[cfg(feature = "redis")]
mod days;
mod error;
mod kept;
mod lines;
mod observed;
mod readings;
mod score;
mod spoken;
mod sums;
mod text;
mod trend;
mod verdict;

pub use advice::Recommendation;
pub use baseline::{Baseline, BaselineLine};
pub use compare::{Change, Comparison, Verdict};
pub use config::ReportConfig;
pub use error::ReportError;
pub use kept::Baselines;
pub use lines::RouteLine;
pub(crate) use lines::Table;
pub use observed::{
    CacheSection, ConnectionsSection, DatabaseSection, GuardSection, InvalidationSection,
    LimiterSection, MemorySection, Observed, RedisSection, RuntimeSection, Settings, TiersSection,
};
pub(crate) use readings::{READ_EVERY, Readings};
pub use score::Penalty;
pub use sums::Day;
pub use trend::Trend;
pub use verdict::{Degradation, Report, ReportStatus, judge};
