//! How the parts of a service are, as they say themselves, and as checks in the background find out.
//!
//! Parts set their state when it changes; a probe only reads what is on the [`HealthBoard`]. So a probe never
//! touches a database or a store, and takes the same time on a bad day as on a good one. What does not tell by
//! itself is asked by a [`HealthCheck`]: in the background, every ten seconds, for two at most.
//!
//! ```
//! use tower_keep::health::{HealthCheck, HealthStatus};
//! use tower_keep::{Keep, Profile};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::development())
//!     .health_check(HealthCheck::new("mail", || async { Ok::<_, std::io::Error>("answers") }))
//!     .build()?;
//! while keep.health().components["mail"].status != HealthStatus::Healthy {
//!     tokio::task::yield_now().await;
//! }
//! assert_eq!(keep.health_details().components["mail"].detail, "answers");
//! # Ok(()) }
//! ```
//!
//! # Which probe to point where
//!
//! | who asks | what for | where to point it | answers |
//! |---|---|---|---|
//! | Kubernetes `livenessProbe` | to restart a process that does nothing any more | `/alive` | 200 |
//! | Kubernetes `readinessProbe` | to send nothing to an instance for a while | `/ready` | 200, or 503 while memory is critical and once shutdown has begun |
//! | Kubernetes `startupProbe` | to leave the others alone until then | `/ready` | as above |
//! | Azure App Service's health check | to take an instance out, and replace it after an hour | `/ready` | as above |
//! | a monitor, a status page | to know | `/health` | 200 when healthy or degraded, 503 when unhealthy |
//! | the operator | to know why | `/health/detailed`, with authorisation | as `/health` |
//!
//! **Never let a probed path depend on what all instances share.** A database that is away for ten minutes
//! then takes out every instance at once, with those requests that could have been answered from memory, and
//! restarts bring nothing but cold caches. So `/ready` knows nothing of checks, and a stack without its Redis is
//! degraded, which is 200. `/health` is 503 only for parts that say `Unhealthy`: memory at its end, and checks
//! that were marked [`required`](HealthCheck::required).
//!
//! What App Service does with its health check path: it asks each instance once a minute, takes 200 to 299 for an
//! answer and nothing else, redirects included, waits a minute for it, and takes an instance out of
//! rotation after ten failures in a row (2 to 10 by `WEBSITE_HEALTHCHECK_MAXPINGFAILURES`). It never takes
//! out the last one; when all of them fail, it takes out none; after an hour it replaces the instance. So it needs
//! two instances or more to matter, and is slow: it is the guard that has to keep a loaded instance alive, not
//! the probe. When a container starts, App Service takes *any* status for its being ready, 404 and 502 included,
//! unless `WEBSITE_WARMUP_STATUSES` says otherwise (`WEBSITE_WARMUP_PATH=/ready`,
//! `WEBSITE_WARMUP_STATUSES=200`).

mod board;
mod check;
mod config;
mod details;
mod rounds;

pub use board::{ComponentHealth, Health, HealthBoard};
pub use check::HealthCheck;
pub use config::HealthConfig;
pub use details::{ComponentDetails, HealthDetails, HealthStatus};
pub(crate) use rounds::start;
