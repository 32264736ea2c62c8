//! Where state is shared between instances. This version knows the settings and keeps everything in
//! this process' memory; a configured Redis is named in health as not in use.

mod config;

pub use config::RedisConfig;
