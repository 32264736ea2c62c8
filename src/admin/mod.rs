//! What an operator and a platform ask a service: is it alive, ready, well, and what are its figures.
//!
//! | endpoint | answer |
//! |---|---|
//! | `GET /alive` | 200 as long as the process answers at all; for a restart on hanging |
//! | `GET /ready` | 200, or 503 while it should get no requests: for a [`Keep`](crate::Keep), while memory is critical and once shutdown has begun |
//! | `GET /health` | JSON: the state of every part; 503 if one is unhealthy, 200 if degraded |
//! | `GET /metrics` | the figures for Prometheus |
//!
//! None of them touches a store or a database, and none may be cached. Point a platform's probe at
//! `/ready`, not at `/health`: a service that lost its Redis serves from memory, and taking all its
//! instances out of rotation at once would help nobody. They have no authentication: put some around
//! the router, or bind it to an inner address, if they are not for everyone.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use tower_keep::admin::AdminEndpoints;
//! use tower_keep::clock::Clock;
//! use tower_keep::health::HealthBoard;
//! use tower_keep::metrics::{Metrics, MetricsConfig};
//!
//! # fn main() -> Result<(), tower_keep::error::ConfigError> {
//! let warm = Arc::new(AtomicBool::new(false));
//! let endpoints = AdminEndpoints {
//!     metrics: Metrics::new(&MetricsConfig::default(), Clock::system())?,
//!     health: HealthBoard::new(),
//!     ready: Arc::new(move || warm.load(Ordering::Relaxed)),
//! };
//! let app: axum::Router = axum::Router::new().merge(endpoints.router());
//! # Ok(())
//! # }
//! ```

mod endpoints;

pub use endpoints::AdminEndpoints;
