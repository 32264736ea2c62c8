//! The middleware stack for axum and hyper on small hosts: metrics, an admission guard, rate limits,
//! invalidation and an HTTP cache, set up through one builder with profiles for small machines.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_keep::{Keep, Profile};
//!
//! # #[cfg(feature = "axum")]
//! # fn app() -> Result<(Router, Keep), tower_keep::error::ConfigError> {
//! let keep = Keep::builder(Profile::from_env()) // App Service by its tier, else KEEP_PROFILE, else production
//!     .env() // ENABLE_RATE_LIMITING, CACHE_MAX_SIZE_MB, KEEP_CACHE_CAPACITY_BYTES, ..
//!     .build()?; // names every fault at once
//! let app = Router::new()
//!     .route("/reports/{id}", get(async || ([("cache-control", "max-age=60")], "slow to make")))
//!     .layer(keep.layer()); // metrics > guard > rate limit > invalidation > cache
//! let app = keep.probe_router() // /alive /ready /health /metrics
//!     .merge(app) // in this order, or unknown paths go past the layer: axum keeps the last fallback
//!     .nest("/admin", keep.admin_router()); // with KEEP_ADMIN_TOKEN: /admin/dashboard, reports, alerts, purging
//! // Hold `keep` as long as the service runs; `keep.drain()` when it is to end, `keep.shutdown().await` when it has.
//! # Ok((app, keep)) }
//! ```
//!
//! # What a request meets
//!
//! | stop | what it does | what it answers itself |
//! |---|---|---|
//! | [`metrics`] | counts by route, method and status; latency; in flight; cancelled | |
//! | [`guard`] | bounded concurrency, bounded queue, memory budget | 503 |
//! | [`rate_limit`] | GCRA per rule and caller, all-or-nothing, in a table of fixed size | 429, 403 for the listed |
//! | [`invalidation`] | after a write: purges by rule, before the writer hears of it | |
//! | [`cache`] | a shared cache by RFC 9111; one request fetches for all | what is stored, 206, 304, 416, 504 |
//!
//! [`alerts`] tell somebody when figures are not what they should be; [`health`], the [`report`] and the [`admin`] endpoints
//! with their dashboard show what is so, and [`fleet`] adds up what all instances have counted.
//!
//! On the way out, before an HTTP client, [`outbound`] honours the quotas of the services that are called, and a
//! [`breaker`] leaves those alone that fail. It does the same for handlers.
//!
//! Each layer is usable alone ([`Keep::cache_layer`], [`CacheLayer::new`](cache::CacheLayer::new), ..),
//! and each engine without Tower ([`RateLimiter::check`](rate_limit::RateLimiter::check),
//! [`Invalidator::purge_tag`](invalidation::Invalidator::purge_tag), ..). Beside them stand
//! typed values in [`tiers`], [`warming`] after a restart, [`lock`]s, [`progress`] streams and, with a `sqlx-` feature, database
//! pools with a small host's numbers.
//!
//! Limits and stored answers live in memory, and each instance has its own. With the feature `redis` and a
//! URL, instances count together, what one has changed no other serves ([`journal`]), what one has fetched or computed the
//! others find, and [`lock`]s are shared; the pool of connections, watched over and never waited for, is there for commands of
//! the service's own as well: [`store`]. A layer never changes its service's error type:
//! what it refuses is a response, with its [`Refusal`](refusal::Refusal) in the extensions.
//!
//! # Features
//!
//! None is on by default. `axum`: `ConnectInfo` and `MatchedPath` are understood, and
//! `Keep::probe_router` and `Keep::admin_router` are there. `redis`: `Keep::redis`, over plain connections and sockets; `redis-tls`: also
//! over TLS. `sqlx-sqlite`, `sqlx-postgres`: the room `sqlx`. `tower-http`: `Keep::full_layer`, with its layers in their
//! places. `metrics-facade`: all figures also go to the recorder of the `metrics` crate. `encryption`: sealed caches. `fault-injection`: for
//! this crate's own tests. `glibc-trim`: under memory pressure glibc gives back what was freed, by the crate's one unsafe call; without
//! this feature all unsafe code is forbidden.

#![cfg_attr(not(feature = "glibc-trim"), forbid(unsafe_code))]

pub mod admin;
pub mod alerts;
pub mod breaker;
pub mod cache;
pub mod clock;
pub mod config;
pub mod config_time;
pub mod connections;
pub mod database;
mod encoding;
pub mod env;
pub mod error;
pub mod event;
pub mod fleet;
pub mod guard;
pub mod health;
mod host;
pub mod http_config;
pub mod identity;
pub mod invalidation;
pub mod journal;
pub mod keep;
pub mod lock;
pub mod metrics;
pub mod outbound;
pub mod pattern;
pub mod profile;
pub mod progress;
pub mod rate_limit;
pub mod refusal;
pub mod report;
pub mod response;
pub mod route;
#[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
pub mod sqlx;
pub mod store;
mod sync;
pub mod target;
pub mod task;
pub mod tiers;
pub mod warming;

pub use keep::{Keep, KeepBuilder, KeepLayer, KeepService};
pub use profile::Profile;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
