//! Which caches were opened, so that their entries can be fetched by who knows no more than a name and a key.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Takes what is fresh behind memory, of these keys of this tenant, into memory. Says of each whether it is there.
pub(crate) type Fetch = dyn Fn(Option<Arc<str>>, Vec<Arc<str>>) -> Fetching + Send + Sync;

pub(crate) type Fetching = Pin<Box<dyn Future<Output = Vec<bool>> + Send>>;

/// The caches that were opened so far. There are as many as the program has names for.
#[derive(Default)]
pub(crate) struct Opened {
    all: Mutex<HashMap<u32, (Arc<str>, Arc<Fetch>)>>,
    news: Notify,
}

impl Opened {
    /// Whether the cache of this number is known.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.all().contains_key(&id)
    }

    /// A cache was opened, or is another one than it was.
    pub(crate) fn note(&self, id: u32, name: &Arc<str>, fetch: Arc<Fetch>) {
        self.all().insert(id, (Arc::clone(name), fetch));
        self.news.notify_waiters();
    }

    /// How the entries of a cache are fetched: of two with one name, those of the one that was opened first.
    pub(crate) fn fetch(&self, name: &str) -> Option<Arc<Fetch>> {
        let all = self.all();
        let of_name = all.iter().filter(|(_, (other, _))| **other == *name);
        let first = of_name.min_by_key(|(id, _)| **id);
        first.map(|(_, (_, fetch))| Arc::clone(fetch))
    }

    /// The names, by the caches' numbers.
    pub(crate) fn names(&self) -> HashMap<u32, Arc<str>> {
        let all = self.all();
        all.iter()
            .map(|(id, (name, _))| (*id, Arc::clone(name)))
            .collect()
    }

    /// Resolves when another one is opened.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u32, (Arc<str>, Arc<Fetch>)>> {
        // A map is whole between two calls, so poison is ignored.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names().values()).finish()
    }
}
