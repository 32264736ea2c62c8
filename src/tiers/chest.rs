//! The cold tier: a store that outlives Redis, and the queue before it, as one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::task::Spawner;
use crate::tiers::behind::Behind;
use crate::tiers::cold::{BATCH_MAX, ColdStore};
use crate::tiers::queue::Bounds;

/// The cold store, and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Cold {
    store: Arc<dyn ColdStore>,
    pub(crate) behind: Behind,
    /// How long the store may take to answer.
    patience: Duration,
}

impl Cold {
    pub(crate) fn new(
        store: Arc<dyn ColdStore>,
        (clock, spawner): (Clock, &Spawner),
        patience: Duration,
    ) -> Self {
        Self {
            behind: Behind::new(Arc::clone(&store), clock, spawner, Bounds::default()),
            store,
            patience,
        }
    }

    /// What is under `key`, be it not written yet.
    pub(crate) async fn read(&self, key: &Arc<str>, now_ms: u64) -> Option<Bytes> {
        match self.behind.waiting(key) {
            Some(bytes) => Some(bytes),
            None => self.load(std::slice::from_ref(key), now_ms).await?.pop()?,
        }
    }

    /// The same for many, in their order, with as few questions as the store allows.
    pub(crate) async fn read_many(&self, keys: &[Arc<str>], now_ms: u64) -> Vec<Option<Bytes>> {
        let mut loaded = Vec::with_capacity(keys.len());
        for some in keys.chunks(BATCH_MAX) {
            match self.load(some, now_ms).await {
                Some(found) => loaded.extend(found),
                // It is asked for nothing more.
                None => break,
            }
        }
        loaded.resize(keys.len(), None);
        let found = keys.iter().zip(loaded);
        let found = found.map(|(key, loaded)| self.behind.waiting(key).or(loaded));
        found.collect()
    }

    /// A store that is slow or fails has nothing; it says so to whoever keeps it.
    async fn load(&self, keys: &[Arc<str>], now_ms: u64) -> Option<Vec<Option<Bytes>>> {
        let loading = self.store.load(keys, now_ms);
        tokio::time::timeout(self.patience, loading)
            .await
            .ok()?
            .ok()
    }
}
