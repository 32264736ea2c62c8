//! The caches, all behind one question.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;
use foyer_memory::{CacheBuilder, EvictionConfig, LfuConfig, S3FifoConfig};
use quick_cache::OptionsBuilder;
use quick_cache::sync::DefaultLifecycle;

use crate::tiers::hashed::HashedKey;
use crate::tiers::shelf::{Shelf, Shelved};
use crate::tiers::uses::Uses;

/// How much a cache may hold.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) weight: u64,
    /// How many answers that would be.
    pub(crate) items: usize,
    /// Whether they differ in size.
    pub(crate) is_sized: bool,
}

pub(crate) trait Ask {
    /// Asks for a key, and stores it if it is missing. Says whether it was there.
    fn ask(&mut self, key: u32, size: u64) -> bool;
}

pub(crate) type Build = fn(Room) -> Box<dyn Ask>;

/// In the order of the table. tower-keep is the last.
pub(crate) const CACHES: [(&str, Build); 7] = [
    ("LRU", |room| Box::new(Lru::new(room))),
    ("moka", |room| Box::new(Moka::new(room, false))),
    ("moka, flushed", |room| Box::new(Moka::new(room, true))),
    ("quick_cache", |room| Box::new(Quick::new(room))),
    ("foyer s3fifo", |room| {
        Box::new(Foyer::new(room, S3FifoConfig::default()))
    }),
    ("foyer lfu", |room| {
        Box::new(Foyer::new(room, LfuConfig::default()))
    }),
    ("tower-keep", |room| Box::new(Ours::new(room, |_| None))),
];

/// Least recently used, by the book.
pub(crate) struct Lru {
    room: Room,
    /// When a key was used last, and its size.
    kept: HashMap<u32, (u64, u64), FixedState>,
    by_age: BTreeMap<u64, u32>,
    weight: u64,
    now: u64,
}

impl Lru {
    pub(crate) fn new(room: Room) -> Self {
        Self {
            room,
            kept: HashMap::default(),
            by_age: BTreeMap::new(),
            weight: 0,
            now: 0,
        }
    }
}

impl Lru {
    /// Asks for a key without storing it.
    pub(crate) fn look(&mut self, key: u32) -> bool {
        self.now += 1;
        if let Some((used, _)) = self.kept.get_mut(&key) {
            self.by_age.remove(used);
            *used = self.now;
            self.by_age.insert(self.now, key);
            return true;
        }
        false
    }
}

impl Ask for Lru {
    fn ask(&mut self, key: u32, size: u64) -> bool {
        if self.look(key) {
            return true;
        }
        if size > self.room.weight {
            return false;
        }
        self.weight += size;
        while self.weight > self.room.weight
            && let Some((_, oldest)) = self.by_age.pop_first()
            && let Some((_, size)) = self.kept.remove(&oldest)
        {
            self.weight -= size;
        }
        self.kept.insert(key, (self.now, size));
        self.by_age.insert(self.now, key);
        false
    }
}

struct Moka {
    cache: moka::sync::Cache<u32, u32, FixedState>,
    flushes: bool,
}

impl Moka {
    fn new(room: Room, flushes: bool) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(room.weight);
        let builder = if room.is_sized {
            builder.weigher(|_, size| *size)
        } else {
            builder
        };
        let cache = builder.build_with_hasher(FixedState::default());
        Self { cache, flushes }
    }
}

impl Ask for Moka {
    fn ask(&mut self, key: u32, size: u64) -> bool {
        let is_there = self.cache.get(&key).is_some();
        if !is_there {
            self.cache.insert(key, size.try_into().unwrap_or(u32::MAX));
        }
        if self.flushes {
            self.cache.run_pending_tasks();
        }
        is_there
    }
}

#[derive(Clone, Copy)]
struct BySize;

impl quick_cache::Weighter<u32, u64> for BySize {
    fn weight(&self, _: &u32, size: &u64) -> u64 {
        *size
    }
}

pub(crate) struct Quick(quick_cache::sync::Cache<u32, u64, BySize, FixedState>);

impl Quick {
    pub(crate) fn new(room: Room) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(room.items)
            .weight_capacity(room.weight)
            .shards(1)
            .build();
        let (hasher, lifecycle) = (FixedState::default(), DefaultLifecycle::default());
        Self(match options {
            Ok(options) => {
                quick_cache::sync::Cache::with_options(options, BySize, hasher, lifecycle)
            }
            // Never, as both mandatory numbers are set above.
            Err(_) => {
                quick_cache::sync::Cache::with(room.items, room.weight, BySize, hasher, lifecycle)
            }
        })
    }
}

impl Ask for Quick {
    fn ask(&mut self, key: u32, size: u64) -> bool {
        let is_there = self.0.get(&key).is_some();
        if !is_there {
            self.0.insert(key, size);
        }
        is_there
    }
}

struct Foyer(foyer_memory::Cache<u32, u64, FixedState>);

impl Foyer {
    fn new(room: Room, eviction: impl Into<EvictionConfig>) -> Self {
        let builder = CacheBuilder::new(room.weight as usize)
            .with_shards(1)
            .with_eviction_config(eviction)
            .with_hash_builder(FixedState::default())
            .with_weighter(|_: &u32, size: &u64| *size as usize);
        Self(builder.build())
    }
}

impl Ask for Foyer {
    fn ask(&mut self, key: u32, size: u64) -> bool {
        let is_there = self.0.get(&key).is_some();
        if !is_there {
            self.0.insert(key, size);
        }
        is_there
    }
}

/// A key with its hash, as the hot tier has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hashed(u64);

impl HashedKey for Hashed {
    fn hash_value(&self) -> u64 {
        self.0
    }
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// An answer of so many bytes.
#[derive(Clone)]
struct Answer(Arc<(Uses, u64, Option<u64>)>);

impl Shelved for Answer {
    fn uses(&self) -> Option<&Uses> {
        Some(&self.0.0)
    }

    fn saving(&self) -> Option<u64> {
        self.0.2
    }
}

impl quick_cache::Weighter<Hashed, Answer> for BySize {
    fn weight(&self, _: &Hashed, answer: &Answer) -> u64 {
        answer.0.1
    }
}

pub(crate) struct Ours {
    shelf: Shelf<Hashed, Answer, BySize>,
    /// What a hit of so many bytes saves, if it is weighed by that.
    saving: fn(u64) -> Option<u64>,
}

impl Ours {
    pub(crate) fn new(room: Room, saving: fn(u64) -> Option<u64>) -> Self {
        let shelf = Shelf::new(room.weight, room.items, 1, BySize);
        Self { shelf, saving }
    }
}

impl Ask for Ours {
    fn ask(&mut self, key: u32, size: u64) -> bool {
        let key = Hashed(FixedState::default().hash_one(key));
        let is_there = self.shelf.get(&key).is_some();
        if !is_there {
            let answer = Answer(Arc::new((Uses::default(), size, (self.saving)(size))));
            self.shelf.turn(&key).put(key, answer, |_| true);
        }
        is_there
    }
}
