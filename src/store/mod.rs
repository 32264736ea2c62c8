//! Where state is shared between instances. This version knows the settings and keeps everything in
//! this process' memory; a configured Redis is named in health as not in use.

#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "for the pool"))]
mod address;
mod config;
#[cfg(feature = "redis")]
mod credentials;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "for the pool"))]
mod resolver;
#[cfg(feature = "redis")]
mod status;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "for the pool"))]
mod tls;
#[cfg(feature = "redis")]
mod url;
#[cfg(feature = "redis")]
#[cfg_attr(not(test), expect(dead_code, reason = "for the pool"))]
mod vault;

pub use config::RedisConfig;
#[cfg(feature = "redis")]
pub use credentials::{Credentials, CredentialsError, CredentialsProvider};
#[cfg(feature = "redis")]
pub use status::{DownKind, DownReason, RedisStatus};
