//! redis-rs with `cache-aio`: `GET` through the client's cache, which the server invalidates on `SET`.
//!
//! Whoever changes a key sets it in Redis, over the same connection as the readers: there the server says
//! that the key has changed before it answers the `SET`, so whatever is stale after that is no message that
//! is still on its way.

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use redis::caching::CacheConfig;

use super::cached::{Cached, Database, Outcome, Reading, Served, Target, Tier};
use crate::Failure;
use crate::test_redis::TestRedis;

pub(super) struct CacheAio {
    connection: MultiplexedConnection,
    database: Database,
}

impl CacheAio {
    pub(super) async fn new(server: &TestRedis, database: &Database) -> Result<Self, Failure> {
        let client = redis::Client::open(format!("{}?protocol=resp3", server.url()))?;
        let config = AsyncConnectionConfig::new().set_cache_config(CacheConfig::new());
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Self {
            connection,
            database: database.clone(),
        })
    }
}

impl Cached for CacheAio {
    async fn read(&self, key: u32, _: Reading, database: &Database) -> Option<Served> {
        let get = redis::cmd("GET").arg(key).to_owned();
        let stored: Option<u32> = get.query_async(&mut self.connection.clone()).await.ok()?;
        match stored {
            // Whether the server was asked is not told; it is not the server that is ever behind.
            Some(version) => Some(Served {
                version,
                from: Tier::Hot,
            }),
            None => database.look(key).await.map(|version| Served {
                version,
                from: Tier::Database,
            }),
        }
    }

    async fn invalidate(&self, targets: &[Target]) -> Outcome {
        for target in targets {
            let Target::Key(key) = target else { continue };
            let Ok(version) = self.database.registers.database(*key) else {
                return Outcome::Pending;
            };
            let set = redis::cmd("SET").arg(key).arg(version).to_owned();
            let mut connection = self.connection.clone();
            if set.query_async::<()>(&mut connection).await.is_err() {
                return Outcome::Pending;
            }
        }
        Outcome::Acknowledged
    }
}
