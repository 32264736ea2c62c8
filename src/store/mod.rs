//! Where state is shared between instances. This version knows the settings and keeps everything in
//! this process' memory; a configured Redis is named in health as not in use.

mod config;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "connections use it next"))]
mod hub;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "connections use it next"))]
mod library;
#[cfg(feature = "redis")]
mod push;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "connections use it next"))]
mod redirect;
#[cfg(feature = "redis")]
mod script;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "connections use it next"))]
mod slots;

pub use config::RedisConfig;
#[cfg(feature = "redis")]
pub use push::{Push, PushSink};
#[cfg(feature = "redis")]
pub use script::Script;
