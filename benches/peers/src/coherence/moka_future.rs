//! moka: `get_with` to read, `invalidate` after a change.

use moka::future::Cache;

use super::cached::{Cached, Database, Outcome, Reading, Served, Target, Tier};

pub(super) struct Moka {
    cache: Cache<u32, Option<u32>>,
}

impl Moka {
    pub(super) fn new() -> Self {
        Self {
            cache: Cache::new(10_000),
        }
    }
}

impl Cached for Moka {
    async fn read(&self, key: u32, _: Reading, database: &Database) -> Option<Served> {
        let mut from = Tier::Hot;
        let computed = async {
            from = Tier::Database;
            database.look(key).await
        };
        let version = self.cache.get_with(key, computed).await?;
        Some(Served { version, from })
    }

    async fn invalidate(&self, targets: &[Target]) -> Outcome {
        for target in targets {
            if let Target::Key(key) = target {
                self.cache.invalidate(key).await;
            }
        }
        Outcome::Acknowledged
    }
}
