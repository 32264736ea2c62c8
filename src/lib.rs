//! The middleware stack for axum and hyper on small hosts.

pub mod cache;
pub mod clock;
pub mod config_time;
pub mod error;
pub mod event;
pub mod identity;
pub mod journal;
pub mod pattern;
pub mod refusal;
pub mod response;
pub mod route;
pub mod task;
