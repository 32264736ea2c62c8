//! Fetching a cache's entries without knowing their type.

use std::sync::Arc;

use crate::tiers::key::{EntryKey, KeyText};
use crate::tiers::opened::Fetch;
use crate::tiers::typed::TypedCache;

impl<T: Send + Sync + 'static> TypedCache<T> {
    /// Notes that this cache was opened, `again` if it is known.
    pub(crate) fn note_opened(&self, id: u32, again: bool) {
        let opened = self.inner.tiers.caches();
        if again || !opened.knows(id) {
            opened.note(id, &self.inner.name, (self.fetch(), self.inner.sealed));
        }
    }

    /// How its entries are fetched. Holds no tiers, which will hold it.
    fn fetch(&self) -> Arc<Fetch> {
        let inner = &self.inner;
        let tiers = inner.tiers.weakly();
        let (name, codec) = (Arc::clone(&inner.name), Arc::clone(&inner.codec));
        let (options, sealed, weigh) = (inner.options.clone(), inner.sealed, inner.weigh.clone());
        Arc::new(move |tenant, texts| {
            let cache = tiers().map(|tiers| {
                let cache = Self::new(tiers, &name, Arc::clone(&codec)).of(tenant);
                cache.with(|inner| {
                    inner.options = options.clone();
                    (inner.sealed, inner.weigh) = (sealed, weigh.clone());
                })
            });
            Box::pin(async move {
                let Some(cache) = cache else {
                    return vec![false; texts.len()];
                };
                let found = cache.get_many(texts.into_iter().map(Written)).await;
                found.iter().map(Option::is_some).collect()
            })
        })
    }
}

/// A key whose text is written already.
pub(crate) struct Written(pub(crate) Arc<str>);

impl EntryKey for Written {
    fn write(&self, text: &mut KeyText) {
        text.written(&self.0);
    }

    fn plain(&self) -> Option<&str> {
        Some(&self.0)
    }
}
