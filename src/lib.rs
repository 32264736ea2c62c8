//! The middleware stack for axum and hyper on small hosts.

pub mod cache;
pub mod clock;
pub mod config_time;
pub mod database;
pub mod error;
pub mod event;
pub mod guard;
pub mod identity;
pub mod invalidation;
pub mod journal;
pub mod pattern;
pub mod progress;
pub mod refusal;
pub mod response;
pub mod route;
#[cfg(any(feature = "sqlx-sqlite", feature = "sqlx-postgres"))]
pub mod sqlx;
pub mod task;
