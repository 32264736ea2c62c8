//! The right to compute an entry for all instances.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::{Call, RedisPool, StoreError};
use crate::task::Spawner;
use crate::tiers::script::{EXTEND, RELEASE};
use crate::tiers::terms::millis;

/// Where leases are, and for how long they last. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: RedisPool,
    spawner: Spawner,
    lasts: Duration,
    /// Those that could not be given back, or that may have been granted without anybody having heard of it:
    /// whoever asks for one of them next asks as its holder, and need not wait until it ends.
    lost: Mutex<HashMap<Arc<str>, Arc<str>>>,
}

/// The right to compute an entry. Dropping it gives it back in the background; so does writing the entry.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    key: Arc<str>,
    pub(crate) holder: Arc<str>,
    pub(crate) given_back: bool,
    /// Ends whoever puts its end off.
    tending: Option<oneshot::Sender<()>>,
}

/// A question for a lease whose answer is not known.
pub(crate) struct Ghost {
    leases: Leases,
    key: Arc<str>,
    holder: Arc<str>,
    pub(crate) is_known: bool,
}

impl Drop for Ghost {
    fn drop(&mut self) {
        if !self.is_known {
            self.leases
                .lose(Arc::clone(&self.key), Arc::clone(&self.holder));
        }
    }
}

impl Leases {
    pub(crate) fn new(pool: RedisPool, spawner: Spawner, lasts: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                spawner,
                lasts,
                lost: Mutex::default(),
            }),
        }
    }

    pub(crate) fn last(&self) -> Duration {
        self.shared.lasts
    }

    /// As whom to ask for the lease of an entry.
    pub(crate) fn holder(&self, key: &str, new: &Arc<str>) -> Arc<str> {
        Arc::clone(self.lost().get(key).unwrap_or(new))
    }

    /// It was granted.
    pub(crate) fn granted(&self, key: &Arc<str>, holder: Arc<str>) -> Lease {
        self.lost().remove(key);
        Lease {
            leases: self.clone(),
            key: Arc::clone(key),
            holder,
            given_back: false,
            tending: None,
        }
    }

    /// Whoever asks for it may be granted it without hearing of it.
    pub(crate) fn ghost(&self, key: &Arc<str>, holder: &Arc<str>) -> Ghost {
        Ghost {
            leases: self.clone(),
            key: Arc::clone(key),
            holder: Arc::clone(holder),
            is_known: false,
        }
    }

    /// Somebody may hold it without knowing.
    fn lose(&self, key: Arc<str>, holder: Arc<str>) {
        let mut lost = self.lost();
        if lost.len() >= LOST_MAX {
            // They end by themselves, and some of these have long done so.
            lost.clear();
        }
        lost.insert(key, holder);
    }

    fn lost(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<str>>> {
        // A map is whole between two calls, so poison is ignored.
        let lost = self.shared.lost.lock();
        lost.unwrap_or_else(PoisonError::into_inner)
    }

    async fn extend(&self, key: &str, holder: &str) -> Result<bool, StoreError> {
        let call = Call::new(&EXTEND)
            .key(lease_key(key))
            .arg(holder)
            .arg(millis(self.shared.lasts));
        let held: u64 = self.shared.pool.call(&call).await?;
        Ok(held == 1)
    }
}

impl Lease {
    /// Has its end put off in the background as long as it is held, for so long at most.
    pub(crate) fn tended(mut self, at_most: Duration) -> Self {
        let (tending, mut over) = oneshot::channel::<()>();
        let (key, holder) = (Arc::clone(&self.key), Arc::clone(&self.holder));
        let leases = self.leases.clone();
        let pause = self.lasts() / 3;
        let rounds = at_most.as_millis() / pause.as_millis().max(1);
        self.leases.shared.spawner.spawn(async move {
            for _ in 0..rounds {
                tokio::select! {
                    _ = &mut over => return,
                    () = tokio::time::sleep(pause) => {}
                }
                // One that is lost, or cannot be put off, changes nothing: what is written is fenced.
                let _ = leases.extend(&key, &holder).await;
            }
        });
        self.tending = Some(tending);
        self
    }

    /// For how long it is held if its end is not put off.
    pub(crate) fn lasts(&self) -> Duration {
        self.leases.last()
    }

    /// Puts its end off. Returns whether it is still held.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn extend(&self) -> Result<bool, StoreError> {
        self.leases.extend(&self.key, &self.holder).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.given_back {
            return;
        }
        let (key, holder) = (Arc::clone(&self.key), Arc::clone(&self.holder));
        let leases = self.leases.clone();
        if !leases.shared.pool.status().is_up() {
            return leases.lose(key, holder);
        }
        self.leases.shared.spawner.spawn(async move {
            let call = Call::new(&RELEASE).key(lease_key(&key)).arg(&*holder);
            let released: Result<u64, StoreError> = leases.shared.pool.call(&call).await;
            if released.is_err() {
                leases.lose(key, holder);
            }
        });
    }
}

/// The key of an entry's lease. The entry's own key is all within its hash tag.
pub(crate) fn lease_key(key: &str) -> String {
    format!("{key}:lease")
}

/// More are lost only while Redis comes and goes, and they end by themselves.
const LOST_MAX: usize = 1_024;
