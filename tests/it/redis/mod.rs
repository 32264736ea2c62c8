//! Real Redis servers for tests and benches, each on free loopback ports and in a folder of its own.
//!
//! Nothing here uses or needs a server that runs already, and nothing uses the library under test:
//! [`Raw`] speaks to a server over a plain socket, so a test can see what the library did from the
//! server's side. Whatever was started ends with the value that started it, and with this process if
//! that should be killed.
//!
//! Everything blocks: starting takes milliseconds, waiting for a failover seconds. In a test with
//! tasks of its own that wait for each other, use `#[tokio::test(flavor = "multi_thread")]`.
//!
//! A bench includes the whole as `#[path = "../tests/it/redis/mod.rs"] mod redis;`. `TEST_REDIS_SERVER`
//! names another program than `redis-server`: Valkey's, or one of another version.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "tests fail by panicking; no program that includes this uses all of it"
)]

mod cluster;
mod folder;
mod port;
mod process;
mod proxy;
mod raw;
mod sentinel;
mod server;
mod tls;
mod wait;
mod warden;

pub use cluster::TestCluster;
pub use proxy::Proxy;
pub use raw::{Answer, Raw};
pub use sentinel::TestSentinel;
pub use server::TestRedis;
pub use tls::TestTls;
pub use wait::until;
