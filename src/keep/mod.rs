//! The builder, the running parts, and the layer that stacks them.

mod builder;
mod circuits;
mod connections;
mod engines;
mod gauges;
mod journal;
mod parts;
#[cfg(feature = "redis")]
mod redis;
mod relief;
mod runtime;
mod stack;
mod tiers;
mod told;
mod watch;

pub use builder::KeepBuilder;
pub use parts::Keep;
pub use stack::{KeepLayer, KeepService};
