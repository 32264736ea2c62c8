//! How many connections each tenant has open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The tenants with a connection open. One whose last connection ends is forgotten, so there are never more
/// than connections.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    open: Mutex<HashMap<Arc<str>, usize>>,
}

impl Tenants {
    /// Counts another connection of `tenant`, unless it has `most` already.
    pub(crate) fn enter(&self, tenant: &str, most: usize) -> Option<Arc<str>> {
        let mut open = self.lock();
        let Some((name, count)) = open.get_key_value(tenant) else {
            let name: Arc<str> = tenant.into();
            open.insert(Arc::clone(&name), 1);
            return Some(name);
        };
        if *count >= most {
            return None;
        }
        let name = Arc::clone(name);
        if let Some(count) = open.get_mut(tenant) {
            *count += 1;
        }
        Some(name)
    }

    /// One of `tenant`'s connections has ended.
    pub(crate) fn leave(&self, tenant: &str) {
        let mut open = self.lock();
        if let Some(count) = open.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(tenant);
            }
        }
    }

    /// How many connections of `tenant` are open.
    pub(crate) fn open_count(&self, tenant: &str) -> usize {
        self.lock().get(tenant).copied().unwrap_or(0)
    }

    /// The `count` tenants with most of them.
    pub(crate) fn busiest(&self, count: usize) -> Vec<(Arc<str>, usize)> {
        let open = self.lock();
        let mut all: Vec<_> = open
            .iter()
            .map(|(tenant, open)| (Arc::clone(tenant), *open))
            .collect();
        drop(open);
        // By name where they have as many, so that the list does not jump.
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(count);
        all
    }

    /// How many tenants have one.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A panic cannot leave the map half-changed, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
