//! The builder, the running parts, and the layer that stacks them.

mod admin;
mod alerts;
mod archive;
mod builder;
mod circuits;
mod connections;
mod engines;
#[cfg(feature = "metrics-facade")]
mod facade;
mod figures;
#[cfg(feature = "tower-http")]
mod full;
mod gates;
mod gauges;
mod health;
mod hooks;
mod journal;
mod parts;
#[cfg(feature = "redis")]
mod redis;
mod relief;
mod report;
#[cfg(feature = "tower-http")]
mod request_id;
mod runtime;
mod spans;
mod stack;
mod tiers;
mod told;
mod watch;

pub use builder::KeepBuilder;
#[cfg(feature = "tower-http")]
pub use full::{FullLayer, FullService, PanicAnswer, Worthwhile};
pub use parts::Keep;
#[cfg(feature = "tower-http")]
pub use request_id::{FitRequestId, FreshRequestId, RequestIdService};
pub use stack::{KeepLayer, KeepService};
