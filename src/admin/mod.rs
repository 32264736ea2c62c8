//! What an operator and a platform ask a service: is it alive, ready, well, what are its figures; and what an
//! operator changes by hand.
//!
//! | endpoint | answer |
//! |---|---|
//! | `GET /alive` | 200 as long as the process answers at all; for a restart on hanging |
//! | `GET /ready` | 200, or 503 while it should get no requests: for a [`Keep`](crate::Keep), while memory is critical and once shutdown has begun |
//! | `GET /health` | JSON: how every part is, and not why, for strangers may ask; 503 if one is unhealthy, 200 if degraded |
//! | `GET /metrics` | the figures for Prometheus |
//!
//! These are the **probes**. None of them touches a store or a database, and none may be cached. Point a
//! platform's probe at `/ready`, not at `/health`: a service that lost its Redis serves from memory, and taking all
//! its instances out of rotation at once would help nobody. They have no authentication: put some around the
//! router, or bind it to an inner address, if they are not for everyone.
//!
//! What follows exists only where somebody is let in: whoever sends `Authorization: Bearer` and the configured
//! token ([`AdminConfig::token`], `KEEP_ADMIN_TOKEN`), or whoever a closure lets in
//! ([`KeepBuilder::admin_auth`](crate::KeepBuilder::admin_auth)). Everybody else reads 401 or 403 without a hint,
//! and 429 after 20 wrong tokens within a minute; the right token works all the same.
//!
//! | endpoint | answer |
//! |---|---|
//! | `GET /health/detailed` | why every part is as it is, and every check with its figures |
//! | `GET /report?window=5m&format=json` | the report of the last `1m`, `5m` or `1h`, as `json` or `text` |
//! | `GET /alerts` | what is firing, and what was |
//! | `GET /slow` | the last slow requests |
//! | `GET /cache` | what is stored, hit ratios, what is hot, what is computed ahead of time |
//! | `GET /limiter` | the rules' decisions of five minutes, and who presses hardest |
//! | `GET /limiter/peek?who=ip:203.0.113.7&path=/x` | how somebody stands with the limits, without counting anything; also `method`, and of a `caller:..` `tier`, `tenant` and the `address` by which some rules count; or POST with these in JSON |
//! | `GET /journal` | whether all invalidations are heard, and what checks of that have shown |
//! | `GET /tenants` | the tenants that take up most memory and connections |
//! | `GET /dashboard` | one page that shows all of it; the page itself is for everybody where there is a token, which it asks for |
//! | `GET /dashboard/data`, `/dashboard/events` | its figures in JSON, at once or every two seconds as server-sent events |
//! | `POST /cache/purge` | `{"keys": [], "paths": [], "tags": [], "patterns": [], "all": false, "tenant": null, "soft": false}`: makes stored answers and values old, on all instances; answers when they have confirmed it |
//! | `POST /cache/warm` | `{"recipes": ["reports:acme:7"], "user": null}`: computes ahead of time, see [`Recipe`](crate::warming::Recipe) |
//! | `POST /limiter/unban` | `{"who": "ip:203.0.113.7"}`: ends a ban, on all instances |
//! | `POST /tenants/{id}/clear` | makes everything old that a tenant has |
//!
//! Bodies are JSON of at most 64 KiB within 10 s, and always with the content type `application/json`, even an empty
//! one: a page of another site may not send that, so that no browser changes anything on its behalf. What is wrong
//! is told as problem details (RFC 9457). Changes are logged to `tracing` (target `tower_keep`) and counted. Lists
//! are the first 50 of their kind.
//!
//! With axum, [`Keep::admin_router`](crate::Keep) has all of them; nest it under a prefix of its own where there is a
//! token. Without axum, [`Keep::admin_service`](crate::Keep::admin_service) is a service for hyper:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Empty};
//! use tower::ServiceExt;
//! use tower_keep::admin::{AdminAuth, AdminConfig, AdminService, AdminSources};
//! use tower_keep::clock::Clock;
//! use tower_keep::health::HealthBoard;
//! use tower_keep::metrics::{Metrics, MetricsConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metrics = Metrics::new(&MetricsConfig::default(), Clock::system())?;
//! let warm = Arc::new(AtomicBool::new(false));
//! let sources = AdminSources::new(metrics, HealthBoard::new())
//!     .ready(move || warm.load(Ordering::Relaxed));
//! let auth = AdminAuth::new(&AdminConfig {
//!     token: Some("a-secret-of-some-length".to_owned()),
//! });
//! let admin = AdminService::new(sources, auth).under("/admin");
//!
//! let request = Request::get("/admin/ready").body(Empty::<Bytes>::new())?;
//! assert_eq!(admin.clone().oneshot(request).await?.status(), 503);
//!
//! let slow = Request::get("/admin/slow");
//! let nobody = slow.body(Empty::<Bytes>::new())?;
//! assert_eq!(admin.clone().oneshot(nobody).await?.status(), 401);
//!
//! let slow = Request::get("/admin/slow").header("authorization", "Bearer a-secret-of-some-length");
//! let answer = admin.oneshot(slow.body(Empty::<Bytes>::new())?).await?;
//! assert_eq!(answer.into_body().collect().await?.to_bytes(), r#"{"slow":[]}"#);
//! # Ok(()) }
//! ```

mod answer;
mod auth;
mod body;
mod changes;
mod config;
mod desk;
mod events;
mod intake;
mod overview;
mod page;
mod paths;
#[cfg(feature = "axum")]
mod router;
mod service;
mod sources;
mod views;

pub use auth::{Access, AdminAuth};
pub use body::AdminBody;
pub use config::AdminConfig;
pub use service::{AdminFuture, AdminService};
pub use sources::{AdminEngines, AdminSources, Tell};
