//! Which caches were opened, so that their entries can be fetched by who knows no more than a name and a key.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
#[cfg(feature = "redis")]
use tokio::sync::futures::Notified;

/// Takes what is fresh behind memory, of these keys of this tenant, into memory. Says of each whether it is there.
pub(crate) type Fetch = dyn Fn(Option<Arc<str>>, Vec<Arc<str>>) -> Fetching + Send + Sync;

pub(crate) type Fetching = Pin<Box<dyn Future<Output = Vec<bool>> + Send>>;

/// The caches that were opened so far. There are as many as the program has names for.
#[derive(Default)]
pub(crate) struct Opened {
    all: Mutex<HashMap<u32, Cache>>,
    news: Notify,
}

struct Cache {
    name: Arc<str>,
    fetch: Arc<Fetch>,
    secret: bool,
}

impl Opened {
    /// Whether the cache of this number is known.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.all().contains_key(&id)
    }

    /// A cache was opened, or is another one than it was. Once its keys are `secret`, they are for good.
    pub(crate) fn note(&self, id: u32, name: &Arc<str>, (fetch, secret): (Arc<Fetch>, bool)) {
        let mut all = self.all();
        let was_secret = all.get(&id).is_some_and(|cache| cache.secret);
        let cache = Cache {
            name: Arc::clone(name),
            fetch,
            secret: secret || was_secret,
        };
        all.insert(id, cache);
        drop(all);
        self.news.notify_waiters();
    }

    /// How the entries of a cache are fetched: of two with one name, those of the one that was opened first.
    pub(crate) fn fetch(&self, name: &str) -> Option<Arc<Fetch>> {
        let all = self.all();
        let of_name = all.iter().filter(|(_, cache)| *cache.name == *name);
        let first = of_name.min_by_key(|(id, _)| **id);
        first.map(|(_, cache)| Arc::clone(&cache.fetch))
    }

    /// Whether the keys of a cache must not be written anywhere.
    #[cfg(feature = "redis")]
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        let all = self.all();
        all.values()
            .any(|cache| cache.secret && *cache.name == *name)
    }

    /// The names, by the caches' numbers.
    pub(crate) fn names(&self) -> HashMap<u32, Arc<str>> {
        let all = self.all();
        all.iter()
            .map(|(id, cache)| (*id, Arc::clone(&cache.name)))
            .collect()
    }

    /// Resolves when another one is opened.
    #[cfg(feature = "redis")]
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u32, Cache>> {
        // A map is whole between two calls, so poison is ignored.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names().values()).finish()
    }
}
