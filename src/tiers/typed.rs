//! A cache of values of one type, by name.

use std::any::TypeId;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::encoding::{Place, encoded};
use crate::error::ConfigError;
use crate::journal::{Appending, Journal, Marker, Record, Stamp, Subject, Verdict};
use crate::tiers::codec::{Codec, MessagePack};
use crate::tiers::engine::{HotSpace, Tiers};
use crate::tiers::held::{Cached, Kept};
use crate::tiers::key::{EntryKey, HotKeyView, with_text};
use crate::tiers::options::EntryOptions;
use crate::tiers::place::place;
use crate::tiers::tally::{CacheStats, Tally};
use crate::tiers::terms::Terms;

/// A cache of `T`s. Cheap to clone; all clones, and all caches of one name and type, are the same cache.
///
/// See the [room](crate::tiers) for what it promises.
pub struct TypedCache<T> {
    pub(crate) inner: Arc<Inner<T>>,
}

pub(crate) struct Inner<T> {
    pub(crate) tiers: Tiers,
    pub(crate) journal: Journal,
    pub(crate) clock: Clock,
    pub(crate) space: Arc<HotSpace>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) name: Arc<str>,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) options: EntryOptions,
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) sealed: bool,
    pub(crate) weigh: Option<Arc<Weigh<T>>>,
    /// What its keys begin with, encoded.
    prefix: Arc<str>,
    id: u32,
    seed: u64,
    hasher: RandomState,
}

pub(crate) type Weigh<T> = dyn Fn(&T) -> usize + Send + Sync;

impl Tiers {
    /// The cache of this name, for values that serde can write and read. The name is the first part of its
    /// keys in the journal, `report:7`, and its namespace.
    #[must_use]
    pub fn cache<T>(&self, name: &str) -> TypedCache<T>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        TypedCache::new(self.clone(), name, Arc::new(MessagePack))
    }

    /// The same with another way to write values: as [`Json`](crate::tiers::Json), or as you like.
    #[must_use]
    pub fn cache_with<T>(&self, name: &str, codec: impl Codec<T>) -> TypedCache<T>
    where
        T: Send + Sync + 'static,
    {
        TypedCache::new(self.clone(), name, Arc::new(codec))
    }
}

impl<T: Send + Sync + 'static> TypedCache<T> {
    pub(crate) fn new(tiers: Tiers, name: &str, codec: Arc<dyn Codec<T>>) -> Self {
        let name: Arc<str> = name.into();
        let (id, tally, space) = tiers.enter(&name, TypeId::of::<T>(), None);
        let hasher = tiers.hasher();
        let cache = Self {
            inner: Arc::new(Inner {
                journal: tiers.journal().clone(),
                clock: tiers.clock().clone(),
                space,
                tally,
                prefix: format!("{}:", encoded(&name, Place::Name)).into(),
                name,
                tenant: None,
                options: EntryOptions::new(),
                codec,
                sealed: false,
                weigh: None,
                id,
                seed: hasher.hash_one(id),
                hasher,
                tiers,
            }),
        };
        cache.note_opened(id, false);
        cache
    }

    /// Whoever fetches its entries from now on does it as was said of it last.
    fn said(self) -> Self {
        self.note_opened(self.inner.id, true);
        self
    }

    pub(crate) fn with(self, change: impl FnOnce(&mut Inner<T>)) -> Self {
        let mut inner = (*self.inner).clone();
        change(&mut inner);
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same cache for one tenant: its entries are its own, in its own memory, and what is purged here is
    /// purged for this tenant alone. Costs two lookups and an allocation, so ask for it with each request: where more
    /// than `tenants_max` tenants come, the one that was idle for longest loses its memory, and a handle of it that
    /// was kept does without.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        self.of(Some(tenant.into()))
    }

    /// The same cache for this tenant, or for nobody in particular.
    pub(crate) fn of(&self, tenant: Option<Arc<str>>) -> Self {
        let inner = &self.inner;
        let (_, tally, space) = inner
            .tiers
            .enter(&inner.name, TypeId::of::<T>(), tenant.as_ref());
        if tenant.is_some() {
            space.touched(inner.clock.now());
        }
        self.clone().with(|inner| {
            inner.seed = match &tenant {
                Some(tenant) => inner.hasher.hash_one((inner.id, tenant)),
                None => inner.hasher.hash_one(inner.id),
            };
            (inner.tally, inner.space, inner.tenant) = (tally, space, tenant);
        })
    }

    /// The same cache, whose entries have these options where a call says nothing else.
    #[must_use]
    pub fn options(self, options: EntryOptions) -> Self {
        self.with(|inner| inner.options = options).said()
    }

    /// Says what a value takes up in memory, in bytes. Without it that is estimated by what it takes up when
    /// it is written.
    #[must_use]
    pub fn weigher(self, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.with(|inner| inner.weigh = Some(Arc::new(weigh)))
            .said()
    }

    /// The same cache, whose entries are encrypted in Redis and in the cold store, and whose keys are hashed
    /// there. (Whoever can guess a key can find out whether there is an entry for it.)
    ///
    /// # Errors
    ///
    /// Where there are no keys to seal with.
    pub fn sealed(self) -> Result<Self, ConfigError> {
        if self.inner.tiers.seals().is_none() {
            let allowed = "needs keys: see KeepBuilder::seal_keys and the feature `encryption`";
            return Err(ConfigError::one("tiers.seals", "none", allowed));
        }
        Ok(self.with(|inner| inner.sealed = true).said())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.inner.tenant.as_deref()
    }

    /// The key by which rules and patterns of the invalidator name an entry: `report:7:weekly`.
    #[must_use]
    pub fn journal_key(&self, key: impl EntryKey) -> String {
        with_text(&key, |text| self.inner.journal_key(text))
    }

    /// A fresh value from this process' memory, or nothing. Never waits.
    #[must_use]
    pub fn peek(&self, key: impl EntryKey) -> Option<Cached<T>> {
        let inner = &self.inner;
        let kept = with_text(&key, |text| inner.space.peek(&inner.view(text)))?;
        let meta = kept.meta();
        let now = inner.clock.now();
        let life = meta.life;
        let fresh = now < life.fresh_until.min(life.hot_until)
            && meta.verdict(&inner.journal, now) == Verdict::Fresh;
        if fresh { kept.typed() } else { None }
    }

    /// Purges an entry: no instance serves what was computed before, once this has been awaited.
    pub fn purge(&self, key: impl EntryKey) -> Appending {
        self.append([self.marker(&key)], false)
    }

    /// Expires an entry: it is served as a stale one may be, and computed anew.
    pub fn expire(&self, key: impl EntryKey) -> Appending {
        self.append([self.marker(&key)], true)
    }

    /// Purges all entries with this tag, those of other caches included: this tenant's, if it is one's.
    pub fn purge_tag(&self, tag: &str) -> Appending {
        self.append([Marker::tag(tag)], false)
    }

    /// Purges all entries of this cache: this tenant's, if it is one's.
    pub fn purge_all(&self) -> Appending {
        self.append([Marker::namespace(&self.inner.name)], false)
    }

    fn marker(&self, key: &impl EntryKey) -> Marker {
        Marker::key(&with_text(key, |text| self.inner.journal_key(text)))
    }

    fn append(&self, markers: [Marker; 1], soft: bool) -> Appending {
        let inner = &self.inner;
        let mut record = Record::of(markers).soft(soft);
        if let Some(tenant) = &inner.tenant {
            record = record.of_tenant(tenant);
        }
        inner.journal.append(record)
    }

    /// What this cache has done so far: for this tenant, if it is one's.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let inner = &self.inner;
        let (mut entries, mut bytes) = (0, 0);
        let own = Tally::id(&inner.tally);
        let living = inner.space.iter().filter_map(|(_, kept)| {
            let meta = kept.meta();
            (meta.tally_id() == own).then(|| {
                (entries, bytes) = (entries + 1, bytes + meta.bytes as u64);
                (u64::from(meta.hits()), meta.cost)
            })
        });
        let mut stats = inner.tally.stats(living);
        (stats.entries, stats.bytes) = (entries, bytes);
        stats
    }
}

impl<T> Inner<T> {
    #[inline]
    pub(crate) fn view<'a>(&self, text: &'a str) -> HotKeyView<'a> {
        HotKeyView {
            hash: self.hasher.hash_one((self.seed, text)),
            cache: self.id,
            text,
        }
    }

    pub(crate) fn journal_key(&self, text: &str) -> String {
        [&*self.prefix, text].concat()
    }

    /// What tells the entry apart from all others, of other tenants too.
    pub(crate) fn identity(&self, text: &str) -> Arc<str> {
        match &self.tenant {
            Some(tenant) => {
                let tenant = encoded(tenant, Place::Name);
                [&*tenant, "/", &self.prefix, text].concat().into()
            }
            None => self.journal_key(text).into(),
        }
    }

    /// Its key in Redis and in the cold store.
    pub(crate) fn place(&self, text: &str) -> Arc<str> {
        let tenant = self.tenant.as_deref();
        let prefix = self.tiers.prefix();
        place(prefix, tenant, (&self.name, text), self.sealed)
    }

    pub(crate) fn subject(&self, text: &str, tags: impl Iterator<Item: AsRef<str>>) -> Subject {
        let subject = Subject::named(self.journal_key(text), tags, Some(&self.name));
        match &self.tenant {
            Some(tenant) => subject.of_tenant(tenant),
            None => subject,
        }
    }

    /// Where the journal stands for its entries.
    pub(crate) fn position(&self) -> Stamp {
        match &self.tenant {
            Some(tenant) => self.journal.position_for(tenant),
            None => self.journal.position(),
        }
    }

    pub(crate) fn terms(&self, options: &EntryOptions) -> Terms {
        let tiers = &self.tiers;
        Terms::of(
            &options.over(&self.options),
            tiers.config(),
            tiers.is_alone(),
        )
    }

    /// What a value takes up that has so many bytes when it is written.
    pub(crate) fn weight(&self, value: &T, written: usize) -> usize {
        self.weigh.as_ref().map_or(written, |weigh| weigh(value))
    }

    /// Whether what values take up can be told without writing them.
    pub(crate) fn can_weigh(&self) -> bool {
        self.weigh.is_some()
    }

    /// Keeps a value in memory, unless a younger one is there or what would have to go is worth more.
    pub(crate) fn keep(&self, text: &str, kept: Kept) {
        let now = self.clock.now();
        let (meta, key) = (kept.meta(), self.view(text).to_owned());
        if now >= meta.life.hot_until {
            return;
        }
        let mut turn = self.space.turn(&key, meta.bytes as u64);
        let younger = self.space.peek(&self.view(text)).is_some_and(|old| {
            let (old, new) = (old.meta().born, meta.born);
            old.inc == new.inc && old.seq > new.seq
        });
        if younger {
            return;
        }
        turn.put(key, kept, |other| {
            let verdict = other.meta().verdict(&self.journal, now);
            // One of which that is not known yet may still turn out to be fresh.
            now < other.meta().life.fresh_until
                && matches!(verdict, Verdict::Fresh | Verdict::Unverified)
        });
    }

    /// Takes `old` out of memory, if it is still there.
    pub(crate) fn drop_out(&self, text: &str, old: &Kept) {
        let key = self.view(text).to_owned();
        let turn = self.space.turn(&key, 0);
        if self
            .space
            .peek(&self.view(text))
            .is_some_and(|kept| kept.is(old))
        {
            turn.remove(&key);
        }
    }
}

impl<T> Clone for TypedCache<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T> Clone for Inner<T> {
    fn clone(&self) -> Self {
        Self {
            tiers: self.tiers.clone(),
            journal: self.journal.clone(),
            clock: self.clock.clone(),
            space: Arc::clone(&self.space),
            tally: Arc::clone(&self.tally),
            name: Arc::clone(&self.name),
            tenant: self.tenant.clone(),
            options: self.options.clone(),
            codec: Arc::clone(&self.codec),
            sealed: self.sealed,
            weigh: self.weigh.clone(),
            prefix: Arc::clone(&self.prefix),
            id: self.id,
            seed: self.seed,
            hasher: self.hasher.clone(),
        }
    }
}

impl<T> fmt::Debug for TypedCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedCache")
            .field("name", &self.inner.name)
            .field("tenant", &self.inner.tenant)
            .finish_non_exhaustive()
    }
}
