//! What an operator wants to know of a pool.

use std::time::Duration;

use crate::store::node::Node;
use crate::store::status::RedisStatus;

/// A pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisFigures {
    /// How it is.
    pub status: RedisStatus,
    /// Connections that are open or being opened, over all nodes.
    pub connections: usize,
    /// Commands that wait for their answers.
    pub under_way: u64,
    /// How long the last heartbeat took; of a cluster, the slowest node's.
    pub round_trip: Duration,
    /// Name and version, as `redis 7.0.15`; of a cluster, one node's.
    pub server: Option<String>,
    /// Why the server takes no writes at present (`OOM`, `MISCONF`, `NOREPLICAS`), if it takes none.
    pub refuses_writes: Option<String>,
}

impl RedisFigures {
    pub(crate) const fn new(status: RedisStatus) -> Self {
        Self {
            status,
            connections: 0,
            under_way: 0,
            round_trip: Duration::ZERO,
            server: None,
            refuses_writes: None,
        }
    }

    /// Adds one server's share.
    pub(crate) fn add(&mut self, node: &Node) {
        self.connections += node.connections();
        self.under_way += node.under_way();
        self.round_trip = self.round_trip.max(node.round_trip());
        if let Ok(link) = node.link() {
            let greeting = &link.greeting;
            self.server = Some(format!("{} {}", greeting.server, greeting.version));
            // One that takes none is told, whichever of them it is.
            let refuses = link.refuses_writes().map(|code| code.to_string());
            self.refuses_writes = self.refuses_writes.take().or(refuses);
        }
    }
}
