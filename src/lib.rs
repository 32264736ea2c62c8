//! The middleware stack for axum and hyper on small hosts.

#[cfg(feature = "axum")]
pub mod admin;
pub mod clock;
pub mod config_time;
pub mod error;
pub mod event;
pub mod identity;
pub mod metrics;
pub mod pattern;
pub mod refusal;
pub mod response;
pub mod route;
pub mod task;
